//! A tower layer that makes a span of each call to the services of this package, under the caller's
//! trace. If no spans are exported, a call passes through unchanged.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use tonic::Code;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use super::spans;

/// The paths of this package; health checks and reflection are not traced.
const PACKAGE: &str = "/inventory_sentinel.v1.";

/// Longest path of a traced call; the paths of this package are far shorter.
const MAX_PATH_BYTES: usize = 128;

/// Adds a span to each call, while spans are exported.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace { inner }
    }
}

/// The service that [`TraceLayer`] makes.
#[derive(Clone, Debug)]
pub(crate) struct Trace<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for Trace<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Traced<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Traced<S::Future> {
        let names = if spans::are_wanted() { names(request.uri().path()) } else { None };
        let span = names.map_or_else(Span::none, |(service, method)| spans::call_span(service, method));
        if !span.is_disabled() {
            spans::set_remote_parent(&span, request.headers());
        }
        let inner = span.in_scope(|| self.inner.call(request));
        Traced { inner, span }
    }
}

pin_project! {
    /// A call within its span. The span ends with the head of the response, or with the stream that
    /// owns it.
    pub(crate) struct Traced<F> {
        #[pin]
        inner: F,
        span: Span,
    }
}

impl<F, B, E> Future for Traced<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.span.is_disabled() {
            return this.inner.poll(cx);
        }
        let inner = this.inner;
        let result = ready!(this.span.in_scope(|| inner.poll(cx)));
        if let Ok(response) = &result {
            spans::set_status(this.span, code(response.headers()));
        }
        // Ends the span now, not when the connection has written the body.
        *this.span = Span::none();
        Poll::Ready(result)
    }
}

/// Service and method of a path of this package.
fn names(path: &str) -> Option<(&str, &str)> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/');
    if !path.starts_with(PACKAGE) || path.len() > MAX_PATH_BYTES || !path.bytes().all(plain) {
        return None;
    }
    path[1..].split_once('/')
}

/// A refused call has its status in the head of the response; any other call counts as successful.
fn code(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Handler {
        seen: Arc<Mutex<Vec<Span>>>,
    }

    impl Service<Request<()>> for Handler {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<()>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            let seen = self.seen.clone();
            Box::pin(async move {
                seen.lock().unwrap().push(Span::current());
                Ok(Response::builder().header("grpc-status", "14").body(()).unwrap())
            })
        }
    }

    fn request(path: &str) -> Request<()> {
        Request::builder()
            .uri(path)
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .body(())
            .unwrap()
    }

    #[test]
    fn a_call_a_batch_and_its_script_are_seen_as_one_story() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let subscriber = tracing_subscriber::registry()
            .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_context_activation(false));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tracing::subscriber::with_default(subscriber, || {
            runtime.block_on(async {
                let handler = Handler::default();
                let mut service = TraceLayer.layer(handler.clone());
                service.call(request("/inventory_sentinel.v1.InventorySentinel/Reserve")).await.unwrap();
                service.call(request("/grpc.health.v1.Health/Check")).await.unwrap();

                let seen = std::mem::take(&mut *handler.seen.lock().unwrap());
                assert!(seen[1].is_disabled(), "health checks are not traced");
                let batch = spans::batch_span("shop", 0, 3, [&seen[0], &seen[0], &seen[1]].into_iter());
                drop(spans::redis_span(&batch, "apply"));
            });
        });

        let spans = exporter.get_finished_spans().unwrap();
        let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        let call = named("inventory_sentinel.v1.InventorySentinel/Reserve");
        assert_eq!(call.span_kind, SpanKind::Server);
        assert_eq!(call.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(call.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(call.attributes.iter().any(|a| a.key.as_str() == "rpc.grpc.status_code" && a.value == 14.into()));
        assert!(matches!(call.status, opentelemetry::trace::Status::Error { .. }));

        let batch = named("batch");
        assert_eq!(batch.links.len(), 1);
        assert_eq!(batch.links[0].span_context.span_id(), call.span_context.span_id());
        assert_eq!(named("EVALSHA").parent_span_id, batch.span_context.span_id());
        assert_eq!(named("EVALSHA").span_kind, SpanKind::Client);
    }

    #[test]
    fn without_an_exporter_there_is_no_span() {
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            let span = spans::call_span("Service", "Method");
            assert!(span.is_disabled());
            assert_eq!(span.context().span().span_context(), &SpanContext::NONE);
            let batch = spans::batch_span("shop", 0, 1, [&span].into_iter());
            assert!(spans::redis_span(&batch, "apply").is_disabled());
        });
    }

    #[test]
    fn only_plain_paths_of_this_package_are_named() {
        assert_eq!(names("/inventory_sentinel.v1.A/B"), Some(("inventory_sentinel.v1.A", "B")));
        let long = format!("/inventory_sentinel.v1.A/{}", "x".repeat(200));
        for path in
            ["/", "/grpc.health.v1.Health/Check", "/inventory_sentinel.v1.A", "/inventory_sentinel.v1.A/%0a", &long]
        {
            assert_eq!(names(path), None, "{path}");
        }
    }
}
