//! The partition's clock and next deadline, as of the last reply. Reads the monotonic clock of this
//! process; otherwise pure.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{Clock, StoreTime, TimeOfDay},
    store::wire::Reply,
};

/// The smallest change of the offset that is reported as a step of the store's clock, in milliseconds.
const REPORTED_STEP: u64 = 1_000;

/// The clock of the last reply.
#[derive(Debug)]
pub(super) struct PartitionClock {
    last: Mutex<ClockSample>,
}

/// The clock in one reply.
#[derive(Clone, Copy, Debug)]
struct ClockSample {
    now: StoreTime,
    received_at: Instant,
    clock: Clock,
    next_due: Option<StoreTime>,
}

impl PartitionClock {
    /// The clock of a partition that was just opened. A sweep is due at once, which compares this
    /// server's knowledge with the partition.
    pub(super) fn opened(now: StoreTime, clock: Clock) -> Self {
        let sample = ClockSample { now, received_at: Instant::now(), clock, next_due: Some(now) };
        Self { last: Mutex::new(sample) }
    }

    /// The partition's time of day at this instant.
    pub(super) fn time_of_day(&self, at: Instant) -> TimeOfDay {
        let sample = *self.last();
        let earliest = sample.clock.time_of_day(sample.now_at(at));
        TimeOfDay { earliest, latest: StoreTime(earliest.0 + sample.clock.doubt) }
    }

    /// The clock relative to that of the store.
    pub(super) fn relative(&self) -> Clock {
        self.last().clock
    }

    /// Whether a hold is due, or the last reply is older than this.
    pub(super) fn needs_sweep(&self, stale_after: Duration) -> bool {
        let (sample, now) = (*self.last(), Instant::now());
        now.saturating_duration_since(sample.received_at) >= stale_after
            || sample.next_due.is_some_and(|due| due <= sample.now_at(now))
    }

    /// Records a reply. Returns the step of the store's clock since the last reply, in milliseconds, if there was one.
    pub(super) fn observe(&self, reply: &Reply, received_at: Instant) -> Option<i64> {
        let mut last = self.last();
        let is_certain = reply.clock.doubt == 0 && last.clock.doubt == 0;
        // The offset compensates a step, so it changes by as much in the other direction.
        let step = last.clock.offset - reply.clock.offset;
        *last = ClockSample { now: reply.now, received_at, clock: reply.clock, next_due: reply.next_due };
        (is_certain && step.unsigned_abs() >= REPORTED_STEP).then_some(step)
    }

    fn last(&self) -> MutexGuard<'_, ClockSample> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClockSample {
    /// The partition's clock at this instant, extrapolated with the clock of this process.
    fn now_at(&self, at: Instant) -> StoreTime {
        StoreTime(self.now.0 + at.saturating_duration_since(self.received_at).as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Term;

    fn reply(now: u64, clock: Clock) -> Reply {
        Reply {
            now: StoreTime(now),
            clock,
            expired: 0,
            next_due: None,
            config_revision: 1,
            sequence: 0,
            term: Term::NONE,
            fence: None,
            verdicts: Vec::new(),
            results: Vec::new(),
        }
    }

    #[test]
    fn a_step_is_reported_once_and_the_time_of_day_has_its_correction() {
        let clock = PartitionClock::opened(StoreTime(1_000), Clock::default());
        let at = Instant::now();
        let stepped = Clock { offset: -20_000, correction: 5_000, doubt: 0 };
        assert_eq!(clock.observe(&reply(2_000, stepped), at), Some(20_000));
        assert_eq!(clock.observe(&reply(2_001, stepped), at), None);
        let TimeOfDay { earliest, latest } = clock.time_of_day(at + Duration::from_millis(9));
        assert_eq!((earliest, latest), (StoreTime(7_010), StoreTime(7_010)));
        assert_eq!(clock.relative().day_offset(), -15_000);
        clock.observe(&reply(2_002, Clock { doubt: 60_000, ..stepped }), at);
        let TimeOfDay { earliest, latest } = clock.time_of_day(at);
        assert_eq!((earliest, latest), (StoreTime(7_002), StoreTime(67_002)));
    }
}
