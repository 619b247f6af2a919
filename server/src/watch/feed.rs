//! The one reader of a namespace's events. Reads the streams of all its partitions on one connection of its
//! own, and hands what it reads to everybody: the table, and a ring of the last entries.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OnceCell, watch},
    time::{Instant, sleep},
};

use super::{
    Position, WatchError,
    ring::{Ring, RingReader},
    table::{MAX_GONE, Table},
};
use crate::{
    domain::{Happened, HistoryPoint, Knowledge, NamespaceName, Term, Verdict},
    namespaces::{Namespace, being_deleted},
    store::{
        Mode, Store,
        error::StoreError,
        events::{self, Entry},
        keys::PartitionKeys,
        lists::{self, Range},
        pool::Connection,
        wire::{Batch, PartitionState},
    },
    tasks::{Task, Tasks},
    witness::{Observed, Witness},
};

/// Entries that are held ready for streams of events, and their bytes, about; a stream that is further behind is cut off.
const RING: usize = 1_024;
const RING_BYTES: usize = 8 << 20;
/// Entries of a partition read at a time.
const READ: usize = 64;
/// Longest that one command waits for something to happen.
pub(super) const WAIT: Duration = Duration::from_millis(500);
/// SKUs read at a time, to fill the table.
const PAGE: usize = 1_000;
/// Pause before the store is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// Longest time between two looks at the state of the partitions, for what was lost.
const STATE_INTERVAL: Duration = Duration::from_secs(1);
/// For how long what was read last counts as up to date.
const FRESH: Duration = Duration::from_millis(1_500);

/// One entry of one partition.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) partition: u16,
    pub(crate) entry: Entry,
}

/// How far the reader is.
#[derive(Debug)]
struct Heard {
    position: Position,
    /// The term of each of these sequences.
    terms: Box<[Term]>,
    at: Instant,
    /// The first partition that has lost changes and is not settled.
    fenced: Option<u16>,
    /// It has lost its place and reads no more.
    lost: bool,
    /// The namespace was deleted.
    gone: bool,
}

/// What the reader of a namespace hands to all.
pub(super) struct Feed {
    name: NamespaceName,
    epochs: Box<[u64]>,
    keys: Box<[PartitionKeys]>,
    witnesses: Box<[Arc<Witness>]>,
    store: Arc<Store>,
    heard: watch::Sender<Heard>,
    /// Sent whenever some SKU's protection has changed, and when the place is lost.
    flips: watch::Sender<()>,
    ring: Arc<Ring<Arc<Told>>>,
    /// There once somebody has asked for it; loaded when `loaded` is set.
    table: Mutex<Option<Table>>,
    loaded: OnceCell<()>,
    /// SKUs that the table may keep, beside those that are gone.
    most_skus: usize,
    /// The table has become larger than that, and is not kept any more.
    is_too_large: AtomicBool,
}

impl Feed {
    /// A feed that begins with what happens from now on.
    pub(super) async fn open(namespace: &Namespace, store: Arc<Store>, most_skus: usize) -> Result<Self, WatchError> {
        let keys: Box<[_]> = namespace.partitions().map(|(_, keys)| keys).collect();
        let mut connection = store.connection().await?;
        let epochs = namespace.epochs.clone();
        let states = states(&mut connection, &keys, &epochs).await?;
        let (heard, _) = watch::channel(Heard {
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
            heard,
            flips: watch::channel(()).0,
            ring: Ring::new(RING, RING_BYTES),
            table: Mutex::new(None),
            loaded: OnceCell::new(),
            most_skus,
            is_too_large: AtomicBool::new(false),
        })
    }

    /// Whether it reads on, of the namespace as it is.
    pub(super) fn is_of(&self, namespace: &Namespace) -> bool {
        self.epochs == namespace.epochs && !self.is_lost()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.heard.borrow().lost
    }

    /// Why it reads no more, where it does not.
    pub(super) fn loss(&self) -> Option<WatchError> {
        let heard = self.heard.borrow();
        heard.lost.then_some(if heard.gone { WatchError::Gone } else { WatchError::Lost })
    }

    pub(super) fn partitions(&self) -> usize {
        self.keys.len()
    }

    /// Up to here everything has been handed on, or will be to who has subscribed before he asks.
    pub(super) fn position(&self) -> Position {
        self.heard.borrow().position.clone()
    }

    /// The same as places in the history of each partition.
    pub(super) fn claims(&self) -> Vec<HistoryPoint> {
        let heard = self.heard.borrow();
        self.claims_at(&heard.position, &heard.terms)
    }

    /// These sequences, written by these terms.
    pub(super) fn claims_at(&self, position: &Position, terms: &[Term]) -> Vec<HistoryPoint> {
        let places = position.0.iter().zip(terms).zip(&self.epochs);
        places.map(|((&sequence, &term), &epoch)| HistoryPoint { epoch, term, sequence }).collect()
    }

