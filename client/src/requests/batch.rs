//! The Batch request: many operations in one call, each with its outcome. Keeps no state.

use inventory_sentinel::v1::{self, batch_operation::Operation, batch_result::Result as OperationResult};

use super::{
    impl_into_future,
    reserve::{Reserve, held, is_made},
    resolve::{Commit, Rollback},
};
use crate::{
    convert::Decode,
    operation_errors::{BatchError, CommitError, ReserveError, RollbackError},
    rpc_error::RpcError,
    scope::Scope,
    transport::{
        batcher::Batchable,
        call::{Attempts, Completed},
        identities::{Claim, Identified, Identity},
        stubs::checkout_client,
    },
    types::{Applied, Reservation},
};

/// Up to 512 operations in one call. Made by [`Namespace::batch`](crate::Namespace::batch); await it to send it.
///
/// The batch is neither atomic nor ordered. Each operation gets its identity when it is added: a clone that is sent
/// again repeats the same operations.
#[derive(Clone, Debug)]
#[must_use = "nothing is done before it is awaited"]
pub struct Batch {
    scope: Scope,
    operations: Vec<(Operation, Option<Identity>)>,
}

/// The outcome of one operation of a [`Batch`], as its single call would return it.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchOutcome {
    /// The outcome of a [`Reserve`].
    Reserve(Result<Applied<Reservation>, ReserveError>),
    /// The outcome of a [`Commit`].
    Commit(Result<Applied<Reservation>, CommitError>),
    /// The outcome of a [`Rollback`].
    Rollback(Result<Applied<Reservation>, RollbackError>),
}

impl Batch {
    pub(crate) fn new(scope: Scope) -> Batch {
        Batch { scope, operations: Vec::new() }
    }

    /// Adds a Reserve with its parameters.
    pub fn reserve(self, request: Reserve) -> Self {
        let is_named = request.is_named();
        self.with(request.message(), is_named)
    }

    /// Adds a Commit with its parameters.
    pub fn commit(self, request: Commit) -> Self {
        let is_named = request.is_named();
        self.with(request.message(), is_named)
    }

    /// Adds a Rollback with its parameters.
    pub fn rollback(self, request: Rollback) -> Self {
        let is_named = request.is_named();
        self.with(request.message(), is_named)
    }

    fn with(mut self, message: impl Batchable + Identified, is_named: bool) -> Self {
        let identity = self.scope.core.identity(&message, is_named);
        self.operations.push((message.into_operation(), identity));
        self
    }

    /// Operations that this client refuses are not sent. If it refuses all, nothing is sent.
    async fn send(self) -> Result<Vec<BatchOutcome>, BatchError> {
        let Scope { core, deadline, .. } = self.scope;
        let claim = |(operation, identity)| (operation, core.claim(identity));
        let operations: Vec<(Operation, Result<Claim, RpcError>)> = self.operations.into_iter().map(claim).collect();
        let entry = |operation: &Operation| v1::BatchOperation { operation: Some(operation.clone()), timeout: None };
        let claimed = operations.iter().filter(|(_, claim)| claim.is_ok());
        let message = v1::BatchRequest { operations: claimed.map(|(operation, _)| entry(operation)).collect() };
        let sent = message.operations.len();
        let (results, attempts) = if sent == 0 && !operations.is_empty() {
            (Vec::new(), Attempts::default())
        } else {
            let send = |channel, request| async { checkout_client(channel).batch(request).await };
            match core.call_raw(deadline, message, send).await {
                Ok(Completed { response, attempts }) => (response.results, attempts),
                Err(error) => {
                    if !error.outcome_unknown() {
                        operations.into_iter().filter_map(|(_, claim)| claim.ok()).for_each(Claim::end_without_effect);
                    }
                    return Err(error.into());
                }
            }
        };
        if results.len() != sent {
            return Err(attempts.annotate(RpcError::malformed("not one result for each operation")).into());
        }
        let mut results = results.into_iter().map(|entry| entry.result);
        let outcomes = operations.into_iter().map(|(operation, claim)| {
            let entry = claim.map(|claim| Entry { result: results.next().flatten(), claim, attempts });
            outcome(&operation, entry)
        });
        Ok(outcomes.collect::<Result<_, _>>()?)
    }
}

impl_into_future! { Batch -> Result<Vec<BatchOutcome>, BatchError> }

/// The server's result of one operation.
struct Entry {
    result: Option<OperationResult>,
    claim: Claim,
    /// The error of the whole call.
    attempts: Attempts,
}

impl Entry {
    /// The result as the operation's single call would return it. `had_effect`: whether a value is that of a change.
    fn decode<M: Batchable>(
        self,
        had_effect: impl FnOnce(&<M::Response as Decode>::Value) -> bool,
    ) -> Result<<M::Response as Decode>::Value, RpcError> {
        let result = match self.result {
            None => Err(RpcError::malformed("no result of the operation")),
            Some(OperationResult::Failure(failure)) => Err(RpcError::from_failure(failure)),
            Some(result) => M::response(result)
                .ok_or_else(|| RpcError::malformed("the result of another operation"))
                .and_then(Decode::decode),
        };
        self.claim.end(result.map_err(|error| self.attempts.annotate(error)), had_effect)
    }
}

/// The outcome of an operation that was sent, or that this client refused.
fn outcome(operation: &Operation, entry: Result<Entry, RpcError>) -> Result<BatchOutcome, RpcError> {
    Ok(match operation {
        Operation::Reserve(_) => {
            let result = entry.and_then(|entry| entry.decode::<v1::ReserveRequest>(is_made));
            BatchOutcome::Reserve(result.map_err(ReserveError::from).and_then(held))
        }
        Operation::Commit(_) => {
            let result = entry.and_then(|entry| entry.decode::<v1::CommitRequest>(|_| true));
            BatchOutcome::Commit(result.map_err(CommitError::from))
        }
        Operation::Rollback(_) => {
            let result = entry.and_then(|entry| entry.decode::<v1::RollbackRequest>(|_| true));
            BatchOutcome::Rollback(result.map_err(RollbackError::from))
        }
        // `with` adds no other operation.
        _ => return Err(RpcError::malformed("the result of no operation that was sent")),
    })
}
