//! SetStock: sets the units on hand of a SKU, and creates the SKU and its namespace.

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;
use tonic::Request;

use super::{
    Admin, decode_version,
    sku_change::{Changed, SkuChange},
};
use crate::{
    domain::{Condition, Invalid, NamespaceName, OnHand, Operation, RequestId, Sku},
    failure::Failure,
    service::{
        audit_record::AuditRecord,
        convert,
        dispatch::{AsyncRpc, Scope},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct SetStock {
    record: AuditRecord,
    name: NamespaceName,
    sku: Sku,
    on_hand: OnHand,
    condition: Condition,
    request_id: RequestId,
    only_existing: bool,
}

impl AsyncRpc for SetStock {
    type Service = Admin;
    type Request = v1::SetStockRequest;
    type Response = v1::SetStockResponse;
    const KIND: RpcKind = RpcKind::SetStock;

    fn decode(request: Request<v1::SetStockRequest>) -> Result<Self, Failure> {
        let record = AuditRecord::of(request.extensions());
        let v1::SetStockRequest {
            namespace_id,
            sku,
            on_hand,
            request_id,
            if_absent,
            if_version,
            existing_namespace_only: only_existing,
        } = request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let sku = Sku::parse(sku, "sku")?;
        let on_hand = OnHand::parse(on_hand)?;
        let condition = decode_condition(if_absent, if_version)?;
        let request_id = RequestId::parse(request_id)?;
        Ok(Self { record, name, sku, on_hand, condition, request_id, only_existing })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::SetStockResponse, Failure> {
        let Self { record, name, sku, on_hand, condition, request_id, only_existing } = self;
        let namespace = &*admin.context.namespace_or_new(&name, only_existing, deadline).await?;
        let change = SkuChange {
            record: &record,
            namespace,
            request_id: Some(&request_id),
            deadline,
            // If the batch was sent twice, the read may already contain the change.
            directly_precedes: |before, after| before.version < after.version,
        };
        let operation = |memo, sku| Operation::SetStock { memo, sku, on_hand, condition };
        let Changed { sku, stock, replayed, sequence } = change.run(sku, operation).await?;
        Ok(v1::SetStockResponse { stock: Some(convert::stock(sku, stock)), replayed, sequence })
    }
}

/// Decodes the condition under which SetStock is applied. The two conditions exclude each other.
fn decode_condition(if_absent: bool, if_version: Option<i64>) -> Result<Condition, Invalid> {
    match if_version {
        Some(_) if if_absent => Err(Invalid::new(Reason::InvalidPolicy, "if_version")),
        Some(number) => decode_version(number).map(Condition::IfVersion),
        None if if_absent => Ok(Condition::IfAbsent),
        None => Ok(Condition::Always),
    }
}
