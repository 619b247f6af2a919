//! Decodes the records of reservations and of stock as Redis stores them. Pure, no I/O.

use crate::bytes::ByteReader;
use crate::codes::{DIGESTED, EXTENDED, RecordState, stock_flags::*};
use crate::domain::{
    BuyerId, Configured, Id, Line, Reservation, ReservationId, ReservedLine, Rules, State, Stock, StoreTime,
};

/// The counters and the rules in a stock record.
pub fn stock_from(record: &[u8]) -> Option<Stock> {
    whole(record, next_stock)
}

/// The reservation in a record.
pub fn reservation_from(id: ReservationId, record: &[u8]) -> Option<Reservation> {
    whole(record, |bytes| next_reservation(id, bytes))
}

/// Decodes a value that takes all of these bytes.
fn whole<T>(bytes: &[u8], read: impl FnOnce(&mut ByteReader<'_>) -> Option<T>) -> Option<T> {
    let mut bytes = ByteReader(bytes);
    let value = read(&mut bytes)?;
    bytes.0.is_empty().then_some(value)
}

/// The stock record that comes next.
pub(crate) fn next_stock(bytes: &mut ByteReader<'_>) -> Option<Stock> {
    let mut stock = Stock {
        available: bytes.u48()?,
        held: bytes.u48()?,
        sold: bytes.u48()?,
        supplied: bytes.u48()?,
        withdrawn: 0,
        version: bytes.u48()?,
        is_protected: false,
        is_paused: false,
        rules: Rules::default(),
    };
    let flags = bytes.u8()?;
    stock.is_protected = flags & PROTECTED != 0;
    stock.is_paused = flags & PAUSED != 0;
    if flags & RULED != 0 {
        stock.rules = next_rules(bytes)?;
    }
    if flags & HAS_LIMIT_SINCE != 0 {
        let _limit_since = bytes.u48()?;
    }
    if flags & HAS_WITHDRAWN != 0 {
        stock.withdrawn = bytes.u48()?;
    }
    if flags & HAS_EARLIEST != 0 {
        let _earliest = bytes.u48()?;
    }
    Some(stock)
}

/// The rules with their revision that come next.
fn next_rules(bytes: &mut ByteReader<'_>) -> Option<Rules> {
    Some(Rules {
        revision: bytes.u48()?,
        max_quantity: bytes.u32()?,
        max_ttl: bytes.u48()?,
        buyer_limit: bytes.u32()?,
        opens_at: StoreTime(bytes.u48()?),
        closes_at: StoreTime(bytes.u48()?),
    })
}

/// Decodes the event of a change of rules: flags, since format 5 the rules, and the SKU, which is the rest of the
/// bytes.
pub(crate) fn configured_from(moved: &[u8]) -> Option<(Option<Configured>, &[u8])> {
    let mut bytes = ByteReader(moved);
    let flags = bytes.u8()?;
    let mut configured = None;
    if flags & HAS_VALUES != 0 {
        let rules = next_rules(&mut bytes)?;
        configured = Some(Configured { is_protected: flags & PROTECTED != 0, is_paused: flags & PAUSED != 0, rules });
    }
    Some((configured, bytes.0))
}

/// Whether a record is a remembered request, and no reservation.
pub fn is_memo(record: &[u8]) -> bool {
    record.first() == Some(&RecordState::Memo.byte())
}

/// The form of a reservation's record. The first letter of the record determines its form and its state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// With an extension behind the plain record.
    Extended,
    /// The extension has a digest of the request, and the purchase.
    Digested,
    /// The same, and the changes at the end.
    Changed,
}

impl Form {
    /// The form and the state of a letter.
    fn of(letter: u8) -> Option<(Form, State)> {
        let is_digested = letter & DIGESTED != 0;
        let is_lower_case = letter & EXTENDED != 0;
        let form = match (is_digested, is_lower_case) {
            (false, false) => Form::Plain,
            (false, true) => Form::Extended,
            (true, true) => Form::Digested,
            (true, false) => Form::Changed,
        };
        let state = match RecordState::from_byte(letter & !(DIGESTED | EXTENDED))? {
            RecordState::Pending => State::Pending,
            RecordState::Committed => State::Committed,
            RecordState::RolledBack => State::RolledBack,
            RecordState::Expired => State::Expired,
            RecordState::Memo => return None,
        };
        Some((form, state))
    }
}

const DIGEST_LENGTH: usize = 16;
/// The length of a change in the record of its reservation.
const CHANGE_LENGTH: usize = 16;

/// The record of a reservation that comes next.
pub(crate) fn next_reservation(id: ReservationId, bytes: &mut ByteReader<'_>) -> Option<Reservation> {
    let (form, state) = Form::of(bytes.u8()?)?;
    let mut resolved_at = None;
    if state != State::Pending {
        // The record that it had while it was pending follows.
        resolved_at = Some(StoreTime(bytes.u48()?));
        if Form::of(bytes.u8()?)?.1 != State::Pending {
            return None;
        }
    }
    let expires_at = StoreTime(bytes.u48()?);
    let created_at = StoreTime(bytes.u48()?);
    let buyer = BuyerId::parse(String::from_utf8(bytes.take_u8_prefixed()?.to_vec()).ok()?).ok()?;
    let mut lines: Vec<ReservedLine> = bytes
        .lines()?
        .into_iter()
        .map(|Line { sku, quantity }| {
            let units = quantity.get();
            ReservedLine {
                sku,
                quantity,
                sold: if state == State::Committed { units } else { 0 },
                released: if matches!(state, State::RolledBack | State::Expired) { units } else { 0 },
            }
        })
        .collect();
    let (mut origin, mut purchase) = (None, None);
    if form != Form::Plain {
        let _counted = bytes.u32()?;
        origin = next_id(id.partition, bytes)?;
        if matches!(form, Form::Digested | Form::Changed) {
            let _digest = bytes.take(DIGEST_LENGTH)?;
            purchase = next_id(id.partition, bytes)?;
        }
        for line in &mut lines {
            line.sold = bytes.u32()?;
            line.released = bytes.u32()?;
            if state == State::Expired {
                // The record contains the units that calls gave back; the deadline gave back the rest.
                line.released = line.quantity.get() - line.sold;
            }
        }
    }
    if form == Form::Changed {
        // The number of changes precedes and follows them, because the script reads a record from its end.
        let changes = bytes.u8()?;
        bytes.take(CHANGE_LENGTH * usize::from(changes))?;
        if bytes.u8()? != changes {
            return None;
        }
    }
    Some(Reservation { id, state, lines, buyer, created_at, expires_at, resolved_at, origin, purchase })
}

/// The reservation whose id comes next; zeros are none.
#[allow(clippy::option_option, reason = "the outer one is that of every reader here")]
fn next_id(partition: u16, bytes: &mut ByteReader<'_>) -> Option<Option<ReservationId>> {
    let id: Id = bytes.take(16)?.try_into().ok()?;
    Some((id != Id::default()).then_some(ReservationId { id, partition }))
}
