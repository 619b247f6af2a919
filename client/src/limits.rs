//! The client's defaults and limits. Constants only.

use std::time::Duration;

/// How long connecting may take unless the [`Builder`](crate::Builder) sets another time: 5 s.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take, with all its attempts, unless the [`Builder`](crate::Builder) sets another time: 5 s.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest deadline of a call, 1 hour; a longer one is shortened to it.
pub const MAX_DEADLINE: Duration = Duration::from_secs(3600);
/// The most connections of one client; a larger number is lowered to it.
pub const MAX_CONNECTIONS: usize = 64;
/// Once each connection has this many calls in flight, the client opens another one. It is below the 256 calls that a
/// server allows on a connection by default. Calls that share a message count as one. An open stream counts as one.
pub const CALLS_PER_CONNECTION: usize = 192;
/// Bytes of memory for the `request_id`s that callers set: 16 MiB, which is room for 131,072.
pub const DEFAULT_IDENTITY_MEMORY: usize = 16 * 1024 * 1024;

/// The largest response that is accepted, in bytes: far above an audit's 1,000 findings.
pub(crate) const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;
/// The largest request that is sent, in bytes: a batch of 512 carts of 32 lines with the longest names fits.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
