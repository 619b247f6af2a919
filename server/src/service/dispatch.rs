//! The path of every unary call: decode, admit, bind, submit, await, encode, observe. An RPC
//! implements one of two traits, in its own file. Uses the lanes and the context.

use std::{
    future::{self, Future},
    pin::{Pin, pin},
    sync::Arc,
};

use inventory_sentinel::Reason;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span};

use super::{
    audit_record::AuditRecord,
    context::ServiceContext,
    deadline::{deadline_after, is_retry},
};
use crate::{
    access::Caller,
    domain::{Answer, NamespaceName, Operation, Outcome, Refusal, RequestId, ReservationId},
    failure::Failure,
    lane::{Lane, Pending},
    namespaces::{Lookups, Namespace},
    tasks::Task,
    telemetry::metrics::RpcKind,
    transport::OperatorCall,
};

/// The return type of a method of a generated service trait.
pub(super) type ResponseFuture<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// An RPC that is one operation for one lane.
pub(crate) trait LaneRpc: Sized + Send {
    type Request: Send;
    type Response: Send;
    const KIND: RpcKind;

    /// The field in which the request claims to be a first attempt, if its message has one. `dispatch`
    /// clears it for a retry.
    fn first_attempt(_: &mut Self::Request) -> Option<&mut bool> {
        None
    }

    /// Validates the message without its namespace.
    fn decode(request: Self::Request) -> Result<(NamespaceName, Self), Failure>;

    /// Builds the operation, and chooses its partition.
    fn bind(self, namespace: &Namespace, arrived_at: Instant) -> Result<BoundOperation, Failure>;

    /// Builds the response. `sequence` is that of the partition after the operation.
    fn encode(namespace: &Namespace, outcome: Outcome, sequence: i64) -> Result<Self::Response, Failure>;

    /// Replaces a failure by a response. Most RPCs have none; IsProtected responds `false` for an unknown SKU.
    fn recover(failure: Failure) -> Result<Self::Response, Failure> {
        Err(failure)
    }

    /// Whether the response is a shortage, which has a separate status in the metrics.
    fn is_shortage(_: &Self::Response) -> bool {
        false
    }
}

/// An RPC that takes several steps.
pub(crate) trait AsyncRpc: Sized + Send {
    type Service: AsRef<ServiceContext> + Clone + Send + Sync + 'static;
    type Request: Send;
    type Response: Send + 'static;
    const KIND: RpcKind;

    /// Validates the message.
    fn decode(request: Request<Self::Request>) -> Result<Self, Failure>;

    /// The namespaces that the call concerns: its caller needs permission for them.
    fn scope(&self) -> Scope<'_>;

    /// Takes the steps, and builds the response.
    fn run(
        self,
        service: &Self::Service,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Response, Failure>> + Send;
}

/// The namespaces that a call concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    Namespace(&'a NamespaceName),
    /// The whole server, with every namespace.
    Server,
    /// The RPC checks each of its entries.
    Entries,
}

/// The methods of a generated service trait, one line each. They are not `async`, because [`dispatch`]
/// submits the operation before it boxes the future.
macro_rules! rpc_methods {
    ($kind:ident, $dispatch:ident: $($method:ident => $rpc:ty,)+) => {$(
        fn $method<'a, 'b>(
            &'a self,
            request: tonic::Request<<$rpc as $kind>::Request>,
        ) -> $crate::service::dispatch::ResponseFuture<'b, <$rpc as $kind>::Response>
        where
            'a: 'b,
            Self: 'b,
        {
            $dispatch::<$rpc>(self, request)
        }
    )+};
}
pub(super) use rpc_methods;

/// A validated operation and the lane that it is for.
pub(crate) struct BoundOperation {
    pub(super) route: Route,
    pub(super) operation: Operation,
}

/// The lanes that an operation is submitted to.
pub(crate) enum Route {
    Partition(u16),
    /// GetReservation by its request id, whose reservation can be in any partition.
    EveryPartition,
}

/// An operation that was submitted to its lane, and the namespace that encodes its outcome.
pub(super) struct Submitted {
    namespace: Arc<Namespace>,
    pending: Pending,
    /// The same operation in the other partitions, for [`Route::EveryPartition`].
    others: Option<Box<[Pending]>>,
}

