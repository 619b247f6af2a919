//! Many operations in one call, each with its own outcome, and the counters of many SKUs. Makes the messages and
//! sends them by `call`; keeps no state.

use inventory_sentinel::v1::{self, batch_operation::Operation, batch_result::Result as Told};

use crate::{
    call::awaited,
    convert::{Answer, StockRead},
    gather::Gathered,
    namespace::{Namespace, checkout},
    operation_errors::{BatchError, BatchGetStockError, CommitError, ReserveError, RollbackError},
    reserve::{Reserve, held},
    resolve::{Commit, Rollback},
    rpc_error::RpcError,
    types::{Receipt, Reservation, Snapshot, Stock},
};

/// SKUs of one message: the most that the server takes.
const MESSAGE_SKUS: usize = 512;

/// Up to 512 operations that travel in one call. Made by [`Namespace::batch`]; await it to send it.
///
/// They are not atomic together and go in no order among themselves. An operation keeps the identity that it has
/// or is given when it is added: a clone that is sent again repeats each of them.
#[derive(Clone, Debug)]
#[must_use = "nothing is done before it is awaited"]
pub struct Batch {
    namespace: Namespace,
    operations: Vec<Operation>,
}

/// What became of one operation of a [`Batch`]: what its single call would have been answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchOutcome {
    /// Of a [`Reserve`].
    Reserve(Result<Receipt<Reservation>, ReserveError>),
    /// Of a [`Commit`].
    Commit(Result<Receipt<Reservation>, CommitError>),
    /// Of a [`Rollback`].
    Rollback(Result<Receipt<Reservation>, RollbackError>),
}

impl Batch {
    pub(crate) fn new(namespace: Namespace) -> Batch {
        Batch { namespace, operations: Vec::new() }
    }

    /// A Reserve more, with all that has been said about it.
    pub fn reserve(self, request: Reserve) -> Self {
        self.with(request.message())
    }

    /// A Commit more, with all that has been said about it.
    pub fn commit(self, request: Commit) -> Self {
        self.with(request.message())
    }

    /// A Rollback more, with all that has been said about it.
    pub fn rollback(self, request: Rollback) -> Self {
        self.with(request.message())
    }

    fn with(mut self, message: impl Gathered) -> Self {
        self.operations.push(message.operation());
        self
    }

    async fn send(self) -> Result<Vec<BatchOutcome>, BatchError> {
        let Namespace { core, deadline, .. } = self.namespace;
        let entry = |operation| v1::BatchOperation { operation: Some(operation), timeout: None };
        let message = v1::BatchRequest { operations: self.operations.iter().cloned().map(entry).collect() };
        let send = |channel, request| async { checkout(channel).batch(request).await };
        let told: Vec<Option<Told>> = core.call(deadline, message, send).await?;
        if told.len() != self.operations.len() {
            return Err(RpcError::malformed("not one result for each operation").into());
        }
        let outcomes = self.operations.iter().zip(told).map(|(operation, told)| outcome(operation, told));
        Ok(outcomes.collect::<Result<_, _>>()?)
    }
}

awaited! { Batch -> Result<Vec<BatchOutcome>, BatchError> }

fn outcome(operation: &Operation, told: Option<Told>) -> Result<BatchOutcome, RpcError> {
    Ok(match operation {
        Operation::Reserve(_) => {
            let answer = plain::<v1::ReserveRequest>(told).map_err(ReserveError::from);
            BatchOutcome::Reserve(answer.and_then(held))
        }
        Operation::Commit(_) => BatchOutcome::Commit(plain::<v1::CommitRequest>(told).map_err(CommitError::from)),
        Operation::Rollback(_) => {
            BatchOutcome::Rollback(plain::<v1::RollbackRequest>(told).map_err(RollbackError::from))
        }
        // `with` is the only way in.
        _ => return Err(RpcError::malformed("the result of no operation that was sent")),
    })
}

/// The answer to one operation, as its single call would have it.
fn plain<M: Gathered>(told: Option<Told>) -> Result<<M::Response as Answer>::Plain, RpcError> {
    match told.ok_or_else(|| RpcError::malformed("no result of the operation"))? {
        Told::Failure(failure) => Err(RpcError::from_failure(failure)),
        told => M::response(told).ok_or_else(|| RpcError::malformed("the result of another operation"))?.plain(),
    }
}

/// Reads the counters of these SKUs, one message after the other.
pub(crate) async fn stock_of(
    namespace: &Namespace,
    skus: Vec<String>,
) -> Result<Vec<Option<Snapshot<Stock>>>, BatchGetStockError> {
    let mut stocks = Vec::with_capacity(skus.len());
    for skus in skus.chunks(MESSAGE_SKUS) {
        let message = v1::BatchGetStockRequest { namespace_id: namespace.name.to_string(), skus: skus.to_vec() };
        let send = |channel, request| async { checkout(channel).batch_get_stock(request).await };
        let read = namespace.core.call(namespace.deadline, message, send).await.map_err(RpcError::of_read)?;
        stocks.extend(in_order(skus, read).map_err(RpcError::of_read)?);
    }
    Ok(stocks)
}

/// Puts what was found back into the order of what was asked for; every SKU is found or unknown.
fn in_order(skus: &[String], read: StockRead) -> Result<Vec<Option<Snapshot<Stock>>>, RpcError> {
    if read.found.len() + read.unknown.len() != skus.len() {
        return Err(RpcError::malformed("not one answer for each sku"));
    }
    let (mut found, mut unknown) = (read.found.into_iter().peekable(), read.unknown.into_iter());
    let stock_of = |sku: &String| match found.next_if(|stock| stock.sku == *sku) {
        Some(stock) => Ok(Some(stock)),
        None if unknown.next().as_ref() == Some(sku) => Ok(None),
        None => Err(RpcError::malformed("neither the stock of a sku nor that it is unknown")),
    };
    skus.iter().map(stock_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(found: &[&str], unknown: &[&str]) -> StockRead {
        let found = found.iter().map(|&sku| v1::GetStockResponse {
            stock: Some(v1::Stock { sku: sku.into(), ..v1::Stock::default() }),
            sequence: 1,
        });
        let unknown_skus = unknown.iter().map(|&sku| sku.to_owned()).collect();
        v1::BatchGetStockResponse { found: found.collect(), unknown_skus }.plain().unwrap()
    }

    fn known(skus: &[&str], read: StockRead) -> Result<Vec<bool>, RpcError> {
        let skus: Vec<String> = skus.iter().map(|&sku| sku.to_owned()).collect();
        let stocks = in_order(&skus, read)?;
        assert!(stocks.iter().zip(&skus).all(|(stock, sku)| stock.as_ref().is_none_or(|stock| stock.sku == *sku)));
        Ok(stocks.iter().map(Option::is_some).collect())
    }

    #[test]
    fn stock_is_told_in_the_order_of_the_skus() {
        assert_eq!(
            known(&["a", "x", "b", "a", "x"], read(&["a", "b", "a"], &["x", "x"])).unwrap(),
            [true, false, true, true, false]
        );
        assert!(known(&[], read(&[], &[])).unwrap().is_empty());
    }

    #[test]
    fn a_sku_that_is_not_answered_is_not_taken_for_unknown() {
        assert!(known(&["a", "b"], read(&["a"], &[])).is_err());
        assert!(known(&["a"], read(&["a"], &["b"])).is_err());
        assert!(known(&["a"], read(&[], &["b"])).is_err());
    }
}
