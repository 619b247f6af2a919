//! The caller of one operation: its deadline, its span, and the channel for its answer. No I/O.

use tokio::{sync::oneshot, time::Instant};
use tracing::Span;

use super::{Answer, LaneError};

/// Responds to the caller of one operation, at most once.
#[derive(Debug)]
pub(super) struct Responder {
    /// `None` after the response.
    channel: Option<oneshot::Sender<Result<Answer, LaneError>>>,
    pub(super) deadline: Instant,
    is_read: bool,
    pub(super) span: Span,
}

impl Responder {
    /// For a call in the current span.
    pub(super) fn new(deadline: Instant, is_read: bool) -> (Self, oneshot::Receiver<Result<Answer, LaneError>>) {
        let (channel, answer) = oneshot::channel();
        (Self { channel: Some(channel), deadline, is_read, span: Span::current() }, answer)
    }

    /// Whether the operation only reads. A read whose outcome is unknown has changed nothing.
    pub(super) fn is_read(&self) -> bool {
        self.is_read
    }

    /// Whether the caller has no response yet and is still connected.
    pub(super) fn is_waiting(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| !channel.is_closed())
    }

    /// Whether the operation should still be sent.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        self.is_waiting() && self.deadline > now
    }

    /// Responds. A caller that has disconnected gets nothing.
    pub(super) fn respond(&mut self, result: Result<Answer, LaneError>) {
        if let Some(channel) = self.channel.take() {
            let _ = channel.send(result);
        }
    }

    /// Responds if the deadline passed while the operation is in flight.
    pub(super) fn expire_in_flight(&mut self, now: Instant) {
        if self.deadline > now || self.channel.is_none() {
            return;
        }
        self.respond(Err(if self.is_read {
            LaneError::DeadlinePassed
        } else {
            LaneError::OutcomeUnknown { why: "the deadline passed before the store answered".into() }
        }));
    }
}
