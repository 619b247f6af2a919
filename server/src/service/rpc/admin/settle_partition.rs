//! SettlePartition: opens a partition that has lost changes. Takes bounded steps through its lane, and
//! reads the SKUs of the partition through `store::lists`. The store decides.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use inventory_sentinel::{Reason, v1};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tonic::Request;

use super::{Admin, MAX_ROWS};
use crate::{
    domain::{FenceId, Id, Invalid, NamespaceName, OnHand, Operation, Outcome, RequestId, Sku},
    failure::Failure,
    lane::Lane,
    namespaces::Namespace,
    service::{
        audit_record::{AuditRecord, Change},
        deadline::by_deadline,
        dispatch::{AsyncRpc, Scope, check_age, execute, unexpected},
    },
    store::{
        keys::PartitionKeys,
        lists::{self, Range},
    },
    telemetry::metrics::RpcKind,
};

/// SKUs of one settlement that may wait in the lane at the same time.
const SKUS_IN_FLIGHT: usize = 256;
/// Pause before a step is retried that was refused because the queue was full.
const SHED_PAUSE: Duration = Duration::from_millis(20);
/// SKUs of one read.
const PAGE_SIZE: usize = 1_000;

/// The operator's figure for one SKU.
struct Figure {
    sku: Sku,
    available: OnHand,
    old_holds_return: bool,
}

pub(crate) struct SettlePartition {
    record: AuditRecord,
    name: NamespaceName,
    partition: i32,
    request_id: RequestId,
    figures: Vec<Figure>,
    fence: FenceId,
}

impl AsyncRpc for SettlePartition {
    type Service = Admin;
    type Request = v1::SettlePartitionRequest;
    type Response = v1::SettlePartitionResponse;
    const KIND: RpcKind = RpcKind::SettlePartition;

    fn decode(request: Request<v1::SettlePartitionRequest>) -> Result<Self, Failure> {
        let record = AuditRecord::of(request.extensions());
        let v1::SettlePartitionRequest { namespace_id, partition, request_id, skus, fence } = request.into_inner();
        let fence = decode_fence(&fence)?;
        let name = NamespaceName::parse(namespace_id)?;
        let request_id = RequestId::parse(request_id)?;
        Ok(Self { record, name, partition, request_id, figures: decode_figures(skus)?, fence })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::SettlePartitionResponse, Failure> {
        let Self { record, name, partition, request_id, figures, fence } = self;
        let namespace = admin.context.namespace(&name, deadline).await?;
        let found = u16::try_from(partition).ok().and_then(|partition| Some((partition, namespace.lane(partition)?)));
        let (partition, lane) = found.ok_or_else(|| Invalid::new(Reason::InvalidPartition, "partition"))?;
        if let Some(i) = figures.iter().position(|figure| namespace.partition_of(&figure.sku) != partition) {
            return Err(Invalid::new(Reason::InvalidPartition, format!("skus[{i}].sku")).into());
        }
        check_age(&namespace, lane, &request_id, Instant::now())?;

        let memo = namespace.identity(&request_id);
        let key = settlement_key(memo, partition, &figures);
        let begin = Operation::BeginSettlement { memo, key, fence };
        if let (Outcome::Settlement { replayed: true }, sequence) = execute(lane, begin, deadline).await? {
            return Ok(v1::SettlePartitionResponse { skus: 0, replayed: true, sequence });
        }
        let named: HashSet<Sku> = figures.iter().map(|figure| figure.sku.clone()).collect();
        let mut settled = settle_skus(lane, key, figures, false, deadline).await?;
        settled += settle_rest(admin, lane, &namespace, partition, key, &named, deadline).await?;
        let end = || Operation::EndSettlement { memo, key };
        let (outcome, sequence) = execute_unless_shed(lane, end, deadline).await?;
        let Outcome::Settlement { replayed } = outcome else { return Err(unexpected(&outcome)) };
        let after =
            format!("partition={partition} named_skus={} settled_skus={settled} sequence={sequence}", named.len());
        let change = Change { request_id: request_id.as_str().to_owned(), after, ..Change::default() };
        record.set_change(change);
        Ok(v1::SettlePartitionResponse { skus: settled as i64, replayed, sequence })
    }
}

/// Sets the available units of all SKUs that the operator does not name to 0. While the partition
/// is gated, no SKU is created or deleted, so the scan reads every SKU.
async fn settle_rest(
    admin: &Admin,
    lane: &Lane,
    namespace: &Namespace,
    partition: u16,
    key: Id,
    named: &HashSet<Sku>,
    deadline: Instant,
) -> Result<usize, Failure> {
    let partitions = [(partition, PartitionKeys::new(&namespace.name, partition))];
    let (mut from, mut settled) = (None, 0);
    loop {
        let page = by_deadline(deadline, async {
            let mut connection = admin.store.connection().await?;
            lists::stock(&mut connection, &partitions, Range { size: PAGE_SIZE, from }).await
        });
        let page = page.await?;
        let rest = page.items.into_iter().map(|(sku, _)| sku).filter(|sku| !named.contains(sku));
        let rest = rest.map(|sku| Figure { sku, available: OnHand::NONE, old_holds_return: false }).collect();
        settled += settle_skus(lane, key, rest, true, deadline).await?;
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(settled),
        }
    }
}

