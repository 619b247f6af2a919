//! Pages and the outcomes of bulk calls from messages; no I/O.

use inventory_sentinel::{Reason, v1};

use super::{Answer, reservation, rules::sku_configuration, some};
use crate::{
    rpc_error::RpcError,
    rules::SkuConfiguration,
    types::{Imported, Page, Protection, Reservation},
};

impl Answer for v1::ListNamespacesResponse {
    type Plain = Page<String>;
    fn plain(self) -> Result<Self::Plain, RpcError> {
        let items = self.namespaces.into_iter().map(|listed| listed.namespace_id).collect();
        Ok(Page { items, next: some(self.next_page_token) })
    }
}

impl Answer for v1::ListStockResponse {
    type Plain = Page<SkuConfiguration>;
    fn plain(self) -> Result<Self::Plain, RpcError> {
        let configuration = |listed: v1::ListedSku| sku_configuration(listed.rules, listed.rules_version, listed.stock);
        let items = self.skus.into_iter().map(configuration).collect::<Result<_, _>>()?;
        Ok(Page { items, next: some(self.next_page_token) })
    }
}

impl Answer for v1::ListReservationsResponse {
    type Plain = Page<Reservation>;
    fn plain(self) -> Result<Self::Plain, RpcError> {
        let items = self.reservations.into_iter().map(|held| reservation(Some(held))).collect::<Result<_, _>>()?;
        Ok(Page { items, next: some(self.next_page_token) })
    }
}

impl Answer for v1::ImportStockResponse {
    type Plain = Vec<Imported>;
    fn plain(self) -> Result<Self::Plain, RpcError> {
        Ok(self.results.into_iter().map(imported).collect())
    }
}

fn imported(result: v1::ImportRowResult) -> Imported {
    match v1::ImportOutcome::try_from(result.outcome) {
        Ok(v1::ImportOutcome::Applied) => Imported::Applied,
        Ok(v1::ImportOutcome::AlreadyThere) => Imported::AlreadyThere,
        // An outcome of a later server is no success that is known here.
        Ok(v1::ImportOutcome::Failed | v1::ImportOutcome::Unspecified) | Err(_) => {
            Imported::Failed { reason: Reason::from_name(&result.reason), message: result.message }
        }
    }
}

impl Answer for v1::SetProtectionResponse {
    type Plain = Vec<Protection>;
    fn plain(self) -> Result<Self::Plain, RpcError> {
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