/// Handles one unary call of one operation. If the namespace is open, the operation is submitted before
/// the future is boxed. The future then holds only what `finish` needs, and stays small: thousands of
/// calls wait at once, and most have left the processor's cache when they complete.
pub(super) fn dispatch<'a, R: LaneRpc + 'a>(
    service: &'a impl AsRef<ServiceContext>,
    request: Request<R::Request>,
) -> ResponseFuture<'a, R::Response> {
    let context = service.as_ref();
    let arrived_at = Instant::now();
    let deadline = deadline_after(arrived_at, request.metadata());
    let (metadata, extensions, mut message) = request.into_parts();
    if let Some(claim) = R::first_attempt(&mut message) {
        *claim = *claim && !is_retry(&metadata);
    }
    let decoded = R::decode(message).and_then(|(name, rpc)| {
        context.guard.permit(&extensions, &name)?;
        Ok((context.open_namespace(&name)?, name, rpc))
    });
    let submitted = match decoded {
        Ok((Some(namespace), _, rpc)) => submit(rpc, namespace, arrived_at, deadline),
        Ok((None, name, rpc)) => {
            return Box::pin(async move {
                let (lookups, times) = (Lookups::default(), (arrived_at, deadline));
                match find_and_submit(context, rpc, &name, times, &lookups).await {
                    Ok(submitted) => finish::<R>(context, arrived_at, submitted).await,
                    Err(failure) => respond::<R>(context, arrived_at, Err(failure)),
                }
            });
        }
        Err(failure) => Err(failure),
    };
    match submitted {
        Ok(submitted) => Box::pin(finish::<R>(context, arrived_at, submitted)),
        Err(failure) => Box::pin(future::ready(respond::<R>(context, arrived_at, Err(failure)))),
    }
}

/// Awaits the outcome of a submitted operation, and responds.
async fn finish<R: LaneRpc>(
    context: &ServiceContext,
    arrived_at: Instant,
    submitted: Submitted,
) -> Result<Response<R::Response>, Status> {
    respond::<R>(context, arrived_at, submitted.response::<R>().await)
}

/// Counts the end of the call, and returns its response.
fn respond<R: LaneRpc>(
    context: &ServiceContext,
    arrived_at: Instant,
    result: Result<R::Response, Failure>,
) -> Result<Response<R::Response>, Status> {
    let result = result.or_else(R::recover);
    context.observe(R::KIND, arrived_at, &result, R::is_shortage);
    Ok(Response::new(result?))
}

/// Loads the namespace of a decoded request, then submits its operation.
pub(super) async fn find_and_submit<R: LaneRpc>(
    context: &ServiceContext,
    rpc: R,
    name: &NamespaceName,
    (arrived_at, deadline): (Instant, Instant),
    lookups: &Lookups,
) -> Result<Submitted, Failure> {
    match context.find_namespace_in(lookups, name, deadline).await? {
        Some(namespace) => submit(rpc, namespace, arrived_at, deadline),
        None => Err(Failure::new(Reason::NamespaceNotFound).within(name)),
    }
}

/// Binds a decoded request to its namespace, and submits its operation.
fn submit<R: LaneRpc>(
    rpc: R,
    namespace: Arc<Namespace>,
    arrived_at: Instant,
    deadline: Instant,
) -> Result<Submitted, Failure> {
    let pending = rpc.bind(&namespace, arrived_at).and_then(|BoundOperation { route, operation }| {
        let (partition, others) = match route {
            Route::Partition(partition) => (partition, None),
            Route::EveryPartition => (0, Some(submit_to_others(&namespace, &operation, deadline)?)),
        };
        Ok((lane_in(&namespace, partition)?.submit(operation, deadline)?, others))
    });
    match pending {
        Ok((pending, others)) => Ok(Submitted { namespace, pending, others }),
        Err(failure) => Err(failure.within(&namespace.name)),
    }
}

/// Submits a GetReservation to every partition but the first.
fn submit_to_others(
    namespace: &Namespace,
    operation: &Operation,
    deadline: Instant,
) -> Result<Box<[Pending]>, Failure> {
    let Operation::GetReservation(ReservationId { id, .. }) = *operation else { return Ok(Box::default()) };
    let submit = |(partition, lane): (u16, &Lane)| {
        Ok(lane.submit(Operation::GetReservation(ReservationId { id, partition }), deadline)?)
    };
    (0..).zip(namespace.lanes()).skip(1).map(submit).collect()
}

impl Submitted {
    /// Awaits the outcome, and encodes it.
    pub(super) async fn response<R: LaneRpc>(self) -> Result<R::Response, Failure> {
        // Boxed, so that the rare search of all partitions does not enlarge the future of every call.
        let outcome = match self.others {
            None => await_outcome(self.pending).await,
            Some(others) => Box::pin(newest(self.pending, others)).await,
        };
        match outcome {
            Ok((outcome, sequence)) => R::encode(&self.namespace, outcome, sequence),
            Err(failure) => Err(failure.within(&self.namespace.name)),
        }
    }
}

/// The reservation that was created last among these outcomes. If there is none, a failure that
/// leaves open whether one exists takes precedence over RESERVATION_NOT_FOUND.
async fn newest(first: Pending, others: Box<[Pending]>) -> Result<(Outcome, i64), Failure> {
    let created_at = |found: &Result<(Outcome, i64), Failure>| match found {
        Ok((Outcome::Reservation { reservation, .. }, _)) => Some(reservation.created_at),
        _ => None,
    };
    let is_open = |found: &Result<(Outcome, i64), Failure>| {
        found.as_ref().is_err_and(|failure| failure.reason() != Reason::ReservationNotFound)
    };
    let mut best = await_outcome(first).await;
    for pending in others {
        let found = await_outcome(pending).await;
        if created_at(&found) > created_at(&best) || created_at(&best).is_none() && is_open(&found) {
            best = found;
        }
    }
    best
}

