//! The measuring lab, its first rows: group commit against one EVALSHA per request, side by side in one run,
//! and a lone caller's latency; or this server against another build of it. Prints Markdown; every figure is
//! a median over interleaved runs.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{Parser, value_parser};

mod lab;
mod load;
mod process;

use lab::{Candidate, measure, ratio};
use load::{Run, Shelf};

/// Flags of a server that sends every request by itself: the same script, no grouping.
const PER_REQUEST: &[&str] =
    &["--batch-max-operations", "1", "--batches-in-flight", "64", "--pool-size", "64", "--durability", "fast"];
const FAST: &[&str] = &["--durability", "fast"];
const DURABLE: &[&str] = &["--durability", "durable"];
/// Callers at once in the throughput rows.
const CALLERS: usize = 512;
/// Callers at once where batches are small.
const FEW_CALLERS: usize = 16;

/// Measures the server beside its alternatives.
#[derive(Parser)]
struct Args {
    /// The server binary to measure.
    #[arg(long, default_value = "target/release/sentinel-server")]
    server: PathBuf,
    /// Measure it beside this other build of it, instead of beside one script call per request.
    #[arg(long, value_name = "BINARY")]
    against: Option<PathBuf>,
    /// Interleaved rounds; each figure is the median over them.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of one run, in seconds.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    match &args.against {
        Some(before) => builds(&args, before).await,
        None => ways(&args).await,
    }
}

fn rate(run: &Run) -> f64 {
    run.rate
}

fn p50(run: &Run) -> f64 {
    run.latency.value_at_quantile(0.5) as f64
}

fn redis_cpu(run: &Run) -> f64 {
    run.redis_cpu
}

/// Ways of running this server.
async fn ways(args: &Args) -> Result<()> {
    let server = &args.server;
    let mut candidates = [
        Candidate::new(server, "group commit, fast", FAST, Shelf::Full, CALLERS).await?,
        Candidate::new(server, "per request, fast", PER_REQUEST, Shelf::Full, CALLERS).await?,
        Candidate::new(server, "group commit, durable", DURABLE, Shelf::Full, CALLERS).await?,
        Candidate::new(server, "group commit, fast, sold out", FAST, Shelf::Empty, CALLERS).await?,
        Candidate::new(server, "group commit, fast, lone caller", FAST, Shelf::Full, 1).await?,
        Candidate::new(server, "per request, fast, lone caller", PER_REQUEST, Shelf::Full, 1).await?,
    ];
    measure(&mut candidates, args.rounds.into(), Duration::from_secs(args.seconds)).await?;
    let [grouped, single, durable, sold_out, lone, lone_single] = &candidates;
    ratio("unary_vs_per_request", grouped, single, rate);
    ratio("durable_vs_fast", durable, grouped, rate);
    ratio("soldout_vs_success_redis_cpu", sold_out, grouped, redis_cpu);
    ratio("idle_latency_vs_per_request", lone, lone_single, p50);
    Ok(())
}

/// This build beside another one: plain Reserves in large, small and single batches, and sold out.
async fn builds(args: &Args, before: &Path) -> Result<()> {
    let rows = [
        ("many", Shelf::Full, CALLERS),
        ("few", Shelf::Full, FEW_CALLERS),
        ("lone", Shelf::Full, 1),
        ("sold_out", Shelf::Empty, CALLERS),
    ];
    let mut candidates = Vec::new();
    for (name, shelf, callers) in rows {
        for (build, binary) in [("before", before), ("after", &args.server)] {
            candidates.push(Candidate::new(binary, format!("{name}, {build}"), FAST, shelf, callers).await?);
        }
    }
    measure(&mut candidates, args.rounds.into(), Duration::from_secs(args.seconds)).await?;
    for ((name, ..), pair) in rows.into_iter().zip(candidates.chunks_exact(2)) {
        ratio(&format!("{name}_redis_cpu"), &pair[1], &pair[0], redis_cpu);
        ratio(&format!("{name}_rate"), &pair[1], &pair[0], rate);
    }
    Ok(())
}
