//! The operators' operations on one namespace. Makes messages and sends them by `call`; keeps no state.

use inventory_sentinel::v1::{self, inventory_admin_client::InventoryAdminClient};
use tonic::transport::Channel;

use crate::{
    call::new_request_id,
    connection::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES},
    convert,
    namespace::Namespace,
    operation_errors::{AdjustStockError, AuditError, ConfigureSkuError, SetStockError},
    rpc_error::RpcError,
    types::{Audit, Receipt, SkuConfiguration, SkuRules, Snapshot, Stock},
};

/// The operators' operations on one namespace. Made by [`Namespace::admin`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    namespace: Namespace,
    request_id: Option<String>,
}

impl Admin {
    pub(crate) fn new(namespace: Namespace) -> Admin {
        Admin { namespace, request_id: None }
    }

    /// The same operations under an identity that the caller keeps, such as the id of a transfer:
    /// `sale.admin().request_id("transfer-17").adjust_stock("ps5", 100).await`. Without it a new one is
    /// made for each call.
    #[must_use]
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Sets the units on hand, that is available and held ones; sold ones stay. An unknown SKU is
    /// made, protected, and so is an unknown namespace.
    ///
    /// # Errors
    /// See [`SetStockError`].
    pub async fn set_stock(&self, sku: &str, on_hand: i64) -> Result<Receipt<Stock>, SetStockError> {
        let message = v1::SetStockRequest {
            namespace_id: self.namespace.name.to_string(),
            sku: sku.to_owned(),
            on_hand,
            request_id: self.identity(),
        };
        let send = |channel, request| async { admin(channel).set_stock(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        Ok(core.call(*deadline, message, send).await?)
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
            request_id: self.identity(),
        };
        let send = |channel, request| async { admin(channel).adjust_stock(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        Ok(core.call(*deadline, message, send).await?)
    }

    /// Changes the rules of a SKU; what is `None` in `rules` stays as it is. Repeats harmlessly.
    ///
    /// # Errors
    /// See [`ConfigureSkuError`].
    pub async fn configure_sku(
        &self,
        sku: &str,
        rules: SkuRules,
    ) -> Result<Snapshot<SkuConfiguration>, ConfigureSkuError> {
        let message = v1::ConfigureSkuRequest {
            namespace_id: self.namespace.name.to_string(),
            sku: sku.to_owned(),
            rules: Some(convert::rules(rules)),
            request_id: self.request_id.clone().unwrap_or_default(),
        };
        let send = |channel, request| async { admin(channel).configure_sku(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        Ok(core.call(*deadline, message, send).await?)
    }

    /// Checks the books of the namespace against its records, exactly and under full traffic. Reads
    /// every pending reservation: give it a longer [deadline](Namespace::with_deadline) where there are
    /// many.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub async fn audit(&self) -> Result<Audit, AuditError> {
        let message = v1::AuditRequest { namespace_id: self.namespace.name.to_string() };
        let send = |channel, request| async { admin(channel).audit(request).await };
        let Namespace { core, deadline, .. } = &self.namespace;
        let answer = core.call(*deadline, message, send).await;
        Ok(answer.map_err(RpcError::of_read)?)
    }

    fn identity(&self) -> String {
        self.request_id.clone().unwrap_or_else(new_request_id)
    }
}

fn admin(channel: Channel) -> InventoryAdminClient<Channel> {
    InventoryAdminClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
}
