//! What this server knows of the history of each partition, so that it notices a store that came back older or empty.
//! Kept in memory, and in a file where the operator names a folder. Uses the domain and the config record of the store.
//!
//! - here: [`Witness`] of one partition, and [`Witnesses`] of all namespaces;
//! - [`file`]: the file, its lock and its format.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

mod file;

pub(crate) use self::file::StateError;
use self::file::{
    ClaimEntry, Document, FORMAT, MAX_CLAIMS, NamespaceEntry, PartitionEntry, StateDir, from_hex, to_hex,
};
use crate::{
    domain::{Fence, HistoryPoint, Knowledge, NamespaceName, Term, Verdict},
    store::{identity::Identity, wire::NamespaceConfig},
    telemetry::metrics::Metrics,
};

/// Pause between two writes of the file.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Partitions that [`Witnesses::fenced`] lists.
const MAX_LISTED: usize = 1_000;

/// What this server knows of one partition: the highest acknowledged sequence of each term that no later reply has
/// confirmed. Replies may come in any order, so there can be several.
#[derive(Debug)]
pub(crate) struct Witness {
    gates: bool,
    namespace: NamespaceName,
    partition: u16,
    known: Mutex<Known>,
    changes: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Known {
    epoch: u64,
    claims: Vec<HistoryPoint>,
    fence: Option<Fence>,
}

/// What a reply says of a partition's history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    pub(crate) at: HistoryPoint,
    pub(crate) fence: Option<Fence>,
    /// On the claims that were sent; empty if all are part of the history.
    pub(crate) verdicts: &'a [Verdict],
}

impl Witness {
    /// What a batch brings along.
    pub(crate) fn knowledge(&self) -> Knowledge {
        Knowledge { gates: self.gates, claims: self.known().claims.clone() }
    }

    /// What the opening of the partition brings along: at least that it exists.
    pub(crate) fn opening_knowledge(&self) -> Knowledge {
        let known = self.known();
        let mut claims = known.claims.clone();
        if !claims.iter().any(|claim| claim.epoch == known.epoch) {
            claims.push(HistoryPoint { epoch: known.epoch, term: Term::NONE, sequence: 0 });
        }
        // The script makes a lost partition with the epoch of the last claim.
        claims.sort_by_key(|claim| (claim.epoch == known.epoch, claim.sequence));
        Knowledge { gates: self.gates, claims }
    }

    /// Takes in the reply to a call that brought this knowledge. A reply that is not fenced confirms the claims of
    /// earlier terms, or says that they were settled.
    pub(crate) fn confirm(&self, sent: &Knowledge, observed: Observed<'_>) {
        let mut known = self.known();
        let Observed { at, fence, verdicts } = observed;
        if fence.is_none() {
            known
                .claims
                .retain(|claim| (claim.epoch, claim.term) == (at.epoch, at.term) || !sent.claims.contains(claim));
        }
        let is_lost = verdicts.contains(&Verdict::Lost);
        if !self.gates && fence.is_none() && is_lost {
            self.metrics.inc_history_losses();
            tracing::error!(
                namespace = self.namespace.as_str(),
                partition = self.partition,
                "the store has lost acknowledged changes; the service goes on, as `fast` allows"
            );
        }
        if known.fence.is_some() != fence.is_some() {
            self.note_fence(fence);
        }
        known.fence = fence;
        self.raise(&mut known, at);
    }

    /// Takes in a change that a reader of the events has seen.
    pub(crate) fn observe(&self, at: HistoryPoint) {
        let mut known = self.known();
        self.raise(&mut known, at);
    }

