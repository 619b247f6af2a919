//! Values of the command line and of the config file: durations, instants, limits that `none` removes. Pure.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

/// The word that removes a rule.
const NONE: &str = "none";

/// A value, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

/// Parses a duration, for example `5m` or `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; examples: 90s, 5m, 1h30m"))
}

/// Reads a duration above zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        length => Ok(length),
    }
}

/// Reads an instant in RFC 3339: UTC, or with an offset.
pub(crate) fn instant(text: &str) -> Result<SystemTime, String> {
    let wrong = || "not an instant of RFC 3339; examples: 2026-11-27T18:00:00Z, 2026-11-27T19:00:00+01:00".to_owned();
    if text.ends_with(['Z', 'z']) {
        return humantime::parse_rfc3339(&text.to_uppercase()).map_err(|_| wrong());
    }
    // Only ASCII is split: no character is cut.
    let (naive, offset) = match text.len().checked_sub(6) {
        Some(at) if text.is_ascii() => text.split_at(at),
        _ => return Err(wrong()),
    };
    let (hours, minutes) = offset[1..].split_once(':').ok_or_else(wrong)?;
    let part = |part: &str, most: u64| match part.parse::<u64>() {
        Ok(number) if part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()) && number <= most => Ok(number),
        _ => Err(wrong()),
    };
    let offset_length = Duration::from_secs(part(hours, 23)? * 3_600 + part(minutes, 59)? * 60);
    let local = humantime::parse_rfc3339(&format!("{naive}Z")).map_err(|_| wrong())?;
    let moved = match &offset[..1] {
        "+" => local.checked_sub(offset_length),
        "-" => local.checked_add(offset_length),
        _ => None,
    };
    moved.ok_or_else(wrong)
}

/// Reads an instant, or `none`.
pub(crate) fn instant_or_none(text: &str) -> Result<OrNone<SystemTime>, String> {
    or_none(text, instant)
}

/// Reads a duration above zero, or `none`.
pub(crate) fn duration_or_none(text: &str) -> Result<OrNone<Duration>, String> {
    or_none(text, positive_duration)
}

/// Reads a number of units, or `none`.
pub(crate) fn units_or_none(text: &str) -> Result<OrNone<i32>, String> {
    or_none(text, |text| match i32::from_str(text) {
        Ok(units) if units > 0 => Ok(units),
        _ => Err("not a number of units above 0, and not `none`".to_owned()),
    })
}

fn or_none<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<OrNone<T>, String> {
    if text == NONE { Ok(OrNone(None)) } else { read(text).map(|value| OrNone(Some(value))) }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn seconds(text: &str) -> u64 {
        instant(text).expect(text).duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    }

    #[test]
    fn instants_have_an_offset() {
        let utc = seconds("2026-11-27T18:00:00Z");
        assert_eq!(utc, 1_795_802_400);
        for same in ["2026-11-27T18:00:00.000Z", "2026-11-27T19:00:00+01:00", "2026-11-27T12:30:00-05:30"] {
            assert_eq!(seconds(same), utc, "{same}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for wrong in [
            "",
            "Z",
            "tomorrow",
            "2026-11-27",
            "2026-11-27T18:00:00",
            "2026-11-27T18:00:00+1",
            "ü2026-11-27T18:00:00Z",
            "2026-11-27T18:00:00+24:00",
            "2026-11-27T18:00:00+01:60",
            "2026-11-27T18:00:00+-1:00",
            "2026-13-27T18:00:00Z",
            "+01:00",
            "ääääää",
        ] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn none_takes_a_rule_away_and_zero_does_not() {
        assert_eq!(units_or_none("none"), Ok(OrNone(None)));
        assert_eq!(units_or_none("2"), Ok(OrNone(Some(2))));
        assert!(units_or_none("0").is_err() && units_or_none("-1").is_err() && units_or_none("two").is_err());
        assert_eq!(duration_or_none("5m"), Ok(OrNone(Some(Duration::from_secs(300)))));
        assert!(duration_or_none("0s").is_err() && duration_or_none("5").is_err());
        assert_eq!(instant_or_none("none"), Ok(OrNone(None)));
    }
}
