//! Imports and protection of many SKUs. Splits them into messages and sends these one after the other; keeps no state.

use futures_util::stream;
use inventory_sentinel::v1;
use tonic::{Request, Response, Status};

use super::impl_into_future;
use crate::{
    operation_errors::{ImportStockError, SetProtectionError},
    rpc_error::RpcError,
    scope::AdminScope,
    transport::stubs::admin_client,
    types::{Imported, Protection},
};

/// Rows, or SKUs, of one message: the most that the server accepts.
const ROWS_PER_MESSAGE: usize = 1_000;

/// A request to set the units on hand of many SKUs. Made by [`Admin::import_stock`](crate::Admin::import_stock); await
/// it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is set before it is awaited"]
pub struct ImportStock {
    scope: AdminScope,
    rows: Vec<v1::ImportRow>,
    overwrite: bool,
}

impl ImportStock {
    pub(crate) fn new(scope: AdminScope, rows: impl IntoIterator<Item = (impl Into<String>, i64)>) -> ImportStock {
        let rows = rows.into_iter().map(|(sku, on_hand)| v1::ImportRow { sku: sku.into(), on_hand }).collect();
        ImportStock { scope, rows, overwrite: false }
    }

    /// Also sets SKUs that exist already.
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }

    async fn send(self) -> Result<Vec<Imported>, ImportStockError> {
        let request_id = self.scope.request_id();
        let mut outcomes = Vec::with_capacity(self.rows.len());
        for rows in self.rows.chunks(ROWS_PER_MESSAGE) {
            let message = v1::ImportStockRequest {
                namespace_id: self.scope.namespace_id(),
                request_id: request_id.clone(),
                rows: rows.to_vec(),
                overwrite: self.overwrite,
                existing_namespace_only: self.scope.existing_namespace_only,
            };
            // A stream of one message can be retried as any other call.
            let send = |channel, request: Request<v1::ImportStockRequest>| async {
                let request = request.map(|message| stream::iter([message]));
                let mut responses = admin_client(channel).import_stock(request).await?.into_inner();
                let response = responses.message().await?;
                response.map(Response::new).ok_or_else(|| Status::unavailable("the import ended without a response"))
            };
            let results: Vec<Imported> = self.scope.scope.call(message, send).await?;
            if results.len() != rows.len() {
                return Err(RpcError::malformed("not one result for each row").into());
            }
            outcomes.extend(results);
        }
        Ok(outcomes)
    }
}

impl_into_future! { ImportStock -> Result<Vec<Imported>, ImportStockError> }

/// Sets the protection of these SKUs, one message after the other.
pub(crate) async fn set_protection(
    scope: &AdminScope,
    skus: Vec<String>,
    is_protected: bool,
) -> Result<Vec<Protection>, SetProtectionError> {
    let request_id = scope.request_id();
    let mut outcomes = Vec::with_capacity(skus.len());
    for skus in skus.chunks(ROWS_PER_MESSAGE) {
        let message = v1::SetProtectionRequest {
            namespace_id: scope.namespace_id(),
            skus: skus.to_vec(),
            is_protected: Some(is_protected),
            request_id: request_id.clone(),
        };
        let send = |channel, request| async { admin_client(channel).set_protection(request).await };
        let results: Vec<Protection> = scope.scope.call(message, send).await?;
        if results.len() != skus.len() {
            return Err(RpcError::malformed("not one outcome for each sku").into());
        }
        outcomes.extend(results);
    }
    Ok(outcomes)
}
