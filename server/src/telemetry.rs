//! Logs, traces and metrics of the server. Reads the configuration and the standard `OTEL_*`
//! variables. Independent of calls, lanes and the store.
//!
//! - `logs`: structured lines on standard error; `limit`: a limit on lines of one kind.
//! - `otlp`: traces to a collector, off by default; no call waits for them.
//! - `spans`: the spans that are exported, and their links.
//! - `grpc`: the tower layer that makes the span of each call.
//! - `panics`: panics as lines of the log.
//! - `audit`: the audit log of operators' calls and of refused calls.
//! - `metrics`: counters and histograms in the Prometheus text format; `transport`: those of the
//!   ports; `access`: those of credentials, TLS and reloads.

use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use self::limit::Limit;
use crate::config::Config;

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod grpc;
pub(crate) mod limit;
mod logs;
pub(crate) mod metrics;
mod otlp;
pub(crate) mod panics;
pub(crate) mod spans;
pub(crate) mod transport;

/// Longest wait for the last spans at a stop.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Keeps logs and traces running; [`Telemetry::shutdown`] exports the queued spans.
#[derive(Debug)]
#[must_use = "spans are lost without a shutdown"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    limit: Limit,
}

/// Logs or traces could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up {what}: {why}")]
pub struct TelemetryError {
    what: &'static str,
    why: String,
}

/// Sets up logs and traces for this process, once. Needs a tokio runtime around it.
///
/// # Errors
/// A log filter that does not parse, or a process that has a subscriber already. If traces can't be
/// exported, the server logs that and serves without them.
pub fn init(config: &Config) -> Result<Telemetry, TelemetryError> {
    let limit = Limit::default();
    let filter =
        logs::filter(&config.log).map_err(|error| TelemetryError { what: "the log", why: error.to_string() })?;
    let (provider, complaint) = match otlp::provider() {
        Ok(provider) => (provider, None),
        Err(why) => (None, Some(why)),
    };

    // Each layer has its own filter. Without a collector no layer records the spans of
    // `spans::TARGET`, and tracing then skips them at the price of one load.
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        vec![logs::layer(config.log_format, filter, limit.clone())];
    let audit_log = config.security.audit_log.as_deref();
    layers.push(
        audit::layer(audit_log).map_err(|error| TelemetryError { what: "the audit log", why: error.to_string() })?,
    );
    layers.extend(provider.as_ref().map(otlp::layer));
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|error| TelemetryError { what: "the log", why: error.to_string() })?;
    panics::install();
    tokio::spawn(limit.clone().summarize());

    if let Some(why) = complaint {
        tracing::error!(error = why, "traces are not exported");
    } else if provider.is_some() {
        tracing::info!("traces are exported by otlp");
    }
    Ok(Telemetry { provider, limit })
}

impl Telemetry {
    /// Exports the queued spans, for two seconds at most.
    pub async fn shutdown(self) {
        self.limit.end();
        let Some(provider) = self.provider else {
            return;
        };
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_LIMIT));
        match tokio::time::timeout(FLUSH_LIMIT + Duration::from_millis(100), flush).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not exported"),
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not exported"),
            Err(_) => {
                tracing::warn!(limit = ?FLUSH_LIMIT, "the last spans were not exported in time")
            }
        }
    }
}
