//! The harness of the end-to-end tests: real processes, clients for them, and waiting with a bound.
//!
//! - [`Redis`]: a redis-server or valkey-server of the test's own, on a unix socket.
//! - [`SentinelProcess`]: the real binary, on its embedded Redis or on one of the above.
//! - [`Shop`]: the raw generated clients of one namespace, with short words for common calls.
//! - [`Proxy`]: stands between the server and Redis and can lose replies.
//! - [`Collector`]: an OTLP receiver.
//! - [`History`]: answers of concurrent calls, checked for linearizability by their sequence.
//! - [`model`]: what the service must answer, call by call, as a plain model says it.
//!
//! Everything listens on loopback or in a temporary folder, and is killed by its id when dropped.

use std::time::{Duration, Instant};

use inventory_sentinel::Reason;
use tonic::Status;
use tonic_types::StatusExt as _;

mod collector;
mod history;
mod http;
pub mod model;
mod process;
mod proxy;
mod redis;
mod sentinel;
mod shop;

pub use self::{
    collector::Collector,
    history::{Event, History},
    http::http_get,
    proxy::Proxy,
    redis::Redis,
    sentinel::{Launch, SentinelProcess},
    shop::{Shop, order},
};

/// How long a test waits for something that must come: generous, as machines may be slow.
pub const BOUND: Duration = Duration::from_secs(30);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits until the condition gives something, at most [`BOUND`]; panics with `what` was awaited.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(start.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A new identity for one change.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The catalogue's reason for a refusal; panics if it has none, for every refusal must.
pub fn reason(status: &Status) -> Reason {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    Reason::from_name(&info.reason).unwrap_or_else(|| panic!("{} is not in the catalogue", info.reason))
}
