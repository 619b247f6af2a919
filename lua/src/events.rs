//! The entries of a partition's event stream as values. `scripts/write/batch.lua` writes them. No I/O.

use crate::bytes::ByteReader;
use crate::codes::{EventKind, NO_STATE, RecordState};
use crate::domain::{BuyerId, Clock, Happened, Id, Line, Sku, State, Stock, StoreTime, Term};
use crate::error::DecodeError;
use crate::records::{configured_from, stock_from};

/// The newest version of the format. Since version 2 an entry has its term, and a run its withdrawn lines. An entry of
/// version 3 has a correction of the time of day; where the correction is 0, version 2 is written.
const VERSION: u8 = 3;

/// The reservations of a run after its changes.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    /// They hold these units until this deadline.
    Holding {
        /// The units of each reservation.
        lines: Vec<Line>,
        /// The deadline.
        deadline: StoreTime,
    },
    /// They hold nothing any more. This state is final.
    Resolved(State),
    /// The run is about no reservation.
    Nothing,
}

/// Changes of one batch that differ only by their reservation and buyer.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// The change of each reservation or SKU.
    pub happened: Happened,
    /// The reservations after it.
    pub after: After,
    /// The lines of each reservation whose units were given back but left the stock.
    pub withdrawn: Vec<Line>,
    /// The changes.
    pub changes: Vec<Change>,
}

/// One change of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// The id of the reservation. A change of stock has an id without meaning.
    pub id: Id,
    /// Its number within the partition.
    pub sequence: u64,
    /// Its buyer; may be empty.
    pub buyer: BuyerId,
}

/// All changes of one script call: the sequences behind `first` up to `last` of the partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// When the call ran, on the partition's clock, which the deadlines in the entry use too.
    pub at: StoreTime,
    /// The correction of that clock for the time of day.
    pub clock: Clock,
    /// The sequence before its first change.
    pub first: u64,
    /// The sequence of its last change.
    pub last: u64,
    /// The term that wrote it, and the first sequence of that term; `None` in a namespace of format 1.
    pub term: Option<(Term, u64)>,
    /// The runs, in their order.
    pub runs: Vec<Run>,
    /// The counters of every changed SKU after the call; `None`: the SKU was deleted.
    pub stock: Vec<(Sku, Option<Stock>)>,
}

impl Entry {
    /// The memory that the entry takes, in bytes; an estimate.
    pub fn memory(&self) -> usize {
        let lines =
            |lines: &[Line]| lines.iter().map(|line| size_of::<Line>() + line.sku.as_str().len()).sum::<usize>();
        let run = |run: &Run| {
            let moved = match &run.happened {
                Happened::Reserved(moved)
                | Happened::Committed(moved)
                | Happened::RolledBack(moved)
                | Happened::Expired(moved)
                | Happened::Extended(moved)
                | Happened::BoughtLate(moved) => lines(moved),
                _ => 0,
            };
            let held = if let After::Holding { lines: held, .. } = &run.after { lines(held) } else { 0 };
            let changes = run.changes.iter().map(|change| size_of::<Change>() + change.buyer.as_str().len());
            size_of::<Run>() + moved + held + lines(&run.withdrawn) + changes.sum::<usize>()
        };
        let stock = self.stock.iter().map(|(sku, _)| size_of::<(Sku, Option<Stock>)>() + sku.as_str().len());
        size_of::<Self>() + self.runs.iter().map(run).sum::<usize>() + stock.sum::<usize>()
    }

    /// Decodes an entry from the id of the stream entry and its one field.
    pub fn decode(id: &str, data: &[u8]) -> Result<Self, DecodeError> {
        let entry = || {
            let last = id.strip_suffix("-0")?.parse().ok()?;
            let mut bytes = ByteReader(data);
            let version = bytes.u8()?;
            let at = StoreTime(bytes.u48()?);
            let clock = Clock { correction: if version > 2 { bytes.i64()? } else { 0 }, ..Clock::default() };
            let first = bytes.u48()?;
            // The sequence from which the numbers count. A settlement moves it ahead of the sequence before the entry.
            let base = if version > 1 { bytes.u48()? } else { first };
            let term = if version > 1 { Some((bytes.term()?, bytes.u48()?)) } else { None };
            let runs = (0..bytes.u16()?).map(|_| run(&mut bytes, base, version)).collect::<Option<_>>()?;
            let mut stock = Vec::new();
            for _ in 0..bytes.u16()? {
                let (sku, record) = (Sku::from_store(bytes.take_u8_prefixed()?)?, bytes.take_u8_prefixed()?);
                let counters = if record.is_empty() { None } else { Some(stock_from(record)?) };
                stock.push((sku, counters));
            }
            bytes.0.is_empty().then_some(Self { at, clock, first, last, term, runs, stock })
        };
        if data.first().is_some_and(|version| *version > VERSION) {
            return Err(DecodeError::newer(format!("event {id}")));
        }
        entry().ok_or_else(|| DecodeError::malformed(format!("event {id}")))
    }
}

