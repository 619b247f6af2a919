//! `InventorySentinel`: take units, make the sale final, give units back. Parses and answers; what
//! is decided is decided in the store.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use inventory_sentinel::{
    Reason,
    v1::{self, inventory_sentinel_server::InventorySentinel, reserve_response},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    Desk, check_age, convert, deadline, is_repeated, lane_in, lane_of,
    status::Failure,
    unexpected,
    watch::{self, Answers},
};
use crate::{
    domain::{
        Answer, BuyerId, Id, Invalid, Line, NamespaceName, Operation, Outcome, Refusal, RequestId, Reservation,
        ReservationId, Sku, State, Ttl,
    },
    lane::Pending,
    namespaces::Namespace,
    telemetry::metrics::Operation as Measured,
    watch::Hub,
};

/// The longest ttl of any namespace: what a namespace that does not exist would allow at most.
const ANY_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The checkout service.
#[derive(Clone)]
pub(crate) struct Checkout(pub(crate) Desk, pub(crate) Arc<Hub>);

#[tonic::async_trait]
impl InventorySentinel for Checkout {
    async fn reserve(&self, request: Request<v1::ReserveRequest>) -> Result<Response<v1::ReserveResponse>, Status> {
        let deadline = deadline(request.metadata());
        let is_repeated = is_repeated(request.metadata());
        let mut request = request.into_inner();
        request.first_attempt &= !is_repeated;
        let handler = pin!(self.handle(self.ask_reserve(request, deadline), tell_reserve, deadline));
        self.0.answer(Measured::Reserve, handler, is_short).await
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle(self.ask_commit(request.into_inner(), deadline), tell_commit, deadline));
        self.0.answer(Measured::Commit, handler, |_| false).await
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle(self.ask_rollback(request.into_inner(), deadline), tell_rollback, deadline));
        self.0.answer(Measured::Rollback, handler, |_| false).await
    }

    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle(self.ask_extend(request.into_inner(), deadline), tell_extend, deadline));
        self.0.answer(Measured::Extend, handler, |_| false).await
    }

    async fn get_reservation(
        &self,
        request: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler =
            pin!(self.handle(self.ask_reservation(request.into_inner(), deadline), tell_reservation, deadline));
        self.0.answer(Measured::GetReservation, handler, |_| false).await
    }

    async fn get_stock(&self, request: Request<v1::GetStockRequest>) -> Result<Response<v1::GetStockResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::GetStockRequest { namespace_id, sku } = request.into_inner();
        let handler = pin!(self.handle(self.ask_stock(namespace_id, sku, deadline), tell_stock, deadline));
        self.0.answer(Measured::GetStock, handler, |_| false).await
    }

    async fn batch_get_stock(
        &self,
        request: Request<v1::BatchGetStockRequest>,
    ) -> Result<Response<v1::BatchGetStockResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle_batch_get_stock(request.into_inner(), deadline));
        self.0.answer(Measured::BatchGetStock, handler, |_| false).await
    }

    async fn batch(&self, request: Request<v1::BatchRequest>) -> Result<Response<v1::BatchResponse>, Status> {
        let deadline = deadline(request.metadata());
        let is_repeated = is_repeated(request.metadata());
        let handler = pin!(self.handle_batch(request.into_inner(), deadline, is_repeated));
        self.0.answer(Measured::Batch, handler, |_| false).await
    }

    async fn is_protected(
        &self,
        request: Request<v1::IsProtectedRequest>,
    ) -> Result<Response<v1::IsProtectedResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::IsProtectedRequest { namespace_id, sku } = request.into_inner();
        let handler = async {
            match self.handle(self.ask_stock(namespace_id, sku, deadline), tell_protected, deadline).await {
                Err(failure) if failure.reason() == Reason::SkuNotFound => {
                    Ok(v1::IsProtectedResponse { is_protected: false })
                }
                told => told,
            }
        };
        self.0.answer(Measured::IsProtected, handler, |_| false).await
    }

    type WatchProtectedStream = Answers<v1::WatchProtectedResponse>;

    async fn watch_protected(
        &self,
        request: Request<v1::WatchProtectedRequest>,
    ) -> Result<Response<Self::WatchProtectedStream>, Status> {
        watch::protected(&self.0, &self.1, request).await
    }
}

/// What a request asks of a lane: parsed, and on its way to the partition that it is for.
pub(super) struct Asked {
    namespace: Arc<Namespace>,
    partition: u16,
    operation: Operation,
}

impl Asked {
    /// What a request asks of a reservation.
    fn of(Target { namespace, id }: Target, operation: Operation) -> Self {
        Self { namespace, partition: id.partition, operation }
    }

    /// Queues it. The namespace is what its answer is told with.
    pub(super) fn submit(self, deadline: Instant) -> Result<(Arc<Namespace>, Pending), Failure> {
        let pending = lane_in(&self.namespace, self.partition)?.submit(self.operation, deadline)?;
        Ok((self.namespace, pending))
    }
}

