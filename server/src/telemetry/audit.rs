//! The audit log: every operation of an operator, and every refused call, as one JSON object a line. No log level turns
//! it off, and no limit of the log applies to it. Writes to standard error or to a file.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::Mutex,
};

use tracing_subscriber::{
    filter::{FilterFn, LevelFilter},
    layer::Layer,
    registry::Registry,
};

/// The target of the records.
pub(crate) const AUDIT: &str = "sentinel_server::audit";

/// The layer that writes the records, to this file or else to standard error.
pub(super) fn layer(file: Option<&Path>) -> io::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let filter = FilterFn::new(|metadata| metadata.is_event() && metadata.target() == AUDIT)
        .with_max_level_hint(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
    Ok(match file {
        Some(path) => lines.with_writer(Mutex::new(open(path)?)).with_filter(filter).boxed(),
        None => lines.with_writer(io::stderr).with_filter(filter).boxed(),
    })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
