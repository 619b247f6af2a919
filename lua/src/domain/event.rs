//! What the event stream reports. Plain data, no I/O.

use super::{Configured, HistoryPoint, Line, Sku};

/// What a change was, with the units that it moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A reservation was made.
    Reserved(Vec<Line>),
    /// Units were sold.
    Committed(Vec<Line>),
    /// Given back by a call.
    RolledBack(Vec<Line>),
    /// Given back by the deadline.
    Expired(Vec<Line>),
    /// Held for longer; nothing moved.
    Extended(Vec<Line>),
    /// A reservation was made that is sold already.
    BoughtLate(Vec<Line>),
    /// So many units more on hand, or fewer, by SetStock.
    StockSet(Sku, i64),
    /// So many units more on hand, or fewer, by AdjustStock.
    StockAdjusted(Sku, i64),
    /// The rules of a SKU were changed, to these; an event of an older format does not have them.
    Configured(Sku, Option<Configured>),
    /// The SKU was deleted.
    Deleted(Sku),
    /// The store has lost changes up to this one; the last that is still there of its term.
    HistoryLost(HistoryPoint, u64),
    /// The counters of a SKU were settled: so many units more, or fewer.
    SkuSettled(Sku, i64),
    /// The partition was settled and opened.
    PartitionSettled,
}