/// Sets the counters of these SKUs. Returns how many it has set. If `only_known`, skips unknown SKUs.
async fn settle_skus(
    lane: &Lane,
    key: Id,
    figures: Vec<Figure>,
    only_known: bool,
    deadline: Instant,
) -> Result<usize, Failure> {
    let settle = |Figure { sku, available, old_holds_return }| {
        let operation = move || Operation::SettleSku { key, sku: sku.clone(), available, old_holds_return, only_known };
        async move {
            match execute_unless_shed(lane, operation, deadline).await {
                Ok((Outcome::Stock { .. }, _)) => Ok(1),
                Ok((other, _)) => Err(unexpected(&other)),
                Err(failure) if only_known && failure.reason() == Reason::SkuNotFound => Ok(0),
                Err(failure) => Err(failure),
            }
        }
    };
    stream::iter(figures).map(settle).buffer_unordered(SKUS_IN_FLIGHT).try_fold(0, async |sum, n| Ok(sum + n)).await
}

/// Executes an operation, and retries it while the queue is full. A refused step would leave the
/// settlement unfinished.
async fn execute_unless_shed(
    lane: &Lane,
    operation: impl Fn() -> Operation,
    deadline: Instant,
) -> Result<(Outcome, i64), Failure> {
    loop {
        match execute(lane, operation(), deadline).await {
            Err(failure) if failure.reason() == Reason::Overloaded && Instant::now() + SHED_PAUSE < deadline => {
                tokio::time::sleep(SHED_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Decodes the name of a fence. It is empty if no server has detected a loss.
fn decode_fence(name: &str) -> Result<FenceId, Invalid> {
    if name.is_empty() {
        return Ok(FenceId::NONE);
    }
    FenceId::parse(name.as_bytes()).ok_or_else(|| Invalid::new(Reason::InvalidFence, "fence"))
}

fn decode_figures(skus: Vec<v1::SettledSku>) -> Result<Vec<Figure>, Invalid> {
    if skus.len() > MAX_ROWS {
        return Err(Invalid::new(Reason::TooManyRows, "skus"));
    }
    let mut seen = HashSet::new();
    let figure = |(i, row): (usize, v1::SettledSku)| {
        let v1::SettledSku { sku, available, old_holds_return } = row;
        let sku = Sku::parse(sku, &format!("skus[{i}].sku"))?;
        if !seen.insert(sku.clone()) {
            return Err(Invalid::new(Reason::DuplicateSku, format!("skus[{i}].sku")));
        }
        let available =
            OnHand::parse(available).map_err(|invalid| Invalid { field: format!("skus[{i}].available"), ..invalid })?;
        Ok(Figure { sku, available, old_holds_return })
    };
    skus.into_iter().enumerate().map(figure).collect()
}

/// The key of a settlement: a hash of its identity and its figures, independent of their order.
fn settlement_key(memo: Id, partition: u16, figures: &[Figure]) -> Id {
    let mut rows: Vec<_> = figures.iter().collect();
    rows.sort_by(|one, other| one.sku.as_str().cmp(other.sku.as_str()));
    let mut hash = Sha256::new();
    hash.update(memo);
    hash.update(partition.to_be_bytes());
    for Figure { sku, available, old_holds_return } in rows {
        hash.update([sku.as_str().len() as u8, (*old_holds_return).into()]);
        hash.update(available.get().to_be_bytes());
        hash.update(sku.as_str());
    }
    let hash = hash.finalize();
    std::array::from_fn(|i| hash[i])
}
