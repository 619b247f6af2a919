//! Inventory Sentinel: a gRPC service for flash-sale inventory on Redis.
//!
//! # Layout
//! From the top layer down. A module uses only modules below it.
//! - `lifecycle`: the start, the drain and the stop of a server; wires the other modules.
//! - `service`: the conversion between proto and domain. A call enters and leaves here.
//! - `control`: the control plane beside the calls: `sweeper`, `health`, `promises`, `watch`, `admin_http`.
//! - `namespaces`: the open namespaces, with a lane for each partition.
//! - `lane`: the queue of one partition; sends operations to the store in batches.
//! - `resend`: the resend policy for a change whose reply was lost.
//! - `witness`: the recorded history of each partition, with which a server detects a store that lost changes.
//! - `store`: Redis: keys, bytes, script, connections, the embedded child process.
//! - `transport`: the gRPC port: connections, and the limits of untrusted clients.
//! - `router_bypass`: routes checkout calls past the router.
//! - `catch_panic`: responds to a call whose handler panics.
//! - `access`: credentials, permissions and TLS.
//! - `failure`: the refusal of a call as a gRPC status. The only module with gRPC codes.
//! - `tasks`: background tasks, each with a name and a reaction to its end.
//! - [`telemetry`]: logs, traces and metrics.
//! - [`config`]: the settings.
//! - `domain`: SKU, quantity, operation, outcome, refusal; parsed once, no I/O.
//! - `random`: the source of randomness.
//! - `allocator`: returns unused memory to the system.
//!
//! The path of a request: `service` parses it into a `domain` operation, `namespaces` finds the lane, the `lane` puts
//! it into a batch, the `store` runs the batch as one script call, and `service` responds.

// The future of a handler is nested deeper than the default limit.
#![recursion_limit = "256"]

mod access;
mod allocator;
mod catch_panic;
pub mod config;
mod control;
mod failure;
mod lane;
mod lifecycle;
mod namespaces;
mod random;
mod resend;
mod router_bypass;
mod service;
#[cfg(test)]
mod simulation;
mod store;
mod tasks;
pub mod telemetry;
mod transport;
mod witness;

pub(crate) use inventory_sentinel_script::domain;
#[doc(hidden)]
pub use lifecycle::run_with;
pub use lifecycle::{RunError, run, runtime, serve_routes};
pub use store::embedded::EmbeddedError;
#[doc(hidden)]
pub use store::permissions::least_acl;
#[doc(hidden)]
pub use tasks::Faults;
pub use transport::accept::bind;
