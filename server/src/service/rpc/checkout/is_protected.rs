//! IsProtected: reads whether a SKU is protected. An unknown SKU is not protected. No I/O.

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;

use crate::{
    domain::{NamespaceName, Operation, Outcome, Sku},
    failure::Failure,
    namespaces::Namespace,
    service::dispatch::{BoundOperation, LaneRpc, Route, unexpected},
    telemetry::metrics::RpcKind,
};

pub(crate) struct IsProtected(Sku);

impl LaneRpc for IsProtected {
    type Request = v1::IsProtectedRequest;
    type Response = v1::IsProtectedResponse;
    const KIND: RpcKind = RpcKind::IsProtected;

    fn decode(request: v1::IsProtectedRequest) -> Result<(NamespaceName, Self), Failure> {
        let v1::IsProtectedRequest { namespace_id, sku } = request;
        Ok((NamespaceName::parse(namespace_id)?, Self(Sku::parse(sku, "sku")?)))
    }

    fn bind(self, namespace: &Namespace, _: Instant) -> Result<BoundOperation, Failure> {
        let Self(sku) = self;
        let route = Route::Partition(namespace.partition_of(&sku));
        Ok(BoundOperation { route, operation: Operation::IsProtected { sku } })
    }

    fn encode(_: &Namespace, outcome: Outcome, _: i64) -> Result<v1::IsProtectedResponse, Failure> {
        match outcome {
            Outcome::Stock { stock, .. } => Ok(v1::IsProtectedResponse { is_protected: stock.is_protected }),
            other => Err(unexpected(&other)),
        }
    }

    fn recover(failure: Failure) -> Result<v1::IsProtectedResponse, Failure> {
        match failure.reason() {
            Reason::SkuNotFound | Reason::NamespaceNotFound => Ok(v1::IsProtectedResponse { is_protected: false }),
            _ => Err(failure),
        }
    }
}
