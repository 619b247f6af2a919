//! The commands and their help. Each group has its arguments in its own file. No I/O.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    commands::{
        doctor::DoctorArgs, events::EventsCommand, namespace::NamespaceCommand, reservations::ReservationsCommand,
        settle::SettleArgs, sku::SkuCommand, stock::StockCommand, watch::WatchArgs,
    },
    config::ConfigArgs,
    demo::{self, DemoArgs},
    output::OutputArgs,
};

/// The command line of Inventory Sentinel, for the people who operate a flash sale.
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

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The counters of SKUs: list, get, set, adjust, import from CSV.
    #[command(subcommand)]
    Stock(StockCommand),
    /// The rules of SKUs: show, change, pause, resume, protect, unprotect, delete.
    #[command(subcommand)]
    Sku(SkuCommand),
    /// What buyers hold and have bought: list, show, roll back, extend.
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
    /// Check the books of the namespace against its records, exactly and under full traffic; exit 1 if they differ.
    Audit,
    /// Open a partition that is fenced because its store lost changes (docs/concepts/lost-changes.md). Needs --yes.
    Settle(SettleArgs),
    /// Show what the server is, which store it uses, and which partitions are fenced.
    Info,
    /// Check everything between here and the store, one line a check; exit 1 if something fails.
    Doctor(DoctorArgs),
    /// Play a flash sale against the running server, and count whether it was exact.
    #[command(after_long_help = demo::JSON_HELP)]
    Demo(DemoArgs),
    /// Print the completions for a shell: `source <(sentinelctl completions bash)`.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

const AFTER_HELP: &str = "\
Server, namespace and timeout: a flag goes before the environment, the environment before the config file. An empty
variable is an unset one.

JSON: the keys are the names of the fields in proto/ (snake_case), all of them always there; instants are RFC 3339,
durations are seconds as in \"300s\", enums are without the prefix of their type. A SKU that begins with a dash
stands behind `--`, as in `sentinelctl stock get -- -x`.

Exit codes:
   0  done
   1  something wrong was found: the audit is not clean, doctor has a FAIL, rows of an import failed, the demo is not
      exact
  64  bad usage, or a malformed file
  65  the server refused the call for a reason that lasts; the reason is on standard error
  69  no server answers, or it refused for a reason that passes: repeat the command
  75  the outcome of a change is not known: repeat it as the second line on standard error says
  77  not confirmed: what loses units needs --yes, or a yes at the terminal";

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
