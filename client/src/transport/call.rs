//! One call: one deadline, attempts within it, the same message in each. The only place that retries. It imports
//! neither the request builders nor the messages.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap, transport::Channel};

use super::{
    batcher::{Batchable, Batcher},
    channels::{Channels, Lease},
    credentials::Credentials,
    identities::{Claim, Identified, Identities, Identity},
    retry::{AttemptError, RetryPolicy, TokenBucket},
    trace,
};
use crate::{convert::Decode, limits::MAX_DEADLINE, rpc_error::RpcError};

/// The state that all handles of one client share.
#[derive(Debug)]
pub(crate) struct Core {
    channels: Arc<Channels>,
    retry: RetryPolicy,
    budget: Arc<TokenBucket>,
    batcher: Option<Arc<Batcher>>,
    is_direct: bool,
    identities: Arc<Identities>,
    credentials: Arc<Credentials>,
}

/// The settings of a client that concern its calls.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) retry: RetryPolicy,
    pub(crate) batching: bool,
    pub(crate) is_direct: bool,
    pub(crate) identity_memory: usize,
}

/// A response, and the attempts that led to it.
pub(crate) struct Completed<R> {
    pub(crate) response: R,
    pub(crate) attempts: Attempts,
}

/// The attempts of a call up to its response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    number: u32,
    /// Whether one before the last may have been applied.
    earlier_unknown: bool,
}

impl Attempts {
    /// Completes an error inside the response by the earlier attempts of the call.
    pub(crate) fn annotate(self, error: RpcError) -> RpcError {
        error.after(self.number, self.earlier_unknown)
    }
}

impl<R: Decode> Completed<R> {
    fn decode(self) -> Result<R::Value, RpcError> {
        self.response.decode().map_err(|error| self.attempts.annotate(error))
    }
}

impl Core {
    pub(crate) fn new(channels: Channels, credentials: Credentials, settings: Settings) -> Core {
        let Settings { retry, batching, is_direct, identity_memory } = settings;
        let budget = Arc::new(TokenBucket::new(retry.budget));
        let (channels, credentials) = (Arc::new(channels), Arc::new(credentials));
        let batcher = || Batcher::new(Arc::clone(&channels), Arc::clone(&credentials), Arc::clone(&budget));
        let batcher = batching.then(|| Arc::new(batcher()));
        let identities = Arc::new(Identities::new(identity_memory));
        Core { channels, retry, budget, batcher, is_direct, identities, credentials }
    }

    /// A connection for a stream.
    pub(crate) fn lease(&self) -> Lease {
        self.channels.acquire()
    }

    /// Adds the credentials of this client to a stream's request; `call` adds them to its own.
    pub(crate) fn attach_credentials(&self, metadata: &mut MetadataMap) {
        self.credentials.attach(metadata);
    }

    /// Whether nothing between this client and the server repeats calls.
    pub(crate) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// The identity of a message whose `request_id` the caller set; `None` if this client generated it.
    pub(crate) fn identity(&self, message: &impl Identified, is_named: bool) -> Option<Identity> {
        if is_named { self.identities.of(message) } else { None }
    }

    /// Begins a call under this identity; refused if the identity belongs to another request.
    pub(crate) fn claim(&self, identity: Option<Identity>) -> Result<Claim, RpcError> {
        self.identities.claim(identity)
    }

    /// Begins the call of a message. `is_named`: the caller set its `request_id`.
    pub(crate) fn claim_for(&self, message: &impl Identified, is_named: bool) -> Result<Claim, RpcError> {
        self.claim(self.identity(message, is_named))
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    /// Sends `message` until it gets a final response, within `timeout` for all attempts together.
    pub(crate) async fn call<M, R, F>(
        &self,
        timeout: Duration,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R::Value, RpcError>
    where
        M: Clone,
        R: Decode,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_raw(timeout, message, send).await?.decode()
    }

    /// As `call`, for a response that contains errors.
    pub(crate) async fn call_raw<M, R, F>(
        &self,
        timeout: Duration,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<Completed<R>, RpcError>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let (message, send) = (&message, &send);
        self.retry_loop(timeout, |deadline, _| self.attempt(deadline, message.clone(), send)).await
    }

    /// As `call`, for a message that may share a Batch with those of other calls.
    pub(crate) async fn call_batched<M, F>(
        &self,
        timeout: Duration,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<<M::Response as Decode>::Value, RpcError>
    where
        M: Batchable,
        F: Future<Output = Result<Response<M::Response>, Status>>,
    {
        let (message, send) = (&message, &send);
        let attempt = |deadline, attempts| async move {
            let mut message = message.clone();
            if attempts > 1 {
                message.clear_first_attempt();
            }
            // Boxed: the future of a batched call needs no room for that of a single one.
            let alone = |message| Box::pin(self.attempt(deadline, message, send));
            let Some(batcher) = &self.batcher else { return alone(message).await };
            match batcher.try_acquire() {
                Some(_permit) => alone(message).await,
                None => batcher.submit(message, deadline).await,
            }
        };
        self.retry_loop(timeout, attempt).await?.decode()
    }

    async fn retry_loop<R, F>(
        &self,
        timeout: Duration,
        attempt: impl Fn(Instant, u32) -> F,
    ) -> Result<Completed<R>, RpcError>
    where
        F: Future<Output = Result<R, AttemptError>>,
    {
        let deadline = Instant::now() + timeout.min(MAX_DEADLINE);
        let mut attempts = 1;
        let mut unknown = false;
        loop {
            let (error, token) = match attempt(deadline, attempts).await {
                Ok(response) => {
                    let attempts = Attempts { number: attempts, earlier_unknown: unknown };
                    return Ok(Completed { response, attempts });
                }
                Err(AttemptError { error, token }) => (error.after(attempts, unknown), token),
            };
            unknown = error.outcome_unknown();
            if error.code() != Code::Unavailable || attempts >= self.retry.max_attempts {
                return Err(error);
            }
            let pause = self.retry.pause(attempts, error.retry_delay());
            let left = deadline.saturating_duration_since(Instant::now());
            if pause >= left || !token.charge(&self.budget) {
                return Err(error);
            }
            tracing::debug!(attempts, ?pause, %error, "call is retried");
            sleep(pause).await;
            attempts += 1;
        }
    }

    async fn attempt<M, R, F>(
        &self,
        deadline: Instant,
        message: M,
        send: &impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R, AttemptError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        trace::inject(request.metadata_mut());
        self.credentials.attach(request.metadata_mut());
        let lease = self.channels.acquire();
        match timeout_at(deadline, send(lease.channel(), request)).await {
            Ok(Ok(response)) => {
                self.budget.refund();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                lease.record_failure(&status);
                Err(RpcError::from_status(&status).into())
            }
            Err(_) => Err(RpcError::deadline_exceeded().into()),
        }
    }
}
