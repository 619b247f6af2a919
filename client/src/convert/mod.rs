//! Generated messages to the client's types and back. The only place that imports both; no I/O.
//!
//! - here: reservations, stock, audits. `events`: events. `lists`: pages and bulk outcomes. `rules`: rules and
//!   settings.
//! - `server`: server state and settlements.

mod events;
mod lists;
mod rules;
mod server;

use std::time::{Duration, SystemTime};

use inventory_sentinel::v1;

pub(crate) use self::{
    events::{event, watched},
    rules::{namespace_change, rules_change},
};
use crate::{
    rpc_error::RpcError,
    types::{
        Applied, Audit, Extended, Finding, FindingKind, Line, Reservation, ReservationLine, ShortLine, Snapshot, State,
        Stock,
    },
};

/// Decodes a response into the client's types, or returns which part of it is missing. Not `TryFrom`: some of the
/// types (`Vec`, `bool`) are foreign, and each response has exactly one.
pub(crate) trait Decode {
    type Value;
    fn decode(self) -> Result<Self::Value, RpcError>;
}

/// A duration on the wire. One too long for the wire becomes the longest, which the server refuses.
pub(crate) fn duration(value: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
    }
}

pub(crate) fn line(line: Line) -> v1::Line {
    v1::Line { sku: line.sku, quantity: line.quantity }
}

/// The response to Reserve: a hold, the short lines, or an earlier reservation that is no longer held.
pub(crate) enum Reserved {
    Held(Applied<Reservation>),
    Short(Vec<ShortLine>),
    Purchased(Applied<Reservation>),
    Released(Applied<Reservation>),
}

impl Decode for v1::ReserveResponse {
    type Value = Reserved;
    fn decode(self) -> Result<Reserved, RpcError> {
        use v1::reserve_response::Result as Outcome;
        let applied = |message| applied(reservation(Some(message)), self.replayed, self.sequence);
        match self.result {
            Some(Outcome::Reservation(held)) => applied(held).map(Reserved::Held),
            Some(Outcome::AlreadyPurchased(purchased)) => applied(purchased).map(Reserved::Purchased),
            Some(Outcome::AlreadyReleased(released)) => applied(released).map(Reserved::Released),
            Some(Outcome::Shortage(shortage)) => {
                Ok(Reserved::Short(shortage.lines.into_iter().map(short_line).collect()))
            }
            None => Err(RpcError::malformed("neither reservation nor shortage")),
        }
    }
}

fn applied<T>(value: Result<T, RpcError>, replayed: bool, sequence: i64) -> Result<Applied<T>, RpcError> {
    Ok(Applied { value: value?, replayed, sequence })
}

impl Decode for v1::CommitResponse {
    type Value = Applied<Reservation>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        applied(reservation(self.reservation), self.replayed, self.sequence)
    }
}

impl Decode for v1::RollbackResponse {
    type Value = Applied<Reservation>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        applied(reservation(self.reservation), self.replayed, self.sequence)
    }
}

impl Decode for v1::SetStockResponse {
    type Value = Applied<Stock>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        applied(stock(self.stock), self.replayed, self.sequence)
    }
}

impl Decode for v1::AdjustStockResponse {
    type Value = Applied<Stock>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        applied(stock(self.stock), self.replayed, self.sequence)
    }
}

impl Decode for v1::GetReservationResponse {
    type Value = Snapshot<Reservation>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        Ok(Snapshot { value: reservation(self.reservation)?, sequence: self.sequence })
    }
}

impl Decode for v1::GetStockResponse {
    type Value = Snapshot<Stock>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        Ok(Snapshot { value: stock(self.stock)?, sequence: self.sequence })
    }
}

/// The result of a read of many SKUs; both lists are in the order of the request.
pub(crate) struct StockRead {
    pub(crate) found: Vec<Snapshot<Stock>>,
    pub(crate) unknown: Vec<String>,
}

