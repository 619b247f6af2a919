//! What a lane knows of its partition from the last replies: the clock and the next deadline. Pure but for our own monotonic clock.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{Clock, Millis, TimeOfDay},
    store::wire::Reply,
};

/// A change of the offset that is reported as a step of the store's clock.
const REPORTED_STEP: u64 = 1_000;

#[derive(Debug)]
pub(super) struct View {
    last: Mutex<Seen>,
    pub(super) closed: AtomicBool,
    /// A worker of the lane has ended before its queue did.
    dead: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    now: Millis,
    /// When that was answered.
    at: Instant,
    clock: Clock,
    next_due: Option<Millis>,
}

impl View {
    /// Of a partition that was just opened. It is due at once, so that the sweeper compares at once what is
    /// known of the partition with what is there.
    pub(super) fn opened(now: Millis, clock: Clock) -> Self {
        let seen = Seen { now, at: Instant::now(), clock, next_due: Some(now) };
        Self { last: Mutex::new(seen), closed: AtomicBool::new(false), dead: AtomicBool::new(false) }
    }

    /// Closes the lane because a worker has ended.
    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// The time of day at this time.
    pub(super) fn time_of_day(&self, at: Instant) -> TimeOfDay {
        let seen = *self.seen();
        let earliest = seen.clock.time_of_day(seen.now_at(at));
        TimeOfDay { earliest, latest: Millis(earliest.0 + seen.clock.doubt) }
    }

    pub(super) fn clock(&self) -> Clock {
        self.seen().clock
    }

    /// Whether a hold is due as far as is known, or nothing was heard for so long.
    pub(super) fn wants_sweep(&self, unheard: Duration) -> bool {
        let (seen, now) = (*self.seen(), Instant::now());
        now.saturating_duration_since(seen.at) >= unheard || seen.next_due.is_some_and(|due| due <= seen.now_at(now))
    }

    /// Notes a reply; returns the step of the store's clock that it met, in milliseconds.
    pub(super) fn note(&self, reply: &Reply, answered: Instant) -> Option<i64> {
        let mut seen = self.seen();
        let is_certain = reply.clock.doubt == 0 && seen.clock.doubt == 0;
        let step = seen.clock.offset - reply.clock.offset;
        *seen = Seen { now: reply.now, at: answered, clock: reply.clock, next_due: reply.next_due };
        (is_certain && step.unsigned_abs() >= REPORTED_STEP).then_some(step)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// The partition's clock at this time, as far as it is known here.
    fn now_at(&self, at: Instant) -> Millis {
        Millis(self.now.0 + at.saturating_duration_since(self.at).as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Term;

    fn reply(now: u64, clock: Clock) -> Reply {
        Reply {
            now: Millis(now),
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
        let view = View::opened(Millis(1_000), Clock::default());
        let at = Instant::now();
        let stepped = Clock { offset: -20_000, correction: 5_000, doubt: 0 };
        assert_eq!(view.note(&reply(2_000, stepped), at), Some(20_000));
        assert_eq!(view.note(&reply(2_001, stepped), at), None);
        let TimeOfDay { earliest, latest } = view.time_of_day(at + Duration::from_millis(9));
        assert_eq!((earliest, latest), (Millis(7_010), Millis(7_010)));
        assert_eq!(view.clock().day_offset(), -15_000);
        view.note(&reply(2_002, Clock { doubt: 60_000, ..stepped }), at);
        let TimeOfDay { earliest, latest } = view.time_of_day(at);
        assert_eq!((earliest, latest), (Millis(7_002), Millis(67_002)));
    }
}
