//! A stream of every event from a position on: from the store while it is far behind, then from the ring.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::{Instant, timeout_at};

use super::{
    Hub, PROGRESS, Position, Reading, WatchError, Watcher,
    feed::{Feed, Listener},
    ring::{Overtaken, RingReader},
};

pub(crate) use super::feed::Told;
use crate::{
    domain::{HistoryPoint, Term},
    namespaces::Namespace,
};

/// Bytes of memory that entries may take which a stream has read from the store and not handed on, beyond one entry.
const READ_BYTES: usize = 32 * 1_024;
/// Entries that one read asks for: the first, and most. An entry has up to 512 changes.
const READ_COUNT: (usize, usize) = (4, 64);

/// One stream.
pub(crate) struct ChangesWatch {
    watcher: Watcher,
    listener: Listener,
    /// Up to here everything has been handed on, which these terms have written.
    after: Position,
    terms: Box<[Term]>,
    /// Read from the store, and not handed on yet.
    read: VecDeque<Arc<Told>>,
    /// Entries that the next read asks for.
    count: usize,
    /// The read of the store that is under way.
    reading: Option<Reading<Batch>>,
    /// The question to the store whether this stream has lost its place.
    refuting: Option<Reading<Vec<u16>>>,
    /// The ring, once the stream is near enough.
    ring: Option<RingReader<Arc<Told>>>,
    /// When something was handed on last.
    last: Option<Instant>,
}

/// Where a stream begins.
#[derive(Debug)]
pub(crate) enum Start {
    Now,
    Oldest,
    Behind(Vec<HistoryPoint>),
}

/// What a stream says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// An entry, of which only what is behind this sequence is new.
    Entry(Arc<Told>, u64),
    /// Everything up to now has been told.
    Nothing,
}

impl ChangesWatch {
    pub(crate) async fn open(hub: &Hub, namespace: &Namespace, start: Start) -> Result<Self, WatchError> {
        let watcher = hub.watcher(namespace).await?;
        let feed = &watcher.feed;
        let mut terms: Box<[Term]> = feed.claims().into_iter().map(|claim| claim.term).collect();
        let after = match start {
            Start::Now => feed.position(),
            Start::Oldest => {
                // Where nothing is kept, from now on.
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
                        // Which term wrote what came before is not known.
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
                    // A store that is behind the token has lost what the token stands for.
                    if !feed.position().covers(&sequences.0) && !feed.ask().await?.covers(&sequences.0) {
                        return Err(WatchError::Compacted(Vec::new()));
                    }
                    Ok(())
                });
                checked.result().await?;
                position
            }
        };
        let mut batch = Batch { read: VecDeque::new(), count: READ_COUNT.0 };
        if !after.covers(&feed.position().0) {
            let after = after.clone();
            batch = watcher.read(async move |feed| behind(&feed, &after, READ_COUNT.0).await).result().await?;
        }
        let Batch { read, count } = batch;
        let listener = watcher.feed.listen();
        let (reading, refuting) = (None, None);
        Ok(Self { watcher, listener, after, terms, read, count, reading, refuting, ring: None, last: None })
    }

    /// Up to here everything has been handed on: a place in the history of each partition.
    pub(crate) fn claims(&self) -> Vec<HistoryPoint> {
        self.watcher.feed.claims_at(&self.after, &self.terms)
    }

    /// The next entry, as soon as there is one, or that there is none. Where the reader has lost its place, the store
    /// decides whether the stream has lost it too.
    pub(crate) async fn next(&mut self) -> Result<Heard, WatchError> {
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

    async fn next_entry(&mut self) -> Result<Heard, WatchError> {
        loop {
            if let Some(told) = self.read.pop_front() {
                if let Some(heard) = self.hand_on(told)? {
                    return Ok(heard);
                }
            } else if self.ring.is_none() {
                self.catch_up().await?;
            } else if let Some(heard) = self.live().await? {
                return Ok(heard);
            }
        }
    }

    /// Reads on from the store, or joins the ring if that is near.
    async fn catch_up(&mut self) -> Result<(), WatchError> {
        if let Some(reading) = &mut self.reading {
            let batch = reading.result().await;
            self.reading = None;
            Batch { read: self.read, count: self.count } = batch?;
            return Ok(());
        }
        let ring = self.watcher.feed.subscribe();
        // Whatever is not up to here comes by the ring.
        if self.after.covers(&self.watcher.feed.position().0) {
            self.ring = Some(ring);
            return Ok(());
        }
        if self.watcher.feed.is_lost() {
            return Err(WatchError::Lost);
        }
        let (after, count) = (self.after.clone(), self.count);
        self.reading = Some(self.watcher.read(async move |feed| behind(&feed, &after, count).await));
        Ok(())
    }

    /// The next of the ring; nothing if it has to be tried again.
    async fn live(&mut self) -> Result<Option<Heard>, WatchError> {
        let Some(ring) = self.ring.as_mut() else { return Ok(None) };
        // A new stream is told at once where it stands.
        let progress = self.last.map_or_else(Instant::now, |last| last + PROGRESS);
        tokio::select! {
            biased;
            told = ring.next() => match told {
                Ok(told) => self.hand_on(told),
                Err(Overtaken) => {
                    self.watcher.metrics.inc_cut_off();
                    Err(WatchError::TooSlow)
                }
            },
            _ = timeout_at(progress, self.listener.anything()) => {
                if self.watcher.feed.is_lost() {
                    return Err(WatchError::Lost);
                }
                if Instant::now() < progress {
                    return Ok(None);
                }
                let is_fresh = self.watcher.feed.is_fresh();
                self.last = Some(Instant::now());
                Ok(is_fresh.then_some(Heard::Nothing))
            }
        }
    }

    fn hand_on(&mut self, told: Arc<Told>) -> Result<Option<Heard>, WatchError> {
        let after = &mut self.after.0[usize::from(told.partition)];
        let before = *after;
        if told.entry.last <= before {
            return Ok(None);
        }
        if told.entry.first > before {
            return Err(WatchError::Compacted(Vec::new()));
        }
        *after = told.entry.last;
        if let Some((term, first)) = told.entry.term {
            let its = &mut self.terms[usize::from(told.partition)];
            if *its != term && *its != Term::NONE && first <= before {
                return Err(WatchError::Compacted(vec![told.partition]));
            }
            *its = term;
        }
        self.last = Some(Instant::now());
        Ok(Some(Heard::Entry(told, before)))
    }
}

/// Entries of the store, and how many the next read should ask for.
struct Batch {
    read: VecDeque<Arc<Told>>,
    count: usize,
}

/// Entries of the store that lie behind a position, of the first partition that has some.
async fn behind(feed: &Feed, after: &Position, count: usize) -> Result<Batch, WatchError> {
    let position = feed.position();
    for (partition, (&after, &is)) in (0..).zip(after.0.iter().zip(&position.0)) {
        if after < is {
            let mut entries = feed.read(partition, after, count).await?;
            // What the reader has had is there, or was trimmed.
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
            let read = entries.into_iter().map(|entry| Arc::new(Told { partition, entry })).collect();
            return Ok(Batch { read, count });
        }
    }
    Ok(Batch { read: VecDeque::new(), count })
}
