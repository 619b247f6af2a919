//! The audit: the books of a partition against its records, exact under full traffic, in bounded
//! reads. Reads records, counters, the deadline index and the event stream; changes nothing.
//!
//! A scan sees what stood still while it ran, for certain; what changed meanwhile is in the event
//! stream. So: note the sequence, scan, note it again, and carry the scan forward by the events in
//! between. The result is the partition at the second number, to the unit.

use std::collections::HashMap;

use super::{
    error::StoreError,
    events::{self, After, Change, Entry},
    keys::PartitionKeys,
    lists::{reservation_in, scan},
    pool::Connection,
    wire::stock_from,
};
use crate::domain::{Finding, FindingKind, Id, Report, ReservationId, Sku, State, Stock};

/// Records asked for with one HSCAN or ZSCAN.
const SCAN_COUNT: usize = 500;
/// Events read with one XRANGE.
const EVENTS_COUNT: usize = 50;
/// Findings that a report lists.
const MAX_FINDINGS: usize = 1_000;
/// A counter above this was below zero when it was written.
const NEGATIVE: u64 = 1 << 47;

/// Why there is no report.
#[derive(Debug)]
pub(crate) enum AuditError {
    Store(StoreError),
    /// The stream was trimmed past the start of the audit while it ran.
    Overtaken,
}

impl From<StoreError> for AuditError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

struct Pending {
    /// Units that are held, by SKU.
    units: Vec<(Sku, u32)>,
    deadline: u64,
    /// Whether it was there from the start, so that the scan of the index must have met it.
    seen_from_start: bool,
}

/// Audits one partition into the report.
pub(crate) async fn partition(
    connection: &mut Connection,
    keys: &PartitionKeys,
    partition: u16,
    report: &mut Report,
) -> Result<(), AuditError> {
    let start = sequence(connection, keys).await?;
    let mut pending = scan_holds(connection, keys, partition).await?;
    let deadlines = scan_deadlines(connection, keys).await?;
    let mut stock = scan_stock(connection, keys).await?;
    let end = sequence(connection, keys).await?;
    carry_forward(connection, keys, (start, end), &mut pending, &mut stock).await?;
    compare(partition, &pending, &deadlines, &stock, report);
    Ok(())
}

async fn sequence(connection: &mut Connection, keys: &PartitionKeys) -> Result<u64, StoreError> {
    let state = events::state(connection, keys).await?;
    state.map(|state| state.at.sequence).ok_or_else(|| StoreError::corrupt("the state of a partition"))
}

