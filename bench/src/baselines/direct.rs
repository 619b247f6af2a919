//! The library's way: goroutines that call Redis themselves. Runs the Go program of bench/direct as a process,
//! once a round, against a separate Redis; its keys are new in each round.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::{
    process::Redis,
    stats::{Cpu, Latency, Run},
};

/// How much longer than its run the program may take.
const MARGIN: Duration = Duration::from_secs(60);

/// The program, and the Redis that it calls.
pub(crate) struct Direct {
    pub(crate) program: PathBuf,
    pub(crate) redis: Arc<Redis>,
    pub(crate) callers: usize,
    /// Each hold is committed: an answer is both.
    pub(crate) sells: bool,
}

#[derive(Deserialize)]
struct Printed {
    answers: f64,
    seconds: f64,
    cpu_seconds: f64,
    #[serde(flatten)]
    latency: Latency,
}

impl Direct {
    pub(crate) async fn run(&self, round: usize, length: Duration) -> Result<Run> {
        let before = self.redis.cpu().await?;
        let mut command = Command::new(&self.program);
        command
            .arg("-address")
            .arg(self.redis.address().to_string())
            .arg("-prefix")
            .arg(format!("{}-{round}", self.sells));
        command.arg("-callers").arg(self.callers.to_string()).arg("-length").arg(format!("{}ms", length.as_millis()));
        command.args(self.sells.then_some("-sell")).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(length + MARGIN, command.output()).await?;
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        ensure!(output.status.success(), "the direct peer failed:\n{}", String::from_utf8_lossy(&output.stderr));
        let printed: Printed = serde_json::from_slice(&output.stdout)?;
        let store = (self.redis.cpu().await? - before) * 1e6 / printed.answers;
        Ok(Run {
            rate: printed.answers / printed.seconds,
            latency: printed.latency,
            cpu: Cpu { client: printed.cpu_seconds * 1e6 / printed.answers, server: None, store: Some(store) },
            operations_per_batch: None,
        })
    }
}
