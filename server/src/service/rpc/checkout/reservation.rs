//! Shared by the RPCs that name a reservation: they decode its id, bind an operation to its partition,
//! decode changes of some lines, and unpack the outcome. No I/O.

use inventory_sentinel::v1;
use tokio::time::Instant;

use crate::{
    domain::{Id, Invalid, Line, NamespaceName, Operation, Outcome, RequestId, Reservation, ReservationId},
    failure::Failure,
    namespaces::Namespace,
    service::{
        convert,
        dispatch::{BoundOperation, Route, check_age, lane_of_reservation, unexpected},
    },
};

/// The namespace and the reservation that a request names.
pub(super) fn decode_target(
    namespace_id: String,
    reservation_id: &str,
) -> Result<(NamespaceName, ReservationId), Failure> {
    Ok((NamespaceName::parse(namespace_id)?, ReservationId::parse(reservation_id)?))
}

/// Binds an operation to the partition of a reservation. Refuses the id if there is no such partition.
pub(super) fn bind_to(
    namespace: &Namespace,
    id: ReservationId,
    operation: impl FnOnce() -> Result<Operation, Failure>,
) -> Result<BoundOperation, Failure> {
    lane_of_reservation(namespace, id)?;
    Ok(BoundOperation { route: Route::Partition(id.partition), operation: operation()? })
}

/// The identity of a change of this reservation.
pub(super) fn change_identity(
    namespace: &Namespace,
    id: ReservationId,
    request: &RequestId,
    arrived_at: Instant,
) -> Result<Id, Failure> {
    check_age(namespace, lane_of_reservation(namespace, id)?, request, arrived_at)?;
    Ok(namespace.identity(request))
}

/// A change of some lines of a reservation.
pub(super) struct PartialChange {
    pub(super) lines: Vec<Line>,
    pub(super) request_id: RequestId,
}

impl PartialChange {
    /// `None` if the request changes the whole reservation, which needs no identity.
    pub(super) fn decode(lines: Vec<v1::Line>, request_id: String) -> Result<Option<Self>, Invalid> {
        if lines.is_empty() {
            RequestId::parse_optional(request_id)?;
            return Ok(None);
        }
        Ok(Some(Self { lines: convert::lines(lines)?, request_id: RequestId::parse(request_id)? }))
    }
}

/// The reservation after the operation, and whether the outcome is a replay.
pub(super) fn reservation_of(outcome: Outcome) -> Result<(Reservation, bool), Failure> {
    match outcome {
        Outcome::Reservation { reservation, replayed } => Ok((reservation, replayed)),
        other => Err(unexpected(&other)),
    }
}
