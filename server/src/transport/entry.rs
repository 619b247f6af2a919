//! The entry of calls from one connection: waits until a request is complete, passes it to the
//! services, and tracks its response.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use inventory_sentinel::Reason;
use pin_project_lite::pin_project;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower_service::Service;

use super::{
    compression::Encoding,
    ledger::{Ledger, Registration},
    observer::Observer,
    operator_call::OperatorCall,
    peer::{HealthSlot, Peer, Unpinned},
    refusals,
    requests::{Bounds, Discarded, IncomingMessage, Messages, ReadError, StreamTimeouts},
    responses::Answer,
    rpc::{RequestForm, Rpc},
};
use crate::{
    access::{Caller, ConnectionAccess, Requirement},
    failure,
    tasks::Tasks,
};

/// Shared by the calls of all connections.
#[derive(Debug)]
pub(super) struct Shared {
    /// The largest request that takes a list, in bytes.
    pub(super) max_request: usize,
    /// Longest time for a request to arrive in full.
    pub(super) request_timeout: Duration,
    /// Longest pause of a client within a stream of requests.
    pub(super) stream_pause: Duration,
    /// Streams of requests that may be open.
    pub(super) streams: Arc<Semaphore>,
    /// Calls of operators that may run.
    pub(super) admin_calls: Arc<Semaphore>,
    /// Streams of the health service that may be open.
    pub(super) health_watches: Arc<Semaphore>,
    /// Ends the calls that only watch.
    pub(super) draining: CancellationToken,
    pub(super) requests: Arc<Ledger>,
    pub(super) responses: Arc<Ledger>,
    pub(super) tasks: Tasks,
}

/// The services as one connection calls them.
#[derive(Debug)]
pub(super) struct Entrance<S> {
    service: S,
    access: Arc<ConnectionAccess>,
    peer: Arc<Peer>,
    shared: Arc<Shared>,
}

impl<S> Entrance<S> {
    pub(super) fn new(service: S, access: Arc<ConnectionAccess>, peer: Arc<Peer>, shared: Arc<Shared>) -> Self {
        Self { service, access, peer, shared }
    }
}

/// The services behind the port.
pub(crate) trait Services
where
    Self: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
    Self: Clone + Send + 'static,
{
}

impl<S> Services for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

type Result<T> = std::result::Result<T, Infallible>;
/// A call whose request was incomplete at first.
type Late = Pin<Box<dyn Future<Output = Result<Response<Body>>> + Send>>;

