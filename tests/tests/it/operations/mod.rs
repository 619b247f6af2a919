//! The process in production: start, stop, health, metrics, and the demo.

mod demo;
pub(crate) mod process;
mod promises;
mod stopping;
mod sweeps;
mod telemetry;
