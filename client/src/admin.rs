//! [`Admin`]: the operators' operations on one namespace. Keeps no state.

use inventory_sentinel::v1;

use crate::{
    operation_errors::{
        AdjustStockError, AuditError, DeleteNamespaceError, DeleteSkuError, GetNamespaceError, GetSkuError,
        SetProtectionError,
    },
    requests::{
        bulk::{self, ImportStock},
        configure::{ConfigureNamespace, ConfigureSku, SetStock},
        lists::{ListReservations, ListStock},
        settle::{self, SettlePartition},
    },
    rpc_error::RpcError,
    rules::{NamespaceChange, NamespaceConfig, RulesChange, SkuConfiguration},
    scope::{AdminScope, Scope},
    transport::stubs::admin_client,
    types::{Applied, Audit, Protection, Snapshot, Stock, server::ServerInfo},
};

/// The operators' operations on one namespace. [`Namespace::admin`](crate::Namespace::admin) returns them. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct Admin(AdminScope);

impl Admin {
    pub(crate) fn new(scope: Scope) -> Admin {
        Admin(AdminScope { scope, request_id: None, existing_namespace_only: false })
    }

    /// The same operations under an identity that the caller stores, for example the id of a transfer:
    /// `sale.admin().request_id("transfer-17").adjust_stock("ps5", 100).await`. By default each call gets a new one.
    #[must_use]
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.0.request_id = Some(request_id.into());
        self
    }

    /// The same operations, but [`set_stock`](Self::set_stock), [`adjust_stock`](Self::adjust_stock) and
    /// [`import_stock`](Self::import_stock) do not create the namespace. If it does not exist they are refused, so a
    /// mistyped name creates nothing.
    #[must_use]
    pub fn existing_namespace_only(mut self) -> Self {
        self.0.existing_namespace_only = true;
        self
    }

    /// Sets the units on hand, which are the available and the held ones; sold ones stay. Creates a missing SKU,
    /// protected, and a missing namespace. Await it, or set parameters first: `admin.set_stock("ps5",
    /// 100).if_absent().await`. Refusals: [`SetStockError`](crate::SetStockError).
    pub fn set_stock(&self, sku: &str, on_hand: i64) -> SetStock {
        SetStock::new(self.0.clone(), sku, on_hand)
    }

    /// Adds `delta` units, or removes units if it is negative. A positive delta creates a missing SKU, protected, and a
    /// missing namespace.
    ///
    /// # Errors
    /// See [`AdjustStockError`].
    pub async fn adjust_stock(&self, sku: &str, delta: i64) -> Result<Applied<Stock>, AdjustStockError> {
        let message = v1::AdjustStockRequest {
            namespace_id: self.0.namespace_id(),
            sku: sku.to_owned(),
            delta,
            request_id: self.0.request_id(),
            existing_namespace_only: self.0.existing_namespace_only,
        };
        let send = |channel, request| async { admin_client(channel).adjust_stock(request).await };
        Ok(self.0.scope.change(message, self.0.is_named(), send).await?)
    }

    /// Changes the rules of a SKU. Await it, or set parameters first:
    /// `admin.configure_sku("ps5", RulesChange::new().buyer_limit(2)).if_version(3).await`. Refusals:
    /// [`ConfigureSkuError`](crate::ConfigureSkuError).
    pub fn configure_sku(&self, sku: &str, change: RulesChange) -> ConfigureSku {
        ConfigureSku::new(self.0.clone(), sku, change)
    }

    /// Reads the rules and the counters of a SKU.
    ///
    /// # Errors
    /// See [`GetSkuError`].
    pub async fn sku(&self, sku: &str) -> Result<Snapshot<SkuConfiguration>, GetSkuError> {
        let message = v1::GetSkuRequest { namespace_id: self.0.namespace_id(), sku: sku.to_owned() };
        let send = |channel, request| async { admin_client(channel).get_sku(request).await };
        Ok(self.0.scope.read(message, send).await?)
    }

    /// Deletes a SKU with its counters and rules, and returns its last counters; `None` if it did not exist. A retry
    /// after a lost response returns the current counters, which exist only if the SKU was created again.
    ///
    /// # Errors
    /// See [`DeleteSkuError`].
    pub async fn delete_sku(&self, sku: &str) -> Result<Snapshot<Option<Stock>>, DeleteSkuError> {
        let message = v1::DeleteSkuRequest {
            namespace_id: self.0.namespace_id(),
            sku: sku.to_owned(),
            request_id: self.0.request_id(),
        };
        let send = |channel, request| async { admin_client(channel).delete_sku(request).await };
        Ok(self.0.scope.change(message, self.0.is_named(), send).await?)
    }

    /// Changes the settings of the namespace, or creates it. Await it, or set parameters first:
    /// `admin.configure_namespace(NamespaceChange::new().partitions(8)).if_version(0).await`. Refusals:
    /// [`ConfigureNamespaceError`](crate::ConfigureNamespaceError).
    pub fn configure_namespace(&self, change: NamespaceChange) -> ConfigureNamespace {
        ConfigureNamespace::new(self.0.clone(), change)
    }

    /// Deletes the namespace with all its data; true if this identity deleted it before. Refused while any unit is
    /// held. If a call fails half-way, repeat it with the same [identity](Self::request_id): it continues.
    ///
    /// # Errors
    /// See [`DeleteNamespaceError`].
    pub async fn delete_namespace(&self) -> Result<bool, DeleteNamespaceError> {
        let message =
            v1::DeleteNamespaceRequest { namespace_id: self.0.namespace_id(), request_id: self.0.request_id() };
        let send = |channel, request| async { admin_client(channel).delete_namespace(request).await };
        Ok(self.0.scope.change(message, self.0.is_named(), send).await?)
    }

    /// Reads the settings of the namespace.
    ///
    /// # Errors
    /// See [`GetNamespaceError`].
    pub async fn namespace_config(&self) -> Result<NamespaceConfig, GetNamespaceError> {
        let message = v1::GetNamespaceRequest { namespace_id: self.0.namespace_id() };
        let send = |channel, request| async { admin_client(channel).get_namespace(request).await };
        Ok(self.0.scope.read(message, send).await?)
    }

    /// A page of the SKUs with their counters and rules. Await it, or set parameters first:
    /// `admin.list_stock().size(1_000).after(next).await`. Refusals: [`ListStockError`](crate::ListStockError).
    pub fn list_stock(&self) -> ListStock {
        ListStock::new(self.0.clone())
    }

    /// A page of the pending reservations. Await it, or set parameters first:
    /// `admin.list_reservations().buyer("amy").after(next).await`. Refusals:
    /// [`ListReservationsError`](crate::ListReservationsError).
    pub fn list_reservations(&self) -> ListReservations {
        ListReservations::new(self.0.clone())
    }

    /// Sets the units on hand of many SKUs: `admin.import_stock([("ps5", 100), ("pad", 500)]).await`. Existing SKUs
    /// change only with [`overwrite`](ImportStock::overwrite), so an import may run again during a sale. Returns one
    /// outcome per row, in order. Sends 1,000 rows per message, each with the namespace's deadline. Failures:
    /// [`ImportStockError`](crate::ImportStockError).
    pub fn import_stock(&self, rows: impl IntoIterator<Item = (impl Into<String>, i64)>) -> ImportStock {
        ImportStock::new(self.0.clone(), rows)
    }

    /// Sets or removes the protection of many SKUs, and returns one outcome per SKU, in order. Sends 1,000 SKUs per
    /// message, each with the namespace's deadline. A repeat with the same [identity](Self::request_id) changes nothing
    /// and returns [`Protection::Unchanged`].
    ///
    /// # Errors
    /// See [`SetProtectionError`].
    pub async fn set_protection(
        &self,
        skus: impl IntoIterator<Item = impl Into<String>>,
        is_protected: bool,
    ) -> Result<Vec<Protection>, SetProtectionError> {
        bulk::set_protection(&self.0, skus.into_iter().map(Into::into).collect(), is_protected).await
    }

    /// Opens a partition that is fenced because its store lost changes. Sets the available units of each SKU to the
    /// given figure, or to 0. The figures come from the caller's records and apply to one loss, which
    /// [`FencedPartition::fence`](crate::FencedPartition) names. Await it, or set parameters first:
    /// `admin.settle_partition(0, fence).available("ps5", 30).await`. Refusals:
    /// [`SettlePartitionError`](crate::SettlePartitionError).
    pub fn settle_partition(&self, partition: i32, fence: &str) -> SettlePartition {
        SettlePartition::new(self.0.clone(), partition, fence)
    }

    /// Reads the version of the server, its store, and the partitions that it has found fenced.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn server_info(&self) -> Result<ServerInfo, RpcError> {
        settle::server_info(&self.0.scope).await
    }

    /// Compares the counters of the namespace with its records, exactly and under full traffic. It reads every pending
    /// reservation: use a longer [deadline](crate::Namespace::with_deadline) if there are many.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub async fn audit(&self) -> Result<Audit, AuditError> {
        let message = v1::AuditRequest { namespace_id: self.0.namespace_id() };
        let send = |channel, request| async { admin_client(channel).audit(request).await };
        Ok(self.0.scope.read(message, send).await?)
    }
}
