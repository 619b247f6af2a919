//! Extend: moves the deadline of a reservation. No I/O.

use std::time::Duration;

use inventory_sentinel::v1;
use tokio::time::Instant;

use super::reservation::{bind_to, change_identity, decode_target, reservation_of};
use crate::{
    domain::{MAX_TTL, NamespaceName, Operation, Outcome, RequestId, ReservationId, State, Ttl},
    failure::Failure,
    namespaces::Namespace,
    service::{
        convert,
        dispatch::{BoundOperation, LaneRpc},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct Extend {
    id: ReservationId,
    request_id: RequestId,
    /// Validated against the longest ttl of any namespace. `bind` checks the limit of this one.
    ttl: prost_types::Duration,
}

impl LaneRpc for Extend {
    type Request = v1::ExtendRequest;
    type Response = v1::ExtendResponse;
    const KIND: RpcKind = RpcKind::Extend;

    fn decode(request: v1::ExtendRequest) -> Result<(NamespaceName, Self), Failure> {
        let v1::ExtendRequest { namespace_id, reservation_id, ttl, request_id } = request;
        let request_id = RequestId::parse(request_id)?;
        let ttl = ttl.unwrap_or_default();
        Ttl::parse(ttl.seconds, ttl.nanos, MAX_TTL)?;
        let (name, id) = decode_target(namespace_id, &reservation_id)?;
        Ok((name, Self { id, request_id, ttl }))
    }

    fn bind(self, namespace: &Namespace, arrived_at: Instant) -> Result<BoundOperation, Failure> {
        let Self { id, request_id, ttl } = self;
        bind_to(namespace, id, || {
            let ttl = Ttl::parse(ttl.seconds, ttl.nanos, namespace.config.max_ttl)?;
            Ok(Operation::Extend { memo: change_identity(namespace, id, &request_id, arrived_at)?, id, ttl })
        })
    }

    fn encode(namespace: &Namespace, outcome: Outcome, sequence: i64) -> Result<v1::ExtendResponse, Failure> {
        let (reservation, replayed) = reservation_of(outcome)?;
        let latest = reservation.created_at.0 + namespace.config.max_life.as_millis() as u64;
        let is_pending = reservation.state == State::Pending;
        let left = if is_pending { latest.saturating_sub(reservation.expires_at.0) } else { 0 };
        Ok(v1::ExtendResponse {
            extendable: Some(convert::duration(Duration::from_millis(left))),
            reservation: Some(convert::reservation(namespace, reservation)),
            replayed,
            sequence,
        })
    }
}
