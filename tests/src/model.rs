//! A plain model of one namespace with one partition: what the service must answer, and when. Pure
//! data, no I/O; only [`ask`] speaks to a server.
//!
//! Time is what the caller says it is, in milliseconds of the store's clock. Versions are not
//! modelled: which of two holds that fall due together goes first is the service's to choose.

use std::{collections::BTreeMap, time::Duration};

use inventory_sentinel::{
    Reason,
    v1::{Reservation, ReservationLine, ReservationState as State, ShortLine},
};
use prost_types::Timestamp;

pub mod ask;
pub mod history;

/// The ttl of a hold that names none, as the server's default is.
pub const DEFAULT_TTL: Duration = Duration::from_secs(600);
/// The longest ttl of a hold, as the server's default is.
pub const MAX_TTL: Duration = Duration::from_secs(3_600);
/// The longest ttl where there is no namespace that could say.
pub const ANY_TTL: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The most units on hand of a SKU.
pub const MAX_STOCK: i64 = 1_000_000_000;
/// The most units of a line.
pub const MAX_QUANTITY: i32 = 1_000_000;
/// The most lines of a reservation.
pub const MAX_LINES: usize = 32;
/// The longest SKU, request id or buyer id, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// One call.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the requests")]
pub enum Op {
    SetStock { sku: String, on_hand: i64, request_id: String },
    AdjustStock { sku: String, delta: i64, request_id: String },
    ConfigureSku { sku: String, is_protected: Option<bool> },
    Reserve { request_id: String, lines: Vec<(String, i32)>, ttl_ms: Option<i64>, buyer_id: String },
    Commit { reservation_id: String },
    Rollback { reservation_id: String },
    GetReservation { reservation_id: String },
    GetStock { sku: String },
    IsProtected { sku: String },
}

/// What came of it. Sequence and version of the response stand in [`ask::Told`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Reserve, Commit, Rollback, GetReservation.
    Reservation(Box<Reservation>, Replayed),
    /// Reserve: the lines that fell short.
    Short(Vec<ShortLine>),
    /// SetStock, AdjustStock, ConfigureSku, GetStock.
    Stock(Counters, Replayed),
    /// IsProtected.
    IsProtected(bool),
    /// Refused: why, and what about: the malformed field, the SKU, or the units held.
    Refused(Reason, String),
}

/// Whether an answer says that its call changed nothing because it was applied before.
pub type Replayed = bool;

/// The counters of one SKU.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the message Stock")]
pub struct Counters {
    pub available: i64,
    pub held: i64,
    pub sold: i64,
    pub supplied: i64,
    pub is_protected: bool,
}

impl Counters {
    const NEW: Counters = Counters { available: 0, held: 0, sold: 0, supplied: 0, is_protected: true };

    /// Invariant 1.
    pub fn are_conserved(&self) -> bool {
        let Self { available, held, sold, supplied, .. } = *self;
        supplied == available + held + sold && [available, held, sold, supplied].iter().all(|&units| units >= 0)
    }
}

/// The namespace.
#[derive(Clone, Debug)]
pub struct Model {
    namespace: String,
    stock: BTreeMap<String, Counters>,
    reservations: BTreeMap<String, Reservation>,
    /// Request id -> the call that it was used for, and the reservation that this made.
    remembered: BTreeMap<String, (Op, Option<String>)>,
    sequence: i64,
}

impl Model {
    /// A namespace that nobody has touched.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            stock: BTreeMap::new(),
            reservations: BTreeMap::new(),
            remembered: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// How many changes there were.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// The counters of a SKU.
    pub fn counters(&self, sku: &str) -> Option<&Counters> {
        self.stock.get(sku)
    }

    /// All SKUs and their counters.
    pub fn stock(&self) -> impl Iterator<Item = (&str, &Counters)> {
        self.stock.iter().map(|(sku, counters)| (sku.as_str(), counters))
    }

