//! The W3C trace context of the current span as gRPC metadata. Reads the ambient span; no I/O.
//!
//! The W3C propagator is part of the OpenTelemetry SDK, which a library should not depend on, and the global propagator
//! sends nothing until the application sets it. So the header is written here.

use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt as _, TraceFlags},
};
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Adds `traceparent` and `tracestate` if there is a trace to continue.
pub(crate) fn inject(metadata: &mut MetadataMap) {
    let of_span = tracing::Span::current().context();
    if of_span.span().span_context().is_valid() {
        write(of_span.span().span_context(), metadata);
    } else {
        write(Context::current().span().span_context(), metadata);
    }
}

fn write(trace: &SpanContext, metadata: &mut MetadataMap) {
    if !trace.is_valid() {
        return;
    }
    let parent =
        format!("00-{}-{}-{:02x}", trace.trace_id(), trace.span_id(), trace.trace_flags() & TraceFlags::SAMPLED);
    if let Ok(parent) = MetadataValue::try_from(parent) {
        metadata.insert("traceparent", parent);
    }
    let state = trace.trace_state().header();
    if let (false, Ok(state)) = (state.is_empty(), MetadataValue::try_from(state.as_str())) {
        metadata.insert("tracestate", state);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::{
        SpanId, TraceId,
        trace::{TraceState, TracerProvider as _},
    };
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn header<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
        metadata.get(name).and_then(|value| value.to_str().ok())
    }

    #[test]
    fn without_a_trace_nothing_is_sent() {
        let mut metadata = MetadataMap::new();
        inject(&mut metadata);
        assert!(metadata.is_empty());
    }

    #[test]
    fn the_tracing_span_is_the_parent() {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("checkout");
            let _entered = span.enter();
            let context = span.context();
            let mut metadata = MetadataMap::new();
            inject(&mut metadata);
            let trace = context.span().span_context().clone();
            let expected = format!("00-{}-{}-01", trace.trace_id(), trace.span_id());
            assert_eq!(header(&metadata, "traceparent"), Some(expected.as_str()));
            assert_eq!(header(&metadata, "tracestate"), None);
        });
    }

    #[test]
    fn without_a_tracing_span_the_current_context_is_the_parent() {
        let trace = SpanContext::new(
            TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
            SpanId::from(0x00f0_67aa_0ba9_02b7),
            TraceFlags::new(0xff),
            true,
            TraceState::from_key_value([("shop", "1")]).unwrap(),
        );
        let _attached = Context::new().with_remote_span_context(trace).attach();
        let mut metadata = MetadataMap::new();
        inject(&mut metadata);
        assert_eq!(header(&metadata, "traceparent"), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert_eq!(header(&metadata, "tracestate"), Some("shop=1"));
    }
}
