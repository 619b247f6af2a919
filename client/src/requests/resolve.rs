//! The requests that change a reservation: Commit, Rollback, Extend. Their parameters and their sending. Keeps no
//! state.

use std::time::Duration;

use inventory_sentinel::v1;

use super::impl_into_future;
use crate::{
    convert,
    operation_errors::{CommitError, ExtendError, RollbackError},
    scope::Scope,
    transport::{identities::new_request_id, stubs::checkout_client},
    types::{Applied, Extended, Line, Reservation},
};

/// A request to make a sale final. Made by [`Namespace::commit`](crate::Namespace::commit); await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is sold before it is awaited"]
pub struct Commit {
    scope: Scope,
    reservation_id: String,
    request_id: Option<String>,
    lines: Vec<Line>,
    late: v1::LatePolicy,
    rest: v1::RestPolicy,
}

impl Commit {
    pub(crate) fn new(scope: Scope, reservation_id: &str) -> Commit {
        Commit {
            scope,
            reservation_id: reservation_id.to_owned(),
            request_id: None,
            lines: Vec::new(),
            late: v1::LatePolicy::Unspecified,
            rest: v1::RestPolicy::Unspecified,
        }
    }

    /// Adds a line: only the units of the lines are meant. Without a line, all held units are.
    pub fn line(mut self, sku: impl Into<String>, quantity: i32) -> Self {
        self.lines.push(Line::new(sku, quantity));
        self
    }

    /// Units that no line names stay held until the deadline.
    pub fn keep_rest(mut self) -> Self {
        self.rest = v1::RestPolicy::Keep;
        self
    }

    /// Units that no line names are released. This is the default.
    pub fn release_rest(mut self) -> Self {
        self.rest = v1::RestPolicy::Release;
        self
    }

    /// After the deadline, buys the same lines again if the stock still covers them. This creates a new reservation
    /// with another `id`, whose [`origin`](Reservation::origin) is the expired one. The expired one names the new one
    /// as its [`purchase`](Reservation::purchase). Cannot be combined with lines.
    pub fn repurchase_if_late(mut self) -> Self {
        self.late = v1::LatePolicy::Repurchase;
        self
    }

    /// Sets the identity of this change, for callers that store it to repeat a commit of lines later. By default each
    /// call gets a new one. A commit without lines needs none.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Whether the caller set the identity.
    pub(crate) fn is_named(&self) -> bool {
        self.request_id.is_some()
    }

    /// The message, with a fixed identity if it needs one.
    pub(crate) fn message(self) -> v1::CommitRequest {
        self.into_parts().1
    }

    fn into_parts(self) -> (Scope, v1::CommitRequest) {
        let message = v1::CommitRequest {
            namespace_id: self.scope.namespace_id(),
            reservation_id: self.reservation_id,
            request_id: identity(self.request_id, &self.lines),
            late_policy: self.late.into(),
            lines: self.lines.into_iter().map(convert::line).collect(),
            rest_policy: self.rest.into(),
        };
        (self.scope, message)
    }

    async fn send(self) -> Result<Applied<Reservation>, CommitError> {
        let is_named = self.is_named();
        let (Scope { core, deadline, .. }, message) = self.into_parts();
        let claim = core.claim_for(&message, is_named)?;
        let send = |channel, request| async { checkout_client(channel).commit(request).await };
        Ok(claim.end(core.call_batched(deadline, message, send).await, |_| true)?)
    }
}

impl_into_future! { Commit -> Result<Applied<Reservation>, CommitError> }

/// A request to release units. Made by [`Namespace::rollback`](crate::Namespace::rollback); await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is released before it is awaited"]
pub struct Rollback {
    scope: Scope,
    reservation_id: String,
    request_id: Option<String>,
    lines: Vec<Line>,
}

impl Rollback {
    pub(crate) fn new(scope: Scope, reservation_id: &str) -> Rollback {
        Rollback { scope, reservation_id: reservation_id.to_owned(), request_id: None, lines: Vec::new() }
    }

    /// Adds a line: only the units of the lines are meant. Without a line, all held units are.
    pub fn line(mut self, sku: impl Into<String>, quantity: i32) -> Self {
        self.lines.push(Line::new(sku, quantity));
        self
    }

    /// Sets the identity of this change, for callers that store it to repeat a rollback of lines later. By default each
    /// call gets a new one. A rollback without lines needs none.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Whether the caller set the identity.
    pub(crate) fn is_named(&self) -> bool {
        self.request_id.is_some()
    }

    /// The message, with a fixed identity if it needs one.
    pub(crate) fn message(self) -> v1::RollbackRequest {
        self.into_parts().1
    }

    fn into_parts(self) -> (Scope, v1::RollbackRequest) {
        let message = v1::RollbackRequest {
            namespace_id: self.scope.namespace_id(),
            reservation_id: self.reservation_id,
            request_id: identity(self.request_id, &self.lines),
            lines: self.lines.into_iter().map(convert::line).collect(),
        };
        (self.scope, message)
    }

    async fn send(self) -> Result<Applied<Reservation>, RollbackError> {
        let is_named = self.is_named();
        let (Scope { core, deadline, .. }, message) = self.into_parts();
        let claim = core.claim_for(&message, is_named)?;
        let send = |channel, request| async { checkout_client(channel).rollback(request).await };
        Ok(claim.end(core.call_batched(deadline, message, send).await, |_| true)?)
    }
}

impl_into_future! { Rollback -> Result<Applied<Reservation>, RollbackError> }

/// A request to move a deadline later. Made by [`Namespace::extend`](crate::Namespace::extend); await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is extended before it is awaited"]
pub struct Extend {
    scope: Scope,
    reservation_id: String,
    request_id: Option<String>,
    ttl: Duration,
}

impl Extend {
    pub(crate) fn new(scope: Scope, reservation_id: &str, ttl: Duration) -> Extend {
        Extend { scope, reservation_id: reservation_id.to_owned(), request_id: None, ttl }
    }

    /// Sets the identity of this change, for callers that store it to repeat the call later. By default each call gets
    /// a new one.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    async fn send(self) -> Result<Applied<Extended>, ExtendError> {
        let is_named = self.request_id.is_some();
        let message = v1::ExtendRequest {
            namespace_id: self.scope.namespace_id(),
            reservation_id: self.reservation_id,
            ttl: Some(convert::duration(self.ttl)),
            request_id: self.request_id.unwrap_or_else(new_request_id),
        };
        let send = |channel, request| async { checkout_client(channel).extend(request).await };
        Ok(self.scope.change(message, is_named, send).await?)
    }
}

impl_into_future! { Extend -> Result<Applied<Extended>, ExtendError> }

/// A change of lines needs an identity. A change of the whole reservation is idempotent without one.
fn identity(named: Option<String>, lines: &[Line]) -> String {
    match named {
        Some(request_id) => request_id,
        None if lines.is_empty() => String::new(),
        None => new_request_id(),
    }
}