async fn scan_holds(
    connection: &mut Connection,
    keys: &PartitionKeys,
    partition: u16,
) -> Result<HashMap<Id, Pending>, StoreError> {
    let mut pending = HashMap::new();
    for generation in keys.records() {
        let mut cursor = 0;
        loop {
            let (next, records) = scan(connection, "HSCAN", generation, cursor, SCAN_COUNT).await?;
            for element in records.chunks_exact(2) {
                let Some(reservation) = reservation_in(partition, element)? else { continue };
                if reservation.state != State::Pending {
                    continue;
                }
                let (id, deadline) = (reservation.id.id, reservation.expires_at.0);
                let units = units(reservation.lines.into_iter().map(|line| {
                    let held = line.held();
                    (line.line.sku, held)
                }));
                pending.insert(id, Pending { units, deadline, seen_from_start: true });
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    Ok(pending)
}

/// The deadlines at which the index will look at each reservation.
async fn scan_deadlines(
    connection: &mut Connection,
    keys: &PartitionKeys,
) -> Result<HashMap<Id, Vec<u64>>, StoreError> {
    let mut deadlines: HashMap<Id, Vec<u64>> = HashMap::new();
    let mut cursor = 0;
    loop {
        let (next, entries) = scan(connection, "ZSCAN", keys.deadlines(), cursor, SCAN_COUNT).await?;
        for entry in entries.chunks_exact(2) {
            let score = std::str::from_utf8(&entry[1]).ok().and_then(|score| score.parse::<f64>().ok());
            let score = score.ok_or_else(|| StoreError::corrupt("an entry of the deadline index"))?;
            for id in entry[0].chunks_exact(16) {
                let id = Id::try_from(id).map_err(|_| StoreError::corrupt("an entry of the deadline index"))?;
                deadlines.entry(id).or_default().push(score as u64);
            }
        }
        if next == 0 {
            return Ok(deadlines);
        }
        cursor = next;
    }
}

async fn scan_stock(connection: &mut Connection, keys: &PartitionKeys) -> Result<HashMap<Sku, Stock>, StoreError> {
    let mut stock = HashMap::new();
    let mut cursor = 0;
    loop {
        let (next, records) = scan(connection, "HSCAN", keys.stock(), cursor, SCAN_COUNT).await?;
        for record in records.chunks_exact(2) {
            let entry = Sku::from_store(&record[0]).zip(stock_from(&record[1]));
            let (sku, counters) = entry.ok_or_else(|| StoreError::corrupt("a stock record"))?;
            stock.insert(sku, counters);
        }
        if next == 0 {
            return Ok(stock);
        }
        cursor = next;
    }
}

/// Applies the events of (start, end] to what was scanned.
async fn carry_forward(
    connection: &mut Connection,
    keys: &PartitionKeys,
    (start, end): (u64, u64),
    pending: &mut HashMap<Id, Pending>,
    stock: &mut HashMap<Sku, Stock>,
) -> Result<(), AuditError> {
    let mut at = start;
    while at < end {
        let entries = events::read(connection, keys, at, Some(end), EVENTS_COUNT).await?;
        if entries.is_empty() {
            return Err(AuditError::Overtaken);
        }
        for entry in entries {
            if entry.first != at {
                return Err(AuditError::Overtaken);
            }
            at = entry.last;
            apply(entry, pending, stock);
        }
    }
    Ok(())
}

fn apply(entry: Entry, pending: &mut HashMap<Id, Pending>, stock: &mut HashMap<Sku, Stock>) {
    for run in entry.runs {
        for Change { id, .. } in run.changes {
            match &run.after {
                After::Holding { lines, deadline } => {
                    let units = units(lines.iter().map(|line| (line.sku.clone(), line.quantity.get())));
                    pending.insert(id, Pending { units, deadline: deadline.0, seen_from_start: false });
                }
                After::Resolved(_) => {
                    pending.remove(&id);
                }
                After::Nothing => {}
            }
        }
    }
    for (sku, counters) in entry.stock {
        match counters {
            Some(counters) => _ = stock.insert(sku, counters),
            None => _ = stock.remove(&sku),
        }
    }
}

fn units(lines: impl Iterator<Item = (Sku, u32)>) -> Vec<(Sku, u32)> {
    lines.filter(|(_, units)| *units > 0).collect()
}

fn compare(
    partition: u16,
    pending: &HashMap<Id, Pending>,
    deadlines: &HashMap<Id, Vec<u64>>,
    stock: &HashMap<Sku, Stock>,
    report: &mut Report,
) {
    let mut find = |kind, sku: &str, reservation: Option<ReservationId>, expected: u64, actual: u64| {
        report.clean = false;
        if report.findings.len() < MAX_FINDINGS {
            let sku = sku.to_owned();
            report.findings.push(Finding { kind, sku, reservation, expected, actual });
        }
    };
    let mut held: HashMap<&Sku, u64> = HashMap::new();
    for (&id, hold) in pending {
        for (sku, units) in &hold.units {
            *held.entry(sku).or_default() += u64::from(*units);
        }
        let covered = deadlines.get(&id).is_some_and(|scores| scores.contains(&hold.deadline));
        if hold.seen_from_start && !covered {
            let reservation = Some(ReservationId { id, partition });
            find(FindingKind::NoDeadline, "", reservation, hold.deadline, 0);
        }
    }
    for (sku, counters) in stock {
        let Stock { available, held: in_books, sold, supplied, .. } = *counters;
        if [available, in_books, sold, supplied].iter().any(|&counter| counter >= NEGATIVE) {
            find(FindingKind::Negative, sku.as_str(), None, 0, 0);
            continue;
        }
        if supplied != available + in_books + sold {
            find(FindingKind::NotConserved, sku.as_str(), None, available + in_books + sold, supplied);
        }
        let in_records = held.remove(sku).unwrap_or(0);
        if in_books != in_records {
            find(FindingKind::HeldMismatch, sku.as_str(), None, in_records, in_books);
        }
    }
    for (sku, &in_records) in &held {
        find(FindingKind::HeldMismatch, sku.as_str(), None, in_records, 0);
    }
    report.skus += stock.len() as u64;
    report.pending += pending.len() as u64;
    for counters in stock.values() {
        report.available += counters.available;
        report.held += counters.held;
        report.sold += counters.sold;
        report.supplied += counters.supplied;
    }
}
