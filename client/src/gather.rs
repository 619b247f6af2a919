//! Gathers calls that are made at the same time into Batch messages. Keeps the calls that wait, and
//! starts a task per message; it repeats nothing, and does not know what an operation means.
//!
//! A call that finds few messages under way goes at once and alone. Others wait until one of those has
//! ended, or for [`LONGEST_WAIT`] if none does, and go together.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use inventory_sentinel::v1::{self, batch_operation::Operation, batch_result::Result as Told};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tonic::{Code, Request, metadata::MetadataMap};

use crate::{
    call::{Channels, Miss},
    convert::{self, Answer},
    namespace::checkout,
    retry::{Fare, TokenBucket},
    rpc_error::RpcError,
    trace,
};

/// Messages under way from which on further calls are gathered.
const FEW: usize = 4;
/// Longest that a call waits to be sent, however slow those under way are.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    waiting: VecDeque<Waiting>,
}

/// A call that waits to be sent.
#[derive(Debug)]
struct Waiting {
    operation: Operation,
    deadline: Instant,
    /// When it has waited long enough.
    due: Instant,
    /// Of the first that waits: a message has one trace.
    trace: Option<MetadataMap>,
    answer: oneshot::Sender<Result<Told, Miss>>,
}

/// One message under way; when it is dropped, the next may go.
pub(crate) struct Pass<'a>(&'a Arc<Gatherer>);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
        self.0.pump();
    }
}

impl Gatherer {
    pub(crate) fn new(channels: Arc<Channels>, budget: Arc<TokenBucket>) -> Gatherer {
        Gatherer { channels, budget, state: Mutex::default() }
    }

    /// Lets a call go alone, if few are under way.
    pub(crate) fn pass(self: &Arc<Self>) -> Option<Pass<'_>> {
        let mut state = self.state();
        let free = state.under_way < FEW && state.waiting.is_empty();
        free.then(|| {
            state.under_way += 1;
            Pass(self)
        })
    }

    /// Sends a call together with others, and waits for its own answer until its deadline.
    pub(crate) async fn carry<M: Gathered>(
        self: &Arc<Self>,
        message: M,
        deadline: Instant,
    ) -> Result<M::Response, Miss> {
        let (answer, mut answered) = oneshot::channel();
        let due = Instant::now() + LONGEST_WAIT;
        self.state().wait(Waiting { operation: message.operation(), deadline, due, trace: None, answer });
        self.pump();
        let told = match timeout_at(due.min(deadline), &mut answered).await {
            Ok(told) => told,
            Err(_) => {
                self.pump();
                timeout_at(deadline, answered).await.map_err(|_| RpcError::deadline_exceeded())?
            }
        };
        let told = told.map_err(|_| RpcError::cut_off())??;
        M::response(told).ok_or_else(|| RpcError::malformed("the result of another operation").into())
    }

    /// Sends what waits, as far as it may go.
    fn pump(self: &Arc<Self>) {
        // Without a runtime nobody is polled either; who waits comes here again when he is due.
        let Ok(runtime) = Handle::try_current() else { return };
        loop {
            let next = self.state().next_message(Instant::now());
            let Some(calls) = next else { return };
            let gatherer = Arc::clone(self);
            runtime.spawn(async move {
                let _pass = Pass(&gatherer);
                send(&gatherer.channels, &gatherer.budget, calls).await;
                // Who was just answered may call again: his call can travel with the next message.
                tokio::task::yield_now().await;
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, mut call: Waiting) {
        if self.waiting.is_empty() {
            let mut trace = MetadataMap::new();
            trace::inject(&mut trace);
            call.trace = Some(trace);
        }
        self.waiting.push_back(call);
    }

    /// The calls of the next message, which is under way from now on. None of them is over already.
    fn next_message(&mut self, now: Instant) -> Option<Vec<Waiting>> {
        let is_over = |call: &Waiting| call.answer.is_closed() || call.deadline <= now;
        while self.waiting.front().is_some_and(is_over) {
            self.waiting.pop_front();
        }
        let first = self.waiting.front()?;
        if self.under_way >= FEW && first.due > now {
            return None;
        }
        let (mut calls, mut bytes) = (Vec::new(), 0);
        while let Some(call) = self.waiting.pop_front() {
            if is_over(&call) {
                continue;
            }
            bytes += call.operation.encoded_len();
            if calls.len() == MAX_CALLS || (bytes > MAX_BYTES && !calls.is_empty()) {
                self.waiting.push_front(call);
                break;
            }
            calls.push(call);
        }
        self.under_way += 1;
        Some(calls)
    }
}

/// Sends one message and tells each call its result.
async fn send(channels: &Channels, budget: &TokenBucket, mut calls: Vec<Waiting>) {
    let now = Instant::now();
    let timeout = |deadline: Instant| deadline.saturating_duration_since(now);
    let last = calls.iter().map(|call| call.deadline).max().unwrap_or(now);
    let trace = calls.iter_mut().find_map(|call| call.trace.take()).unwrap_or_default();
    let (operations, answers): (Vec<_>, Vec<_>) = calls
        .into_iter()
        .map(|call| {
            let timeout = Some(convert::duration(timeout(call.deadline)));
            (v1::BatchOperation { operation: Some(call.operation), timeout }, call.answer)
        })
        .unzip();
    let mut request = Request::new(v1::BatchRequest { operations });
    *request.metadata_mut() = trace;
    request.set_timeout(timeout(last));
    let fare = Fare::default();
    let miss = |error| Miss { error, fare: fare.clone() };
    let results = match timeout_at(last, checkout(channels.next()).batch(request)).await {
        Ok(Ok(response)) => response.into_inner().results,
        // Each hears it as if he had been alone. One who gave up earlier hears nothing any more.
        Ok(Err(status)) => {
            for answer in answers {
                let _ = answer.send(Err(miss(RpcError::from_status(&status))));
            }
            return;
        }
        Err(_) => return,
    };
    let (mut results, mut answered) = (results.into_iter(), true);
    for answer in answers {
        let result = match results.next().and_then(|entry| entry.result) {
            Some(Told::Failure(failure)) => Err(RpcError::from_failure(failure)),
            Some(told) => Ok(told),
            None => Err(RpcError::malformed("no result of the operation")),
        };
        answered &= !matches!(&result, Err(error) if error.code() == Code::Unavailable);
        let _ = answer.send(result.map_err(miss));
    }
    if answered {
        budget.refund();
    }
}
