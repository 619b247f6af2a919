//! The clock of a partition and its next deadline, as the last reply said. Pure but for our own clock.

use std::{
    sync::{Mutex, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::Instant;

use crate::{domain::Millis, store::wire::Reply};

/// A step of the store's clock against ours that is reported.
const REPORTED_JUMP: Duration = Duration::from_secs(1);

/// What is known of the partition from its last reply.
#[derive(Debug)]
pub(super) struct View {
    pub(super) last: Mutex<Seen>,
    pub(super) closed: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: Millis,
    pub(super) at: Instant,
    pub(super) next_due: Option<Millis>,
}

impl View {
    pub(super) fn seen(&self) -> Seen {
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes a reply that was asked for at `asked`; returns the jump of the store's clock, if large.
    pub(super) fn note(&self, reply: &Reply, asked: Instant) -> Option<i64> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = Instant::now();
        // The clock was read at some time between the question and the answer.
        let earliest = last.now.0 + asked.saturating_duration_since(last.at).as_millis() as u64;
        let latest = last.now.0 + at.saturating_duration_since(last.at).as_millis() as u64;
        let tolerance = REPORTED_JUMP.as_millis() as u64;
        let jump = if reply.now.0 > latest + tolerance {
            Some((reply.now.0 - latest) as i64)
        } else if reply.now.0 + tolerance < earliest {
            Some(-((earliest - reply.now.0) as i64))
        } else {
            None
        };
        *last = Seen { now: reply.now, at, next_due: reply.next_due };
        jump
    }
}
