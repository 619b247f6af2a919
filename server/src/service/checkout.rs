//! `InventorySentinel`: take units, make the sale final, give units back. Parses and answers; what
//! is decided is decided in the store.

use std::{pin::pin, sync::Arc, time::Duration};

use inventory_sentinel::{
    Reason,
    v1::{self, inventory_sentinel_server::InventorySentinel, reserve_response},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    Desk, carry, check_age, convert, deadline, lane_of,
    status::Failure,
    unexpected,
    watch::{self, Answers},
};
use crate::{
    domain::{
        BuyerId, Id, Invalid, Line, NamespaceName, Operation, Outcome, Refusal, RequestId, Reservation, ReservationId,
        Sku, State, Stock, Ttl,
    },
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
        let handler = pin!(self.handle_reserve(request.into_inner(), deadline));
        self.0.answer(Measured::Reserve, handler, is_short).await
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle_commit(request.into_inner(), deadline));
        self.0.answer(Measured::Commit, handler, |_| false).await
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle_rollback(request.into_inner(), deadline));
        self.0.answer(Measured::Rollback, handler, |_| false).await
    }

    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle_extend(request.into_inner(), deadline));
        self.0.answer(Measured::Extend, handler, |_| false).await
    }

    async fn get_reservation(
        &self,
        request: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle_get_reservation(request.into_inner(), deadline));
        self.0.answer(Measured::GetReservation, handler, |_| false).await
    }

    async fn get_stock(&self, request: Request<v1::GetStockRequest>) -> Result<Response<v1::GetStockResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = pin!(self.handle_get_stock(request.into_inner(), deadline));
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
        let handler = pin!(self.handle_batch(request.into_inner(), deadline));
        self.0.answer(Measured::Batch, handler, |_| false).await
    }

    async fn is_protected(
        &self,
        request: Request<v1::IsProtectedRequest>,
    ) -> Result<Response<v1::IsProtectedResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::IsProtectedRequest { namespace_id, sku } = request.into_inner();
        let handler = async {
            let is_protected = match self.read_stock(namespace_id, sku, deadline).await {
                Ok((_, stock, _)) => stock.is_protected,
                Err(failure) if failure.reason() == Reason::SkuNotFound => false,
                Err(failure) => return Err(failure),
            };
            Ok(v1::IsProtectedResponse { is_protected })
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

impl Checkout {
    pub(super) async fn handle_reserve(
        &self,
        request: v1::ReserveRequest,
        deadline: Instant,
    ) -> Result<v1::ReserveResponse, Failure> {
        let v1::ReserveRequest { namespace_id, request_id, lines, ttl, buyer_id, replaces_reservation_id } = request;
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
        let lane = lane_of(&namespace, id)?;
        check_age(&namespace, lane, &request_id)?;

        if replaces.is_some_and(|replaced| replaced.partition != partition) {
            return Err(Failure::new(Reason::CrossPartitionCart));
        }
        let replaces = replaces.map(|replaced| replaced.id);

        let operation = Operation::Reserve { id, lines, ttl, buyer, replaces };
        let (outcome, sequence) = carry(lane, operation, deadline).await?;
        let (result, replayed) = match outcome {
            Outcome::Reservation { reservation, replayed } => {
                (reserve_response::Result::Reservation(convert::reservation(&name, reservation)), replayed)
            }
            Outcome::Shortage(lines) => (reserve_response::Result::Shortage(convert::shortage(lines)), false),
            other => return Err(unexpected(&other)),
        };
        Ok(v1::ReserveResponse { result: Some(result), replayed, sequence })
    }

    pub(super) async fn handle_commit(
        &self,
        request: v1::CommitRequest,
        deadline: Instant,
    ) -> Result<v1::CommitResponse, Failure> {
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
        let (reservation, replayed, sequence) = target.carry(operation, deadline).await?;
        Ok(v1::CommitResponse { reservation: Some(target.message(reservation)), replayed, sequence })
    }

    pub(super) async fn handle_rollback(
        &self,
        request: v1::RollbackRequest,
        deadline: Instant,
    ) -> Result<v1::RollbackResponse, Failure> {
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
        let (reservation, replayed, sequence) = target.carry(operation, deadline).await?;
        Ok(v1::RollbackResponse { reservation: Some(target.message(reservation)), replayed, sequence })
    }

    pub(super) async fn handle_extend(
        &self,
        request: v1::ExtendRequest,
        deadline: Instant,
    ) -> Result<v1::ExtendResponse, Failure> {
        let v1::ExtendRequest { namespace_id, reservation_id, ttl, request_id } = request;
        let request_id = RequestId::parse(request_id)?;
        let ttl = ttl.unwrap_or_default();
        Ttl::parse(ttl.seconds, ttl.nanos, ANY_TTL)?;
        let target = self.target(namespace_id, &reservation_id, deadline).await?;
        let ttl = Ttl::parse(ttl.seconds, ttl.nanos, target.namespace.config.max_ttl)?;
        let operation = Operation::Extend { memo: target.memo(&request_id)?, id: target.id, ttl };
        let (reservation, replayed, sequence) = target.carry(operation, deadline).await?;
        let latest = reservation.created_at.0 + target.namespace.config.max_life.as_millis() as u64;
        let left =
            if reservation.state == State::Pending { latest.saturating_sub(reservation.expires_at.0) } else { 0 };
        Ok(v1::ExtendResponse {
            extendable: Some(convert::duration(Duration::from_millis(left))),
            reservation: Some(target.message(reservation)),
            replayed,
            sequence,
        })
    }

    pub(super) async fn handle_get_reservation(
        &self,
        request: v1::GetReservationRequest,
        deadline: Instant,
    ) -> Result<v1::GetReservationResponse, Failure> {
        let target = self.target(request.namespace_id, &request.reservation_id, deadline).await?;
        let (reservation, _, sequence) = target.carry(Operation::GetReservation(target.id), deadline).await?;
        Ok(v1::GetReservationResponse { reservation: Some(target.message(reservation)), sequence })
    }

    pub(super) async fn handle_get_stock(
        &self,
        request: v1::GetStockRequest,
        deadline: Instant,
    ) -> Result<v1::GetStockResponse, Failure> {
        let (sku, stock, sequence) = self.read_stock(request.namespace_id, request.sku, deadline).await?;
        Ok(v1::GetStockResponse { stock: Some(convert::stock(sku, stock)), sequence })
    }

    /// The reservation that a request names, and where it lies.
    async fn target(&self, namespace_id: String, reservation_id: &str, deadline: Instant) -> Result<Target, Failure> {
        let name = NamespaceName::parse(namespace_id)?;
        let id = ReservationId::parse(reservation_id)?;
        let namespace = self.0.namespace_or(&name, Refusal::ReservationNotFound, deadline).await?;
        lane_of(&namespace, id)?;
        Ok(Target { namespace, id })
    }

    async fn read_stock(
        &self,
        namespace_id: String,
        sku: String,
        deadline: Instant,
    ) -> Result<(Sku, Stock, i64), Failure> {
        let name = NamespaceName::parse(namespace_id)?;
        let sku = Sku::parse(sku, "sku")?;
        let namespace = self.0.namespace_or(&name, Refusal::SkuNotFound(sku.clone()), deadline).await?;
        match carry(namespace.lane_of(&sku), Operation::GetStock { sku: sku.clone() }, deadline).await? {
            (Outcome::Stock { sku, stock, .. }, sequence) => Ok((sku, stock, sequence)),
            (other, _) => Err(unexpected(&other)),
        }
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

    /// The reservation as it is after the operation, whether that was a replay, and the sequence.
    async fn carry(&self, operation: Operation, deadline: Instant) -> Result<(Reservation, bool, i64), Failure> {
        match carry(lane_of(&self.namespace, self.id)?, operation, deadline).await? {
            (Outcome::Reservation { reservation, replayed }, sequence) => Ok((reservation, replayed, sequence)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    fn message(&self, reservation: Reservation) -> v1::Reservation {
        convert::reservation(&self.namespace.name, reservation)
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
