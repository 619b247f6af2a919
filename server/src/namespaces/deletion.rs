//! The deletion of a namespace, in bounded steps: close every partition, decide, unlink the keys, write the tombstones.
//! Each step can be repeated, so an interrupted deletion can always be resumed. Uses the store and the witnesses.
//!
//! Until the first partition records the decision, the deletion can be abandoned: the partitions are opened again. From
//! then on every partition is closed and has no holds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Namespaces, new_identity, searches::ANY_NUMBER};
use crate::{
    domain::{HistoryPoint, Id, Invalid, Knowledge, NamespaceName, Operation, Outcome, Refusal, RequestId, Term},
    store::{
        BatchCall, Mode, NamespaceStore,
        error::StoreError,
        keys::PartitionKeys,
        wire::{Batch, DeletionStep, Found, OperationResult, Presence, Stepped},
    },
    witness::Observed,
};

/// Pause before a step is repeated, because holds are due or the partition has changed.
const STEP_PAUSE: Duration = Duration::from_millis(20);
/// Shortest and longest pause of a call that another one has overtaken, in milliseconds. It is random: two calls that
/// continue at the same moment would overtake each other again.
const OVERTAKEN_PAUSE: (u64, u64) = (20, 300);

/// A server that finds a deletion of this age resumes it: its caller may be gone. If the caller still works on it, that
/// does no harm.
const ABANDONED: Duration = Duration::from_secs(15);

/// The unfinished deletions that this server has found, each with the instant. Bounded by the namespaces of the store.
#[derive(Default)]
pub(super) struct UnfinishedDeletions(Mutex<BTreeMap<NamespaceName, Instant>>);

impl UnfinishedDeletions {
    /// Records whether a namespace is being deleted.
    pub(super) fn record(&self, name: &NamespaceName, presence: &Presence) {
        let mut since = self.since();
        match presence {
            Presence::Deleting { .. } if since.contains_key(name) => {}
            Presence::Deleting { .. } => {
                since.insert(name.clone(), Instant::now());
            }
            Presence::Live(_) | Presence::Absent => {
                since.remove(name);
            }
        }
    }

    /// The abandoned ones. Each is returned again only after another [`ABANDONED`].
    fn take_abandoned(&self) -> Vec<NamespaceName> {
        let (mut since, now) = (self.since(), Instant::now());
        let abandoned = since.iter_mut().filter(|(_, since)| now.duration_since(**since) >= ABANDONED);
        abandoned
            .map(|(name, since)| {
                *since = now;
                name.clone()
            })
            .collect()
    }

    fn since(&self) -> MutexGuard<'_, BTreeMap<NamespaceName, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a namespace was not deleted.
#[derive(Debug)]
pub(crate) enum DeleteError {
    NotFound,
    /// This partition has `held` pending reservations.
    HasHolds {
        partition: u16,
        held: u64,
    },
    Refused(Refusal),
    /// The request is too old.
    Invalid(Invalid),
    /// Another call has taken over the deletion.
    Overtaken,
    /// The caller's deadline passed before anything was sent.
    DeadlinePassed,
    /// It may have been deleted, in part or whole.
    OutcomeUnknown {
        why: Arc<str>,
    },
    /// Nothing was changed.
    Store(StoreError),
}

impl From<StoreError> for DeleteError {
    fn from(error: StoreError) -> Self {
        DeleteError::Store(error)
    }
}

/// One call that deletes.
struct Deletion<'a, S> {
    namespaces: &'a Namespaces<S>,
    name: &'a NamespaceName,
    /// The id of the request in the tombstone.
    request: Id,
    /// The id of this call.
    token: Id,
    /// The id of the request in a live namespace.
    memo: Id,
}

/// The result of the closing of a partition.
enum Closing {
    Closed,
    /// There is no such partition.
    Absent,
    HasHolds(u64),
}

