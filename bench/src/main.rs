//! The measuring lab: this server beside everything one would use instead, side by side in one run; or beside
//! another build of itself. Prints Markdown; writes JSON.
//!
//! # Layout
//! - `table`: which rows, which ratios; `lab`: how rows take turns and ratios are taken.
//! - `ways`, `callers`, `load`: how units are reserved, by whom, and how they come.
//! - `peers`: what is not ours. `process`: processes, their CPU and memory.
//! - `figures`, `machine`, `report`: numbers, the machine, and how both are told.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, value_parser};

mod callers;
mod figures;
mod lab;
mod load;
mod machine;
mod peers;
mod process;
mod report;
mod table;
mod ways;

use machine::Machine;
use report::Report;

// As in the server, so that callers cost as little as they can.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the server beside its alternatives.
#[derive(Parser)]
struct Args {
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
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of one run, in seconds.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench/report.json", value_name = "FILE")]
    report: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let server = args.programs.join("sentinel-server");
    let (mut rows, absent, wanted) = match &args.against {
        Some(before) => (table::builds(&server, before).await?, Vec::new(), table::BUILD_RATIOS),
        None => {
            let no_op = args.programs.join("sentinel-noop");
            let (rows, absent) = table::rows(&table::Programs { server, no_op, direct: args.direct }).await?;
            (rows, absent, table::RATIOS)
        }
    };
    let machine = Machine::look()?;
    lab::measure(&mut rows, args.rounds.into(), Duration::from_secs(args.seconds)).await?;
    let report = Report {
        date: today()?,
        machine: &machine,
        method: format!(
            "Callers, server and store share the machine; {} interleaved rounds of {} s, medians.",
            args.rounds, args.seconds
        ),
        ratios: wanted.iter().filter_map(|wanted| wanted.take(&rows)).collect(),
        rows: &rows,
        absent,
    };
    print!("{}", report.markdown());
    report::write(&args.report, &serde_json::to_string_pretty(&report.json())?)?;
    eprintln!("written to {}", args.report.display());
    Ok(())
}

/// As `YYYY-MM-DD`.
fn today() -> Result<String> {
    let output = std::process::Command::new("date").args(["-u", "+%F"]).output().context("cannot run date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
