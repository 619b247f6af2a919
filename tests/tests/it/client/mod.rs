//! The Rust client against a real server.

mod batches;
mod calls;
mod streams;
