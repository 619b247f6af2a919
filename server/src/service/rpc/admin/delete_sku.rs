//! DeleteSku: deletes a SKU without holds.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::{
    Admin,
    sku_change::{Changed, lane_and_identity},
};
use crate::{
    domain::{NamespaceName, Operation, Outcome, RequestId, Sku},
    failure::Failure,
    service::{
        audit_record::{AuditRecord, Change, text_of_request_id, text_of_stock},
        convert,
        dispatch::{AsyncRpc, Scope, execute},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct DeleteSku {
    record: AuditRecord,
    name: NamespaceName,
    sku: Sku,
    request_id: Option<RequestId>,
}

impl AsyncRpc for DeleteSku {
    type Service = Admin;
    type Request = v1::DeleteSkuRequest;
    type Response = v1::DeleteSkuResponse;
    const KIND: RpcKind = RpcKind::DeleteSku;

    fn decode(request: Request<v1::DeleteSkuRequest>) -> Result<Self, Failure> {
        let record = AuditRecord::of(request.extensions());
        let v1::DeleteSkuRequest { namespace_id, sku, request_id } = request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let sku = Sku::parse(sku, "sku")?;
        let request_id = RequestId::parse_optional(request_id)?;
        Ok(Self { record, name, sku, request_id })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::DeleteSkuResponse, Failure> {
        let Self { record, name, sku, request_id } = self;
        let Some(namespace) = admin.context.find_namespace(&name, deadline).await? else {
            return Ok(v1::DeleteSkuResponse::default());
        };
        let (lane, memo) = lane_and_identity(&namespace, &sku, request_id.as_ref())?;
        let (outcome, sequence) = execute(lane, Operation::DeleteSku { memo, sku }, deadline).await?;
        if let Outcome::NothingToDelete { replayed } = outcome {
            return Ok(v1::DeleteSkuResponse { stock: None, sequence, replayed });
        }
        let Changed { sku, stock, replayed, sequence } = Changed::decode(outcome, sequence)?;
        if !replayed {
            let change = Change {
                sku: sku.as_str().to_owned(),
                request_id: text_of_request_id(request_id.as_ref()),
                before: text_of_stock(&stock),
                after: "deleted".into(),
            };
            record.set_change(change);
        }
        Ok(v1::DeleteSkuResponse { stock: Some(convert::stock(sku, stock)), sequence, replayed })
    }
}