impl<S: NamespaceStore> Namespaces<S> {
    /// Deletes a namespace. Returns whether this request has deleted it before.
    pub(crate) async fn delete(
        &self,
        name: &NamespaceName,
        request_id: Option<&RequestId>,
        deadline: Instant,
    ) -> Result<bool, DeleteError> {
        let in_doubt = AtomicBool::new(false);
        let why = |why: &str| DeleteError::OutcomeUnknown { why: why.into() };
        let tries = async {
            loop {
                match self.try_to_delete(name, request_id, &in_doubt).await {
                    // Tries again, unless the other call ends the deletion first.
                    Err(DeleteError::Overtaken) => {
                        let pause = { self.random() }.random_range(OVERTAKEN_PAUSE.0..OVERTAKEN_PAUSE.1);
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                    Err(DeleteError::NotFound) if in_doubt.load(Ordering::Relaxed) => return Ok(false),
                    result => return result,
                }
            }
        };
        match tokio::time::timeout_at(deadline, tries).await {
            Ok(Err(DeleteError::Store(error))) if in_doubt.load(Ordering::Relaxed) => {
                Err(why(&format!("the deletion has begun and has not ended: {error}")))
            }
            Ok(result) => result,
            Err(_) if in_doubt.load(Ordering::Relaxed) => {
                Err(why("the deletion has begun, and the deadline has passed"))
            }
            Err(_) => Err(DeleteError::DeadlinePassed),
        }
    }

    async fn try_to_delete(
        &self,
        name: &NamespaceName,
        request_id: Option<&RequestId>,
        in_doubt: &AtomicBool,
    ) -> Result<bool, DeleteError> {
        let request = request_id.map_or_else(|| new_identity(self.random()), |request_id| digest(name, request_id));
        let found = self.store.find(name).await?;
        if found.deleted.iter().any(|deleted| deleted.request == request) {
            self.forget_deleted(name, &found).await?;
            return Ok(true);
        }
        let token = new_identity(self.random());
        let (config, memo) = match found.presence {
            Presence::Deleting { config, .. } => (config, request),
            Presence::Live(_) | Presence::Absent => {
                let namespace = match self.open_found(name, found).await {
                    Ok(Some(namespace)) => namespace,
                    Ok(None) => return Err(DeleteError::NotFound),
                    // It was closed meanwhile.
                    Err(StoreError::Closed) => return Err(DeleteError::Overtaken),
                    Err(error) => return Err(error.into()),
                };
                if let Some((request_id, lane)) = request_id.zip(namespace.lane(0)) {
                    let now = lane.time_of_day(Instant::now());
                    request_id.check_age(now, namespace.config.retention).map_err(DeleteError::Invalid)?;
                }
                let deletion =
                    Deletion { namespaces: self, name, request, token, memo: namespace.identity_or_new(request_id) };
                // Checks all partitions before any is closed.
                for partition in 0..namespace.config.partitions {
                    if let Closing::HasHolds(held) = deletion.close(partition, true).await? {
                        return Err(DeleteError::HasHolds { partition, held });
                    }
                }
                (namespace.config.clone(), deletion.memo)
            }
        };
        let deletion = Deletion { namespaces: self, name, request, token, memo };
        deletion.complete(config.partitions, in_doubt).await?;
        Ok(false)
    }

    /// Deletions whose callers seem to be gone.
    pub(crate) fn abandoned_deletions(&self) -> Vec<NamespaceName> {
        self.unfinished_deletions.take_abandoned()
    }

    /// Ends an abandoned deletion on behalf of the request that began it. Returns whether there was one.
    pub(crate) async fn resume_deletion(&self, name: &NamespaceName) -> Result<bool, DeleteError> {
        let found = self.store.find(name).await?;
        self.unfinished_deletions.record(name, &found.presence);
        let Presence::Deleting { config, deleting } = found.presence else { return Ok(false) };
        let request = deleting.request;
        let deletion = Deletion { namespaces: self, name, request, token: new_identity(self.random()), memo: request };
        deletion.complete(config.partitions, &AtomicBool::new(false)).await?;
        Ok(true)
    }

    /// Replaces the record of a namespace that was deleted with the record of its deletion. So the namespace does not
    /// count as lost, and a store that comes back with it is detected.
    pub(super) async fn forget_deleted(&self, name: &NamespaceName, found: &Found) -> Result<(), StoreError> {
        let Some((epoch, partitions)) = self.witnesses.epochs(name) else { return Ok(()) };
        if !found.deleted.iter().any(|deleted| deleted.at.epoch == epoch) {
            return Ok(());
        }
        let mut points = Vec::with_capacity(partitions.len());
        for (partition, epoch) in (0..).zip(partitions) {
            let deletions = self.store.deletions(&PartitionKeys::new(name, partition)).await?;
            // A partition that was never created has no history.
            let nothing = HistoryPoint { epoch, term: Term::NONE, sequence: 0 };
            points.push(deletions.into_iter().find(|at| at.epoch == epoch).unwrap_or(nothing));
        }
        self.witnesses.set_deleted(name, &points);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.get(name).is_some_and(|namespace| namespace.epochs.first() == Some(&epoch)) {
            open.remove(name);
        }
        Ok(())
    }

    /// Drops a closed namespace that was not found again.
    pub(crate) fn drop_closed(&self, name: &NamespaceName) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.get(name).is_some_and(|namespace| namespace.is_closed()) {
            open.remove(name);
        }
    }
}

