//! The event stream of a partition: its entries as values, and reading them. The format is written by
//! `lua/write.lua`.

use deadpool_redis::redis::{self, cmd};

use super::{
    error::StoreError,
    keys::PartitionKeys,
    pool::Connection,
    wire::{Bytes, FOUND_FIELDS, PartitionState, Presence, configured_from, decode_found, state_from, stock_from},
};
use crate::domain::{BuyerId, Clock, Happened, Id, Line, Millis, Sku, State, Stock, Term};

/// The newest version of the format: since version 2 an entry has its term, and a run what was withdrawn; an entry of version 3
/// has a correction of the time of day, and one of version 2 needs none.
const VERSION: u8 = 3;

/// What an event did to the reservations of its run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// They hold these units until this deadline.
    Holding { lines: Vec<Line>, deadline: Millis },
    /// They hold nothing any more, and stand like this for good.
    Resolved(State),
    /// No reservation is touched.
    Nothing,
}

/// Changes of one batch that differ only by whom they happened to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) happened: Happened,
    pub(crate) after: After,
    /// Of what was given back: the lines whose units left the stock, of each reservation.
    pub(crate) withdrawn: Vec<Line>,
    pub(crate) changes: Vec<Change>,
}

/// One change of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Of the reservation; of a change of stock no id that means anything.
    pub(crate) id: Id,
    /// Its number within the partition.
    pub(crate) sequence: u64,
    pub(crate) buyer: BuyerId,
}

/// All that one script call changed, in (`first`, `last`] of the partition's sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// On the partition's clock, as the deadlines in it.
    pub(crate) at: Millis,
    /// Its correction for the time of day.
    pub(crate) clock: Clock,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The term that wrote it, and the first sequence of that term; `None` in a namespace of format 1.
    pub(crate) term: Option<(Term, u64)>,
    pub(crate) runs: Vec<Run>,
    /// The counters of every SKU that changed, as they were after the call; `None`: it is gone.
    pub(crate) stock: Vec<(Sku, Option<Stock>)>,
}

impl Entry {
    /// Bytes of memory that this takes, about.
    pub(crate) fn memory(&self) -> usize {
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

    /// From the id of the stream entry and its one field.
    pub(crate) fn decode(id: &str, data: &[u8]) -> Result<Self, StoreError> {
        let entry = || {
            let last = id.strip_suffix("-0")?.parse().ok()?;
            let mut bytes = Bytes(data);
            let version = bytes.u8()?;
            let at = Millis(bytes.u48()?);
            let clock = Clock { correction: if version > 2 { bytes.i64()? } else { 0 }, ..Clock::default() };
            let first = bytes.u48()?;
            // The numbers count from here, which a settlement moves ahead of the sequence before the entry.
            let base = if version > 1 { bytes.u48()? } else { first };
            let term = if version > 1 { Some((bytes.term()?, bytes.u48()?)) } else { None };
            let runs = (0..bytes.u16()?).map(|_| run(&mut bytes, base, version)).collect::<Option<_>>()?;
            let mut stock = Vec::new();
            for _ in 0..bytes.u16()? {
                let (sku, record) = (Sku::from_store(bytes.short()?)?, bytes.short()?);
                let counters = if record.is_empty() { None } else { Some(stock_from(record)?) };
                stock.push((sku, counters));
            }
            bytes.0.is_empty().then_some(Self { at, clock, first, last, term, runs, stock })
        };
        if data.first().is_some_and(|version| *version > VERSION) {
            return Err(StoreError::Newer { why: format!("event {id}").into() });
        }
        entry().ok_or_else(|| StoreError::corrupt(format!("event {id}")))
    }
}

fn run(bytes: &mut Bytes<'_>, base: u64, version: u8) -> Option<Run> {
    let kind = bytes.u8()?;
    let state = bytes.u8()?;
    let deadline = Millis(bytes.u48()?);
    let is_named = bytes.u8()? != 0;
    let (moved, rest) = (bytes.long()?, bytes.long()?);
    let withdrawn = if version > 1 { bytes.long()? } else { &[] };
    let withdrawn = if withdrawn.is_empty() { Vec::new() } else { Bytes(withdrawn).lines()? };
    // What a new hold holds, and one that was extended, is what the event moved; else it is the rest.
    let held = if rest.is_empty() { moved } else { rest };
    let after = match state {
        b'P' => After::Holding { lines: Bytes(held).lines()?, deadline },
        b'C' => After::Resolved(State::Committed),
        b'R' => After::Resolved(State::RolledBack),
        b'E' => After::Resolved(State::Expired),
        b'-' => After::Nothing,
        _ => return None,
    };
    let lines = || Bytes(moved).lines();
    let supplied = || {
        let (delta, sku) = moved.split_first_chunk()?;
        Some((Sku::from_store(sku)?, i64::from_be_bytes(*delta)))
    };
    let happened = match kind {
        b'H' => Happened::Reserved(lines()?),
        b'C' => Happened::Committed(lines()?),
        b'R' => Happened::RolledBack(lines()?),
        b'E' => Happened::Expired(lines()?),
        b'X' => Happened::Extended(lines()?),
        b'L' => Happened::BoughtLate(lines()?),
        b'S' => supplied().map(|(sku, delta)| Happened::StockSet(sku, delta))?,
        b'A' => supplied().map(|(sku, delta)| Happened::StockAdjusted(sku, delta))?,
        b'F' => {
            let (configured, sku) = configured_from(moved)?;
            Happened::Configured(Sku::from_store(sku)?, configured)
        }
        b'D' => Happened::Deleted(Sku::from_store(moved)?),
        b'U' => supplied().map(|(sku, delta)| Happened::SkuSettled(sku, delta))?,
        b'O' => Happened::PartitionSettled,
        b'V' => {
            let mut lost = Bytes(moved);
            Happened::HistoryLost(lost.history_point()?, lost.u48()?)
        }
        _ => return None,
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
            let buyer = if is_named { bytes.short()? } else { &[] };
            let buyer = BuyerId::parse(String::from_utf8(buyer.to_vec()).ok()?).ok()?;
            Some(Change { id: id.try_into().ok()?, sequence, buyer })
        })
        .collect::<Option<_>>()?;
    Some(Run { happened, after, withdrawn, changes })
}

