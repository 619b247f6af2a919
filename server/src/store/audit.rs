//! The audit: the books of a partition against its records, exact under full traffic, in bounded reads and bounded
//! memory. Reads records, counters, the deadline index and the event stream; changes nothing.
//!
//! A scan sees what stood still while it ran, for certain; what changed meanwhile is in the event stream. So: note the
//! sequence, scan, note it again, and bring the scan forward by the events in between. The result is the partition at
//! the second number, to the unit.
//!
//! What does not fit into the memory is audited in several passes. The ids of reservations are split into ranges: of a
//! range that is done only the sum per SKU is kept, which later passes bring forward by what each event has moved. SKUs
//! are split in the same way, each range with an audit of its own.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    error::StoreError,
    events::{self, After, Entry, Run},
    keys::PartitionKeys,
    lists::{reservation_in, scan},
    pool::Connection,
    wire::stock_from,
};
use crate::domain::{Finding, FindingKind, Happened, Id, Line, Report, ReservationId, Sku, State, Stock};

/// Records asked for with one HSCAN or ZSCAN.
const SCAN_COUNT: usize = 500;
/// Events read with one XRANGE.
const EVENTS_COUNT: usize = 50;
/// Findings that a report lists.
const MAX_FINDINGS: usize = 1_000;
/// A counter above this was below zero when it was written.
const NEGATIVE: u64 = 1 << 47;
/// Bytes that a SKU takes beside its name, about: a string, an entry of a map with room to grow, a row.
const SKU_BYTES: usize = 160;

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

/// A range of hashes, both ends within.
#[derive(Clone, Copy, Debug)]
struct Range {
    from: u64,
    to: u64,
}

impl Range {
    const ALL: Range = Range { from: 0, to: u64::MAX };

    fn has(self, hash: u64) -> bool {
        (self.from..=self.to).contains(&hash)
    }

    /// Keeps the lower half.
    fn halve(&mut self) -> Result<(), AuditError> {
        if self.from == self.to {
            return Err(AuditError::TooLarge);
        }
        self.to = self.from + (self.to - self.from) / 2;
        Ok(())
    }

    /// All behind it.
    fn rest(self) -> Option<Range> {
        Some(Range { from: self.to.checked_add(1)?, to: u64::MAX })
    }
}

/// Ids are digests, so that any part of one is as good as a hash.
fn hash_of_id(id: &Id) -> u64 {
    id.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

fn hash_of_sku(sku: &Sku) -> u64 {
    // Without a key: the same in each pass.
    let mut hasher = DefaultHasher::new();
    sku.hash(&mut hasher);
    hasher.finish()
}

/// Audits one partition into the report, with about so many bytes of memory.
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
        let mut audit = Audit { partition, memory, at, books: Books::new(range), pending: 0, ids: Range::ALL };
        audit.scan_stock(connection, keys).await?;
        let mut ids = Some(Range::ALL);
        while let Some(range) = ids {
            ids = audit.pass(connection, keys, range, report).await?.rest();
        }
        skus = audit.books.range.rest();
        audit.report(report);
    }
    Ok(())
}

async fn sequence(connection: &mut Connection, keys: &PartitionKeys) -> Result<u64, StoreError> {
    let state = events::state(connection, keys).await?;
    state.map(|state| state.at.sequence).ok_or_else(|| StoreError::corrupt("the state of a partition"))
}

/// The SKUs of a range, each with its counters and with what its reservations hold.
struct Books {
    range: Range,
    places: HashMap<Sku, u32>,
    rows: Vec<Row>,
    bytes: usize,
}

#[derive(Default)]
struct Row {
    /// `None`: there is no such SKU, or not any more.
    counters: Option<Counters>,
    /// What the reservations hold whose ids are in the ranges that are done.
    held: i64,
}

#[derive(Clone, Copy)]
struct Counters {
    available: u64,
    held: u64,
    sold: u64,
    supplied: u64,
}

impl Books {
    fn new(range: Range) -> Self {
        Self { range, places: HashMap::new(), rows: Vec::new(), bytes: 0 }
    }

    fn place(&mut self, sku: &Sku) -> usize {
        if let Some(place) = self.places.get(sku) {
            return *place as usize;
        }
        let place = self.rows.len();
        self.places.insert(sku.clone(), place as u32);
        self.rows.push(Row::default());
        self.bytes += SKU_BYTES + sku.as_str().len();
        place
    }

    /// The row of a SKU, if it is in the range.
    fn row(&mut self, sku: &Sku) -> Option<&mut Row> {
        if !self.range.has(hash_of_sku(sku)) {
            return None;
        }
        let place = self.place(sku);
        self.rows.get_mut(place)
    }

    fn set(&mut self, sku: &Sku, stock: Option<Stock>) {
        let counters = |Stock { available, held, sold, supplied, .. }| Counters { available, held, sold, supplied };
        if let Some(row) = self.row(sku) {
            row.counters = stock.map(counters);
        }
    }

    /// Keeps the lower half, while no hold names a place.
    fn halve(&mut self) -> Result<(), AuditError> {
        self.range.halve()?;
        let (places, rows) = (std::mem::take(&mut self.places), std::mem::take(&mut self.rows));
        self.bytes = 0;
        for (sku, place) in places {
            if let Some(row) = self.row(&sku) {
                row.counters = rows.get(place as usize).and_then(|row| row.counters);
            }
        }
        Ok(())
    }

    /// The units of these lines, by the places of their SKUs.
    fn units(&mut self, lines: impl Iterator<Item = (Sku, u32)>) -> Units {
        let mut units = Vec::new();
        for (sku, number) in lines {
            if number > 0 && self.range.has(hash_of_sku(&sku)) {
                units.push((self.place(&sku) as u32, number));
            }
        }
        match units[..] {
            [(sku, number)] => Units::One(sku, number),
            _ => Units::Many(units.into()),
        }
    }

