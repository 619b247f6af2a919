//! What a request of the checkout service asks, as an operation for a lane. Each is read in two steps: what it says by
//! itself, and what that means in its namespace, which may have to be found in between. Reading does no I/O.

use std::sync::Arc;

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;

use super::{check_age, convert, hear, lane_in, lane_of, status::Failure};
use crate::{
    domain::{
        BuyerId, Id, Invalid, Line, MAX_TTL, NamespaceName, Operation, Outcome, RequestId, ReservationId, Sku, Ttl,
    },
    lane::{Lane, Pending},
    namespaces::Namespace,
};

/// A request that was read: the namespace that it is for, and what it asks once it is known whether there is one.
pub(super) type Read<A> = Result<(NamespaceName, A), Failure>;

/// Makes of a request and of its namespace an operation for one of its partitions.
pub(super) trait Ask: FnOnce(Option<Arc<Namespace>>) -> Result<Asked, Failure> + Send {}

impl<A: FnOnce(Option<Arc<Namespace>>) -> Result<Asked, Failure> + Send> Ask for A {}

/// What a request asks of a lane: parsed, and on its way to the partition that it is for.
pub(super) struct Asked {
    namespace: Arc<Namespace>,
    place: Place,
    operation: Operation,
}

/// Where an operation goes.
enum Place {
    Partition(u16),
    /// GetReservation by its request id: to every partition.
    Everywhere,
}

impl Asked {
    /// What a request asks of a reservation.
    fn of(Target { namespace, id }: Target, operation: Operation) -> Self {
        Self { namespace, place: Place::Partition(id.partition), operation }
    }

    /// Puts it into its lane.
    pub(super) fn submit(self, deadline: Instant) -> Result<InLane, Failure> {
        let Self { namespace, place, operation } = self;
        let (first, others) = match place {
            Place::Partition(partition) => (partition, None),
            Place::Everywhere => (0, Some(search_others(&namespace, &operation, deadline)?)),
        };
        let pending = lane_in(&namespace, first)?.submit(operation, deadline)?;
        Ok(InLane { namespace, pending, others })
    }
}

/// What was asked is in its lane; the namespace is what its answer is told with.
pub(super) struct InLane {
    namespace: Arc<Namespace>,
    pending: Pending,
    /// The same in the other partitions, where the reservation may lie in any.
    others: Option<Box<[Pending]>>,
}

impl InLane {
    /// Waits for the answer, and tells it.
    pub(super) async fn told<T>(
        self,
        tell: impl FnOnce(&Namespace, Outcome, i64) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // The search is apart: what a call keeps while it waits stays small.
        let found = match self.others {
            None => hear(self.pending).await,
            Some(others) => Box::pin(newest(self.pending, others)).await,
        };
        match found {
            Ok((outcome, sequence)) => tell(&self.namespace, outcome, sequence),
            Err(failure) => Err(failure.within(&self.namespace.name)),
        }
    }
}

/// The search for a reservation in every partition but the first.
fn search_others(namespace: &Namespace, operation: &Operation, deadline: Instant) -> Result<Box<[Pending]>, Failure> {
    let Operation::GetReservation(ReservationId { id, .. }) = *operation else { return Ok(Box::default()) };
    let search = |(partition, lane): (u16, &Lane)| {
        Ok(lane.submit(Operation::GetReservation(ReservationId { id, partition }), deadline)?)
    };
    (0..).zip(namespace.lanes()).skip(1).map(search).collect()
}

/// The reservation that was made last among these answers. Where there is none, a refusal that leaves open whether there
/// is one comes first.
async fn newest(first: Pending, others: Box<[Pending]>) -> Result<(Outcome, i64), Failure> {
    let made = |found: &Result<(Outcome, i64), Failure>| match found {
        Ok((Outcome::Reservation { reservation, .. }, _)) => Some(reservation.created_at),
        _ => None,
    };
    let is_open = |found: &Result<(Outcome, i64), Failure>| {
        found.as_ref().is_err_and(|failure| failure.reason() != Reason::ReservationNotFound)
    };
    let mut best = hear(first).await;
    for pending in others {
        let found = hear(pending).await;
        if made(&found) > made(&best) || made(&best).is_none() && is_open(&found) {
            best = found;
        }
    }
    best
}

