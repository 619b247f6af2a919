//! The refusals of the model, in the order of the service; and shortages. Pure data, no I/O.

use inventory_sentinel::{
    Reason,
    v1::{Reservation, ReservationState as State, ShortLine, SkuRules},
};
use inventory_sentinel_script::limits::MAX_CHANGES;

use super::{ANY_TTL, Answer, Condition, MAX_STOCK, MAX_TTL, Model, Op, about, millis, millis_of};

fn refused(reason: Reason, what: &str) -> Option<Answer> {
    Some(Answer::Refused(reason, what.into()))
}

impl Model {
    /// Why the call would be refused at this instant; `None` if it would not. Changes nothing.
    pub fn refusal(&self, op: &Op, now: i64) -> Option<Answer> {
        if let Err((reason, field)) = op.check(if self.is_made { MAX_TTL } else { ANY_TTL }) {
            return refused(reason, &field);
        }
        if let Some(again) = self.replay(op) {
            return matches!(again, Answer::Refused(..)).then_some(again);
        }
        let makes = matches!(op, Op::SetStock { .. }) || matches!(op, Op::AdjustStock { delta, .. } if *delta > 0);
        if !self.is_made && !makes && !matches!(op, Op::DeleteSku { .. } | Op::IsProtected { .. }) {
            return refused(Reason::NamespaceNotFound, "");
        }
        match op {
            Op::SetStock { sku, on_hand, condition, .. } => {
                let counters = self.stock.get(sku);
                let held = counters.map_or(0, |of| of.held);
                match condition {
                    Condition::IfAbsent if counters.is_some() => refused(Reason::SkuExists, ""),
                    Condition::IfVersion(_) if counters.is_none() => refused(Reason::VersionMismatch, ""),
                    Condition::IfVersion(version) if Some(*version) != self.version(sku) => self.other_version(sku),
                    _ if *on_hand < held => refused(Reason::StockBelowHeld, &held.to_string()),
                    _ => None,
                }
            }
            Op::AdjustStock { sku, delta, .. } => match self.stock.get(sku) {
                None if *delta < 0 => refused(Reason::SkuNotFound, sku),
                Some(of) if of.available + delta < 0 => refused(Reason::StockBelowHeld, &of.held.to_string()),
                Some(of) if of.available + of.held + delta > MAX_STOCK => refused(Reason::StockLimit, ""),
                _ => None,
            },
            Op::ConfigureSku { sku, .. } | Op::GetStock { sku } | Op::GetSku { sku }
                if !self.stock.contains_key(sku) =>
            {
                refused(Reason::SkuNotFound, sku)
            }
            Op::ConfigureSku { sku, rules, if_version, .. } => {
                if if_version.is_some_and(|version| version != self.rules_version(sku)) {
                    return self.other_version(sku);
                }
                let of = self.rules_of(sku);
                let opens = millis(rules.opens_at.or(of.opens_at));
                let closes = millis(rules.closes_at.or(of.closes_at));
                if closes > 0 && closes <= opens { refused(Reason::InvalidRule, "rules.closes_at") } else { None }
            }
            Op::DeleteSku { sku, .. } => {
                let held = self.stock.get(sku).map_or(0, |of| of.held);
                if held > 0 { refused(Reason::SkuHasHolds, &held.to_string()) } else { None }
            }
            Op::Reserve { lines, ttl_ms, buyer_id, replaces, .. } => {
                let by_rules = lines.iter().find_map(|(sku, units)| self.rule_against(sku, *units, *ttl_ms, now));
                by_rules.or_else(|| self.unfit_to_replace(replaces)).or_else(|| {
                    let is_short = !self.short(lines, replaces).is_empty();
                    if is_short { None } else { self.buyer_refusal(lines, buyer_id, replaces) }
                })
            }
            Op::Commit { reservation_id: id, .. }
            | Op::CommitLines { reservation_id: id, .. }
            | Op::Rollback { reservation_id: id }
            | Op::RollbackLines { reservation_id: id, .. }
            | Op::Extend { reservation_id: id, .. }
            | Op::GetReservation { reservation_id: id } => match self.reservations.get(id) {
                None => refused(Reason::ReservationNotFound, ""),
                Some(reservation) => self.refusal_of(op, reservation, now),
            },
            _ => None,
        }
    }

    /// Of a call that is about a reservation that is known.
    fn refusal_of(&self, op: &Op, of: &Reservation, now: i64) -> Option<Answer> {
        let state = of.state();
        match op {
            Op::Commit { late: true, .. } if state == State::Expired => self.late_refusal(of),
            Op::Commit { .. } if state == State::Committed => None,
            Op::Rollback { .. } if state != State::Committed => None,
            Op::Rollback { .. } if of.lines.iter().any(|line| line.released > 0) => None,
            Op::GetReservation { .. } => None,
            _ if state == State::Expired => refused(Reason::ReservationExpired, ""),
            _ if state == State::RolledBack => refused(Reason::ReservationRolledBack, ""),
            _ if state == State::Committed => refused(Reason::ReservationAlreadyCommitted, ""),
            Op::CommitLines { .. } | Op::RollbackLines { .. } | Op::Extend { .. }
                if self.changes_of(&of.reservation_id) >= MAX_CHANGES =>
            {
                refused(Reason::TooManyChanges, "")
            }
            Op::CommitLines { lines, .. } | Op::RollbackLines { lines, .. } => lines.iter().find_map(|(sku, units)| {
                let held = of.lines.iter().find(|line| line.sku == *sku).map_or(0, |line| line.held);
                let what = about([("sku", sku.clone()), ("held", held.to_string())]);
                if *units > held { refused(Reason::LineNotHeld, &what) } else { None }
            }),
            Op::Extend { ttl_ms, .. } => {
                let latest = millis(of.created_at) + self.max_life.as_millis() as i64;
                let left = latest - millis(of.expires_at);
                if now + ttl_ms > latest { refused(Reason::ExtendLimit, &left.to_string()) } else { None }
            }
            _ => None,
        }
    }

