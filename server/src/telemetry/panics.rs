//! Panics as lines of the log: one structured event each, with the name of the task. Sets the panic
//! hook of the process.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
    panic::PanicHookInfo,
};

thread_local! {
    /// The task that this thread polls.
    static RUNNING: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The task in the log line of a panic outside of all named tasks.
const UNNAMED: &str = "unnamed";

/// While this exists, a panic of this thread is logged with the name of the task.
#[must_use = "the name ends with the guard"]
pub(crate) struct Named {
    before: Option<&'static str>,
}

/// Sets the name of the task that this thread polls.
pub(crate) fn name(task: &'static str) -> Named {
    Named { before: RUNNING.replace(Some(task)) }
}

impl Drop for Named {
    fn drop(&mut self) {
        RUNNING.set(self.before);
    }
}

/// Logs every panic of this process instead of Rust's text.
pub(super) fn install() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let task = RUNNING.get().unwrap_or(UNNAMED);
    // Only with RUST_BACKTRACE.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(task, panic = text, location, backtrace, "a task panicked");
}
