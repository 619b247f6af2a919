//! What else one could use, measured beside our server; and what gRPC and Redis cost at least.

pub(crate) mod direct;
pub(crate) mod redis_benchmark;
pub(crate) mod sql;
