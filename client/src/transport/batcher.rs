//! Combines concurrent calls into Batch messages. It keeps the queue of unsent calls and spawns a task per message. It
//! does not retry, and it imports no request builder.
//!
//! A call is sent at once and alone while few messages are in flight. Otherwise it is queued until one of them ends, or
//! for [`MAX_LINGER`], and all queued calls share the next message. The task of a message enforces the deadlines of its
//! calls, and one task enforces those of the queue: a call needs no timer.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use inventory_sentinel::v1::{self, batch_operation::Operation, batch_result::Result as OperationResult};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tonic::{Code, Request, metadata::MetadataMap};

use super::{
    channels::Channels,
    credentials::Credentials,
    retry::{AttemptError, RetryToken, TokenBucket},
    stubs::checkout_client,
    trace,
};
use crate::{
    convert::{self, Decode},
    rpc_error::RpcError,
};

/// With this many messages in flight, further calls are queued.
pub(crate) const MAX_UNBATCHED: usize = 4;
/// A queued call is sent at the first tick after this time, even if all messages in flight are slow.
const MAX_LINGER: Duration = Duration::from_millis(10);
/// Interval of the deadline checks: a deadline error is about this late at most.
const DEADLINE_TICK: Duration = Duration::from_millis(5);
/// Most calls of one message, the server's limit.
const MAX_CALLS: usize = 512;
/// Most bytes of the calls of one message: half of what a server reads by default.
const MAX_BYTES: usize = 512 * 1024;

/// A request that can be an operation of a Batch.
pub(crate) trait Batchable: Clone {
    type Response: Decode;
    fn into_operation(self) -> Operation;
    /// The response to this kind of request; `None` if the result is of another kind.
    fn response(result: OperationResult) -> Option<Self::Response>;
    /// Marks the request as one that may have been sent before.
    fn clear_first_attempt(&mut self) {}
}

impl Batchable for v1::ReserveRequest {
    type Response = v1::ReserveResponse;

    fn into_operation(self) -> Operation {
        Operation::Reserve(self)
    }

    fn response(result: OperationResult) -> Option<Self::Response> {
        if let OperationResult::Reserve(response) = result { Some(response) } else { None }
    }

    fn clear_first_attempt(&mut self) {
        self.first_attempt = false;
    }
}

impl Batchable for v1::CommitRequest {
    type Response = v1::CommitResponse;

    fn into_operation(self) -> Operation {
        Operation::Commit(self)
    }

    fn response(result: OperationResult) -> Option<Self::Response> {
        if let OperationResult::Commit(response) = result { Some(response) } else { None }
    }
}

impl Batchable for v1::RollbackRequest {
    type Response = v1::RollbackResponse;

    fn into_operation(self) -> Operation {
        Operation::Rollback(self)
    }

    fn response(result: OperationResult) -> Option<Self::Response> {
        if let OperationResult::Rollback(response) = result { Some(response) } else { None }
    }
}

/// The queue of one client.
#[derive(Debug)]
pub(crate) struct Batcher {
    channels: Arc<Channels>,
    credentials: Arc<Credentials>,
    budget: Arc<TokenBucket>,
    /// The runtime of the connections. A caller's runtime may run only while that caller waits.
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    queue: VecDeque<QueuedCall>,
    /// Whether a [`QueueTicker`] runs.
    has_ticker: bool,
}

/// A call that is not sent yet.
#[derive(Debug)]
struct QueuedCall {
    operation: Operation,
    queued_at: Instant,
    /// Set for the first of the queue: a message has one trace.
    trace: Option<MetadataMap>,
    caller: Caller,
}

/// The caller that awaits a result.
#[derive(Debug)]
struct Caller {
    deadline: Instant,
    /// `None` after the response.
    responder: Option<oneshot::Sender<Result<OperationResult, AttemptError>>>,
}

