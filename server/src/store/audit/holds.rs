//! The pending reservations of one pass, within a bound of memory. Pure.

use std::collections::HashMap;

use super::{
    AuditError,
    ledger::Units,
    range::{Range, hash_of_id},
};
use crate::domain::Id;

/// A pending reservation.
pub(super) struct Hold {
    pub(super) units: Units,
    pub(super) deadline: u64,
    /// Whether it existed before the scan of the index, which must therefore contain it.
    pub(super) seen_from_start: bool,
    /// Whether the index contains its deadline.
    pub(super) is_indexed: bool,
}

/// The pending reservations of a range of ids. Its memory is bounded.
pub(super) struct Holds {
    pub(super) range: Range,
    pub(super) most_bytes: usize,
    /// Bytes outside of the map.
    pub(super) bytes: usize,
    pub(super) map: HashMap<Id, Hold>,
}

impl Holds {
    fn bytes_of(hold: &Hold) -> usize {
        match &hold.units {
            Units::One(..) => 0,
            Units::Many(units) => size_of_val(&**units) + 16,
        }
    }

    /// Whether another hold fits, even if the map has to grow for it.
    fn has_room(&self) -> bool {
        let capacity = if self.map.len() < self.map.capacity() { self.map.capacity() } else { 2 * self.map.capacity() };
        // A map keeps an eighth free.
        self.bytes + capacity * 8 / 7 * (size_of::<(Id, Hold)>() + 1) <= self.most_bytes
    }

    /// Adds a hold. While there is no room, drops the upper half of the range.
    pub(super) fn insert(&mut self, id: Id, hold: Hold) -> Result<(), AuditError> {
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

    pub(super) fn remove(&mut self, id: &Id) {
        if let Some(old) = self.map.remove(id) {
            self.bytes -= Self::bytes_of(&old);
        }
    }
}
