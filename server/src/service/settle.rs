//! SettlePartition: opens a partition that lost changes, in bounded steps through its lane; and GetServerInfo. Lists the
//! SKUs of the partition; what is decided is decided in the store.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use inventory_sentinel::{Reason, v1};
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    admin::Admin,
    bulk::MAX_ROWS,
    carry, check_age, convert,
    status::Failure,
    trail::{Caller, Change},
    unexpected,
};
use crate::{
    config::Durability,
    domain::{FORMATS, FenceId, Id, Invalid, NamespaceName, OnHand, Operation, Outcome, RequestId, Sku},
    lane::Lane,
    namespaces::Namespace,
    store::{
        keys::PartitionKeys,
        lists::{self, Range},
    },
    witness::FencedPartition,
};

/// SKUs of one settlement that wait in the lane at once.
const SKUS_IN_FLIGHT: usize = 256;
/// Pause before a step that was shed is submitted again.
const SHED_PAUSE: Duration = Duration::from_millis(20);
/// SKUs that are read at once.
const PAGE: usize = 1_000;

/// The operator's figure for one SKU.
struct Figure {
    sku: Sku,
    available: OnHand,
    old_holds_return: bool,
}

impl Admin {
    pub(super) async fn settle(
        &self,
        caller: &Caller,
        request: v1::SettlePartitionRequest,
        deadline: Instant,
    ) -> Result<v1::SettlePartitionResponse, Failure> {
        let v1::SettlePartitionRequest { namespace_id, partition, request_id, skus, fence } = request;
        let fence = fence_id(&fence)?;
        let name = NamespaceName::parse(namespace_id)?;
        let request_id = RequestId::parse(request_id)?;
        let figures = figures(skus)?;
        let namespace = self.desk.namespace_known(&name, deadline).await?;
        let found = u16::try_from(partition).ok().and_then(|partition| Some((partition, namespace.lane(partition)?)));
        let (partition, lane) = found.ok_or_else(|| Invalid::new(Reason::InvalidPartition, "partition"))?;
        if let Some(i) = figures.iter().position(|figure| namespace.partition_of(&figure.sku) != partition) {
            return Err(Invalid::new(Reason::InvalidPartition, format!("skus[{i}].sku")).into());
        }
        check_age(&namespace, lane, &request_id, Instant::now())?;

        let memo = namespace.identity(&request_id);
        let key = key(memo, partition, &figures);
        let begin = Operation::BeginSettlement { memo, key, fence };
        if let (Outcome::Settlement { replayed: true }, sequence) = carry(lane, begin, deadline).await? {
            return Ok(v1::SettlePartitionResponse { skus: 0, replayed: true, sequence });
        }
        let named: HashSet<Sku> = figures.iter().map(|figure| figure.sku.clone()).collect();
        let mut settled = settle_skus(lane, key, figures, false, deadline).await?;
        settled += self.settle_rest(lane, &namespace, partition, key, &named, deadline).await?;
        let (outcome, sequence) = submit(lane, || Operation::EndSettlement { memo, key }, deadline).await?;
        let Outcome::Settlement { replayed } = outcome else { return Err(unexpected(&outcome)) };
        let after =
            format!("partition={partition} named_skus={} settled_skus={settled} sequence={sequence}", named.len());
        let change = Change { request_id: request_id.as_str(), after, ..Change::default() };
        caller.changed("SettlePartition", &name, change);
        Ok(v1::SettlePartitionResponse { skus: settled as i64, replayed, sequence })
    }

    /// Sets what is available of all SKUs that the operator does not name to 0. While the partition is gated no SKU
    /// comes or goes, so that the scan meets each.
    async fn settle_rest(
        &self,
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
            let page = async {
                let mut connection = self.store.connection().await?;
                lists::stock(&mut connection, &partitions, Range { size: PAGE, from }).await
            };
            let page = tokio::time::timeout_at(deadline, page).await;
            let page = page.map_err(|_| Failure::new(Reason::DeadlineExceeded))??;
            let rest = page.items.into_iter().map(|(sku, _)| sku).filter(|sku| !named.contains(sku));
            let rest = rest.map(|sku| Figure { sku, available: OnHand::NONE, old_holds_return: false }).collect();
            settled += settle_skus(lane, key, rest, true, deadline).await?;
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(settled),
            }
        }
    }

    pub(super) fn server_info(&self) -> v1::GetServerInfoResponse {
        let witnesses = &self.promises.witnesses;
        let (identity, written, path) = (witnesses.identity(), witnesses.written(), witnesses.path());
        let offsets = self.desk.namespaces.clock_offsets();
        v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            durability: match self.durability {
                Durability::Fast => "fast",
                Durability::Durable => "durable",
            }
            .to_owned(),
            store_version: identity.version().unwrap_or_default(),
            store_id: identity.id().unwrap_or_default(),
            state: path.map_or_else(|| "memory only".to_owned(), |path| path.display().to_string()),
            state_written_at: written.at.map(Timestamp::from),
            state_error: written.error.unwrap_or_default(),
            newest_format: FORMATS.1.into(),
            clock_offset: Some(convert::signed_duration(offsets.clock)),
            time_of_day_offset: Some(convert::signed_duration(offsets.time_of_day)),
            fenced_partitions: witnesses.fenced().into_iter().map(fenced).collect(),
            promises: self.promises.list().into_iter().map(convert::promise).collect(),
        }
    }
}

fn fenced(FencedPartition { namespace, partition, fence }: FencedPartition) -> v1::FencedPartition {
    v1::FencedPartition {
        namespace_id: namespace.as_str().to_owned(),
        partition: partition.into(),
        seen: Some(convert::history_point(fence.seen)),
        kept_sequence: fence.kept as i64,
        fence: fence.id.as_str().to_owned(),
        is_gated: fence.is_gated,
        fenced_at: Some(convert::timestamp(fence.noticed_at)),
    }
}

/// Sets the counters of these SKUs; returns how many there are.
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
            match submit(lane, operation, deadline).await {
                Ok((Outcome::Stock { .. }, _)) => Ok(1),
                Ok((other, _)) => Err(unexpected(&other)),
                Err(failure) if only_known && failure.reason() == Reason::SkuNotFound => Ok(0),
                Err(failure) => Err(failure),
            }
        }
    };
    stream::iter(figures).map(settle).buffer_unordered(SKUS_IN_FLIGHT).try_fold(0, async |sum, n| Ok(sum + n)).await
}

/// Submits an operation, and again while too many wait: a step that is shed leaves a settlement that has not ended.
async fn submit(lane: &Lane, operation: impl Fn() -> Operation, deadline: Instant) -> Result<(Outcome, i64), Failure> {
    loop {
        match carry(lane, operation(), deadline).await {
            Err(failure) if failure.reason() == Reason::Overloaded && Instant::now() + SHED_PAUSE < deadline => {
                tokio::time::sleep(SHED_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Empty where nobody knows a loss.
fn fence_id(name: &str) -> Result<FenceId, Invalid> {
    if name.is_empty() {
        return Ok(FenceId::NONE);
    }
    FenceId::parse(name.as_bytes()).ok_or_else(|| Invalid::new(Reason::InvalidFence, "fence"))
}

fn figures(skus: Vec<v1::SettledSku>) -> Result<Vec<Figure>, Invalid> {
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

/// The key of a settlement: of its identity and its figures, whatever their order.
fn key(memo: Id, partition: u16, figures: &[Figure]) -> Id {
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
