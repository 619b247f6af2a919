//! `sentinelctl`: the command line of Inventory Sentinel. Calls a running server by the client crate.
//!
//! # Layout
//! - `main`: dispatch and exit codes; `args`: the commands.
//! - `config`: server, namespace and timeout, from flags, environment and config file; `security`: TLS and credentials;
//!   `session`: the connection.
//! - `commands`: a file for each group of commands; `demo`: `sentinelctl demo`, a flash sale that verifies itself.
//! - `output`, `table`, `views`: output; `values`, `rows`: input.
//! - `confirm`: the confirmation of commands that lose units; `stop`: Ctrl-C.
//! - `files`: files with secrets.
//! - `failure`: failures and exit codes; `refusal`: failed calls as failures.

mod args;
mod commands;
mod config;
mod confirm;
mod demo;
mod failure;
mod files;
mod output;
mod refusal;
mod rows;
mod security;
mod session;
mod stop;
mod table;
mod values;
mod views;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};

use crate::{
    args::{Cli, Command},
    commands::{
        audit, credentials, doctor, events, info, namespace, policy, reservations, settle, sku, stock, token, watch,
    },
    failure::Failure,
    output::Output,
    session::Session,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are returned as errors too.
            let code = if error.use_stderr() { Failure::USAGE } else { 0 };
            let _ = error.print();
            return code.into();
        }
    };
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => Failure::FAILED.into(),
        Err(failure) => {
            report(&failure);
            failure.code().into()
        }
    }
}

/// Prints one line with the error, and one with the next step.
fn report(failure: &Failure) {
    if matches!(failure, Failure::OutputClosed) {
        return;
    }
    // Without a standard error only the exit code remains.
    let mut error = io::stderr().lock();
    let _ = writeln!(error, "sentinelctl: {failure}");
    if let Some(next) = failure.next() {
        let _ = writeln!(error, "next: {next}");
    }
}

/// Runs the command; false if it found a problem.
fn run(cli: Cli) -> Result<bool, Failure> {
    match cli.command {
        Command::Completions { shell } => return completions(shell),
        Command::Token(ref command) => return token::run(command, Output::new(cli.output)),
        Command::Policy(ref command) => return policy::run(command, Output::new(cli.output)),
        Command::Credentials(ref command) => return credentials::run(command, Output::new(cli.output)),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    let done = runtime.block_on(dispatch(cli));
    // A read of standard input can't be cancelled, so it is not awaited.
    runtime.shutdown_background();
    done
}

async fn dispatch(cli: Cli) -> Result<bool, Failure> {
    let mut settings = config::resolve(&cli.config, |name| std::env::var_os(name))?;
    let output = Output::new(cli.output);
    match cli.command {
        Command::Demo(args) => return demo::run(&settings, &args).await,
        Command::Doctor(args) => return doctor::run(&settings, output, &args).await,
        Command::Namespace(ref command) => {
            if let Some(name) = command.name() {
                name.clone_into(&mut settings.namespace);
            }
        }
        _ => {}
    }
    let session = Session::open(settings, output).await?;
    match cli.command {
        Command::Stock(command) => stock::run(&session, command).await,
        Command::Sku(command) => sku::run(&session, command).await,
        Command::Reservations(command) => reservations::run(&session, command).await,
        Command::Namespace(command) => namespace::run(&session, command).await,
        Command::Watch(args) => watch::run(&session, args).await,
        Command::Events(command) => events::run(&session, command).await,
        Command::Audit => audit::run(&session).await,
        Command::Settle(args) => settle::run(&session, args).await,
        Command::Info => info::run(&session).await,
        Command::Demo(_)
        | Command::Doctor(_)
        | Command::Completions { .. }
        | Command::Token(_)
        | Command::Policy(_)
        | Command::Credentials(_) => Ok(true),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<bool, Failure> {
    // Into memory first: clap_complete panics if the output is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sentinelctl", &mut script);
    io::stdout().write_all(&script)?;
    Ok(true)
}
