//! ConfigureSku: changes the rules of a SKU.

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;
use tonic::Request;

use super::{
    Admin, decode_version,
    sku_change::{Changed, SkuChange},
};
use crate::{
    domain::{FIRST_WITH_PAUSE, Invalid, NamespaceName, Operation, RequestId, RulesChange, Sku},
    failure::Failure,
    service::{
        audit_record::AuditRecord,
        convert::{
            sku_rules,
            sku_rules::{SkuView, sku_view},
        },
        dispatch::{AsyncRpc, Scope},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct ConfigureSku {
    record: AuditRecord,
    name: NamespaceName,
    sku: Sku,
    change: RulesChange,
    request_id: Option<RequestId>,
    if_revision: Option<u64>,
}

impl AsyncRpc for ConfigureSku {
    type Service = Admin;
    type Request = v1::ConfigureSkuRequest;
    type Response = v1::ConfigureSkuResponse;
    const KIND: RpcKind = RpcKind::ConfigureSku;

    fn decode(request: Request<v1::ConfigureSkuRequest>) -> Result<Self, Failure> {
        let record = AuditRecord::of(request.extensions());
        let v1::ConfigureSkuRequest { namespace_id, sku, rules, request_id, if_version } = request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let sku = Sku::parse(sku, "sku")?;
        let request_id = RequestId::parse_optional(request_id)?;
        let change = sku_rules::decode_change(rules)?;
        let if_revision = if_version.map(decode_version).transpose()?;
        Ok(Self { record, name, sku, change, request_id, if_revision })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::ConfigureSkuResponse, Failure> {
        let Self { record, name, sku, change, request_id, if_revision } = self;
        let namespace = admin.context.namespace(&name, deadline).await?;
        if change.is_paused == Some(true) && namespace.config.format < FIRST_WITH_PAUSE {
            let detail = "it needs a namespace of format 5 or later";
            return Err(Invalid::new(Reason::InvalidRule, "rules.is_paused").because(detail).into());
        }
        let sku_change = SkuChange {
            record: &record,
            namespace: &namespace,
            request_id: request_id.as_ref(),
            deadline,
            // Another change may have been applied between the read and this one.
            directly_precedes: |before, after| before.rules.revision + 1 == after.rules.revision,
        };
        let operation = |memo, sku| Operation::ConfigureSku { memo, sku, change, if_revision };
        let Changed { sku, stock, replayed, sequence } = sku_change.run(sku, operation).await?;
        let SkuView { stock, rules, rules_version } = sku_view(sku, stock);
        Ok(v1::ConfigureSkuResponse { rules, rules_version, stock, sequence, replayed })
    }
}
