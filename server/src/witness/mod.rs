//! The recorded history of each partition, with which this server detects a store that came back older or empty. Kept
//! in memory, and in a file if the operator names a folder. Uses the domain and the config record of the store.
//!
//! - this file: the [`Witnesses`] of all namespaces;
//! - [`partition`]: the [`Witness`] of one partition;
//! - [`clock`]: the last reading of its clock, in memory only;
//! - [`file`]: the file, its lock and its format; [`persistence`]: its writer.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

mod clock;
mod file;
mod partition;
mod persistence;

use self::{clock::KnownClock, file::StateDir, partition::Known};
pub(crate) use self::{
    file::StateError,
    partition::{Observed, Witness},
    persistence::Written,
};
use crate::{
    domain::{Fence, HistoryPoint, Knowledge, NamespaceName},
    store::{identity::Identity, wire::NamespaceConfig},
    telemetry::metrics::Metrics,
};

/// The most partitions that [`Witnesses::fenced`] lists.
const MAX_LISTED: usize = 1_000;
/// The most deleted namespaces that are remembered.
const MAX_DELETED_NAMESPACES: usize = 10_000;

/// A namespace that this process, or an earlier one with the same file, has opened.
#[derive(Clone)]
struct KnownNamespace {
    config: NamespaceConfig,
    /// Whether it was deleted. Then the deletion is the claim of each partition: a store that has the partition again
    /// has lost that change.
    is_deleted: bool,
    partitions: Vec<Arc<Witness>>,
}

/// A fenced partition.
#[derive(Clone, Debug)]
pub(crate) struct FencedPartition {
    pub(crate) namespace: NamespaceName,
    pub(crate) partition: u16,
    pub(crate) fence: Fence,
}

/// The recorded history of all namespaces.
pub(crate) struct Witnesses {
    gates: bool,
    metrics: Arc<Metrics>,
    identity: Arc<Identity>,
    namespaces: Mutex<BTreeMap<NamespaceName, KnownNamespace>>,
    changes: Arc<AtomicU64>,
    folder: Option<StateDir>,
    written: Mutex<Written>,
    is_failing: AtomicBool,
}

impl Witnesses {
    /// Reads the file in this folder, if there is one. `gates`: whether a loss gates a partition.
    pub(crate) fn open(folder: Option<&Path>, gates: bool, metrics: Arc<Metrics>) -> Result<Self, StateError> {
        let (folder, document) = match folder.map(StateDir::open).transpose()? {
            Some((folder, document)) => (Some(folder), document),
            None => (None, None),
        };
        let identity = Arc::new(Identity::new(document.as_ref().map(|document| document.store_id.clone())));
        let witnesses = Self {
            gates,
            metrics,
            identity,
            namespaces: Mutex::default(),
            changes: Arc::default(),
            folder,
            written: Mutex::default(),
            is_failing: AtomicBool::new(false),
        };
        if let (Some(document), Some(folder)) = (document, &witnesses.folder) {
            for entry in document.namespaces {
                let (name, known) = witnesses.read_entry(entry).ok_or_else(|| StateError::Corrupt {
                    path: folder.path().to_owned(),
                    why: "a namespace has a name or a config that this server can't read".to_owned(),
                })?;
                witnesses.namespaces().insert(name, known);
            }
        }
        Ok(witnesses)
    }

