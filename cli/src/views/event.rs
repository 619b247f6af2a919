//! Events of the feed, as they are printed.

use inventory_sentinel_client::{Event, EventKind, Line, LostHistory};
use serde::Serialize;

use super::{instant, or_nothing, state, stock::RulesView};
use crate::{
    output::Row,
    table::{Column, shown},
};

/// An event, and where to go on behind it.
#[derive(Debug, Serialize)]
pub(crate) struct EventView {
    partition: i32,
    sequence: i64,
    occurred_at: String,
    kind: String,
    reservation_id: Option<String>,
    request_id: Option<String>,
    buyer_id: Option<String>,
    lines: Vec<LineView>,
    state: Option<String>,
    expires_at: Option<String>,
    sku: Option<String>,
    delta: i64,
    epoch: i64,
    term: String,
    withdrawn: Vec<LineView>,
    rules: Option<RulesView>,
    rules_version: i64,
    lost: Option<LostView>,
    kept_sequence: i64,
    /// Null within a response: the stream can go on behind its last event only.
    resume_token: Option<String>,
}

#[derive(Debug, Serialize)]
struct LineView {
    sku: String,
    quantity: i32,
}

#[derive(Debug, Serialize)]
struct LostView {
    epoch: i64,
    term: String,
    sequence: i64,
}

impl EventView {
    pub(crate) fn new(event: Event, resume_token: Option<String>) -> EventView {
        let kept_sequence = event.lost.as_ref().map_or(0, |lost| lost.kept_sequence);
        EventView {
            partition: event.partition,
            sequence: event.sequence,
            occurred_at: instant(event.occurred_at),
            kind: kind(event.kind),
            reservation_id: Some(event.reservation_id).filter(|id| !id.is_empty()),
            request_id: event.request_id,
            buyer_id: event.buyer,
            lines: lines(event.lines),
            state: event.state.map(state),
            expires_at: event.expires_at.map(instant),
            sku: Some(event.sku).filter(|sku| !sku.is_empty()),
            delta: event.delta,
            epoch: event.epoch,
            term: event.term,
            withdrawn: lines(event.withdrawn),
            rules: event.rules.as_ref().map(RulesView::from),
            rules_version: event.rules_version,
            lost: event.lost.map(|LostHistory { epoch, term, sequence, .. }| LostView { epoch, term, sequence }),
            kept_sequence,
            resume_token,
        }
    }
}

impl Row for EventView {
    const COLUMNS: &'static [Column] = &[
        Column::Left("occurred at"),
        Column::Right("partition"),
        Column::Right("sequence"),
        Column::Left("kind"),
        Column::Left("reservation"),
        Column::Left("what"),
    ];

    fn cells(&self) -> Vec<String> {
        let of_stock = self.sku.as_ref().map(|sku| match (self.delta, &self.rules) {
            (0, Some(rules)) => format!("{}: {}", shown(sku), rules.shown()),
            (0, None) => shown(sku),
            (delta, _) => format!("{delta:+} x {}", shown(sku)),
        });
        let of_lines = || self.lines.iter().map(|line| format!("{} x {}", line.quantity, shown(&line.sku)));
        vec![
            self.occurred_at.clone(),
            self.partition.to_string(),
            self.sequence.to_string(),
            self.kind.clone(),
            or_nothing(self.reservation_id.as_ref()),
            of_stock.unwrap_or_else(|| of_lines().collect::<Vec<_>>().join(", ")),
        ]
    }
}

fn lines(lines: Vec<Line>) -> Vec<LineView> {
    lines.into_iter().map(|Line { sku, quantity }| LineView { sku, quantity }).collect()
}

fn kind(kind: EventKind) -> String {
    let name = match kind {
        EventKind::Reserved => "RESERVED",
        EventKind::Committed => "COMMITTED",
        EventKind::RolledBack => "ROLLED_BACK",
        EventKind::Expired => "EXPIRED",
        EventKind::Extended => "EXTENDED",
        EventKind::Repurchased => "REPURCHASED",
        EventKind::StockSet => "STOCK_SET",
        EventKind::StockAdjusted => "STOCK_ADJUSTED",
        EventKind::SkuConfigured => "SKU_CONFIGURED",
        EventKind::SkuDeleted => "SKU_DELETED",
        EventKind::HistoryLost => "HISTORY_LOST",
        EventKind::SkuSettled => "SKU_SETTLED",
        EventKind::PartitionSettled => "PARTITION_SETTLED",
        EventKind::Unknown(number) => return number.to_string(),
        other => return format!("{other:?}"),
    };
    name.to_owned()
}
