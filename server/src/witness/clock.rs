//! What this server knows of the clock of one partition, by its own monotonic clock. No I/O.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::Millis;

/// The longest round trip of a call that says precisely enough when the partition's clock was read. Half of the difference
/// that the script takes for a step (lua/clock.lua).
const LONGEST_READING: Duration = Duration::from_millis(500);
/// How long an instant is expected from one reading: after that the two clocks may have drifted apart.
const READING_STANDS: Duration = Duration::from_secs(10 * 60);

/// The last reading of the clock.
#[derive(Debug, Default)]
pub(super) struct KnownClock(Mutex<Option<Reading>>);

/// What the clock showed, and when the call was sent that read it.
#[derive(Clone, Copy, Debug)]
struct Reading {
    now: Millis,
    sent: Instant,
}

impl KnownClock {
    /// What the clock must show at this time; `None` if that is not known.
    pub(super) fn expected(&self, at: Instant) -> Option<Millis> {
        let Reading { now, sent } = (*self.reading())?;
        let since = at.saturating_duration_since(sent);
        (since < READING_STANDS).then(|| Millis(now.0 + since.as_millis() as u64))
    }

    /// Notes what a reply said. One that took long says too little: the clock was read at an unknown time between.
    pub(super) fn note(&self, now: Millis, sent: Instant, answered: Instant) {
        if answered.saturating_duration_since(sent) > LONGEST_READING {
            return;
        }
        let mut reading = self.reading();
        // A call that was sent later may be answered before.
        if reading.is_none_or(|reading| reading.sent < sent) {
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
        let clock = KnownClock::default();
        let first = Instant::now() + Duration::from_secs(1);
        let ms = Duration::from_millis;
        assert_eq!(clock.expected(first), None);
        clock.note(Millis(5_000), first, first + ms(400));
        let later = first + ms(7_000);
        assert_eq!(clock.expected(later), Some(Millis(12_000)));

        clock.note(Millis(90_000), first + ms(400), first + ms(901));
        assert_eq!(clock.expected(later), Some(Millis(12_000)), "it was read at an unknown time");
        clock.note(Millis(90_000), first - ms(1), first);
        assert_eq!(clock.expected(later), Some(Millis(12_000)), "it was read before");
        assert_eq!(clock.expected(first + READING_STANDS), None, "the clocks have drifted");
        clock.note(Millis(7_000), first + ms(2_000), first + ms(2_500));
        assert_eq!(clock.expected(later), Some(Millis(12_000)));
        clock.forget();
        assert_eq!(clock.expected(later), None);
    }
}
