//! Events as messages. No I/O.

use inventory_sentinel::v1;

use super::{self as convert, sku_rules};
use crate::{
    domain::{Happened, Line, ReservationId, Sku, State},
    namespaces::Namespace,
    store::events::{After, Change, Entry, Run},
};

/// The location of one change in an entry: its sequence, its run, and its index in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::service) struct Place {
    pub(in crate::service) sequence: u64,
    run: u32,
    change: u32,
}

/// The changes of an entry after this sequence, in their order. The entry groups similar changes into
/// runs, so they must be sorted.
pub(in crate::service) fn in_order(entry: &Entry, after: u64) -> Vec<Place> {
    let mut places = Vec::new();
    for (run, changes) in (0..).zip(entry.runs.iter().map(|run| &run.changes)) {
        for (change, sequence) in (0..).zip(changes.iter().map(|change| change.sequence)) {
            if sequence > after {
                places.push(Place { sequence, run, change });
            }
        }
    }
    places.sort_unstable();
    places
}

/// One change, as a message.
pub(in crate::service) fn message_at(namespace: &Namespace, partition: u16, entry: &Entry, place: Place) -> v1::Event {
    let run = &entry.runs[place.run as usize];
    message(namespace, partition, entry, run, &run.changes[place.change as usize])
}

fn message(namespace: &Namespace, partition: u16, entry: &Entry, run: &Run, change: &Change) -> v1::Event {
    let (kind, lines, stock) = happened(&run.happened);
    let (state, expires_at) = match &run.after {
        After::Holding { deadline, .. } => {
            (v1::ReservationState::Pending, Some(convert::timestamp(entry.clock.time_of_day(*deadline))))
        }
        After::Resolved(State::Committed) => (v1::ReservationState::Committed, None),
        After::Resolved(State::RolledBack) => (v1::ReservationState::RolledBack, None),
        After::Resolved(State::Expired) => (v1::ReservationState::Expired, None),
        After::Resolved(State::Pending) | After::Nothing => (v1::ReservationState::Unspecified, None),
    };
    let epoch = namespace.epochs[usize::from(partition)];
    let (epoch, term) = entry.term.map_or((0, String::new()), |(term, _)| (epoch, term.as_str().to_owned()));
    let (lost, kept) = match &run.happened {
        Happened::HistoryLost(lost, kept) => (Some(convert::history_point(*lost)), *kept),
        _ => (None, 0),
    };
    let configured = match &run.happened {
        Happened::Configured(_, configured) => *configured,
        _ => None,
    };
    let is_about_reservation = !lines.is_empty();
    let reservation = is_about_reservation.then_some(ReservationId { id: change.id, partition });
    let (sku, delta) = stock.unzip();
    v1::Event {
        partition: partition.into(),
        sequence: change.sequence as i64,
        occurred_at: Some(convert::timestamp(entry.clock.time_of_day(entry.at))),
        kind: kind.into(),
        reservation_id: reservation.map(ReservationId::encode).unwrap_or_default(),
        request_id: reservation.and_then(|id| namespace.request_of(id)).unwrap_or_default(),
        buyer_id: change.buyer.as_str().to_owned(),
        lines: lines.iter().map(line).collect(),
        state: state.into(),
        expires_at,
        sku: sku.map(|sku| sku.as_str().to_owned()).unwrap_or_default(),
        delta: delta.unwrap_or(0),
        epoch: epoch as i64,
        term,
        withdrawn: run.withdrawn.iter().map(line).collect(),
        lost,
        kept_sequence: kept as i64,
        rules: configured.map(|configured| sku_rules::encode(&configured)),
        rules_version: configured.map_or(0, |configured| configured.rules.revision as i64),
    }
}

/// The kind of an event, and the lines whose units moved. For a change of a SKU instead of lines: the
/// SKU, and the difference of its stock.
fn happened(happened: &Happened) -> (v1::EventKind, &[Line], Option<(&Sku, i64)>) {
    use v1::EventKind as Kind;
    match happened {
        Happened::Reserved(lines) => (Kind::Reserved, lines, None),
        Happened::Committed(lines) => (Kind::Committed, lines, None),
        Happened::RolledBack(lines) => (Kind::RolledBack, lines, None),
        Happened::Expired(lines) => (Kind::Expired, lines, None),
        Happened::Extended(lines) => (Kind::Extended, lines, None),
        Happened::BoughtLate(lines) => (Kind::Repurchased, lines, None),
        Happened::StockSet(sku, delta) => (Kind::StockSet, &[], Some((sku, *delta))),
        Happened::StockAdjusted(sku, delta) => (Kind::StockAdjusted, &[], Some((sku, *delta))),
        Happened::Configured(sku, _) => (Kind::SkuConfigured, &[], Some((sku, 0))),
        Happened::Deleted(sku) => (Kind::SkuDeleted, &[], Some((sku, 0))),
        Happened::HistoryLost(..) => (Kind::HistoryLost, &[], None),
        Happened::SkuSettled(sku, delta) => (Kind::SkuSettled, &[], Some((sku, *delta))),
        Happened::PartitionSettled => (Kind::PartitionSettled, &[], None),
    }
}

fn line(line: &Line) -> v1::Line {
    v1::Line { sku: line.sku.as_str().to_owned(), quantity: line.quantity.get() as i32 }
}
