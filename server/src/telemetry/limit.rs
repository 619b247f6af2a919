//! A limit on the lines of the log. Of each kind of line, which is a place in the source, a few are
//! written in a window; the others are counted and summarized in one line. An outage of the store
//! makes the same line for each namespace, partition and attempt. Reads events and the clock only.

use std::{
    collections::{HashMap, HashSet},
    fmt::{Debug, Write as _},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level,
    callsite::Identifier,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::Registry,
};

/// The most lines of one kind that are written in one window.
const LINES: u32 = 4;
/// Length of a window, from its first line.
const WINDOW: Duration = Duration::from_secs(60);
/// Interval of the check for windows that ended.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The most namespaces of omitted lines that are distinguished.
const MAX_NAMESPACES: usize = 10_000;
/// The longest error, in bytes, in a summary.
const MAX_ERROR_BYTES: usize = 300;
/// The target of records for an operator, like each change of the health: all of them are written.
pub(crate) const RECORD: &str = "sentinel_server::record";

/// The counters of written and omitted lines. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit(Arc<Mutex<HashMap<Identifier, Window>>>);

/// The lines of one kind since its window began.
#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    omitted: Option<Omitted>,
}

/// Lines that were counted instead of written.
#[derive(Debug)]
struct Omitted {
    level: Level,
    message: String,
    lines: u64,
    /// Hashes of the namespaces that the lines name.
    namespaces: HashSet<u64>,
    /// The error of the first of them.
    error: String,
}

impl Limit {
    /// Whether a line is written. An omitted line is counted.
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        // Debug lines, which an operator enables deliberately, and records have no limit.
        if *metadata.level() > Level::INFO || metadata.target() == RECORD || metadata.target() == module_path!() {
            return true;
        }
        let key = metadata.callsite();
        {
            let mut windows = self.windows();
            let window = windows.entry(key.clone()).or_insert_with(|| Window::new(now));
            if now.duration_since(window.began) >= WINDOW && window.omitted.is_none() {
                *window = Window::new(now);
            }
            if window.written < LINES {
                window.written += 1;
                return true;
            }
        }
        let mut parts = LineParts::default();
        event.record(&mut parts);
        let mut windows = self.windows();
        let omitted = &mut windows.entry(key).or_insert_with(|| Window::new(now)).omitted;
        let omitted = omitted.get_or_insert_with(|| Omitted {
            level: *metadata.level(),
            message: parts.message,
            lines: 0,
            namespaces: HashSet::new(),
            error: parts.error,
        });
        omitted.lines += 1;
        if let Some(namespace) = parts.namespace
            && omitted.namespaces.len() < MAX_NAMESPACES
        {
            omitted.namespaces.insert(namespace);
        }
        false
    }

    /// The windows that ended, or all. While lines are still omitted, the next window has its
    /// summary only.
    fn take(&self, now: Instant, is_end: bool) -> Vec<Omitted> {
        let mut due = Vec::new();
        for window in self.windows().values_mut() {
            if (is_end || now.duration_since(window.began) >= WINDOW)
                && let Some(omitted) = window.omitted.take()
            {
                window.began = now;
                due.push(omitted);
            }
        }
        due
    }

    /// Writes a summary for each kind with omitted lines, once a window. Never returns.
    pub(super) async fn summarize(self) {
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        loop {
            ticks.tick().await;
            self.take(Instant::now(), false).iter().for_each(Omitted::log);
        }
    }

    /// Writes the summaries that are due at a stop.
    pub(super) fn end(&self) {
        self.take(Instant::now(), true).iter().for_each(Omitted::log);
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Identifier, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer that passes the written lines on to another layer.
pub(super) struct Limited<L> {
    limit: Limit,
    inner: L,
}

impl<L> Limited<L> {
    pub(super) fn new(limit: Limit, inner: L) -> Self {
        Self { limit, inner }
    }
}

impl<L: Layer<Registry>> Layer<Registry> for Limited<L> {
    fn on_layer(&mut self, subscriber: &mut Registry) {
        self.inner.on_layer(subscriber);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, Registry>) {
        self.inner.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, Registry>) {
        self.inner.on_record(id, values, context);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, Registry>) {
        self.inner.on_follows_from(id, follows, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, Registry>) {
        if self.limit.admits(event, Instant::now()) {
            self.inner.on_event(event, context);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, Registry>) {
        self.inner.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, Registry>) {
        self.inner.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, Registry>) {
        self.inner.on_close(id, context);
    }
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, written: 0, omitted: None }
    }
}

impl Omitted {
    fn log(&self) {
        let (line, lines, namespaces, error) = (&*self.message, self.lines, self.namespaces.len(), &*self.error);
        // The level of an event is a constant.
        if self.level == Level::ERROR {
            tracing::error!(line, lines, namespaces, first_error = error, "further lines of a kind were left out");
        } else if self.level == Level::WARN {
            tracing::warn!(line, lines, namespaces, first_error = error, "further lines of a kind were left out");
        } else {
            tracing::info!(line, lines, namespaces, first_error = error, "further lines of a kind were left out");
        }
    }
}

/// The parts of a line that a summary contains.
#[derive(Default)]
struct LineParts {
    message: String,
    namespace: Option<u64>,
    error: String,
}

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Visit for LineParts {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            "namespace" => self.namespace = Some(HASHER.hash_one(value)),
            "error" | "why" | "reason" => self.error = shortened(value, MAX_ERROR_BYTES).to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if ["message", "error", "why", "reason"].contains(&field.name()) {
            let mut text = String::new();
            // A String takes every write.
            let _ = write!(text, "{value:?}");
            self.record_str(field, &text);
        }
    }
}