    fn witness(&self, name: &NamespaceName, partition: u16, epoch: u64, claims: Vec<HistoryPoint>) -> Arc<Witness> {
        Arc::new(Witness {
            gates: self.gates,
            namespace: name.clone(),
            partition,
            known: Mutex::new(Known { epoch, claims, fence: None, fenced_until: 0 }),
            clock: KnownClock::default(),
            changes: Arc::clone(&self.changes),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// The expected store.
    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The names of all recorded namespaces that were not deleted.
    pub(crate) fn names(&self) -> Vec<NamespaceName> {
        let namespaces = self.namespaces();
        namespaces.iter().filter(|(_, known)| !known.is_deleted).map(|(name, _)| name.clone()).collect()
    }

    /// The last recorded config of a namespace; `None` if the namespace is not recorded.
    pub(crate) fn config(&self, name: &NamespaceName) -> Option<NamespaceConfig> {
        self.namespaces().get(name).filter(|known| !known.is_deleted).map(|known| known.config.clone())
    }

    /// Replaces the recorded config of a namespace.
    pub(crate) fn set_config(&self, name: &NamespaceName, config: &NamespaceConfig) {
        if let Some(known) = self.namespaces().get_mut(name) {
            known.config = config.clone();
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The knowledge for the opening of a partition. The number of partitions never changes. So an unrecorded partition
    /// of a recorded namespace has taken over SKUs of the others, and gets the claims of the first.
    pub(crate) fn opening_knowledge(&self, name: &NamespaceName, partition: u16) -> Knowledge {
        let namespaces = self.namespaces();
        let known = namespaces.get(name).filter(|known| !known.is_deleted);
        let partitions = known.map(|known| known.partitions.as_slice()).unwrap_or_default();
        let witness = partitions.get(usize::from(partition)).or(partitions.first());
        let knowledge = witness.map_or_else(|| self.nothing(), |witness| witness.opening_knowledge());
        // The clock of another partition is of no use.
        let reading = knowledge.reading.filter(|_| usize::from(partition) < partitions.len());
        Knowledge { reading, ..knowledge }
    }

    /// The knowledge of a server without any records.
    pub(crate) fn nothing(&self) -> Knowledge {
        Knowledge { gates: self.gates, claims: Vec::new(), reading: None }
    }

    /// Records a namespace that was just opened. Returns the witness of each partition.
    pub(crate) fn opened(&self, name: &NamespaceName, config: &NamespaceConfig, epochs: &[u64]) -> Vec<Arc<Witness>> {
        let mut namespaces = self.namespaces();
        let known = namespaces.entry(name.clone()).or_insert_with(|| KnownNamespace {
            config: config.clone(),
            is_deleted: false,
            partitions: Vec::new(),
        });
        if std::mem::take(&mut known.is_deleted) {
            // If the deleted partition is present again, its deletion is lost. For a new partition the deletion is no
            // claim.
            for (witness, &epoch) in known.partitions.iter().zip(epochs) {
                witness.known().claims.retain(|claim| claim.epoch == epoch);
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        if known.config != *config {
            known.config = config.clone();
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        known.partitions.truncate(epochs.len());
        for (partition, &epoch) in (0..).zip(epochs) {
            match known.partitions.get(usize::from(partition)) {
                Some(witness) => witness.set_epoch(epoch),
                None => {
                    known.partitions.push(self.witness(name, partition, epoch, Vec::new()));
                    self.changes.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        known.partitions.clone()
    }

    /// The epochs of a recorded namespace that was not deleted: that of its first partition, and those of all.
    pub(crate) fn epochs(&self, name: &NamespaceName) -> Option<(u64, Vec<u64>)> {
        let namespaces = self.namespaces();
        let known = namespaces.get(name).filter(|known| !known.is_deleted)?;
        let epochs: Vec<_> = known.partitions.iter().map(|witness| witness.known().epoch).collect();
        Some((*epochs.first()?, epochs))
    }

    /// The knowledge of a partition with this epoch.
    pub(crate) fn knowledge_of(&self, name: &NamespaceName, partition: u16, epoch: u64) -> Knowledge {
        let witness = self.witness_of(name, partition);
        let mut knowledge = witness.map_or_else(|| self.nothing(), |witness| witness.knowledge());
        knowledge.claims.retain(|claim| claim.epoch == epoch);
        Knowledge { reading: knowledge.reading.filter(|_| !knowledge.claims.is_empty()), ..knowledge }
    }

    /// Records the reply to a call that was sent with this knowledge.
    pub(crate) fn confirm(&self, name: &NamespaceName, partition: u16, sent: &Knowledge, observed: Observed<'_>) {
        if let Some(witness) = self.witness_of(name, partition) {
            witness.confirm(sent, observed);
        }
    }

    fn witness_of(&self, name: &NamespaceName, partition: u16) -> Option<Arc<Witness>> {
        let namespaces = self.namespaces();
        let known = namespaces.get(name).filter(|known| !known.is_deleted)?;
        known.partitions.get(usize::from(partition)).cloned()
    }

    /// Records the deletion of a namespace, with the last change of each partition.
    pub(crate) fn set_deleted(&self, name: &NamespaceName, deletions: &[HistoryPoint]) {
        let mut namespaces = self.namespaces();
        let Some(known) = namespaces.get_mut(name) else { return };
        for witness in &known.partitions {
            if witness.known().fence.take().is_some() {
                self.metrics.add_fenced(-1);
            }
        }
        known.is_deleted = true;
        let witness = |(partition, at): (u16, &HistoryPoint)| {
            let claims = if at.sequence > 0 { vec![*at] } else { Vec::new() };
            self.witness(name, partition, at.epoch, claims)
        };
        known.partitions = (0..).zip(deletions).map(witness).collect();
        let deleted = namespaces.iter().filter(|(_, known)| known.is_deleted);
        if deleted.clone().count() > MAX_DELETED_NAMESPACES {
            let other = deleted.map(|(name, _)| name).find(|other| *other != name).cloned();
            other.and_then(|other| namespaces.remove(&other));
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The fenced partitions, up to [`MAX_LISTED`].
    pub(crate) fn fenced(&self) -> Vec<FencedPartition> {
        let namespaces = self.namespaces();
        let all = namespaces.values().flat_map(|known| &known.partitions);
        let fenced = all.filter_map(|witness| {
            let fence = witness.known().fence?;
            Some(FencedPartition { namespace: witness.namespace.clone(), partition: witness.partition, fence })
        });
        fenced.take(MAX_LISTED).collect()
    }

    fn namespaces(&self) -> MutexGuard<'_, BTreeMap<NamespaceName, KnownNamespace>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
