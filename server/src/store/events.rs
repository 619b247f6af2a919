//! The entries of the event stream as values; the format is written by `lua/write.lua`. Pure, no I/O.

use super::{
    error::StoreError,
    wire::{Bytes, stock_from},
};
use crate::domain::{Id, Line, Millis, Sku, Stock};

/// The version of the format.
const VERSION: u8 = 1;

/// What an event did to the reservations of its run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// They hold these units until this deadline.
    Holding { lines: Vec<Line>, deadline: Millis },
    /// They hold nothing any more.
    Resolved,
    /// No reservation is touched.
    Nothing,
}

/// Reservations to which the same happened in one batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) after: After,
    /// The SKU that is gone with this event.
    pub(crate) deleted: Option<Sku>,
    pub(crate) ids: Vec<Id>,
}

/// All that one script call changed, in (`first`, `last`] of the partition's sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) runs: Vec<Run>,
    /// The counters of every SKU that changed and is still there, as they were after the call.
    pub(crate) stock: Vec<(Sku, Stock)>,
}

impl Entry {
    /// From the id of the stream entry and its one field.
    pub(crate) fn decode(id: &str, data: &[u8]) -> Result<Self, StoreError> {
        let entry = || {
            let last = id.strip_suffix("-0")?.parse().ok()?;
            let mut bytes = Bytes(data);
            if bytes.u8()? != VERSION {
                return None;
            }
            let _now = bytes.u48()?;
            let first = bytes.u48()?;
            let runs = (0..bytes.u16()?).map(|_| run(&mut bytes)).collect::<Option<_>>()?;
            let mut stock = Vec::new();
            for _ in 0..bytes.u16()? {
                let (sku, record) = (Sku::from_store(bytes.short()?)?, bytes.short()?);
                if !record.is_empty() {
                    stock.push((sku, stock_from(record)?));
                }
            }
            bytes.0.is_empty().then_some(Self { first, last, runs, stock })
        };
        entry().ok_or_else(|| StoreError::corrupt(format!("event {id}")))
    }
}

fn run(bytes: &mut Bytes<'_>) -> Option<Run> {
    let kind = bytes.u8()?;
    let state = bytes.u8()?;
    let deadline = Millis(bytes.u48()?);
    let (moved, rest) = (bytes.long()?, bytes.long()?);
    // What a new hold holds, and one that was extended, is what the event moved; else it is the rest.
    let held = if rest.is_empty() { moved } else { rest };
    let after = match state {
        b'P' => After::Holding { lines: Bytes(held).lines()?, deadline },
        b'C' | b'R' | b'E' => After::Resolved,
        b'-' => After::Nothing,
        _ => return None,
    };
    let deleted = if kind == b'D' { Some(Sku::from_store(moved)?) } else { None };
    let ids = (0..bytes.u16()?)
        .map(|_| {
            let id = bytes.take(16)?.try_into().ok()?;
            let _place = bytes.u16()?;
            let _buyer = bytes.short()?;
            Some(id)
        })
        .collect::<Option<_>>()?;
    Some(Run { after, deleted, ids })
}
