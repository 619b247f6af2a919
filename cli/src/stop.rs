//! The end of a command that goes on until it is stopped: Ctrl-C, or a time that was named; and what does not end it,
//! as a server that restarts.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use inventory_sentinel::reason::Advice;
use inventory_sentinel_client::Code;

use crate::{failure::Failure, output::note, refusal::Refusal, session::Session};

/// Pause before a stream that broke is opened again.
const AGAIN: Duration = Duration::from_millis(500);

/// When a command is to end.
pub(crate) struct Stop {
    interrupt: Signal,
    at: Option<Instant>,
}

impl Stop {
    /// Ctrl-C, or the end of this time.
    pub(crate) fn new(length: Option<Duration>) -> Result<Stop, Failure> {
        let interrupt = signal(SignalKind::interrupt())
            .map_err(|error| Failure::Failed(format!("can't listen for Ctrl-C: {error}")))?;
        let at = length.and_then(|length| Instant::now().checked_add(length));
        Ok(Stop { interrupt, at })
    }

    /// Waits for it.
    pub(crate) async fn wait(&mut self) {
        match self.at {
            None => drop(self.interrupt.recv().await),
            Some(at) => tokio::select! {
                _ = self.interrupt.recv() => {}
                () = sleep_until(at) => {}
            },
        }
    }
}

/// The breaks of a stream: servers come and go, and the command goes on.
#[derive(Default)]
pub(crate) struct Breaks {
    was_heard: bool,
    is_noted: bool,
}

impl Breaks {
    /// Something was heard.
    pub(crate) fn end(&mut self) {
        *self = Breaks { was_heard: true, is_noted: false };
    }

    /// Waits until the stream should be opened again; false if the command is to end instead. A stream that never
    /// began, and one that was refused for good, is a failure.
    pub(crate) async fn survive(
        &mut self,
        session: &Session,
        error: &impl Refusal,
        stop: &mut Stop,
    ) -> Result<bool, Failure> {
        let passes = error.said().is_some_and(|rpc| {
            let comes_and_goes = matches!(rpc.code(), Code::Unavailable | Code::DeadlineExceeded);
            comes_and_goes && rpc.reason().is_none_or(|reason| reason.advice() == Advice::Retry)
        });
        let failure = session.unread(error);
        if !self.was_heard || !passes {
            return Err(failure);
        }
        if !std::mem::replace(&mut self.is_noted, true) {
            note(&format!("the stream broke, and is opened again as soon as a server answers: {failure}"));
        }
        tokio::select! {
            () = stop.wait() => Ok(false),
            () = tokio::time::sleep(AGAIN) => Ok(true),
        }
    }
}
