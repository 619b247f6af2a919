//! The machine that is measured on, in words: what a figure means nothing without. Reads /proc, runs `--version`s,
//! and writes to a temporary file to time the disk.

use std::{fs, io::Write as _, process::Command, time::Instant};

use anyhow::Result;
use serde::Serialize;

use crate::figures::Spread;

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
    pub(crate) fn look() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib =
            memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
        Ok(Self {
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: kib.unwrap_or(0.0) / 1024.0 / 1024.0,
            kernel: says("uname", &["-sr"]),
            store: first_of(&[("valkey-server", &["--version"]), ("redis-server", &["--version"])]),
            sql: says("postgres", &["--version"]),
            go: says("go", &["version"]),
            rust: says("rustc", &["--version"]),
            fdatasync_us: sync_latency()?,
        })
    }
}

fn first_of(programs: &[(&str, &[&str])]) -> String {
    let mut said = programs.iter().map(|(program, arguments)| says(program, arguments));
    said.find(|said| said != ABSENT).unwrap_or_else(|| ABSENT.to_owned())
}

const ABSENT: &str = "not installed";

/// The first words that a program prints.
fn says(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return ABSENT.to_owned() };
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().take(4).collect::<Vec<_>>().join(" ")
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
