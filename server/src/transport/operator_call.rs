//! A call of an operator between its admission and its service. Writes the audit record of a call that is refused
//! before its service does.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, uri::PathAndQuery};
use tokio::sync::OwnedSemaphorePermit;

use super::refusals;
use crate::access::{Caller, ConnectionAccess};

/// A call of an operator. Its clones share its place among the running calls of operators: a change keeps it until its
/// end, also if its caller disconnects. The transport adds it to the extensions of the request.
#[derive(Clone, Debug)]
pub(crate) struct OperatorCall(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Whether the service, or the guard, writes the audit record.
    is_recorded: AtomicBool,
    access: Arc<ConnectionAccess>,
    caller: Option<Caller>,
    path: Option<PathAndQuery>,
    /// Held, not read.
    _permit: Option<OwnedSemaphorePermit>,
}

impl OperatorCall {
    /// `permit`: its place among the running calls; a stream has none.
    pub(super) fn new(
        access: &Arc<ConnectionAccess>,
        caller: Option<Caller>,
        path: Option<PathAndQuery>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let access = Arc::clone(access);
        Self(Arc::new(Shared { is_recorded: AtomicBool::new(false), access, caller, path, _permit: permit }))
    }

    /// The address of the caller, if the system reports it.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.access.address()
    }

    /// The audit record of this call is written elsewhere.
    pub(crate) fn set_recorded(&self) {
        self.0.is_recorded.store(true, Ordering::Relaxed);
    }

    /// Records a refusal that is written nowhere else. `headers` are those of the response.
    pub(super) fn record_refusal(&self, headers: &HeaderMap) {
        if !self.0.is_recorded.load(Ordering::Relaxed)
            && let Some(reason) = refusals::reason_in(headers)
        {
            self.0.access.record_refusal(reason, self.0.caller.as_ref(), self.0.path.as_ref());
        }
    }
}
