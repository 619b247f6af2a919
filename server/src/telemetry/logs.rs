//! Log lines on standard error: human on a terminal, JSON elsewhere. One line per event, whatever a
//! caller puts into a string.

use std::fmt::{self, Debug, Write as _};
use std::io::{self, IsTerminal as _};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, FilterFn, ParseError};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Filter, Layer};
use tracing_subscriber::registry::Registry;

use super::{
    audit::AUDIT,
    limit::{Limit, Limited},
    spans,
};
use crate::config::LogFormat;

/// The filter of the log: these directives, and never the spans for export or the audit log.
pub(super) fn filter(directives: &str) -> Result<impl Filter<Registry> + Send + Sync + 'static, ParseError> {
    let logged = EnvFilter::try_new(directives)?;
    Ok(FilterFn::new(|metadata| ![spans::TARGET, AUDIT].contains(&metadata.target())).and(logged))
}

/// The layer that writes the log, with its limit for each kind of line.
pub(super) fn layer(
    format: LogFormat,
    filter: impl Filter<Registry> + Send + Sync + 'static,
    limit: Limit,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let terminal = io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    if human {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(colours)
            .fmt_fields(debug_fn(field).delimited(" "))
            .with_writer(io::stderr);
        Limited::new(limit, lines).with_filter(filter).boxed()
    } else {
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr);
        Limited::new(limit, lines).with_filter(filter).boxed()
    }
}

/// How the human form writes a field.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let mut writer = Escaped(writer);
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name => write!(writer, "{name}={value:?}"),
    }
}

/// Writes control characters as escapes. A string from outside can then neither fake a log line nor
/// control a terminal.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(char::is_control) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            let mut characters = from.chars();
            if let Some(control) = characters.next() {
                write!(self.0, "{}", control.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_hostile_string_stays_within_its_line() {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(true)
            .fmt_fields(debug_fn(field).delimited(" "))
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(sku = %"a\nERROR forged\r\u{1b}[2Jb", "it was\nrefused");
        });
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.matches('\n').count(), 1, "{written:?}");
        assert!(!written.contains('\r') && !written.contains("\u{1b}[2J"), "{written:?}");
    }

    #[test]
    fn spans_for_export_are_free_while_nobody_exports() {
        let log = filter("trace").unwrap();
        let layers = vec![layer(LogFormat::Json, log, Limit::default())];
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
            // Another test can be the first to use the span, with another subscriber, before this
            // test's is registered.
            drop(spans::call_span("Service", "Method"));
            tracing::callsite::rebuild_interest_cache();
            assert!(spans::call_span("Service", "Method").is_disabled());
            assert!(!tracing::info_span!("other").is_disabled());
        });
    }
}
