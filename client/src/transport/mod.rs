//! How one request reaches a server: deadline, attempts, connections, batching. It reads the generated messages only to
//! batch and to identify them; it imports no request builder.
//!
//! - `call`: [`Core`](call::Core), the state that all handles of a client share, and the retry loop.
//! - `batcher`: concurrent calls in one message. `channels`: the connections. `stubs`: the generated clients.
//! - `credentials`: the bearer token. `tls`: CAs and client certificate.
//! - `identities`: the request of each `request_id` that a caller set.
//! - `retry`: retry policy and budget. `trace`: the trace context as metadata.

pub(crate) mod batcher;
pub(crate) mod call;
pub(crate) mod channels;
pub(crate) mod credentials;
pub(crate) mod identities;
pub(crate) mod retry;
pub(crate) mod stubs;
pub(crate) mod tls;
pub(crate) mod trace;