/// Where a partition stands; `None` if there is no such partition.
pub(crate) async fn state(
    connection: &mut Connection,
    keys: &PartitionKeys,
) -> Result<Option<PartitionState>, StoreError> {
    let reply = connection.send(cmd("HGET").arg(keys.meta()).arg("state")).await?;
    let Some(state): Option<Vec<u8>> = parse(reply)? else { return Ok(None) };
    state_from(&state).map(Some).ok_or_else(|| StoreError::corrupt("the state of a partition"))
}

/// Whether a partition that has no state is being deleted or was: `Some(false)` while that can be given up.
pub(crate) async fn deletion(connection: &mut Connection, keys: &PartitionKeys) -> Result<Option<bool>, StoreError> {
    let found = decode_found(&connection.send(cmd("HMGET").arg(keys.meta()).arg(&FOUND_FIELDS)).await?)?;
    Ok(match found.presence {
        Presence::Deleting { deleting, .. } => Some(deleting.is_final),
        Presence::Absent if !found.deleted.is_empty() => Some(true),
        Presence::Absent | Presence::Live(_) => None,
    })
}

/// So many entries at most of one partition, with changes behind `after` up to `end`, where one is named.
pub(crate) async fn read(
    connection: &mut Connection,
    keys: &PartitionKeys,
    after: u64,
    end: Option<u64>,
    count: usize,
) -> Result<Vec<Entry>, StoreError> {
    let end = end.map_or_else(|| "+".to_owned(), |end| format!("{end}-0"));
    let from = format!("{}-0", after.saturating_add(1));
    let reply = connection.send(cmd("XRANGE").arg(keys.events()).arg(from).arg(end).arg("COUNT").arg(count)).await?;
    decode(parse(reply)?)
}

/// Waits for so long at most for entries behind these places, each in the stream of its partition; so many
/// at most of each.
pub(crate) async fn wait(
    connection: &mut Connection,
    places: &[(PartitionKeys, u64)],
    longest: std::time::Duration,
    count: usize,
) -> Result<Vec<(usize, Vec<Entry>)>, StoreError> {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count).arg("BLOCK").arg(longest.as_millis() as u64).arg("STREAMS");
    places.iter().for_each(|(keys, _)| _ = command.arg(keys.events()));
    places.iter().for_each(|(_, after)| _ = command.arg(format!("{after}-0")));
    let streams: Option<Vec<(String, Raw)>> = parse(connection.send(&command).await?)?;
    let mut read = Vec::new();
    for (key, entries) in streams.unwrap_or_default() {
        let partition = places.iter().position(|(keys, _)| keys.events() == key);
        let partition = partition.ok_or_else(|| StoreError::corrupt("a stream that was not asked for"))?;
        read.push((partition, decode(entries)?));
    }
    Ok(read)
}

/// Entries as Redis has them: id, and field and value.
type Raw = Vec<(String, Vec<Vec<u8>>)>;

fn decode(raw: Raw) -> Result<Vec<Entry>, StoreError> {
    raw.into_iter()
        .map(|(id, fields)| {
            let data = fields.get(1).ok_or_else(|| StoreError::corrupt("an event"))?;
            Entry::decode(&id, data)
        })
        .collect()
}

fn parse<T: redis::FromRedisValue>(reply: redis::Value) -> Result<T, StoreError> {
    redis::from_redis_value(reply).map_err(|error| StoreError::corrupt(error.to_string()))
}
