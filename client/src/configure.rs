//! The operators' requests of which more can be said: set the stock, configure a SKU or a namespace.
//! What can be said about each, and its sending. Keeps no state.

use inventory_sentinel::v1;

use crate::{
    admin::{Admin, operators},
    call::{awaited, new_request_id},
    convert,
    namespace::Namespace,
    operation_errors::{ConfigureNamespaceError, ConfigureSkuError, SetStockError},
    rules::{NamespaceChange, NamespaceConfig, RulesChange, SkuConfiguration},
    types::{Receipt, Snapshot, Stock},
};

/// A request to set the units on hand. Made by [`Admin::set_stock`]; await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is set before it is awaited"]
pub struct SetStock {
    admin: Admin,
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
    pub(crate) fn new(admin: Admin, sku: &str, on_hand: i64) -> SetStock {
        SetStock { admin, sku: sku.to_owned(), on_hand, condition: Condition::Always }
    }

    /// Only if the SKU is not known yet: for warm-ups that may be run again in the middle of a sale.
    /// Takes the place of [`if_version`](Self::if_version).
    pub fn if_absent(mut self) -> Self {
        self.condition = Condition::Absent;
        self
    }

    /// Only if [`Stock::version`] is this. Takes the place of [`if_absent`](Self::if_absent).
    pub fn if_version(mut self, version: i64) -> Self {
        self.condition = Condition::Version(version);
        self
    }

    async fn send(self) -> Result<Receipt<Stock>, SetStockError> {
        let Admin { namespace: Namespace { core, name, deadline }, request_id, only_existing } = self.admin;
        let (if_absent, if_version) = match self.condition {
            Condition::Always => (false, None),
            Condition::Absent => (true, None),
            Condition::Version(version) => (false, Some(version)),
        };
        let is_named = request_id.is_some();
        let message = v1::SetStockRequest {
            namespace_id: name.to_string(),
            sku: self.sku,
            on_hand: self.on_hand,
            request_id: request_id.unwrap_or_else(new_request_id),
            if_absent,
            if_version,
            existing_namespace_only: only_existing,
        };
        let claim = core.claim(core.identity(&message, is_named))?;
        let send = |channel, request| async { operators(channel).set_stock(request).await };
        Ok(claim.end(core.call(deadline, message, send).await, |_| true)?)
    }
}

awaited! { SetStock -> Result<Receipt<Stock>, SetStockError> }

/// A request to change the rules of a SKU. Made by [`Admin::configure_sku`]; await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is changed before it is awaited"]
pub struct ConfigureSku {
    admin: Admin,
    sku: String,
    change: RulesChange,
    if_version: Option<i64>,
}

impl ConfigureSku {
    pub(crate) fn new(admin: Admin, sku: &str, change: RulesChange) -> ConfigureSku {
        ConfigureSku { admin, sku: sku.to_owned(), change, if_version: None }
    }

    /// Only if [`SkuConfiguration::rules_version`] is this.
    pub fn if_version(mut self, rules_version: i64) -> Self {
        self.if_version = Some(rules_version);
        self
    }

    async fn send(self) -> Result<Snapshot<SkuConfiguration>, ConfigureSkuError> {
        let Admin { namespace: Namespace { core, name, deadline }, request_id, .. } = self.admin;
        let is_named = request_id.is_some();
        let message = v1::ConfigureSkuRequest {
            namespace_id: name.to_string(),
            sku: self.sku,
            rules: Some(convert::rules_change(self.change)),
            request_id: request_id.unwrap_or_else(new_request_id),
            if_version: self.if_version,
        };
        let send = |channel, request| async { operators(channel).configure_sku(request).await };
        let claim = core.claim(core.identity(&message, is_named))?;
        Ok(claim.end(core.call(deadline, message, send).await, |_| true)?)
    }
}

awaited! { ConfigureSku -> Result<Snapshot<SkuConfiguration>, ConfigureSkuError> }

/// A request to change what holds for a namespace. Made by [`Admin::configure_namespace`]; await it to
/// send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is changed before it is awaited"]
pub struct ConfigureNamespace {
    admin: Admin,
    change: NamespaceChange,
    if_version: Option<i64>,
}

impl ConfigureNamespace {
    pub(crate) fn new(admin: Admin, change: NamespaceChange) -> ConfigureNamespace {
        ConfigureNamespace { admin, change, if_version: None }
    }

    /// Only if [`NamespaceConfig::version`] is this; 0: only if the namespace is not known yet.
    pub fn if_version(mut self, version: i64) -> Self {
        self.if_version = Some(version);
        self
    }

    async fn send(self) -> Result<NamespaceConfig, ConfigureNamespaceError> {
        let Admin { namespace: Namespace { core, name, deadline }, request_id, .. } = self.admin;
        let is_named = request_id.is_some();
        let message = v1::ConfigureNamespaceRequest {
            namespace_id: name.to_string(),
            config: Some(convert::namespace_change(self.change)),
            request_id: request_id.unwrap_or_else(new_request_id),
            if_version: self.if_version,
        };
        let send = |channel, request| async { operators(channel).configure_namespace(request).await };
        let claim = core.claim(core.identity(&message, is_named))?;
        Ok(claim.end(core.call(deadline, message, send).await, |_| true)?)
    }
}

awaited! { ConfigureNamespace -> Result<NamespaceConfig, ConfigureNamespaceError> }
