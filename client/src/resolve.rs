//! The requests that change a reservation: commit, rollback, extend. What can be said about each, and
//! its sending. Keeps no state.

use std::time::Duration;

use inventory_sentinel::v1;

use crate::{
    call::{awaited, new_request_id},
    convert,
    namespace::{Namespace, checkout},
    operation_errors::{CommitError, ExtendError, RollbackError},
    types::{Extended, Line, Receipt, Reservation},
};

/// A request to make a sale final. Made by [`Namespace::commit`]; await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is sold before it is awaited"]
pub struct Commit {
    namespace: Namespace,
    reservation_id: String,
    request_id: Option<String>,
    lines: Vec<Line>,
    late: v1::LatePolicy,
    rest: v1::RestPolicy,
}

impl Commit {
    pub(crate) fn new(namespace: Namespace, reservation_id: &str) -> Commit {
        Commit {
            namespace,
            reservation_id: reservation_id.to_owned(),
            request_id: None,
            lines: Vec::new(),
            late: v1::LatePolicy::Unspecified,
            rest: v1::RestPolicy::Unspecified,
        }
    }

    /// Only these units, and those of other such lines. Without a line it is all that is held.
    pub fn line(mut self, sku: impl Into<String>, quantity: i32) -> Self {
        self.lines.push(Line::new(sku, quantity));
        self
    }

    /// The units that no line names stay held until the deadline.
    pub fn keep_rest(mut self) -> Self {
        self.rest = v1::RestPolicy::Keep;
        self
    }

    /// The units that no line names are given back, as they are where nothing is said.
    pub fn release_rest(mut self) -> Self {
        self.rest = v1::RestPolicy::Release;
        self
    }

    /// After the deadline, buys the same lines again if the stock still has them. That is a new
    /// reservation: its `id` is another, and its [`origin`](Reservation::origin) is the expired one, which
    /// names it as its [`purchase`](Reservation::purchase).
    /// Not together with lines.
    pub fn repurchase_if_late(mut self) -> Self {
        self.late = v1::LatePolicy::Repurchase;
        self
    }

    /// The identity of this change, where the caller keeps it to repeat a commit of lines later.
    /// Without it a new one is made for each call; a commit without lines needs none.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Whether the caller named the identity.
    pub(crate) fn is_named(&self) -> bool {
        self.request_id.is_some()
    }

    /// The message, with an identity that is its own from now on, if it needs one.
    pub(crate) fn message(self) -> v1::CommitRequest {
        self.parts().1
    }

    /// Where it is sent, and the message.
    fn parts(self) -> (Namespace, v1::CommitRequest) {
        let message = v1::CommitRequest {
            namespace_id: self.namespace.name.to_string(),
            reservation_id: self.reservation_id,
            request_id: identity(self.request_id, &self.lines),
            late_policy: self.late.into(),
            lines: self.lines.into_iter().map(convert::line).collect(),
            rest_policy: self.rest.into(),
        };
        (self.namespace, message)
    }

    async fn send(self) -> Result<Receipt<Reservation>, CommitError> {
        let is_named = self.is_named();
        let (Namespace { core, deadline, .. }, message) = self.parts();
        let claim = core.claim(core.identity(&message, is_named))?;
        let send = |channel, request| async { checkout(channel).commit(request).await };
        Ok(claim.end(core.call_gathered(deadline, message, send).await, |_| true)?)
    }
}

awaited! { Commit -> Result<Receipt<Reservation>, CommitError> }

/// A request to give units back. Made by [`Namespace::rollback`]; await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is given back before it is awaited"]
pub struct Rollback {
    namespace: Namespace,
    reservation_id: String,
    request_id: Option<String>,
    lines: Vec<Line>,
}

impl Rollback {
    pub(crate) fn new(namespace: Namespace, reservation_id: &str) -> Rollback {
        Rollback { namespace, reservation_id: reservation_id.to_owned(), request_id: None, lines: Vec::new() }
    }

    /// Only these units, and those of other such lines. Without a line it is all that is held.
    pub fn line(mut self, sku: impl Into<String>, quantity: i32) -> Self {
        self.lines.push(Line::new(sku, quantity));
        self
    }

    /// The identity of this change, where the caller keeps it to repeat a rollback of lines later.
    /// Without it a new one is made for each call; a rollback without lines needs none.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Whether the caller named the identity.
    pub(crate) fn is_named(&self) -> bool {
        self.request_id.is_some()
    }

    /// The message, with an identity that is its own from now on, if it needs one.
    pub(crate) fn message(self) -> v1::RollbackRequest {
        self.parts().1
    }

    /// Where it is sent, and the message.
    fn parts(self) -> (Namespace, v1::RollbackRequest) {
        let message = v1::RollbackRequest {
            namespace_id: self.namespace.name.to_string(),
            reservation_id: self.reservation_id,
            request_id: identity(self.request_id, &self.lines),
            lines: self.lines.into_iter().map(convert::line).collect(),
        };
        (self.namespace, message)
    }

    async fn send(self) -> Result<Receipt<Reservation>, RollbackError> {
        let is_named = self.is_named();
        let (Namespace { core, deadline, .. }, message) = self.parts();
        let claim = core.claim(core.identity(&message, is_named))?;
        let send = |channel, request| async { checkout(channel).rollback(request).await };
        Ok(claim.end(core.call_gathered(deadline, message, send).await, |_| true)?)
    }
}

awaited! { Rollback -> Result<Receipt<Reservation>, RollbackError> }

/// A request to move a deadline away. Made by [`Namespace::extend`]; await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is extended before it is awaited"]
pub struct Extend {
    namespace: Namespace,
    reservation_id: String,
    request_id: Option<String>,
    ttl: Duration,
}

impl Extend {
    pub(crate) fn new(namespace: Namespace, reservation_id: &str, ttl: Duration) -> Extend {
        Extend { namespace, reservation_id: reservation_id.to_owned(), request_id: None, ttl }
    }

    /// The identity of this change, where the caller keeps it to repeat the call later. Without it a
    /// new one is made for each call.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    async fn send(self) -> Result<Receipt<Extended>, ExtendError> {
        let Namespace { core, name, deadline } = self.namespace;
        let is_named = self.request_id.is_some();
        let message = v1::ExtendRequest {
            namespace_id: name.to_string(),
            reservation_id: self.reservation_id,
            ttl: Some(convert::duration(self.ttl)),
            request_id: self.request_id.unwrap_or_else(new_request_id),
        };
        let claim = core.claim(core.identity(&message, is_named))?;
        let send = |channel, request| async { checkout(channel).extend(request).await };
        Ok(claim.end(core.call(deadline, message, send).await, |_| true)?)
    }
}

awaited! { Extend -> Result<Receipt<Extended>, ExtendError> }

/// A change of lines needs an identity; a change of the whole repeats harmlessly without one.
fn identity(named: Option<String>, lines: &[Line]) -> String {
    match named {
        Some(request_id) => request_id,
        None if lines.is_empty() => String::new(),
        None => new_request_id(),
    }
}
