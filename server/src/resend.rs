//! The resend policy for a change whose reply was lost: the pauses, their limit, and the errors that end it. Uses the
//! errors of the store. Independent of the change.

use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

use crate::{random::Random, store::error::StoreError};

/// The first pause before a resend.
const BACKOFF: Duration = Duration::from_millis(10);
/// The longest such pause.
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// The attempts of one change, a single command or a batch. The first begins when this is created. The change has an
/// id, so it takes effect only once, however often it is sent.
#[derive(Debug)]
pub(crate) struct Resends {
    random: Random,
    /// No resend begins after this instant.
    give_up: Instant,
    /// The store may have forgotten the id after this instant.
    forgotten: Instant,
    backoff: Duration,
    /// The last error of an attempt that may have been applied: after it, the effect is unknown until a reply arrives.
    doubt: Option<StoreError>,
}

impl Resends {
    /// Resends for this long, and for half of the retention at most. Later the store may have forgotten the id, and
    /// would apply the change a second time.
    pub(crate) fn new(now: Instant, resend_for: Duration, retention: Duration, random: &Random) -> Self {
        let forgotten = now + retention / 2;
        let give_up = forgotten.min(now + resend_for);
        Self { random: random.clone(), give_up, forgotten, backoff: BACKOFF, doubt: None }
    }

    /// The same, but no resend begins after this instant.
    pub(crate) fn until(self, deadline: Instant) -> Self {
        Self { give_up: self.give_up.min(deadline), ..self }
    }

    /// Whether an attempt may have been applied without a reply.
    pub(crate) fn has_lost_reply(&self) -> bool {
        self.doubt.is_some()
    }

    /// Awaits one attempt. A resend is cancelled when the store may have forgotten the id: it may still wait for a
    /// connection, and could then take effect a second time.
    pub(crate) async fn attempt<T>(
        &self,
        attempt: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.doubt.is_none() {
            return attempt.await;
        }
        let late = |_| Err(StoreError::unknown("no reply arrived while the store remembered the request"));
        tokio::time::timeout_at(self.forgotten, attempt).await.unwrap_or_else(late)
    }

    /// Waits until the next attempt after one has failed. There is a next attempt only if the effect is unknown.
    ///
    /// # Errors
    /// If there is no next attempt: [`StoreError::Unknown`] if an attempt may have been applied,
    /// otherwise the error of the only attempt.
    pub(crate) async fn pause_after(&mut self, error: StoreError) -> Result<(), StoreError> {
        let doubt = match (error, self.doubt.take()) {
            (error @ StoreError::Unknown { .. }, _) => error,
            (error, None) => return Err(error),
            // The effect of the earlier attempt stays unknown.
            (error, Some(doubt)) if is_final(&error) => return Err(doubt),
            // This attempt was not applied. An earlier one may have been, and the next one can show it.
            (_, Some(doubt)) => doubt,
        };
        let Some(pause) = self.pause(Instant::now()) else { return Err(doubt) };
        self.doubt = Some(doubt);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The wait before the next attempt; `None` if there is none.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        if now + self.backoff >= self.give_up {
            return None;
        }
        let pause = self.backoff.mul_f64({ &self.random }.random_range(0.5..1.0));
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        Some(pause)
    }
}

/// Whether the next attempt would end with the same error.
fn is_final(error: &StoreError) -> bool {
    match error {
        StoreError::Closed
        | StoreError::Corrupt { .. }
        | StoreError::Newer { .. }
        | StoreError::Denied { .. }
        | StoreError::Foreign { .. } => true,
        StoreError::NotApplied { .. }
        | StoreError::Unknown { .. }
        | StoreError::Full
        | StoreError::Busy
        | StoreError::NoScript => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time until the last attempt, if every attempt fails at once.
    fn last_after(resends: impl Fn(Instant) -> Resends) -> Duration {
        let start = Instant::now();
        let (mut resends, mut now) = (resends(start), start);
        let mut longest = Duration::ZERO;
        while let Some(pause) = resends.pause(now) {
            assert!(pause <= MAX_BACKOFF && pause >= BACKOFF / 2);
            longest = longest.max(pause);
            now += pause;
            assert!(now < resends.forgotten);
        }
        assert!(longest > BACKOFF);
        now - start
    }

    #[test]
    fn a_change_is_sent_again_for_as_long_as_the_shortest_limit_allows() {
        let seconds = Duration::from_secs;
        let near = |limit: Duration, last: Duration| last < limit && last > limit - 2 * MAX_BACKOFF;
        assert!(near(seconds(5), last_after(|now| Resends::new(now, seconds(5), seconds(86_400), &Random::System))));
        // Half of the retention, even if the flag allows more.
        assert!(near(seconds(5), last_after(|now| Resends::new(now, seconds(300), seconds(10), &Random::System))));
        assert!(
            last_after(|now| Resends::new(now, seconds(300), seconds(1), &Random::System)) < Duration::from_millis(500)
        );
        assert!(near(
            seconds(2),
            last_after(|now| Resends::new(now, seconds(5), seconds(60), &Random::System).until(now + seconds(2)))
        ));
        let now = Instant::now();
        assert_eq!(Resends::new(now, Duration::ZERO, seconds(60), &Random::System).pause(now), None);
    }

    /// The final result of attempts with these results, and the number of attempts.
    async fn sent(results: impl IntoIterator<Item = Result<(), StoreError>>) -> (Result<(), StoreError>, usize) {
        let mut resends =
            Resends::new(Instant::now(), Duration::from_secs(5), Duration::from_secs(60), &Random::System);
        let mut attempts = 0;
        for result in results {
            attempts += 1;
            let Err(error) = resends.attempt(async { result }).await else { return (Ok(()), attempts) };
            if let Err(error) = resends.pause_after(error).await {
                return (Err(error), attempts);
            }
        }
        panic!("one attempt more than {attempts}");
    }

    #[tokio::test]
    async fn an_error_that_stays_ends_the_resends() {
        let unknown = || StoreError::unknown("lost");
        let ended = [
            StoreError::Closed,
            StoreError::corrupt("meta"),
            StoreError::Newer { why: "state".into() },
            StoreError::Denied { missing: "+hset".into(), why: "refused".into() },
            StoreError::Foreign { found: "a".into(), known: "b".into() },
        ];
        for error in ended {
            assert_eq!(sent([Err(unknown()), Err(error.clone()), Ok(())]).await, (Err(unknown()), 2), "{error}");
            assert_eq!(sent([Err(error.clone()), Ok(())]).await, (Err(error), 1));
        }
        for error in [StoreError::NoScript, StoreError::Full, StoreError::not_applied("loading"), unknown()] {
            assert_eq!(sent([Err(unknown()), Err(error.clone()), Ok(())]).await, (Ok(()), 3), "{error}");
        }
    }
}
