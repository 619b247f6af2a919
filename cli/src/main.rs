//! `sentinelctl`: the command line of Inventory Sentinel. Talks to a running server by the client crate.
//!
//! # Layout
//! - `main`: arguments and exit codes.
//! - `failure`: what ends a command early, and the exit code that goes with it.
//! - `demo`: `sentinelctl demo`, a flash sale that counts its own units.

mod demo;
mod failure;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{demo::DemoArgs, failure::Failure};

/// The command line of Inventory Sentinel.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    /// Where the server listens.
    #[arg(long, global = true, env = "SENTINEL_SERVER", value_name = "URI", default_value = "http://127.0.0.1:50051")]
    server: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a flash sale against the running server, and count whether it was exact.
    #[command(after_long_help = demo::JSON_HELP)]
    Demo(DemoArgs),
}

const EXIT_CODES: &str = "Exit codes: 0 exact, 1 not exact or failed, 64 bad usage, 69 no server that answers.";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no error.
            let code = if error.use_stderr() { Failure::USAGE } else { 0 };
            let _ = error.print();
            return code.into();
        }
    };
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => Failure::FAILED.into(),
        Err(failure) => {
            eprintln!("sentinelctl: {failure}");
            failure.code().into()
        }
    }
}

/// Runs the command; false if it ran to its end and found something wrong.
fn run(cli: Cli) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    match cli.command {
        Command::Demo(args) => runtime.block_on(demo::run(&cli.server, &args)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_server_can_be_named_after_the_command() {
        let cli = Cli::try_parse_from(["sentinelctl", "demo", "--server", "http://h:1"]);
        assert_eq!(cli.expect("parses").server, "http://h:1");
    }
}
