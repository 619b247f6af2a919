//! GetReservation: reads a reservation by its id, or by the request_id that created it. No I/O.

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;

use super::reservation::reservation_of;
use crate::{
    domain::{Invalid, NamespaceName, Operation, Outcome, RequestId, ReservationId},
    failure::Failure,
    namespaces::Namespace,
    service::{
        convert,
        dispatch::{BoundOperation, LaneRpc, Route, lane_of_reservation},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) enum GetReservation {
    ById(ReservationId),
    ByRequestId(RequestId),
}

impl LaneRpc for GetReservation {
    type Request = v1::GetReservationRequest;
    type Response = v1::GetReservationResponse;
    const KIND: RpcKind = RpcKind::GetReservation;

    fn decode(request: v1::GetReservationRequest) -> Result<(NamespaceName, Self), Failure> {
        let v1::GetReservationRequest { namespace_id, reservation_id, request_id } = request;
        let name = NamespaceName::parse(namespace_id)?;
        let get = match RequestId::parse_optional(request_id)? {
            Some(_) if !reservation_id.is_empty() => {
                let invalid = Invalid::new(Reason::InvalidRequestId, "request_id");
                return Err(invalid.because("name one of the two ids").into());
            }
            Some(request_id) => Self::ByRequestId(request_id),
            None => Self::ById(ReservationId::parse(&reservation_id)?),
        };
        Ok((name, get))
    }

    fn bind(self, namespace: &Namespace, _: Instant) -> Result<BoundOperation, Failure> {
        let (id, route) = match self {
            Self::ByRequestId(request) => (namespace.reservation_id(&request, 0), Route::EveryPartition),
            Self::ById(id) => {
                lane_of_reservation(namespace, id)?;
                (id, Route::Partition(id.partition))
            }
        };
        Ok(BoundOperation { route, operation: Operation::GetReservation(id) })
    }

    fn encode(namespace: &Namespace, outcome: Outcome, sequence: i64) -> Result<v1::GetReservationResponse, Failure> {
        let (reservation, _) = reservation_of(outcome)?;
        let reservation = Some(convert::reservation(namespace, reservation));
        Ok(v1::GetReservationResponse { reservation, sequence })
    }
}
