//! The exported spans: one per call, one per batch with links to its calls, one per script call.
//! Without a collector all of them are disabled, and each costs a load and a branch.

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Status, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of every exported span; the log ignores it.
pub(super) const TARGET: &str = "sentinel::span";

/// Most links of a batch span, which bound its size.
const MAX_LINKS: usize = 128;

/// Whether spans are exported.
pub(super) fn are_wanted() -> bool {
    tracing::span_enabled!(target: TARGET, tracing::Level::INFO)
}

/// The span of one gRPC call. `service` is the full name, with its package.
pub(super) fn call_span(service: &str, method: &str) -> Span {
    tracing::info_span!(
        target: TARGET,
        parent: None,
        "call",
        otel.name = format_args!("{service}/{method}"),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
    )
}

/// Makes the caller's span, from the W3C `traceparent`, the parent of this one.
pub(super) fn set_remote_parent(span: &Span, headers: &http::HeaderMap) {
    struct Headers<'a>(&'a http::HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).and_then(|value| value.to_str().ok())
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }

    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    if parent.span().span_context().is_valid() {
        // It fails if the span is not exported, which is harmless.
        let _ = span.set_parent(parent);
    }
}

/// Records the status of a call. A refusal is not an error of the server; only a server fault is.
pub(crate) fn set_status(span: &Span, code: Code) {
    span.record("rpc.grpc.status_code", code as i32);
    let failed = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if failed {
        span.set_status(Status::error(code.description()));
    }
}

/// The span of one batch, linked to its calls. It is a root: its calls have traces already, and it
/// is part of each of them.
pub(crate) fn batch_span<'a>(
    namespace: &str,
    partition: u16,
    operations: usize,
    calls: impl Iterator<Item = &'a Span>,
) -> Span {
    let batch = tracing::info_span!(
        target: TARGET,
        parent: None,
        "batch",
        otel.kind = "internal",
        sentinel.namespace = namespace,
        sentinel.partition = partition,
        sentinel.operations = operations,
    );
    if !batch.is_disabled() {
        let mut calls: Vec<&Span> = calls.filter(|call| !call.is_disabled()).collect();
        // One call can have many operations in a batch.
        calls.dedup_by_key(|call| call.id());
        for call in calls.into_iter().take(MAX_LINKS) {
            batch.add_link(call.context().span().span_context().clone());
        }
    }
    batch
}

/// The span of one script call at Redis, under its batch.
pub(crate) fn redis_span(parent: &Span, script: &str) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET,
        parent: parent,
        "EVALSHA",
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = "EVALSHA",
        db.stored_procedure.name = script,
    )
}
