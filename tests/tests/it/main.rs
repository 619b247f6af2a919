//! The end-to-end tests: one binary, so that they link once and run in parallel.
//!
//! - `access`: TLS, credentials and roles.
//! - `admin`: the calls of an administrator: namespaces, settings, lists, imports, deletion.
//! - `api`: the form of a call: fields, bytes on the wire, and the reason of each refusal.
//! - `checkout`: reserve, commit, roll back and extend, with their rules, deadlines and repeats.
//! - `client`: the Rust client against a real server.
//! - `ctl`: `sentinelctl` against a real server.
//! - `faults`: crashes, clock steps, a full disk, and a store that is unreachable or misconfigured.
//! - `fencing`: a store that lost changes, and its settlement.
//! - `limits`: bounds of records, queues and connections.
//! - `lua`: the script, called without a server.
//! - `model`: random sequences of calls against a plain model of the service.
//! - `operations`: the process in production: start, stop, health, metrics, and the demo.
//! - `streams`: the streams of events, of stock and of protection.

mod access;
mod admin;
mod api;
mod checkout;
mod client;
mod ctl;
mod faults;
mod fencing;
mod limits;
mod lua;
mod model;
mod operations;
mod streams;
