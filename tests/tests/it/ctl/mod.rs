//! `sentinelctl` against real servers: the effect, the output and the exit code of each command.
//!
//! - `stock`, `import`, `sku`, `reservations`, `namespace`, `streams`: the groups of commands.
//! - `keys`: the keys of the JSON objects.
//! - `doctor`: doctor, info, audit and settle.
//! - `exits`: exit codes, configuration, forms of the output, completions.
//! - `docs`: the examples of the documentation.

mod docs;
mod doctor;
mod exits;
mod import;
mod keys;
mod namespace;
mod reservations;
mod sku;
mod stock;
mod streams;

use sentinel_tests::{Ctl, Ran, SentinelProcess};

/// Runs a command in the namespace `sale`.
async fn ctl(server: &SentinelProcess, arguments: &[&str]) -> Ran {
    Ctl::new(["-n", "sale"].iter().chain(arguments).copied()).at(server.grpc()).run().await
}

/// SKUs that a shop may use, and that a careless program handles wrongly.
const HOSTILE: [&str; 7] = [
    "t shirt",
    "a/b",
    "Größe 42 ü",
    "the \"pro\"",
    "it's",
    "a,b;c|d\
",
    "--yes",
];
