//! The measuring lab, its first rows: group commit against one EVALSHA per request, side by side in
//! one run, and a lone caller's latency. Prints Markdown; every figure is a median over
//! interleaved runs.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;

mod load;
mod process;

use load::{Run, Shelf};
use process::Server;

/// Flags of a server that sends every request by itself: the same script, no grouping.
const PER_REQUEST: &[&str] = &["--batch-max-operations", "1", "--batches-in-flight", "64", "--pool-size", "64"];
/// Callers at once in the throughput rows.
const CALLERS: usize = 512;

/// Measures the server beside its alternatives.
#[derive(Parser)]
struct Args {
    /// The server binary to measure.
    #[arg(long, default_value = "target/release/sentinel-server")]
    server: PathBuf,
    /// Interleaved rounds; each figure is the median over them.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one run, in seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// One way of running the server, and what it did in each round.
struct Candidate {
    name: &'static str,
    server: Server,
    shelf: Shelf,
    callers: usize,
    runs: Vec<Run>,
}

impl Candidate {
    async fn new(args: &Args, name: &'static str, flags: &[&str], shelf: Shelf, callers: usize) -> Result<Self> {
        let server = Server::start(&args.server, flags).await?;
        load::prepare(&server, SKU, shelf).await?;
        Ok(Self { name, server, shelf, callers, runs: Vec::new() })
    }

    async fn round(&mut self, duration: Duration) -> Result<()> {
        let run =
            load::reserve(&self.server, SKU, self.shelf, self.callers, duration).await.with_context(|| self.name)?;
        self.runs.push(run);
        Ok(())
    }

    fn median(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    }

    fn print(&self) {
        let at = |quantile: f64| self.median(|run| run.latency.value_at_quantile(quantile) as f64);
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
            self.name,
            self.callers,
            self.median(|run| run.rate),
            at(0.5),
            at(0.99),
            self.median(|run| run.server_cpu),
            self.median(|run| run.redis_cpu),
        );
    }
}

const SKU: &str = "bench";

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let per_request = [PER_REQUEST, &["--durability", "fast"]].concat();
    let mut candidates = [
        Candidate::new(&args, "group commit, fast", &["--durability", "fast"], Shelf::Full, CALLERS).await?,
        Candidate::new(&args, "per request, fast", &per_request, Shelf::Full, CALLERS).await?,
        Candidate::new(&args, "group commit, durable", &["--durability", "durable"], Shelf::Full, CALLERS).await?,
        Candidate::new(&args, "group commit, fast, sold out", &["--durability", "fast"], Shelf::Empty, CALLERS).await?,
        Candidate::new(&args, "group commit, fast, lone caller", &["--durability", "fast"], Shelf::Full, 1).await?,
        Candidate::new(&args, "per request, fast, lone caller", &per_request, Shelf::Full, 1).await?,
    ];
    for candidate in &mut candidates {
        candidate.round(Duration::from_secs(1)).await?;
        candidate.runs.clear();
    }
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        for candidate in &mut candidates {
            candidate.round(Duration::from_secs(args.seconds)).await?;
        }
    }

    println!("| Reserve | callers | answers/s | p50 us | p99 us | server CPU us | Redis CPU us |");
    println!("|---|---|---|---|---|---|---|");
    for candidate in &candidates {
        candidate.print();
    }
    println!();
    println!("| ratio | median of the rounds | lowest | highest |");
    println!("|---|---|---|---|");
    let [grouped, single, durable, sold_out, lone, lone_single] = &candidates;
    let rate = |run: &Run| run.rate;
    let p50 = |run: &Run| run.latency.value_at_quantile(0.5) as f64;
    ratio("unary_vs_per_request", grouped, single, rate);
    ratio("durable_vs_fast", durable, grouped, rate);
    ratio("soldout_vs_success_redis_cpu", sold_out, grouped, |run| run.redis_cpu);
    ratio("idle_latency_vs_per_request", lone, lone_single, p50);
    Ok(())
}

/// The ratio of two candidates, taken round by round, as neighbours in time.
fn ratio(name: &str, this: &Candidate, that: &Candidate, figure: impl Fn(&Run) -> f64) {
    let mut ratios: Vec<f64> =
        this.runs.iter().zip(&that.runs).map(|(this, that)| figure(this) / figure(that)).collect();
    ratios.sort_by(f64::total_cmp);
    println!("| `{name}` | {:.2} | {:.2} | {:.2} |", ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1]);
}
