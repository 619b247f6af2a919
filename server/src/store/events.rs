//! The entries of the event stream as values; the format is written by `lua/write.lua`. Pure, no I/O.

use super::{
    error::StoreError,
    wire::{Bytes, stock_from},
};
use crate::domain::{Id, Line, Millis, Sku, Stock};

/// The version of the format.
const VERSION: u8 = 1;

/// What happened in a run of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Held,
    Committed,
    RolledBack,
    Expired,
    /// SetStock, AdjustStock or ConfigureSku: no reservation is touched.
    Stock,
}

/// Reservations of one shape to which the same happened in one batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) kind: Kind,
    /// The deadline of what was held.
    pub(crate) deadline: Option<Millis>,
    /// The lines; empty where no reservation is touched.
    pub(crate) lines: Vec<Line>,
    pub(crate) ids: Vec<Id>,
}

/// All that one script call changed, in (`first`, `last`] of the partition's sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) runs: Vec<Run>,
    /// The counters of every SKU that changed, as they were after the call.
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
            let stock = (0..bytes.u16()?)
                .map(|_| Some((Sku::from_store(bytes.short()?)?, stock_from(bytes.take(31)?)?)))
                .collect::<Option<_>>()?;
            bytes.0.is_empty().then_some(Self { first, last, runs, stock })
        };
        entry().ok_or_else(|| StoreError::corrupt(format!("event {id}")))
    }
}

fn run(bytes: &mut Bytes<'_>) -> Option<Run> {
    let kind = match bytes.u8()? {
        b'H' => Kind::Held,
        b'C' => Kind::Committed,
        b'R' => Kind::RolledBack,
        b'E' => Kind::Expired,
        b'S' | b'A' | b'F' => Kind::Stock,
        _ => return None,
    };
    let deadline = if kind == Kind::Held { Some(Millis(bytes.u48()?)) } else { None };
    let length = bytes.u16()?;
    let mut shape = Bytes(bytes.take(length.into())?);
    let lines = if kind == Kind::Stock { Vec::new() } else { shape.lines()? };
    let ids = (0..bytes.u16()?)
        .map(|_| {
            let id = bytes.take(16)?.try_into().ok()?;
            let _place = bytes.u16()?;
            let _buyer = bytes.short()?;
            Some(id)
        })
        .collect::<Option<_>>()?;
    Some(Run { kind, deadline, lines, ids })
}