/// How an answer of the lane is told: as the response to a kind of request.
type Tell<T> = fn(&Namespace, Outcome, i64) -> Result<T, Failure>;

impl Checkout {
    /// The way of every unary call: ask, wait for the lane, tell.
    async fn handle<T>(
        &self,
        asked: impl Future<Output = Result<Asked, Failure>>,
        tell: Tell<T>,
        deadline: Instant,
    ) -> Result<T, Failure> {
        let (namespace, pending) = asked.await?.submit(deadline)?;
        let Answer { outcome, sequence } = pending.wait().await?;
        tell(&namespace, outcome?, sequence as i64)
    }

    pub(super) async fn ask_reserve(&self, request: v1::ReserveRequest, deadline: Instant) -> Result<Asked, Failure> {
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
        let ttl_up_to = |longest| ttl.as_ref().map(|ttl| Ttl::parse(ttl.seconds, ttl.nanos, longest)).transpose();
        ttl_up_to(ANY_TTL)?;
        let Some(namespace) = self.0.namespace(&name, deadline).await? else {
            return Err(Refusal::SkuNotFound(lines[0].sku.clone()).into());
        };
        let ttl = ttl_up_to(namespace.config.max_ttl)?;
        let partition = partition_of(&namespace, &lines)?;
        let id = namespace.reservation_id(&request_id, partition);
        check_age(&namespace, lane_of(&namespace, id)?, &request_id)?;
        if replaces.is_some_and(|replaced| replaced.partition != partition) {
            return Err(Failure::new(Reason::CrossPartitionCart));
        }
        let replaces = replaces.map(|replaced| replaced.id);
        let operation = Operation::Reserve { id, lines, ttl, buyer, replaces, is_first_attempt };
        Ok(Asked { namespace, partition, operation })
    }

    pub(super) async fn ask_commit(&self, request: v1::CommitRequest, deadline: Instant) -> Result<Asked, Failure> {
        let v1::CommitRequest { namespace_id, reservation_id, request_id, late_policy, lines, rest_policy } = request;
        let buys_anew = buys_anew(late_policy, !lines.is_empty())?;
        let keep_rest = keeps_rest(rest_policy, !lines.is_empty())?;
        let part = part(lines, request_id)?;
        let target = self.target(namespace_id, &reservation_id, deadline).await?;
        let operation = match part {
            Some((lines, request_id)) => {
                let memo = target.memo(&request_id)?;
                Operation::CommitLines { memo, id: target.id, lines, keep_rest }
            }
            None => {
                let purchase = buys_anew.then(|| target.namespace.purchase_of(target.id));
                Operation::Commit { id: target.id, purchase }
            }
        };
        Ok(Asked::of(target, operation))
    }

    pub(super) async fn ask_rollback(&self, request: v1::RollbackRequest, deadline: Instant) -> Result<Asked, Failure> {
        let v1::RollbackRequest { namespace_id, reservation_id, request_id, lines } = request;
        let part = part(lines, request_id)?;
        let target = self.target(namespace_id, &reservation_id, deadline).await?;
        let operation = match part {
            Some((lines, request_id)) => {
                let memo = target.memo(&request_id)?;
                Operation::RollbackLines { memo, id: target.id, lines }
            }
            None => Operation::Rollback(target.id),
        };
        Ok(Asked::of(target, operation))
    }

    pub(super) async fn ask_extend(&self, request: v1::ExtendRequest, deadline: Instant) -> Result<Asked, Failure> {
        let v1::ExtendRequest { namespace_id, reservation_id, ttl, request_id } = request;
        let request_id = RequestId::parse(request_id)?;
        let ttl = ttl.unwrap_or_default();
        Ttl::parse(ttl.seconds, ttl.nanos, ANY_TTL)?;
        let target = self.target(namespace_id, &reservation_id, deadline).await?;
        let ttl = Ttl::parse(ttl.seconds, ttl.nanos, target.namespace.config.max_ttl)?;
        let operation = Operation::Extend { memo: target.memo(&request_id)?, id: target.id, ttl };
        Ok(Asked::of(target, operation))
    }

    pub(super) async fn ask_reservation(
        &self,
        request: v1::GetReservationRequest,
        deadline: Instant,
    ) -> Result<Asked, Failure> {
        let target = self.target(request.namespace_id, &request.reservation_id, deadline).await?;
        let operation = Operation::GetReservation(target.id);
        Ok(Asked::of(target, operation))
    }

    pub(super) async fn ask_stock(
        &self,
        namespace_id: String,
        sku: String,
        deadline: Instant,
    ) -> Result<Asked, Failure> {
        let name = NamespaceName::parse(namespace_id)?;
        let sku = Sku::parse(sku, "sku")?;
        let namespace = self.0.namespace_or(&name, Refusal::SkuNotFound(sku.clone()), deadline).await?;
        Ok(Asked { partition: namespace.partition_of(&sku), operation: Operation::GetStock { sku }, namespace })
    }

