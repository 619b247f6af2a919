//! The feed of one namespace: what its reader publishes to all streams. A table of all SKUs, a
//! backlog of the last entries, and the progress of the reader. Uses the store.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OnceCell, watch},
    time::Instant,
};

use super::{
    Position, WatchError,
    backlog::{Backlog, BacklogReader},
    reader::{fenced_in, position_of, states},
    table::{MAX_GONE, Table},
};
use crate::{
    domain::{HistoryPoint, Knowledge, NamespaceName, Term, Verdict},
    namespaces::Namespace,
    store::{
        Mode, Store,
        error::StoreError,
        events::{self, Entry},
        keys::PartitionKeys,
        lists::{self, Range},
        wire::Batch,
    },
    witness::{Observed, Witness},
};

/// Entries of the backlog, and about how many bytes they may take. A stream that is further behind
/// is ended.
const BACKLOG_ENTRIES: usize = 1_024;
const BACKLOG_BYTES: usize = 8 << 20;
/// SKUs of one read that fills the table.
const LOAD_PAGE: usize = 1_000;
/// How long the last read counts as up to date.
const FRESHNESS: Duration = Duration::from_millis(1_500);

/// One entry of one partition.
#[derive(Debug)]
pub(crate) struct PartitionEntry {
    pub(crate) partition: u16,
    pub(crate) entry: Entry,
}

/// The progress of the reader.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) position: Position,
    /// The term of each of these sequences.
    pub(super) terms: Box<[Term]>,
    pub(super) at: Instant,
    /// The first partition that has lost changes and is not settled.
    pub(super) fenced: Option<u16>,
    /// The reader has ended.
    pub(super) lost: bool,
    /// The namespace was deleted.
    pub(super) gone: bool,
}

/// Shared by the reader of a namespace and its streams.
pub(super) struct Feed {
    pub(super) name: NamespaceName,
    pub(super) epochs: Box<[u64]>,
    pub(super) keys: Box<[PartitionKeys]>,
    pub(super) witnesses: Box<[Arc<Witness>]>,
    pub(super) store: Arc<Store>,
    pub(super) progress: watch::Sender<Progress>,
    /// Sent whenever the protection of a SKU changes, and when the feed is lost.
    pub(super) protection_changed: watch::Sender<()>,
    pub(super) backlog: Arc<Backlog<Arc<PartitionEntry>>>,
    /// Created for the first stream that needs it; complete when `loaded` is set.
    table: Mutex<Option<Table>>,
    loaded: OnceCell<()>,
    /// SKUs that the table may keep, not counting deleted ones.
    max_skus: usize,
    /// The table grew beyond that and was dropped.
    is_too_large: AtomicBool,
}

impl Feed {
    /// A feed of the events from now on.
    pub(super) async fn open(namespace: &Namespace, store: Arc<Store>, max_skus: usize) -> Result<Self, WatchError> {
        let keys: Box<[_]> = namespace.partitions().map(|(_, keys)| keys).collect();
        let mut connection = store.connection().await?;
        let epochs = namespace.epochs.clone();
        let states = states(&mut connection, &keys, &epochs).await?;
        let (progress, _) = watch::channel(Progress {
            position: position_of(&states),
            terms: states.iter().map(|state| state.at.term).collect(),
            at: Instant::now(),
            fenced: fenced_in(&states),
            lost: false,
            gone: false,
        });
        Ok(Self {
            name: namespace.name.clone(),
            epochs,
            keys,
            witnesses: namespace.witnesses.clone(),
            store,
            progress,
            protection_changed: watch::channel(()).0,
            backlog: Backlog::new(BACKLOG_ENTRIES, BACKLOG_BYTES),
            table: Mutex::new(None),
            loaded: OnceCell::new(),
            max_skus,
            is_too_large: AtomicBool::new(false),
        })
    }

    /// Whether the feed is live, and of this instance of the namespace.
    pub(super) fn is_of(&self, namespace: &Namespace) -> bool {
        self.epochs == namespace.epochs && !self.is_lost()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.progress.borrow().lost
    }

    /// Why the reader has ended, if it has.
    pub(super) fn loss(&self) -> Option<WatchError> {
        let progress = self.progress.borrow();
        progress.lost.then_some(if progress.gone { WatchError::Gone } else { WatchError::Lost })
    }

    pub(super) fn partitions(&self) -> usize {
        self.keys.len()
    }

    /// Everything up to this position has been published, or will be delivered to streams that
    /// subscribed before this call.
    pub(super) fn position(&self) -> Position {
        self.progress.borrow().position.clone()
    }

    /// The same as points in the history of each partition.
    pub(super) fn claims(&self) -> Vec<HistoryPoint> {
        let progress = self.progress.borrow();
        self.claims_at(&progress.position, &progress.terms)
    }

    /// These sequences, written by these terms.
    pub(super) fn claims_at(&self, position: &Position, terms: &[Term]) -> Vec<HistoryPoint> {
        let places = position.0.iter().zip(terms).zip(&self.epochs);
        places.map(|((&sequence, &term), &epoch)| HistoryPoint { epoch, term, sequence }).collect()
    }

    /// The first partition that has lost changes and is not settled.
    pub(super) fn fenced(&self) -> Option<u16> {
        self.progress.borrow().fenced
    }

