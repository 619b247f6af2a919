//! What this server knows of the clock of one partition, by its own monotonic clock. No I/O.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::{Millis, Reading};

/// The longest round trip of a call that says precisely enough when the partition's clock was read. Half of the difference
/// that the script takes for a step (lua/clock.lua).
const LONGEST_READING: Duration = Duration::from_millis(500);

/// How long a reading is kept that later ones agree with.
const READING_KEPT: Duration = Duration::from_secs(60);
/// The difference up to which two readings agree, in milliseconds: what the script takes for no step.
const AGREEING: u64 = 1_000;

/// The last reading of the clock.
#[derive(Debug, Default)]
pub(super) struct KnownClock(Mutex<Option<Reading>>);

impl KnownClock {
    pub(super) fn last(&self) -> Option<Reading> {
        *self.reading()
    }

    /// Notes what a reply said. One that took long says too little: the clock was read at an unknown time between.
    pub(super) fn note(&self, now: Millis, sent: Instant, answered: Instant) {
        if answered.saturating_duration_since(sent) > LONGEST_READING {
            return;
        }
        let mut reading = self.reading();
        // A call that was sent later may be answered before.
        let is_newer = reading.is_none_or(|reading| reading.sent < sent);
        // One that agrees is kept for a while: small steps would add up if each were taken for the truth.
        let agrees = reading.is_some_and(|reading| {
            sent.saturating_duration_since(reading.sent) < READING_KEPT
                && reading.expected(sent).is_some_and(|at| at.0.abs_diff(now.0) <= AGREEING)
        });
        if is_newer && !agrees {
            *reading = Some(Reading { now, sent });
        }
    }

    /// Another partition has taken the place of this one.
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
        known.note(Millis(5_000), first, first + ms(400));
        let later = first + ms(7_000);
        assert_eq!(expected(later), Some(Millis(12_000)));

        known.note(Millis(90_000), first + ms(400), first + ms(901));
        assert_eq!(expected(later), Some(Millis(12_000)), "it was read at an unknown time");
        known.note(Millis(90_000), first - ms(1), first);
        assert_eq!(expected(later), Some(Millis(12_000)), "it was read before");
        assert_eq!(expected(first + ms(600_000)), None, "the clocks have drifted");
        known.note(Millis(7_000), first + ms(2_000), first + ms(2_500));
        assert_eq!(expected(later), Some(Millis(12_000)));
        known.forget();
        assert_eq!(expected(later), None);
    }
}
