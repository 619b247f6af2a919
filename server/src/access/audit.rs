//! The audit records of refused calls. Writes the audit log only.

use std::net::SocketAddr;

use inventory_sentinel::Reason;

use crate::telemetry::audit::AUDIT;

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
    let end = (0..=MAX_CALL.min(call.len())).rev().find(|&end| call.is_char_boundary(end)).unwrap_or_default();
    tracing::warn!(
        target: AUDIT,
        call = &call[..end],
        namespace,
        outcome = reason.as_str(),
        identity,
        caller = address,
        unrecorded,
        "a call was refused"
    );
}
