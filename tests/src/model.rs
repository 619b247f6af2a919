//! A plain model of one namespace with one partition: what the service must answer, and when. Pure
//! data, no I/O; only [`execute`] speaks to a server.
//!
//! The caller supplies the time, in milliseconds of the store's clock. The version of a SKU is
//! not known after an expiry, until an answer contains it: which of two due holds expires first is the
//! service's to choose.

use std::{collections::BTreeMap, time::Duration};

use inventory_sentinel::{
    Reason,
    v1::{Reservation, ReservationState as State, ShortLine, SkuRules},
};
use inventory_sentinel_script::limits;
use prost_types::Timestamp;

mod check;
pub mod execute;
pub mod history;
mod op;
mod refusals;
mod units;

pub use op::{Condition, Op};

/// The ttl of a hold that names none, as the server's default is.
pub const DEFAULT_TTL: Duration = Duration::from_secs(600);
/// The longest ttl of a hold, as the server's default is.
pub const MAX_TTL: Duration = Duration::from_secs(3_600);
/// The longest life of a hold, as the server's default is.
pub const MAX_LIFE: Duration = Duration::from_secs(7_200);
/// The longest ttl if there is no namespace.
pub const ANY_TTL: Duration = limits::MAX_TTL;
/// The most units on hand of a SKU.
pub const MAX_STOCK: i64 = limits::MAX_STOCK as i64;
/// The most units of a line.
pub const MAX_QUANTITY: i32 = limits::MAX_QUANTITY as i32;

/// The outcome. Sequence and version of the response are in [`execute::Received`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Reserve, Commit, Rollback, GetReservation.
    Reservation(Box<Reservation>, Replayed),
    /// Extend: the reservation, and how much further its deadline can go, in milliseconds.
    Extended(Box<Reservation>, i64, Replayed),
    /// Reserve: the lines that fell short.
    Short(Vec<ShortLine>),
    /// SetStock, AdjustStock, GetStock.
    Stock(Counters, Replayed),
    /// ConfigureSku, GetSku: with the rules and their version.
    Sku(Counters, Box<SkuRules>, i64, Replayed),
    /// DeleteSku: the counters at the end, of a replay as they are now; `None` if the SKU is not known.
    Deleted(Option<Counters>, Replayed),
    /// IsProtected.
    IsProtected(bool),
    /// Refused: why, and [`about`] what: the malformed field, or names and numbers.
    Refused(Reason, String),
}

/// Whether an answer shows that its call changed nothing because it was applied before.
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
    is_made: bool,
    max_life: Duration,
    stock: BTreeMap<String, Counters>,
    /// SKU -> its rules without `is_protected`, which is a counter's, and their version.
    rules: BTreeMap<String, (SkuRules, i64)>,
    /// SKU -> the sequence of its last change; `None` until an answer contains it.
    versions: BTreeMap<String, Option<i64>>,
    reservations: BTreeMap<String, Reservation>,
    /// Reservation -> whether each line counts for the buyer.
    counted: BTreeMap<String, Vec<bool>>,
    /// SKU and buyer -> units that count.
    counts: BTreeMap<(String, String), i64>,
    /// Expired reservation -> the units that it held at its deadline.
    lapsed: BTreeMap<String, Vec<(String, i32)>>,
    /// Expired reservation -> its purchase.
    purchases: BTreeMap<String, String>,
    /// Identity -> the call that it was used for, and the reservation that it made or changed.
    remembered: BTreeMap<String, (Op, String)>,
    /// Reservation -> the ttl that was in force when it was made.
    ttls: BTreeMap<String, i64>,
    sequence: i64,
}

impl Model {
    /// A namespace that nobody has touched.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            is_made: false,
            max_life: MAX_LIFE,
            stock: BTreeMap::new(),
            rules: BTreeMap::new(),
            versions: BTreeMap::new(),
            reservations: BTreeMap::new(),
            counted: BTreeMap::new(),
            counts: BTreeMap::new(),
            lapsed: BTreeMap::new(),
            purchases: BTreeMap::new(),
            remembered: BTreeMap::new(),
            ttls: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// A namespace that somebody has made, with this longest life of a hold.
    pub fn made(namespace: impl Into<String>, max_life: Duration) -> Self {
        Self { is_made: true, max_life, ..Self::new(namespace) }
    }

    /// Whether the namespace is known to the service.
    pub fn is_made(&self) -> bool {
        self.is_made
    }

    /// How many changes there were.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// The counters of a SKU.
    pub fn counters(&self, sku: &str) -> Option<&Counters> {
        self.stock.get(sku)
    }

    /// The version of a SKU; `None` if it has none, or no answer contained it yet.
    pub fn version(&self, sku: &str) -> Option<i64> {
        self.versions.get(sku).copied().flatten()
    }

