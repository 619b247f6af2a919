//! Many SKUs in a call: ImportStock and SetProtection. Each row takes the ordinary way through its lane,
//! a bounded number of them at once; no row waits for another's outcome.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use inventory_sentinel::{Reason, reason::Advice, v1};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use tracing::{Instrument as _, Span};

use super::{
    Desk, LONGEST_CALL, carry, check_age,
    status::Failure,
    trail::{Caller, Change},
    unexpected,
};
use crate::{
    domain::{Condition, Invalid, NamespaceName, OnHand, Operation, Outcome, Refusal, RequestId, RulesChange, Sku},
    namespaces::Namespace,
    tasks::Task,
    telemetry::metrics::Operation as Measured,
};

/// Rows of one message, and SKUs of one SetProtection.
pub(super) const MAX_ROWS: usize = 1_000;
/// Rows of one call that wait in lanes at once: one full batch and the next.
const ROWS_UNDER_WAY: usize = 1_024;

/// The answers of an import.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<v1::ImportStockResponse, Status>> + Send>>;

/// Answers each message with one, in order; ends with the caller's stream, with a message that is refused, or
/// when the server drains. The call's span lasts as long, so that the batches of its rows are linked to it.
pub(super) fn import(desk: Desk, caller: Caller, requests: Streaming<v1::ImportStockRequest>) -> Answers {
    let span = Span::current();
    Box::pin(stream::try_unfold((desk, requests), move |(desk, mut requests)| {
        let caller = caller.clone();
        let answer = async move {
            let Some(message) = next(&desk, &mut requests).await? else {
                return Ok(None);
            };
            // In a task of its own: a stream whose client reads nothing is not polled, and to make a namespace takes a
            // connection to the store.
            let rows = desk.tasks.spawn(Task::Import, rows(desk.clone(), caller, message).instrument(Span::current()));
            let rows = AbortOnDropHandle::new(rows);
            let handler = async { rows.await.ok().flatten().unwrap_or_else(|| Err(Failure::new(Reason::Internal))) };
            let answer = desk.answer(Measured::ImportStock, handler, |_| false).await?;
            Ok(Some((answer.into_inner(), (desk, requests))))
        };
        answer.instrument(span.clone())
    }))
}

/// The next message, unless the server drains first: a caller who pauses must not hold that up.
async fn next(
    desk: &Desk,
    requests: &mut Streaming<v1::ImportStockRequest>,
) -> Result<Option<v1::ImportStockRequest>, Status> {
    tokio::select! {
        biased;
        () = desk.draining.cancelled() => Err(Failure::new(Reason::Draining).into()),
        message = requests.message() => message,
    }
}

/// Applies the rows of one message.
async fn rows(desk: Desk, caller: Caller, message: v1::ImportStockRequest) -> Result<v1::ImportStockResponse, Failure> {
    // The caller's own deadline ends the stream; this bounds one message of it.
    let deadline = Instant::now() + LONGEST_CALL;
    let v1::ImportStockRequest { namespace_id, request_id, rows, overwrite, existing_namespace_only } = message;
    let name = NamespaceName::parse(namespace_id)?;
    let request_id = RequestId::parse(request_id)?;
    if rows.len() > MAX_ROWS {
        return Err(Invalid::new(Reason::TooManyRows, "rows").into());
    }
    let condition = if overwrite { Condition::Always } else { Condition::IfAbsent };
    let namespace = desk.namespace_made(&name, existing_namespace_only, deadline).await?;
    let (number, first) = (rows.len(), rows.first().map(|row| row.sku.clone()).unwrap_or_default());
    let results: Vec<v1::ImportRowResult> = stream::iter(rows)
        .map(|row| async { result(apply(&namespace, &request_id, row, condition, deadline).await) })
        .buffered(ROWS_UNDER_WAY)
        .collect()
        .await;
    let applied = results.iter().filter(|result| result.outcome() == v1::ImportOutcome::Applied).count();
    if applied > 0 {
        let after = format!("set {applied} of {number} SKUs, the first row is {first}");
        caller.changed("ImportStock", &name, Change { request_id: request_id.as_str(), after, ..Change::default() });
    }
    Ok(v1::ImportStockResponse { results })
}

async fn apply(
    namespace: &Namespace,
    request_id: &RequestId,
    v1::ImportRow { sku, on_hand }: v1::ImportRow,
    condition: Condition,
    deadline: Instant,
) -> Result<v1::ImportOutcome, Failure> {
    let sku = Sku::parse(sku, "sku")?;
    let on_hand = OnHand::parse(on_hand)?;
    let lane = namespace.lane_of(&sku);
    check_age(namespace, lane, request_id, Instant::now())?;
    let memo = namespace.row_identity(request_id, &sku);
    let operation = Operation::SetStock { memo, sku, on_hand, condition };
    match lane.submit(operation, deadline)?.wait().await?.outcome {
        Ok(Outcome::Stock { replayed: false, .. }) => Ok(v1::ImportOutcome::Applied),
        Ok(Outcome::Stock { replayed: true, .. }) | Err(Refusal::SkuExists) => Ok(v1::ImportOutcome::AlreadyThere),
        Ok(other) => Err(unexpected(&other)),
        Err(refusal) => Err(refusal.into()),
    }
}