    fn add(&mut self, place: u32, units: i64) {
        if let Some(row) = self.rows.get_mut(place as usize) {
            row.held += units;
        }
    }
}

/// Units that a reservation holds, by the place of the SKU. Most hold one SKU.
enum Units {
    One(u32, u32),
    Many(Box<[(u32, u32)]>),
}

/// A pending reservation.
struct Hold {
    units: Units,
    deadline: u64,
    /// Whether it was there from the start, so that the scan of the index must have met it.
    seen_from_start: bool,
    /// Whether the index has its deadline.
    is_indexed: bool,
}

/// The pending reservations of a range of ids, within a bound of bytes.
struct Holds {
    range: Range,
    most_bytes: usize,
    /// Bytes beside the map.
    bytes: usize,
    map: HashMap<Id, Hold>,
}

impl Holds {
    fn bytes_of(hold: &Hold) -> usize {
        match &hold.units {
            Units::One(..) => 0,
            Units::Many(units) => size_of_val(&**units) + 16,
        }
    }

    /// Whether another hold fits, also where the map has to grow for it.
    fn has_room(&self) -> bool {
        let capacity = if self.map.len() < self.map.capacity() { self.map.capacity() } else { 2 * self.map.capacity() };
        // A map keeps an eighth free.
        self.bytes + capacity * 8 / 7 * (size_of::<(Id, Hold)>() + 1) <= self.most_bytes
    }

    /// Adds a hold, and keeps the lower half of the range where there is no room.
    fn insert(&mut self, id: Id, hold: Hold) -> Result<(), AuditError> {
        while !self.has_room() {
            self.range.halve()?;
            let range = self.range;
            self.map.retain(|id, _| range.has(hash_of_id(id)));
            self.bytes = self.map.values().map(Self::bytes_of).sum();
            if self.map.is_empty() {
                self.map.shrink_to_fit();
            }
        }
        if self.range.has(hash_of_id(&id)) {
            self.bytes += Self::bytes_of(&hold);
            if let Some(old) = self.map.insert(id, hold) {
                self.bytes -= Self::bytes_of(&old);
            }
        }
        Ok(())
    }

    fn remove(&mut self, id: &Id) {
        if let Some(old) = self.map.remove(id) {
            self.bytes -= Self::bytes_of(&old);
        }
    }
}

/// The audit of a range of SKUs.
struct Audit {
    partition: u16,
    memory: usize,
    /// Everything that was read is brought forward to this sequence.
    at: u64,
    books: Books,
    /// Pending reservations in the ranges of ids that are done.
    pending: i64,
    /// The range of ids of this pass.
    ids: Range,
}

impl Audit {
    /// Whether this is the audit that looks at the reservations themselves.
    fn is_first(&self) -> bool {
        self.books.range.from == 0
    }

    async fn scan_stock(&mut self, connection: &mut Connection, keys: &PartitionKeys) -> Result<(), AuditError> {
        let mut cursor = 0;
        loop {
            let (next, records) = scan(connection, "HSCAN", keys.stock(), cursor, SCAN_COUNT).await?;
            for record in records.chunks_exact(2) {
                let entry = Sku::from_store(&record[0]).zip(stock_from(&record[1]));
                let (sku, stock) = entry.ok_or_else(|| StoreError::corrupt("a stock record"))?;
                self.books.set(&sku, Some(stock));
            }
            while self.books.bytes > self.memory / 2 {
                self.books.halve()?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// One pass over the reservations whose ids are in this range, or in a lower part of it. Returns that part.
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
            if self.books.bytes > self.memory {
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
                    let (units, deadline) = (self.books.units(lines), reservation.expires_at.0);
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

    /// Brings what was read forward by an event.
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
                            let (units, deadline) = (self.books.units(lines), deadline.0);
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
            self.books.set(sku, *stock);
        }
        Ok(())
    }

    /// What an event did to one reservation of a range that is done: of that only the sums are kept.
    fn move_units(&mut self, run: &Run) {
        let (lines, sign): (&[Line], i64) = match &run.happened {
            Happened::Reserved(lines) => (lines, 1),
            Happened::Committed(lines) | Happened::RolledBack(lines) | Happened::Expired(lines) => (lines, -1),
            _ => return,
        };
        for line in lines {
            if let Some(row) = self.books.row(&line.sku) {
                row.held += sign * i64::from(line.quantity.get());
            }
        }
        if sign > 0 {
            self.pending += 1;
        } else if matches!(run.after, After::Resolved(_)) {
            self.pending -= 1;
        }
    }

    /// Ends a pass: its holds become sums.
    fn close(&mut self, holds: &Holds, report: &mut Report) {
        self.pending += holds.map.len() as i64;
        for (&id, hold) in &holds.map {
            match &hold.units {
                Units::One(place, number) => self.books.add(*place, i64::from(*number)),
                Units::Many(units) => {
                    units.iter().for_each(|(place, number)| self.books.add(*place, i64::from(*number)));
                }
            }
            if self.is_first() && hold.seen_from_start && !hold.is_indexed {
                let reservation = Some(ReservationId { id, partition: self.partition });
                find(report, FindingKind::NoDeadline, "", reservation, (hold.deadline, 0));
            }
        }
    }

    /// Compares the counters of each SKU with what its reservations hold.
    fn report(&self, report: &mut Report) {
        for (sku, &place) in &self.books.places {
            let Some(row) = self.books.rows.get(place as usize) else { continue };
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

/// Notes which holds the index will look at when they are due.
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
