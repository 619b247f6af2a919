//! A stream of all events from a position on: from the store while it is far behind, then from the
//! backlog.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::{Instant, timeout_at};

use super::{
    Hub, PROGRESS_INTERVAL, Position, Reading, WatchError, Watcher,
    backlog::{BacklogReader, Overtaken},
    feed::{Feed, Listener},
};

pub(crate) use super::feed::PartitionEntry;
use crate::{
    domain::{HistoryPoint, Term},
    namespaces::Namespace,
};

/// Most memory, in bytes, of the entries that a stream has read from the store and not sent. One
/// entry may be larger.
const READ_BYTES: usize = 32 * 1_024;
/// Entries of the first read, and most of one read. An entry has up to 512 changes.
const READ_COUNT: (usize, usize) = (4, 64);

/// One stream.
pub(crate) struct EventWatch {
    watcher: Watcher,
    listener: Listener,
    /// The stream has sent everything up to this position, which these terms wrote.
    after: Position,
    terms: Box<[Term]>,
    /// Read from the store, and not sent yet.
    read: VecDeque<Arc<PartitionEntry>>,
    /// Entries of the next read.
    count: usize,
    /// The read in flight.
    reading: Option<Reading<CatchUp>>,
    /// The check in flight whether the position of this stream was lost.
    refuting: Option<Reading<Vec<u16>>>,
    /// The backlog, once the stream has caught up.
    backlog: Option<BacklogReader<Arc<PartitionEntry>>>,
    /// When the stream last sent something.
    last: Option<Instant>,
}

/// Where a stream begins.
#[derive(Debug)]
pub(crate) enum Start {
    Now,
    Oldest,
    Behind(Vec<HistoryPoint>),
}

/// An item of a stream.
#[derive(Debug)]
pub(crate) enum Item {
    /// An entry; only its changes after this sequence are new.
    Entry(Arc<PartitionEntry>, u64),
    /// Everything up to now has been sent.
    UpToDate,
}

impl EventWatch {
    pub(crate) async fn open(hub: &Hub, namespace: &Namespace, start: Start) -> Result<Self, WatchError> {
        let watcher = hub.watcher(namespace).await?;
        let feed = &watcher.feed;
        let mut terms: Box<[Term]> = feed.claims().into_iter().map(|claim| claim.term).collect();
        let after = match start {
            Start::Now => feed.position(),
            Start::Oldest => {
                // A partition without entries starts from now.
                let mut oldest = feed.position();
                let mut firsts = watcher.read(async |feed| {
                    let mut firsts = Vec::new();
                    for partition in 0..feed.partitions() as u16 {
                        firsts.push(feed.read_first(partition).await?);
                    }
                    Ok(firsts)
                });
                for ((after, term), first) in oldest.0.iter_mut().zip(&mut terms).zip(firsts.result().await?) {
                    if let Some(first) = first {
                        *after = first;
                        // The term of the entry before it is not known.
                        *term = Term::NONE;
                    }
                }
                oldest
            }
            Start::Behind(claims) => {
                let position = Position(claims.iter().map(|claim| claim.sequence).collect());
                terms = claims.iter().map(|claim| claim.term).collect();
                let sequences = position.clone();
                let mut checked = watcher.read(async move |feed| {
                    let refuted = feed.refuted(&claims).await?;
                    if !refuted.is_empty() {
                        return Err(WatchError::Compacted(refuted));
                    }
                    // A store that is behind the token has lost changes.
                    if !feed.position().covers(&sequences.0) && !feed.store_position().await?.covers(&sequences.0) {
                        return Err(WatchError::Compacted(Vec::new()));
                    }
                    Ok(())
                });
                checked.result().await?;
                position
            }
        };
        let mut batch = CatchUp { read: VecDeque::new(), count: READ_COUNT.0 };
        if !after.covers(&feed.position().0) {
            let after = after.clone();
            batch = watcher.read(async move |feed| read_behind(&feed, &after, READ_COUNT.0).await).result().await?;
        }
        let CatchUp { read, count } = batch;
        let listener = watcher.feed.listen();
        let (reading, refuting) = (None, None);
        Ok(Self { watcher, listener, after, terms, read, count, reading, refuting, backlog: None, last: None })
    }

    /// Everything up to these points in the history of each partition has been sent.
    pub(crate) fn claims(&self) -> Vec<HistoryPoint> {
        self.watcher.feed.claims_at(&self.after, &self.terms)
    }