impl<S: NamespaceStore> Deletion<'_, S> {
    fn keys(&self, partition: u16) -> PartitionKeys {
        PartitionKeys::new(self.name, partition)
    }

    async fn step(&self, partition: u16, step: DeletionStep) -> Result<Stepped, DeleteError> {
        let Namespaces::<S> { store, witnesses, .. } = self.namespaces;
        let stepped = store.delete(&self.keys(partition), witnesses.identity(), step, &self.token).await?;
        if stepped == Stepped::Overtaken {
            return Err(DeleteError::Overtaken);
        }
        Ok(stepped)
    }

    /// Closes a partition, or takes over a closed one. With `only_check`, only checks whether it can be closed.
    async fn close(&self, partition: u16, only_check: bool) -> Result<Closing, DeleteError> {
        let (keys, store) = (self.keys(partition), &self.namespaces.store);
        loop {
            if !only_check && let Stepped::Taken(_) = self.step(partition, DeletionStep::Take).await? {
                return Ok(Closing::Closed);
            }
            let Some(HistoryPoint { epoch, .. }) = store.last_change(&keys).await? else { return Ok(Closing::Absent) };
            let operation =
                || Operation::ClosePartition { memo: self.memo, token: self.token, request: self.request, only_check };
            let batch = Batch::new([&operation()], Duration::ZERO);
            let knowledge = self.namespaces.witnesses.knowledge_of(self.name, partition, epoch);
            match self.close_once(&keys, partition, epoch, &knowledge, &batch, operation()).await? {
                None => tokio::time::sleep(STEP_PAUSE).await,
                Some(Ok(Outcome::Closed)) => return Ok(Closing::Closed),
                Some(Err(Refusal::PartitionHasHolds { held })) => return Ok(Closing::HasHolds(held)),
                Some(Err(refusal)) => return Err(DeleteError::Refused(refusal)),
                Some(Ok(other)) => return Err(StoreError::corrupt(format!("unexpected outcome {other:?}")).into()),
            }
        }
    }

    /// The outcome of one attempt; `None` if it has to be repeated.
    async fn close_once(
        &self,
        keys: &PartitionKeys,
        partition: u16,
        epoch: u64,
        knowledge: &Knowledge,
        batch: &Batch,
        operation: Operation,
    ) -> Result<Option<Result<Outcome, Refusal>>, StoreError> {
        let (store, operations) = (&self.namespaces.store, vec![operation]);
        let mode = Mode::Resolving;
        let call = BatchCall { keys, epoch, knowledge, operations: &operations, batch, mode };
        let reply = match store.run_batch(call).await {
            Ok((reply, _)) => store.decode(partition, batch, reply, operations)?,
            // It was closed or replaced meanwhile, perhaps by an attempt of this call.
            Err(StoreError::Closed) => return Ok(None),
            Err(error) => return Err(error),
        };
        let at = HistoryPoint { epoch, term: reply.term, sequence: reply.sequence };
        let observed = Observed { at, fence: reply.fence, verdicts: &reply.verdicts };
        self.namespaces.witnesses.confirm(self.name, partition, knowledge, observed);
        Ok(match reply.results.into_iter().next() {
            Some(OperationResult::Answered(answer)) => Some(answer.outcome),
            Some(OperationResult::Again(_)) | None => None,
        })
    }

    /// Takes all steps that are left. `in_doubt` is true while the deletion is neither complete nor abandoned.
    async fn complete(&self, partitions: u16, in_doubt: &AtomicBool) -> Result<(), DeleteError> {
        in_doubt.store(true, Ordering::Relaxed);
        for partition in 0..partitions {
            let why = match self.close(partition, false).await {
                Ok(Closing::Closed | Closing::Absent) => continue,
                Ok(Closing::HasHolds(held)) => DeleteError::HasHolds { partition, held },
                Err(DeleteError::Refused(refusal)) => DeleteError::Refused(refusal),
                Err(error) => return Err(error),
            };
            self.abandon(partitions).await?;
            in_doubt.store(false, Ordering::Relaxed);
            return Err(why);
        }
        self.finish(partitions).await?;
        tracing::info!(namespace = self.name.as_str(), partitions, "a namespace was deleted");
        let Namespaces::<S> { store, unfinished_deletions, .. } = self.namespaces;
        let found = store.find(self.name).await?;
        unfinished_deletions.record(self.name, &found.presence);
        self.namespaces.forget_deleted(self.name, &found).await?;
        Ok(())
    }

    /// Opens the partitions again, the first one last: while it is closed, the namespace does not exist.
    async fn abandon(&self, partitions: u16) -> Result<(), DeleteError> {
        for partition in (0..partitions).rev() {
            self.step(partition, DeletionStep::Reopen).await?;
        }
        Ok(())
    }

    /// Deletes the closed partitions.
    async fn finish(&self, partitions: u16) -> Result<(), DeleteError> {
        if self.step(0, DeletionStep::Decide).await? == Stepped::Nothing {
            return Err(DeleteError::Overtaken);
        }
        for partition in (0..partitions).rev() {
            // The first key is the meta key, which stays.
            for number in 2..=self.keys(partition).all().len() {
                self.step(partition, DeletionStep::Unlink(number)).await?;
            }
            if partition == 0 {
                self.namespaces.store.unregister(self.name).await?;
            }
            let buried = self.step(partition, DeletionStep::Bury).await?;
            if partition == 0
                && buried == Stepped::Nothing
                && self.namespaces.store.find(self.name).await?.config().is_some()
            {
                // Another call was faster, and the namespace was created again.
                self.namespaces.store.register(self.name, ANY_NUMBER).await?;
            }
        }
        Ok(())
    }
}

/// The id of a request in a tombstone. The secret of the namespace is gone by then.
fn digest(name: &NamespaceName, request_id: &RequestId) -> Id {
    let hash = Sha256::new().chain_update(name.as_str()).chain_update(b"\0delete\0").chain_update(request_id.as_str());
    let hash = hash.finalize();
    std::array::from_fn(|i| hash[i])
}
