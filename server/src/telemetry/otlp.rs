//! Traces to an OpenTelemetry collector, configured by the standard `OTEL_*` variables. Off unless
//! an endpoint is set. Spans wait in a bounded queue for an export thread. If the collector is
//! down, they are dropped there, and no call waits.

use std::env;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::Registry;

use super::spans;

const SERVICE_NAME: &str = "inventory-sentinel";

/// The provider that the environment configures, if any.
///
/// The SDK reads the sampler, the limits, the size of the queue, and the exporter's headers,
/// timeout and endpoint.
pub(super) fn provider() -> Result<Option<SdkTracerProvider>, String> {
    if !wanted(variable) {
        return Ok(None);
    }
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(protocol) = protocol.filter(|protocol| protocol != "grpc") {
        return Err(format!("otlp is exported by grpc only, not by {protocol:?}: name the collector's grpc endpoint"));
    }
    let exporter = SpanExporter::builder().with_tonic().build().map_err(|error| error.to_string())?;

    Ok(Some(batching(exporter)))
}

/// Exports from a thread, out of a queue that drops spans when it is full.
fn batching(exporter: SpanExporter) -> SdkTracerProvider {
    let mut resource = Resource::builder();
    let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let named = attributes.split(',').any(|pair| pair.trim_start().starts_with("service.name="));
    if variable("OTEL_SERVICE_NAME").is_none() && !named {
        resource = resource.with_service_name(SERVICE_NAME);
    }
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
    SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()
}

/// The layer that exports the spans of [`spans::TARGET`].
pub(super) fn layer(provider: &SdkTracerProvider) -> Box<dyn Layer<Registry> + Send + Sync> {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SERVICE_NAME))
        // Attributes that cost time for each span and have no use.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(FilterFn::new(|metadata| metadata.is_span() && metadata.target() == spans::TARGET))
        .boxed()
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let none = variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let endpoint = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    !disabled && !none && endpoint.iter().any(|name| variable(name).is_some())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use opentelemetry_otlp::WithExportConfig as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dead_collector_slows_nothing() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let absent = "http://127.0.0.1:1".to_owned();
        for endpoint in [absent, format!("http://{}", silent.local_addr().unwrap())] {
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build().unwrap();
            let provider = batching(exporter);
            let subscriber = tracing_subscriber::registry().with(vec![layer(&provider)]);
            let began = Instant::now();
            tracing::subscriber::with_default(subscriber, || {
                for _ in 0..20_000 {
                    assert!(!spans::call_span("Service", "Method").is_disabled());
                }
            });
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

            let began = Instant::now();
            let limit = Duration::from_millis(300);
            let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
            // The timeout of the exporter is longer than that of a stopping server.
            let _ = tokio::time::timeout(limit, flush).await;
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
    }

    #[test]
    fn off_unless_an_endpoint_is_named() {
        let is_wanted = |set: &[(&str, &str)]| {
            wanted(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        assert!(!is_wanted(&[]));
        assert!(is_wanted(&[endpoint]));
        assert!(is_wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4317")]));
        assert!(!is_wanted(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]));
        assert!(!is_wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
    }
}
