//! `InventoryAdmin`: stock, rules and the audit. Parses and answers; what is decided is decided in
//! the store.

use std::sync::Arc;

use inventory_sentinel::{
    Reason,
    v1::{self, inventory_admin_server::InventoryAdmin},
};
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Request, Response, Status};

use super::{Desk, carry, check_age, convert, deadline, status::Failure, unexpected};
use crate::{
    domain::{
        Delta, Id, Invalid, NamespaceName, OnHand, Operation, Outcome, Refusal, Report, RequestId, Rules, Sku, Stock,
    },
    namespaces::Namespace,
    store::{Store, audit},
    telemetry::metrics::Operation as Measured,
};

/// Audits under way at once: each reads every pending reservation.
const AUDITS: usize = 1;

/// The operators' service.
#[derive(Clone)]
pub(crate) struct Admin {
    desk: Desk,
    store: Arc<Store>,
    audits: Arc<Semaphore>,
}

impl Admin {
    pub(crate) fn new(desk: Desk, store: Arc<Store>) -> Self {
        Self { desk, store, audits: Arc::new(Semaphore::new(AUDITS)) }
    }
}

#[tonic::async_trait]
impl InventoryAdmin for Admin {
    async fn set_stock(&self, request: Request<v1::SetStockRequest>) -> Result<Response<v1::SetStockResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::SetStockRequest { namespace_id, sku, on_hand, request_id } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let sku = Sku::parse(sku, "sku")?;
            let on_hand = OnHand::parse(on_hand)?;
            let request_id = RequestId::parse(request_id)?;
            let namespace = self.desk.namespace_made(&name, deadline).await?;
            let operation = |id, sku| Operation::SetStock { id, sku, on_hand };
            let (stock, replayed, sequence) = change_stock(&namespace, sku, &request_id, operation, deadline).await?;
            Ok(v1::SetStockResponse { stock: Some(stock), replayed, sequence })
        };
        self.desk.answer(Measured::SetStock, handler, |_| false).await
    }

    async fn adjust_stock(
        &self,
        request: Request<v1::AdjustStockRequest>,
    ) -> Result<Response<v1::AdjustStockResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::AdjustStockRequest { namespace_id, sku, delta, request_id } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let sku = Sku::parse(sku, "sku")?;
            let delta = Delta::parse(delta)?;
            let request_id = RequestId::parse(request_id)?;
            let namespace = if delta.get() > 0 {
                self.desk.namespace_made(&name, deadline).await?
            } else {
                self.desk.namespace_or(&name, Refusal::SkuNotFound(sku.clone()), deadline).await?
            };
            let operation = |id, sku| Operation::AdjustStock { id, sku, delta };
            let (stock, replayed, sequence) = change_stock(&namespace, sku, &request_id, operation, deadline).await?;
            Ok(v1::AdjustStockResponse { stock: Some(stock), replayed, sequence })
        };
        self.desk.answer(Measured::AdjustStock, handler, |_| false).await
    }

    async fn configure_sku(
        &self,
        request: Request<v1::ConfigureSkuRequest>,
    ) -> Result<Response<v1::ConfigureSkuResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::ConfigureSkuRequest { namespace_id, sku, rules, request_id } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let sku = Sku::parse(sku, "sku")?;
            RequestId::check_optional(request_id)?;
            let rules = Rules { is_protected: rules.and_then(|rules| rules.is_protected) };
            if rules.is_protected.is_none() {
                return Err(Invalid::new(Reason::NoRules, "rules").into());
            }
            let namespace = self.desk.namespace_or(&name, Refusal::SkuNotFound(sku.clone()), deadline).await?;
            let operation = Operation::ConfigureSku { sku: sku.clone(), rules };
            let (sku, stock, _, sequence) = stock_of(carry(namespace.lane_of(&sku), operation, deadline).await?)?;
            Ok(v1::ConfigureSkuResponse {
                rules: Some(v1::SkuRules { is_protected: Some(stock.is_protected) }),
                stock: Some(convert::stock(sku, stock)),
                sequence,
            })
        };
        self.desk.answer(Measured::ConfigureSku, handler, |_| false).await
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::AuditRequest { namespace_id } = request.into_inner();
        let handler = async {
            let name = NamespaceName::parse(namespace_id)?;
            let namespace = self.desk.namespace(&name, deadline).await?;
            let namespace = namespace.ok_or_else(|| Failure::new(Reason::NamespaceNotFound))?;
            let Ok(_permit) = self.audits.try_acquire() else {
                return Err(Failure::new(Reason::Overloaded).because("another audit is under way"));
            };
            tokio::time::timeout_at(deadline, self.read_books(&namespace))
                .await
                .map_err(|_| Failure::new(Reason::DeadlineExceeded))?
        };
        self.desk.answer(Measured::Audit, handler, |_| false).await
    }
}

impl Admin {
    async fn read_books(&self, namespace: &Namespace) -> Result<v1::AuditResponse, Failure> {
        let mut report = Report::empty();
        let mut connection = self.store.connection().await?;
        for (partition, keys) in namespace.partitions() {
            audit::partition(&mut connection, &keys, partition, &mut report).await?;
        }
        Ok(convert::report(report))
    }
}

/// What SetStock and AdjustStock share: a change with an identity in, the counters out.
async fn change_stock(
    namespace: &Namespace,
    sku: Sku,
    request_id: &RequestId,
    operation: impl FnOnce(Id, Sku) -> Operation,
    deadline: Instant,
) -> Result<(v1::Stock, bool, i64), Failure> {
    let id = namespace.identity(request_id);
    let lane = namespace.lane_of(&sku);
    check_age(namespace, lane, request_id)?;
    let (sku, stock, replayed, sequence) = stock_of(carry(lane, operation(id, sku), deadline).await?)?;
    Ok((convert::stock(sku, stock), replayed, sequence))
}

fn stock_of((outcome, sequence): (Outcome, i64)) -> Result<(Sku, Stock, bool, i64), Failure> {
    match outcome {
        Outcome::Stock { sku, stock, replayed } => Ok((sku, stock, replayed, sequence)),
        other => Err(unexpected(&other)),
    }
}
