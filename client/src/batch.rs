//! Many operations in one call, each with its own outcome, and the counters of many SKUs. Makes the messages and
//! sends them by `call`; keeps no state.

use inventory_sentinel::v1::{self, batch_operation::Operation, batch_result::Result as Told};

use crate::{
    call::{Answered, Attempts, awaited},
    convert::{Answer, StockRead},
    gather::Gathered,
    identities::{Claim, Identified, Identity},
    namespace::{Namespace, checkout},
    operation_errors::{BatchError, BatchGetStockError, CommitError, ReserveError, RollbackError},
    reserve::{Reserve, held, is_made},
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
    operations: Vec<(Operation, Option<Identity>)>,
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
        let is_named = request.is_named();
        self.with(request.message(), is_named)
    }

    /// A Commit more, with all that has been said about it.
    pub fn commit(self, request: Commit) -> Self {
        let is_named = request.is_named();
        self.with(request.message(), is_named)
    }

    /// A Rollback more, with all that has been said about it.
    pub fn rollback(self, request: Rollback) -> Self {
        let is_named = request.is_named();
        self.with(request.message(), is_named)
    }

    fn with(mut self, message: impl Gathered + Identified, is_named: bool) -> Self {
        let identity = self.namespace.core.identity(&message, is_named);
        self.operations.push((message.operation(), identity));
        self
    }

    /// Operations that are refused here are not sent; where all are, nothing is.
    async fn send(self) -> Result<Vec<BatchOutcome>, BatchError> {
        let Namespace { core, deadline, .. } = self.namespace;
        let claim = |(operation, identity)| (operation, core.claim(identity));
        let operations: Vec<(Operation, Result<Claim, RpcError>)> = self.operations.into_iter().map(claim).collect();
        let entry = |operation: &Operation| v1::BatchOperation { operation: Some(operation.clone()), timeout: None };
        let sent = operations.iter().filter(|(_, claim)| claim.is_ok());
        let message = v1::BatchRequest { operations: sent.map(|(operation, _)| entry(operation)).collect() };
        let sent = message.operations.len();
        let (told, attempts) = if sent == 0 && !operations.is_empty() {
            (Vec::new(), Attempts::default())
        } else {
            let send = |channel, request| async { checkout(channel).batch(request).await };
            match core.call_whole(deadline, message, send).await {
                Ok(Answered { answer, attempts }) => (answer.results, attempts),
                Err(error) => {
                    if !error.outcome_unknown() {
                        operations.into_iter().filter_map(|(_, claim)| claim.ok()).for_each(Claim::end_without_effect);
                    }
                    return Err(error.into());
                }
            }
        };
        if told.len() != sent {
            return Err(attempts.judge(RpcError::malformed("not one result for each operation")).into());
        }
        let mut told = told.into_iter().map(|entry| entry.result);
        let outcomes = operations.into_iter().map(|(operation, claim)| {
            let entry = claim.map(|claim| Entry { told: told.next().flatten(), claim, attempts });
            outcome(&operation, entry)
        });
        Ok(outcomes.collect::<Result<_, _>>()?)
    }
}

awaited! { Batch -> Result<Vec<BatchOutcome>, BatchError> }

/// What the server said about one operation.
struct Entry {
    told: Option<Told>,
    claim: Claim,
    /// Of the whole call.
    attempts: Attempts,
}

impl Entry {
    /// The answer to the operation, as its single call would have it. `had_effect`: whether the answer is that of a
    /// change.
    fn plain<M: Gathered>(
        self,
        had_effect: impl FnOnce(&<M::Response as Answer>::Plain) -> bool,
    ) -> Result<<M::Response as Answer>::Plain, RpcError> {
        let answer = match self.told {
            None => Err(RpcError::malformed("no result of the operation")),
            Some(Told::Failure(failure)) => Err(RpcError::from_failure(failure)),
            Some(told) => M::response(told)
                .ok_or_else(|| RpcError::malformed("the result of another operation"))
                .and_then(Answer::plain),
        };
        self.claim.end(answer.map_err(|error| self.attempts.judge(error)), had_effect)
    }
}

/// Of an operation that was sent, or refused here.
fn outcome(operation: &Operation, entry: Result<Entry, RpcError>) -> Result<BatchOutcome, RpcError> {
    Ok(match operation {
        Operation::Reserve(_) => {
            let answer = entry.and_then(|entry| entry.plain::<v1::ReserveRequest>(is_made));
            BatchOutcome::Reserve(answer.map_err(ReserveError::from).and_then(held))
        }
        Operation::Commit(_) => {
            let answer = entry.and_then(|entry| entry.plain::<v1::CommitRequest>(|_| true));
            BatchOutcome::Commit(answer.map_err(CommitError::from))
        }
        Operation::Rollback(_) => {
            let answer = entry.and_then(|entry| entry.plain::<v1::RollbackRequest>(|_| true));
            BatchOutcome::Rollback(answer.map_err(RollbackError::from))
        }
        // `with` is the only way in.
        _ => return Err(RpcError::malformed("the result of no operation that was sent")),
    })
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