fn run(bytes: &mut ByteReader<'_>, base: u64, version: u8) -> Option<Run> {
    let kind = bytes.u8()?;
    let state = bytes.u8()?;
    let deadline = StoreTime(bytes.u48()?);
    let is_named = bytes.u8()? != 0;
    let (moved, rest) = (bytes.take_u16_prefixed()?, bytes.take_u16_prefixed()?);
    let withdrawn = if version > 1 { bytes.take_u16_prefixed()? } else { &[] };
    let withdrawn = if withdrawn.is_empty() { Vec::new() } else { ByteReader(withdrawn).lines()? };
    // A new or an extended hold holds exactly the lines of the event. Any other hold has its lines in `rest`.
    let held = if rest.is_empty() { moved } else { rest };
    let after = match RecordState::from_byte(state) {
        Some(RecordState::Pending) => After::Holding { lines: ByteReader(held).lines()?, deadline },
        Some(RecordState::Committed) => After::Resolved(State::Committed),
        Some(RecordState::RolledBack) => After::Resolved(State::RolledBack),
        Some(RecordState::Expired) => After::Resolved(State::Expired),
        None if state == NO_STATE => After::Nothing,
        _ => return None,
    };
    let lines = || ByteReader(moved).lines();
    let supplied = || {
        let (delta, sku) = moved.split_first_chunk()?;
        Some((Sku::from_store(sku)?, i64::from_be_bytes(*delta)))
    };
    let happened = match EventKind::from_byte(kind)? {
        EventKind::Held => Happened::Reserved(lines()?),
        EventKind::Committed => Happened::Committed(lines()?),
        EventKind::RolledBack => Happened::RolledBack(lines()?),
        EventKind::Expired => Happened::Expired(lines()?),
        EventKind::Extended => Happened::Extended(lines()?),
        EventKind::Repurchased => Happened::BoughtLate(lines()?),
        EventKind::StockSet => supplied().map(|(sku, delta)| Happened::StockSet(sku, delta))?,
        EventKind::StockAdjusted => supplied().map(|(sku, delta)| Happened::StockAdjusted(sku, delta))?,
        EventKind::Configured => {
            let (configured, sku) = configured_from(moved)?;
            Happened::Configured(Sku::from_store(sku)?, configured)
        }
        EventKind::Deleted => Happened::Deleted(Sku::from_store(moved)?),
        EventKind::SkuSettled => supplied().map(|(sku, delta)| Happened::SkuSettled(sku, delta))?,
        EventKind::PartitionSettled => Happened::PartitionSettled,
        EventKind::HistoryLost => {
            let mut lost = ByteReader(moved);
            Happened::HistoryLost(lost.history_point()?, lost.u48()?)
        }
    };
    let number = bytes.u16()?;
    let ids = bytes.take(16 * usize::from(number))?;
    let mut sequences = Vec::with_capacity(number.into());
    for _ in 0..bytes.u16()? {
        let (start, length) = (base + u64::from(bytes.u16()?), bytes.u16()?);
        sequences.extend(start..start + u64::from(length));
    }
    if sequences.len() != usize::from(number) {
        return None;
    }
    let changes = ids
        .chunks_exact(16)
        .zip(sequences)
        .map(|(id, sequence)| {
            let buyer = if is_named { bytes.take_u8_prefixed()? } else { &[] };
            let buyer = BuyerId::parse(String::from_utf8(buyer.to_vec()).ok()?).ok()?;
            Some(Change { id: id.try_into().ok()?, sequence, buyer })
        })
        .collect::<Option<_>>()?;
    Some(Run { happened, after, withdrawn, changes })
}
