//! The commands and their help. The arguments of each group are in its file. No I/O.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    commands::{
        credentials::CredentialsCommand, doctor::DoctorArgs, events::EventsCommand, namespace::NamespaceCommand,
        policy::PolicyCommand, reservations::ReservationsCommand, settle::SettleArgs, sku::SkuCommand,
        stock::StockCommand, token::TokenCommand, watch::WatchArgs,
    },
    config::ConfigArgs,
    demo::{self, DemoArgs},
    output::OutputArgs,
};

/// The command line of Inventory Sentinel, for operators of a flash sale.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The counters of SKUs: list, get, set, adjust, import from CSV.
    #[command(subcommand)]
    Stock(StockCommand),
    /// The rules of SKUs: show, change, pause, resume, protect, unprotect, delete.
    #[command(subcommand)]
    Sku(SkuCommand),
    /// Reservations of buyers: list, show, roll back, extend.
    #[command(subcommand)]
    Reservations(ReservationsCommand),
    /// The namespaces: list, show, configure, pause, resume, delete.
    #[command(subcommand)]
    Namespace(NamespaceCommand),
    /// Show the counters of SKUs as they change, until Ctrl-C.
    Watch(WatchArgs),
    /// The feed of every change.
    #[command(subcommand)]
    Events(EventsCommand),
    /// Compare the counters of the namespace with its records, exactly and under full traffic; exit 1 if they differ.
    Audit,
    /// Open a partition that is fenced because its store lost changes (docs/concepts/lost-changes.md). Needs --yes.
    Settle(SettleArgs),
    /// Show the version of the server, its store, its promises, and the fenced partitions.
    Info,
    /// Check everything between this machine and the store, one line per check; exit 1 if a check fails.
    Doctor(DoctorArgs),
    /// The bearer tokens in a tokens file: create, revoke.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The policy of a server: validate.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The files of a server with TLS and a policy: create.
    #[command(subcommand)]
    Credentials(CredentialsCommand),
    /// Run a flash sale against a running server, and verify that it was exact.
    #[command(after_long_help = demo::JSON_HELP)]
    Demo(DemoArgs),
    /// Print the completions for a shell: `source <(sentinelctl completions bash)`.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

const AFTER_HELP: &str = "\
Server, namespace, timeout, TLS and credentials: a flag overrides the environment, and the environment overrides the
config file. An empty variable is an unset one.

JSON: the keys are the names of the fields in proto/ (snake_case); every object has all of them. Instants are RFC 3339,
durations are seconds (\"300s\"), enum values have no prefix of their type. Write a SKU that begins with a dash
after `--`, as in `sentinelctl stock get -- -x`.

Exit codes:
   0  done
   1  a problem was found: the audit is not clean, doctor has a FAIL, rows of an import failed, the demo is not exact
  64  bad usage, or a malformed file
  65  the server refused the call; the reason is on standard error
  69  no server responds, or it refused the call for a transient reason; the call changed nothing: repeat the command
  75  the outcome of a change is unknown: repeat it as described in the second line on standard error
  77  not confirmed: commands that lose units need --yes, or \"yes\" at the terminal";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_global_options_can_stand_behind_the_command() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["sentinelctl"], args].concat()).expect("parses");
        let cli = parse(&["demo", "--server", "http://h:1"]);
        assert_eq!(cli.config.server.as_deref(), Some("http://h:1"));
        let cli = parse(&["stock", "list", "--json", "-n", "sale"]);
        assert!(cli.output.json && cli.config.namespace.as_deref() == Some("sale"));
        assert!(matches!(parse(&["demo", "--json"]).command, Command::Demo(args) if args.json));
        assert!(matches!(parse(&["demo"]).command, Command::Demo(args) if !args.json));
    }
}