impl Caller {
    /// Whether the caller disconnected, has its response, or its deadline passed.
    fn is_done(&self, now: Instant) -> bool {
        self.deadline <= now || self.responder.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn respond(&mut self, result: Result<OperationResult, AttemptError>) {
        if let Some(responder) = self.responder.take() {
            let _ = responder.send(result);
        }
    }

    /// Responds with the error if the deadline has passed.
    fn expire(&mut self, now: Instant, error: impl FnOnce() -> RpcError) {
        if self.deadline <= now {
            self.respond(Err(error().into()));
        }
    }
}

/// One message in flight. Dropping it sends queued calls.
pub(crate) struct InFlightPermit(Arc<Batcher>);

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
        self.0.flush();
    }
}

impl Batcher {
    /// Sends on the current runtime, which has to be that of the connections.
    pub(crate) fn new(channels: Arc<Channels>, credentials: Arc<Credentials>, budget: Arc<TokenBucket>) -> Batcher {
        Batcher { channels, credentials, budget, runtime: Handle::current(), state: Mutex::default() }
    }

    /// A permit to send one call alone, if few messages are in flight.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<InFlightPermit> {
        let mut state = self.state();
        let is_free = state.in_flight < MAX_UNBATCHED && state.queue.is_empty();
        is_free.then(|| {
            state.in_flight += 1;
            InFlightPermit(Arc::clone(self))
        })
    }

    /// Sends a call in a message with others, and awaits its result until about its deadline.
    pub(crate) async fn submit<M: Batchable>(
        self: &Arc<Self>,
        message: M,
        deadline: Instant,
    ) -> Result<M::Response, AttemptError> {
        let (responder, result) = oneshot::channel();
        let caller = Caller { deadline, responder: Some(responder) };
        let operation = message.into_operation();
        self.enqueue(QueuedCall { operation, queued_at: Instant::now(), trace: None, caller });
        let result = result.await.map_err(|_| RpcError::disconnected())??;
        M::response(result).ok_or_else(|| RpcError::malformed("the result of another operation").into())
    }

    /// Queues a call, and sends the queue if few messages are in flight.
    fn enqueue(self: &Arc<Self>, mut call: QueuedCall) {
        let mut state = self.state();
        if state.queue.is_empty() {
            let mut trace = MetadataMap::new();
            trace::inject(&mut trace);
            call.trace = Some(trace);
        }
        state.queue.push_back(call);
        let is_free = state.in_flight < MAX_UNBATCHED;
        let has_ticker = std::mem::replace(&mut state.has_ticker, true);
        drop(state);
        if !has_ticker {
            self.runtime.spawn(QueueTicker { batcher: Arc::clone(self), is_done: false }.run());
        }
        if is_free {
            self.flush();
        }
    }

    /// Sends as many messages from the queue as the limits allow.
    fn flush(self: &Arc<Self>) {
        loop {
            let next = self.state().next_message(Instant::now());
            let Some(calls) = next else { return };
            let permit = InFlightPermit(Arc::clone(self));
            self.runtime.spawn(async move {
                permit.0.send(calls).await;
                // The callers that just got responses may call again: let those calls join the next message.
                tokio::task::yield_now().await;
            });
        }
    }

    /// Sends one message and responds to each of its calls.
    async fn send(&self, mut calls: Vec<QueuedCall>) {
        let now = Instant::now();
        let timeout = |deadline: Instant| deadline.saturating_duration_since(now);
        let last_deadline = calls.iter().map(|call| call.caller.deadline).max().unwrap_or(now);
        let trace = calls.iter_mut().find_map(|call| call.trace.take()).unwrap_or_default();
        let (operations, mut callers): (Vec<_>, Vec<_>) = calls
            .into_iter()
            .map(|call| {
                let timeout = Some(convert::duration(timeout(call.caller.deadline)));
                (v1::BatchOperation { operation: Some(call.operation), timeout }, call.caller)
            })
            .unzip();
        let mut request = Request::new(v1::BatchRequest { operations });
        *request.metadata_mut() = trace;
        self.credentials.attach(request.metadata_mut());
        request.set_timeout(timeout(last_deadline));
        let token = RetryToken::default();
        let attempt_error = |error| AttemptError { error, token: token.clone() };
        let lease = self.channels.acquire();
        let mut client = checkout_client(lease.channel());
        let (mut sending, mut ticks) = (pin!(client.batch(request)), deadline_ticks());
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                _ = ticks.tick() => {
                    let now = Instant::now();
                    callers.iter_mut().for_each(|caller| caller.expire(now, RpcError::deadline_exceeded));
                    if last_deadline <= now {
                        return;
                    }
                }
            }
        };
        let results = match sent {
            Ok(response) => response.into_inner().results,
            // Every caller gets the error as if its call had been sent alone.
            Err(status) => {
                lease.record_failure(&status);
                for mut caller in callers {
                    caller.respond(Err(attempt_error(RpcError::from_status(&status))));
                }
                return;
            }
        };
        let (mut results, mut all_answered) = (results.into_iter(), true);
        for mut caller in callers {
            let result = match results.next().and_then(|entry| entry.result) {
                Some(OperationResult::Failure(failure)) => Err(RpcError::from_failure(failure)),
                Some(result) => Ok(result),
                None => Err(RpcError::malformed("no result of the operation")),
            };
            all_answered &= !matches!(&result, Err(error) if error.code() == Code::Unavailable);
            caller.respond(result.map_err(attempt_error));
        }
        if all_answered {
            self.budget.refund();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that enforces linger time and deadlines of the queue. It ends when the queue is empty.
struct QueueTicker {
    batcher: Arc<Batcher>,
    is_done: bool,
}

impl QueueTicker {
    async fn run(mut self) {
        let mut ticks = deadline_ticks();
        while !self.is_done {
            ticks.tick().await;
            self.batcher.flush();
            let now = Instant::now();
            let mut state = self.batcher.state();
            state.queue.iter_mut().for_each(|call| call.caller.expire(now, expired_unsent));
            if state.queue.is_empty() {
                state.has_ticker = false;
                self.is_done = true;
            }
        }
    }
}

impl Drop for QueueTicker {
    /// If the runtime ends first, nothing sends the queue any more: fail its calls.
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = self.batcher.state();
            state.has_ticker = false;
            let left = std::mem::take(&mut state.queue);
            drop(state);
            for mut call in left {
                call.caller.respond(Err(RpcError::disconnected().unsent().into()));
            }
        }
    }
}