impl<S: Services> hyper::service::Service<Request<Incoming>> for Entrance<S> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Call<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Call<S::Future> {
        let rpc = Rpc::of(request.uri().path(), self.shared.max_request);
        let (mut parts, mut body) = request.into_parts();
        let encoding = Encoding::take_from(&mut parts.headers);
        let admitted = self.access.admit(rpc.requirement, &mut parts.headers, parts.uri.path_and_query());
        let caller = match admitted {
            Ok(caller) => caller,
            Err(failure) => return self.refuse_admission(failure.into(), rpc.form, body),
        };
        let is_trusted = self.access.is_open() || caller.is_some();
        let revocable = if rpc.requirement == Requirement::AnyIdentity { caller.clone() } else { None };
        let registration = rpc.is_tracked.then(|| self.shared.responses.register(&self.peer));
        if let Some(registration) = &registration {
            self.peer.add_starting(registration.entry());
        }
        let observer = rpc.is_observer.then(|| Observer::new(&self.peer, &self.shared.draining, revocable));
        let bounds = |max, is_list| Bounds { max, is_list, encoding: encoding.unwrap_or(Encoding::Plain) };
        let take = |is_needed: bool, permits: &Arc<Semaphore>| {
            is_needed.then(|| Arc::clone(permits).try_acquire_owned()).transpose()
        };
        let is_unary = matches!(rpc.form, RequestForm::Message { .. });
        let permit = take(rpc.is_admin && is_unary, &self.shared.admin_calls);
        let is_overloaded = permit.is_err();
        let operator = rpc.is_admin.then(|| {
            let path = parts.uri.path_and_query().cloned();
            OperatorCall::new(&self.access, caller.clone(), path, permit.ok().flatten())
        });
        if let Some(operator) = &operator {
            parts.extensions.insert(operator.clone());
        }
        if let Some(caller) = caller {
            parts.extensions.insert(caller);
        }
        let slot = take(rpc.is_health_watch, &self.shared.health_watches);
        let slot = slot.map(|permit| permit.map(|permit| HealthSlot::new(permit, &self.peer)));
        let inner = match rpc.form {
            _ if !refusals::is_call(&parts) => Either::Right(Either::Left(ready(Ok(refusals::of_head(&parts))))),
            RequestForm::Unknown => self.refuse(failure::refusal(Reason::UnknownMethod)),
            _ if encoding.is_none() => self.refuse(refusals::of_encoding()),
            _ if is_overloaded || slot.is_err() => self.refuse(failure::refusal(Reason::Overloaded)),
            RequestForm::Message { max, is_list } => {
                let mut arriving = IncomingMessage::new(bounds(max, is_list), Arc::clone(&self.peer));
                // Usually the body arrived together with the head.
                match arriving.poll(&mut body, &mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Ok(message)) => Either::Left(self.serve(parts, whole(message))),
                    Poll::Ready(Err(unread)) => self.refuse(unread.status()),
                    Poll::Pending => Either::Right(Either::Right(self.await_request(parts, body, arriving))),
                }
            }
            RequestForm::Stream { max, is_list } => match Arc::clone(&self.shared.streams).try_acquire_owned() {
                Ok(permit) => {
                    let timeouts =
                        StreamTimeouts { message: self.shared.request_timeout, pause: self.shared.stream_pause };
                    let waiting = self.shared.requests.register(&self.peer);
                    self.peer.add_starting(waiting.entry());
                    let messages =
                        Messages::new(body, bounds(max, is_list), timeouts, waiting, permit, Arc::clone(&self.peer));
                    Either::Left(self.serve(parts, Body::new(messages)))
                }
                Err(_) => self.refuse(failure::refusal(Reason::Overloaded)),
            },
        };
        let is_served = matches!(inner, Either::Left(_));
        // With a policy, only a call of an identified caller is trusted: anyone can check the health.
        let earns = (is_served && is_trusted && self.peer.can_earn()).then(|| Arc::clone(&self.peer));
        let tasks = registration.is_some().then(|| self.shared.tasks.clone());
        Call { inner, registration, tasks, observer, operator, slot: slot.ok().flatten(), earns }
    }
}

impl<S: Services> Entrance<S> {
    /// A call of a caller that is not admitted. The request is read to its end and discarded: the HTTP/2 library closes
    /// a connection with many early responses, and a proxy can share it between callers.
    fn refuse_admission(&self, status: tonic::Status, form: RequestForm, mut body: Incoming) -> Call<S::Future> {
        let mut discarded = Discarded::default();
        // The caller of a stream waits for the refusal before it ends the stream.
        let is_stream = matches!(form, RequestForm::Stream { .. });
        let is_read = is_stream || discarded.poll(&mut body, &mut Context::from_waker(Waker::noop())).is_ready();
        let inner = if is_read {
            self.refuse(status)
        } else {
            let registration = self.shared.requests.register(&self.peer);
            self.peer.add_starting(registration.entry());
            registration.wait_on_with(0);
            let unpinned = Unpinned::new(&self.peer);
            let timeout = self.shared.request_timeout;
            let late: Late = Box::pin(async move {
                let _unpinned = unpinned;
                let rest = std::future::poll_fn(|cx| discarded.poll(&mut body, cx));
                if tokio::time::timeout(timeout, rest).await.is_err() {
                    registration.record_late();
                }
                Ok(status.into_http())
            });
            Either::Right(Either::Right(late))
        };
        Call { inner, registration: None, tasks: None, observer: None, operator: None, slot: None, earns: None }
    }

