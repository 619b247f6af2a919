//! How long a change whose reply was lost is sent again, and with which pauses. Pure, no I/O.

use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

/// The first pause before a change whose reply was lost is sent again.
const BACKOFF: Duration = Duration::from_millis(10);
/// The longest such pause.
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// The resends of one change, which was sent first when this was made.
#[derive(Debug)]
pub(crate) struct Resends {
    give_up: Instant,
    forgotten: Instant,
    backoff: Duration,
}

impl Resends {
    /// For so long, and for half of the retention at most: later the store may have forgotten the identity, and
    /// would apply the change a second time.
    pub(crate) fn new(now: Instant, resend_for: Duration, retention: Duration) -> Self {
        let forgotten = now + retention / 2;
        Self { give_up: forgotten.min(now + resend_for), forgotten, backoff: BACKOFF }
    }

    /// And not after this instant.
    pub(crate) fn until(self, deadline: Instant) -> Self {
        Self { give_up: self.give_up.min(deadline), ..self }
    }

    /// When an attempt must be given up that sends the change again: it may wait for a connection before it does.
    pub(crate) fn forgotten(&self) -> Instant {
        self.forgotten
    }

    /// How long to wait before the next attempt; `None`: there is none.
    pub(crate) fn pause(&mut self, now: Instant) -> Option<Duration> {
        if now + self.backoff >= self.give_up {
            return None;
        }
        let pause = self.backoff.mul_f64(rand::rng().random_range(0.5..1.0));
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a change is sent again, if every attempt fails at once.
    fn last_after(resends: impl Fn(Instant) -> Resends) -> Duration {
        let start = Instant::now();
        let (mut resends, mut now) = (resends(start), start);
        let mut longest = Duration::ZERO;
        while let Some(pause) = resends.pause(now) {
            assert!(pause <= MAX_BACKOFF && pause >= BACKOFF / 2);
            longest = longest.max(pause);
            now += pause;
            assert!(now < resends.forgotten());
        }
        assert!(longest > BACKOFF);
        now - start
    }

    #[test]
    fn a_change_is_sent_again_for_as_long_as_the_shortest_limit_allows() {
        let seconds = Duration::from_secs;
        let near = |limit: Duration, last: Duration| last < limit && last > limit - 2 * MAX_BACKOFF;
        assert!(near(seconds(5), last_after(|now| Resends::new(now, seconds(5), seconds(86_400)))));
        // Half of the retention, whatever the flag says.
        assert!(near(seconds(5), last_after(|now| Resends::new(now, seconds(300), seconds(10)))));
        assert!(last_after(|now| Resends::new(now, seconds(300), seconds(1))) < Duration::from_millis(500));
        assert!(near(seconds(2), last_after(|now| Resends::new(now, seconds(5), seconds(60)).until(now + seconds(2)))));
        let now = Instant::now();
        assert_eq!(Resends::new(now, Duration::ZERO, seconds(60)).pause(now), None);
    }
}
