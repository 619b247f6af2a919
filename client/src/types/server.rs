//! The state of a server and the result of a settlement. Data only.

use std::time::SystemTime;

/// The result of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settlement {
    /// SKUs whose counters were set; 0 in a replay.
    pub skus: i64,
    /// True if the same request had settled the partition before; this call changed nothing.
    pub replayed: bool,
    /// The position of this response in the history of the partition.
    pub sequence: i64,
}

/// The state of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// The durability mode: `fast` or `durable`.
    pub durability: String,
    /// The store and its version; empty until the store is reached.
    pub store_version: String,
    /// The id of the store; empty until the store is reached.
    pub store_id: String,
    /// The file with the server's record of the store's history, or `memory only`.
    pub state: String,
    /// When that file was last written.
    pub state_written_at: Option<SystemTime>,
    /// Why the last attempt to write it failed; empty if it did not.
    pub state_error: String,
    /// The newest namespace format that it reads and writes.
    pub newest_format: i32,
    /// The largest difference of a partition's clock from the store's clock, in milliseconds.
    pub clock_offset_ms: i64,
    /// The same for the time of day, which sale windows and timestamps use.
    pub time_of_day_offset_ms: i64,
    /// The first 1,000 partitions that this server has found fenced.
    pub fenced_partitions: Vec<FencedPartition>,
    /// The conditions on which an OK depends; empty from an older server.
    pub promises: Vec<Promise>,
}

/// One condition on which an OK depends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Promise {
    /// Its name, for example `fsync_before_answer`.
    pub name: String,
    /// Whether it holds.
    pub state: PromiseState,
    /// The finding, or why it was not checked, and the remedy.
    pub detail: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromiseState {
    /// It was checked and holds.
    Kept,
    /// It was checked and does not hold.
    Broken,
    /// It could not be checked, or the server does not promise it.
    NotChecked,
    /// A state of a newer server.
    Unknown(i32),
}

/// A partition that lost changes and needs a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FencedPartition {
    /// The namespace.
    pub namespace: String,
    /// The partition, from 0.
    pub partition: i32,
    /// The epoch of the newest lost change that was acknowledged.
    pub seen_epoch: i64,
    /// Its term.
    pub seen_term: String,
    /// Its sequence.
    pub seen_sequence: i64,
    /// The last sequence of its term that the store still has, 0 if none.
    pub kept_sequence: i64,
    /// When the loss was noticed.
    pub fenced_at: Option<SystemTime>,
    /// The token of this loss, for the settlement.
    pub fence: String,
    /// Whether the partition refuses to reserve and to add units.
    pub is_gated: bool,
}