    fn raise(&self, known: &mut Known, at: HistoryPoint) {
        if at.term == Term::NONE || at.sequence == 0 {
            return;
        }
        let claims = &mut known.claims;
        match claims.iter_mut().find(|claim| (claim.epoch, claim.term) == (at.epoch, at.term)) {
            Some(claim) if claim.sequence >= at.sequence => return,
            Some(claim) => claim.sequence = at.sequence,
            None => {
                // One is kept free for the opening, see `opening_knowledge`.
                if claims.len() + 1 >= MAX_CLAIMS {
                    claims.remove(0);
                }
                claims.push(at);
            }
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports that the partition is fenced, or that it was settled.
    fn note_fence(&self, fence: Option<Fence>) {
        let (namespace, partition) = (self.namespace.as_str(), self.partition);
        match fence {
            Some(Fence { seen, kept, .. }) => {
                self.metrics.inc_history_losses();
                self.metrics.add_fenced(1);
                tracing::error!(
                    namespace,
                    partition,
                    seen_epoch = seen.epoch,
                    seen_term = seen.term.as_str(),
                    seen_sequence = seen.sequence,
                    kept_sequence = kept,
                    "the store has lost acknowledged changes: the partition is fenced until an operator settles it"
                );
            }
            None => {
                self.metrics.add_fenced(-1);
                tracing::info!(namespace, partition, "the partition was settled");
            }
        }
    }

    fn set_epoch(&self, epoch: u64) {
        let mut known = self.known();
        if known.epoch != epoch {
            known.epoch = epoch;
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A namespace that this server has opened in this life or an earlier one.
#[derive(Clone)]
struct KnownNamespace {
    config: NamespaceConfig,
    partitions: Vec<Arc<Witness>>,
}

/// A partition that is fenced.
#[derive(Clone, Debug)]
pub(crate) struct FencedPartition {
    pub(crate) namespace: NamespaceName,
    pub(crate) partition: u16,
    pub(crate) fence: Fence,
}

/// How the file was written last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) at: Option<SystemTime>,
    pub(crate) error: Option<String>,
}

/// What this server knows of all namespaces.
pub(crate) struct Witnesses {
    gates: bool,
    metrics: Arc<Metrics>,
    identity: Arc<Identity>,
    namespaces: Mutex<HashMap<NamespaceName, KnownNamespace>>,
    changes: Arc<AtomicU64>,
    folder: Option<StateDir>,
    written: Mutex<Written>,
    is_failing: AtomicBool,
}

impl Witnesses {
    /// What the file in this folder says; without a folder, nothing. `gates` says whether a loss gates a partition.
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

    fn read_entry(&self, entry: NamespaceEntry) -> Option<(NamespaceName, KnownNamespace)> {
        let name = NamespaceName::parse(entry.name).ok()?;
        let config = NamespaceConfig::decode(&from_hex(&entry.config)?).ok()?;
        let partition = |(partition, entry): (u16, PartitionEntry)| {
            let claim = |claim: ClaimEntry| {
                let term = Term::parse(claim.term.as_bytes())?;
                Some(HistoryPoint { epoch: claim.epoch, term, sequence: claim.sequence })
            };
            let claims = entry.claims.into_iter().map(claim).collect::<Option<_>>()?;
            Some(self.witness(&name, partition, entry.epoch, claims))
        };
        let partitions = (0..).zip(entry.partitions).map(partition).collect::<Option<_>>()?;
        Some((name, KnownNamespace { config, partitions }))
    }

    fn witness(&self, name: &NamespaceName, partition: u16, epoch: u64, claims: Vec<HistoryPoint>) -> Arc<Witness> {
        Arc::new(Witness {
            gates: self.gates,
            namespace: name.clone(),
            partition,
            known: Mutex::new(Known { epoch, claims, fence: None }),
            changes: Arc::clone(&self.changes),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// The store that this server knows.
    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The names of all namespaces that are known.
    pub(crate) fn names(&self) -> Vec<NamespaceName> {
        self.namespaces().keys().cloned().collect()
    }

    /// The config of a namespace as it was known last; `None` if this server does not know the namespace.
    pub(crate) fn config(&self, name: &NamespaceName) -> Option<NamespaceConfig> {
        self.namespaces().get(name).map(|known| known.config.clone())
    }

    /// What the opening of a partition brings along. The number of partitions never changes: one that this server does
    /// not know, in a namespace that it knows, has taken over SKUs of the others, so it gets the claims of the first.
    pub(crate) fn opening_knowledge(&self, name: &NamespaceName, partition: u16) -> Knowledge {
        let namespaces = self.namespaces();
        let partitions = namespaces.get(name).map(|known| known.partitions.as_slice()).unwrap_or_default();
        let witness = partitions.get(usize::from(partition)).or(partitions.first());
        witness.map_or_else(|| self.nothing(), |witness| witness.opening_knowledge())
    }

    /// The knowledge of a server that knows nothing.
    pub(crate) fn nothing(&self) -> Knowledge {
        Knowledge { gates: self.gates, claims: Vec::new() }
    }

    /// Notes a namespace as it was just opened; returns the witness of each partition.
    pub(crate) fn opened(&self, name: &NamespaceName, config: &NamespaceConfig, epochs: &[u64]) -> Vec<Arc<Witness>> {
        let mut namespaces = self.namespaces();
        let known = namespaces
            .entry(name.clone())
            .or_insert_with(|| KnownNamespace { config: config.clone(), partitions: Vec::new() });
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

    /// Partitions that are fenced as far as is known, up to [`MAX_LISTED`].
    pub(crate) fn fenced(&self) -> Vec<FencedPartition> {
        let namespaces = self.namespaces();
        let all = namespaces.values().flat_map(|known| &known.partitions);
        let fenced = all.filter_map(|witness| {
            let fence = witness.known().fence?;
            Some(FencedPartition { namespace: witness.namespace.clone(), partition: witness.partition, fence })
        });
        fenced.take(MAX_LISTED).collect()
    }

    /// The path of the file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.folder.as_ref().map(StateDir::path)
    }

    /// How the file was written last.
    pub(crate) fn written(&self) -> Written {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the file whenever something has changed, at most once a [`WRITE_INTERVAL`], and at the stop.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(WRITE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = 0;
        loop {
            let is_stopping = tokio::select! {
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let changes = self.changes.load(Ordering::Relaxed);
            if changes != written {
                let witnesses = Arc::clone(&self);
                // The disk may take its time.
                match tokio::task::spawn_blocking(move || witnesses.write()).await {
                    Ok(true) => written = changes,
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the task that writes the witness file failed"),
                }
            }
            if is_stopping {
                return;
            }
        }
    }

    /// Writes the file; returns false to try again later.
    fn write(&self) -> bool {
        let (Some(folder), Some(store_id)) = (&self.folder, self.identity.id()) else { return self.folder.is_none() };
        let result = folder.write(&self.document(store_id));
        self.note_written(folder.path(), &result);
        result.is_ok()
    }

    fn note_written(&self, path: &Path, result: &io::Result<()>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.error = result.as_ref().err().map(ToString::to_string);
        match result {
            Ok(()) => {
                written.at = Some(SystemTime::now());
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(path = %path.display(), "the witness file is written again");
                }
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(path = %path.display(), %error, "the witness file can't be written");
                }
            }
        }
    }

    fn document(&self, store_id: String) -> Document {
        let namespaces = self.namespaces();
        let partition = |witness: &Arc<Witness>| {
            let known = witness.known();
            let claim = |claim: &HistoryPoint| ClaimEntry {
                epoch: claim.epoch,
                term: claim.term.as_str().to_owned(),
                sequence: claim.sequence,
            };
            PartitionEntry { epoch: known.epoch, claims: known.claims.iter().map(claim).collect() }
        };
        let namespace = |(name, known): (&NamespaceName, &KnownNamespace)| NamespaceEntry {
            name: name.as_str().to_owned(),
            config: to_hex(&known.config.encode()),
            partitions: known.partitions.iter().map(partition).collect(),
        };
        let mut entries: Vec<_> = namespaces.iter().map(namespace).collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Document { version: FORMAT, checksum: String::new(), store_id, namespaces: entries }
    }

    fn namespaces(&self) -> MutexGuard<'_, HashMap<NamespaceName, KnownNamespace>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(gates: bool) -> Arc<Witness> {
        let witnesses = Witnesses::open(None, gates, Arc::new(Metrics::new())).unwrap();
        witnesses.witness(&NamespaceName::parse("sale".into()).unwrap(), 0, 7, Vec::new())
    }

    fn at(term: char, sequence: u64) -> HistoryPoint {
        HistoryPoint { epoch: 7, term: Term::parse(term.to_string().repeat(40).as_bytes()).unwrap(), sequence }
    }

    fn observed(at: HistoryPoint) -> Observed<'static> {
        Observed { at, fence: None, verdicts: &[] }
    }

    #[test]
    fn a_claim_is_kept_until_a_reply_of_a_later_term_confirms_it() {
        let witness = witness(true);
        let nothing = witness.knowledge();
        witness.confirm(&nothing, observed(at('a', 5)));
        let sent_early = witness.knowledge();
        // A reply of the next term, to a call that was sent before the claim grew.
        witness.confirm(&sent_early, observed(at('a', 9)));
        witness.confirm(&sent_early, observed(at('b', 10)));
        assert_eq!(witness.knowledge().claims, [at('a', 9), at('b', 10)]);
        let sent = witness.knowledge();
        witness.confirm(&sent, observed(at('b', 11)));
        assert_eq!(witness.knowledge().claims, [at('b', 11)]);
        // A reply that was late counts all the same.
        witness.confirm(&sent_early, observed(at('a', 12)));
        assert_eq!(witness.knowledge().claims, [at('b', 11), at('a', 12)]);
        witness.confirm(&nothing, observed(at('b', 3)));
        assert_eq!(witness.knowledge().claims, [at('b', 11), at('a', 12)], "a sequence never falls");
    }

    #[test]
    fn a_fenced_reply_confirms_nothing() {
        let witness = witness(true);
        witness.confirm(&witness.knowledge(), observed(at('a', 5)));
        let fence = Fence { noticed_at: crate::domain::Millis(1), seen: at('a', 5), kept: 3 };
        let sent = witness.knowledge();
        witness.confirm(&sent, Observed { at: at('b', 4), fence: Some(fence), verdicts: &[Verdict::Lost] });
        assert_eq!(witness.knowledge().claims, [at('a', 5), at('b', 4)]);
        let sent = witness.knowledge();
        witness.confirm(&sent, Observed { verdicts: &[Verdict::Settled], ..observed(at('b', 6)) });
        assert_eq!(witness.knowledge().claims, [at('b', 6)]);
    }

    #[test]
    fn the_opening_says_that_the_partition_exists() {
        let witness = witness(true);
        let exists = HistoryPoint { epoch: 7, term: Term::NONE, sequence: 0 };
        assert_eq!(witness.opening_knowledge().claims, [exists]);
        witness.confirm(&witness.knowledge(), observed(at('a', 5)));
        assert_eq!(witness.opening_knowledge().claims, [at('a', 5)]);
        witness.set_epoch(8);
        let exists = HistoryPoint { epoch: 8, ..exists };
        assert_eq!(witness.opening_knowledge().claims, [at('a', 5), exists]);
        for number in 0..100 {
            witness.observe(HistoryPoint { epoch: number, ..at('c', 1) });
        }
        assert!(witness.opening_knowledge().claims.len() <= MAX_CLAIMS);
    }

    #[test]
    fn what_is_known_outlives_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let (name, metrics) = (NamespaceName::parse("sale".into()).unwrap(), Arc::new(Metrics::new()));
        let config = crate::namespaces::Defaults::from(&crate::config::Config::default()).propose(Some(2));
        let open = || Witnesses::open(Some(folder.path()), true, Arc::clone(&metrics)).unwrap();
        {
            let witnesses = open();
            let partitions = witnesses.opened(&name, &config, &[7, 8]);
            partitions[0].confirm(&witnesses.nothing(), observed(at('a', 5)));
            assert!(!witnesses.write(), "the store is not known yet");
            witnesses.identity.set_id("0123456789abcdef0123456789abcdef");
            assert!(witnesses.write());
        }
        let witnesses = open();
        assert_eq!(witnesses.identity.id().as_deref(), Some("0123456789abcdef0123456789abcdef"));
        assert!(witnesses.config(&name) == Some(config));
        assert_eq!(witnesses.opening_knowledge(&name, 0).claims, [at('a', 5)]);
        let exists = HistoryPoint { epoch: 8, term: Term::NONE, sequence: 0 };
        assert_eq!(witnesses.opening_knowledge(&name, 1).claims, [exists]);
        assert!(witnesses.opening_knowledge(&NamespaceName::parse("other".into()).unwrap(), 0).claims.is_empty());
    }
}