pub(super) fn read_reserve(request: v1::ReserveRequest, came: Instant) -> Read<impl Ask> {
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
    let replaces = replaced(&replaces_reservation_id)?;
    let ttl_up_to = move |longest| ttl.as_ref().map(|ttl| Ttl::parse(ttl.seconds, ttl.nanos, longest)).transpose();
    // What a namespace that does not exist would allow at most.
    ttl_up_to(MAX_TTL)?;
    let ask = move |namespace: Option<Arc<Namespace>>| {
        let Some(namespace) = namespace else {
            return Err(Failure::new(Reason::NamespaceNotFound));
        };
        let ttl = ttl_up_to(namespace.config.max_ttl)?;
        let partition = partition_of(&namespace, &lines)?;
        let id = namespace.reservation_id(&request_id, partition);
        check_age(&namespace, lane_of(&namespace, id)?, &request_id, came)?;
        if replaces.is_some_and(|replaced| replaced.partition != partition) {
            return Err(Failure::new(Reason::CrossPartitionCart));
        }
        let replaces = replaces.map(|replaced| replaced.id);
        let operation = Operation::Reserve { id, lines, ttl, buyer, replaces, is_first_attempt };
        Ok(Asked { namespace, place: Place::Partition(partition), operation })
    };
    Ok((name, ask))
}

pub(super) fn read_commit(request: v1::CommitRequest, came: Instant) -> Read<impl Ask> {
    let v1::CommitRequest { namespace_id, reservation_id, request_id, late_policy, lines, rest_policy } = request;
    let buys_anew = buys_anew(late_policy, !lines.is_empty())?;
    let keep_rest = keeps_rest(rest_policy, !lines.is_empty())?;
    let part = part(lines, request_id)?;
    read_target(namespace_id, reservation_id, move |target| {
        let operation = match part {
            Some((lines, request_id)) => {
                let memo = target.memo(&request_id, came)?;
                Operation::CommitLines { memo, id: target.id, lines, keep_rest }
            }
            None => {
                let purchase = buys_anew.then(|| target.namespace.purchase_of(target.id));
                Operation::Commit { id: target.id, purchase }
            }
        };
        Ok(Asked::of(target, operation))
    })
}

pub(super) fn read_rollback(request: v1::RollbackRequest, came: Instant) -> Read<impl Ask> {
    let v1::RollbackRequest { namespace_id, reservation_id, request_id, lines } = request;
    let part = part(lines, request_id)?;
    read_target(namespace_id, reservation_id, move |target| {
        let operation = match part {
            Some((lines, request_id)) => {
                let memo = target.memo(&request_id, came)?;
                Operation::RollbackLines { memo, id: target.id, lines }
            }
            None => Operation::Rollback(target.id),
        };
        Ok(Asked::of(target, operation))
    })
}

pub(super) fn read_extend(request: v1::ExtendRequest, came: Instant) -> Read<impl Ask> {
    let v1::ExtendRequest { namespace_id, reservation_id, ttl, request_id } = request;
    let request_id = RequestId::parse(request_id)?;
    let ttl = ttl.unwrap_or_default();
    Ttl::parse(ttl.seconds, ttl.nanos, MAX_TTL)?;
    read_target(namespace_id, reservation_id, move |target| {
        let ttl = Ttl::parse(ttl.seconds, ttl.nanos, target.namespace.config.max_ttl)?;
        let operation = Operation::Extend { memo: target.memo(&request_id, came)?, id: target.id, ttl };
        Ok(Asked::of(target, operation))
    })
}

pub(super) fn read_get_reservation(request: v1::GetReservationRequest) -> Read<impl Ask> {
    let v1::GetReservationRequest { namespace_id, reservation_id, request_id } = request;
    let name = NamespaceName::parse(namespace_id)?;
    let request_id = RequestId::parse_optional(request_id)?;
    if request_id.is_some() && !reservation_id.is_empty() {
        return Err(Invalid::new(Reason::InvalidRequestId, "request_id").because("name one of the two ids").into());
    }
    let id = if request_id.is_none() { Some(ReservationId::parse(&reservation_id)?) } else { None };
    let ask = move |namespace: Option<Arc<Namespace>>| {
        let namespace = namespace.ok_or_else(|| Failure::new(Reason::NamespaceNotFound))?;
        let (id, place) = match (id, request_id) {
            (None, Some(request)) => (namespace.reservation_id(&request, 0), Place::Everywhere),
            (Some(id), _) => {
                lane_of(&namespace, id)?;
                (id, Place::Partition(id.partition))
            }
            (None, None) => return Err(Invalid::new(Reason::InvalidReservationId, "reservation_id").into()),
        };
        Ok(Asked { namespace, place, operation: Operation::GetReservation(id) })
    };
    Ok((name, ask))
}

