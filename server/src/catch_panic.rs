//! A tower layer that responds with INTERNAL if the handler of a call panics, and counts the panic.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    failure::defect,
    tasks::{Task, Tasks},
    telemetry::panics,
};

/// Catches the panics of the services behind it.
#[derive(Clone)]
pub(crate) struct CatchPanicLayer(pub(crate) Tasks);

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner, tasks: self.0.clone() }
    }
}

/// The service that [`CatchPanicLayer`] makes.
#[derive(Clone)]
pub(crate) struct CatchPanic<S> {
    inner: S,
    tasks: Tasks,
}

impl<S> Service<Request<Body>> for CatchPanic<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = CatchPanicFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A call that does not wait is handled here.
        let _named = panics::name(Task::Call.label());
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.call(request))).ok();
        CatchPanicFuture { inner, tasks: self.tasks.clone() }
    }
}

pin_project! {
    /// A call whose panic becomes a response.
    pub(crate) struct CatchPanicFuture<F> {
        #[pin]
        inner: Option<F>,
        tasks: Tasks,
    }
}

impl<F, E> Future for CatchPanicFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let polled = match this.inner.as_mut().as_pin_mut() {
            Some(inner) => this.tasks.catch(Task::Call, || inner.poll(context)),
            // The handler panicked before it returned a future.
            None => {
                this.tasks.count_panic(Task::Call);
                None
            }
        };
        polled.unwrap_or_else(|| {
            this.inner.set(None);
            Poll::Ready(Ok(defect("the handler of the call panicked").into_http()))
        })
    }
}
