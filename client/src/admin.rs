//! The operators' operations on one namespace. Makes messages and sends them by `call`; keeps no state.

use inventory_sentinel::v1::{self, inventory_admin_client::InventoryAdminClient};
use tonic::transport::Channel;

use crate::{
    bulk::{self, ImportStock},
    call::new_request_id,
    configure::{ConfigureNamespace, ConfigureSku, SetStock},
    connection::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES},
    lists::{ListReservations, ListStock},
    namespace::Namespace,
    operation_errors::{
        AdjustStockError, AuditError, DeleteNamespaceError, DeleteSkuError, GetNamespaceError, GetSkuError,
        SetProtectionError,
    },
    rpc_error::RpcError,
    rules::{NamespaceChange, NamespaceConfig, RulesChange, SkuConfiguration},
    settle::{self, ServerInfo, SettlePartition},
    types::{Audit, Protection, Receipt, Snapshot, Stock},
};

/// The operators' operations on one namespace. Made by [`Namespace::admin`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    pub(crate) namespace: Namespace,
    pub(crate) request_id: Option<String>,
    pub(crate) only_existing: bool,
}

impl Admin {
    pub(crate) fn new(namespace: Namespace) -> Admin {
        Admin { namespace, request_id: None, only_existing: false }
    }

    /// The same operations under an identity that the caller keeps, such as the id of a transfer:
    /// `sale.admin().request_id("transfer-17").adjust_stock("ps5", 100).await`. Without it a new one is
    /// made for each call.
    #[must_use]
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// The same operations, of which [`set_stock`](Self::set_stock), [`adjust_stock`](Self::adjust_stock) and
    /// [`import_stock`](Self::import_stock) do not make the namespace: where it is not known they are refused, so that a mistyped
    /// name does not become one.
    #[must_use]
    pub fn existing_namespace_only(mut self) -> Self {
        self.only_existing = true;
        self
    }

    /// Sets the units on hand, that is available and held ones; sold ones stay. An unknown SKU is
    /// made, protected, and so is an unknown namespace. Await it, or say more first:
    /// `admin.set_stock("ps5", 100).if_absent().await`. It can be refused as
    /// [`SetStockError`](crate::SetStockError) says.
    pub fn set_stock(&self, sku: &str, on_hand: i64) -> SetStock {
        SetStock::new(self.clone(), sku, on_hand)
    }