    /// All reservations, resolved ones too.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.values()
    }

    /// Reservations that hold units.
    pub fn pending(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations().filter(|reservation| reservation.state() == State::Pending)
    }

    /// The next instant at which units come back by themselves.
    pub fn next_deadline(&self) -> Option<i64> {
        self.pending().map(|reservation| millis(reservation.expires_at)).min()
    }

    /// Units of a SKU in pending reservations, counted from the reservations.
    pub fn held(&self, sku: &str) -> i64 {
        let lines = self.pending().flat_map(|reservation| &reservation.lines);
        lines.filter(|line| line.sku == sku).map(|line| i64::from(line.held)).sum()
    }

    /// Gives back what is due at this instant, each at its own deadline.
    pub fn advance(&mut self, now: i64) {
        let due: Vec<_> = self
            .pending()
            .filter(|reservation| millis(reservation.expires_at) <= now)
            .map(|reservation| (reservation.reservation_id.clone(), millis(reservation.expires_at)))
            .collect();
        for (id, deadline) in due {
            self.resolve(&id, State::Expired, deadline);
        }
    }

    /// What the service must answer to this call at this instant; carries it out. `new_id` is the
    /// name of the reservation if one is made: the service chooses it, and never one that is taken.
    pub fn expect(&mut self, op: &Op, now: i64, new_id: &str) -> Answer {
        self.advance(now);
        if let Some(refused) = self.refusal(op) {
            return refused;
        }
        match op {
            Op::SetStock { sku, on_hand, request_id } => {
                let counters = self.stock.get(sku).unwrap_or(&Counters::NEW);
                let delta = on_hand - counters.available - counters.held;
                self.supply(op, sku, delta, request_id)
            }
            Op::AdjustStock { sku, delta, request_id } => self.supply(op, sku, *delta, request_id),
            Op::ConfigureSku { sku, is_protected } => self.configure(sku, is_protected.unwrap_or_default()),
            Op::Reserve { request_id, lines, ttl_ms, buyer_id } => {
                if let Some((_, Some(id))) = self.remembered.get(request_id) {
                    return self.reservation(id, true);
                }
                let short = self.short(lines);
                if !short.is_empty() {
                    return Answer::Short(short);
                }
                if new_id.is_empty() || self.reservations.contains_key(new_id) {
                    return Answer::Refused(Reason::Internal, "a reservation needs an id of its own".into());
                }
                self.remembered.insert(request_id.clone(), (op.clone(), Some(new_id.into())));
                self.hold(new_id, lines, now, ttl_ms.unwrap_or(DEFAULT_TTL.as_millis() as i64), buyer_id)
            }
            Op::Commit { reservation_id: id } => self.end(id, State::Committed, now),
            Op::Rollback { reservation_id: id } => self.end(id, State::RolledBack, now),
            Op::GetReservation { reservation_id: id } => self.reservation(id, false),
            Op::GetStock { sku } => Answer::Stock(self.stock[sku].clone(), false),
            Op::IsProtected { sku } => Answer::IsProtected(self.stock.get(sku).is_some_and(|of| of.is_protected)),
        }
    }

    /// Why the call would be refused now; `None` if it would not. Changes nothing.
    pub fn refusal(&self, op: &Op) -> Option<Answer> {
        let refused = |reason, about: &str| Some(Answer::Refused(reason, about.into()));
        if let Err((reason, field)) = op.check(if self.stock.is_empty() { ANY_TTL } else { MAX_TTL }) {
            return refused(reason, &field);
        }
        if let Op::SetStock { request_id, .. } | Op::AdjustStock { request_id, .. } | Op::Reserve { request_id, .. } =
            op
            && let Some((first, _)) = self.remembered.get(request_id)
        {
            return if first == op { None } else { refused(Reason::RequestIdReused, "") };
        }
        match op {
            Op::SetStock { sku, on_hand, .. } => {
                let held = self.stock.get(sku).map_or(0, |of| of.held);
                if *on_hand < held { refused(Reason::StockBelowHeld, &held.to_string()) } else { None }
            }
            Op::AdjustStock { sku, delta, .. } => match self.stock.get(sku) {
                None if *delta < 0 => refused(Reason::SkuNotFound, sku),
                Some(of) if of.available + delta < 0 => refused(Reason::StockBelowHeld, &of.held.to_string()),
                Some(of) if of.available + of.held + delta > MAX_STOCK => refused(Reason::StockLimit, ""),
                _ => None,
            },
            Op::Reserve { lines, .. } => lines.iter().find_map(|(sku, _)| match self.stock.get(sku) {
                None => refused(Reason::SkuNotFound, sku),
                Some(of) if !of.is_protected => refused(Reason::SkuNotProtected, sku),
                Some(_) => None,
            }),
            Op::ConfigureSku { sku, .. } | Op::GetStock { sku } if !self.stock.contains_key(sku) => {
                refused(Reason::SkuNotFound, sku)
            }
            Op::Commit { reservation_id } | Op::Rollback { reservation_id } | Op::GetReservation { reservation_id } => {
                let state = self.reservations.get(reservation_id).map(Reservation::state);
                match (op, state) {
                    (_, None) => refused(Reason::ReservationNotFound, ""),
                    (Op::Commit { .. }, Some(State::Expired)) => refused(Reason::ReservationExpired, ""),
                    (Op::Commit { .. }, Some(State::RolledBack)) => refused(Reason::ReservationRolledBack, ""),
                    (Op::Rollback { .. }, Some(State::Committed)) => refused(Reason::ReservationAlreadyCommitted, ""),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn short(&self, lines: &[(String, i32)]) -> Vec<ShortLine> {
        let of = |(sku, quantity): &(String, i32)| ShortLine {
            sku: sku.clone(),
            requested: *quantity,
            available: self.stock[sku].available,
        };
        lines.iter().map(of).filter(|line| line.available < i64::from(line.requested)).collect()
    }

    fn supply(&mut self, op: &Op, sku: &str, delta: i64, request_id: &str) -> Answer {
        if self.remembered.contains_key(request_id) {
            return Answer::Stock(self.stock[sku].clone(), true);
        }
        self.sequence += 1;
        self.remembered.insert(request_id.into(), (op.clone(), None));
        let counters = self.stock.entry(sku.into()).or_insert(Counters::NEW);
        counters.available += delta;
        counters.supplied += delta;
        Answer::Stock(counters.clone(), false)
    }

    fn configure(&mut self, sku: &str, is_protected: bool) -> Answer {
        let counters = self.stock.entry(sku.into()).or_insert(Counters::NEW);
        self.sequence += i64::from(counters.is_protected != is_protected);
        counters.is_protected = is_protected;
        Answer::Stock(counters.clone(), false)
    }

    fn hold(&mut self, id: &str, lines: &[(String, i32)], now: i64, ttl: i64, buyer: &str) -> Answer {
        self.sequence += 1;
        for (sku, quantity) in lines {
            if let Some(counters) = self.stock.get_mut(sku) {
                counters.available -= i64::from(*quantity);
                counters.held += i64::from(*quantity);
            }
        }
        let line = |(sku, quantity): &(String, i32)| ReservationLine {
            sku: sku.clone(),
            quantity: *quantity,
            held: *quantity,
            ..ReservationLine::default()
        };
        let reservation = Reservation {
            reservation_id: id.into(),
            namespace_id: self.namespace.clone(),
            state: State::Pending.into(),
            lines: lines.iter().map(line).collect(),
            buyer_id: buyer.into(),
            created_at: Some(timestamp(now)),
            expires_at: Some(timestamp(now + ttl)),
            resolved_at: None,
            origin_reservation_id: String::new(),
        };
        self.reservations.insert(id.into(), reservation);
        self.reservation(id, false)
    }

    /// Commit or Rollback of what is not refused: pending, or resolved like that already.
    fn end(&mut self, id: &str, state: State, now: i64) -> Answer {
        let was_pending = self.reservations[id].state() == State::Pending;
        if was_pending {
            self.resolve(id, state, now);
        }
        self.reservation(id, !was_pending)
    }

    fn resolve(&mut self, id: &str, state: State, at: i64) {
        self.sequence += 1;
        let Some(reservation) = self.reservations.get_mut(id) else { return };
        reservation.state = state.into();
        reservation.resolved_at = Some(timestamp(at));
        for line in &mut reservation.lines {
            let units = std::mem::take(&mut line.held);
            let Some(counters) = self.stock.get_mut(&line.sku) else { continue };
            counters.held -= i64::from(units);
            if state == State::Committed {
                line.sold = units;
                counters.sold += i64::from(units);
            } else {
                line.released = units;
                counters.available += i64::from(units);
            }
        }
    }

    fn reservation(&self, id: &str, replayed: Replayed) -> Answer {
        Answer::Reservation(Box::new(self.reservations[id].clone()), replayed)
    }
}

impl Op {
    /// Whether the fields are well formed; if not, why and which.
    fn check(&self, longest: Duration) -> Result<(), (Reason, String)> {
        let bad = |reason, field: &str| Err((reason, field.to_owned()));
        match self {
            Op::SetStock { sku, on_hand, request_id } => {
                check_sku(sku, "sku")?;
                if !(0..=MAX_STOCK).contains(on_hand) {
                    return bad(Reason::InvalidStock, "on_hand");
                }
                check_request_id(request_id)
            }
            Op::AdjustStock { sku, delta, request_id } => {
                check_sku(sku, "sku")?;
                if *delta == 0 || !(-MAX_STOCK..=MAX_STOCK).contains(delta) {
                    return bad(Reason::InvalidDelta, "delta");
                }
                check_request_id(request_id)
            }
            Op::ConfigureSku { sku, is_protected } => {
                check_sku(sku, "sku")?;
                if is_protected.is_none() { bad(Reason::NoRules, "rules") } else { Ok(()) }
            }
            Op::Reserve { request_id, lines, ttl_ms, buyer_id } => {
                check_request_id(request_id)?;
                check_lines(lines)?;
                if !is_identifier(buyer_id) {
                    return bad(Reason::InvalidBuyerId, "buyer_id");
                }
                if ttl_ms.is_some_and(|ttl| !(1..=longest.as_millis() as i64).contains(&ttl)) {
                    return bad(Reason::InvalidTtl, "ttl");
                }
                Ok(())
            }
            Op::Commit { reservation_id: id }
            | Op::Rollback { reservation_id: id }
            | Op::GetReservation { reservation_id: id } => {
                let is_base64 = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
                if id.len() == 24 && is_base64 { Ok(()) } else { bad(Reason::InvalidReservationId, "reservation_id") }
            }
            Op::GetStock { sku } | Op::IsProtected { sku } => check_sku(sku, "sku"),
        }
    }
}

fn check_sku(sku: &str, field: &str) -> Result<(), (Reason, String)> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/+#~@=".contains(&byte);
    if sku.is_empty() {
        Err((Reason::EmptySku, field.into()))
    } else if sku.len() > MAX_NAME_BYTES || !sku.bytes().all(is_allowed) {
        Err((Reason::InvalidSku, field.into()))
    } else {
        Ok(())
    }
}

fn check_request_id(id: &str) -> Result<(), (Reason, String)> {
    if id.is_empty() {
        Err((Reason::RequestIdRequired, "request_id".into()))
    } else if !is_identifier(id) {
        Err((Reason::InvalidRequestId, "request_id".into()))
    } else {
        Ok(())
    }
}

fn check_lines(lines: &[(String, i32)]) -> Result<(), (Reason, String)> {
    if lines.is_empty() {
        return Err((Reason::NoLines, "lines".into()));
    }
    if lines.len() > MAX_LINES {
        return Err((Reason::TooManyLines, "lines".into()));
    }
    for (i, (sku, quantity)) in lines.iter().enumerate() {
        check_sku(sku, &format!("lines[{i}].sku"))?;
        if !(1..=MAX_QUANTITY).contains(quantity) {
            return Err((Reason::InvalidQuantity, format!("lines[{i}].quantity")));
        }
    }
    match (1..lines.len()).find(|&i| lines[..i].iter().any(|(sku, _)| *sku == lines[i].0)) {
        Some(i) => Err((Reason::DuplicateSku, format!("lines[{i}].sku"))),
        None => Ok(()),
    }
}

fn is_identifier(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An instant of the store's clock in milliseconds; 0 where there is none.
pub fn millis(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000)
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_unit_goes_once_and_comes_back_at_the_deadline() {
        let mut model = Model::new("sale");
        let reserve = |id: &str| Op::Reserve {
            request_id: id.into(),
            lines: vec![("a".into(), 1)],
            ttl_ms: Some(10),
            buyer_id: String::new(),
        };
        model.expect(&Op::SetStock { sku: "a".into(), on_hand: 1, request_id: "s".into() }, 0, "");
        let first = model.expect(&reserve("1"), 0, "x");
        assert!(matches!(&first, Answer::Reservation(made, false) if made.state() == State::Pending), "{first:?}");
        assert!(matches!(model.expect(&reserve("2"), 9, "y"), Answer::Short(_)));
        assert!(matches!(model.expect(&reserve("2"), 10, "y"), Answer::Reservation(_, false)));
        let late = model.expect(&Op::Commit { reservation_id: "x".repeat(24) }, 10, "");
        assert_eq!(late, Answer::Refused(Reason::ReservationNotFound, String::new()));
        assert_eq!((model.held("a"), model.sequence()), (1, 4));
    }
}