    /// Sets the version of a SKU.
    pub fn learn_version(&mut self, sku: &str, version: i64) {
        self.versions.insert(sku.into(), Some(version));
    }

    /// The version of a SKU's rules.
    pub fn rules_version(&self, sku: &str) -> i64 {
        self.rules.get(sku).map_or(0, |(_, version)| *version)
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
            let held = self.reservations[&id].lines.iter().filter(|line| line.held > 0);
            let held = held.map(|line| (line.sku.clone(), line.held)).collect();
            self.lapsed.insert(id.clone(), held);
            self.settle_all(&id, State::Expired, deadline);
            for line in &self.reservations[&id].lines {
                self.versions.insert(line.sku.clone(), None);
            }
        }
    }

    /// The answer that the service must give to this call at this instant; applies the call. `new_id` is the
    /// name of the reservation if one is made: the service chooses it, and never one that is taken.
    pub fn expect(&mut self, op: &Op, now: i64, new_id: &str) -> Answer {
        self.advance(now);
        if let Some(answer) = self.refusal(op, now).or_else(|| self.replay(op)) {
            self.is_made |= op.makes_namespace(&answer);
            return answer;
        }
        if let Op::Reserve { lines, replaces, .. } = op {
            let short = self.short(lines, replaces);
            if !short.is_empty() {
                return Answer::Short(short);
            }
        }
        if self.makes_reservation(op) && (new_id.is_empty() || self.reservations.contains_key(new_id)) {
            return Answer::Refused(Reason::Internal, "a reservation needs a unique id".into());
        }
        // A namespace that is not known remembers nothing.
        let is_remembered = self.is_made || !matches!(op, Op::DeleteSku { .. });
        if let Some(identity) = op.identity().filter(|_| is_remembered) {
            let reservation = match op {
                Op::CommitLines { reservation_id: id, .. }
                | Op::RollbackLines { reservation_id: id, .. }
                | Op::Extend { reservation_id: id, .. } => id,
                _ => new_id,
            };
            self.remembered.insert(identity, (op.clone(), reservation.into()));
        }
        self.apply(op, now, new_id)
    }

    /// Applies a request that is neither refused nor a replay.
    fn apply(&mut self, op: &Op, now: i64, new_id: &str) -> Answer {
        match op {
            Op::SetStock { sku, on_hand, .. } => {
                let counters = self.stock.get(sku).unwrap_or(&Counters::NEW);
                self.supply(sku, on_hand - counters.available - counters.held)
            }
            Op::AdjustStock { sku, delta, .. } => self.supply(sku, *delta),
            Op::ConfigureSku { sku, rules, .. } => self.configure(sku, rules),
            Op::GetSku { sku } => self.sku(sku, false),
            Op::DeleteSku { sku, .. } => self.delete(sku),
            Op::Reserve { lines, ttl_ms, buyer_id, replaces, request_id } => {
                let ttl = ttl_ms.unwrap_or_else(|| self.default_ttl(lines));
                self.ttls.insert(new_id.into(), ttl);
                if self.reservations.get(replaces).is_some_and(|replaced| replaced.state() == State::Pending) {
                    self.settle_all(replaces, State::RolledBack, now);
                }
                self.hold(new_id, lines, now, ttl, (buyer_id, replaces, request_id))
            }
            Op::Commit { reservation_id: id, .. } if self.reservations[id].state() == State::Expired => {
                self.repurchase(id, now, new_id)
            }
            Op::Commit { reservation_id: id, .. } => self.end(id, State::Committed, now),
            Op::Rollback { reservation_id: id } => self.end(id, State::RolledBack, now),
            Op::CommitLines { reservation_id: id, lines, keep_rest, .. } => {
                self.settle(id, State::Committed, lines, now);
                if !keep_rest && self.reservations[id].state() == State::Pending {
                    self.settle_all(id, State::RolledBack, now);
                }
                self.reservation(id, false)
            }
            Op::RollbackLines { reservation_id: id, lines, .. } => {
                self.settle(id, State::RolledBack, lines, now);
                self.reservation(id, false)
            }
            Op::Extend { reservation_id: id, ttl_ms, .. } => {
                self.sequence += 1;
                if let Some(reservation) = self.reservations.get_mut(id) {
                    let deadline = millis(reservation.expires_at).max(now + ttl_ms);
                    reservation.expires_at = Some(timestamp(deadline));
                }
                self.extended(id, false)
            }
            Op::GetReservation { reservation_id: id } => self.reservation(id, false),
            Op::GetStock { sku } => Answer::Stock(self.stock[sku].clone(), false),
            Op::IsProtected { sku } => Answer::IsProtected(self.stock.get(sku).is_some_and(|of| of.is_protected)),
        }
    }

    /// The answer to a request that was applied before.
    fn replay(&self, op: &Op) -> Option<Answer> {
        let (first, id) = self.remembered.get(&op.identity()?)?;
        Some(match op {
            _ if !self.is_same(first, op, id) => Answer::Refused(Reason::RequestIdReused, String::new()),
            Op::SetStock { sku, .. } | Op::AdjustStock { sku, .. } => match self.stock.get(sku) {
                Some(counters) => Answer::Stock(counters.clone(), true),
                None => Answer::Refused(Reason::SkuNotFound, sku.clone()),
            },
            Op::ConfigureSku { sku, .. } if self.stock.contains_key(sku) => self.sku(sku, true),
            Op::ConfigureSku { sku, .. } => Answer::Refused(Reason::SkuNotFound, sku.clone()),
            Op::DeleteSku { sku, .. } => Answer::Deleted(self.stock.get(sku).cloned(), true),
            Op::Extend { .. } => self.extended(id, true),
            _ => self.reservation(id, true),
        })
    }

    /// Whether this call is the one that was made under its request id: lines in any order, a ttl unset or named
    /// as it was in force.
    fn is_same(&self, first: &Op, again: &Op, id: &str) -> bool {
        let (mut first, mut again) = (first.clone(), again.clone());
        for op in [&mut first, &mut again] {
            if let Op::Reserve { lines, .. } | Op::CommitLines { lines, .. } | Op::RollbackLines { lines, .. } = op {
                lines.sort();
            }
        }
        if let (Op::Reserve { ttl_ms: then, .. }, Op::Reserve { ttl_ms: now, .. }) = (&mut first, &mut again)
            && now.is_none_or(|now| self.ttls.get(id) == Some(&now))
        {
            *now = *then;
        }
        first == again
    }

    /// Whether this call, if it is neither refused nor short, makes a reservation.
    fn makes_reservation(&self, op: &Op) -> bool {
        match op {
            Op::Reserve { .. } => true,
            Op::Commit { reservation_id: id, late: true } => {
                self.reservations[id].state() == State::Expired && !self.purchases.contains_key(id)
            }
            _ => false,
        }
    }

    /// Commit or Rollback of what is not refused: pending, or resolved like that already.
    fn end(&mut self, id: &str, state: State, now: i64) -> Answer {
        let was_pending = self.reservations[id].state() == State::Pending;
        if was_pending {
            self.settle_all(id, state, now);
        }
        self.reservation(id, !was_pending)
    }

    fn reservation(&self, id: &str, replayed: Replayed) -> Answer {
        Answer::Reservation(Box::new(self.reservations[id].clone()), replayed)
    }

    fn extended(&self, id: &str, replayed: Replayed) -> Answer {
        let reservation = self.reservations[id].clone();
        let latest = millis(reservation.created_at) + self.max_life.as_millis() as i64;
        let is_pending = reservation.state() == State::Pending;
        let left = if is_pending { latest - millis(reservation.expires_at) } else { 0 };
        Answer::Extended(Box::new(reservation), left, replayed)
    }
}

