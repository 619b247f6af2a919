//! The control plane: everything that runs beside the calls of checkout. Each part has separate connections and
//! budgets, so it cannot delay a lane. May use the namespaces and the store; `service` and `lifecycle` use it.
//!
//! - `sweeper`: expires due holds in partitions without traffic, and resumes unfinished deletions;
//! - `health`: checks the store, and serves the health protocol;
//! - `promises`: all conditions that an OK depends on, with their states;
//! - `watch`: streams of the changes of a namespace, from one reader of its events;
//! - `admin_http`: the operator's port with metrics and probes.

pub(crate) mod admin_http;
pub(crate) mod health;
pub(crate) mod promises;
pub(crate) mod sweeper;
pub(crate) mod watch;
