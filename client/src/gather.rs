//! Gathers calls that are made at the same time into Batch messages. Keeps the calls that wait, and
//! starts a task per message; it repeats nothing, and does not know what an operation means.
//!
//! A call that finds few messages under way goes at once and alone. Others wait until one of those has
//! ended, or for [`LONGEST_WAIT`] if none does, and go together. Deadlines are kept by who carries a message, for all
//! that it carries, and by one task for all that wait: a call needs no timer of its own.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use inventory_sentinel::v1::{self, batch_operation::Operation, batch_result::Result as Told};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tonic::{Code, Request, metadata::MetadataMap};

use crate::{
    call::Miss,
    channels::Channels,
    convert::{self, Answer},
    namespace::checkout,
    retry::{Fare, TokenBucket},
    rpc_error::RpcError,
    trace,
};

/// Messages under way from which on further calls are gathered.
const FEW: usize = 4;
/// A call is sent when it has waited for so long and is looked at, however slow those under way are.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// How often those who wait are looked at: an answer that tells of a deadline is late by about this at most.
const LOOK: Duration = Duration::from_millis(5);
/// Most calls of one message, as the server has it.
const MAX_CALLS: usize = 512;
/// Most bytes of the calls of one message: half of what a server reads by default.
const MAX_BYTES: usize = 512 * 1024;

/// A request that can travel in a Batch.
pub(crate) trait Gathered: Clone {
    type Response: Answer;
    /// From now on it may have been sent before.
    fn set_repeated(&mut self);
    fn operation(self) -> Operation;
    /// Its response, if that is what the server has told.
    fn response(told: Told) -> Option<Self::Response>;
}

macro_rules! gathered {
    ($($request:ident -> $response:ident as $kind:ident, $set_repeated:expr;)+) => { $(
        impl Gathered for v1::$request {
            type Response = v1::$response;
            fn set_repeated(&mut self) {
                let set_repeated: fn(&mut Self) = $set_repeated;
                set_repeated(self);
            }
            fn operation(self) -> Operation {
                Operation::$kind(self)
            }
            fn response(told: Told) -> Option<Self::Response> {
                match told {
                    Told::$kind(response) => Some(response),
                    _ => None,
                }
            }
        }
    )+ };
}

gathered! {
    ReserveRequest -> ReserveResponse as Reserve, |request| request.first_attempt = false;
    CommitRequest -> CommitResponse as Commit, |_| {};
    RollbackRequest -> RollbackResponse as Rollback, |_| {};
}

/// Where the calls of one client meet.
#[derive(Debug)]
pub(crate) struct Gatherer {
    channels: Arc<Channels>,
    budget: Arc<TokenBucket>,
    /// Where the connections are: not that of a caller, who may be the only one to drive his own.
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    waiting: VecDeque<Waiting>,
    /// Whether a task looks at those that wait.
    is_watched: bool,
}

/// A call that waits to be sent.
#[derive(Debug)]
struct Waiting {
    operation: Operation,
    since: Instant,
    /// Of the first that waits: a message has one trace.
    trace: Option<MetadataMap>,
    caller: Caller,
}

/// Who waits for an answer.
#[derive(Debug)]
struct Caller {
    deadline: Instant,
    /// Gone once it was used.
    answer: Option<oneshot::Sender<Result<Told, Miss>>>,
}

impl Caller {
    /// Whether he hears nothing any more, or has waited as long as he would.
    fn is_over(&self, now: Instant) -> bool {
        self.deadline <= now || self.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn tell(&mut self, result: Result<Told, Miss>) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(result);
        }
    }

    /// Lets him go if his deadline has passed.
    fn give_up(&mut self, now: Instant, error: impl FnOnce() -> RpcError) {
        if self.deadline <= now {
            self.tell(Err(error().into()));
        }
    }
}

/// One message under way; when it is dropped, the next may go.
pub(crate) struct Pass(Arc<Gatherer>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
        self.0.pump();
    }
}

impl Gatherer {
    /// Sends on the runtime in which this is called, which is that of the connections.
    pub(crate) fn new(channels: Arc<Channels>, budget: Arc<TokenBucket>) -> Gatherer {
        Gatherer { channels, budget, runtime: Handle::current(), state: Mutex::default() }
    }

    /// Lets a call go alone, if few are under way.
    pub(crate) fn pass(self: &Arc<Self>) -> Option<Pass> {
        let mut state = self.state();
        let free = state.under_way < FEW && state.waiting.is_empty();
        free.then(|| {
            state.under_way += 1;
            Pass(Arc::clone(self))
        })
    }

    /// Sends a call together with others, and waits for its own answer, about until its deadline.
    pub(crate) async fn carry<M: Gathered>(
        self: &Arc<Self>,
        message: M,
        deadline: Instant,
    ) -> Result<M::Response, Miss> {
        let (answer, answered) = oneshot::channel();
        let caller = Caller { deadline, answer: Some(answer) };
        let operation = message.operation();
        self.wait(Waiting { operation, since: Instant::now(), trace: None, caller });
        let told = answered.await.map_err(|_| RpcError::cut_off())??;
        M::response(told).ok_or_else(|| RpcError::malformed("the result of another operation").into())
    }

