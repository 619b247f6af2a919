//! Calls that only watch: streams that change nothing and last as long as the caller keeps them. They
//! end when the server drains, and do not delay its stop. Touches only the call counters of a
//! connection.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use inventory_sentinel::Reason;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::peer::Peer;
use crate::{
    access::Caller,
    failure::{self, Failure},
};

/// One such call, until it is dropped.
pub(super) struct Observer {
    peer: Arc<Peer>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ready when the caller has no identity any more.
    refused: Option<Pin<Box<dyn Future<Output = Failure> + Send>>>,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl Observer {
    /// `revocable`: the caller, if no service judges it again.
    pub(super) fn new(peer: &Arc<Peer>, draining: &CancellationToken, revocable: Option<Caller>) -> Self {
        peer.begin_watch();
        let refused = revocable.map(|caller| {
            let refused: Pin<Box<dyn Future<Output = Failure> + Send>> =
                Box::pin(async move { caller.until_refused(None).await });
            refused
        });
        Self { peer: Arc::clone(peer), draining: Box::pin(draining.clone().cancelled_owned()), refused }
    }

    /// Ready once the server drains, or the caller has no identity any more: how the call ends.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(Poll::Ready(failure)) = self.refused.as_mut().map(|refused| refused.as_mut().poll(cx)) {
            // It is not polled again.
            self.refused = None;
            return Poll::Ready(failure.into());
        }
        self.draining.as_mut().poll(cx).map(|()| failure::refusal(Reason::Draining))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.peer.end_watch();
    }
}
