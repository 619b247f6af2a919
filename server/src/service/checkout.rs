//! `InventorySentinel`: take units, make the sale final, give units back. Carries calls into their lanes and tells what
//! comes of them; what is decided is decided in the store.

use std::{
    future::{self, Future},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use inventory_sentinel::{
    Reason,
    v1::{self, inventory_sentinel_server::InventorySentinel, reserve_response},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    Desk,
    ask::{
        Ask, InLane, Read, read_commit, read_extend, read_get_reservation, read_is_protected, read_reserve,
        read_rollback, read_stock,
    },
    convert, deadline, deadline_after, is_repeated,
    status::Failure,
    unexpected,
    watch::{self, Answers},
};
use crate::{
    domain::{Outcome, Reservation, State},
    namespaces::{Lookups, Namespace},
    telemetry::metrics::Operation as Measured,
    watch::Hub,
};

/// The checkout service.
#[derive(Clone)]
pub(crate) struct Checkout(pub(crate) Desk, pub(crate) Arc<Hub>);

#[tonic::async_trait]
impl InventorySentinel for Checkout {
    fn reserve<'a, 'b>(&'a self, request: Request<v1::ReserveRequest>) -> Answering<'b, v1::ReserveResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        let call = Call::new(Measured::Reserve, request.metadata());
        let may_be_first = request.get_ref().first_attempt && !is_repeated(request.metadata());
        let request = v1::ReserveRequest { first_attempt: may_be_first, ..request.into_inner() };
        self.carry(call, read_reserve(request, call.came), tell_reserve, is_short)
    }

    fn commit<'a, 'b>(&'a self, request: Request<v1::CommitRequest>) -> Answering<'b, v1::CommitResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        let call = Call::new(Measured::Commit, request.metadata());
        self.carry(call, read_commit(request.into_inner(), call.came), tell_commit, |_| false)
    }

    fn rollback<'a, 'b>(&'a self, request: Request<v1::RollbackRequest>) -> Answering<'b, v1::RollbackResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        let call = Call::new(Measured::Rollback, request.metadata());
        self.carry(call, read_rollback(request.into_inner(), call.came), tell_rollback, |_| false)
    }

    fn extend<'a, 'b>(&'a self, request: Request<v1::ExtendRequest>) -> Answering<'b, v1::ExtendResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        let call = Call::new(Measured::Extend, request.metadata());
        self.carry(call, read_extend(request.into_inner(), call.came), tell_extend, |_| false)
    }

    fn get_reservation<'a, 'b>(
        &'a self,
        request: Request<v1::GetReservationRequest>,
    ) -> Answering<'b, v1::GetReservationResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        let call = Call::new(Measured::GetReservation, request.metadata());
        self.carry(call, read_get_reservation(request.into_inner()), tell_reservation, |_| false)
    }

    fn get_stock<'a, 'b>(&'a self, request: Request<v1::GetStockRequest>) -> Answering<'b, v1::GetStockResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        let call = Call::new(Measured::GetStock, request.metadata());
        let v1::GetStockRequest { namespace_id, sku } = request.into_inner();
        self.carry(call, read_stock(namespace_id, sku), tell_stock, |_| false)
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
            let result = match self.ask(read_is_protected(namespace_id, sku), deadline, &Lookups::default()).await {
                Ok(asked) => asked.told(tell_protected).await,
                Err(failure) => Err(failure),
            };
            match result {
                Err(failure) if matches!(failure.reason(), Reason::SkuNotFound | Reason::NamespaceNotFound) => {
                    Ok(v1::IsProtectedResponse { is_protected: false })
                }
                result => result,
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

/// A response on its way, as the service's trait has it once its `async` is written out.
type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// A call: what it is counted as, when it came, and when its caller stops waiting.
#[derive(Clone, Copy)]
struct Call {
    measured: Measured,
    came: Instant,
    deadline: Instant,
}

impl Call {
    fn new(measured: Measured, metadata: &MetadataMap) -> Self {
        let came = Instant::now();
        Self { measured, came, deadline: deadline_after(came, metadata) }
    }
}

/// How an answer of the lane is told: as the response to a kind of request.
type Tell<T> = fn(&Namespace, Outcome, i64) -> Result<T, Failure>;

impl Checkout {
    /// The way of a unary call: into its lane, wait, tell. Where its namespace is open, it is in its lane before it
    /// waits, and what waits is small: thousands of calls do, and most of them are out of the processor's cache when their
    /// answer comes.
    fn carry<'a, T: Send + 'a>(
        &'a self,
        call: Call,
        read: Read<impl Ask + 'a>,
        tell: Tell<T>,
        is_short: fn(&T) -> bool,
    ) -> Answering<'a, T> {
        let found = read.and_then(|(name, ask)| Ok((self.0.opened(&name)?, name, ask)));
        let in_lane = match found {
            Ok((None, name, ask)) => {
                return Box::pin(async move {
                    match self.ask(Ok((name, ask)), call.deadline, &Lookups::default()).await {
                        Ok(in_lane) => self.finish(call, in_lane, tell, is_short).await,
                        Err(failure) => self.end(call, Err(failure), is_short),
                    }
                });
            }
            Ok((found, name, ask)) => {
                ask(found).and_then(|asked| asked.submit(call.deadline)).map_err(|failure| failure.within(&name))
            }
            Err(failure) => Err(failure),
        };
        match in_lane {
            Ok(in_lane) => Box::pin(self.finish(call, in_lane, tell, is_short)),
            Err(failure) => Box::pin(future::ready(self.end(call, Err(failure), is_short))),
        }
    }

    /// Brings a request into its lane, from wherever its namespace has to be found.
    pub(super) async fn ask(
        &self,
        read: Read<impl Ask>,
        deadline: Instant,
        lookups: &Lookups,
    ) -> Result<InLane, Failure> {
        let (name, ask) = read?;
        let found = self.0.namespace_in(lookups, &name, deadline).await?;
        ask(found).and_then(|asked| asked.submit(deadline)).map_err(|failure| failure.within(&name))
    }

    async fn finish<T>(
        &self,
        call: Call,
        in_lane: InLane,
        tell: Tell<T>,
        is_short: fn(&T) -> bool,
    ) -> Result<Response<T>, Status> {
        self.end(call, in_lane.told(tell).await, is_short)
    }

    fn end<T>(&self, call: Call, told: Result<T, Failure>, is_short: fn(&T) -> bool) -> Result<Response<T>, Status> {
        self.0.note(call.measured, call.came, &told, is_short);
        Ok(Response::new(told?))
    }
}

pub(super) fn tell_reserve(
    namespace: &Namespace,
    outcome: Outcome,
    sequence: i64,
) -> Result<v1::ReserveResponse, Failure> {
    let (result, replayed) = match outcome {
        Outcome::Reservation { reservation, replayed } => {
            let branch = match reservation.state {
                State::Pending => reserve_response::Result::Reservation,
                State::Committed => reserve_response::Result::AlreadyPurchased,
                // A late Commit has bought it.
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

pub(super) fn tell_commit(
    namespace: &Namespace,
    outcome: Outcome,
    sequence: i64,
) -> Result<v1::CommitResponse, Failure> {
    let (reservation, replayed) = reservation_in(outcome)?;
    let reservation = Some(convert::reservation(namespace, reservation));
    Ok(v1::CommitResponse { reservation, replayed, sequence })
}

pub(super) fn tell_rollback(
    namespace: &Namespace,
    outcome: Outcome,
    sequence: i64,
) -> Result<v1::RollbackResponse, Failure> {
    let (reservation, replayed) = reservation_in(outcome)?;
    let reservation = Some(convert::reservation(namespace, reservation));
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
        reservation: Some(convert::reservation(namespace, reservation)),
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
    let reservation = Some(convert::reservation(namespace, reservation));
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
