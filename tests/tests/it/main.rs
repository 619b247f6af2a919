//! The end-to-end tests: one binary, a module per subject, so that they link once and run in parallel.

mod model;
mod sale;
