//! Many operations in one call: each goes its own way through its single call's handler, all at the
//! same time, so that they meet in their lanes and share batches there. One task carries them all.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::future::{join_all, try_join_all};
use inventory_sentinel::{
    Reason,
    v1::{self, batch_operation::Operation as Asked, batch_result::Result as Told},
};
use tokio::time::Instant;

use super::{
    checkout::{Checkout, is_short},
    convert, deadline_in,
    status::Failure,
    unexpected,
};
use crate::{
    domain::{Invalid, NamespaceName, Operation, Outcome, Refusal, Sku},
    namespaces::Namespace,
    telemetry::metrics::Operation as Measured,
};

/// Most entries of one batch.
const MAX_OPERATIONS: usize = 512;

impl Checkout {
    pub(super) async fn handle_batch(
        &self,
        request: v1::BatchRequest,
        deadline: Instant,
    ) -> Result<v1::BatchResponse, Failure> {
        check_size(request.operations.len(), "operations")?;
        let operations = request.operations.into_iter().map(|entry| self.carry_one(entry, deadline));
        Ok(v1::BatchResponse { results: join_all(operations).await })
    }

    /// One entry, as its single call would be answered and counted.
    async fn carry_one(&self, entry: v1::BatchOperation, deadline: Instant) -> v1::BatchResult {
        // One that is negative leaves no time.
        let own = |timeout| deadline_in(Duration::try_from(timeout).unwrap_or_default());
        let deadline = entry.timeout.map_or(deadline, |timeout| deadline.min(own(timeout)));
        let result = match entry.operation {
            Some(Asked::Reserve(request)) => {
                let handler = pin!(self.handle_reserve(request, deadline));
                self.0.measure(Measured::Reserve, handler, is_short).await.map(Told::Reserve)
            }
            Some(Asked::Commit(request)) => {
                self.measured(Measured::Commit, self.handle_commit(request, deadline), Told::Commit).await
            }
            Some(Asked::Rollback(request)) => {
                self.measured(Measured::Rollback, self.handle_rollback(request, deadline), Told::Rollback).await
            }
            Some(Asked::Extend(request)) => {
                self.measured(Measured::Extend, self.handle_extend(request, deadline), Told::Extend).await
            }
            Some(Asked::GetReservation(request)) => {
                let handler = self.handle_get_reservation(request, deadline);
                self.measured(Measured::GetReservation, handler, Told::GetReservation).await
            }
            Some(Asked::GetStock(request)) => {
                self.measured(Measured::GetStock, self.handle_get_stock(request, deadline), Told::GetStock).await
            }
            None => Err(Invalid::new(Reason::NoOperations, "operation").into()),
        };
        let told = result.unwrap_or_else(|failure| Told::Failure(failure.into()));
        v1::BatchResult { result: Some(told) }
    }

    /// An operation that can't fall short.
    async fn measured<T>(
        &self,
        operation: Measured,
        handler: impl Future<Output = Result<T, Failure>>,
        told: impl FnOnce(T) -> Told,
    ) -> Result<Told, Failure> {
        self.0.measure(operation, pin!(handler), |_| false).await.map(told)
    }

    pub(super) async fn handle_batch_get_stock(
        &self,
        request: v1::BatchGetStockRequest,
        deadline: Instant,
    ) -> Result<v1::BatchGetStockResponse, Failure> {
        let name = NamespaceName::parse(request.namespace_id)?;
        check_size(request.skus.len(), "skus")?;
        let skus = request.skus.into_iter().enumerate();
        let skus: Vec<Sku> = skus.map(|(i, sku)| Sku::parse(sku, &format!("skus[{i}]"))).collect::<Result<_, _>>()?;
        let Some(namespace) = self.0.namespace(&name, deadline).await? else {
            let unknown_skus = skus.into_iter().map(Sku::into_string).collect();
            return Ok(v1::BatchGetStockResponse { unknown_skus, ..Default::default() });
        };
        let mut response = v1::BatchGetStockResponse::default();
        for read in try_join_all(skus.into_iter().map(|sku| read(&namespace, sku, deadline))).await? {
            match read {
                Ok(stock) => response.found.push(stock),
                Err(sku) => response.unknown_skus.push(sku.into_string()),
            }
        }
        Ok(response)
    }
}

/// The counters of a SKU, or the SKU if it is not known.
async fn read(
    namespace: &Namespace,
    sku: Sku,
    deadline: Instant,
) -> Result<Result<v1::GetStockResponse, Sku>, Failure> {
    let answer = namespace.lane_of(&sku).submit(Operation::GetStock { sku }, Some(deadline)).await?;
    match answer.outcome {
        Ok(Outcome::Stock { sku, stock, .. }) => {
            let sequence = answer.sequence as i64;
            Ok(Ok(v1::GetStockResponse { stock: Some(convert::stock(sku, stock)), sequence }))
        }
        Ok(other) => Err(unexpected(&other)),
        Err(Refusal::SkuNotFound(sku)) => Ok(Err(sku)),
        Err(refusal) => Err(refusal.into()),
    }
}

fn check_size(entries: usize, field: &str) -> Result<(), Invalid> {
    match entries {
        0 => Err(Invalid::new(Reason::NoOperations, field)),
        1..=MAX_OPERATIONS => Ok(()),
        _ => Err(Invalid::new(Reason::TooManyOperations, field)),
    }
}
