//! The end of a command that has none by itself: Ctrl-C, or a time that was named.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::failure::Failure;

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