    /// The first partition that has lost changes and is not settled.
    pub(super) fn fenced(&self) -> Option<u16> {
        self.heard.borrow().fenced
    }

    /// The partitions of whose history these claims, one a partition, are no part. A lost one fences its partition.
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
                // The partition is gone, or another one has taken its place.
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

    /// Whether the store was heard of a moment ago.
    pub(super) fn is_fresh(&self) -> bool {
        self.heard.borrow().at.elapsed() < FRESH
    }

    /// The entries from now on.
    pub(super) fn subscribe(&self) -> RingReader<Arc<Told>> {
        self.ring.subscribe()
    }

    /// Wakes whenever something was read, or nothing was for a while.
    pub(super) fn listen(&self) -> Listener {
        Listener { heard: self.heard.subscribe(), flips: self.flips.subscribe() }
    }

    /// So many entries of the store itself at most, for a stream that is further behind than the ring.
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

    /// Where the store itself is.
    pub(super) async fn ask(&self) -> Result<Position, WatchError> {
        let mut connection = self.store.connection().await?;
        Ok(position_of(&states(&mut connection, &self.keys, &self.epochs).await?))
    }

    /// Looks something up in the table, which [`Feed::load`] has made.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Table) -> T) -> Result<T, WatchError> {
        self.check_size()?;
        self.table().as_ref().map(look).ok_or(WatchError::Lost)
    }

    fn check_size(&self) -> Result<(), WatchError> {
        if self.is_too_large.load(Ordering::Relaxed) { Err(WatchError::TooLarge(self.most_skus)) } else { Ok(()) }
    }

    /// Drops the table if it is larger than it may be.
    fn keep_size(&self, table: &mut Option<Table>) {
        if table.as_ref().is_some_and(|table| table.len() > self.most_skus + MAX_GONE) {
            *table = None;
            self.is_too_large.store(true, Ordering::Relaxed);
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Option<Table>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the table, if nobody has yet: from the lists, while the reader keeps it up to date.
    pub(super) async fn load(&self) -> Result<(), WatchError> {
        self.check_size()?;
        let load = async {
            let partitions: Vec<_> = self.keys.iter().cloned().zip(0..).map(|(keys, n)| (n, keys)).collect();
            let mut connection = self.store.connection().await?;
            // Before anything is kept of a namespace that is too large.
            if lists::count_stock(&mut connection, &partitions).await? > self.most_skus as u64 {
                return Err(WatchError::TooLarge(self.most_skus));
            }
            {
                // Not between two steps of the reader, which holds this lock while it moves on.
                let mut table = self.table();
                *table = Some(Table::new(self.position()));
            }
            let mut from = None;
            loop {
                let page = lists::stock(&mut connection, &partitions, Range { size: PAGE, from }).await?;
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

    /// Takes in what was read; false: something is missing.
    fn take(&self, partition: usize, entries: Vec<Entry>) -> bool {
        let mut flipped = false;
        let mut told = Vec::with_capacity(entries.len());
        {
            let mut table = self.table();
            let (mut at, mut term) = {
                let heard = self.heard.borrow();
                (heard.position.0[partition], heard.terms[partition])
            };
            for entry in entries {
                if entry.last <= at {
                    continue;
                }
                if entry.first != at {
                    return false;
                }
                // The partition can be made again, with the loss as its next event, before anybody sees that it is gone.
                let loses_place = |run: &events::Run| matches!(run.happened, Happened::HistoryLost(lost, kept) if lost.term == term && kept < at);
                if entry.runs.iter().any(loses_place) {
                    return false;
                }
                if let Some((its, first)) = entry.term {
                    // Another term goes on from here only if it begins here: else it has replaced what was read.
                    if its != term && first != entry.first + 1 {
                        return false;
                    }
                    term = its;
                }
                at = entry.last;
                if let Some(table) = table.as_mut() {
                    flipped |= table.apply(partition as u16, entry.last, &entry.stock);
                }
                told.push(Arc::new(Told { partition: partition as u16, entry }));
            }
            self.keep_size(&mut table);
            // Before the ring: who subscribes and then asks for the position misses nothing.
            self.heard.send_modify(|heard| {
                heard.position.0[partition] = at;
                heard.terms[partition] = term;
                heard.at = Instant::now();
            });
            self.witnesses[partition].observe(HistoryPoint { epoch: self.epochs[partition], term, sequence: at });
        }
        for told in told {
            let bytes = told.entry.memory();
            self.ring.push(told, bytes);
        }
        if flipped {
            self.flips.send_replace(());
        }
        true
    }
}

/// Waits for news.
pub(super) struct Listener {
    heard: watch::Receiver<Heard>,
    flips: watch::Receiver<()>,
}

impl Listener {
    /// Until something was read.
    pub(super) async fn anything(&mut self) {
        // The feed outlives who listens to it.
        let _ = self.heard.changed().await;
    }

    /// Until the protection of some SKU has changed, or the feed is lost.
    pub(super) async fn protection(&mut self) {
        let _ = self.flips.changed().await;
    }
}

/// Where each partition stands, if they are still those that they were.
async fn states(
    connection: &mut Connection,
    keys: &[PartitionKeys],
    epochs: &[u64],
) -> Result<Vec<PartitionState>, WatchError> {
    let mut states = Vec::with_capacity(keys.len());
    for (keys, &epoch) in keys.iter().zip(epochs) {
        match events::state(connection, keys).await? {
            Some(state) if state.at.epoch == epoch => states.push(state),
            Some(_) => return Err(WatchError::Lost),
            None => {
                return Err(match events::deletion(connection, keys).await? {
                    // The streams go on if it is given up.
                    Some(false) => being_deleted().into(),
                    Some(true) => WatchError::Gone,
                    None => WatchError::Lost,
                });
            }
        }
    }
    Ok(states)
}

fn position_of(states: &[PartitionState]) -> Position {
    Position(states.iter().map(|state| state.at.sequence).collect())
}

fn fenced_in(states: &[PartitionState]) -> Option<u16> {
    (0..).zip(states).find(|(_, state)| state.is_fenced).map(|(partition, _)| partition)
}

/// Reads until nobody watches any more.
pub(super) fn run(feed: &Arc<Feed>, tasks: &Tasks) {
    let (feed, store) = (Arc::downgrade(feed), Arc::clone(&feed.store));
    let reader = Reader(feed);
    tasks.spawn(Task::FeedReader, async move {
        while let Err(error) = follow(&reader.0, &store).await {
            match error {
                WatchError::Store(error) => {
                    // A missing permission is the health check's to log: once, not at each attempt.
                    if !matches!(error, StoreError::Denied { .. }) {
                        tracing::warn!(%error, "watching a namespace has to wait for the store");
                    }
                    sleep(AGAIN).await;
                }
                // The drop of the reader ends the feed.
                WatchError::Gone => {
                    if let Some(feed) = reader.0.upgrade() {
                        feed.heard.send_modify(|heard| heard.gone = true);
                    }
                    return;
                }
                _ => return,
            }
        }
    });
}

/// The reader of a feed, which is lost when the reader ends, whatever ends it: its streams end, and the next one starts
/// a new feed.
struct Reader(Weak<Feed>);

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(feed) = self.0.upgrade() {
            tracing::warn!(namespace = feed.name.as_str(), "the watch of a namespace has lost its place");
            feed.heard.send_modify(|heard| heard.lost = true);
            feed.flips.send_replace(());
        }
    }
}

/// Reads on one connection for as long as it goes well; `Ok` when nobody watches any more.
async fn follow(feed: &Weak<Feed>, store: &Store) -> Result<(), WatchError> {
    let mut connection = store.connection().await?;
    let mut checked: Option<Instant> = None;
    loop {
        let Some((places, epochs)) = feed.upgrade().map(|feed| {
            let position = feed.position();
            let places: Vec<_> = feed.keys.iter().cloned().zip(position.0.iter().copied()).collect();
            (places, feed.epochs.clone())
        }) else {
            return Ok(());
        };
        let read = events::wait(&mut connection, &places, WAIT, READ).await?;
        let is_idle = read.is_empty();
        // The stream may also be silent, or go on, because it is another one.
        let states = if is_idle || checked.is_none_or(|at| at.elapsed() >= STATE_INTERVAL) {
            checked = Some(Instant::now());
            let keys: Vec<_> = places.into_iter().map(|(keys, _)| keys).collect();
            Some(states(&mut connection, &keys, &epochs).await?)
        } else {
            None
        };
        let Some(feed) = feed.upgrade() else { return Ok(()) };
        for (partition, entries) in read {
            if !feed.take(partition, entries) {
                return Err(WatchError::Lost);
            }
        }
        if let Some(states) = states {
            feed.compare(&states, is_idle)?;
        }
    }
}

impl Feed {
    /// Compares what was read with where the partitions stand: a partition that is behind has lost something.
    fn compare(&self, states: &[PartitionState], is_idle: bool) -> Result<(), WatchError> {
        let fenced = fenced_in(states);
        let is_lost = {
            let heard = self.heard.borrow();
            let places = heard.position.0.iter().zip(&heard.terms).zip(states);
            places.into_iter().any(|((&sequence, &term), state)| {
                // What was read since the state may be ahead of it, but not while nothing was read.
                let is_behind = is_idle && state.at.sequence < sequence;
                is_behind || state.at.sequence == sequence && state.at.term != term
            })
        };
        if is_lost {
            return Err(WatchError::Lost);
        }
        let is_new = self.heard.borrow().fenced != fenced;
        if is_idle || is_new {
            self.heard.send_modify(|heard| {
                heard.fenced = fenced;
                if is_idle {
                    heard.at = Instant::now();
                }
            });
        }
        if is_new {
            self.flips.send_replace(());
        }
        Ok(())
    }
}