/// Handles one unary call of several steps.
pub(super) fn dispatch_async<'a, R: AsyncRpc + 'static>(
    service: &'a R::Service,
    mut request: Request<R::Request>,
) -> ResponseFuture<'a, R::Response> {
    let arrived_at = Instant::now();
    let deadline = deadline_after(arrived_at, request.metadata());
    let record = R::KIND.is_of_operator().then(|| AuditRecord::begin(R::KIND, &mut request));
    let guard = &service.as_ref().guard;
    let caller = guard.caller(request.extensions()).map(Option::<&Caller>::cloned);
    let admission = request.extensions().get::<OperatorCall>().cloned();
    let decoded = R::decode(request).and_then(|rpc| {
        permit(caller?.as_ref(), rpc.scope(), record.as_ref())?;
        Ok(rpc)
    });
    Box::pin(async move {
        let result = match decoded {
            Ok(rpc) if R::KIND.is_change_of_operator() => {
                complete(service.clone(), rpc, record.clone(), admission, deadline).await
            }
            // Pinned here, so that the large future is not moved again.
            Ok(rpc) => pin!(rpc.run(service, deadline)).await,
            Err(failure) => Err(failure),
        };
        if let Some(record) = record {
            record.set_outcome(result.as_ref().err().map(Failure::reason));
        }
        service.as_ref().observe(R::KIND, arrived_at, &result, |_| false);
        Ok(Response::new(result?))
    })
}

/// Runs a change of an operator to its end, also if its caller disconnects: its audit record then has the change. It
/// keeps its place among the calls of operators until then.
async fn complete<R: AsyncRpc + 'static>(
    service: R::Service,
    rpc: R,
    record: Option<AuditRecord>,
    admission: Option<OperatorCall>,
    deadline: Instant,
) -> Result<R::Response, Failure> {
    let tasks = service.as_ref().tasks.clone();
    let change = async move {
        let _admission = admission;
        let result = rpc.run(&service, deadline).await;
        if let Some(record) = record {
            record.set_outcome(result.as_ref().err().map(Failure::reason));
        }
        result
    };
    let change = tasks.spawn(Task::OperatorChange, change.instrument(Span::current()));
    change.await.ok().flatten().unwrap_or_else(|| Err(Failure::new(Reason::Internal)))
}

/// Refuses a call in a scope that its caller may not use.
fn permit(caller: Option<&Caller>, scope: Scope<'_>, record: Option<&AuditRecord>) -> Result<(), Failure> {
    if let (Some(record), Scope::Namespace(name)) = (record, scope) {
        record.set_namespace(name);
    }
    let permitted = match (caller, scope) {
        (None, _) | (_, Scope::Entries) => Ok(()),
        (Some(caller), Scope::Namespace(name)) => caller.permit(name),
        (Some(caller), Scope::Server) => caller.permit_everything(),
    };
    // The guard has recorded the refusal.
    permitted.inspect_err(|_| record.into_iter().for_each(AuditRecord::discard))
}

/// Submits an operation and awaits it. Returns its outcome and the sequence.
pub(super) async fn execute(lane: &Lane, operation: Operation, deadline: Instant) -> Result<(Outcome, i64), Failure> {
    await_outcome(lane.submit(operation, deadline)?).await
}

/// Awaits a submitted operation. Returns its outcome and the sequence.
pub(super) async fn await_outcome(pending: Pending) -> Result<(Outcome, i64), Failure> {
    let Answer { outcome, sequence } = pending.wait().await?;
    Ok((outcome?, sequence as i64))
}

/// The lane of a reservation. If the namespace has no such partition, this service did not create the id.
pub(super) fn lane_of_reservation(namespace: &Namespace, id: ReservationId) -> Result<&Lane, Failure> {
    lane_in(namespace, id.partition)
}

fn lane_in(namespace: &Namespace, partition: u16) -> Result<&Lane, Failure> {
    namespace.lane(partition).ok_or_else(|| Refusal::ReservationNotFound.into())
}

/// Refuses a request_id that is so old that the store may have forgotten it when the call arrived: a
/// repeat would take effect a second time.
pub(super) fn check_age(
    namespace: &Namespace,
    lane: &Lane,
    request: &RequestId,
    arrived_at: Instant,
) -> Result<(), Failure> {
    Ok(request.check_age(lane.time_of_day(arrived_at), namespace.config.retention)?)
}

/// The failure for an outcome that this operation cannot have. It is a defect.
pub(super) fn unexpected(outcome: &Outcome) -> Failure {
    Failure::new(Reason::Internal).because(&format!("unexpected outcome {outcome:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_future_is_small() {
        fn size<A, F: Future>(_: impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        let finish = |(context, at, submitted): (&'static ServiceContext, Instant, Submitted)| {
            finish::<crate::service::rpc::checkout::Reserve>(context, at, submitted)
        };
        assert!(size(finish) <= 256, "{} bytes", size(finish));
    }
}
