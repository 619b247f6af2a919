//! The rules of a SKU, to and from messages. No I/O.

use std::time::Duration as StdDuration;

use inventory_sentinel::{Reason, v1};
use prost_types::{Duration, Timestamp};

use super::{duration, timestamp};
use crate::domain::{Configured, Invalid, MAX_QUANTITY, RulesChange, Sku, Stock, StoreTime, whole_millis};

/// The latest instant of a sale window, ms since 1970: the year 9999, the last that Timestamp has.
const LATEST: u64 = 253_402_300_799_999;
/// The longest ttl of a rule, in milliseconds: 30 days.
const LONGEST_TTL: u64 = 30 * 24 * 60 * 60 * 1_000;

/// The rules to change; at least one.
pub(in crate::service) fn decode_change(rules: Option<v1::SkuRules>) -> Result<RulesChange, Invalid> {
    let v1::SkuRules { is_protected, max_quantity, max_ttl, buyer_limit, opens_at, closes_at, is_paused } =
        rules.unwrap_or_default();
    let change = RulesChange {
        is_protected,
        max_quantity: max_quantity.map(|units| limit(units, "rules.max_quantity")).transpose()?,
        max_ttl: max_ttl.map(longest_ttl).transpose()?,
        buyer_limit: buyer_limit.map(|units| limit(units, "rules.buyer_limit")).transpose()?,
        opens_at: opens_at.map(|at| instant(at, "rules.opens_at")).transpose()?,
        closes_at: closes_at.map(|at| instant(at, "rules.closes_at")).transpose()?,
        is_paused,
    };
    if change == RulesChange::default() {
        return Err(Invalid::new(Reason::NoRules, "rules"));
    }
    Ok(change)
}

fn limit(units: i32, field: &str) -> Result<u32, Invalid> {
    match u32::try_from(units) {
        Ok(units @ 0..=MAX_QUANTITY) => Ok(units),
        _ => Err(Invalid::new(Reason::InvalidRule, field)),
    }
}

fn longest_ttl(ttl: Duration) -> Result<u64, Invalid> {
    let millis = whole_millis(ttl.seconds, ttl.nanos);
    millis.filter(|millis| *millis <= LONGEST_TTL).ok_or_else(|| Invalid::new(Reason::InvalidRule, "rules.max_ttl"))
}

fn instant(at: Timestamp, field: &str) -> Result<StoreTime, Invalid> {
    let millis = whole_millis(at.seconds, at.nanos);
    millis.filter(|millis| *millis <= LATEST).map(StoreTime).ok_or_else(|| Invalid::new(Reason::InvalidRule, field))
}

/// The fields that every response with a whole SKU has.
pub(in crate::service) struct SkuView {
    pub(in crate::service) stock: Option<v1::Stock>,
    pub(in crate::service) rules: Option<v1::SkuRules>,
    pub(in crate::service) rules_version: i64,
}

pub(in crate::service) fn sku_view(sku: Sku, stock: Stock) -> SkuView {
    let Stock { is_protected, is_paused, rules, .. } = stock;
    SkuView {
        rules: Some(encode(&Configured { is_protected, is_paused, rules })),
        rules_version: rules.revision as i64,
        stock: Some(super::stock(sku, stock)),
    }
}

/// All rules of a SKU.
pub(in crate::service) fn encode(configured: &Configured) -> v1::SkuRules {
    let rules = &configured.rules;
    let set = |at: StoreTime| (at.0 > 0).then(|| timestamp(at));
    v1::SkuRules {
        is_protected: Some(configured.is_protected),
        max_quantity: Some(rules.max_quantity as i32),
        max_ttl: Some(duration(StdDuration::from_millis(rules.max_ttl))),
        buyer_limit: Some(rules.buyer_limit as i32),
        opens_at: set(rules.opens_at),
        closes_at: set(rules.closes_at),
        is_paused: Some(configured.is_paused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_out_of_range_is_named() {
        let refused = |rules| decode_change(Some(rules)).map_err(|invalid| (invalid.reason, invalid.field));
        assert_eq!(refused(v1::SkuRules::default()), Err((Reason::NoRules, "rules".into())));
        let rules = v1::SkuRules { max_quantity: Some(-1), ..Default::default() };
        assert_eq!(refused(rules), Err((Reason::InvalidRule, "rules.max_quantity".into())));
        let rules = v1::SkuRules { buyer_limit: Some(1_000_001), ..Default::default() };
        assert_eq!(refused(rules), Err((Reason::InvalidRule, "rules.buyer_limit".into())));
        let rules = v1::SkuRules { max_ttl: Some(Duration { seconds: 1, nanos: -1 }), ..Default::default() };
        assert_eq!(refused(rules), Err((Reason::InvalidRule, "rules.max_ttl".into())));
        let rules = v1::SkuRules { opens_at: Some(Timestamp { seconds: -1, nanos: 0 }), ..Default::default() };
        assert_eq!(refused(rules), Err((Reason::InvalidRule, "rules.opens_at".into())));
        let rules = v1::SkuRules { closes_at: Some(Timestamp { seconds: i64::MAX, nanos: 0 }), ..Default::default() };
        assert_eq!(refused(rules), Err((Reason::InvalidRule, "rules.closes_at".into())));
    }
}
