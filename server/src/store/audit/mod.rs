//! The audit of a partition: compares the counters of each SKU with the records of its reservations. It is exact under
//! full traffic, and its reads and its memory are bounded. Reads records, counters, the deadline index and the event
//! stream. Changes nothing.
//!
//! A scan returns each record that does not change while it runs. Each change is in the event stream. So the audit
//! reads the sequence, scans, reads the sequence again, and applies the events in between to the result of the scan.
//! The result is the exact state of the partition at the second sequence.
//!
//! A partition that does not fit into the memory is audited in several passes. Each pass covers a range of reservation
//! ids. After a pass only the sum of held units per SKU is kept, and later passes apply the events of its range to the
//! sum. SKUs are split into ranges too, each with a separate audit.
//!
//! - this file: the passes, and the comparison;
//! - [`range`]: the ranges of ids and SKUs;
//! - [`ledger`]: the counters and the sums of SKUs; [`holds`]: the pending reservations of a pass.

use std::collections::HashMap;

mod holds;
mod ledger;
mod range;

use self::{
    holds::{Hold, Holds},
    ledger::{Counters, Ledger, Units},
    range::{Range, hash_of_id},
};
use super::{
    error::StoreError,
    events::{self, After, Entry, Run},
    keys::PartitionKeys,
    lists::{reservation_in, scan},
    pool::Connection,
    wire::stock_from,
};
use crate::domain::{Finding, FindingKind, Happened, Id, Line, Report, ReservationId, Sku, State};

/// Records requested with one HSCAN or ZSCAN.
const SCAN_COUNT: usize = 500;
/// Events read with one XRANGE.
const EVENTS_COUNT: usize = 50;
/// Findings that a report lists.
const MAX_FINDINGS: usize = 1_000;
/// A counter of at least this was negative when it was written.
const NEGATIVE: u64 = 1 << 47;

/// Why there is no report.
#[derive(Debug)]
pub(crate) enum AuditError {
    Store(StoreError),
    /// The stream was trimmed past the start of the audit while it ran.
    Overtaken,
    /// A part that can't be split further does not fit into the memory of an audit.
    TooLarge,
}

impl From<StoreError> for AuditError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Audits one partition with about `memory` bytes, and adds the result to the report.
pub(crate) async fn partition(
    connection: &mut Connection,
    keys: &PartitionKeys,
    partition: u16,
    memory: usize,
    report: &mut Report,
) -> Result<(), AuditError> {
    let mut skus = Some(Range::ALL);
    while let Some(range) = skus {
        let at = sequence(connection, keys).await?;
        let mut audit = Audit { partition, memory, at, ledger: Ledger::new(range), pending: 0, ids: Range::ALL };
        audit.scan_stock(connection, keys).await?;
        let mut ids = Some(Range::ALL);
        while let Some(range) = ids {
            ids = audit.pass(connection, keys, range, report).await?.rest();
        }
        skus = audit.ledger.range.rest();
        audit.report(report);
    }
    Ok(())
}

async fn sequence(connection: &mut Connection, keys: &PartitionKeys) -> Result<u64, StoreError> {
    let state = events::state(connection, keys).await?;
    state.map(|state| state.at.sequence).ok_or_else(|| StoreError::corrupt("the state of a partition"))
}

/// The audit of a range of SKUs.
struct Audit {
    partition: u16,
    memory: usize,
    /// The sequence up to which all events are applied.
    at: u64,
    ledger: Ledger,
    /// Pending reservations in the finished ranges of ids.
    pending: i64,
    /// The range of ids of this pass.
    ids: Range,
}

impl Audit {
    /// Whether this audit also checks the reservations themselves. Only that of the first range of SKUs does.
    fn is_first(&self) -> bool {
        self.ledger.range.from == 0
    }