impl State {
    /// Takes the first queued call that is still awaited.
    fn next(&mut self, now: Instant) -> Option<QueuedCall> {
        loop {
            let mut call = self.queue.pop_front()?;
            if !call.caller.is_done(now) {
                return Some(call);
            }
            call.caller.expire(now, expired_unsent);
        }
    }

    /// Takes the calls of the next message and counts it as in flight.
    fn next_message(&mut self, now: Instant) -> Option<Vec<QueuedCall>> {
        let first = self.next(now)?;
        if self.in_flight >= MAX_UNBATCHED && now.saturating_duration_since(first.queued_at) < MAX_LINGER {
            self.queue.push_front(first);
            return None;
        }
        let mut bytes = first.operation.encoded_len();
        let mut calls = vec![first];
        while let Some(call) = self.next(now) {
            bytes += call.operation.encoded_len();
            if calls.len() == MAX_CALLS || bytes > MAX_BYTES {
                self.queue.push_front(call);
                break;
            }
            calls.push(call);
        }
        self.in_flight += 1;
        Some(calls)
    }
}

/// The error of a call whose deadline passed in the queue.
fn expired_unsent() -> RpcError {
    RpcError::deadline_exceeded().unsent()
}

fn deadline_ticks() -> Interval {
    let mut ticks = interval_at(Instant::now() + DEADLINE_TICK, DEADLINE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