    /// The next item. If the reader has lost its position, the store decides whether the stream has
    /// lost it too.
    pub(crate) async fn next(&mut self) -> Result<Item, WatchError> {
        if self.refuting.is_none() {
            match self.next_entry().await {
                Err(WatchError::Lost) => {}
                next => return next,
            }
        }
        if let Some(WatchError::Gone) = self.watcher.feed.loss() {
            return Err(WatchError::Gone);
        }
        let claims = self.claims();
        let refuting =
            self.refuting.get_or_insert_with(|| self.watcher.read(async move |feed| feed.refuted(&claims).await));
        let refuted = refuting.result().await.unwrap_or_default();
        Err(if refuted.is_empty() { WatchError::Lost } else { WatchError::Compacted(refuted) })
    }

    async fn next_entry(&mut self) -> Result<Item, WatchError> {
        loop {
            if let Some(entry) = self.read.pop_front() {
                if let Some(item) = self.accept(entry)? {
                    return Ok(item);
                }
            } else if self.backlog.is_none() {
                self.catch_up().await?;
            } else if let Some(item) = self.next_live().await? {
                return Ok(item);
            }
        }
    }

    /// Reads the store, or subscribes to the backlog if that is near.
    async fn catch_up(&mut self) -> Result<(), WatchError> {
        if let Some(reading) = &mut self.reading {
            let batch = reading.result().await;
            self.reading = None;
            CatchUp { read: self.read, count: self.count } = batch?;
            return Ok(());
        }
        let backlog = self.watcher.feed.subscribe();
        // Later entries arrive through the backlog.
        if self.after.covers(&self.watcher.feed.position().0) {
            self.backlog = Some(backlog);
            return Ok(());
        }
        if self.watcher.feed.is_lost() {
            return Err(WatchError::Lost);
        }
        let (after, count) = (self.after.clone(), self.count);
        self.reading = Some(self.watcher.read(async move |feed| read_behind(&feed, &after, count).await));
        Ok(())
    }

    /// The next item of the backlog; `None` if the caller has to retry.
    async fn next_live(&mut self) -> Result<Option<Item>, WatchError> {
        let Some(backlog) = self.backlog.as_mut() else { return Ok(None) };
        // A new stream gets its position at once.
        let progress = self.last.map_or_else(Instant::now, |last| last + PROGRESS_INTERVAL);
        tokio::select! {
            biased;
            entry = backlog.next() => match entry {
                Ok(entry) => self.accept(entry),
                Err(Overtaken) => {
                    self.watcher.metrics.inc_cut_off();
                    Err(WatchError::TooSlow)
                }
            },
            _ = timeout_at(progress, self.listener.progress()) => {
                if self.watcher.feed.is_lost() {
                    return Err(WatchError::Lost);
                }
                if Instant::now() < progress {
                    return Ok(None);
                }
                let is_fresh = self.watcher.feed.is_fresh();
                self.last = Some(Instant::now());
                Ok(is_fresh.then_some(Item::UpToDate))
            }
        }
    }

    fn accept(&mut self, entry: Arc<PartitionEntry>) -> Result<Option<Item>, WatchError> {
        let after = &mut self.after.0[usize::from(entry.partition)];
        let before = *after;
        if entry.entry.last <= before {
            return Ok(None);
        }
        if entry.entry.first > before {
            return Err(WatchError::Compacted(Vec::new()));
        }
        *after = entry.entry.last;
        if let Some((term, first)) = entry.entry.term {
            let its = &mut self.terms[usize::from(entry.partition)];
            if *its != term && *its != Term::NONE && first <= before {
                return Err(WatchError::Compacted(vec![entry.partition]));
            }
            *its = term;
        }
        self.last = Some(Instant::now());
        Ok(Some(Item::Entry(entry, before)))
    }
}

/// Entries of the store, and the size of the next read.
struct CatchUp {
    read: VecDeque<Arc<PartitionEntry>>,
    count: usize,
}

/// Entries of the store after a position, of the first partition that has some.
async fn read_behind(feed: &Feed, after: &Position, count: usize) -> Result<CatchUp, WatchError> {
    let position = feed.position();
    for (partition, (&after, &is)) in (0..).zip(after.0.iter().zip(&position.0)) {
        if after < is {
            let mut entries = feed.read(partition, after, count).await?;
            // The reader has read them, so they were trimmed.
            if entries.is_empty() {
                return Err(WatchError::Compacted(Vec::new()));
            }
            let mut memory = 0;
            let fitting = entries.iter().take_while(|entry| {
                memory += entry.memory();
                memory <= READ_BYTES
            });
            let fitting = fitting.count().max(1);
            let count = if memory > READ_BYTES { fitting } else { (count * 2).min(READ_COUNT.1) };
            entries.truncate(fitting);
            let read = entries.into_iter().map(|entry| Arc::new(PartitionEntry { partition, entry })).collect();
            return Ok(CatchUp { read, count });
        }
    }
    Ok(CatchUp { read: VecDeque::new(), count })
}
