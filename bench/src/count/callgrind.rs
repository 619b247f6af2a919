//! Counting the instructions of a process: it runs under valgrind's callgrind, which vgdb switches on and off.
//! Keeps what valgrind writes in a temporary folder.

use std::{
    ffi::OsStr,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// Longest wait for a process under valgrind to obey a command.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// The prefix of the names of valgrind's files.
const COUNTS: &str = "counts";
/// And with a number behind it, those of a process that continues.
const COUNTS_SO_FAR: &str = "counts.";
const PIPES: &str = "pipes";

/// The counter of one process under callgrind. Must outlive the process.
pub(crate) struct Callgrind {
    folder: TempDir,
}

impl Callgrind {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    /// Runs a program, not counted yet.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--instr-atstart=no"]);
        command.arg(self.option("--callgrind-out-file", COUNTS)).arg(self.option("--vgdb-prefix", PIPES));
        command.arg(program);
        command
    }

    /// Counts from here on.
    pub(crate) async fn begin(&self, pid: u32) -> Result<()> {
        self.order(pid, &["instrumentation", "on"]).await
    }

    /// The instructions since it began or since the last call of this.
    pub(crate) async fn take(&self, pid: u32) -> Result<u64> {
        self.order(pid, &["dump"]).await?;
        let mut sum = None;
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(COUNTS_SO_FAR)) {
                let counted = total(&fs::read_to_string(&path)?).context("callgrind's file has a total")?;
                *sum.get_or_insert(0) += counted;
                fs::remove_file(path)?;
            }
        }
        sum.context("callgrind wrote no file")
    }

    async fn order(&self, pid: u32, words: &[&str]) -> Result<()> {
        let mut command = tokio::process::Command::new("vgdb");
        command.arg(self.option("--vgdb-prefix", PIPES)).arg(format!("--pid={pid}")).args(words);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(ORDER_LIMIT, command.output()).await.context("vgdb")?;
        let output = output.context("cannot run vgdb")?;
        ensure!(output.status.success(), "vgdb {words:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn option(&self, name: &str, file: &str) -> String {
        let path: PathBuf = self.folder.path().join(file);
        format!("{name}={}", path.display())
    }
}

/// All that a file of callgrind has counted.
fn total(file: &str) -> Option<u64> {
    let line = file.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_file_is_read() {
        let file = "# callgrind format\nversion: 1\npid: 7\nevents: Ir\nsummary: 1234\n\nfn=(1) main\n3 1234\n\n";
        assert_eq!(total(file), Some(1234));
        assert_eq!(total("events: Ir\nfn=(1) main\n3 99\n\ntotals: 99\n"), Some(99));
        assert_eq!(total("events: Ir\n"), None);
        assert_eq!(total("totals:\n"), None);
    }
}
