//! The model's counters: units that move between the counters of a SKU, the lines of a reservation and
//! the count of a buyer. Pure data, no I/O.

use inventory_sentinel::v1::{Reservation, ReservationLine, ReservationState as State, SkuRules};

use super::{Answer, Counters, DEFAULT_TTL, Model, Replayed, millis, millis_of, timestamp};

/// The rules of a SKU that has none.
const NO_RULES: SkuRules = SkuRules {
    is_protected: None,
    max_quantity: Some(0),
    max_ttl: Some(prost_types::Duration { seconds: 0, nanos: 0 }),
    buyer_limit: Some(0),
    opens_at: None,
    closes_at: None,
    is_paused: Some(false),
};

impl Model {
    pub(super) fn supply(&mut self, sku: &str, delta: i64) -> Answer {
        self.is_made = true;
        let counters = self.stock.entry(sku.into()).or_insert(Counters::NEW);
        counters.available += delta;
        counters.supplied += delta;
        let answer = Answer::Stock(counters.clone(), false);
        self.changed(sku);
        answer
    }

    pub(super) fn configure(&mut self, sku: &str, change: &SkuRules) -> Answer {
        let was_protected = self.stock[sku].is_protected;
        let is_protected = change.is_protected.unwrap_or(was_protected);
        let (rules, version) = (self.rules_of(sku), self.rules_version(sku));
        let next = merged(&rules, change);
        let has_limit = |rules: &SkuRules| rules.buyer_limit.is_some_and(|limit| limit > 0);
        if has_limit(&next) != has_limit(&rules) {
            self.forget_counts(sku);
        }
        if next != rules || is_protected != was_protected {
            self.rules.insert(sku.into(), (next, version + 1));
            if let Some(counters) = self.stock.get_mut(sku) {
                counters.is_protected = is_protected;
            }
            self.changed(sku);
        }
        self.sku(sku, false)
    }

    /// The counters and all rules.
    pub(super) fn sku(&self, sku: &str, replayed: Replayed) -> Answer {
        let counters = self.stock[sku].clone();
        let rules = SkuRules { is_protected: Some(counters.is_protected), ..self.rules_of(sku) };
        Answer::Sku(counters, Box::new(rules), self.rules_version(sku), replayed)
    }

    pub(super) fn delete(&mut self, sku: &str) -> Answer {
        let last = self.stock.remove(sku);
        if last.is_some() {
            self.forget_counts(sku);
            self.rules.remove(sku);
            self.changed(sku);
            self.versions.remove(sku);
        }
        Answer::Deleted(last, false)
    }

    /// A limit per buyer begins or ends: what buyers have now counts for none that comes later.
    fn forget_counts(&mut self, sku: &str) {
        self.counts.retain(|(of, _), _| of != sku);
        for (id, counted) in &mut self.counted {
            for (line, counted) in self.reservations[id].lines.iter().zip(counted) {
                *counted &= line.sku != sku;
            }
        }
    }

    pub(super) fn rules_of(&self, sku: &str) -> SkuRules {
        self.rules.get(sku).map_or(NO_RULES, |(rules, _)| *rules)
    }

    /// The most units that one buyer may have, if there is a limit.
    pub(super) fn buyer_limit(&self, sku: &str) -> Option<i64> {
        self.rules_of(sku).buyer_limit.filter(|limit| *limit > 0).map(i64::from)
    }

    /// The ttl of a hold that names none: the SKUs may shorten it.
    pub(super) fn default_ttl(&self, lines: &[(String, i32)]) -> i64 {
        let limits = lines.iter().filter_map(|(sku, _)| self.rules_of(sku).max_ttl).map(millis_of);
        limits.filter(|limit| *limit > 0).fold(DEFAULT_TTL.as_millis() as i64, i64::min)
    }

    pub(super) fn hold(
        &mut self,
        id: &str,
        lines: &[(String, i32)],
        now: i64,
        ttl: i64,
        (buyer, origin, request_id): (&str, &str, &str),
    ) -> Answer {
        let line = |(sku, quantity): &(String, i32)| ReservationLine {
            sku: sku.clone(),
            quantity: *quantity,
            held: *quantity,
            ..ReservationLine::default()
        };
        self.take(Reservation {
            reservation_id: id.into(),
            namespace_id: self.namespace.clone(),
            state: State::Pending.into(),
            lines: lines.iter().map(line).collect(),
            buyer_id: buyer.into(),
            created_at: Some(timestamp(now)),
            expires_at: Some(timestamp(now + ttl)),
            resolved_at: None,
            origin_reservation_id: origin.into(),
            purchase_reservation_id: String::new(),
            request_id: if shows(request_id) { request_id.into() } else { String::new() },
        })
    }