    /// Adds `delta` units, or takes units away if it is negative. A positive one makes an unknown SKU,
    /// protected, and an unknown namespace.
    ///
    /// # Errors
    /// See [`AdjustStockError`].
    pub async fn adjust_stock(&self, sku: &str, delta: i64) -> Result<Receipt<Stock>, AdjustStockError> {
        let message = v1::AdjustStockRequest {
            namespace_id: self.namespace.name.to_string(),
            sku: sku.to_owned(),
            delta,
            request_id: self.request_id.clone().unwrap_or_else(new_request_id),
            existing_namespace_only: self.only_existing,
        };
        let send = |channel, request| async { operators(channel).adjust_stock(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        let claim = core.claim(core.identity(&message, self.request_id.is_some()))?;
        Ok(claim.end(core.call(*deadline, message, send).await, |_| true)?)
    }

    /// Changes the rules of a SKU. Await it, or say more first:
    /// `admin.configure_sku("ps5", RulesChange::new().buyer_limit(2)).if_version(3).await`. It can be
    /// refused as [`ConfigureSkuError`](crate::ConfigureSkuError) says.
    pub fn configure_sku(&self, sku: &str, change: RulesChange) -> ConfigureSku {
        ConfigureSku::new(self.clone(), sku, change)
    }

    /// Reads the rules and the counters of a SKU.
    ///
    /// # Errors
    /// See [`GetSkuError`].
    pub async fn sku(&self, sku: &str) -> Result<Snapshot<SkuConfiguration>, GetSkuError> {
        let message = v1::GetSkuRequest { namespace_id: self.namespace.name.to_string(), sku: sku.to_owned() };
        let send = |channel, request| async { operators(channel).get_sku(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        let answer = core.call(*deadline, message, send).await;
        Ok(answer.map_err(RpcError::of_read)?)
    }

    /// Forgets a SKU, its counters and its rules, and tells its last counters; `None` if it was not
    /// known. Where an attempt was lost and repeated, its counters as they are now, which there are only if
    /// it was made again.
    ///
    /// # Errors
    /// See [`DeleteSkuError`].
    pub async fn delete_sku(&self, sku: &str) -> Result<Snapshot<Option<Stock>>, DeleteSkuError> {
        let message = v1::DeleteSkuRequest {
            namespace_id: self.namespace.name.to_string(),
            sku: sku.to_owned(),
            request_id: self.request_id.clone().unwrap_or_else(new_request_id),
        };
        let send = |channel, request| async { operators(channel).delete_sku(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        let claim = core.claim(core.identity(&message, self.request_id.is_some()))?;
        Ok(claim.end(core.call(*deadline, message, send).await, |_| true)?)
    }

    /// Changes what holds for the namespace, or makes it. Await it, or say more
    /// first: `admin.configure_namespace(NamespaceChange::new().partitions(8)).if_version(0).await`. It
    /// can be refused as [`ConfigureNamespaceError`](crate::ConfigureNamespaceError) says.
    pub fn configure_namespace(&self, change: NamespaceChange) -> ConfigureNamespace {
        ConfigureNamespace::new(self.clone(), change)
    }

    /// Deletes the namespace with all that it has; true if this identity has deleted it before. Refused while anything is
    /// held. Where a call failed half-way, repeat it with the same [identity](Self::request_id): it goes on.
    ///
    /// # Errors
    /// See [`DeleteNamespaceError`].
    pub async fn delete_namespace(&self) -> Result<bool, DeleteNamespaceError> {
        let message = v1::DeleteNamespaceRequest {
            namespace_id: self.namespace.name.to_string(),
            request_id: self.request_id.clone().unwrap_or_else(new_request_id),
        };
        let send = |channel, request| async { operators(channel).delete_namespace(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        let claim = core.claim(core.identity(&message, self.request_id.is_some()))?;
        Ok(claim.end(core.call(*deadline, message, send).await, |_| true)?)
    }

    /// Reads what holds for the namespace.
    ///
    /// # Errors
    /// See [`GetNamespaceError`].
    pub async fn namespace_config(&self) -> Result<NamespaceConfig, GetNamespaceError> {
        let message = v1::GetNamespaceRequest { namespace_id: self.namespace.name.to_string() };
        let send = |channel, request| async { operators(channel).get_namespace(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        let answer = core.call(*deadline, message, send).await;
        Ok(answer.map_err(RpcError::of_read)?)
    }

    /// A page of the SKUs with their counters and rules. Await it, or say more first:
    /// `admin.list_stock().size(1_000).after(next).await`. It can be refused as
    /// [`ListStockError`](crate::ListStockError) says.
    pub fn list_stock(&self) -> ListStock {
        ListStock::new(self.clone())
    }

    /// A page of the pending reservations. Await it, or say more first:
    /// `admin.list_reservations().buyer("amy").after(next).await`. It can be refused as
    /// [`ListReservationsError`](crate::ListReservationsError) says.
    pub fn list_reservations(&self) -> ListReservations {
        ListReservations::new(self.clone())
    }

    /// Sets the units on hand of many SKUs: `admin.import_stock([("ps5", 100), ("pad", 500)]).await`; SKUs that
    /// are known already only where [`overwrite`](ImportStock::overwrite) is said, so that it may be run again in the
    /// middle of a sale. The answer has an outcome for each row, in order. Sent by the thousand, each with the
    /// namespace's deadline. It can fail as [`ImportStockError`](crate::ImportStockError) says.
    pub fn import_stock(&self, rows: impl IntoIterator<Item = (impl Into<String>, i64)>) -> ImportStock {
        ImportStock::new(self.clone(), rows)
    }

    /// Puts many SKUs under protection or takes it away, and tells of each what became of it, in order. Sent
    /// by the thousand, each with the namespace's deadline. A repeat with the same [identity](Self::request_id)
    /// changes nothing and says [`Protection::Unchanged`].
    ///
    /// # Errors
    /// See [`SetProtectionError`].
    pub async fn set_protection(
        &self,
        skus: impl IntoIterator<Item = impl Into<String>>,
        is_protected: bool,
    ) -> Result<Vec<Protection>, SetProtectionError> {
        bulk::set_protection(self, skus.into_iter().map(Into::into).collect(), is_protected).await
    }

    /// Opens a partition that is fenced because its store lost changes: sets what is available of each SKU to the
    /// figure that is given, or to 0. The figures come from the books of the shop, and are for one loss, which
    /// [`FencedPartition::fence`](crate::FencedPartition) names. Await it, or say more first:
    /// `admin.settle_partition(0, fence).available("ps5", 30).await`. It can be refused as
    /// [`SettlePartitionError`](crate::SettlePartitionError) says.
    pub fn settle_partition(&self, partition: i32, fence: &str) -> SettlePartition {
        SettlePartition::new(self.clone(), partition, fence)
    }

    /// Says what the server is, which store it uses, and which partitions it knows to be fenced.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn server_info(&self) -> Result<ServerInfo, RpcError> {
        settle::server_info(self).await
    }

    /// Checks the books of the namespace against its records, exactly and under full traffic. Reads
    /// every pending reservation: give it a longer [deadline](Namespace::with_deadline) where there are
    /// many.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub async fn audit(&self) -> Result<Audit, AuditError> {
        let message = v1::AuditRequest { namespace_id: self.namespace.name.to_string() };
        let send = |channel, request| async { operators(channel).audit(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        let answer = core.call(*deadline, message, send).await;
        Ok(answer.map_err(RpcError::of_read)?)
    }
}

/// The generated client of the operators' service, within this client's limits.
pub(crate) fn operators(channel: Channel) -> InventoryAdminClient<Channel> {
    InventoryAdminClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
}
