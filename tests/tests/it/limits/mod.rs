//! Each bound of the service: stored records, queued calls, and the resources of one connection.

mod overload;
pub(crate) mod raw_connection;
mod records;
mod untrusted_peers;