impl Decode for v1::BatchGetStockResponse {
    type Value = StockRead;
    fn decode(self) -> Result<StockRead, RpcError> {
        let found = self.found.into_iter().map(Decode::decode).collect::<Result<_, _>>()?;
        Ok(StockRead { found, unknown: self.unknown_skus })
    }
}

impl Decode for v1::IsProtectedResponse {
    type Value = bool;
    fn decode(self) -> Result<bool, RpcError> {
        Ok(self.is_protected)
    }
}

impl Decode for v1::ExtendResponse {
    type Value = Applied<Extended>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        let extendable = span(self.extendable.ok_or_else(|| RpcError::malformed("no extendable"))?)?;
        let reservation = reservation(self.reservation)?;
        applied(Ok(Extended { reservation, extendable }), self.replayed, self.sequence)
    }
}

impl Decode for v1::DeleteSkuResponse {
    type Value = Snapshot<Option<Stock>>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        let value = self.stock.map(|last| stock(Some(last))).transpose()?;
        Ok(Snapshot { value, sequence: self.sequence })
    }
}

impl Decode for v1::AuditResponse {
    type Value = Audit;
    fn decode(self) -> Result<Audit, RpcError> {
        Ok(Audit {
            clean: self.clean,
            findings: self.findings.into_iter().map(finding).collect(),
            skus: self.skus,
            pending_reservations: self.pending_reservations,
            available: self.available,
            held: self.held,
            sold: self.sold,
            supplied: self.supplied,
        })
    }
}

fn reservation(message: Option<v1::Reservation>) -> Result<Reservation, RpcError> {
    let message = message.ok_or_else(|| RpcError::malformed("no reservation"))?;
    Ok(Reservation {
        id: message.reservation_id,
        namespace: message.namespace_id,
        state: state(message.state),
        lines: message.lines.into_iter().map(reservation_line).collect(),
        buyer: some(message.buyer_id),
        created_at: required_instant(message.created_at, "no created_at")?,
        expires_at: required_instant(message.expires_at, "no expires_at")?,
        resolved_at: message.resolved_at.map(instant).transpose()?,
        origin: some(message.origin_reservation_id),
        purchase: some(message.purchase_reservation_id),
        request_id: some(message.request_id),
    })
}

fn state(number: i32) -> State {
    match v1::ReservationState::try_from(number) {
        Ok(v1::ReservationState::Pending) => State::Pending,
        Ok(v1::ReservationState::Committed) => State::Committed,
        Ok(v1::ReservationState::RolledBack) => State::RolledBack,
        Ok(v1::ReservationState::Expired) => State::Expired,
        Ok(v1::ReservationState::Unspecified) | Err(_) => State::Unknown(number),
    }
}

pub(crate) fn state_number(state: State) -> i32 {
    match state {
        State::Pending => v1::ReservationState::Pending.into(),
        State::Committed => v1::ReservationState::Committed.into(),
        State::RolledBack => v1::ReservationState::RolledBack.into(),
        State::Expired => v1::ReservationState::Expired.into(),
        State::Unknown(number) => number,
    }
}

fn reservation_line(line: v1::ReservationLine) -> ReservationLine {
    ReservationLine {
        sku: line.sku,
        quantity: line.quantity,
        held: line.held,
        sold: line.sold,
        released: line.released,
    }
}

fn short_line(line: v1::ShortLine) -> ShortLine {
    ShortLine { sku: line.sku, requested: line.requested, available: line.available }
}

fn stock(message: Option<v1::Stock>) -> Result<Stock, RpcError> {
    let message = message.ok_or_else(|| RpcError::malformed("no stock"))?;
    Ok(Stock {
        sku: message.sku,
        available: message.available,
        held: message.held,
        sold: message.sold,
        supplied: message.supplied,
        version: message.version,
        is_protected: message.is_protected,
        is_paused: message.is_paused,
        withdrawn: message.withdrawn,
    })
}

