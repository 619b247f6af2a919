//! Rollback: gives back the units of a reservation, or of some of its lines. No I/O.

use inventory_sentinel::v1;
use tokio::time::Instant;

use super::reservation::{PartialChange, bind_to, change_identity, decode_target, reservation_of};
use crate::{
    domain::{NamespaceName, Operation, Outcome, ReservationId},
    failure::Failure,
    namespaces::Namespace,
    service::{
        convert,
        dispatch::{BoundOperation, LaneRpc},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct Rollback {
    id: ReservationId,
    part: Option<PartialChange>,
}

impl LaneRpc for Rollback {
    type Request = v1::RollbackRequest;
    type Response = v1::RollbackResponse;
    const KIND: RpcKind = RpcKind::Rollback;

    fn decode(request: v1::RollbackRequest) -> Result<(NamespaceName, Self), Failure> {
        let v1::RollbackRequest { namespace_id, reservation_id, request_id, lines } = request;
        let part = PartialChange::decode(lines, request_id)?;
        let (name, id) = decode_target(namespace_id, &reservation_id)?;
        Ok((name, Self { id, part }))
    }

    fn bind(self, namespace: &Namespace, arrived_at: Instant) -> Result<BoundOperation, Failure> {
        let Self { id, part } = self;
        bind_to(namespace, id, || {
            Ok(match part {
                Some(PartialChange { lines, request_id }) => {
                    let memo = change_identity(namespace, id, &request_id, arrived_at)?;
                    Operation::RollbackLines { memo, id, lines }
                }
                None => Operation::Rollback(id),
            })
        })
    }

    fn encode(namespace: &Namespace, outcome: Outcome, sequence: i64) -> Result<v1::RollbackResponse, Failure> {
        let (reservation, replayed) = reservation_of(outcome)?;
        let reservation = Some(convert::reservation(namespace, reservation));
        Ok(v1::RollbackResponse { reservation, replayed, sequence })
    }
}
