//! Counts that must not grow unnoticed: the cost of an operation in commands and in instructions, compared with
//! `bench/guards.json`. Counts repeat where times don't. Starts the processes that are counted; writes
//! that file on request, and nothing else.
//!
//! # Layout
//! - `guards`: what is expected, and how it is compared.
//! - `calls`: commands of the script; `instructions`: those of Redis, the server and the no-op server.
//! - `callgrind`: how a process is counted; `driver`: who calls it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

mod callgrind;
mod calls;
mod driver;
mod guards;
mod instructions;

pub(crate) use instructions::count_guarded;

use guards::{Guards, Versions};

use crate::process::{Durability, Redis, Server};

/// Counts what an operation costs and compares it with what is expected; ends with 1 where it costs more.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder of the programs: sentinel-server, sentinel-noop.
    #[arg(long, default_value = "target/release", value_name = "FOLDER")]
    programs: PathBuf,
    /// The expected counts.
    #[arg(long, default_value = "bench/guards.json", value_name = "FILE")]
    guards: PathBuf,
    /// Expect from now on what is counted now.
    #[arg(long)]
    update: bool,
}

/// Operations of one Batch message.
const BATCH: usize = 256;
/// Calls before those that count: the first ones open a partition, load the script and make what later ones find.
const WARM_UP: usize = 3;

/// Counts everything, prints the table.
pub(crate) async fn run(args: &Args) -> Result<()> {
    // A defect of the file is reported before the counting and not after it.
    let expected = if args.update { None } else { Some(Guards::read(&args.guards)?) };
    let versions = Versions::read()?;
    let mut counts = calls::count(&args.programs).await?;
    counts.extend(instructions::count(&args.programs).await?);
    let Some(guards) = expected else {
        let guards = Guards::new(versions, &counts);
        print!("{}", guards::table(&guards.judge(&guards.made_with, &counts)));
        guards.write(&args.guards)?;
        eprintln!("written to {}", args.guards.display());
        return Ok(());
    };
    let judged = guards.judge(&versions, &counts);
    print!("{}", guards::table(&judged));
    for hint in guards.hints(&versions, &judged) {
        println!("\n{hint}");
    }
    let failed: Vec<&str> = judged.iter().filter(|row| row.fails()).map(|row| row.name).collect();
    ensure!(failed.is_empty(), "more than is allowed, or not known: {}", failed.join(", "));
    Ok(())
}

/// Threads of what is counted: on one it always does the same things in the same order.
const THREADS: usize = 1;

/// Starts our server, which sweeps no sooner than the counting is over and waits for a Redis that is slow.
async fn start(command: std::process::Command, redis: Redis) -> Result<Server> {
    let threads = THREADS.to_string();
    let flags = ["--threads", &threads, "--sweep-interval", "1m", "--store-timeout", "1m"];
    Server::start_by(command, redis, Durability::Fast, &flags).await
}

fn server(programs: &Path) -> PathBuf {
    programs.join("sentinel-server")
}
