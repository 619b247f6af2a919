//! The audit log: every operation of an operator, and every refused call, as one JSON object a line. No log level turns
//! it off, and no limit of the log applies to it. Writes to standard error or to a file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{LazyLock, Mutex},
};

use prometheus::IntCounter;
use tracing_subscriber::{
    filter::{FilterFn, LevelFilter},
    layer::Layer,
    registry::Registry,
};

/// The mode of a new file: other users of the machine do not read it.
const FILE_MODE: u32 = 0o600;

/// The target of the records.
pub(crate) const AUDIT: &str = "sentinel_server::audit";

/// The layer that writes the records, to this file or else to standard error.
pub(super) fn layer(file: Option<&Path>) -> io::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let filter = FilterFn::new(|metadata| metadata.is_event() && metadata.target() == AUDIT)
        .with_max_level_hint(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
    Ok(match file {
        Some(path) => lines.with_writer(Mutex::new(Counted(open(path)?))).with_filter(filter).boxed(),
        None => lines.with_writer(|| Counted(io::stderr())).with_filter(filter).boxed(),
    })
}

/// The records that could not be written. One counter of the process, because the log is set up before the metrics.
pub(super) static FAILURES: LazyLock<IntCounter> = LazyLock::new(|| {
    IntCounter::new(
        "inventory_sentinel_audit_write_failures_total",
        "Writes to the audit log that failed: its file or its disk has a problem, and records are missing.",
    )
    .expect("name and help are constants that fit together")
});

/// A writer that counts its failures: the log of a failed write has no other place.
struct Counted<W>(W);

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).inspect_err(|_| FAILURES.inc())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}
