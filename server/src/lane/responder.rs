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
    /// Whether a copy of the operation may take effect without a reply: it is in flight, or its reply was lost.
    may_take_effect: bool,
    pub(super) span: Span,
}

impl Responder {
    /// For a call in the current span.
    pub(super) fn new(deadline: Instant, is_read: bool) -> (Self, oneshot::Receiver<Result<Answer, LaneError>>) {
        let (channel, answer) = oneshot::channel();
        let (channel, span) = (Some(channel), Span::current());
        (Self { channel, deadline, is_read, may_take_effect: false, span }, answer)
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

    /// Records that a reply to the operation was lost. A copy of it may still reach the store.
    pub(super) fn record_lost_reply(&mut self) {
        self.may_take_effect = true;
    }

    /// Responds that the deadline passed before the operation was sent, or before its outcome was known.
    pub(super) fn expire(&mut self) {
        self.respond(Err(if self.is_read || !self.may_take_effect {
            LaneError::DeadlinePassed
        } else {
            LaneError::OutcomeUnknown { why: "the deadline passed before the store answered".into() }
        }));
    }

    /// Responds if the deadline passed while the operation is in flight.
    pub(super) fn expire_in_flight(&mut self, now: Instant) {
        if self.deadline <= now && self.channel.is_some() {
            self.may_take_effect = true;
            self.expire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(is_read: bool, prepare: impl Fn(&mut Responder)) -> LaneError {
        let (mut responder, mut answer) = Responder::new(Instant::now(), is_read);
        prepare(&mut responder);
        responder.expire();
        answer.try_recv().expect("a response").expect_err("no answer of the store")
    }

    #[test]
    fn an_operation_whose_reply_was_lost_does_not_expire_as_if_it_was_never_sent() {
        assert_eq!(expired(false, |_| ()), LaneError::DeadlinePassed);
        assert_eq!(expired(true, Responder::record_lost_reply), LaneError::DeadlinePassed);
        assert!(matches!(expired(false, Responder::record_lost_reply), LaneError::OutcomeUnknown { .. }));
        let in_flight = |responder: &mut Responder| responder.expire_in_flight(Instant::now());
        assert!(matches!(expired(false, in_flight), LaneError::OutcomeUnknown { .. }));
    }
}
