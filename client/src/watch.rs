//! Streams that go on by themselves: over a lost connection, another server, a server that stops.
//!
//! - here: the way of every stream; it knows no message.
//! - `events`: every change; `stock`: counters; `protected`: the set of protected SKUs, kept here.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};

use inventory_sentinel::Reason;

use crate::{channels::Lease, namespace::Namespace, rpc_error::RpcError, trace};

pub(crate) mod events;
pub(crate) mod protected;
pub(crate) mod stock;

/// A response that says where its stream stands.
pub(crate) trait Told: Send + 'static {
    fn resume_token(&self) -> &str;
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<Response<Streaming<T>>, Status>> + Send>>;
/// Opens the stream behind a token.
type Open<T> = Arc<dyn Fn(Channel, Request<()>, String) -> Opening<T> + Send + Sync>;

/// A stream, and where it stands.
pub(crate) struct Follower<T> {
    namespace: Namespace,
    open: Open<T>,
    stream: Option<OpenStream<T>>,
    token: String,
    /// Attempts since something was heard.
    attempts: u32,
    /// The next response is the first of its stream.
    is_new: bool,
}

/// A stream, and its place on a connection.
struct OpenStream<T> {
    responses: Streaming<T>,
    _lease: Lease,
}

/// A response, and whether it is the first of its stream.
pub(crate) struct Heard<T> {
    pub(crate) told: T,
    pub(crate) is_first: bool,
}

impl<T: Told> Follower<T> {
    pub(crate) fn new(
        namespace: Namespace,
        token: String,
        open: impl Fn(Channel, Request<()>, String) -> Opening<T> + Send + Sync + 'static,
    ) -> Self {
        Follower { namespace, open: Arc::new(open), stream: None, token, attempts: 0, is_new: true }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Starts over.
    pub(crate) fn forget_place(&mut self) {
        (self.stream, self.token, self.is_new) = (None, String::new(), true);
    }

    /// The next response. A stream that breaks is opened again behind the last one, as often in a row as the
    /// retry policy has attempts; asked again after that, it tries again.
    pub(crate) async fn next(&mut self) -> Result<Heard<T>, RpcError> {
        loop {
            let error = match self.try_next().await {
                Ok(told) => {
                    self.attempts = 0;
                    self.token = told.resume_token().to_owned();
                    let is_first = std::mem::take(&mut self.is_new);
                    return Ok(Heard { told, is_first });
                }
                Err(error) => error.of_read(),
            };
            (self.stream, self.is_new) = (None, true);
            let resumes = matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded)
                || error.reason() == Some(Reason::WatchTooSlow);
            let retry = self.namespace.core.retry();
            self.attempts += 1;
            if !resumes || self.attempts >= retry.max_attempts {
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
                // The call itself has no deadline: it would be one for the whole stream.
                let deadline = Instant::now() + self.namespace.deadline;
                let mut request = Request::new(());
                trace::inject(request.metadata_mut());
                let lease = self.namespace.core.lease();
                let opening = (self.open)(lease.channel(), request, self.token.clone());
                match timeout_at(deadline, opening).await {
                    Ok(Ok(response)) => {
                        self.stream.insert(OpenStream { responses: response.into_inner(), _lease: lease })
                    }
                    Ok(Err(status)) => {
                        lease.note(&status);
                        return Err(RpcError::from_status(&status));
                    }
                    Err(_) => return Err(RpcError::deadline_exceeded()),
                }
            }
        };
        match stream.responses.message().await {
            Ok(Some(told)) => Ok(told),
            Ok(None) => Err(RpcError::cut_off()),
            Err(status) => Err(RpcError::from_status(&status)),
        }
    }
}

impl<T> fmt::Debug for Follower<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("namespace", &self.namespace.name).field("token", &self.token).finish()
    }
}