/// The beginning of a text, of this many bytes at most, up to the boundary of a character.
pub(crate) fn shortened(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    &text[..end]
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Counts the events that reach it.
    struct Counter(Arc<Mutex<Vec<String>>>);

    impl Layer<Registry> for Counter {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, Registry>) {
            let mut parts = LineParts::default();
            event.record(&mut parts);
            self.0.lock().unwrap().push(parts.message);
        }
    }

    fn fail(namespace: usize) {
        let namespace = format!("sale-{namespace}");
        tracing::warn!(namespace = namespace.as_str(), error = "refused", "a batch failed");
    }

    #[test]
    fn of_each_kind_a_few_lines_are_written_and_the_rest_is_summed_up() {
        let (limit, seen) = (Limit::default(), Arc::default());
        let subscriber = tracing_subscriber::registry().with(Limited::new(limit.clone(), Counter(Arc::clone(&seen))));
        tracing::subscriber::with_default(subscriber, || {
            for i in 0..1_000 {
                fail(i % 40);
                tracing::debug!("on request");
                tracing::info!(target: RECORD, "settled");
            }
            tracing::info!("another kind");
            let count = |message: &str| seen.lock().unwrap().iter().filter(|line| *line == message).count();
            assert_eq!(count("a batch failed"), LINES as usize);
            assert_eq!((count("another kind"), count("on request"), count("settled")), (1, 1_000, 1_000));

            let now = Instant::now();
            assert!(limit.take(now, false).is_empty(), "the window is not over");
            let due = limit.take(now + WINDOW, false);
            assert_eq!(due.len(), 1);
            assert_eq!((due[0].lines, due[0].namespaces.len()), (1_000 - u64::from(LINES), 40));
            assert_eq!((due[0].message.as_str(), due[0].error.as_str()), ("a batch failed", "refused"));
            due[0].log();
            assert_eq!(count("further lines of a kind were left out"), 1);

            // One summary for each window. Then it ends, and lines are written again.
            fail(7);
            assert_eq!(limit.take(now + 2 * WINDOW, false).len(), 1);
            assert!(limit.take(now + 3 * WINDOW, false).is_empty());
            fail(7);
            limit.end();
            assert_eq!(count("further lines of a kind were left out"), 2);
        });
    }

    #[test]
    fn a_long_error_is_shortened_between_characters() {
        assert_eq!(shortened("short", MAX_ERROR_BYTES), "short");
        assert!(shortened(&"ä".repeat(MAX_ERROR_BYTES), MAX_ERROR_BYTES).len() <= MAX_ERROR_BYTES);
    }
}
