//! ImportStock: sets the stock of many SKUs, over a stream of messages. Each row is a SetStock in
//! the lane of its SKU; a bounded number of rows waits at once, and no row waits for another's
//! outcome.

use futures_util::{StreamExt as _, stream};
use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use tracing::{Instrument as _, Span};

use super::{MAX_ROWS, MAX_ROWS_IN_FLIGHT};
use crate::{
    access::Caller,
    domain::{Condition, Invalid, NamespaceName, OnHand, Operation, Outcome, Refusal, RequestId, Sku},
    failure::Failure,
    namespaces::Namespace,
    service::{
        audit_record::{AuditRecord, Change},
        context::ServiceContext,
        deadline::MAX_CALL_DURATION,
        dispatch::{check_age, unexpected},
        rpc::events::stream::{ResponseStream, until_refused},
    },
    tasks::Task,
    telemetry::metrics::RpcKind,
    transport::reason_of,
};

/// Responds to each message, in order. Ends with the caller's stream, with a message that is
/// refused, or when the server drains. The batches of its rows link to the call's span, which lasts
/// as long.
pub(super) fn open(
    context: ServiceContext,
    caller: Option<Caller>,
    first: AuditRecord,
    requests: Streaming<v1::ImportStockRequest>,
) -> ResponseStream<v1::ImportStockResponse> {
    let span = Span::current();
    Box::pin(stream::try_unfold((context, requests), move |(context, mut requests)| {
        let (caller, record) = (caller.clone(), first.of_next_message());
        let response = async move {
            let Some(message) = next(&context, caller.as_ref(), &record, &mut requests).await? else {
                return Ok(None);
            };
            let arrived_at = Instant::now();
            // The rows run in a task: a stream is not polled while its client reads nothing, and
            // the creation of a namespace keeps a connection to the store.
            let rows = import(context.clone(), caller, record.clone(), message).instrument(Span::current());
            let rows = AbortOnDropHandle::new(context.tasks.spawn(Task::Import, rows));
            let result = rows.await.ok().flatten().unwrap_or_else(|| Err(Failure::new(Reason::Internal)));
            record.set_outcome(result.as_ref().err().map(Failure::reason));
            context.observe(RpcKind::ImportStock, arrived_at, &result, |_| false);
            Ok(Some((result?, (context, requests))))
        };
        response.instrument(span.clone())
    }))
}

/// The next message, unless the server drains or the caller loses its role first: a caller that pauses must not delay
/// either. Without a message, nothing is recorded here but the refusal of one.
async fn next(
    context: &ServiceContext,
    caller: Option<&Caller>,
    record: &AuditRecord,
    requests: &mut Streaming<v1::ImportStockRequest>,
) -> Result<Option<v1::ImportStockRequest>, Status> {
    let message = tokio::select! {
        biased;
        () = context.draining.cancelled() => Err(Failure::new(Reason::Draining).into()),
        // The guard records this refusal.
        failure = until_refused(caller, None) => Err(failure.into()),
        message = requests.message() => {
            // A caller that disconnects gives no reason.
            let refused = message.as_ref().err().map(reason_of).filter(|reason| *reason != Reason::Internal);
            if refused.is_some() {
                record.set_outcome(refused);
                return message;
            }
            message
        }
    };
    if !matches!(message, Ok(Some(_))) {
        record.discard();
    }
    message
}

/// Applies the rows of one message.
async fn import(
    context: ServiceContext,
    caller: Option<Caller>,
    record: AuditRecord,
    message: v1::ImportStockRequest,
) -> Result<v1::ImportStockResponse, Failure> {
    // The caller's deadline ends the stream; this bounds one message of it.
    let deadline = Instant::now() + MAX_CALL_DURATION;
    let v1::ImportStockRequest { namespace_id, request_id, rows, overwrite, existing_namespace_only } = message;
    let name = NamespaceName::parse(namespace_id)?;
    record.set_namespace(&name);
    if let Some(caller) = caller {
        let permitted = caller.judged_again().and_then(|caller| caller.permit(&name));
        permitted.inspect_err(|_| record.discard())?;
    }
    let request_id = RequestId::parse(request_id)?;
    if rows.len() > MAX_ROWS {
        return Err(Invalid::new(Reason::TooManyRows, "rows").into());
    }
    // If the caller disconnects, some rows may be applied.
    let first = rows.first().map(|row| row.sku.as_str()).unwrap_or_default();
    let after = format!("requested {} SKUs, the first row is {first}", rows.len());
    record.set_change(Change { request_id: request_id.as_str().to_owned(), after, ..Change::default() });
    let condition = if overwrite { Condition::Always } else { Condition::IfAbsent };
    let namespace = context.namespace_or_new(&name, existing_namespace_only, deadline).await?;
    let (number, first) = (rows.len(), rows.first().map(|row| row.sku.clone()).unwrap_or_default());
    let results: Vec<v1::ImportRowResult> = stream::iter(rows)
        .map(|row| async { encode_row(apply(&namespace, &request_id, row, condition, deadline).await) })
        .buffered(MAX_ROWS_IN_FLIGHT)
        .collect()
        .await;
    let applied = results.iter().filter(|result| result.outcome() == v1::ImportOutcome::Applied).count();
    if applied > 0 {
        let after = format!("set {applied} of {number} SKUs, the first row is {first}");
        record.set_change(Change { request_id: request_id.as_str().to_owned(), after, ..Change::default() });
    } else {
        record.clear_change();
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

fn encode_row(applied: Result<v1::ImportOutcome, Failure>) -> v1::ImportRowResult {
    match applied {
        Ok(outcome) => v1::ImportRowResult { outcome: outcome.into(), ..Default::default() },
        Err(failure) => v1::ImportRowResult {
            outcome: v1::ImportOutcome::Failed.into(),
            reason: failure.reason().as_str().to_owned(),
            message: failure.message(),
        },
    }
}