    /// The units held at the deadline, sold at once; or the earlier purchase.
    pub(super) fn repurchase(&mut self, id: &str, now: i64, new_id: &str) -> Answer {
        if let Some(purchase) = self.purchases.get(id) {
            return self.reservation(purchase, true);
        }
        self.purchases.insert(id.into(), new_id.into());
        let expired = self.reservations[id].clone();
        if let Some(expired) = self.reservations.get_mut(id) {
            expired.purchase_reservation_id = new_id.into();
        }
        let line = |(sku, units): &(String, i32)| ReservationLine {
            sku: sku.clone(),
            quantity: *units,
            sold: *units,
            ..ReservationLine::default()
        };
        self.take(Reservation {
            reservation_id: new_id.into(),
            state: State::Committed.into(),
            lines: self.lapsed[id].iter().map(line).collect(),
            created_at: Some(timestamp(now)),
            expires_at: Some(timestamp(now)),
            resolved_at: Some(timestamp(now)),
            origin_reservation_id: id.into(),
            request_id: String::new(),
            ..expired
        })
    }

    /// Takes the units of a new reservation out of what is available, and counts them for its buyer
    /// where there is a limit now.
    fn take(&mut self, made: Reservation) -> Answer {
        self.sequence += 1;
        for line in &made.lines {
            let is_limited = self.buyer_limit(&line.sku).is_some();
            self.counted.entry(made.reservation_id.clone()).or_default().push(is_limited);
            if is_limited {
                *self.counts.entry((line.sku.clone(), made.buyer_id.clone())).or_default() += i64::from(line.quantity);
            }
            if let Some(counters) = self.stock.get_mut(&line.sku) {
                counters.available -= i64::from(line.quantity);
                counters.held += i64::from(line.held);
                counters.sold += i64::from(line.sold);
            }
            self.versions.insert(line.sku.clone(), Some(self.sequence));
        }
        let id = made.reservation_id.clone();
        self.reservations.insert(id.clone(), made);
        self.reservation(&id, false)
    }

    /// Commits or gives back all that is held.
    pub(super) fn settle_all(&mut self, id: &str, to: State, at: i64) {
        let lines: Vec<_> = self.reservations[id].lines.iter().map(|line| (line.sku.clone(), line.held)).collect();
        self.settle(id, to, &lines, at);
    }

    /// Commits or gives back these units: one change.
    pub(super) fn settle(&mut self, id: &str, to: State, units: &[(String, i32)], at: i64) {
        self.sequence += 1;
        let Some(reservation) = self.reservations.get_mut(id) else { return };
        for (i, line) in reservation.lines.iter_mut().enumerate() {
            let Some((_, units)) = units.iter().find(|(sku, units)| *sku == line.sku && *units > 0) else { continue };
            let Some(counters) = self.stock.get_mut(&line.sku) else { continue };
            line.held -= units;
            counters.held -= i64::from(*units);
            if to == State::Committed {
                line.sold += units;
                counters.sold += i64::from(*units);
            } else {
                line.released += units;
                counters.available += i64::from(*units);
                if self.counted[id][i] {
                    *self.counts.entry((line.sku.clone(), reservation.buyer_id.clone())).or_default() -=
                        i64::from(*units);
                }
            }
            self.versions.insert(line.sku.clone(), Some(self.sequence));
        }
        if reservation.lines.iter().all(|line| line.held == 0) {
            let is_sold = reservation.lines.iter().any(|line| line.sold > 0);
            reservation.state = if is_sold { State::Committed } else { to }.into();
            reservation.resolved_at = Some(timestamp(at));
        }
    }

    fn changed(&mut self, sku: &str) {
        self.sequence += 1;
        self.versions.insert(sku.into(), Some(self.sequence));
    }
}

/// Whether a reservation of a namespace of the newest format shows its request id: a UUID in its usual form, or few bytes.
fn shows(request_id: &str) -> bool {
    let is_uuid = request_id.len() == 36
        && request_id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => b"0123456789abcd".contains(&byte),
            _ => b"0123456789abcdef".contains(&byte),
        });
    is_uuid || request_id.len() <= 17
}

/// The rules after a change, but for `is_protected`; the zero instant is as good as none.
fn merged(rules: &SkuRules, change: &SkuRules) -> SkuRules {
    SkuRules {
        is_protected: rules.is_protected,
        max_quantity: change.max_quantity.or(rules.max_quantity),
        max_ttl: change.max_ttl.or(rules.max_ttl),
        buyer_limit: change.buyer_limit.or(rules.buyer_limit),
        opens_at: change.opens_at.or(rules.opens_at).filter(|at| millis(Some(*at)) > 0),
        closes_at: change.closes_at.or(rules.closes_at).filter(|at| millis(Some(*at)) > 0),
        is_paused: change.is_paused.or(rules.is_paused),
    }
}
