//! Shared by the RPCs that change one SKU: the change runs in the lane of the SKU, and is logged
//! with the counters and rules before and after it.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    domain::{Id, Operation, Outcome, RequestId, Sku, Stock},
    failure::Failure,
    lane::Lane,
    namespaces::Namespace,
    service::{
        audit_record::{AuditRecord, Change, text_of_request_id, text_of_stock},
        dispatch::{check_age, execute, unexpected},
    },
};

/// Longest wait for the values before a change, which only the log uses.
const BEFORE_TIMEOUT: Duration = Duration::from_secs(1);

/// A change of one SKU.
pub(super) struct SkuChange<'a> {
    pub(super) record: &'a AuditRecord,
    pub(super) namespace: &'a Namespace,
    pub(super) request_id: Option<&'a RequestId>,
    pub(super) deadline: Instant,
    /// Whether the change replaced exactly the values that were read before it. Otherwise the log omits them.
    pub(super) directly_precedes: fn(before: &Stock, after: &Stock) -> bool,
}

/// The SKU after a change.
pub(super) struct Changed {
    pub(super) sku: Sku,
    pub(super) stock: Stock,
    pub(super) replayed: bool,
    pub(super) sequence: i64,
}

impl SkuChange<'_> {
    pub(super) async fn run(self, sku: Sku, operation: impl FnOnce(Id, Sku) -> Operation) -> Result<Changed, Failure> {
        let Self { record, namespace, request_id, deadline, directly_precedes } = self;
        let (lane, memo) = lane_and_identity(namespace, &sku, request_id)?;
        let named = sku.clone();
        let ((outcome, sequence), before) = execute_with_before(lane, &named, operation(memo, sku), deadline).await?;
        let has_changed = matches!(outcome, Outcome::Stock { replayed: false, .. });
        let changed = Changed::decode(outcome, sequence)?;
        if has_changed {
            let before = before.filter(|before| directly_precedes(before, &changed.stock));
            let change = Change {
                sku: changed.sku.as_str().to_owned(),
                request_id: text_of_request_id(request_id),
                before: before.as_ref().map(text_of_stock).unwrap_or_default(),
                after: text_of_stock(&changed.stock),
            };
            record.set_change(change);
        }
        Ok(changed)
    }
}

impl Changed {
    pub(super) fn decode(outcome: Outcome, sequence: i64) -> Result<Self, Failure> {
        match outcome {
            Outcome::Stock { sku, stock, replayed } => Ok(Self { sku, stock, replayed, sequence }),
            Outcome::Unchanged { sku, stock } => Ok(Self { sku, stock, replayed: false, sequence }),
            other => Err(unexpected(&other)),
        }
    }
}

/// The lane of a SKU, and the identity of a change: a new one if the request has none.
pub(super) fn lane_and_identity<'a>(
    namespace: &'a Namespace,
    sku: &Sku,
    request_id: Option<&RequestId>,
) -> Result<(&'a Lane, Id), Failure> {
    let lane = namespace.lane_of(sku);
    if let Some(request_id) = request_id {
        check_age(namespace, lane, request_id, Instant::now())?;
    }
    Ok((lane, namespace.identity_or_new(request_id)))
}

/// Executes a change, and a read of the SKU just before it. They share a batch, so the read costs
/// no round trip. Returns the outcome, and the values before it if the read succeeded.
async fn execute_with_before(
    lane: &Lane,
    sku: &Sku,
    operation: Operation,
    deadline: Instant,
) -> Result<((Outcome, i64), Option<Stock>), Failure> {
    let before = lane.submit(Operation::GetStock { sku: sku.clone() }, deadline).ok();
    let outcome = execute(lane, operation, deadline).await?;
    let before = match before {
        Some(pending) => tokio::time::timeout(BEFORE_TIMEOUT, pending.wait()).await.ok().and_then(Result::ok),
        None => None,
    };
    match before.map(|answer| answer.outcome) {
        Some(Ok(Outcome::Stock { stock, .. })) => Ok((outcome, Some(stock))),
        _ => Ok((outcome, None)),
    }
}