    /// The partitions whose history does not contain their claim; there is one claim for each
    /// partition. A claim that was lost fences its partition.
    pub(super) async fn refuted(&self, claims: &[HistoryPoint]) -> Result<Vec<u16>, WatchError> {
        let mut refuted = Vec::new();
        for (partition, (keys, claim)) in (0..).zip(self.keys.iter().zip(claims)) {
            if claim.term == Term::NONE {
                continue;
            }
            let at = usize::from(partition);
            let knowledge = Knowledge { claims: vec![*claim], ..self.witnesses[at].knowledge() };
            let batch = Batch::new([], Duration::ZERO);
            let applied = self.store.apply(keys, self.epochs[at], &knowledge, &batch, Mode::Resolving).await;
            let reply = match applied {
                Ok((reply, _)) => reply,
                // The partition was deleted or replaced.
                Err(StoreError::Closed) => {
                    refuted.push(partition);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let reply = batch.decode(&reply, partition, Vec::new()).map_err(StoreError::from)?;
            let at_end = HistoryPoint { epoch: self.epochs[at], term: reply.term, sequence: reply.sequence };
            let observed = Observed { at: at_end, fence: reply.fence, verdicts: &reply.verdicts };
            self.witnesses[at].confirm(&Knowledge { claims: Vec::new(), ..knowledge }, observed);
            if reply.verdicts.iter().any(|verdict| *verdict != Verdict::Part) {
                refuted.push(partition);
            }
        }
        Ok(refuted)
    }

    /// Whether the last read of the store is recent.
    pub(super) fn is_fresh(&self) -> bool {
        self.progress.borrow().at.elapsed() < FRESHNESS
    }

    /// The entries that are published from now on.
    pub(super) fn subscribe(&self) -> BacklogReader<Arc<PartitionEntry>> {
        self.backlog.subscribe()
    }

    /// A listener that wakes when the reader makes progress.
    pub(super) fn listen(&self) -> Listener {
        Listener { progress: self.progress.subscribe(), protection_changed: self.protection_changed.subscribe() }
    }

    /// Reads at most `count` entries from the store, for a stream that is behind the backlog.
    pub(super) async fn read(&self, partition: u16, after: u64, count: usize) -> Result<Vec<Entry>, WatchError> {
        let mut connection = self.store.connection().await?;
        Ok(events::read(&mut connection, &self.keys[usize::from(partition)], after, None, count).await?)
    }

    /// The sequence before the oldest entry that is kept, if one is.
    pub(super) async fn read_first(&self, partition: u16) -> Result<Option<u64>, WatchError> {
        let mut connection = self.store.connection().await?;
        let entries = events::read(&mut connection, &self.keys[usize::from(partition)], 0, None, 1).await?;
        Ok(entries.first().map(|entry| entry.first))
    }

    /// The position of the store.
    pub(super) async fn store_position(&self) -> Result<Position, WatchError> {
        let mut connection = self.store.connection().await?;
        Ok(position_of(&states(&mut connection, &self.keys, &self.epochs).await?))
    }

    /// Queries the table, which [`Feed::load`] fills.
    pub(super) fn query<T>(&self, query: impl FnOnce(&Table) -> T) -> Result<T, WatchError> {
        self.check_size()?;
        self.table().as_ref().map(query).ok_or(WatchError::Lost)
    }

    fn check_size(&self) -> Result<(), WatchError> {
        if self.is_too_large.load(Ordering::Relaxed) { Err(WatchError::TooLarge(self.max_skus)) } else { Ok(()) }
    }

    /// Drops the table if it is too large.
    pub(super) fn keep_size(&self, table: &mut Option<Table>) {
        if table.as_ref().is_some_and(|table| table.len() > self.max_skus + MAX_GONE) {
            *table = None;
            self.is_too_large.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Option<Table>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the table once, from the lists, while the reader keeps it up to date.
    pub(super) async fn load(&self) -> Result<(), WatchError> {
        self.check_size()?;
        let load = async {
            let partitions: Vec<_> = self.keys.iter().cloned().zip(0..).map(|(keys, n)| (n, keys)).collect();
            let mut connection = self.store.connection().await?;
            // Before progress is kept of a namespace that is too large.
            if lists::count_stock(&mut connection, &partitions).await? > self.max_skus as u64 {
                return Err(WatchError::TooLarge(self.max_skus));
            }
            {
                // The reader holds this lock while it publishes, so the position fits the table.
                let mut table = self.table();
                *table = Some(Table::new(self.position()));
            }
            let mut from = None;
            loop {
                let page = lists::stock(&mut connection, &partitions, Range { size: LOAD_PAGE, from }).await?;
                let mut table = self.table();
                if let Some(table) = table.as_mut() {
                    for (sku, stock) in page.items {
                        table.load(sku.partition(partitions.len() as u16), sku, stock);
                    }
                }
                self.keep_size(&mut table);
                drop(table);
                self.check_size()?;
                if page.next.is_none() {
                    return Ok(());
                }
                from = page.next;
            }
        };
        self.loaded.get_or_try_init(|| load).await.copied()
    }
}

/// Waits for the reader.
pub(super) struct Listener {
    progress: watch::Receiver<Progress>,
    protection_changed: watch::Receiver<()>,
}

impl Listener {
    /// Until the reader makes progress.
    pub(super) async fn progress(&mut self) {
        // The feed outlives its listeners.
        let _ = self.progress.changed().await;
    }

    /// Until the protection of a SKU changes, or the feed is lost.
    pub(super) async fn protection(&mut self) {
        let _ = self.protection_changed.changed().await;
    }
}
