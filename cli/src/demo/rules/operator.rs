//! What the operator of the sale by the rules does: sets the rules, delivers, takes a product out of protection and
//! puts it back, and closes.

use std::time::SystemTime;

use inventory_sentinel_client::{
    AdjustStockError, Admin, ConfigureNamespaceError, ConfigureSkuError, NamespaceChange, RulesChange,
    SetProtectionError,
};
use uuid::Uuid;

use super::{
    sale::Sale,
    terms::{MAX_LIFE, STAY_TTL},
};
use crate::failure::Failure;

/// Sets the rules of the namespace and of every product.
pub(crate) async fn set_the_terms(sale: &Sale) -> Result<(), Failure> {
    let change = NamespaceChange::new().default_ttl(STAY_TTL).max_ttl(MAX_LIFE).max_life(MAX_LIFE);
    let request = |admin: Admin| admin.configure_namespace(change.clone());
    sale.shop.operate("ConfigureNamespace", ConfigureNamespaceError::rpc, request).await?;
    configure(sale, &sale.terms.rules()).await
}

/// Says when the sale ends.
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

/// Takes the drained product out of protection, or puts it back.
pub(crate) async fn protect(sale: &Sale, is_protected: bool) -> Result<(), Failure> {
    let sku = sale.shop.sku(sale.terms.drained);
    let request = |admin: Admin| async move { admin.set_protection([sku], is_protected).await };
    sale.shop.operate("SetProtection", SetProtectionError::rpc, request).await?;
    Ok(())
}

/// Puts more units on the shelf of every product, and into the books of what is there.
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
