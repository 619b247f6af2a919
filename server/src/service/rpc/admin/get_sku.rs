//! GetSku: reads the counters and rules of a SKU.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::{Admin, sku_change::Changed};
use crate::{
    domain::{NamespaceName, Operation, Sku},
    failure::Failure,
    service::{
        convert::sku_rules::{SkuView, sku_view},
        dispatch::{AsyncRpc, Scope, execute},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct GetSku {
    name: NamespaceName,
    sku: Sku,
}

impl AsyncRpc for GetSku {
    type Service = Admin;
    type Request = v1::GetSkuRequest;
    type Response = v1::GetSkuResponse;
    const KIND: RpcKind = RpcKind::GetSku;

    fn decode(request: Request<v1::GetSkuRequest>) -> Result<Self, Failure> {
        let v1::GetSkuRequest { namespace_id, sku } = request.into_inner();
        Ok(Self { name: NamespaceName::parse(namespace_id)?, sku: Sku::parse(sku, "sku")? })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::GetSkuResponse, Failure> {
        let Self { name, sku } = self;
        let namespace = admin.context.namespace(&name, deadline).await?;
        let lane = namespace.lane_of(&sku);
        let (outcome, sequence) = execute(lane, Operation::GetStock { sku }, deadline).await?;
        let Changed { sku, stock, .. } = Changed::decode(outcome, sequence)?;
        let SkuView { stock, rules, rules_version } = sku_view(sku, stock);
        Ok(v1::GetSkuResponse { rules, rules_version, stock, sequence })
    }
}
