//! Pages and the outcomes of bulk calls: messages to types; no I/O.

use inventory_sentinel::{Reason, v1};

use super::{Decode, reservation, rules::sku_configuration, some};
use crate::{
    rpc_error::RpcError,
    rules::SkuConfiguration,
    types::{Imported, Page, Protection, Reservation},
};

impl Decode for v1::ListNamespacesResponse {
    type Value = Page<String>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        let items = self.namespaces.into_iter().map(|listed| listed.namespace_id).collect();
        Ok(Page { items, next: some(self.next_page_token) })
    }
}

impl Decode for v1::ListStockResponse {
    type Value = Page<SkuConfiguration>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        let configuration = |listed: v1::ListedSku| sku_configuration(listed.rules, listed.rules_version, listed.stock);
        let items = self.skus.into_iter().map(configuration).collect::<Result<_, _>>()?;
        Ok(Page { items, next: some(self.next_page_token) })
    }
}

impl Decode for v1::ListReservationsResponse {
    type Value = Page<Reservation>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        let items = self.reservations.into_iter().map(|held| reservation(Some(held))).collect::<Result<_, _>>()?;
        Ok(Page { items, next: some(self.next_page_token) })
    }
}

impl Decode for v1::ImportStockResponse {
    type Value = Vec<Imported>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        Ok(self.results.into_iter().map(imported).collect())
    }
}

fn imported(result: v1::ImportRowResult) -> Imported {
    match v1::ImportOutcome::try_from(result.outcome) {
        Ok(v1::ImportOutcome::Applied) => Imported::Applied,
        Ok(v1::ImportOutcome::AlreadyThere) => Imported::AlreadyThere,
        // An outcome of a newer server is not known to be a success.
        Ok(v1::ImportOutcome::Failed | v1::ImportOutcome::Unspecified) | Err(_) => {
            Imported::Failed { reason: Reason::from_name(&result.reason), message: result.message }
        }
    }
}

impl Decode for v1::SetProtectionResponse {
    type Value = Vec<Protection>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        Ok(self.outcomes.into_iter().map(protection).collect())
    }
}

fn protection(outcome: i32) -> Protection {
    match v1::ProtectionOutcome::try_from(outcome) {
        Ok(v1::ProtectionOutcome::Changed) => Protection::Changed,
        Ok(v1::ProtectionOutcome::Unchanged) => Protection::Unchanged,
        Ok(v1::ProtectionOutcome::SkuNotFound) => Protection::SkuNotFound,
        Ok(v1::ProtectionOutcome::Unspecified) | Err(_) => Protection::Unknown(outcome),
    }
}
