//! Signals that stop the benchmarks before their end. Listens for signals and touches nothing else; a
//! caller that waits here drops the current run, and with it its processes and their folders.

use std::future::Future;

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Does the work; fails as soon as a signal stops the process, after all that the work had started has ended.
pub(crate) async fn until_signal<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // Before the work, so that there is no moment in which a signal would kill.
    let (mut interrupt, mut terminate, mut hang_up) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let signal = async {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hang_up.recv() => "SIGHUP",
        }
    };
    // The branch that loses is dropped before this returns.
    tokio::select! {
        done = work => done,
        name = signal => bail!("stopped by {name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::process::Process;

    /// Longest wait for a signal to arrive.
    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_the_work_had_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let child = Process::start(std::process::Command::new("sleep").arg("60"), folder.path(), Signal::TERM).unwrap();
        let id = child.id();
        let is_there = move || std::path::Path::new(&format!("/proc/{id}")).exists();
        let work = async move {
            let _child = child;
            assert!(is_there());
            kill_process(getpid(), Signal::TERM).unwrap();
            pending::<Result<()>>().await
        };
        let error = tokio::time::timeout(LIMIT, until_signal(work)).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "stopped by SIGTERM");
        assert!(!is_there());
    }

    #[tokio::test]
    async fn work_that_ends_is_done() {
        assert_eq!(until_signal(async { Ok(7) }).await.unwrap(), 7);
    }
}
