//! The end of a continuous command: Ctrl-C, or a time limit. A server that restarts does not end it.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use inventory_sentinel::reason::Advice;
use inventory_sentinel_client::Code;

use crate::{failure::Failure, output::note, refusal::Refusal, session::Session};

/// Pause before a broken stream is opened again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// When a command ends.
pub(crate) struct Stop {
    interrupt: Signal,
    at: Option<Instant>,
}

impl Stop {
    /// At Ctrl-C, or after this time.
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

/// The interruptions of a stream, which the command survives.
#[derive(Default)]
pub(crate) struct Breaks {
    had_response: bool,
    is_noted: bool,
}

impl Breaks {
    /// Records a response.
    pub(crate) fn end(&mut self) {
        *self = Breaks { had_response: true, is_noted: false };
    }

    /// Waits before the stream is opened again; false if the command ends instead. It fails if the stream never had a
    /// response, or if the error is final.
    pub(crate) async fn survive(
        &mut self,
        session: &Session,
        error: &impl Refusal,
        stop: &mut Stop,
    ) -> Result<bool, Failure> {
        let is_transient = error.rpc_error().is_some_and(|rpc| {
            let is_unavailable = matches!(rpc.code(), Code::Unavailable | Code::DeadlineExceeded);
            is_unavailable && rpc.reason().is_none_or(|reason| reason.advice() == Advice::Retry)
        });
        let failure = session.unread(error);
        if !self.had_response || !is_transient {
            return Err(failure);
        }
        if !std::mem::replace(&mut self.is_noted, true) {
            note(&format!("the stream broke, and is opened again as soon as a server answers: {failure}"));
        }
        tokio::select! {
            () = stop.wait() => Ok(false),
            () = tokio::time::sleep(RETRY_DELAY) => Ok(true),
        }
    }
}
