//! Streams that resume after a lost connection, on another server, or when a server stops.
//!
//! - here: the resume logic; it imports no message.
//! - `events`: every change; `stock`: counters; `protected`: the cached set of protected SKUs.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};

use inventory_sentinel::Reason;

use crate::{
    rpc_error::RpcError,
    scope::Scope,
    transport::{channels::Lease, trace},
};

pub(crate) mod events;
pub(crate) mod protected;
pub(crate) mod stock;

/// A response that contains the position of its stream.
pub(crate) trait ResumableResponse: Send + 'static {
    fn resume_token(&self) -> &str;
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<Response<Streaming<T>>, Status>> + Send>>;
/// Opens the stream after a resume token.
type Open<T> = Arc<dyn Fn(Channel, Request<()>, String) -> Opening<T> + Send + Sync>;

/// A stream and its position.
pub(crate) struct ResumingStream<T> {
    scope: Scope,
    open: Open<T>,
    stream: Option<OpenStream<T>>,
    token: String,
    /// Failed attempts since the last response.
    attempts: u32,
    /// Whether the next response is the first since the stream was opened.
    is_new: bool,
}

/// An open stream and its connection.
struct OpenStream<T> {
    responses: Streaming<T>,
    _lease: Lease,
}

/// A response, and whether it is the first since the stream was opened.
pub(crate) struct StreamItem<T> {
    pub(crate) response: T,
    pub(crate) is_first: bool,
}

impl<T: ResumableResponse> ResumingStream<T> {
    pub(crate) fn new(
        scope: Scope,
        token: String,
        open: impl Fn(Channel, Request<()>, String) -> Opening<T> + Send + Sync + 'static,
    ) -> Self {
        ResumingStream { scope, open: Arc::new(open), stream: None, token, attempts: 0, is_new: true }
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Starts over without a position.
    pub(crate) fn reset(&mut self) {
        (self.stream, self.token, self.is_new) = (None, String::new(), true);
    }

    /// The next response. A broken stream is opened again after the last response, up to the attempts of the retry
    /// policy in a row. A call after an error tries again.
    pub(crate) async fn next(&mut self) -> Result<StreamItem<T>, RpcError> {
        loop {
            let error = match self.try_next().await {
                Ok(response) => {
                    self.attempts = 0;
                    self.token = response.resume_token().to_owned();
                    let is_first = std::mem::take(&mut self.is_new);
                    return Ok(StreamItem { response, is_first });
                }
                Err(error) => error.into_read(),
            };
            (self.stream, self.is_new) = (None, true);
            let is_resumable = matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded)
                || error.reason() == Some(Reason::WatchTooSlow);
            let retry = self.scope.core.retry();
            self.attempts += 1;
            if !is_resumable || self.attempts >= retry.max_attempts {
                self.attempts = 0;
                return Err(error);
            }
            let pause = retry.pause(self.attempts, error.retry_delay());
            tracing::debug!(attempts = self.attempts, ?pause, %error, "stream is opened again");
            sleep(pause).await;
        }
    }

    async fn try_next(&mut self) -> Result<T, RpcError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                // The request has no `grpc-timeout`: it would limit the whole stream.
                let deadline = Instant::now() + self.scope.deadline;
                let mut request = Request::new(());
                trace::inject(request.metadata_mut());
                self.scope.core.attach_credentials(request.metadata_mut());
                let lease = self.scope.core.lease();
                let opening = (self.open)(lease.channel(), request, self.token.clone());
                match timeout_at(deadline, opening).await {
                    Ok(Ok(response)) => {
                        self.stream.insert(OpenStream { responses: response.into_inner(), _lease: lease })
                    }
                    Ok(Err(status)) => {
                        lease.record_failure(&status);
                        return Err(RpcError::from_status(&status));
                    }
                    Err(_) => return Err(RpcError::deadline_exceeded()),
                }
            }
        };
        match stream.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(RpcError::disconnected()),
            Err(status) => Err(RpcError::from_status(&status)),
        }
    }
}

impl<T> fmt::Debug for ResumingStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumingStream").field("namespace", &self.scope.name).field("token", &self.token).finish()
    }
}
