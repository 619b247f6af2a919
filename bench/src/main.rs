//! The benchmarks: this server beside its alternatives, side by side in one run; or beside
//! another build of itself. Prints Markdown; writes JSON.
//!
//! # Layout
//! - `scenarios`: which rows, which ratios; `runner`: how rows take turns and ratios are taken.
//! - `workloads`, `clients`, `load`, `fixture`: kinds of calls, callers, their rate, and the stock.
//! - `scale`: the cost of size. `baselines`: the alternatives.
//! - `credentials`: the certificate and the token of a guarded server.
//! - `process`, `usage`, `signals`: processes, the resources that they have used, and their early end.
//! - `abuse`: attacks on the bounds of the server beside an honest caller.
//! - `access`: the cost of credentials and TLS.
//! - `storm`: calls beside many holds that fall due at once.
//! - `count`: the cost of an operation in commands and instructions, guarded against growth.
//! - `stats`, `machine`, `report`, `docs`, `plot`: numbers, the machine, and their reports.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand, value_parser};

mod abuse;
mod access;
mod baselines;
mod clients;
mod count;
mod credentials;
#[cfg(test)]
mod doc_tests;
mod docs;
mod fixture;
mod load;
mod machine;
mod plot;
mod process;
mod report;
mod runner;
mod scale;
mod scenarios;
mod signals;
mod stats;
mod storm;
mod usage;
mod workloads;

use machine::Machine;
use report::Report;

// As in the server, so that callers cost as little as they can.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The folder of data, unless TMPDIR sets another folder: a disk. /tmp is often memory, where an fsync costs nothing.
const DISK: &str = "/var/tmp";

/// Rounds of the figures of the full run, each a minute or two.
const SCALE_ROUNDS: usize = 3;

/// Measures the server beside its alternatives.
#[derive(Parser)]
#[command(args_override_self = true, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// The folder of the programs: sentinel-server, sentinel-noop.
    #[arg(long, default_value = "target/release", value_name = "FOLDER")]
    programs: PathBuf,
    /// The peer that calls Redis directly, built from bench/direct.
    #[arg(long, default_value = "target/bench/direct", value_name = "BINARY")]
    direct: PathBuf,
    /// Measure the server beside this other build of it, instead of beside the peers.
    #[arg(long, value_name = "BINARY")]
    against: Option<PathBuf>,
    /// Interleaved rounds; each figure is the median over them.
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of one run, in seconds.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measure what size costs too: a million SKUs, a million holds, and minutes of load.
    #[arg(long)]
    full: bool,
    /// How long memory is watched in the full run, in minutes.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..))]
    minutes: u64,
    /// Measure only the rows whose name contains this, and the ratios between them.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// The file of the JSON.
    #[arg(long, default_value = "target/bench/report.json", value_name = "FILE")]
    report: PathBuf,
    /// Also write a page and its plots into this folder.
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,
    /// Also put the table of ratios into this page, in place of the one that it shows.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

/// The other commands.
#[derive(Subcommand)]
enum Other {
    Count(count::Args),
    Abuse(abuse::Args),
    Access(access::Args),
    Storm(storm::Args),
}

#[tokio::main]
async fn main() -> Result<()> {
    signals::until_signal(measure(Args::parse())).await
}

async fn measure(args: Args) -> Result<()> {
    if std::env::var_os("TMPDIR").is_none() && Path::new(DISK).is_dir() {
        tempfile::env::override_temp_dir(Path::new(DISK)).ok().context("temporary folders have a place already")?;
    }
    match &args.other {
        Some(Other::Count(args)) => return count::run(args).await,
        Some(Other::Abuse(args)) => return abuse::run(args).await,
        Some(Other::Access(args)) => return access::run(args).await,
        Some(Other::Storm(args)) => return storm::run(args).await,
        None => {}
    }
    let server = args.programs.join("sentinel-server");
    let mut scale = None;
    let (mut rows, mut absent, wanted) = match &args.against {
        Some(before) => (scenarios::builds(&server, before).await?, Vec::new(), scenarios::BUILD_RATIOS.to_vec()),
        None => {
            let no_op = args.programs.join("sentinel-noop");
            let programs = scenarios::Programs { server, no_op, direct: args.direct };
            let (mut rows, absent) = scenarios::rows(&programs).await?;
            let mut wanted = scenarios::RATIOS.to_vec();
            if args.full {
                let (more, figures) = scenarios::rows_of_scale(&programs.server).await?;
                // The first row is what the new ones are compared with: beside it.
                rows.splice(1..1, more);
                wanted.extend_from_slice(scenarios::RATIOS_OF_SCALE);
                scale = Some(figures);
            }
            (rows, absent, wanted)
        }
    };
    if let Some(text) = &args.only {
        rows.retain(|row| row.name.text.contains(text));
    }
    let machine = Machine::read()?;
    let rows = runner::measure(rows, args.rounds.into(), Duration::from_secs(args.seconds)).await?;
    let mut ratios: Vec<_> = wanted.iter().filter_map(|wanted| wanted.take(&rows)).collect();
    let mut failed = Vec::new();
    if let Some(scale) = scale {
        let (more, not_taken) = scale.figures(&rows, SCALE_ROUNDS, args.minutes).await;
        ratios.extend(more);
        absent.extend_from_slice(&not_taken);
        failed = not_taken;
    }
    let report =
        Report { date: today()?, machine, method: report::method(args.rounds, args.seconds), ratios, rows, absent };
    print!("{}", report.markdown());
    report::write(&args.report, &serde_json::to_string_pretty(&report.json())?)?;
    if let Some(folder) = &args.docs {
        docs::write(&report, folder)?;
    }
    if let Some(readme) = &args.readme {
        docs::show(&report, readme)?;
    }
    eprintln!("written to {}", args.report.display());
    ensure!(failed.is_empty(), "not measured: {}", failed.join("; "));
    Ok(())
}

/// As `YYYY-MM-DD`.
fn today() -> Result<String> {
    let output = std::process::Command::new("date").args(["-u", "+%F"]).output().context("cannot run date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