    fn refuse(&self, status: tonic::Status) -> Inner<S::Future> {
        Either::Right(Either::Left(ready(Ok(status.into_http()))))
    }

    fn serve(&self, parts: Parts, body: Body) -> S::Future {
        self.service.clone().call(Request::from_parts(parts, body))
    }

    /// Waits for the rest of a request, then passes it to the services.
    fn await_request(&self, mut parts: Parts, mut body: Incoming, mut arriving: IncomingMessage) -> Late {
        let registration = self.shared.requests.register(&self.peer);
        self.peer.add_starting(registration.entry());
        let timeout = self.shared.request_timeout;
        let is_trusted = self.access.is_open() || parts.extensions.get::<Caller>().is_some();
        let mut service = self.service.clone();
        let peer = Arc::clone(&self.peer);
        Box::pin(async move {
            let arrived = {
                let mut timer = std::pin::pin!(tokio::time::sleep(timeout));
                std::future::poll_fn(|cx| {
                    if let Poll::Ready(arrived) = arriving.poll(&mut body, cx) {
                        return Poll::Ready(arrived);
                    }
                    arriving.settle();
                    registration.wait_on_with(arriving.len());
                    timer.as_mut().poll(cx).map(|()| Err(ReadError::Late))
                })
                .await
            };
            if arrived == Err(ReadError::Late) {
                registration.record_late();
            }
            drop((registration, body));
            // The rules can change while the request arrives.
            let judged = parts.extensions.get::<Caller>().map(Caller::judged_again).transpose();
            match judged {
                Ok(Some(caller)) => drop(parts.extensions.insert(caller)),
                Ok(None) => {}
                Err(failure) => {
                    // The guard has recorded the refusal.
                    parts.extensions.get().into_iter().for_each(OperatorCall::set_recorded);
                    return Ok(tonic::Status::from(failure).into_http());
                }
            }
            match arrived {
                Ok(message) => {
                    let response = service.call(Request::from_parts(parts, whole(message))).await;
                    if is_trusted {
                        peer.earn();
                    }
                    response
                }
                Err(unread) => Ok(unread.status().into_http()),
            }
        })
    }
}

fn whole(message: Bytes) -> Body {
    Body::new(Full::new(message))
}

type Inner<F> = Either<F, Either<Ready<Result<Response<Body>>>, Late>>;

pin_project! {
    /// One call, until the head of its response.
    pub(super) struct Call<F> {
        #[pin]
        inner: Inner<F>,
        registration: Option<Registration>,
        // If the response is tracked.
        tasks: Option<Tasks>,
        // If the call only watches.
        observer: Option<Observer>,
        // If it is a call of an operator: until the response is ready, not until it is read.
        operator: Option<OperatorCall>,
        // As long as the stream is open.
        slot: Option<HealthSlot>,
        // The connection, if the response adds to its credit.
        earns: Option<Arc<Peer>>,
    }
}

impl<F: Future<Output = Result<Response<Body>>>> Future for Call<F> {
    type Output = Result<Response<Answer>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.inner.poll(cx)? {
            Poll::Ready(response) => response,
            // The start of a stream may wait for the store.
            Poll::Pending => match this.observer.as_mut().map(|observer| observer.poll_end(cx)) {
                Some(Poll::Ready(end)) => end.into_http(),
                _ => return Poll::Pending,
            },
        };
        let (registration, slot, observer) = (this.registration.take(), this.slot.take(), this.observer.take());
        if let Some(peer) = this.earns.take() {
            peer.earn();
        }
        let mut response = response;
        refusals::complete(response.headers_mut());
        if let Some(operator) = this.operator.take() {
            operator.record_refusal(response.headers());
        }
        Poll::Ready(Ok(response.map(|body| match registration.zip(this.tasks.take()) {
            Some((registration, tasks)) => Answer::tracked(body, registration, slot, observer, tasks),
            None => Answer::Plain(body),
        })))
    }
}
