//! SetStock, ConfigureSku and ConfigureNamespace: their parameters and their sending. Keeps no state.

use inventory_sentinel::v1;

use super::impl_into_future;
use crate::{
    convert,
    operation_errors::{ConfigureNamespaceError, ConfigureSkuError, SetStockError},
    rules::{NamespaceChange, NamespaceConfig, RulesChange, SkuConfiguration},
    scope::AdminScope,
    transport::stubs::admin_client,
    types::{Applied, Snapshot, Stock},
};

/// A request to set the units on hand. Made by [`Admin::set_stock`](crate::Admin::set_stock); await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is set before it is awaited"]
pub struct SetStock {
    scope: AdminScope,
    sku: String,
    on_hand: i64,
    condition: Condition,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Always,
    Absent,
    Version(i64),
}

impl SetStock {
    pub(crate) fn new(scope: AdminScope, sku: &str, on_hand: i64) -> SetStock {
        SetStock { scope, sku: sku.to_owned(), on_hand, condition: Condition::Always }
    }

    /// Only if the SKU does not exist yet: for warm-ups that may run again during a sale. Replaces
    /// [`if_version`](Self::if_version).
    pub fn if_absent(mut self) -> Self {
        self.condition = Condition::Absent;
        self
    }

    /// Only if [`Stock::version`] is this. Replaces [`if_absent`](Self::if_absent).
    pub fn if_version(mut self, version: i64) -> Self {
        self.condition = Condition::Version(version);
        self
    }

    async fn send(self) -> Result<Applied<Stock>, SetStockError> {
        let (if_absent, if_version) = match self.condition {
            Condition::Always => (false, None),
            Condition::Absent => (true, None),
            Condition::Version(version) => (false, Some(version)),
        };
        let message = v1::SetStockRequest {
            namespace_id: self.scope.namespace_id(),
            sku: self.sku,
            on_hand: self.on_hand,
            request_id: self.scope.request_id(),
            if_absent,
            if_version,
            existing_namespace_only: self.scope.existing_namespace_only,
        };
        let send = |channel, request| async { admin_client(channel).set_stock(request).await };
        Ok(self.scope.scope.change(message, self.scope.is_named(), send).await?)
    }
}

impl_into_future! { SetStock -> Result<Applied<Stock>, SetStockError> }

/// A request to change the rules of a SKU. Made by [`Admin::configure_sku`](crate::Admin::configure_sku); await it to
/// send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is changed before it is awaited"]
pub struct ConfigureSku {
    scope: AdminScope,
    sku: String,
    change: RulesChange,
    if_version: Option<i64>,
}

impl ConfigureSku {
    pub(crate) fn new(scope: AdminScope, sku: &str, change: RulesChange) -> ConfigureSku {
        ConfigureSku { scope, sku: sku.to_owned(), change, if_version: None }
    }

    /// Only if [`SkuConfiguration::rules_version`] is this.
    pub fn if_version(mut self, rules_version: i64) -> Self {
        self.if_version = Some(rules_version);
        self
    }

    async fn send(self) -> Result<Snapshot<SkuConfiguration>, ConfigureSkuError> {
        let message = v1::ConfigureSkuRequest {
            namespace_id: self.scope.namespace_id(),
            sku: self.sku,
            rules: Some(convert::rules_change(self.change)),
            request_id: self.scope.request_id(),
            if_version: self.if_version,
        };
        let send = |channel, request| async { admin_client(channel).configure_sku(request).await };
        Ok(self.scope.scope.change(message, self.scope.is_named(), send).await?)
    }
}

impl_into_future! { ConfigureSku -> Result<Snapshot<SkuConfiguration>, ConfigureSkuError> }

/// A request to change the settings of a namespace. Made by
/// [`Admin::configure_namespace`](crate::Admin::configure_namespace); await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is changed before it is awaited"]
pub struct ConfigureNamespace {
    scope: AdminScope,
    change: NamespaceChange,
    if_version: Option<i64>,
}

impl ConfigureNamespace {
    pub(crate) fn new(scope: AdminScope, change: NamespaceChange) -> ConfigureNamespace {
        ConfigureNamespace { scope, change, if_version: None }
    }

    /// Only if [`NamespaceConfig::version`] is this; 0: only if the namespace does not exist yet.
    pub fn if_version(mut self, version: i64) -> Self {
        self.if_version = Some(version);
        self
    }

    async fn send(self) -> Result<NamespaceConfig, ConfigureNamespaceError> {
        let message = v1::ConfigureNamespaceRequest {
            namespace_id: self.scope.namespace_id(),
            config: Some(convert::namespace_change(self.change)),
            request_id: self.scope.request_id(),
            if_version: self.if_version,
        };
        let send = |channel, request| async { admin_client(channel).configure_namespace(request).await };
        Ok(self.scope.scope.change(message, self.scope.is_named(), send).await?)
    }
}

impl_into_future! { ConfigureNamespace -> Result<NamespaceConfig, ConfigureNamespaceError> }
