//! SettlePartition, for a partition that lost changes, and GetServerInfo. Keeps no state.

use inventory_sentinel::v1;

use super::impl_into_future;
use crate::{
    operation_errors::SettlePartitionError,
    rpc_error::RpcError,
    scope::{AdminScope, Scope},
    transport::stubs::admin_client,
    types::server::{ServerInfo, Settlement},
};

/// A request to open a partition that is fenced. Made by [`Admin::settle_partition`](crate::Admin::settle_partition);
/// await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is settled before it is awaited"]
pub struct SettlePartition {
    scope: AdminScope,
    partition: i32,
    fence: String,
    skus: Vec<v1::SettledSku>,
}

impl SettlePartition {
    pub(crate) fn new(scope: AdminScope, partition: i32, fence: &str) -> SettlePartition {
        SettlePartition { scope, partition, fence: fence.to_owned(), skus: Vec::new() }
    }

    /// Sets the available units of a SKU. Units of holds that are older than the settlement do not return to them.
    pub fn available(mut self, sku: impl Into<String>, available: i64) -> Self {
        self.skus.push(v1::SettledSku { sku: sku.into(), available, old_holds_return: false });
        self
    }

    /// As [`available`](Self::available), but units of older holds return as usual. Use it only if the caller's records
    /// show that none of these holds was sold by the lost changes.
    pub fn available_beside_old_holds(mut self, sku: impl Into<String>, available: i64) -> Self {
        self.skus.push(v1::SettledSku { sku: sku.into(), available, old_holds_return: true });
        self
    }

    async fn send(self) -> Result<Settlement, SettlePartitionError> {
        let message = v1::SettlePartitionRequest {
            namespace_id: self.scope.namespace_id(),
            partition: self.partition,
            request_id: self.scope.request_id(),
            skus: self.skus,
            fence: self.fence,
        };
        let send = |channel, request| async { admin_client(channel).settle_partition(request).await };
        Ok(self.scope.scope.call(message, send).await?)
    }
}

impl_into_future! { SettlePartition -> Result<Settlement, SettlePartitionError> }

/// Reads the version, the store and the promises of the server.
pub(crate) async fn server_info(scope: &Scope) -> Result<ServerInfo, RpcError> {
    let send = |channel, request| async { admin_client(channel).get_server_info(request).await };
    scope.read(v1::GetServerInfoRequest {}, send).await
}
