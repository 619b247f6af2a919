//! The request to reserve: what can be said about it, and its sending. Keeps no state.

use std::time::Duration;

use inventory_sentinel::v1;

use crate::{
    call::{awaited, new_request_id},
    convert::{self, Reserved},
    namespace::{Namespace, checkout},
    operation_errors::ReserveError,
    types::{Line, Receipt, Reservation},
};

/// A request to hold units. Made by [`Namespace::reserve`] or [`Namespace::reserve_cart`]; await it to
/// send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is reserved before it is awaited"]
pub struct Reserve {
    namespace: Namespace,
    lines: Vec<Line>,
    ttl: Option<Duration>,
    request_id: Option<String>,
    buyer: Option<String>,
    replaces: Option<String>,
}

impl Reserve {
    pub(crate) fn new(namespace: Namespace, lines: impl IntoIterator<Item = Line>) -> Reserve {
        Reserve {
            namespace,
            lines: lines.into_iter().collect(),
            ttl: None,
            request_id: None,
            buyer: None,
            replaces: None,
        }
    }

    /// One line more.
    pub fn line(mut self, sku: impl Into<String>, quantity: i32) -> Self {
        self.lines.push(Line::new(sku, quantity));
        self
    }

    /// How long the units are held. Without it, as long as the namespace's default says.
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// The identity of this attempt, where the caller keeps it to repeat the call later, such as
    /// after a crash. Without it a new one is made for each call. Derive it from the order and the cart:
    /// an id that this client has sent for another request is refused as `REQUEST_ID_REUSED`, see
    /// [`Builder::identity_memory`](crate::Builder::identity_memory).
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// The caller's name for the buyer; SKUs with a limit per buyer need one.
    pub fn buyer(mut self, buyer: impl Into<String>) -> Self {
        self.buyer = Some(buyer.into());
        self
    }

    /// A reservation of the same partition whose held units are given back in the same step, such as the
    /// cart before its last change. On a shortage or a refusal it stays as it is.
    pub fn replacing(mut self, reservation_id: impl Into<String>) -> Self {
        self.replaces = Some(reservation_id.into());
        self
    }

    /// Whether the caller named the identity.
    pub(crate) fn is_named(&self) -> bool {
        self.request_id.is_some()
    }

    /// The message, with an identity that is its own from now on. Whoever gets it may send it again.
    pub(crate) fn message(self) -> v1::ReserveRequest {
        self.parts().1
    }

    /// Where it is sent, and the message.
    fn parts(self) -> (Namespace, v1::ReserveRequest) {
        let message = v1::ReserveRequest {
            namespace_id: self.namespace.name.to_string(),
            request_id: self.request_id.unwrap_or_else(new_request_id),
            lines: self.lines.into_iter().map(convert::line).collect(),
            ttl: self.ttl.map(convert::duration),
            buyer_id: self.buyer.unwrap_or_default(),
            replaces_reservation_id: self.replaces.unwrap_or_default(),
            first_attempt: false,
        };
        (self.namespace, message)
    }

    async fn send(self) -> Result<Receipt<Reservation>, ReserveError> {
        let is_named = self.is_named();
        let (Namespace { core, deadline, .. }, mut message) = self.parts();
        message.first_attempt = !is_named && core.is_direct();
        let claim = core.claim(core.identity(&message, is_named))?;
        let send = |channel, request| async { checkout(channel).reserve(request).await };
        held(claim.end(core.call_gathered(deadline, message, send).await, is_made)?)
    }
}

/// Whether the identity of the call stands for a reservation.
pub(crate) fn is_made(reserved: &Reserved) -> bool {
    !matches!(reserved, Reserved::Short(_))
}

/// `Ok` means that units are held. Every other answer is an error here.
pub(crate) fn held(reserved: Reserved) -> Result<Receipt<Reservation>, ReserveError> {
    match reserved {
        Reserved::Held(receipt) => Ok(receipt),
        Reserved::Short(lines) => Err(ReserveError::InsufficientStock { lines }),
        Reserved::Purchased(bought) => Err(ReserveError::AlreadyPurchased { reservation: Box::new(bought) }),
        Reserved::Released(over) => Err(ReserveError::AlreadyReleased { reservation: Box::new(over) }),
    }
}

awaited! { Reserve -> Result<Receipt<Reservation>, ReserveError> }
