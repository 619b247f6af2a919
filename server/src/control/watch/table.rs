//! The current state of every SKU of a namespace, ordered by its last change. Pure: no I/O, no
//! waiting.
//!
//! The changes since a position are one lookup, so the table keeps no state for a stream. Deleted
//! SKUs stay for a while, so that streams can report them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Position;
use crate::domain::{Sku, Stock};

/// Most deleted SKUs that are kept.
pub(super) const MAX_GONE: usize = 100_000;

/// The index of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexKind {
    Any,
    /// Only changes of protection.
    Protection,
}

#[derive(Debug)]
struct Row {
    partition: u16,
    /// `None`: the SKU was deleted.
    stock: Option<Stock>,
    changed: u64,
    /// The last known change of its protection; 0: never.
    protection_changed: u64,
}

impl Row {
    fn is_protected(&self) -> bool {
        self.stock.is_some_and(|stock| stock.is_protected)
    }
}

/// The SKUs of one partition by their last change. The SKUs of one cart change together.
#[derive(Debug, Default)]
struct Index(BTreeMap<u64, Vec<Sku>>);

impl Index {
    fn insert(&mut self, at: u64, sku: &Sku) {
        self.0.entry(at).or_default().push(sku.clone());
    }

    fn remove(&mut self, at: u64, sku: &Sku) {
        if let Some(skus) = self.0.get_mut(&at) {
            skus.retain(|other| other != sku);
            if skus.is_empty() {
                self.0.remove(&at);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Table {
    rows: HashMap<Sku, Row>,
    changed: Vec<Index>,
    protection_changed: Vec<Index>,
    gone: VecDeque<(Sku, u64)>,
    /// The table contains everything up to this position.
    position: Position,
    /// The changes since a position before this are not complete.
    horizon: Position,
}

/// The current state of some SKUs.
pub(super) type Rows = Vec<(Sku, Option<Stock>)>;

impl Table {
    /// An empty table at this position, before it is loaded.
    pub(super) fn new(position: Position) -> Self {
        let indexes = || position.0.iter().map(|_| Index::default()).collect();
        Self {
            rows: HashMap::new(),
            changed: indexes(),
            protection_changed: indexes(),
            gone: VecDeque::new(),
            horizon: position.clone(),
            position,
        }
    }

    /// The number of SKUs, deleted ones included.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the changes since this position are complete.
    pub(super) fn reaches(&self, position: &Position) -> bool {
        position.covers(&self.horizon.0) && self.position.covers(&position.0)
    }

    /// Inserts a SKU from a list scan; ignored if a newer version is present. The scan does not
    /// contain the last change of its protection.
    pub(super) fn load(&mut self, partition: u16, sku: Sku, stock: Stock) {
        if self.rows.get(&sku).is_none_or(|row| row.changed < stock.version) {
            self.put(partition, sku, stock.version, Some(stock), true);
        }
    }

    /// Applies the changes of a batch, up to this sequence. Returns whether the protection of a SKU
    /// changed.
    pub(super) fn apply(&mut self, partition: u16, last: u64, stock: &[(Sku, Option<Stock>)]) -> bool {
        let mut protection_changed = false;
        for (sku, counters) in stock {
            let version = counters.map_or(last, |counters| counters.version);
            let before = self.rows.get(sku);
            if before.is_some_and(|row| row.changed >= version) {
                continue;
            }
            let now = counters.is_some_and(|counters| counters.is_protected);
            let changes_protection = before.map_or(now, |row| row.is_protected() != now);
            self.put(partition, sku.clone(), version, *counters, changes_protection);
            protection_changed |= changes_protection;
        }
        if let Some(position) = self.position.0.get_mut(usize::from(partition)) {
            *position = (*position).max(last);
        }
        protection_changed
    }

    fn put(&mut self, partition: u16, sku: Sku, version: u64, stock: Option<Stock>, changes_protection: bool) {
        let at = usize::from(partition);
        let mut protection_changed = 0;
        if let Some(old) = self.rows.get(&sku) {
            protection_changed = old.protection_changed;
            self.changed[at].remove(old.changed, &sku);
            if changes_protection {
                self.protection_changed[at].remove(old.protection_changed, &sku);
            }
        }
        if changes_protection {
            protection_changed = version;
            self.protection_changed[at].insert(version, &sku);
        }
        self.changed[at].insert(version, &sku);
        if stock.is_none() {
            self.gone.push_back((sku.clone(), version));
        }
        self.rows.insert(sku, Row { partition, stock, changed: version, protection_changed });
        while self.gone.len() > MAX_GONE {
            self.forget_oldest();
        }
    }

    /// Removes the SKU that was deleted first, unless it exists again.
    fn forget_oldest(&mut self) {
        let Some((sku, version)) = self.gone.pop_front() else { return };
        let Some(row) = self.rows.get(&sku).filter(|row| row.changed == version && row.stock.is_none()) else { return };
        let at = usize::from(row.partition);
        self.horizon.0[at] = self.horizon.0[at].max(version);
        self.protection_changed[at].remove(row.protection_changed, &sku);
        self.changed[at].remove(version, &sku);
        self.rows.remove(&sku);
    }

    /// The next SKUs that changed after `after`, which moves behind them. At most `most`, plus the
    /// lines of one cart; empty: `after` is up to date.
    pub(super) fn since(&self, kind: IndexKind, after: &mut Position, most: usize) -> Rows {
        let indexes = if kind == IndexKind::Any { &self.changed } else { &self.protection_changed };
        let mut rows = Rows::new();
        for (partition, index) in indexes.iter().enumerate() {
            let from = &mut after.0[partition];
            for (version, skus) in index.0.range(*from + 1..) {
                if rows.len() >= most {
                    return rows;
                }
                *from = *version;
                rows.extend(skus.iter().map(|sku| (sku.clone(), self.rows.get(sku).and_then(|row| row.stock))));
            }
            *from = (*from).max(self.position.0[partition]);
        }
        rows
    }

    /// Those of these SKUs that changed after `after`, which moves to now. With `whole`: all of
    /// them, also those that do not exist.
    pub(super) fn of_skus(&self, skus: &[Sku], after: &mut Position, whole: bool) -> Rows {
        let is_due = |sku: &&Sku| match self.rows.get(*sku) {
            Some(row) => whole || row.changed > after.0[usize::from(row.partition)],
            None => whole,
        };
        let rows = skus.iter().filter(is_due).map(|sku| (sku.clone(), self.rows.get(sku).and_then(|row| row.stock)));
        let rows = rows.collect();
        *after = self.position.clone();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rules;

    fn sku(name: &str) -> Sku {
        Sku::from_store(name.as_bytes()).unwrap()
    }

    fn stock(version: u64, is_protected: bool) -> Stock {
        Stock {
            available: 0,
            held: 0,
            sold: 0,
            supplied: 0,
            withdrawn: 0,
            version,
            is_protected,
            is_paused: false,
            rules: Rules::default(),
        }
    }

    fn at(sequence: u64) -> Position {
        Position([sequence].into())
    }

    fn names(rows: Rows) -> Vec<String> {
        rows.into_iter()
            .map(|(sku, stock)| format!("{}{}", sku.as_str(), if stock.is_none() { "!" } else { "" }))
            .collect()
    }

    #[test]
    fn what_changed_since_is_told_once_and_in_pages() {
        let mut table = Table::new(at(10));
        for (name, version) in [("a", 3), ("b", 9), ("c", 7)] {
            table.load(0, sku(name), stock(version, true));
        }
        let mut after = at(0);
        assert_eq!(names(table.since(IndexKind::Any, &mut after, 2)), ["a", "c"]);
        table.apply(0, 11, &[(sku("a"), Some(stock(11, true)))]);
        assert_eq!(names(table.since(IndexKind::Any, &mut after, 2)), ["b", "a"]);
        assert_eq!((names(table.since(IndexKind::Any, &mut after, 2)), after), (vec![], at(11)));
    }

    #[test]
    fn an_older_list_does_not_undo_a_newer_event() {
        let mut table = Table::new(at(10));
        table.apply(0, 12, &[(sku("a"), None), (sku("b"), Some(stock(12, false)))]);
        table.load(0, sku("a"), stock(8, true));
        table.load(0, sku("b"), stock(9, true));
        assert_eq!(names(table.since(IndexKind::Any, &mut at(0), 9)), ["a!", "b"]);
    }

    #[test]
    fn only_changes_of_protection_are_changes_of_protection() {
        let mut table = Table::new(at(10));
        table.load(0, sku("a"), stock(3, true));
        let mut after = at(10);
        assert!(!table.apply(0, 11, &[(sku("a"), Some(stock(11, true))), (sku("new"), Some(stock(11, false)))]));
        assert!(table.since(IndexKind::Protection, &mut after, 9).is_empty());
        assert!(table.apply(0, 12, &[(sku("a"), Some(stock(12, false)))]));
        assert!(table.apply(0, 13, &[(sku("new"), Some(stock(13, true)))]));
        assert!(table.apply(0, 14, &[(sku("new"), None)]));
        assert_eq!(names(table.since(IndexKind::Protection, &mut after, 9)), ["a", "new!"]);
    }

    #[test]
    fn named_ones_are_told_whole_and_then_when_they_change() {
        let mut table = Table::new(at(10));
        table.load(0, sku("a"), stock(3, true));
        let (all, mut after) = ([sku("a"), sku("none")], at(0));
        assert_eq!(names(table.of_skus(&all, &mut after, true)), ["a", "none!"]);
        assert!(table.of_skus(&all, &mut after, false).is_empty());
        table.apply(0, 11, &[(sku("none"), Some(stock(11, true)))]);
        assert_eq!(names(table.of_skus(&all, &mut after, false)), ["none"]);
    }

    #[test]
    fn skus_that_are_gone_are_forgotten_some_day_and_who_has_not_heard_of_it_begins_anew() {
        let mut table = Table::new(at(0));
        for i in 0..=MAX_GONE as u64 {
            let name = sku(&format!("s{i}"));
            table.apply(0, 2 * i + 1, &[(name.clone(), Some(stock(2 * i + 1, true)))]);
            table.apply(0, 2 * i + 2, &[(name, None)]);
        }
        assert_eq!(table.rows.len(), MAX_GONE);
        assert!(!table.reaches(&at(1)) && table.reaches(&at(2)));
        assert!(!table.reaches(&at(u64::MAX)), "a position that nobody has been at");
    }
}
