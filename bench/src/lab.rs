//! One measurement: candidates that take turns, so that what the machine does meanwhile meets all of them
//! alike; then a table of medians, and ratios taken round by round. Prints Markdown.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    load::{self, Run, Shelf},
    process::Server,
};

const SKU: &str = "bench";
/// Length of the first run of each candidate, which is not counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// One way of running the server, and what it did in each round.
pub(crate) struct Candidate {
    name: String,
    server: Server,
    shelf: Shelf,
    callers: usize,
    runs: Vec<Run>,
}

impl Candidate {
    pub(crate) async fn new(
        binary: &Path,
        name: impl Into<String>,
        flags: &[&str],
        shelf: Shelf,
        callers: usize,
    ) -> Result<Self> {
        let server = Server::start(binary, flags).await?;
        load::prepare(&server, SKU, shelf).await?;
        Ok(Self { name: name.into(), server, shelf, callers, runs: Vec::new() })
    }

    async fn round(&mut self, duration: Duration) -> Result<()> {
        let run = load::reserve(&self.server, SKU, self.shelf, self.callers, duration);
        self.runs.push(run.await.with_context(|| self.name.clone())?);
        Ok(())
    }

    fn median(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        middle(self.runs.iter().map(figure).collect()).1
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

/// Lets the candidates take turns and prints what each did.
pub(crate) async fn measure(candidates: &mut [Candidate], rounds: usize, length: Duration) -> Result<()> {
    for candidate in &mut *candidates {
        candidate.round(WARM_UP).await?;
        candidate.runs.clear();
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for candidate in &mut *candidates {
            candidate.round(length).await?;
        }
    }
    println!("| Reserve | callers | answers/s | p50 us | p99 us | server CPU us | Redis CPU us |");
    println!("|---|---|---|---|---|---|---|");
    candidates.iter().for_each(Candidate::print);
    println!("\n| ratio | median of the rounds | lowest | highest |");
    println!("|---|---|---|---|");
    Ok(())
}

/// The ratio of two candidates, taken round by round, as neighbours in time.
pub(crate) fn ratio(name: &str, this: &Candidate, that: &Candidate, figure: impl Fn(&Run) -> f64) {
    let ratios = this.runs.iter().zip(&that.runs).map(|(this, that)| figure(this) / figure(that)).collect();
    let (lowest, median, highest) = middle(ratios);
    println!("| `{name}` | {median:.2} | {lowest:.2} | {highest:.2} |");
}

/// The lowest, the median and the highest of some figures, of which there is one at least.
fn middle(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[0], figures[figures.len() / 2], figures[figures.len() - 1])
}
