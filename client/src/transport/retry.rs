//! Whether and when to retry a call: pure decisions over data and one shared counter. It never waits.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::Rng as _;

use crate::rpc_error::RpcError;

/// How a call that fails with `UNAVAILABLE` is retried. A retry is safe, since every attempt of a call has the same
/// identity. No other code is retried.
///
/// The pause before retry `n` is drawn evenly from zero to `initial_backoff * multiplier^(n-1)`, at most `max_backoff`.
/// A server's `RetryInfo` is added to it. A retry that does not fit into the call's deadline is not made: all attempts
/// of a call are sent within its deadline, and so within [`MAX_DEADLINE`](crate::MAX_DEADLINE).
///
/// The server remembers an identity for the retention of its namespace, which the client cannot read. Configure a
/// retention that is longer than the deadlines of the callers. An identity that the client generates is a UUIDv7: after
/// the retention the server refuses it as `REQUEST_TOO_OLD` and applies nothing twice. The outcome of the earlier
/// attempt is then unknown. An identity of another form has no such protection.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, including the first. 1 disables retries. Default 4.
    pub max_attempts: u32,
    /// The longest pause before the first retry. Default 20 ms.
    pub initial_backoff: Duration,
    /// The longest pause before any retry. Default 1 s.
    pub max_backoff: Duration,
    /// Growth of the longest pause from retry to retry. Default 2.
    pub multiplier: f64,
    /// Whether pauses are random; otherwise each is the longest. Default true.
    pub jitter: bool,
    /// The retries that all messages of a client share.
    pub budget: RetryBudget,
}

/// A shared allowance. It keeps retries from multiplying the load of an overloaded server: a message whose calls are
/// retried takes one token, and a message that gets a response returns a part of one. Without tokens nothing is
/// retried. A message is a single call, or the calls of one Batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Tokens at the start, and at most. Default 100.
    pub tokens: u32,
    /// Tokens returned per message with a response. Default 0.1: retries stay below a tenth of these messages.
    pub refund: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: 4,
            initial_backoff: Duration::from_millis(20),
            max_backoff: Duration::from_secs(1),
            multiplier: 2.0,
            jitter: true,
            budget: RetryBudget::default(),
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { tokens: 100, refund: 0.1 }
    }
}

impl RetryPolicy {
    /// A policy without retries.
    pub fn never() -> Self {
        RetryPolicy { max_attempts: 1, ..RetryPolicy::default() }
    }

    /// The pause before retry number `retry` (the first is 1), in addition to the server's `RetryInfo`.
    pub(crate) fn pause(&self, retry: u32, server_delay: Option<Duration>) -> Duration {
        let share = if self.jitter { rand::rng().random::<f64>() } else { 1.0 };
        let pause = self.longest_pause(retry).mul_f64(share);
        server_delay.unwrap_or_default().saturating_add(pause)
    }

    /// Between zero and `max_backoff` for any numbers, also senseless ones.
    fn longest_pause(&self, retry: u32) -> Duration {
        let growth = self.multiplier.powf(f64::from(retry.saturating_sub(1)));
        let seconds = self.initial_backoff.as_secs_f64() * growth;
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(self.max_backoff).min(self.max_backoff)
    }
}

/// The token that the calls of one message share. The first of them that is retried takes it from the budget.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetryToken(Arc<OnceLock<bool>>);

impl RetryToken {
    /// Whether the budget had a token for this message.
    pub(crate) fn charge(&self, budget: &TokenBucket) -> bool {
        *self.0.get_or_init(|| budget.take())
    }
}

/// The failure of one attempt, as one of the calls of its message gets it.
#[derive(Debug)]
pub(crate) struct AttemptError {
    pub(crate) error: RpcError,
    pub(crate) token: RetryToken,
}

impl From<RpcError> for AttemptError {
    /// The failure of a call that was sent alone.
    fn from(error: RpcError) -> Self {
        AttemptError { error, token: RetryToken::default() }
    }
}

/// The budget of one client, counted in thousandths of a token.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    left: AtomicU64,
    capacity: u64,
    refund: u64,
}

const THOUSANDTHS: u64 = 1000;

impl TokenBucket {
    pub(crate) fn new(budget: RetryBudget) -> TokenBucket {
        let capacity = u64::from(budget.tokens) * THOUSANDTHS;
        TokenBucket {
            left: AtomicU64::new(capacity),
            capacity,
            // The cast saturates: a senseless refund is none, or the whole bucket.
            refund: (budget.refund * THOUSANDTHS as f64) as u64,
        }
    }

    /// Takes a token, if there is one.
    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(THOUSANDTHS)).is_ok()
    }

    /// Returns the share of one message with a response. A full bucket, the usual case, is only read.
    pub(crate) fn refund(&self) {
        if self.left.load(Ordering::Relaxed) < self.capacity {
            let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_add(self.refund).min(self.capacity))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn pauses_grow_to_the_longest_and_stay_there() {
        let policy = RetryPolicy {
            initial_backoff: millis(10),
            max_backoff: millis(50),
            jitter: false,
            ..RetryPolicy::default()
        };
        let pauses: Vec<_> = (1..=5).map(|n| policy.pause(n, None)).collect();
        assert_eq!(pauses, [10, 20, 40, 50, 50].map(millis));
        assert_eq!(policy.pause(u32::MAX, None), millis(50));
    }

    #[test]
    fn jitter_spreads_over_the_whole_range_and_never_beyond() {
        let policy = RetryPolicy::default();
        let pauses: Vec<_> = (0..1000).map(|_| policy.pause(1, None)).collect();
        assert!(pauses.iter().all(|&pause| pause <= policy.initial_backoff));
        assert!(pauses.iter().any(|&pause| pause < policy.initial_backoff / 4));
        assert!(pauses.iter().any(|&pause| pause > policy.initial_backoff * 3 / 4));
    }

    #[test]
    fn what_the_server_asks_for_is_waited_first() {
        let policy = RetryPolicy { initial_backoff: millis(10), jitter: false, ..RetryPolicy::default() };
        assert_eq!(policy.pause(1, Some(millis(300))), millis(310));
        assert_eq!(policy.pause(1, Some(Duration::MAX)), Duration::MAX);
    }

    #[test]
    fn senseless_numbers_end_within_bounds() {
        for multiplier in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -3.0, 0.0, 1e308] {
            let policy = RetryPolicy { multiplier, ..RetryPolicy::default() };
            for retry in [1, 2, 3, 1000] {
                assert!(policy.pause(retry, None) <= policy.max_backoff, "{multiplier}");
            }
        }
    }

    #[test]
    fn calls_of_one_message_pay_once() {
        let bucket = TokenBucket::new(RetryBudget { tokens: 1, refund: 0.0 });
        let (first, second) = (RetryToken::default(), RetryToken::default());
        assert!(first.charge(&bucket) && first.clone().charge(&bucket));
        assert!(!second.charge(&bucket) && !second.clone().charge(&bucket));
    }

    #[test]
    fn the_budget_is_spent_and_earned_back() {
        let bucket = TokenBucket::new(RetryBudget { tokens: 2, refund: 0.5 });
        assert!(bucket.take() && bucket.take());
        assert!(!bucket.take(), "the budget is spent");
        bucket.refund();
        assert!(!bucket.take(), "half a token is none");
        bucket.refund();
        assert!(bucket.take(), "two successes earn one retry");
        for _ in 0..100 {
            bucket.refund();
        }
        assert!(bucket.take() && bucket.take());
        assert!(!bucket.take(), "it holds no more than its tokens");
    }
}
