//! How callers come: each as soon as the last is answered (closed loop), or at a rate whatever the answers do
//! (open loop, so that a slow answer does not hide the calls that it would have held up).

use std::{
    future::Future,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};

/// Calls that are due within this are started together, their latency counted from when they were due: a thread that
/// woke for each would take from the machine what is measured on it.
const TICK: Duration = Duration::from_millis(1);
/// Most calls under way in an open loop: beyond it the rate can't be kept up, and the run fails.
const MAX_UNDER_WAY: usize = 100_000;

/// One who calls, again and again.
pub(crate) trait Caller: Clone + Send + 'static {
    /// Makes one call and checks its answer.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// These callers at once, for so long. Returns latencies in microseconds, and the seconds that it took.
pub(crate) async fn closed<C: Caller>(callers: Vec<C>, length: Duration) -> Result<(Histogram<u64>, f64)> {
    let start = Instant::now();
    let end = start + length;
    // A set ends its tasks when it is dropped: none calls a server that is being stopped.
    // Each keeps plain numbers: histograms, one for each caller, would push all else out of the cache.
    let mut tasks: JoinSet<Result<Vec<u32>>> = callers
        .into_iter()
        .map(|mut caller| async move {
            let mut latencies = Vec::new();
            loop {
                let sent_at = Instant::now();
                if sent_at >= end {
                    return Ok(latencies);
                }
                caller.call().await?;
                latencies.push(u32::try_from(sent_at.elapsed().as_micros())?);
            }
        })
        .collect();
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.push(done??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let mut latency = Histogram::new(3)?;
    for micros in all.into_iter().flatten() {
        latency.record(micros.into())?;
    }
    Ok((latency, seconds))
}

/// One answer of an open loop.
pub(crate) struct Answered {
    /// When the call was due, from the start of the run.
    pub(crate) due: Duration,
    /// From then to its answer.
    pub(crate) latency: Duration,
}

/// Calls at a mean rate per second, at random (a Poisson process of a fixed seed), these callers taking
/// turns, while `continues` returns true for the time since the start.
pub(crate) async fn open<C: Caller>(
    callers: Vec<C>,
    rate: f64,
    continues: impl Fn(Duration) -> bool + Send + 'static,
) -> Result<Vec<Answered>> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let handle = Handle::current();
    // A separate thread: the timer of the runtime counts milliseconds.
    let pacer = thread::spawn(move || {
        let mut random = StdRng::seed_from_u64(1);
        let start = Instant::now();
        let mut due = Duration::ZERO;
        for turn in 0.. {
            let mut caller = callers[turn % callers.len()].clone();
            due += Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() / rate);
            if sender.is_closed() || !continues(due) {
                return Ok(());
            }
            if due > start.elapsed() {
                thread::sleep((due + TICK).saturating_sub(start.elapsed()));
            }
            ensure!(sender.strong_count() < MAX_UNDER_WAY, "{rate:.0} calls/s can't be kept up");
            let sender = sender.clone();
            handle.spawn(async move {
                let result = caller.call().await;
                let latency = start.elapsed().saturating_sub(due);
                let _ = sender.send(result.map(|()| Answered { due, latency }));
            });
        }
        unreachable!("the loop has no other end")
    });
    let mut answers = Vec::new();
    // Every call has a deadline, so that the last sender ends within a bound.
    while let Some(answer) = receiver.recv().await {
        answers.push(answer?);
    }
    pacer.join().ok().context("the pacer panicked")??;
    Ok(answers)
}
