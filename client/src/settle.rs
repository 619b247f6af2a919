//! Settling a partition that lost changes, and what the server says of itself. Makes messages and sends them by `call`;
//! keeps no state.

use std::time::SystemTime;

use inventory_sentinel::v1;

use crate::{
    admin::{Admin, operators},
    call::{awaited, new_request_id},
    convert::{Answer, instant},
    namespace::Namespace,
    operation_errors::SettlePartitionError,
    rpc_error::RpcError,
};

/// A request to open a partition that is fenced. Made by [`Admin::settle_partition`]; await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is settled before it is awaited"]
pub struct SettlePartition {
    admin: Admin,
    partition: i32,
    fence: String,
    skus: Vec<v1::SettledSku>,
}

/// What a settlement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settlement {
    /// SKUs whose counters were set; 0 in a replay.
    pub skus: i64,
    /// True if the same request had settled the partition before, and this call changed nothing.
    pub replayed: bool,
    /// The place of this answer in the history of the partition.
    pub sequence: i64,
}

impl SettlePartition {
    pub(crate) fn new(admin: Admin, partition: i32, fence: &str) -> SettlePartition {
        SettlePartition { admin, partition, fence: fence.to_owned(), skus: Vec::new() }
    }

    /// Units of a SKU that can be reserved from now on. Units of holds that are older than the settlement do not
    /// return to them.
    pub fn available(mut self, sku: impl Into<String>, available: i64) -> Self {
        self.skus.push(v1::SettledSku { sku: sku.into(), available, old_holds_return: false });
        self
    }

    /// The same, but units of older holds return as usual. Only where the books show that none of these holds was sold
    /// among the lost changes.
    pub fn available_beside_old_holds(mut self, sku: impl Into<String>, available: i64) -> Self {
        self.skus.push(v1::SettledSku { sku: sku.into(), available, old_holds_return: true });
        self
    }

    async fn send(self) -> Result<Settlement, SettlePartitionError> {
        let Admin { namespace: Namespace { core, name, deadline }, request_id, .. } = self.admin;
        let message = v1::SettlePartitionRequest {
            namespace_id: name.to_string(),
            partition: self.partition,
            request_id: request_id.unwrap_or_else(new_request_id),
            skus: self.skus,
            fence: self.fence,
        };
        let send = |channel, request| async { operators(channel).settle_partition(request).await };
        Ok(core.call(deadline, message, send).await?)
    }
}

awaited!(SettlePartition -> Result<Settlement, SettlePartitionError>);

impl Answer for v1::SettlePartitionResponse {
    type Plain = Settlement;
    fn plain(self) -> Result<Settlement, RpcError> {
        Ok(Settlement { skus: self.skus, replayed: self.replayed, sequence: self.sequence })
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// What an OK promises: `fast` or `durable`.
    pub durability: String,
    /// The store and its version; empty while it was not reached.
    pub store_version: String,
    /// The id of the store; empty while it is not known.
    pub store_id: String,
    /// The file in which the server keeps what it knows of the store's history, or `memory only`.
    pub state: String,
    /// When that file was written last.
    pub state_written_at: Option<SystemTime>,
    /// Why the last attempt to write it failed; empty if it did not.
    pub state_error: String,
    /// The newest format of namespaces that it reads and writes.
    pub newest_format: i32,
    /// The clock of a partition minus the store's clock, in milliseconds, where the difference is largest.
    pub clock_offset_ms: i64,
    /// The same of the time of day, which decides sale windows and which all timestamps show.
    pub time_of_day_offset_ms: i64,
    /// Partitions that are fenced as far as it knows, the first 1,000.
    pub fenced_partitions: Vec<FencedPartition>,
    /// What an OK depends on, thing by thing; empty from a server that is older.
    pub promises: Vec<Promise>,
}

/// One thing that an OK depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Promise {
    /// Which, as in `fsync_before_answer`.
    pub name: String,
    /// Whether it holds.
    pub state: PromiseState,
    /// What was found, or why it was not checked, and the remedy.
    pub detail: String,
}

/// Whether something that an OK depends on holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromiseState {
    /// It was looked at, and holds.
    Kept,
    /// It was looked at, and does not hold.
    Broken,
    /// It could not be checked, or is none of the server's promises.
    NotChecked,
    /// A state that this client does not know yet.
    Unknown(i32),
}

/// A partition that lost changes and waits for a settlement.
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
    /// What a settlement names the loss by.
    pub fence: String,
    /// Whether the partition takes and adds no units.
    pub is_gated: bool,
}

pub(crate) async fn server_info(admin: &Admin) -> Result<ServerInfo, RpcError> {
    let send = |channel, request| async { operators(channel).get_server_info(request).await };
    let Namespace { core, deadline, .. } = &admin.namespace;
    core.call(*deadline, v1::GetServerInfoRequest {}, send).await.map_err(RpcError::of_read)
}

impl Answer for v1::GetServerInfoResponse {
    type Plain = ServerInfo;
    fn plain(self) -> Result<ServerInfo, RpcError> {
        let fenced = |fenced: v1::FencedPartition| {
            let seen = fenced.seen.unwrap_or_default();
            Ok(FencedPartition {
                namespace: fenced.namespace_id,
                partition: fenced.partition,
                seen_epoch: seen.epoch,
                seen_term: seen.term,
                seen_sequence: seen.sequence,
                kept_sequence: fenced.kept_sequence,
                fenced_at: fenced.fenced_at.map(instant).transpose()?,
                fence: fenced.fence,
                is_gated: fenced.is_gated,
            })
        };
        let promise = |promise: v1::Promise| Promise {
            state: match promise.state() {
                v1::PromiseState::Kept => PromiseState::Kept,
                v1::PromiseState::Broken => PromiseState::Broken,
                v1::PromiseState::NotChecked => PromiseState::NotChecked,
                v1::PromiseState::Unspecified => PromiseState::Unknown(promise.state),
            },
            name: promise.name,
            detail: promise.detail,
        };
        Ok(ServerInfo {
            version: self.version,
            durability: self.durability,
            store_version: self.store_version,
            store_id: self.store_id,
            state: self.state,
            state_written_at: self.state_written_at.map(instant).transpose()?,
            state_error: self.state_error,
            newest_format: self.newest_format,
            clock_offset_ms: self.clock_offset.map_or(0, milliseconds),
            time_of_day_offset_ms: self.time_of_day_offset.map_or(0, milliseconds),
            fenced_partitions: self.fenced_partitions.into_iter().map(fenced).collect::<Result<_, RpcError>>()?,
            promises: self.promises.into_iter().map(promise).collect(),
        })
    }
}

/// A signed duration, cut to the millisecond.
fn milliseconds(value: prost_types::Duration) -> i64 {
    value.seconds.saturating_mul(1_000).saturating_add(i64::from(value.nanos) / 1_000_000)
}
