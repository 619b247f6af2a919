//! Conversions between TOML date-times and the time of the system. Pure.

use std::time::{Duration, SystemTime};

use toml::value::{Datetime, Offset};

use crate::limits::MAX_UNIX_SECONDS;

const SECONDS_PER_DAY: i64 = 86_400;

/// The time of a date-time with an offset; `None` without one, or before 1970. The rest of a second is dropped.
pub(crate) fn parse(text: &Datetime) -> Option<SystemTime> {
    let (date, time) = (text.date?, text.time?);
    let offset_minutes = match text.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_from_civil(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let seconds = i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    at(u64::try_from(days * SECONDS_PER_DAY + seconds - offset_minutes * 60).ok()?)
}

/// The time of these seconds since 1970; `None` if it is after the year 9999.
pub(crate) fn at(unix_seconds: u64) -> Option<SystemTime> {
    if unix_seconds > MAX_UNIX_SECONDS {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix_seconds))
}

/// The time as a TOML date-time in UTC, without the rest of the second. A time out of range becomes the nearest one.
pub(crate) fn format(time: SystemTime) -> String {
    let unix = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().min(MAX_UNIX_SECONDS);
    let (days, second) = (unix.cast_signed() / SECONDS_PER_DAY, unix.cast_signed() % SECONDS_PER_DAY);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The days from 1970-01-01 to a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last day.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<u64> {
        let time = parse(&text.parse().unwrap())?;
        Some(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn a_date_time_with_an_offset_is_a_time() {
        assert_eq!(parsed("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parsed("2027-01-31T00:00:00Z"), Some(1_801_353_600));
        assert_eq!(parsed("2027-01-31T01:30:00+01:30"), Some(1_801_353_600));
        assert_eq!(parsed("2024-02-29T23:59:59.999Z"), Some(1_709_251_199));
        assert_eq!(parsed("9999-12-31T23:59:59Z"), Some(MAX_UNIX_SECONDS));
        assert_eq!(parsed("1969-12-31T23:59:59Z"), None);
        assert_eq!(parsed("9999-12-31T23:59:59-00:01"), None);
        assert_eq!(parsed("2027-01-31T00:00:00"), None);
        assert_eq!(parsed("2027-01-31"), None);
    }

    #[test]
    fn a_written_time_is_read_again() {
        for seconds in [0, 86_399, 86_400, 951_782_400, 1_709_251_199, 4_107_542_400, MAX_UNIX_SECONDS] {
            assert_eq!(parsed(&format(at(seconds).unwrap())), Some(seconds));
        }
        assert_eq!(format(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        assert_eq!(format(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)), "9999-12-31T23:59:59Z");
    }
}
