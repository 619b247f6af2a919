//! Events and watched counters: messages to types; no I/O.

use inventory_sentinel::v1;

use super::{instant, required_instant, rules::sku_rules, some, state, stock};
use crate::{
    rpc_error::RpcError,
    types::{
        Line, Stock,
        event::{Event, EventKind, LostHistory},
    },
};

pub(crate) fn event(event: v1::Event) -> Result<Event, RpcError> {
    Ok(Event {
        kind: kind(event.kind),
        partition: event.partition,
        sequence: event.sequence,
        occurred_at: required_instant(event.occurred_at, "no occurred_at")?,
        reservation_id: event.reservation_id,
        request_id: some(event.request_id),
        buyer: some(event.buyer_id),
        lines: event.lines.into_iter().map(|line| Line::new(line.sku, line.quantity)).collect(),
        state: (event.state != 0).then(|| state(event.state)),
        rules: event.rules.map(sku_rules).transpose()?,
        rules_version: event.rules_version,
        expires_at: event.expires_at.map(instant).transpose()?,
        sku: event.sku,
        delta: event.delta,
        epoch: event.epoch,
        term: event.term,
        withdrawn: event.withdrawn.into_iter().map(|line| Line::new(line.sku, line.quantity)).collect(),
        lost: event.lost.map(|lost| LostHistory {
            epoch: lost.epoch,
            term: lost.term,
            sequence: lost.sequence,
            kept_sequence: event.kept_sequence,
        }),
    })
}

fn kind(number: i32) -> EventKind {
    use v1::EventKind as Kind;
    match Kind::try_from(number) {
        Ok(Kind::Reserved) => EventKind::Reserved,
        Ok(Kind::Committed) => EventKind::Committed,
        Ok(Kind::RolledBack) => EventKind::RolledBack,
        Ok(Kind::Expired) => EventKind::Expired,
        Ok(Kind::Extended) => EventKind::Extended,
        Ok(Kind::Repurchased) => EventKind::Repurchased,
        Ok(Kind::StockSet) => EventKind::StockSet,
        Ok(Kind::StockAdjusted) => EventKind::StockAdjusted,
        Ok(Kind::SkuConfigured) => EventKind::SkuConfigured,
        Ok(Kind::SkuDeleted) => EventKind::SkuDeleted,
        Ok(Kind::HistoryLost) => EventKind::HistoryLost,
        Ok(Kind::SkuSettled) => EventKind::SkuSettled,
        Ok(Kind::PartitionSettled) => EventKind::PartitionSettled,
        Ok(Kind::Unspecified) | Err(_) => EventKind::Unknown(number),
    }
}

pub(crate) fn watched(sku: v1::WatchedSku) -> Result<(String, Option<Stock>), RpcError> {
    Ok((sku.sku, sku.stock.map(|counters| stock(Some(counters))).transpose()?))
}