pub(super) fn read_stock(namespace_id: String, sku: String) -> Read<impl Ask> {
    read_sku(namespace_id, sku, |sku| Operation::GetStock { sku })
}

pub(super) fn read_is_protected(namespace_id: String, sku: String) -> Read<impl Ask> {
    read_sku(namespace_id, sku, |sku| Operation::IsProtected { sku })
}

fn read_sku(namespace_id: String, sku: String, operation: fn(Sku) -> Operation) -> Read<impl Ask> {
    let name = NamespaceName::parse(namespace_id)?;
    let sku = Sku::parse(sku, "sku")?;
    let ask = move |namespace: Option<Arc<Namespace>>| match namespace {
        Some(namespace) => {
            Ok(Asked { place: Place::Partition(namespace.partition_of(&sku)), operation: operation(sku), namespace })
        }
        None => Err(Failure::new(Reason::NamespaceNotFound)),
    };
    Ok((name, ask))
}

/// Reads which reservation a request names, of which it asks this.
fn read_target(
    namespace_id: String,
    reservation_id: String,
    ask: impl FnOnce(Target) -> Result<Asked, Failure> + Send,
) -> Read<impl Ask> {
    let name = NamespaceName::parse(namespace_id)?;
    let id = ReservationId::parse(&reservation_id)?;
    let ask = move |namespace: Option<Arc<Namespace>>| {
        let namespace = namespace.ok_or_else(|| Failure::new(Reason::NamespaceNotFound))?;
        lane_of(&namespace, id)?;
        ask(Target { namespace, id })
    };
    Ok((name, ask))
}

/// A reservation that a request names, in its namespace.
struct Target {
    namespace: Arc<Namespace>,
    id: ReservationId,
}

impl Target {
    /// The identity of a change of this reservation.
    fn memo(&self, request: &RequestId, came: Instant) -> Result<Id, Failure> {
        check_age(&self.namespace, lane_of(&self.namespace, self.id)?, request, came)?;
        Ok(self.namespace.identity(request))
    }
}

/// The reservation to replace, if one is named.
fn replaced(reservation_id: &str) -> Result<Option<ReservationId>, Invalid> {
    if reservation_id.is_empty() {
        return Ok(None);
    }
    let field = "replaces_reservation_id";
    ReservationId::parse(reservation_id).map(Some).map_err(|invalid| Invalid { field: field.into(), ..invalid })
}

/// The lines of a change in part and its identity; `None`: all of it, which needs none.
fn part(lines: Vec<v1::Line>, request_id: String) -> Result<Option<(Vec<Line>, RequestId)>, Invalid> {
    if lines.is_empty() {
        RequestId::parse_optional(request_id)?;
        return Ok(None);
    }
    Ok(Some((convert::lines(lines)?, RequestId::parse(request_id)?)))
}

fn buys_anew(policy: i32, in_part: bool) -> Result<bool, Invalid> {
    match v1::LatePolicy::try_from(policy) {
        Ok(v1::LatePolicy::Repurchase) if !in_part => Ok(true),
        Ok(v1::LatePolicy::Unspecified | v1::LatePolicy::Refuse) => Ok(false),
        _ => Err(Invalid::new(Reason::InvalidPolicy, "late_policy")),
    }
}

fn keeps_rest(policy: i32, in_part: bool) -> Result<bool, Invalid> {
    match v1::RestPolicy::try_from(policy) {
        Ok(v1::RestPolicy::Unspecified) => Ok(false),
        Ok(policy) if in_part => Ok(policy == v1::RestPolicy::Keep),
        _ => Err(Invalid::new(Reason::InvalidPolicy, "rest_policy")),
    }
}

/// The partition that all lines lie in.
fn partition_of(namespace: &Namespace, lines: &[Line]) -> Result<u16, Failure> {
    let partition = namespace.partition_of(&lines[0].sku);
    if lines[1..].iter().any(|line| namespace.partition_of(&line.sku) != partition) {
        return Err(Failure::new(Reason::CrossPartitionCart));
    }
    Ok(partition)
}
