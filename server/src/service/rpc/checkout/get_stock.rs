//! GetStock: reads the counters of one SKU. No I/O.

use inventory_sentinel::v1;
use tokio::time::Instant;

use crate::{
    domain::{NamespaceName, Operation, Outcome, Sku},
    failure::Failure,
    namespaces::Namespace,
    service::{
        convert,
        dispatch::{BoundOperation, LaneRpc, Route, unexpected},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct GetStock(Sku);

impl LaneRpc for GetStock {
    type Request = v1::GetStockRequest;
    type Response = v1::GetStockResponse;
    const KIND: RpcKind = RpcKind::GetStock;

    fn decode(request: v1::GetStockRequest) -> Result<(NamespaceName, Self), Failure> {
        let v1::GetStockRequest { namespace_id, sku } = request;
        Ok((NamespaceName::parse(namespace_id)?, Self(Sku::parse(sku, "sku")?)))
    }

    fn bind(self, namespace: &Namespace, _: Instant) -> Result<BoundOperation, Failure> {
        let Self(sku) = self;
        let route = Route::Partition(namespace.partition_of(&sku));
        Ok(BoundOperation { route, operation: Operation::GetStock { sku } })
    }

    fn encode(_: &Namespace, outcome: Outcome, sequence: i64) -> Result<v1::GetStockResponse, Failure> {
        match outcome {
            Outcome::Stock { sku, stock, .. } => {
                Ok(v1::GetStockResponse { stock: Some(convert::stock(sku, stock)), sequence })
            }
            other => Err(unexpected(&other)),
        }
    }
}
