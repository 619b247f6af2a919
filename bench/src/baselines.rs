//! The alternatives, measured beside this server; and the least cost of gRPC and Redis.

pub(crate) mod direct;
pub(crate) mod redis_benchmark;
pub(crate) mod sql;