    /// The reservation that a request names, and where it lies.
    async fn target(&self, namespace_id: String, reservation_id: &str, deadline: Instant) -> Result<Target, Failure> {
        let name = NamespaceName::parse(namespace_id)?;
        let id = ReservationId::parse(reservation_id)?;
        let namespace = self.0.namespace_or(&name, Refusal::ReservationNotFound, deadline).await?;
        lane_of(&namespace, id)?;
        Ok(Target { namespace, id })
    }
}

pub(super) fn tell_reserve(
    namespace: &Namespace,
    outcome: Outcome,
    sequence: i64,
) -> Result<v1::ReserveResponse, Failure> {
    let (result, replayed) = match outcome {
        Outcome::Reservation { reservation, replayed } => {
            (reserve_response::Result::Reservation(convert::reservation(&namespace.name, reservation)), replayed)
        }
        Outcome::Shortage(lines) => (reserve_response::Result::Shortage(convert::shortage(lines)), false),
        other => return Err(unexpected(&other)),
    };
    Ok(v1::ReserveResponse { result: Some(result), replayed, sequence })
}

pub(super) fn tell_commit(
    namespace: &Namespace,
    outcome: Outcome,
    sequence: i64,
) -> Result<v1::CommitResponse, Failure> {
    let (reservation, replayed) = reservation_in(outcome)?;
    let reservation = Some(convert::reservation(&namespace.name, reservation));
    Ok(v1::CommitResponse { reservation, replayed, sequence })
}

pub(super) fn tell_rollback(
    namespace: &Namespace,
    outcome: Outcome,
    sequence: i64,
) -> Result<v1::RollbackResponse, Failure> {
    let (reservation, replayed) = reservation_in(outcome)?;
    let reservation = Some(convert::reservation(&namespace.name, reservation));
    Ok(v1::RollbackResponse { reservation, replayed, sequence })
}

pub(super) fn tell_extend(
    namespace: &Namespace,
    outcome: Outcome,
    sequence: i64,
) -> Result<v1::ExtendResponse, Failure> {
    let (reservation, replayed) = reservation_in(outcome)?;
    let latest = reservation.created_at.0 + namespace.config.max_life.as_millis() as u64;
    let is_pending = reservation.state == State::Pending;
    let left = if is_pending { latest.saturating_sub(reservation.expires_at.0) } else { 0 };
    Ok(v1::ExtendResponse {
        extendable: Some(convert::duration(Duration::from_millis(left))),
        reservation: Some(convert::reservation(&namespace.name, reservation)),
        replayed,
        sequence,
    })
}

pub(super) fn tell_reservation(
    namespace: &Namespace,
    outcome: Outcome,
    sequence: i64,
) -> Result<v1::GetReservationResponse, Failure> {
    let (reservation, _) = reservation_in(outcome)?;
    let reservation = Some(convert::reservation(&namespace.name, reservation));
    Ok(v1::GetReservationResponse { reservation, sequence })
}

pub(super) fn tell_stock(_: &Namespace, outcome: Outcome, sequence: i64) -> Result<v1::GetStockResponse, Failure> {
    match outcome {
        Outcome::Stock { sku, stock, .. } => {
            Ok(v1::GetStockResponse { stock: Some(convert::stock(sku, stock)), sequence })
        }
        other => Err(unexpected(&other)),
    }
}

fn tell_protected(_: &Namespace, outcome: Outcome, _: i64) -> Result<v1::IsProtectedResponse, Failure> {
    match outcome {
        Outcome::Stock { stock, .. } => Ok(v1::IsProtectedResponse { is_protected: stock.is_protected }),
        other => Err(unexpected(&other)),
    }
}

/// The reservation as it is after the operation, and whether that was a replay.
fn reservation_in(outcome: Outcome) -> Result<(Reservation, bool), Failure> {
    match outcome {
        Outcome::Reservation { reservation, replayed } => Ok((reservation, replayed)),
        other => Err(unexpected(&other)),
    }
}

/// A Reserve that the stock could not cover.
pub(super) fn is_short(response: &v1::ReserveResponse) -> bool {
    matches!(response.result, Some(reserve_response::Result::Shortage(_)))
}

/// A reservation that a request names, in its namespace.
struct Target {
    namespace: Arc<Namespace>,
    id: ReservationId,
}

impl Target {
    /// The identity of a change of this reservation.
    fn memo(&self, request: &RequestId) -> Result<Id, Failure> {
        check_age(&self.namespace, lane_of(&self.namespace, self.id)?, request)?;
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
        RequestId::check_optional(request_id)?;
        return Ok(None);
    }
    Ok(Some((convert::lines(lines)?, RequestId::parse(request_id)?)))
}

fn buys_anew(policy: i32, in_part: bool) -> Result<bool, Invalid> {
    match v1::LatePolicy::try_from(policy) {
        Ok(v1::LatePolicy::BuyAnew) if !in_part => Ok(true),
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
    if lines.iter().any(|line| namespace.partition_of(&line.sku) != partition) {
        return Err(Failure::new(Reason::CrossPartitionCart));
    }
    Ok(partition)
}
