//! AdjustStock: adds units to a SKU, or takes some off.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::{
    Admin,
    sku_change::{Changed, SkuChange},
};
use crate::{
    domain::{Delta, NamespaceName, Operation, RequestId, Sku},
    failure::Failure,
    service::{
        audit_record::AuditRecord,
        convert,
        dispatch::{AsyncRpc, Scope},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct AdjustStock {
    record: AuditRecord,
    name: NamespaceName,
    sku: Sku,
    delta: Delta,
    request_id: RequestId,
    only_existing: bool,
}

impl AsyncRpc for AdjustStock {
    type Service = Admin;
    type Request = v1::AdjustStockRequest;
    type Response = v1::AdjustStockResponse;
    const KIND: RpcKind = RpcKind::AdjustStock;

    fn decode(request: Request<v1::AdjustStockRequest>) -> Result<Self, Failure> {
        let record = AuditRecord::of(request.extensions());
        let v1::AdjustStockRequest { namespace_id, sku, delta, request_id, existing_namespace_only: only_existing } =
            request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let sku = Sku::parse(sku, "sku")?;
        let delta = Delta::parse(delta)?;
        let request_id = RequestId::parse(request_id)?;
        Ok(Self { record, name, sku, delta, request_id, only_existing })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::AdjustStockResponse, Failure> {
        let Self { record, name, sku, delta, request_id, only_existing } = self;
        let namespace = if delta.get() > 0 {
            admin.context.namespace_or_new(&name, only_existing, deadline).await?
        } else {
            admin.context.namespace(&name, deadline).await?
        };
        let change = SkuChange {
            record: &record,
            namespace: &namespace,
            request_id: Some(&request_id),
            deadline,
            // If the batch was sent twice, the read may already contain the change.
            directly_precedes: |before, after| before.version < after.version,
        };
        let operation = |memo, sku| Operation::AdjustStock { memo, sku, delta };
        let Changed { sku, stock, replayed, sequence } = change.run(sku, operation).await?;
        Ok(v1::AdjustStockResponse { stock: Some(convert::stock(sku, stock)), replayed, sequence })
    }
}
