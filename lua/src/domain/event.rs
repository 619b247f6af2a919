//! The changes that the event stream reports. Plain data, no I/O.

use super::{Configured, HistoryPoint, Line, Sku};

/// A change, with the units that it moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A reservation was created.
    Reserved(Vec<Line>),
    /// Units were sold.
    Committed(Vec<Line>),
    /// Units were given back by a call.
    RolledBack(Vec<Line>),
    /// Units were given back by the deadline.
    Expired(Vec<Line>),
    /// A deadline was moved; no units moved.
    Extended(Vec<Line>),
    /// A late Commit repurchased an expired reservation: a new reservation was created and sold.
    BoughtLate(Vec<Line>),
    /// SetStock changed the units on hand by this number.
    StockSet(Sku, i64),
    /// AdjustStock changed the units on hand by this number.
    StockAdjusted(Sku, i64),
    /// The rules of a SKU were changed to these. An event of an older format does not contain them.
    Configured(Sku, Option<Configured>),
    /// The SKU was deleted.
    Deleted(Sku),
    /// The store has lost changes up to this one. The number is the last sequence of its term that is still there.
    HistoryLost(HistoryPoint, u64),
    /// A settlement changed the supplied units of a SKU by this number.
    SkuSettled(Sku, i64),
    /// The partition was settled and opened.
    PartitionSettled,
}
