//! The RPCs, one file each, in the folder of their service. A file decodes the request, builds the
//! operation, and encodes the response. May use `dispatch`, `convert` and `token`.
//!
//! A new RPC needs a method in the proto, a file here, a line in the `mod.rs` of its service, and a
//! variant of [`RpcKind`](crate::telemetry::metrics::RpcKind).

pub(super) mod admin;
pub(super) mod checkout;
pub(super) mod events;