/// The subject of a refusal: its one value, or all of them with their names, in order.
pub fn about<K: Ord + ToString, V: ToString>(metadata: impl IntoIterator<Item = (K, V)>) -> String {
    let named: BTreeMap<K, V> = metadata.into_iter().collect();
    match named.len() {
        1 => named.into_values().map(|value| value.to_string()).collect(),
        _ => {
            let pairs = named.iter().map(|(name, value)| format!("{}={}", name.to_string(), value.to_string()));
            pairs.collect::<Vec<_>>().join(" ")
        }
    }
}

/// A duration in milliseconds.
pub fn millis_of(duration: prost_types::Duration) -> i64 {
    duration.seconds * 1_000 + i64::from(duration.nanos) / 1_000_000
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
            replaces: String::new(),
        };
        let condition = Condition::Always;
        model.expect(&Op::SetStock { sku: "a".into(), on_hand: 1, condition, request_id: "s".into() }, 0, "");
        let first = model.expect(&reserve("1"), 0, "x");
        assert!(matches!(&first, Answer::Reservation(made, false) if made.state() == State::Pending), "{first:?}");
        assert!(matches!(model.expect(&reserve("2"), 9, "y"), Answer::Short(_)));
        assert!(matches!(model.expect(&reserve("2"), 10, "y"), Answer::Reservation(_, false)));
        let late = model.expect(&Op::Commit { reservation_id: "x".repeat(24), late: false }, 10, "");
        assert_eq!(late, Answer::Refused(Reason::ReservationNotFound, String::new()));
        assert_eq!((model.held("a"), model.sequence()), (1, 4));
    }
}
