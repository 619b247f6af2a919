//! The last reading of the clock of one partition, related to the monotonic clock of this process. No I/O.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::{Reading, StoreTime};

/// The longest round trip with which a reading is precise enough: half of the difference that counts as a step of the
/// clock (`CLOCK_BOUND` in lua/scripts/load/clock.lua).
const LONGEST_READING: Duration = Duration::from_millis(500);

/// The time for which a reading is kept while later ones agree with it.
const READING_KEPT: Duration = Duration::from_secs(60);
/// The difference up to which two readings agree, in milliseconds: it does not count as a step of the clock.
const AGREEING: u64 = 1_000;

/// The last reading of the clock.
#[derive(Debug, Default)]
pub(super) struct KnownClock(Mutex<Option<Reading>>);

impl KnownClock {
    pub(super) fn last(&self) -> Option<Reading> {
        *self.reading()
    }

    /// Records the time in a reply. Ignores a reply that took too long: the clock was read at an unknown instant during
    /// the call.
    pub(super) fn record(&self, now: StoreTime, sent: Instant, answered: Instant) {
        if answered.saturating_duration_since(sent) > LONGEST_READING {
            return;
        }
        let mut reading = self.reading();
        // Replies may arrive in another order than the calls were sent.
        let is_newer = reading.is_none_or(|reading| reading.sent < sent);
        // An agreeing reading does not replace the last one for a while: otherwise small steps would add up unnoticed.
        let agrees = reading.is_some_and(|reading| {
            sent.saturating_duration_since(reading.sent) < READING_KEPT
                && reading.expected(sent).is_some_and(|at| at.0.abs_diff(now.0) <= AGREEING)
        });
        if is_newer && !agrees {
            *reading = Some(Reading { now, sent });
        }
    }

    /// Forgets the reading, because another partition has replaced this one.
    pub(super) fn forget(&self) {
        *self.reading() = None;
    }

    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_expected_from_the_sending_of_a_call_that_was_answered_soon() {
        let known = KnownClock::default();
        let expected = |at| known.last().and_then(|reading| reading.expected(at));
        let first = Instant::now() + Duration::from_secs(1);
        let ms = Duration::from_millis;
        assert_eq!(expected(first), None);
        known.record(StoreTime(5_000), first, first + ms(400));
        let later = first + ms(7_000);
        assert_eq!(expected(later), Some(StoreTime(12_000)));

        known.record(StoreTime(90_000), first + ms(400), first + ms(901));
        assert_eq!(expected(later), Some(StoreTime(12_000)), "it was read at an unknown time");
        known.record(StoreTime(90_000), first - ms(1), first);
        assert_eq!(expected(later), Some(StoreTime(12_000)), "it was read before");
        assert_eq!(expected(first + ms(600_000)), None, "the clocks have drifted");
        known.record(StoreTime(7_000), first + ms(2_000), first + ms(2_500));
        assert_eq!(expected(later), Some(StoreTime(12_000)));
        known.forget();
        assert_eq!(expected(later), None);
    }
}
