//! Many SKUs in a call: imports and protection. Cuts them into messages and sends these by `call`, one after
//! the other; keeps no state.

use futures_util::stream;
use inventory_sentinel::v1;
use tonic::{Request, Response, Status};

use crate::{
    admin::{Admin, operators},
    call::{awaited, new_request_id},
    namespace::Namespace,
    operation_errors::{ImportStockError, SetProtectionError},
    rpc_error::RpcError,
    types::{Imported, Protection},
};

/// Rows, or SKUs, of one message: the most that the server takes.
const MESSAGE_ROWS: usize = 1_000;

/// A request to set the units on hand of many SKUs. Made by [`Admin::import_stock`]; await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is set before it is awaited"]
pub struct ImportStock {
    admin: Admin,
    rows: Vec<v1::ImportRow>,
    overwrite: bool,
}

impl ImportStock {
    pub(crate) fn new(admin: Admin, rows: impl IntoIterator<Item = (impl Into<String>, i64)>) -> ImportStock {
        let rows = rows.into_iter().map(|(sku, on_hand)| v1::ImportRow { sku: sku.into(), on_hand }).collect();
        ImportStock { admin, rows, overwrite: false }
    }

    /// Also sets SKUs that are known already.
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }

    async fn send(self) -> Result<Vec<Imported>, ImportStockError> {
        let Admin { namespace: Namespace { core, name, deadline }, request_id, only_existing } = self.admin;
        let request_id = request_id.unwrap_or_else(new_request_id);
        let mut outcomes = Vec::with_capacity(self.rows.len());
        for rows in self.rows.chunks(MESSAGE_ROWS) {
            let message = v1::ImportStockRequest {
                namespace_id: name.to_string(),
                request_id: request_id.clone(),
                rows: rows.to_vec(),
                overwrite: self.overwrite,
                existing_namespace_only: only_existing,
            };
            // A stream of one message, so that it is repeated as any other call.
            let send = |channel, request: Request<v1::ImportStockRequest>| async {
                let request = request.map(|message| stream::iter([message]));
                let mut answers = operators(channel).import_stock(request).await?.into_inner();
                let answer = answers.message().await?;
                answer.map(Response::new).ok_or_else(|| Status::unavailable("the import ended without an answer"))
            };
            let answer: Vec<Imported> = core.call(deadline, message, send).await?;
            if answer.len() != rows.len() {
                return Err(RpcError::malformed("not one result for each row").into());
            }
            outcomes.extend(answer);
        }
        Ok(outcomes)
    }
}

awaited! { ImportStock -> Result<Vec<Imported>, ImportStockError> }

/// Sets the protection of these SKUs, one message after the other.
pub(crate) async fn set_protection(
    admin: &Admin,
    skus: Vec<String>,
    is_protected: bool,
) -> Result<Vec<Protection>, SetProtectionError> {
    let Admin { namespace: Namespace { core, name, deadline }, request_id, .. } = admin;
    let request_id = request_id.clone().unwrap_or_else(new_request_id);
    let mut outcomes = Vec::with_capacity(skus.len());
    for skus in skus.chunks(MESSAGE_ROWS) {
        let message = v1::SetProtectionRequest {
            namespace_id: name.to_string(),
            skus: skus.to_vec(),
            is_protected: Some(is_protected),
            request_id: request_id.clone(),
        };
        let send = |channel, request| async { operators(channel).set_protection(request).await };
        let answer: Vec<Protection> = core.call(*deadline, message, send).await?;
        if answer.len() != skus.len() {
            return Err(RpcError::malformed("not one outcome for each sku").into());
        }
        outcomes.extend(answer);
    }
    Ok(outcomes)
}
