//! Instants and ttls. No I/O.

use std::time::Duration;

use inventory_sentinel::Reason;

use super::Invalid;

/// An instant of the store: of a partition's clock, or of its time of day. In milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreTime(
    /// The milliseconds.
    pub u64,
);

/// Milliseconds of a duration or an instant of a message, rounded up; `None` if it is negative or malformed.
pub fn whole_millis(seconds: i64, nanos: i32) -> Option<u64> {
    let (seconds, nanos) = (u64::try_from(seconds).ok()?, u64::try_from(nanos).ok()?);
    if nanos >= 1_000_000_000 {
        return None;
    }
    seconds.checked_mul(1_000)?.checked_add(nanos.div_ceil(1_000_000))
}

/// How long units are held, in whole milliseconds, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(u64);

impl Ttl {
    /// Rounds up to the millisecond, and accepts 1 ms up to the longest ttl of the namespace.
    pub fn parse(seconds: i64, nanos: i32, longest: Duration) -> Result<Self, Invalid> {
        match whole_millis(seconds, nanos) {
            Some(millis) if millis > 0 && u128::from(millis) <= longest.as_millis() => Ok(Self(millis)),
            _ => {
                let longest = humantime::format_duration(longest);
                Err(Invalid::new(Reason::InvalidTtl, "ttl").because(format!("the longest is {longest}")))
            }
        }
    }

    /// Its milliseconds.
    pub fn as_millis(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_rounded_up_to_the_millisecond_and_has_a_limit() {
        let longest = Duration::from_secs(60);
        assert_eq!(Ttl::parse(0, 1_000_000, longest), Ok(Ttl(1)));
        assert_eq!(Ttl::parse(60, 0, longest), Ok(Ttl(60_000)));
        assert_eq!(Ttl::parse(0, 1, longest), Ok(Ttl(1)));
        assert_eq!(Ttl::parse(1, 1_500_000, longest), Ok(Ttl(1_002)));
        assert_eq!(Ttl::parse(1, 999_999_999, longest), Ok(Ttl(2_000)));
        for (seconds, nanos) in [(0, 0), (60, 1), (60, 1_000_000), (-1, 0), (0, -1), (i64::MAX, 0), (1, 1_000_000_000)]
        {
            assert!(Ttl::parse(seconds, nanos, longest).is_err(), "{seconds} {nanos}");
        }
    }
}
