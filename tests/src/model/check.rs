//! Whether the fields of a call are well formed. Pure data, no I/O.

use std::time::Duration;

use inventory_sentinel::{Reason, v1::SkuRules};
use inventory_sentinel_script::limits::{MAX_ID_BYTES, MAX_LINES, MAX_SKU_BYTES};

use super::{ANY_TTL, Condition, MAX_QUANTITY, MAX_STOCK, Op, millis, millis_of};

/// Why, and which field.
type Wrong = (Reason, String);

impl Op {
    /// Whether the fields are well formed; if not, why and which.
    pub(super) fn check(&self, longest: Duration) -> Result<(), Wrong> {
        let bad = |reason, field: &str| Err((reason, field.to_owned()));
        match self {
            Op::SetStock { sku, on_hand, condition, request_id } => {
                check_sku(sku, "sku")?;
                if !(0..=MAX_STOCK).contains(on_hand) {
                    return bad(Reason::InvalidStock, "on_hand");
                }
                if let Condition::IfVersion(version) = condition {
                    check_version(*version)?;
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
            Op::ConfigureSku { sku, rules, if_version, .. } => {
                check_sku(sku, "sku")?;
                check_rules(rules)?;
                if_version.map_or(Ok(()), check_version)
            }
            Op::Reserve { request_id, lines, ttl_ms, buyer_id, replaces } => {
                check_request_id(request_id)?;
                check_lines(lines)?;
                if buyer_id.len() > MAX_ID_BYTES || buyer_id.contains(char::is_control) {
                    return bad(Reason::InvalidBuyerId, "buyer_id");
                }
                if !replaces.is_empty() {
                    check_id(replaces, "replaces_reservation_id")?;
                }
                ttl_ms.map_or(Ok(()), |ttl| check_ttl(ttl, longest))
            }
            Op::Commit { reservation_id: id, .. }
            | Op::Rollback { reservation_id: id }
            | Op::GetReservation { reservation_id: id } => check_id(id, "reservation_id"),
            Op::CommitLines { reservation_id: id, lines, request_id, .. }
            | Op::RollbackLines { reservation_id: id, lines, request_id } => {
                check_lines(lines)?;
                check_request_id(request_id)?;
                check_id(id, "reservation_id")
            }
            Op::Extend { reservation_id: id, ttl_ms, request_id } => {
                check_request_id(request_id)?;
                check_ttl(*ttl_ms, ANY_TTL)?;
                check_id(id, "reservation_id")?;
                check_ttl(*ttl_ms, longest)
            }
            Op::GetStock { sku } | Op::GetSku { sku } | Op::DeleteSku { sku, .. } | Op::IsProtected { sku } => {
                check_sku(sku, "sku")
            }
        }
    }
}

fn check_sku(sku: &str, field: &str) -> Result<(), Wrong> {
    if sku.is_empty() {
        Err((Reason::EmptySku, field.into()))
    } else if sku.len() > MAX_SKU_BYTES || sku.contains(char::is_control) {
        Err((Reason::InvalidSku, field.into()))
    } else {
        Ok(())
    }
}

fn check_request_id(id: &str) -> Result<(), Wrong> {
    if id.is_empty() {
        Err((Reason::RequestIdRequired, "request_id".into()))
    } else if !is_identifier(id) {
        Err((Reason::InvalidRequestId, "request_id".into()))
    } else {
        Ok(())
    }
}

fn check_lines(lines: &[(String, i32)]) -> Result<(), Wrong> {
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
    text.len() <= MAX_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check_id(id: &str, field: &str) -> Result<(), Wrong> {
    let is_base64 = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if id.len() == 24 && is_base64 { Ok(()) } else { Err((Reason::InvalidReservationId, field.into())) }
}

fn check_ttl(ttl: i64, longest: Duration) -> Result<(), Wrong> {
    let is_allowed = (1..=longest.as_millis() as i64).contains(&ttl);
    if is_allowed { Ok(()) } else { Err((Reason::InvalidTtl, "ttl".into())) }
}

fn check_version(version: i64) -> Result<(), Wrong> {
    if version >= 0 { Ok(()) } else { Err((Reason::InvalidPolicy, "if_version".into())) }
}

fn check_rules(rules: &SkuRules) -> Result<(), Wrong> {
    let bad = |rule: &str| Err((Reason::InvalidRule, format!("rules.{rule}")));
    let is_limit = |units: i32| (0..=MAX_QUANTITY).contains(&units);
    if *rules == SkuRules::default() {
        return Err((Reason::NoRules, "rules".into()));
    }
    if !rules.max_quantity.is_none_or(is_limit) {
        return bad("max_quantity");
    }
    if rules.max_ttl.is_some_and(|ttl| !(0..=ANY_TTL.as_millis() as i64).contains(&millis_of(ttl))) {
        return bad("max_ttl");
    }
    if !rules.buyer_limit.is_none_or(is_limit) {
        return bad("buyer_limit");
    }
    if millis(rules.opens_at) < 0 { bad("opens_at") } else { Ok(()) }
}
