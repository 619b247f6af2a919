//! The harness of the end-to-end tests: real processes, clients for them, and waiting with a bound.
//!
//! - [`Redis`]: a redis-server or valkey-server for one test, on a unix socket.
//! - [`StoreFiles`]: its data files: copied, restored, removed or truncated.
//! - [`SentinelProcess`]: the real binary, on its embedded Redis or on one of the above.
//! - [`HostedSentinel`]: the same server as a library in the process of the test.
//! - [`TestClient`]: the raw generated clients of one namespace, with short methods for common calls.
//! - [`LossyProxy`]: a proxy between the server and Redis that can drop replies.
//! - [`TcpForwarder`]: a forwarder between clients and servers, with a changeable target.
//! - [`sentinelctl`], [`Ctl`]: the real command line, run to its end.
//! - [`credentials`]: certificates, tokens and policies for guarded servers.
//! - [`Collector`]: an OTLP receiver.
//! - [`script_call`], [`partition_keys`], [`stored_stock`]: the script and the store without a server.
//! - [`stored_history`]: the record and the events of one reservation, for the report of a failure.
//! - [`until_fenced`]: the wait until a server notices a store that lost changes, and the content of the refusal.
//! - [`History`]: answers of concurrent calls, checked for linearizability by their sequence.
//! - [`model`]: a plain model of the service: its answer to each call.
//!
//! Everything listens on loopback or in a temporary folder, and is killed by its id when dropped.

use std::{
    fmt::Debug,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use inventory_sentinel::{
    Reason,
    reason::{Advice, DOMAIN},
};
use tonic::Status;
use tonic_types::StatusExt as _;

mod cli;
mod collector;
pub mod credentials;
mod fence;
mod files;
mod history;
mod hosted;
mod http;
mod lossy_proxy;
pub mod model;
mod process;
mod redis;
mod script;
mod sentinel;
mod tcp_forwarder;
mod test_client;

pub use self::{
    cli::{Ctl, Ran, sentinelctl, shell, shell_with},
    collector::Collector,
    fence::{Fence, assert_fenced, assert_point, until_fenced},
    files::{StoreCopy, StoreFiles},
    history::{Event, History},
    hosted::HostedSentinel,
    http::{http_get, https_get},
    lossy_proxy::LossyProxy,
    redis::Redis,
    script::{
        Group, epoch, follows_store_clock, line_set, partition_keys, script_call, stored_history, stored_stock, u48,
    },
    sentinel::{SentinelProcess, ServerBuilder},
    tcp_forwarder::TcpForwarder,
    test_client::{TestClient, figure, reserve_request},
};

/// How long a test waits for something that must come: generous, as machines may be slow.
pub const BOUND: Duration = Duration::from_secs(30);
/// Pause between two checks of a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits until the condition returns a value, at most [`BOUND`]; panics with `what` if it does not.
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

/// An identity with an older time of creation.
pub fn id_born(ago: Duration) -> String {
    let born = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").saturating_sub(ago);
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, born.as_secs(), born.subsec_nanos())).to_string()
}

/// A number as a record in Redis has it, big-endian.
pub fn number_in(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | i64::from(byte))
}

/// An instant of an answer, in milliseconds since 1970; panics if there is none.
pub fn millis(timestamp: Option<prost_types::Timestamp>) -> i64 {
    let prost_types::Timestamp { seconds, nanos } = timestamp.expect("an instant");
    seconds * 1_000 + i64::from(nanos) / 1_000_000
}

/// Checks that a call was refused, and the content of the refusal: the code of its reason, the domain, the malformed
/// field if there is one, and a delay before the next try if a repeat can succeed.
pub fn assert_refused<T: Debug>(result: Result<T, Status>, expected: Reason, field: Option<&str>) {
    let status = result.expect_err(expected.as_str());
    assert_eq!(reason(&status), expected, "{status:?}");
    assert_eq!(status.code(), expected.code(), "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().map(|info| info.domain.as_str()), Some(DOMAIN));
    let named = details.bad_request().map(|bad| bad.field_violations.iter().map(|violation| violation.field.as_str()));
    assert_eq!(named.map(Iterator::collect::<Vec<_>>), field.map(|field| vec![field]), "{status:?}");
    let repeatable = matches!(expected.advice(), Advice::Retry | Advice::Repeat);
    assert_eq!(details.retry_info().is_some(), repeatable, "{status:?}");
    assert!(!status.message().is_empty() && !status.message().contains(char::is_control), "{status:?}");
}

/// The catalogue's reason for a refusal; panics if it has none, for every refusal must.
pub fn reason(status: &Status) -> Reason {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    Reason::from_name(&info.reason).unwrap_or_else(|| panic!("{} is not in the catalogue", info.reason))
}
