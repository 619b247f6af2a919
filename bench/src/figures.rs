//! What a run measured, as numbers. Pure data, no I/O.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies, in microseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64;
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// CPU microseconds per answer.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Cpu {
    /// Of the callers.
    pub(crate) client: f64,
    /// Of the service between, if there is one.
    pub(crate) server: f64,
    /// Of Redis or PostgreSQL, if there is one.
    pub(crate) store: f64,
}

/// What one run did.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    /// Answers per second.
    pub(crate) rate: f64,
    pub(crate) latency: Latency,
    pub(crate) cpu: Cpu,
}

pub(crate) fn rate(run: &Run) -> f64 {
    run.rate
}

pub(crate) fn p50(run: &Run) -> f64 {
    run.latency.p50
}

pub(crate) fn p99(run: &Run) -> f64 {
    run.latency.p99
}

pub(crate) fn server_cpu(run: &Run) -> f64 {
    run.cpu.server
}

pub(crate) fn store_cpu(run: &Run) -> f64 {
    run.cpu.store
}

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) lowest: f64,
    pub(crate) median: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// `None` of no figures.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Some(Self { lowest: *figures.first()?, median: figures[figures.len() / 2], highest: *figures.last()? })
    }
}
