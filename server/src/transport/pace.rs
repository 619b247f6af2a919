//! The work per second that untrusted connections can cause. Further work waits in the order of its
//! arrival. Pure but for the clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus::IntCounter;
use tokio::time::Instant;

/// A shared rate limit. Lock-free.
#[derive(Debug)]
pub(crate) struct Pace {
    start: Instant,
    /// Microseconds since the start at which all accepted work is done.
    busy_until: AtomicU64,
    /// Units of work per second.
    rate: u64,
    /// Work that may be accepted at once after an idle time, in microseconds of the rate.
    burst: u64,
    /// The number of waits.
    pauses: IntCounter,
}

impl Pace {
    pub(crate) fn new(rate: u64, burst: Duration, pauses: IntCounter) -> Self {
        Self { start: Instant::now(), busy_until: AtomicU64::new(0), rate, burst: burst.as_micros() as u64, pauses }
    }

    /// Accepts this much work. Returns its start, if that is in the future.
    pub(crate) fn take(&self, units: u64) -> Option<Instant> {
        self.take_at(units, self.start.elapsed().as_micros() as u64)
    }

    fn take_at(&self, units: u64, now: u64) -> Option<Instant> {
        let length = units * 1_000_000 / self.rate;
        let begin = |busy_until: u64| busy_until.max(now.saturating_sub(self.burst));
        let busy_until = self
            .busy_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |busy_until| Some(begin(busy_until) + length))
            .unwrap_or_else(|busy_until| busy_until);
        let end = begin(busy_until) + length;
        if end <= now {
            return None;
        }
        self.pauses.inc();
        Some(self.start + Duration::from_micros(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_what_is_more_waits_its_turn() {
        // 1 ms for each unit, 10 of them at once.
        let pace = Pace::new(1_000, Duration::from_millis(10), IntCounter::new("name", "help").unwrap());
        let now = 1_000_000;
        let wait = |units, now| pace.take_at(units, now).map(|at| (at - pace.start).as_micros() as u64 - now);
        assert_eq!(wait(10, now), None);
        assert_eq!(wait(1, now), Some(1_000));
        assert_eq!(wait(5, now), Some(6_000));
        assert_eq!(wait(1, now + 6_000), Some(1_000));
        assert_eq!(wait(1, now + 20_000), None);
        assert_eq!(pace.pauses.get(), 3);
    }
}
