//! Many operations in one call: each goes the way of its single call, all at the same time, so that they
//! meet in their lanes and share batches there. One task carries them all.

use std::time::Duration;

use inventory_sentinel::{
    Reason,
    v1::{self, batch_operation::Operation as Asking, batch_result::Result as Told},
};
use tokio::time::Instant;

use super::{
    ask::{InLane, read_commit, read_extend, read_get_reservation, read_reserve, read_rollback, read_stock},
    checkout::{
        Checkout, is_short, tell_commit, tell_extend, tell_reservation, tell_reserve, tell_rollback, tell_stock,
    },
    deadline_in,
    status::Failure,
    unexpected,
};
use crate::{
    domain::{Answer, Invalid, NamespaceName, Operation, Refusal, Sku},
    lane::{LaneError, Pending},
    namespaces::{Lookups, Namespace},
    telemetry::metrics::Operation as Measured,
};

/// Most entries of one batch.
const MAX_OPERATIONS: usize = 512;

/// One entry that is on its way: what it is counted as, since when, and what comes of it.
struct Started {
    measured: Measured,
    at: Instant,
    /// In its lane, or refused before.
    asked: Result<InLane, Failure>,
}

impl Checkout {
    pub(super) async fn handle_batch(
        &self,
        request: v1::BatchRequest,
        deadline: Instant,
        is_repeated: bool,
    ) -> Result<v1::BatchResponse, Failure> {
        check_size(request.operations.len(), "operations")?;
        let lookups = self.0.look_up_all(request.operations.iter().filter_map(namespace_of));
        // All are in their lanes before the first is waited for; those whose namespace is looked up come last.
        let mut started: Vec<_> = std::iter::repeat_with(|| None).take(request.operations.len()).collect();
        let mut unopened = Vec::new();
        let is_looked_up = |entry: &v1::BatchOperation| {
            let name = namespace_of(entry).and_then(|name| NamespaceName::parse(name.to_owned()).ok());
            name.is_some_and(|name| lookups.has(&name))
        };
        for (i, mut entry) in request.operations.into_iter().enumerate() {
            if let Some(Asking::Reserve(request)) = &mut entry.operation {
                request.first_attempt &= !is_repeated;
            }
            if !lookups.is_empty() && is_looked_up(&entry) {
                unopened.push((i, entry));
            } else {
                started[i] = Some(self.start_entry(entry, deadline, &lookups).await);
            }
        }
        for (i, entry) in unopened {
            started[i] = Some(self.start_entry(entry, deadline, &lookups).await);
        }
        let mut results = Vec::with_capacity(started.len());
        for entry in started.into_iter().flatten() {
            let told = match entry {
                Ok(started) => self.finish_entry(started).await,
                Err(failure) => Err(failure),
            };
            let told = told.unwrap_or_else(|failure| Told::Failure(failure.into()));
            results.push(v1::BatchResult { result: Some(told) });
        }
        Ok(v1::BatchResponse { results })
    }

    /// Sends one entry the way that its single call would go.
    async fn start_entry(
        &self,
        entry: v1::BatchOperation,
        deadline: Instant,
        lookups: &Lookups,
    ) -> Result<Started, Failure> {
        let at = Instant::now();
        // One that is negative leaves no time.
        let own = |timeout| deadline_in(at, Duration::try_from(timeout).unwrap_or_default());
        let deadline = entry.timeout.map_or(deadline, |timeout| deadline.min(own(timeout)));
        let (measured, asked) = match entry.operation {
            Some(Asking::Reserve(request)) => {
                (Measured::Reserve, self.ask(read_reserve(request, at), deadline, lookups).await)
            }
            Some(Asking::Commit(request)) => {
                (Measured::Commit, self.ask(read_commit(request, at), deadline, lookups).await)
            }
            Some(Asking::Rollback(request)) => {
                (Measured::Rollback, self.ask(read_rollback(request, at), deadline, lookups).await)
            }
            Some(Asking::Extend(request)) => {
                (Measured::Extend, self.ask(read_extend(request, at), deadline, lookups).await)
            }
            Some(Asking::GetReservation(request)) => {
                (Measured::GetReservation, self.ask(read_get_reservation(request), deadline, lookups).await)
            }
            Some(Asking::GetStock(v1::GetStockRequest { namespace_id, sku })) => {
                (Measured::GetStock, self.ask(read_stock(namespace_id, sku), deadline, lookups).await)
            }
            None => return Err(Invalid::new(Reason::NoOperations, "operation").into()),
        };
        Ok(Started { measured, at, asked })
    }

    /// Waits for its answer, which is told and counted as that of its single call would be.
    async fn finish_entry(&self, Started { measured, at, asked }: Started) -> Result<Told, Failure> {
        let tell = |namespace: &Namespace, outcome, sequence| {
            Ok(match measured {
                Measured::Reserve => Told::Reserve(tell_reserve(namespace, outcome, sequence)?),
                Measured::Commit => Told::Commit(tell_commit(namespace, outcome, sequence)?),
                Measured::Rollback => Told::Rollback(tell_rollback(namespace, outcome, sequence)?),
                Measured::Extend => Told::Extend(tell_extend(namespace, outcome, sequence)?),
                Measured::GetReservation => Told::GetReservation(tell_reservation(namespace, outcome, sequence)?),
                Measured::GetStock => Told::GetStock(tell_stock(namespace, outcome, sequence)?),
                _ => return Err(unexpected(&outcome)),
            })
        };
        let told = match asked {
            Ok(in_lane) => in_lane.told(tell).await,
            Err(failure) => Err(failure),
        };
        self.0.note(measured, at, &told, |told| matches!(told, Told::Reserve(response) if is_short(response)));
        told
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
        let namespace = self.0.namespace_known(&name, deadline).await?;
        let mut response = v1::BatchGetStockResponse::default();
        let ask = |sku| namespace.lane_of(&sku).submit(Operation::GetStock { sku }, deadline);
        let asked: Vec<Pending> = skus.into_iter().map(ask).collect::<Result<_, LaneError>>()?;
        for pending in asked {
            let Answer { outcome, sequence } = pending.wait().await?;
            match outcome {
                Ok(outcome) => response.found.push(tell_stock(&namespace, outcome, sequence as i64)?),
                Err(Refusal::SkuNotFound(sku)) => response.unknown_skus.push(sku.into_string()),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(response)
    }
}

/// The name of the namespace that an entry is for.
fn namespace_of(entry: &v1::BatchOperation) -> Option<&str> {
    Some(match entry.operation.as_ref()? {
        Asking::Reserve(request) => &request.namespace_id,
        Asking::Commit(request) => &request.namespace_id,
        Asking::Rollback(request) => &request.namespace_id,
        Asking::Extend(request) => &request.namespace_id,
        Asking::GetReservation(request) => &request.namespace_id,
        Asking::GetStock(request) => &request.namespace_id,
    })
}

fn check_size(entries: usize, field: &str) -> Result<(), Invalid> {
    match entries {
        0 => Err(Invalid::new(Reason::NoOperations, field)),
        1..=MAX_OPERATIONS => Ok(()),
        _ => Err(Invalid::new(Reason::TooManyOperations, field)),
    }
}
