//! Tests of the rules of access. Each uses the public API only. Keys are generated for each run.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic too")]

mod attacks;
mod attacks_on_keys;
mod jwks;
mod jwt;
mod policy;
mod rules;
mod support;
mod tokens;
