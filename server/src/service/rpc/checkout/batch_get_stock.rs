//! BatchGetStock: reads the counters of many SKUs of one namespace, through their lanes.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::{Checkout, batch::check_size, get_stock::GetStock};
use crate::{
    domain::{Answer, NamespaceName, Operation, Refusal, Sku},
    failure::Failure,
    lane::{LaneError, Pending},
    service::{
        convert,
        dispatch::{AsyncRpc, LaneRpc as _, Scope},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct BatchGetStock {
    name: NamespaceName,
    skus: Vec<Sku>,
}

impl AsyncRpc for BatchGetStock {
    type Service = Checkout;
    type Request = v1::BatchGetStockRequest;
    type Response = v1::BatchGetStockResponse;
    const KIND: RpcKind = RpcKind::BatchGetStock;

    fn decode(request: Request<v1::BatchGetStockRequest>) -> Result<Self, Failure> {
        let v1::BatchGetStockRequest { namespace_id, skus } = request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        check_size(skus.len(), "skus")?;
        Ok(Self { name, skus: convert::skus(skus)? })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, checkout: &Checkout, deadline: Instant) -> Result<v1::BatchGetStockResponse, Failure> {
        let namespace = checkout.context.namespace(&self.name, deadline).await?;
        let mut response = v1::BatchGetStockResponse::default();
        let submit = |sku| namespace.lane_of(&sku).submit(Operation::GetStock { sku }, deadline);
        let submitted: Vec<Pending> = self.skus.into_iter().map(submit).collect::<Result<_, LaneError>>()?;
        for pending in submitted {
            let Answer { outcome, sequence } = pending.wait().await?;
            match outcome {
                Ok(outcome) => response.found.push(GetStock::encode(&namespace, outcome, sequence as i64)?),
                Err(Refusal::SkuNotFound(sku)) => response.unknown_skus.push(sku.into_string()),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(response)
    }
}
