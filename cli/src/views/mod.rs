//! The printed forms of the client's types. The JSON keys are the names of the fields in proto/, and every object has
//! all of them. Data only.
//!
//! - `stock`: counters and rules; `reservation`, `event`, `namespace`, `server`: the others.

pub(crate) mod event;
pub(crate) mod namespace;
pub(crate) mod reservation;
pub(crate) mod server;
pub(crate) mod stock;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inventory_sentinel_client::State;

/// The cell of a missing value.
const NOTHING: &str = "-";

/// An instant in RFC 3339, in UTC, with milliseconds.
pub(crate) fn instant(at: SystemTime) -> String {
    // The formatter does not support instants before 1970, and no server returns one.
    humantime::format_rfc3339_millis(at.max(UNIX_EPOCH)).to_string()
}

/// A duration as the JSON of protobuf has it, as in `300s` or `0.250s`.
pub(crate) fn seconds(length: Duration) -> String {
    match length.subsec_nanos() {
        0 => format!("{}s", length.as_secs()),
        nanos if nanos % 1_000_000 == 0 => format!("{}.{:03}s", length.as_secs(), nanos / 1_000_000),
        nanos => format!("{}.{nanos:09}s", length.as_secs()),
    }
}

/// A state without the prefix of its name in proto/.
pub(crate) fn state(state: State) -> String {
    match state {
        State::Pending => "PENDING".to_owned(),
        State::Committed => "COMMITTED".to_owned(),
        State::RolledBack => "ROLLED_BACK".to_owned(),
        State::Expired => "EXPIRED".to_owned(),
        State::Unknown(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// A value for a table.
pub(crate) fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

/// A duration for a table, as in `5m`.
pub(crate) fn length(length: Duration) -> String {
    humantime::format_duration(length).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_protobuf() {
        assert_eq!(seconds(Duration::from_secs(300)), "300s");
        assert_eq!(seconds(Duration::from_millis(250)), "0.250s");
        assert_eq!(seconds(Duration::from_nanos(1)), "0.000000001s");
    }

    #[test]
    fn instants_are_utc() {
        assert_eq!(instant(UNIX_EPOCH + Duration::from_millis(1_795_802_400_007)), "2026-11-27T18:00:00.007Z");
        assert_eq!(instant(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    }
}
