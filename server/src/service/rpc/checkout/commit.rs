//! Commit: makes the sale of a reservation, or of some of its lines, final. No I/O.

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;

use super::reservation::{PartialChange, bind_to, change_identity, decode_target, reservation_of};
use crate::{
    domain::{Invalid, NamespaceName, Operation, Outcome, ReservationId},
    failure::Failure,
    namespaces::Namespace,
    service::{
        convert,
        dispatch::{BoundOperation, LaneRpc},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct Commit {
    id: ReservationId,
    part: Option<PartialChange>,
    /// Whether an expired reservation is bought again.
    repurchases: bool,
    /// Whether the lines that are not sold stay held.
    keep_rest: bool,
}

impl LaneRpc for Commit {
    type Request = v1::CommitRequest;
    type Response = v1::CommitResponse;
    const KIND: RpcKind = RpcKind::Commit;

    fn decode(request: v1::CommitRequest) -> Result<(NamespaceName, Self), Failure> {
        let v1::CommitRequest { namespace_id, reservation_id, request_id, late_policy, lines, rest_policy } = request;
        let repurchases = repurchases(late_policy, !lines.is_empty())?;
        let keep_rest = keeps_rest(rest_policy, !lines.is_empty())?;
        let part = PartialChange::decode(lines, request_id)?;
        let (name, id) = decode_target(namespace_id, &reservation_id)?;
        Ok((name, Self { id, part, repurchases, keep_rest }))
    }

    fn bind(self, namespace: &Namespace, arrived_at: Instant) -> Result<BoundOperation, Failure> {
        let Self { id, part, repurchases, keep_rest } = self;
        bind_to(namespace, id, || {
            Ok(match part {
                Some(PartialChange { lines, request_id }) => {
                    let memo = change_identity(namespace, id, &request_id, arrived_at)?;
                    Operation::CommitLines { memo, id, lines, keep_rest }
                }
                None => Operation::Commit { id, purchase: repurchases.then(|| namespace.purchase_of(id)) },
            })
        })
    }

    fn encode(namespace: &Namespace, outcome: Outcome, sequence: i64) -> Result<v1::CommitResponse, Failure> {
        let (reservation, replayed) = reservation_of(outcome)?;
        let reservation = Some(convert::reservation(namespace, reservation));
        Ok(v1::CommitResponse { reservation, replayed, sequence })
    }
}

/// Decodes `late_policy`. Only a Commit of the whole reservation can repurchase.
fn repurchases(policy: i32, in_part: bool) -> Result<bool, Invalid> {
    match v1::LatePolicy::try_from(policy) {
        Ok(v1::LatePolicy::Repurchase) if !in_part => Ok(true),
        Ok(v1::LatePolicy::Unspecified | v1::LatePolicy::Refuse) => Ok(false),
        _ => Err(Invalid::new(Reason::InvalidPolicy, "late_policy")),
    }
}

/// Decodes `rest_policy`. Only a Commit of some lines has a rest.
fn keeps_rest(policy: i32, in_part: bool) -> Result<bool, Invalid> {
    match v1::RestPolicy::try_from(policy) {
        Ok(v1::RestPolicy::Unspecified) => Ok(false),
        Ok(policy) if in_part => Ok(policy == v1::RestPolicy::Keep),
        _ => Err(Invalid::new(Reason::InvalidPolicy, "rest_policy")),
    }
}
