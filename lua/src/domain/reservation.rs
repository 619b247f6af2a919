//! Reservations and their ids. No I/O.

use inventory_sentinel::Reason;

use super::{BuyerId, Clock, Invalid, Quantity, Sku, StoreTime};

/// An identity in the store, 16 bytes.
pub type Id = [u8; 16];

/// The name of a reservation: its id in the store, and its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId {
    /// The id in the store.
    pub id: Id,
    /// The partition.
    pub partition: u16,
}

impl ReservationId {
    /// Parses the text that callers have.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(Reason::InvalidReservationId, "reservation_id");
        let bytes: [u8; 18] = base64url::decode(text).ok_or_else(invalid)?;
        let (id, partition) = bytes.split_at(16);
        Ok(Self {
            id: id.try_into().map_err(|_| invalid())?,
            partition: u16::from_be_bytes(partition.try_into().map_err(|_| invalid())?),
        })
    }

    /// The text that callers have.
    pub fn encode(self) -> String {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&self.id);
        bytes[16..].copy_from_slice(&self.partition.to_be_bytes());
        base64url::encode(bytes)
    }
}

/// URL-safe base64 of 18 bytes, which needs no padding: 24 characters.
mod base64url {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    pub(crate) fn encode(bytes: [u8; 18]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn decode(text: &str) -> Option<[u8; 18]> {
        let mut bytes = [0; 18];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(bytes)
    }
}

/// The state of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Held.
    Pending,
    /// Sold.
    Committed,
    /// Given back by a call.
    RolledBack,
    /// Given back by the deadline.
    Expired,
}

/// One line of a reservation. Units that are neither sold nor released are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedLine {
    /// The SKU.
    pub sku: Sku,
    /// Its units when the reservation was created.
    pub quantity: Quantity,
    /// Units sold.
    pub sold: u32,
    /// Units given back.
    pub released: u32,
}

impl ReservedLine {
    /// Units held.
    pub fn held(&self) -> u32 {
        self.quantity.get().saturating_sub(self.sold).saturating_sub(self.released)
    }
}

/// Units held for a buyer until a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its name.
    pub id: ReservationId,
    /// Its state.
    pub state: State,
    /// Its lines, in the order of the request.
    pub lines: Vec<ReservedLine>,
    /// Its buyer.
    pub buyer: BuyerId,
    /// When it was created.
    pub created_at: StoreTime,
    /// Its deadline.
    pub expires_at: StoreTime,
    /// When it was resolved.
    pub resolved_at: Option<StoreTime>,
    /// The reservation that this one replaced or repurchased.
    pub origin: Option<ReservationId>,
    /// The reservation by which a late Commit repurchased this one after it expired.
    pub purchase: Option<ReservationId>,
}

impl Reservation {
    /// Converts its instants from the partition's clock to the time of day.
    pub fn at_time_of_day(self, clock: Clock) -> Self {
        Self {
            created_at: clock.time_of_day(self.created_at),
            expires_at: clock.time_of_day(self.expires_at),
            resolved_at: self.resolved_at.map(|at| clock.time_of_day(at)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservation_ids_round_trip_and_only_they_parse() {
        let id = ReservationId { id: *b"0123456789abcdef", partition: 513 };
        let text = id.encode();
        assert_eq!(text.len(), 24);
        assert_eq!(ReservationId::parse(&text), Ok(id));
        for bad in ["", "short", &text[..23], &format!("{text}A"), "!".repeat(24).as_str()] {
            assert!(ReservationId::parse(bad).is_err(), "{bad}");
        }
    }
}