    /// How often a reservation was extended, or changed in part.
    fn changes_of(&self, id: &str) -> usize {
        let of = format!("{id}\0");
        self.remembered.keys().filter(|identity| identity.starts_with(&of)).count()
    }

    fn other_version(&self, sku: &str) -> Option<Answer> {
        let version = self.version(sku).unwrap_or_default();
        let what = about([("version", version), ("rules_version", self.rules_version(sku))]);
        refused(Reason::VersionMismatch, &what)
    }

    /// The first rule of a SKU that a line of a Reserve breaks.
    fn rule_against(&self, sku: &str, units: i32, ttl_ms: Option<i64>, now: i64) -> Option<Answer> {
        match self.stock.get(sku) {
            None => return refused(Reason::SkuNotFound, sku),
            Some(of) if !of.is_protected => return refused(Reason::SkuNotProtected, sku),
            Some(_) => {}
        }
        let SkuRules { max_quantity, max_ttl, opens_at, closes_at, is_paused, .. } = self.rules_of(sku);
        if is_paused == Some(true) {
            return refused(Reason::SalePaused, sku);
        }
        let (opens, closes) = (millis(opens_at), millis(closes_at));
        if now < opens || closes > 0 && now >= closes {
            let numbers = [("opens_at_ms", opens.to_string()), ("closes_at_ms", closes.to_string())];
            let reason = if closes > 0 && now >= closes { Reason::SaleClosed } else { Reason::SaleNotOpen };
            return refused(reason, &about([("sku", sku.to_owned())].into_iter().chain(numbers)));
        }
        if let Some(limit) = max_quantity.filter(|limit| *limit > 0 && units > *limit) {
            return refused(Reason::QuantityLimit, &about([("sku", sku.to_owned()), ("limit", limit.to_string())]));
        }
        let longest = max_ttl.map(millis_of).filter(|limit| *limit > 0 && ttl_ms.is_some_and(|ttl| ttl > *limit));
        let what = |limit: i64| about([("sku", sku.to_owned()), ("limit_ms", limit.to_string())]);
        longest.and_then(|limit| refused(Reason::TtlLimit, &what(limit)))
    }

    fn unfit_to_replace(&self, replaced: &str) -> Option<Answer> {
        if replaced.is_empty() {
            return None;
        }
        match self.reservations.get(replaced).map(Reservation::state) {
            None => refused(Reason::ReservationNotFound, ""),
            Some(State::Committed) => refused(Reason::ReservationAlreadyCommitted, ""),
            Some(_) => None,
        }
    }

    /// Units of a SKU that a reservation holds, and would give back if it were replaced.
    fn held_by(&self, id: &str, sku: &str) -> i64 {
        let lines = self.reservations.get(id).into_iter().flat_map(|of| &of.lines);
        lines.filter(|line| line.sku == sku).map(|line| i64::from(line.held)).sum()
    }

    /// The lines that the stock does not cover, together with what the replaced hold gives back.
    pub(super) fn short(&self, lines: &[(String, i32)], replaces: &str) -> Vec<ShortLine> {
        let of = |(sku, quantity): &(String, i32)| ShortLine {
            sku: sku.clone(),
            requested: *quantity,
            available: self.stock.get(sku).map_or(0, |of| of.available) + self.held_by(replaces, sku),
        };
        lines.iter().map(of).filter(|line| line.available < i64::from(line.requested)).collect()
    }

    /// The first limit that the buyer would break, less the units that they return in the same step.
    fn buyer_refusal(&self, lines: &[(String, i32)], buyer: &str, replaces: &str) -> Option<Answer> {
        lines.iter().find_map(|(sku, units)| {
            let limit = self.buyer_limit(sku)?;
            if buyer.is_empty() {
                return refused(Reason::BuyerRequired, sku);
            }
            let counts = self.counts.get(&(sku.clone(), buyer.into())).copied().unwrap_or_default();
            let has = counts - self.counted_in(replaces, sku, buyer);
            let what = [("sku", sku.clone()), ("has", has.to_string()), ("limit", limit.to_string())];
            if has + i64::from(*units) > limit { refused(Reason::BuyerLimit, &about(what)) } else { None }
        })
    }

    /// Held units of a reservation that count for this buyer.
    fn counted_in(&self, id: &str, sku: &str, buyer: &str) -> i64 {
        let Some(of) = self.reservations.get(id).filter(|of| of.buyer_id == buyer) else { return 0 };
        let counted = of.lines.iter().zip(&self.counted[id]).filter(|(line, counts)| line.sku == sku && **counts);
        counted.map(|(line, _)| i64::from(line.held)).sum()
    }

    /// Of a Commit that would repurchase an expired reservation.
    fn late_refusal(&self, expired: &Reservation) -> Option<Answer> {
        if self.purchases.contains_key(&expired.reservation_id) {
            return None;
        }
        let lines = &self.lapsed[&expired.reservation_id];
        let short = self.short(lines, "");
        if !short.is_empty() {
            let line = |line: &ShortLine| format!("{}: {} of {}", line.sku, line.available, line.requested);
            return refused(Reason::LateCommitSoldOut, &short.iter().map(line).collect::<Vec<_>>().join(", "));
        }
        self.buyer_refusal(lines, &expired.buyer_id, "")
    }
}
