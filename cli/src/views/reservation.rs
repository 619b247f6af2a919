//! Reservations, as they are printed.

use inventory_sentinel_client::{Reservation, ReservationLine};
use serde::Serialize;

use super::{instant, or_nothing, state};
use crate::{
    output::Row,
    table::{Column, shown},
};

/// A reservation.
#[derive(Debug, Serialize)]
pub(crate) struct ReservationView {
    pub(crate) reservation_id: String,
    request_id: Option<String>,
    namespace_id: String,
    pub(crate) state: String,
    lines: Vec<LineView>,
    buyer_id: Option<String>,
    created_at: String,
    expires_at: String,
    resolved_at: Option<String>,
    origin_reservation_id: Option<String>,
    purchase_reservation_id: Option<String>,
}

/// One line of a reservation.
#[derive(Debug, Serialize)]
struct LineView {
    sku: String,
    quantity: i32,
    held: i32,
    sold: i32,
    released: i32,
}

impl From<&ReservationLine> for LineView {
    fn from(line: &ReservationLine) -> Self {
        LineView {
            sku: line.sku.clone(),
            quantity: line.quantity,
            held: line.held,
            sold: line.sold,
            released: line.released,
        }
    }
}

impl From<&Reservation> for ReservationView {
    fn from(held: &Reservation) -> Self {
        ReservationView {
            reservation_id: held.id.clone(),
            request_id: held.request_id.clone(),
            namespace_id: held.namespace.clone(),
            state: state(held.state),
            lines: held.lines.iter().map(LineView::from).collect(),
            buyer_id: held.buyer.clone(),
            created_at: instant(held.created_at),
            expires_at: instant(held.expires_at),
            resolved_at: held.resolved_at.map(instant),
            origin_reservation_id: held.origin.clone(),
            purchase_reservation_id: held.purchase.clone(),
        }
    }
}

impl ReservationView {
    /// Units that are still held.
    pub(crate) fn held(&self) -> i64 {
        self.lines.iter().map(|line| i64::from(line.held)).sum()
    }

    /// The SKUs and their units, for people.
    pub(crate) fn what(&self) -> String {
        let lines = self.lines.iter().map(|line| format!("{} x {}", line.quantity, shown(&line.sku)));
        lines.collect::<Vec<_>>().join(", ")
    }

    /// All that is known of it, a line each.
    pub(crate) fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![
            ("reservation", self.reservation_id.clone()),
            ("request id", or_nothing(self.request_id.as_deref().map(shown))),
            ("namespace", shown(&self.namespace_id)),
            ("state", self.state.clone()),
            ("buyer", or_nothing(self.buyer_id.as_deref().map(shown))),
            ("created at", self.created_at.clone()),
            ("expires at", self.expires_at.clone()),
            ("resolved at", or_nothing(self.resolved_at.as_ref())),
            ("origin", or_nothing(self.origin_reservation_id.as_ref())),
            ("purchase", or_nothing(self.purchase_reservation_id.as_ref())),
        ];
        details.extend(self.lines.iter().map(|line| {
            let LineView { sku, quantity, held, sold, released } = line;
            ("line", format!("{quantity} x {}: {held} held, {sold} sold, {released} released", shown(sku)))
        }));
        details
    }
}

impl Row for ReservationView {
    const COLUMNS: &'static [Column] = &[
        Column::Left("reservation"),
        Column::Left("request id"),
        Column::Left("state"),
        Column::Left("buyer"),
        Column::Left("created at"),
        Column::Left("expires at"),
        Column::Left("lines"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.reservation_id.clone(),
            or_nothing(self.request_id.as_deref().map(shown)),
            self.state.clone(),
            or_nothing(self.buyer_id.as_deref().map(shown)),
            self.created_at.clone(),
            self.expires_at.clone(),
            self.what(),
        ]
    }
}