fn finding(finding: v1::AuditFinding) -> Finding {
    use v1::AuditFindingKind as Kind;
    let kind = match Kind::try_from(finding.kind) {
        Ok(Kind::NotConserved) => FindingKind::NotConserved,
        Ok(Kind::Negative) => FindingKind::Negative,
        Ok(Kind::HeldMismatch) => FindingKind::HeldMismatch,
        Ok(Kind::NoDeadline) => FindingKind::NoDeadline,
        Ok(Kind::Unspecified) | Err(_) => FindingKind::Unknown(finding.kind),
    };
    Finding {
        kind,
        sku: some(finding.sku),
        reservation_id: some(finding.reservation_id),
        expected: finding.expected,
        actual: finding.actual,
    }
}

fn required_instant(value: Option<prost_types::Timestamp>, missing: &str) -> Result<SystemTime, RpcError> {
    instant(value.ok_or_else(|| RpcError::malformed(missing))?)
}

pub(crate) fn instant(value: prost_types::Timestamp) -> Result<SystemTime, RpcError> {
    SystemTime::try_from(value).map_err(|_| RpcError::malformed("an instant out of range"))
}

fn span(value: prost_types::Duration) -> Result<Duration, RpcError> {
    Duration::try_from(value).map_err(|_| RpcError::malformed("a duration out of range"))
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn message() -> v1::Reservation {
        v1::Reservation {
            reservation_id: "r".into(),
            namespace_id: "n".into(),
            state: v1::ReservationState::Expired.into(),
            lines: vec![v1::ReservationLine { sku: "a".into(), quantity: 4, held: 1, sold: 2, released: 1 }],
            buyer_id: String::new(),
            created_at: Some(prost_types::Timestamp { seconds: 1, nanos: 2_000_000 }),
            expires_at: Some(prost_types::Timestamp { seconds: 3, nanos: 0 }),
            resolved_at: None,
            origin_reservation_id: "o".into(),
            purchase_reservation_id: "p".into(),
            request_id: "q".into(),
        }
    }

    #[test]
    fn a_reservation_keeps_every_field() {
        let plain = reservation(Some(message())).unwrap();
        assert_eq!(plain.state, State::Expired);
        assert_eq!(plain.buyer, None);
        assert_eq!(plain.created_at, UNIX_EPOCH + Duration::from_millis(1002));
        assert_eq!(plain.expires_at, UNIX_EPOCH + Duration::from_secs(3));
        assert_eq!(plain.resolved_at, None);
        assert_eq!(plain.origin.as_deref(), Some("o"));
        assert_eq!(plain.purchase.as_deref(), Some("p"));
        assert_eq!(plain.request_id.as_deref(), Some("q"));
        let line = &plain.lines[0];
        assert_eq!((line.quantity, line.held, line.sold, line.released), (4, 1, 2, 1));
    }

    #[test]
    fn a_later_servers_state_is_kept_as_its_number() {
        assert_eq!(state(17), State::Unknown(17));
        assert_eq!(state(0), State::Unknown(0));
    }

    #[test]
    fn a_missing_part_is_an_error_and_not_a_panic() {
        let error = v1::ReserveResponse::default().decode().err().unwrap();
        assert!(error.message().contains("neither reservation nor shortage"));
        let mut no_deadline = message();
        no_deadline.expires_at = None;
        assert!(reservation(Some(no_deadline)).is_err());
        let mut beyond = message();
        beyond.created_at = Some(prost_types::Timestamp { seconds: i64::MIN, nanos: 0 });
        assert!(reservation(Some(beyond)).is_err());
        let no_extendable = v1::ExtendResponse { reservation: Some(message()), ..v1::ExtendResponse::default() };
        assert!(no_extendable.decode().is_err());
        assert!(span(prost_types::Duration { seconds: -1, nanos: 0 }).is_err());
    }

    #[test]
    fn the_longest_duration_does_not_wrap() {
        assert_eq!(duration(Duration::MAX).seconds, i64::MAX);
        assert_eq!(duration(Duration::from_millis(1500)).nanos, 500_000_000);
    }
}
