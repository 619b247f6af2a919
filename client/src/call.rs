//! The way of every call: one deadline, attempts within it, the same message on each. The only place
//! that repeats; it knows neither the operation nor its message.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Response, Status, transport::Channel};
use uuid::Uuid;

use crate::{
    channels::{Channels, Lease},
    connection::MAX_DEADLINE,
    convert::Answer,
    gather::{Gathered, Gatherer},
    identities::{Claim, Identified, Identities, Identity},
    retry::{Fare, RetryPolicy, TokenBucket},
    rpc_error::RpcError,
    trace,
};

/// What all handles of one client share.
#[derive(Debug)]
pub(crate) struct Core {
    channels: Arc<Channels>,
    retry: RetryPolicy,
    budget: Arc<TokenBucket>,
    gatherer: Option<Arc<Gatherer>>,
    is_direct: bool,
    identities: Arc<Identities>,
}

/// What of a connection's settings its calls need.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) retry: RetryPolicy,
    pub(crate) batching: bool,
    pub(crate) is_direct: bool,
    pub(crate) identity_memory: usize,
}

/// Why a message was not answered, as one of its calls sees it.
#[derive(Debug)]
pub(crate) struct Miss {
    pub(crate) error: RpcError,
    pub(crate) fare: Fare,
}

impl From<RpcError> for Miss {
    /// Of a call that travelled alone.
    fn from(error: RpcError) -> Self {
        Miss { error, fare: Fare::default() }
    }
}

/// An answer, and what came before it.
pub(crate) struct Answered<A> {
    pub(crate) answer: A,
    pub(crate) attempts: Attempts,
}

/// The attempts of a call up to its answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    number: u32,
    /// Whether one before the last may have been applied.
    earlier_unknown: bool,
}

impl Attempts {
    /// What an error in the answer says about the whole call.
    pub(crate) fn judge(self, error: RpcError) -> RpcError {
        error.after(self.number, self.earlier_unknown)
    }
}

impl<A: Answer> Answered<A> {
    fn plain(self) -> Result<A::Plain, RpcError> {
        self.answer.plain().map_err(|error| self.attempts.judge(error))
    }
}

impl Core {
    pub(crate) fn new(channels: Channels, settings: Settings) -> Core {
        let Settings { retry, batching, is_direct, identity_memory } = settings;
        let budget = Arc::new(TokenBucket::new(retry.budget));
        let channels = Arc::new(channels);
        let gatherer = batching.then(|| Arc::new(Gatherer::new(Arc::clone(&channels), Arc::clone(&budget))));
        Core { channels, retry, budget, gatherer, is_direct, identities: Arc::new(Identities::new(identity_memory)) }
    }

    /// A connection for a stream.
    pub(crate) fn lease(&self) -> Lease {
        self.channels.take()
    }

    /// Whether nothing between this client and the server repeats calls.
    pub(crate) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// The identity of a message whose request_id the caller named; `None` where this client made it.
    pub(crate) fn identity(&self, message: &impl Identified, is_named: bool) -> Option<Identity> {
        if is_named { self.identities.of(message) } else { None }
    }

    /// Begins a call under this identity; refused where it stands for another request.
    pub(crate) fn claim(&self, identity: Option<Identity>) -> Result<Claim, RpcError> {
        self.identities.claim(identity)
    }

    /// How what fails is repeated.
    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    /// Sends `message` until it is answered for good, within `timeout` for all attempts together.
    pub(crate) async fn call<M, A, F>(
        &self,
        timeout: Duration,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<A::Plain, RpcError>
    where
        M: Clone,
        A: Answer,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.call_whole(timeout, message, send).await?.plain()
    }

    /// As `call`, for an answer that has errors in it.
    pub(crate) async fn call_whole<M, A, F>(
        &self,
        timeout: Duration,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<Answered<A>, RpcError>
    where
        M: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (message, send) = (&message, &send);
        self.repeat(timeout, |deadline, _| self.attempt(deadline, message.clone(), send)).await
    }

    /// As `call`, of a message that may travel together with those of other calls.
    pub(crate) async fn call_gathered<M, F>(
        &self,
        timeout: Duration,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<<M::Response as Answer>::Plain, RpcError>
    where
        M: Gathered,
        F: Future<Output = Result<Response<M::Response>, Status>>,
    {
        let (message, send) = (&message, &send);
        let attempt = |deadline, attempts| async move {
            let mut message = message.clone();
            if attempts > 1 {
                message.set_repeated();
            }
            // In a box: those that travel together need not carry the room for travelling alone about with them.
            let alone = |message| Box::pin(self.attempt(deadline, message, send));
            let Some(gatherer) = &self.gatherer else { return alone(message).await };
            match gatherer.pass() {
                Some(_pass) => alone(message).await,
                None => gatherer.carry(message, deadline).await,
            }
        };
        self.repeat(timeout, attempt).await?.plain()
    }

    async fn repeat<A, F>(
        &self,
        timeout: Duration,
        attempt: impl Fn(Instant, u32) -> F,
    ) -> Result<Answered<A>, RpcError>
    where
        F: Future<Output = Result<A, Miss>>,
    {
        let deadline = Instant::now() + timeout.min(MAX_DEADLINE);
        let mut attempts = 1;
        let mut unknown = false;
        loop {
            let (error, fare) = match attempt(deadline, attempts).await {
                Ok(answer) => {
                    return Ok(Answered { answer, attempts: Attempts { number: attempts, earlier_unknown: unknown } });
                }
                Err(Miss { error, fare }) => (error.after(attempts, unknown), fare),
            };
            unknown = error.outcome_unknown();
            if error.code() != Code::Unavailable || attempts >= self.retry.max_attempts {
                return Err(error);
            }
            let pause = self.retry.pause(attempts, error.retry_delay());
            let left = deadline.saturating_duration_since(Instant::now());
            if pause >= left || !fare.pay(&self.budget) {
                return Err(error);
            }
            tracing::debug!(attempts, ?pause, %error, "call is repeated");
            sleep(pause).await;
            attempts += 1;
        }
    }

    async fn attempt<M, A, F>(
        &self,
        deadline: Instant,
        message: M,
        send: &impl Fn(Channel, Request<M>) -> F,
    ) -> Result<A, Miss>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        trace::inject(request.metadata_mut());
        let lease = self.channels.take();
        match timeout_at(deadline, send(lease.channel(), request)).await {
            Ok(Ok(response)) => {
                self.budget.refund();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                lease.note(&status);
                Err(RpcError::from_status(&status).into())
            }
            Err(_) => Err(RpcError::deadline_exceeded().into()),
        }
    }
}

/// Lets a request be awaited: `send` is what it then does.
macro_rules! awaited {
    ($request:ident -> $answer:ty) => {
        impl std::future::IntoFuture for $request {
            type Output = $answer;
            type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}
pub(crate) use awaited;

/// A new identity for one change.
pub(crate) fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}