    async fn scan_stock(&mut self, connection: &mut Connection, keys: &PartitionKeys) -> Result<(), AuditError> {
        let mut cursor = 0;
        loop {
            let (next, records) = scan(connection, "HSCAN", keys.stock(), cursor, SCAN_COUNT).await?;
            for record in records.chunks_exact(2) {
                let entry = Sku::from_store(&record[0]).zip(stock_from(&record[1]));
                let (sku, stock) = entry.ok_or_else(|| StoreError::corrupt("a stock record"))?;
                self.ledger.set(&sku, Some(stock));
            }
            while self.ledger.bytes > self.memory / 2 {
                self.ledger.halve()?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// One pass over the reservations whose ids are in this range, or in its lower part if they do not fit. Returns the
    /// range that was covered.
    async fn pass(
        &mut self,
        connection: &mut Connection,
        keys: &PartitionKeys,
        ids: Range,
        report: &mut Report,
    ) -> Result<Range, AuditError> {
        self.ids = ids;
        let mut holds = Holds { range: ids, most_bytes: self.memory / 2, bytes: 0, map: HashMap::new() };
        self.scan_holds(connection, keys, &mut holds).await?;
        if self.is_first() {
            scan_deadlines(connection, keys, &mut holds).await?;
        }
        let end = sequence(connection, keys).await?;
        while self.at < end {
            let entries = events::read(connection, keys, self.at, Some(end), EVENTS_COUNT).await?;
            if entries.is_empty() {
                return Err(AuditError::Overtaken);
            }
            for entry in entries {
                if entry.first != self.at {
                    return Err(AuditError::Overtaken);
                }
                self.at = entry.last;
                self.apply(entry, &mut holds)?;
            }
            if self.ledger.bytes > self.memory {
                return Err(AuditError::TooLarge);
            }
        }
        self.close(&holds, report);
        Ok(holds.range)
    }

    async fn scan_holds(
        &mut self,
        connection: &mut Connection,
        keys: &PartitionKeys,
        holds: &mut Holds,
    ) -> Result<(), AuditError> {
        for generation in keys.records() {
            let mut cursor = 0;
            loop {
                let (next, records) = scan(connection, "HSCAN", generation, cursor, SCAN_COUNT).await?;
                for element in records.chunks_exact(2) {
                    let Some(reservation) = reservation_in(self.partition, element)? else { continue };
                    let id = reservation.id.id;
                    if reservation.state != State::Pending || !holds.range.has(hash_of_id(&id)) {
                        continue;
                    }
                    let lines = reservation.lines.into_iter().map(|line| {
                        let held = line.held();
                        (line.sku, held)
                    });
                    let (units, deadline) = (self.ledger.units(lines), reservation.expires_at.0);
                    holds.insert(id, Hold { units, deadline, seen_from_start: true, is_indexed: false })?;
                }
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// Applies an event to the result of the scans.
    fn apply(&mut self, entry: Entry, holds: &mut Holds) -> Result<(), AuditError> {
        for run in &entry.runs {
            for change in &run.changes {
                let hash = hash_of_id(&change.id);
                if hash < self.ids.from {
                    self.move_units(run);
                } else if holds.range.has(hash) {
                    match &run.after {
                        After::Holding { lines, deadline } => {
                            let lines = lines.iter().map(|line| (line.sku.clone(), line.quantity.get()));
                            let (units, deadline) = (self.ledger.units(lines), deadline.0);
                            let hold = Hold { units, deadline, seen_from_start: false, is_indexed: false };
                            holds.insert(change.id, hold)?;
                        }
                        After::Resolved(_) => holds.remove(&change.id),
                        After::Nothing => {}
                    }
                }
            }
        }
        for (sku, stock) in &entry.stock {
            self.ledger.set(sku, *stock);
        }
        Ok(())
    }

    /// Applies an event of a reservation in a finished range, of which only the sums are kept.
    fn move_units(&mut self, run: &Run) {
        let (lines, sign): (&[Line], i64) = match &run.happened {
            Happened::Reserved(lines) => (lines, 1),
            Happened::Committed(lines) | Happened::RolledBack(lines) | Happened::Expired(lines) => (lines, -1),
            _ => return,
        };
        for line in lines {
            if let Some(row) = self.ledger.row(&line.sku) {
                row.held += sign * i64::from(line.quantity.get());
            }
        }
        if sign > 0 {
            self.pending += 1;
        } else if matches!(run.after, After::Resolved(_)) {
            self.pending -= 1;
        }
    }

    /// Ends a pass: adds its holds to the sums.
    fn close(&mut self, holds: &Holds, report: &mut Report) {
        self.pending += holds.map.len() as i64;
        for (&id, hold) in &holds.map {
            match &hold.units {
                Units::One(index, number) => self.ledger.add(*index, i64::from(*number)),
                Units::Many(units) => {
                    units.iter().for_each(|(index, number)| self.ledger.add(*index, i64::from(*number)));
                }
            }
            if self.is_first() && hold.seen_from_start && !hold.is_indexed {
                let reservation = Some(ReservationId { id, partition: self.partition });
                find(report, FindingKind::NoDeadline, "", reservation, (hold.deadline, 0));
            }
        }
    }

    /// Compares the counters of each SKU with the units that its reservations hold.
    fn report(&self, report: &mut Report) {
        for (sku, &index) in &self.ledger.indexes {
            let Some(row) = self.ledger.rows.get(index as usize) else { continue };
            let in_records = u64::try_from(row.held).unwrap_or(0);
            let Some(Counters { available, held, sold, supplied }) = row.counters else {
                if in_records > 0 {
                    find(report, FindingKind::HeldMismatch, sku.as_str(), None, (in_records, 0));
                }
                continue;
            };
            report.skus += 1;
            report.available += available;
            report.held += held;
            report.sold += sold;
            report.supplied += supplied;
            if [available, held, sold, supplied].iter().any(|&counter| counter >= NEGATIVE) {
                find(report, FindingKind::Negative, sku.as_str(), None, (0, 0));
                continue;
            }
            if supplied != available + held + sold {
                find(report, FindingKind::NotConserved, sku.as_str(), None, (available + held + sold, supplied));
            }
            if held != in_records {
                find(report, FindingKind::HeldMismatch, sku.as_str(), None, (in_records, held));
            }
        }
        if self.is_first() {
            report.pending += u64::try_from(self.pending).unwrap_or(0);
        }
    }
}

/// Marks the holds whose deadlines are in the index.
async fn scan_deadlines(
    connection: &mut Connection,
    keys: &PartitionKeys,
    holds: &mut Holds,
) -> Result<(), StoreError> {
    let mut cursor = 0;
    loop {
        let (next, entries) = scan(connection, "ZSCAN", keys.deadlines(), cursor, SCAN_COUNT).await?;
        for entry in entries.chunks_exact(2) {
            let score = std::str::from_utf8(&entry[1]).ok().and_then(|score| score.parse::<f64>().ok());
            let score = score.ok_or_else(|| StoreError::corrupt("an entry of the deadline index"))?;
            for id in entry[0].chunks_exact(16) {
                let id = Id::try_from(id).map_err(|_| StoreError::corrupt("an entry of the deadline index"))?;
                if let Some(hold) = holds.map.get_mut(&id) {
                    hold.is_indexed |= hold.deadline == score as u64;
                }
            }
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

fn find(
    report: &mut Report,
    kind: FindingKind,
    sku: &str,
    reservation: Option<ReservationId>,
    (expected, actual): (u64, u64),
) {
    report.clean = false;
    if report.findings.len() < MAX_FINDINGS {
        report.findings.push(Finding { kind, sku: sku.to_owned(), reservation, expected, actual });
    }
}
