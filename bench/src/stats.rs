//! The measurements of a run, as numbers. Pure data, no I/O.

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
    pub(crate) server: Option<f64>,
    /// Of Redis or PostgreSQL, if there is one.
    pub(crate) store: Option<f64>,
}

/// The result of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    /// Answers per second.
    pub(crate) rate: f64,
    pub(crate) latency: Latency,
    pub(crate) cpu: Cpu,
    /// The mean over the batches of the run, where the server makes them.
    pub(crate) operations_per_batch: Option<f64>,
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

pub(crate) fn p999(run: &Run) -> f64 {
    run.latency.p999
}

pub(crate) fn client_cpu(run: &Run) -> f64 {
    run.cpu.client
}

/// NaN where there is no server.
pub(crate) fn server_cpu(run: &Run) -> f64 {
    run.cpu.server.unwrap_or(f64::NAN)
}

/// NaN where there is no store.
pub(crate) fn store_cpu(run: &Run) -> f64 {
    run.cpu.store.unwrap_or(f64::NAN)
}

/// NaN where there are no batches.
pub(crate) fn operations_per_batch(run: &Run) -> f64 {
    run.operations_per_batch.unwrap_or(f64::NAN)
}

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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
        let (upper, lower) = (figures.len() / 2, figures.len().saturating_sub(1) / 2);
        let (lowest, highest) = (*figures.first()?, *figures.last()?);
        Some(Self { lowest, median: f64::midpoint(figures[lower], figures[upper]), highest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = |lowest, median, highest| Some(Spread { lowest, median, highest });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), spread(1.0, 2.0, 3.0));
        assert_eq!(Spread::of([10.0, 1.0, 2.0, 4.0]), spread(1.0, 3.0, 10.0));
        assert_eq!(Spread::of([5.0]), spread(5.0, 5.0, 5.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn percentiles_are_those_of_the_histogram() {
        let mut histogram = Histogram::new(3).unwrap();
        for latency in 1..=1000_u64 {
            histogram.record(latency).unwrap();
        }
        let latency = Latency::from(&histogram);
        assert_eq!((latency.p50, latency.p99, latency.p999), (500.0, 990.0, 999.0));
    }
}