fn result(applied: Result<v1::ImportOutcome, Failure>) -> v1::ImportRowResult {
    match applied {
        Ok(outcome) => v1::ImportRowResult { outcome: outcome.into(), ..Default::default() },
        Err(failure) => v1::ImportRowResult {
            outcome: v1::ImportOutcome::Failed.into(),
            reason: failure.reason().as_str().to_owned(),
            message: failure.message(),
        },
    }
}

/// Sets the protection of many SKUs.
pub(super) async fn protect(
    desk: &Desk,
    caller: &Caller,
    request: v1::SetProtectionRequest,
    deadline: Instant,
) -> Result<v1::SetProtectionResponse, Failure> {
    let v1::SetProtectionRequest { namespace_id, skus, is_protected, request_id } = request;
    let name = NamespaceName::parse(namespace_id)?;
    let request_id = RequestId::parse_optional(request_id)?;
    if skus.is_empty() {
        return Err(Invalid::new(Reason::NoRules, "skus").into());
    }
    if skus.len() > MAX_ROWS {
        return Err(Invalid::new(Reason::TooManyRows, "skus").into());
    }
    if is_protected.is_none() {
        return Err(Invalid::new(Reason::NoRules, "is_protected").into());
    }
    let skus: Vec<Sku> = skus
        .into_iter()
        .enumerate()
        .map(|(i, sku)| Sku::parse(sku, &format!("skus[{i}]")))
        .collect::<Result<_, _>>()?;
    let namespace = desk.namespace_known(&name, deadline).await?;
    let change = RulesChange { is_protected, ..RulesChange::default() };
    let names: Vec<String> = skus.iter().map(|sku| sku.as_str().to_owned()).collect();
    let results: Vec<_> = stream::iter(skus)
        .map(|sku| protect_one(&namespace, request_id.as_ref(), sku, change, deadline))
        .buffered(ROWS_UNDER_WAY)
        .collect()
        .await;
    let is_changed = |result: &Result<_, _>| matches!(result, Ok(v1::ProtectionOutcome::Changed));
    let changed = names.iter().zip(&results).filter(|(_, result)| is_changed(result));
    let changed: Vec<&str> = changed.map(|(name, _)| name.as_str()).collect();
    if !changed.is_empty() {
        let request_id = request_id.as_ref().map_or("", RequestId::as_str);
        let is_protected = change.is_protected.unwrap_or_default();
        let after = format!("is_protected={is_protected} of {} SKUs: {}", changed.len(), changed.join(", "));
        caller.changed("SetProtection", &name, Change { request_id, after, ..Change::default() });
    }
    whole(results).map(|outcomes| v1::SetProtectionResponse { outcomes })
}

async fn protect_one(
    namespace: &Namespace,
    request_id: Option<&RequestId>,
    sku: Sku,
    change: RulesChange,
    deadline: Instant,
) -> Result<v1::ProtectionOutcome, Failure> {
    let lane = namespace.lane_of(&sku);
    if let Some(request_id) = request_id {
        check_age(namespace, lane, request_id, Instant::now())?;
    }
    let memo = namespace.protection_identity(request_id, &sku);
    let operation = Operation::ConfigureSku { memo, sku, change, if_revision: None };
    match carry(lane, operation, deadline).await {
        Ok((Outcome::Stock { replayed: false, .. }, _)) => Ok(v1::ProtectionOutcome::Changed),
        Ok((Outcome::Stock { replayed: true, .. } | Outcome::Unchanged { .. }, _)) => {
            Ok(v1::ProtectionOutcome::Unchanged)
        }
        Ok((other, _)) => Err(unexpected(&other)),
        Err(failure) if failure.reason() == Reason::SkuNotFound => Ok(v1::ProtectionOutcome::SkuNotFound),
        Err(failure) => Err(failure),
    }
}

/// All outcomes, or the first failure; one that says that nothing was applied must not, where some may be.
fn whole(results: Vec<Result<v1::ProtectionOutcome, Failure>>) -> Result<Vec<i32>, Failure> {
    let in_part = results.iter().any(|result| match result {
        Ok(outcome) => *outcome == v1::ProtectionOutcome::Changed,
        Err(failure) => failure.reason().advice() == Advice::Repeat,
    });
    let told = |failure: Failure| match failure.reason().advice() {
        Advice::Retry | Advice::Operator if in_part => {
            Failure::new(Reason::OutcomeUnknown).because(&format!("of some skus, {}", failure.message()))
        }
        _ => failure,
    };
    results.into_iter().map(|result| result.map(i32::from).map_err(told)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_in_part_is_not_said_to_be_unchanged() {
        let shed = || Err(Failure::new(Reason::Overloaded));
        let reason = |results| whole(results).map_err(|failure| failure.reason());
        let changed = v1::ProtectionOutcome::Changed;
        assert_eq!(reason(vec![Ok(changed)]), Ok(vec![1]));
        assert_eq!(reason(vec![shed(), Ok(v1::ProtectionOutcome::Unchanged)]), Err(Reason::Overloaded));
        assert_eq!(reason(vec![shed(), Ok(changed)]), Err(Reason::OutcomeUnknown));
        let denied = || Err(Failure::new(Reason::StoreDenied));
        assert_eq!(reason(vec![denied(), Ok(changed)]), Err(Reason::OutcomeUnknown));
        assert_eq!(reason(vec![denied(), Ok(v1::ProtectionOutcome::Unchanged)]), Err(Reason::StoreDenied));
        let lost = Err(Failure::new(Reason::OutcomeUnknown));
        assert_eq!(reason(vec![shed(), lost]), Err(Reason::OutcomeUnknown));
    }
}
