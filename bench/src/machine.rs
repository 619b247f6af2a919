//! The machine that is measured on, in words: what a figure means nothing without. Reads /proc, runs `--version`s,
//! and writes to a temporary file to time the disk.

use std::{ffi::OsStr, fs, io::Write as _, process::Command, time::Instant};

use anyhow::Result;
use serde::Serialize;

use crate::{baselines::sql, stats::Spread};

/// Writes that are timed.
const SYNCS: usize = 200;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) store: String,
    pub(crate) sql: String,
    pub(crate) go: String,
    pub(crate) rust: String,
    /// Of 100 bytes appended, in microseconds.
    pub(crate) fdatasync_us: Spread,
}

impl Machine {
    pub(crate) fn read() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib =
            memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
        Ok(Self {
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: kib.unwrap_or(0.0) / 1024.0 / 1024.0,
            kernel: version_line("uname", "-sr", "Linux", 2),
            store: ["valkey-server", "redis-server"]
                .into_iter()
                .map(|program| version_line(program, "--version", program, 3))
                .find(|line| !line.ends_with(ABSENT))
                .unwrap_or_else(|| format!("Redis: {ABSENT}")),
            sql: version_line(sql::programs().unwrap_or_default().join("postgres"), "--version", "PostgreSQL", 3),
            go: version_line("go", "version", "Go", 3),
            rust: version_line("rustc", "--version", "Rust", 2),
            fdatasync_us: sync_latency()?,
        })
    }
}

const ABSENT: &str = "not installed";

/// The first words that a program prints of itself; behind them come checksums, builds and dates.
fn version_line(program: impl AsRef<OsStr>, argument: &str, name: &str, words: usize) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let words: Vec<_> = text.split_whitespace().take(words).collect();
    if words.is_empty() { format!("{name}: {ABSENT}") } else { words.join(" ") }
}

fn sync_latency() -> Result<Spread> {
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.write_all(&[b'x'; 100])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(times).expect("there are some"))
}