    /// Lets a call wait, or go with those that wait if it may.
    fn wait(self: &Arc<Self>, mut call: Waiting) {
        let mut state = self.state();
        if state.waiting.is_empty() {
            let mut trace = MetadataMap::new();
            trace::inject(&mut trace);
            call.trace = Some(trace);
        }
        state.waiting.push_back(call);
        let (may_go, is_watched) = (state.under_way < FEW, std::mem::replace(&mut state.is_watched, true));
        drop(state);
        if !is_watched {
            self.runtime.spawn(Watch { gatherer: Arc::clone(self), is_over: false }.run());
        }
        if may_go {
            self.pump();
        }
    }

    /// Sends what waits, as far as it may go.
    fn pump(self: &Arc<Self>) {
        loop {
            let next = self.state().next_message(Instant::now());
            let Some(calls) = next else { return };
            let pass = Pass(Arc::clone(self));
            self.runtime.spawn(async move {
                send(&pass.0.channels, &pass.0.budget, calls).await;
                // Who was just answered may call again: his call can travel with the next message.
                tokio::task::yield_now().await;
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after those that wait, for as long as any do.
struct Watch {
    gatherer: Arc<Gatherer>,
    is_over: bool,
}

impl Watch {
    async fn run(mut self) {
        let mut look = looks();
        while !self.is_over {
            look.tick().await;
            self.gatherer.pump();
            let now = Instant::now();
            let mut state = self.gatherer.state();
            state.waiting.iter_mut().for_each(|call| call.caller.give_up(now, unsent_in_time));
            if state.waiting.is_empty() {
                state.is_watched = false;
                self.is_over = true;
            }
        }
    }
}

impl Drop for Watch {
    /// Where the runtime ends before it, those who wait are cut off: nobody sends them any more.
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.gatherer.state();
            state.is_watched = false;
            let left = std::mem::take(&mut state.waiting);
            drop(state);
            for mut call in left {
                call.caller.tell(Err(RpcError::cut_off().unsent().into()));
            }
        }
    }
}

impl State {
    /// The first that waits and is not over.
    fn next(&mut self, now: Instant) -> Option<Waiting> {
        loop {
            let mut call = self.waiting.pop_front()?;
            if !call.caller.is_over(now) {
                return Some(call);
            }
            call.caller.give_up(now, unsent_in_time);
        }
    }

    /// The calls of the next message, which is under way from now on. None of them is over already.
    fn next_message(&mut self, now: Instant) -> Option<Vec<Waiting>> {
        let first = self.next(now)?;
        if self.under_way >= FEW && now.saturating_duration_since(first.since) < LONGEST_WAIT {
            self.waiting.push_front(first);
            return None;
        }
        let mut bytes = first.operation.encoded_len();
        let mut calls = vec![first];
        while let Some(call) = self.next(now) {
            bytes += call.operation.encoded_len();
            if calls.len() == MAX_CALLS || bytes > MAX_BYTES {
                self.waiting.push_front(call);
                break;
            }
            calls.push(call);
        }
        self.under_way += 1;
        Some(calls)
    }
}

/// Of a call whose deadline came before its turn.
fn unsent_in_time() -> RpcError {
    RpcError::deadline_exceeded().unsent()
}

fn looks() -> Interval {
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

/// Sends one message and tells each call its result.
async fn send(channels: &Arc<Channels>, budget: &TokenBucket, mut calls: Vec<Waiting>) {
    let now = Instant::now();
    let timeout = |deadline: Instant| deadline.saturating_duration_since(now);
    let last = calls.iter().map(|call| call.caller.deadline).max().unwrap_or(now);
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
    request.set_timeout(timeout(last));
    let fare = Fare::default();
    let miss = |error| Miss { error, fare: fare.clone() };
    let lease = channels.take();
    let mut client = checkout(lease.channel());
    let (mut sending, mut look) = (pin!(client.batch(request)), looks());
    let sent = loop {
        tokio::select! {
            biased;
            sent = &mut sending => break sent,
            _ = look.tick() => {
                let now = Instant::now();
                callers.iter_mut().for_each(|caller| caller.give_up(now, RpcError::deadline_exceeded));
                if last <= now {
                    return;
                }
            }
        }
    };
    let results = match sent {
        Ok(response) => response.into_inner().results,
        // Each hears it as if he had been alone. One who gave up earlier hears nothing any more.
        Err(status) => {
            lease.note(&status);
            for mut caller in callers {
                caller.tell(Err(miss(RpcError::from_status(&status))));
            }
            return;
        }
    };
    let (mut results, mut answered) = (results.into_iter(), true);
    for mut caller in callers {
        let result = match results.next().and_then(|entry| entry.result) {
            Some(Told::Failure(failure)) => Err(RpcError::from_failure(failure)),
            Some(told) => Ok(told),
            None => Err(RpcError::malformed("no result of the operation")),
        };
        answered &= !matches!(&result, Err(error) if error.code() == Code::Unavailable);
        caller.tell(result.map_err(miss));
    }
    if answered {
        budget.refund();
    }
}
