//! The audit records of refused calls. Writes the audit log only.

use std::net::SocketAddr;

use inventory_sentinel::Reason;

use crate::telemetry::{audit::AUDIT, limit::shortened};

/// Longest path of a call in a record, in bytes.
const MAX_CALL: usize = 128;

/// Records a refused call. `unrecorded`: earlier refusals of the same address that the rate limit left out.
pub(super) fn refused(
    reason: Reason,
    address: Option<SocketAddr>,
    identity: &str,
    (call, namespace): (&str, &str),
    unrecorded: u64,
) {
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    tracing::warn!(
        target: AUDIT,
        call = shortened(call, MAX_CALL),
        namespace,
        outcome = reason.as_str(),
        identity,
        caller = address,
        unrecorded,
        "a call was refused"
    );
}
