//! GetServerInfo and SettlePartition: messages to types; no I/O.

use inventory_sentinel::v1;

use super::{Decode, instant};
use crate::{
    rpc_error::RpcError,
    types::server::{FencedPartition, Promise, PromiseState, ServerInfo, Settlement},
};

impl Decode for v1::SettlePartitionResponse {
    type Value = Settlement;
    fn decode(self) -> Result<Settlement, RpcError> {
        Ok(Settlement { skus: self.skus, replayed: self.replayed, sequence: self.sequence })
    }
}

impl Decode for v1::GetServerInfoResponse {
    type Value = ServerInfo;
    fn decode(self) -> Result<ServerInfo, RpcError> {
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

/// A signed duration, truncated to the millisecond.
fn milliseconds(value: prost_types::Duration) -> i64 {
    value.seconds.saturating_mul(1_000).saturating_add(i64::from(value.nanos) / 1_000_000)
}
