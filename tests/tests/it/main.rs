//! The end-to-end tests: one binary, a module per subject, so that they link once and run in parallel.

mod batch;
mod client;
mod crash;
mod demo;
mod expiry;
mod gather;
mod identity;
mod input;
mod limits;
mod lists;
mod lua;
mod model;
mod namespaces;
mod overload;
mod parts;
mod process;
mod refusals;
mod rules;
mod sale;
mod settings;
mod stock;
mod store;
mod telemetry;
mod watch;
mod watch_client;
mod watch_numbers;
