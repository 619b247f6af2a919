//! The operators' commands, a file for each group. Each connects by `session`, prints by `output`, and returns
//! true, false if it found a problem, or a `Failure`. `credentials`, `policy` and `token` only use files.

pub(crate) mod audit;
pub(crate) mod credentials;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod namespace;
pub(crate) mod policy;
pub(crate) mod reservations;
pub(crate) mod settle;
pub(crate) mod sku;
pub(crate) mod stock;
pub(crate) mod token;
pub(crate) mod watch;

use std::time::Duration;

use clap::Args;

/// The default timeout of a call that reads every record or every SKU.
const LONG_CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Items per page of a list.
const PAGE: i32 = 1_000;

/// The option of every change.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChangeArgs {
    /// The identity of the change, up to 128 characters: a repeat with the same id is applied once. By default a new
    /// one, which is printed if the outcome is unknown.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

impl ChangeArgs {
    fn named(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}
