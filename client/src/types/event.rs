//! Events. Data only.

use std::time::SystemTime;

use super::{Line, State};
use crate::rules::SkuRules;

/// One change.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// The partition. The identity of the event is (partition, epoch, term, sequence).
    pub partition: i32,
    /// Its number within the partition. Numbers have no gaps, except after a settlement of lost changes.
    pub sequence: i64,
    /// When it was applied.
    pub occurred_at: SystemTime,
    /// The kind of the change.
    pub kind: EventKind,
    /// The reservation; empty for changes of stock.
    pub reservation_id: String,
    /// The `request_id` of the Reserve that created the reservation, if the server stores it.
    pub request_id: Option<String>,
    /// The buyer of the reservation, if one was named.
    pub buyer: Option<String>,
    /// The units that moved; for [`EventKind::Extended`] the held units.
    pub lines: Vec<Line>,
    /// The state of the reservation after it; `None` for changes of stock.
    pub state: Option<State>,
    /// The deadline, while it is pending after it.
    pub expires_at: Option<SystemTime>,
    /// The SKU of a change of stock; empty for reservations.
    pub sku: String,
    /// By how much `supplied` and `available` changed.
    pub delta: i64,
    /// Distinguishes the partition from one that replaced it; 0 in a namespace of format 1.
    pub epoch: i64,
    /// The term that wrote the event; empty in a namespace of format 1.
    pub term: String,
    /// For [`EventKind::RolledBack`] and [`EventKind::Expired`]: the lines whose units left the stock, because the hold
    /// is older than a settlement.
    pub withdrawn: Vec<Line>,
    /// For [`EventKind::SkuConfigured`]: all rules after the change; `None` in namespaces of a format before 5.
    pub rules: Option<SkuRules>,
    /// The version of these rules.
    pub rules_version: i64,
    /// For [`EventKind::HistoryLost`]: the lost changes.
    pub lost: Option<LostHistory>,
}

/// Changes that the store lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostHistory {
    /// The epoch of the newest lost change that was acknowledged.
    pub epoch: i64,
    /// Its term.
    pub term: String,
    /// Its sequence.
    pub sequence: i64,
    /// The last sequence of that term that the store still has, 0 if none.
    pub kept_sequence: i64,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// Units were held: a new reservation.
    Reserved,
    /// Held units were sold.
    Committed,
    /// Held units were released by a call.
    RolledBack,
    /// Held units were released by the deadline.
    Expired,
    /// A reservation got a later deadline.
    Extended,
    /// Units were sold by a late commit: a new reservation, which is committed.
    Repurchased,
    /// Units were added or removed by SetStock or ImportStock.
    StockSet,
    /// Units were added or removed by AdjustStock.
    StockAdjusted,
    /// Protection or rules of a SKU were changed.
    SkuConfigured,
    /// A SKU was deleted.
    SkuDeleted,
    /// The store lost changes that had been acknowledged; see [`Event::lost`].
    HistoryLost,
    /// A settlement set the counters of a SKU.
    SkuSettled,
    /// A settlement opened the partition.
    PartitionSettled,
    /// A kind of a newer server, by its number on the wire.
    Unknown(i32),
}
