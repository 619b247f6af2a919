//! The operator's calls in the rules scenario: sets the rules, delivers units, switches protection, and closes the
//! sale.

use std::time::SystemTime;

use inventory_sentinel_client::{
    AdjustStockError, Admin, ConfigureNamespaceError, ConfigureSkuError, NamespaceChange, RulesChange,
    SetProtectionError,
};
use uuid::Uuid;

use super::{
    sale::Sale,
    sale_rules::{MAX_LIFE, STAY_TTL},
};
use crate::failure::Failure;

/// Sets the rules of the namespace and of every product.
pub(crate) async fn set_rules(sale: &Sale) -> Result<(), Failure> {
    let change = NamespaceChange::new().default_ttl(STAY_TTL).max_ttl(MAX_LIFE).max_life(MAX_LIFE);
    let request = |admin: Admin| admin.configure_namespace(change.clone());
    sale.shop.operate("ConfigureNamespace", ConfigureNamespaceError::rpc, request).await?;
    configure(sale, &sale.rules.as_change()).await
}

/// Sets the end of the sale.
pub(crate) async fn announce_closing(sale: &Sale, closes_at: SystemTime) -> Result<(), Failure> {
    configure(sale, &RulesChange::new().closes_at(closes_at)).await
}

async fn configure(sale: &Sale, change: &RulesChange) -> Result<(), Failure> {
    for sku in &sale.plan.skus {
        let request = |admin: Admin| admin.configure_sku(sku, change.clone());
        sale.shop.operate("ConfigureSku", ConfigureSkuError::rpc, request).await?;
    }
    Ok(())
}

/// Sets or removes the protection of the drained product.
pub(crate) async fn protect(sale: &Sale, is_protected: bool) -> Result<(), Failure> {
    let sku = sale.shop.sku(sale.rules.drained);
    let request = |admin: Admin| async move { admin.set_protection([sku], is_protected).await };
    sale.shop.operate("SetProtection", SetProtectionError::rpc, request).await?;
    Ok(())
}

/// Adds units to the stock of every product, and to `supplies`.
pub(crate) async fn deliver(sale: &Sale, supplies: &mut [u32], share: u32) -> Result<(), Failure> {
    for (sku, supply) in sale.plan.skus.iter().zip(supplies) {
        let units = (*supply / share).max(1);
        let identity = Uuid::now_v7().to_string();
        let request = |admin: Admin| {
            let admin = admin.request_id(&identity);
            async move { admin.adjust_stock(sku, units.into()).await }
        };
        sale.shop.operate("AdjustStock", AdjustStockError::rpc, request).await?;
        *supply += units;
    }
    Ok(())
}
