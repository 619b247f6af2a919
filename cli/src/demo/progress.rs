//! The progress of the sale: a bar on a terminal, plain lines elsewhere. Writes to standard error only.

use std::{
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::{ledger::Ledger, plan::Plan, report::grouped};

/// How often the bar is drawn.
const BAR_PERIOD: Duration = Duration::from_millis(100);
/// How often a plain line is written.
const LINE_PERIOD: Duration = Duration::from_secs(2);

/// Shows the progress until it is dropped.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    phase: Arc<Mutex<&'static str>>,
    ticker: JoinHandle<()>,
}

impl Progress {
    pub(crate) fn start(ledger: Arc<Ledger>, plan: &Plan) -> Progress {
        eprintln!(
            "sale {}: {} units of {} products, {} buyers, {} attempts, seed {}",
            plan.namespace,
            grouped(plan.units),
            grouped(plan.products),
            grouped(plan.buyers),
            grouped(plan.attempts),
            plan.seed,
        );
        let total = u64::from(plan.attempts);
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {elapsed:>4} {msg}");
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let phase = Arc::new(Mutex::new("opening"));
        let ticker = tokio::spawn(tick(ledger, total, bar.clone(), Arc::clone(&phase)));
        Progress { bar, phase, ticker }
    }

    /// Sets the current phase.
    pub(crate) fn phase(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.ticker.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn tick(ledger: Arc<Ledger>, total: u64, bar: Option<ProgressBar>, phase: Arc<Mutex<&'static str>>) {
    let period = if bar.is_some() { BAR_PERIOD } else { LINE_PERIOD };
    loop {
        tokio::time::sleep(period).await;
        let counts = ledger.counts();
        let phase = *phase.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = grouped(counts.reserved);
        match &bar {
            Some(bar) => {
                bar.set_position(counts.attempts.min(total));
                bar.set_message(format!("{phase}, {reserved} reserved"));
            }
            None => {
                eprintln!("{phase}: {} of {} attempts, {reserved} reserved", grouped(counts.attempts), grouped(total))
            }
        }
    }
}
