//! Converts domain values to messages, and the fields that several requests share to domain values.
//! No I/O.
//!
//! - [`sku_rules`][], [`namespace_config`][]: rules and settings, both ways.
//! - [`event`][]: events to messages.

use std::{collections::HashSet, time::Duration};

use inventory_sentinel::{Reason, v1};
use prost_types::Timestamp;

pub(super) mod event;
pub(super) mod namespace_config;
pub(super) mod sku_rules;

use crate::domain::{
    HistoryPoint, Invalid, Line, MAX_LINES, Quantity, Reservation, ReservationId, ReservedLine, Sku, State, Stock,
    StoreTime, Term,
};
use crate::namespaces::Namespace;

/// Decodes the lines of a cart: 1 to [`MAX_LINES`], each SKU once.
pub(super) fn lines(lines: Vec<v1::Line>) -> Result<Vec<Line>, Invalid> {
    if lines.is_empty() {
        return Err(Invalid::new(Reason::NoLines, "lines"));
    }
    if lines.len() > MAX_LINES {
        return Err(Invalid::new(Reason::TooManyLines, "lines"));
    }
    let parsed = lines
        .into_iter()
        .enumerate()
        .map(|(i, line)| {
            Ok(Line {
                sku: Sku::parse(line.sku, "sku").map_err(|invalid| within(i, invalid))?,
                quantity: Quantity::parse(line.quantity, "quantity").map_err(|invalid| within(i, invalid))?,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if parsed.len() > 1 {
        let mut seen = HashSet::new();
        if let Some(i) = parsed.iter().position(|line| !seen.insert(&line.sku)) {
            return Err(within(i, Invalid::new(Reason::DuplicateSku, "sku")));
        }
    }
    Ok(parsed)
}

/// Decodes the field `skus` of a request.
pub(super) fn skus(skus: Vec<String>) -> Result<Vec<Sku>, Invalid> {
    skus.into_iter().enumerate().map(|(i, sku)| Sku::parse(sku, &format!("skus[{i}]"))).collect()
}

/// Adds the index of the line to the name of the invalid field.
fn within(line: usize, invalid: Invalid) -> Invalid {
    Invalid { field: format!("lines[{line}].{}", invalid.field), ..invalid }
}

pub(super) fn reservation(namespace: &Namespace, reservation: Reservation) -> v1::Reservation {
    v1::Reservation {
        reservation_id: reservation.id.encode(),
        request_id: namespace.request_of(reservation.id).unwrap_or_default(),
        namespace_id: namespace.name.as_str().to_owned(),
        state: match reservation.state {
            State::Pending => v1::ReservationState::Pending,
            State::Committed => v1::ReservationState::Committed,
            State::RolledBack => v1::ReservationState::RolledBack,
            State::Expired => v1::ReservationState::Expired,
        }
        .into(),
        lines: reservation.lines.into_iter().map(reserved_line).collect(),
        buyer_id: reservation.buyer.into_string(),
        created_at: Some(timestamp(reservation.created_at)),
        expires_at: Some(timestamp(reservation.expires_at)),
        resolved_at: reservation.resolved_at.map(timestamp),
        origin_reservation_id: reservation.origin.map(ReservationId::encode).unwrap_or_default(),
        purchase_reservation_id: reservation.purchase.map(ReservationId::encode).unwrap_or_default(),
    }
}

fn reserved_line(line: ReservedLine) -> v1::ReservationLine {
    v1::ReservationLine {
        held: line.held() as i32,
        sold: line.sold as i32,
        released: line.released as i32,
        quantity: line.quantity.get() as i32,
        sku: line.sku.into_string(),
    }
}

/// The lines that are short, each with the available units.
pub(super) fn shortage(lines: Vec<(Line, u64)>) -> v1::Shortage {
    v1::Shortage {
        lines: lines
            .into_iter()
            .filter(is_short)
            .map(|(line, available)| v1::ShortLine {
                requested: line.quantity.get() as i32,
                sku: line.sku.into_string(),
                available: available as i64,
            })
            .collect(),
    }
}

/// Whether fewer units are available than the line needs.
pub(super) fn is_short((line, available): &(Line, u64)) -> bool {
    u64::from(line.quantity.get()) > *available
}

pub(super) fn stock(sku: Sku, stock: Stock) -> v1::Stock {
    v1::Stock {
        sku: sku.into_string(),
        available: stock.available as i64,
        held: stock.held as i64,
        sold: stock.sold as i64,
        supplied: stock.supplied as i64,
        version: stock.version as i64,
        is_protected: stock.is_protected,
        is_paused: stock.is_paused,
        withdrawn: stock.withdrawn as i64,
    }
}

pub(super) fn history_point(at: HistoryPoint) -> v1::HistoryPoint {
    let term = if at.term == Term::NONE { String::new() } else { at.term.as_str().to_owned() };
    v1::HistoryPoint { epoch: at.epoch as i64, term, sequence: at.sequence as i64 }
}

pub(super) fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: span.as_secs() as i64, nanos: span.subsec_nanos() as i32 }
}

/// A difference in milliseconds.
pub(super) fn signed_duration(milliseconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: milliseconds / 1_000, nanos: (milliseconds % 1_000) as i32 * 1_000_000 }
}

pub(super) fn timestamp(instant: StoreTime) -> Timestamp {
    Timestamp { seconds: (instant.0 / 1_000) as i64, nanos: (instant.0 % 1_000) as i32 * 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str, quantity: i32) -> v1::Line {
        v1::Line { sku: sku.into(), quantity }
    }

    #[test]
    fn a_bad_line_is_named_by_its_place() {
        for (bad, reason, field) in [
            (vec![], Reason::NoLines, "lines"),
            (vec![line("a", 1); 33], Reason::TooManyLines, "lines"),
            (vec![line("a", 1), line("", 1)], Reason::EmptySku, "lines[1].sku"),
            (vec![line("a", 0)], Reason::InvalidQuantity, "lines[0].quantity"),
            (vec![line("a", -5)], Reason::InvalidQuantity, "lines[0].quantity"),
            (vec![line("a", i32::MAX)], Reason::InvalidQuantity, "lines[0].quantity"),
            (vec![line("a", 1), line("b", 1), line("a", 2)], Reason::DuplicateSku, "lines[2].sku"),
        ] {
            assert_eq!(lines(bad), Err(Invalid::new(reason, field)));
        }
    }

    #[test]
    fn a_shortage_names_only_the_lines_that_fell_short() {
        let cart = lines(vec![line("a", 2), line("b", 3)]).expect("a good cart");
        let lines = cart.into_iter().zip([2, 1]).collect();
        let shortage = shortage(lines);
        assert_eq!(shortage.lines, [v1::ShortLine { sku: "b".into(), requested: 3, available: 1 }]);
    }
}
