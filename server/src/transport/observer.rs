//! Calls that only watch: streams that change nothing and last as long as the caller keeps them. They
//! end when the server drains, and do not delay its stop. Touches only the call counters of a
//! connection.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use inventory_sentinel::Reason;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::peer::Peer;
use crate::failure;

/// One such call, until it is dropped.
#[derive(Debug)]
pub(super) struct Observer {
    peer: Arc<Peer>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Observer {
    pub(super) fn new(peer: &Arc<Peer>, draining: &CancellationToken) -> Self {
        peer.begin_watch();
        Self { peer: Arc::clone(peer), draining: Box::pin(draining.clone().cancelled_owned()) }
    }

    /// Ready once the server drains: how the call ends.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        self.draining.as_mut().poll(cx).map(|()| failure::refusal(Reason::Draining))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.peer.end_watch();
    }
}
