//! The SKUs of one audit: their counters, and the sums of the units that their reservations hold. Pure.

use std::collections::HashMap;

use super::{
    AuditError,
    range::{Range, hash_of_sku},
};
use crate::domain::{Sku, Stock};

/// The memory of a SKU without its name, in bytes, about: a string, an entry of a map with room to grow, a row.
const SKU_BYTES: usize = 160;

/// The SKUs of a range, each with its counters and the sum of the units that its reservations hold.
pub(super) struct Ledger {
    pub(super) range: Range,
    /// The index of the row of each SKU.
    pub(super) indexes: HashMap<Sku, u32>,
    pub(super) rows: Vec<Row>,
    pub(super) bytes: usize,
}

#[derive(Default)]
pub(super) struct Row {
    /// `None`: there is no such SKU, or it was deleted.
    pub(super) counters: Option<Counters>,
    /// The held units of the reservations whose ids are in the finished ranges.
    pub(super) held: i64,
}

#[derive(Clone, Copy)]
pub(super) struct Counters {
    pub(super) available: u64,
    pub(super) held: u64,
    pub(super) sold: u64,
    pub(super) supplied: u64,
}

impl Ledger {
    pub(super) fn new(range: Range) -> Self {
        Self { range, indexes: HashMap::new(), rows: Vec::new(), bytes: 0 }
    }

    fn index(&mut self, sku: &Sku) -> usize {
        if let Some(index) = self.indexes.get(sku) {
            return *index as usize;
        }
        let index = self.rows.len();
        self.indexes.insert(sku.clone(), index as u32);
        self.rows.push(Row::default());
        self.bytes += SKU_BYTES + sku.as_str().len();
        index
    }

    /// The row of a SKU, if it is in the range.
    pub(super) fn row(&mut self, sku: &Sku) -> Option<&mut Row> {
        if !self.range.has(hash_of_sku(sku)) {
            return None;
        }
        let index = self.index(sku);
        self.rows.get_mut(index)
    }

    pub(super) fn set(&mut self, sku: &Sku, stock: Option<Stock>) {
        let counters = |Stock { available, held, sold, supplied, .. }| Counters { available, held, sold, supplied };
        if let Some(row) = self.row(sku) {
            row.counters = stock.map(counters);
        }
    }

    /// Keeps the lower half of the range. Changes the indexes, so no hold may exist yet.
    pub(super) fn halve(&mut self) -> Result<(), AuditError> {
        self.range.halve()?;
        let (indexes, rows) = (std::mem::take(&mut self.indexes), std::mem::take(&mut self.rows));
        self.bytes = 0;
        for (sku, index) in indexes {
            if let Some(row) = self.row(&sku) {
                row.counters = rows.get(index as usize).and_then(|row| row.counters);
            }
        }
        Ok(())
    }

    /// The units of these lines, by the rows of their SKUs.
    pub(super) fn units(&mut self, lines: impl Iterator<Item = (Sku, u32)>) -> Units {
        let mut units = Vec::new();
        for (sku, number) in lines {
            if number > 0 && self.range.has(hash_of_sku(&sku)) {
                units.push((self.index(&sku) as u32, number));
            }
        }
        match units[..] {
            [(sku, number)] => Units::One(sku, number),
            _ => Units::Many(units.into()),
        }
    }

    pub(super) fn add(&mut self, index: u32, units: i64) {
        if let Some(row) = self.rows.get_mut(index as usize) {
            row.held += units;
        }
    }
}

/// The units that a reservation holds, each with the row of its SKU. Most reservations hold one SKU.
pub(super) enum Units {
    One(u32, u32),
    Many(Box<[(u32, u32)]>),
}
