//! The Reserve request: its parameters and its sending. Keeps no state.

use std::time::Duration;

use inventory_sentinel::v1;

use super::impl_into_future;
use crate::{
    convert::{self, Reserved},
    operation_errors::ReserveError,
    scope::Scope,
    transport::{identities::new_request_id, stubs::checkout_client},
    types::{Applied, Line, Reservation},
};

/// A request to hold units. Made by [`Namespace::reserve`](crate::Namespace::reserve) or
/// [`Namespace::reserve_cart`](crate::Namespace::reserve_cart); await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is reserved before it is awaited"]
pub struct Reserve {
    scope: Scope,
    lines: Vec<Line>,
    ttl: Option<Duration>,
    request_id: Option<String>,
    buyer: Option<String>,
    replaces: Option<String>,
}

impl Reserve {
    pub(crate) fn new(scope: Scope, lines: impl IntoIterator<Item = Line>) -> Reserve {
        Reserve { scope, lines: lines.into_iter().collect(), ttl: None, request_id: None, buyer: None, replaces: None }
    }

    /// Adds a line.
    pub fn line(mut self, sku: impl Into<String>, quantity: i32) -> Self {
        self.lines.push(Line::new(sku, quantity));
        self
    }

    /// How long the units are held. Default: the `default_ttl` of the namespace.
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Sets the identity of this attempt, for callers that store it to repeat the call later, for example after a
    /// crash. By default each call gets a new one. Derive it from the order and the cart: an id that this client has
    /// sent for another request is refused as `REQUEST_ID_REUSED`, see
    /// [`Builder::identity_memory`](crate::Builder::identity_memory).
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// The caller's id of the buyer. SKUs with a buyer limit require one.
    pub fn buyer(mut self, buyer: impl Into<String>) -> Self {
        self.buyer = Some(buyer.into());
        self
    }

    /// A reservation of the same partition to roll back in the same step, for example the cart before its last change.
    /// On a shortage or a refusal it stays unchanged.
    pub fn replacing(mut self, reservation_id: impl Into<String>) -> Self {
        self.replaces = Some(reservation_id.into());
        self
    }

    /// Whether the caller set the identity.
    pub(crate) fn is_named(&self) -> bool {
        self.request_id.is_some()
    }

    /// The message, with a fixed identity: it may be sent again.
    pub(crate) fn message(self) -> v1::ReserveRequest {
        self.into_parts().1
    }

    fn into_parts(self) -> (Scope, v1::ReserveRequest) {
        let message = v1::ReserveRequest {
            namespace_id: self.scope.namespace_id(),
            request_id: self.request_id.unwrap_or_else(new_request_id),
            lines: self.lines.into_iter().map(convert::line).collect(),
            ttl: self.ttl.map(convert::duration),
            buyer_id: self.buyer.unwrap_or_default(),
            replaces_reservation_id: self.replaces.unwrap_or_default(),
            first_attempt: false,
        };
        (self.scope, message)
    }

    async fn send(self) -> Result<Applied<Reservation>, ReserveError> {
        let is_named = self.is_named();
        let (Scope { core, deadline, .. }, mut message) = self.into_parts();
        message.first_attempt = !is_named && core.is_direct();
        let claim = core.claim_for(&message, is_named)?;
        let send = |channel, request| async { checkout_client(channel).reserve(request).await };
        held(claim.end(core.call_batched(deadline, message, send).await, is_made)?)
    }
}

/// Whether the call created a reservation, which its identity then identifies.
pub(crate) fn is_made(reserved: &Reserved) -> bool {
    !matches!(reserved, Reserved::Short(_))
}

/// `Ok` means that units are held. Every other response is an error of this client.
pub(crate) fn held(reserved: Reserved) -> Result<Applied<Reservation>, ReserveError> {
    match reserved {
        Reserved::Held(held) => Ok(held),
        Reserved::Short(lines) => Err(ReserveError::InsufficientStock { lines }),
        Reserved::Purchased(purchased) => Err(ReserveError::AlreadyPurchased { reservation: Box::new(purchased) }),
        Reserved::Released(released) => Err(ReserveError::AlreadyReleased { reservation: Box::new(released) }),
    }
}

impl_into_future! { Reserve -> Result<Applied<Reservation>, ReserveError> }
