//! Reserve: holds all units of a cart, or none. No I/O.

use inventory_sentinel::{
    Reason,
    v1::{self, reserve_response},
};
use tokio::time::Instant;

use crate::{
    domain::{
        BuyerId, Invalid, Line, MAX_TTL, NamespaceName, Operation, Outcome, RequestId, ReservationId, State, Ttl,
    },
    failure::Failure,
    namespaces::Namespace,
    service::{
        convert,
        dispatch::{BoundOperation, LaneRpc, Route, check_age, lane_of_reservation, unexpected},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct Reserve {
    request_id: RequestId,
    lines: Vec<Line>,
    /// Validated against the longest ttl of any namespace. `bind` checks the limit of this one.
    ttl: Option<prost_types::Duration>,
    buyer: BuyerId,
    replaces: Option<ReservationId>,
    is_first_attempt: bool,
}

impl LaneRpc for Reserve {
    type Request = v1::ReserveRequest;
    type Response = v1::ReserveResponse;
    const KIND: RpcKind = RpcKind::Reserve;

    fn first_attempt(request: &mut v1::ReserveRequest) -> Option<&mut bool> {
        Some(&mut request.first_attempt)
    }

    fn decode(request: v1::ReserveRequest) -> Result<(NamespaceName, Self), Failure> {
        let v1::ReserveRequest {
            namespace_id,
            request_id,
            lines,
            ttl,
            buyer_id,
            replaces_reservation_id,
            first_attempt: is_first_attempt,
        } = request;
        let name = NamespaceName::parse(namespace_id)?;
        let request_id = RequestId::parse(request_id)?;
        let lines = convert::lines(lines)?;
        let buyer = BuyerId::parse(buyer_id)?;
        let replaces = decode_replaced(&replaces_reservation_id)?;
        ttl.as_ref().map(|ttl| Ttl::parse(ttl.seconds, ttl.nanos, MAX_TTL)).transpose()?;
        Ok((name, Self { request_id, lines, ttl, buyer, replaces, is_first_attempt }))
    }

    fn bind(self, namespace: &Namespace, arrived_at: Instant) -> Result<BoundOperation, Failure> {
        let Self { request_id, lines, ttl, buyer, replaces, is_first_attempt } = self;
        let longest = namespace.config.max_ttl;
        let ttl = ttl.map(|ttl| Ttl::parse(ttl.seconds, ttl.nanos, longest)).transpose()?;
        let partition = partition_of(namespace, &lines)?;
        let id = namespace.reservation_id(&request_id, partition);
        check_age(namespace, lane_of_reservation(namespace, id)?, &request_id, arrived_at)?;
        if replaces.is_some_and(|replaced| replaced.partition != partition) {
            return Err(Failure::new(Reason::CrossPartitionCart));
        }
        let replaces = replaces.map(|replaced| replaced.id);
        let operation = Operation::Reserve { id, lines, ttl, buyer, replaces, is_first_attempt };
        Ok(BoundOperation { route: Route::Partition(partition), operation })
    }

    fn encode(namespace: &Namespace, outcome: Outcome, sequence: i64) -> Result<v1::ReserveResponse, Failure> {
        let (result, replayed) = match outcome {
            Outcome::Reservation { reservation, replayed } => {
                let branch = match reservation.state {
                    State::Pending => reserve_response::Result::Reservation,
                    State::Committed => reserve_response::Result::AlreadyPurchased,
                    // A late Commit has bought the units.
                    State::Expired if reservation.purchase.is_some() => reserve_response::Result::AlreadyPurchased,
                    State::RolledBack | State::Expired => reserve_response::Result::AlreadyReleased,
                };
                (branch(convert::reservation(namespace, reservation)), replayed)
            }
            Outcome::Shortage(lines) => (reserve_response::Result::Shortage(convert::shortage(lines)), false),
            other => return Err(unexpected(&other)),
        };
        Ok(v1::ReserveResponse { result: Some(result), replayed, sequence })
    }

    fn is_shortage(response: &v1::ReserveResponse) -> bool {
        matches!(response.result, Some(reserve_response::Result::Shortage(_)))
    }
}

/// Decodes the id of the reservation to replace, if the request names one.
fn decode_replaced(reservation_id: &str) -> Result<Option<ReservationId>, Invalid> {
    if reservation_id.is_empty() {
        return Ok(None);
    }
    let field = "replaces_reservation_id";
    ReservationId::parse(reservation_id).map(Some).map_err(|invalid| Invalid { field: field.into(), ..invalid })
}

/// The partition that all lines share; otherwise CROSS_PARTITION_CART.
fn partition_of(namespace: &Namespace, lines: &[Line]) -> Result<u16, Failure> {
    let partition = namespace.partition_of(&lines[0].sku);
    if lines[1..].iter().any(|line| namespace.partition_of(&line.sku) != partition) {
        return Err(Failure::new(Reason::CrossPartitionCart));
    }
    Ok(partition)
}
