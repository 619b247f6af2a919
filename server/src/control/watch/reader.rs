//! The reader of a feed: a task that reads the event streams of all partitions of one namespace, on
//! one connection, and hands each entry to the table and the backlog. Uses the store.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Position, WatchError,
    feed::{Feed, PartitionEntry},
};
use crate::{
    domain::{Happened, HistoryPoint},
    namespaces::being_deleted,
    store::{
        Store,
        error::StoreError,
        events::{self, Entry},
        keys::PartitionKeys,
        pool::Connection,
        wire::PartitionState,
    },
    tasks::{Task, Tasks},
};

/// Most entries of one partition in one read.
const XREAD_COUNT: usize = 64;
/// Longest wait of one read for an event.
pub(super) const XREAD_BLOCK: Duration = Duration::from_millis(500);
/// Pause before the store is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Longest time between two reads of the state of the partitions, which show lost changes.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the reader of a feed. It ends when no stream uses the feed.
pub(super) fn run(feed: &Arc<Feed>, tasks: &Tasks) {
    let (feed, store) = (Arc::downgrade(feed), Arc::clone(&feed.store));
    let reader = Reader(feed);
    tasks.spawn(Task::FeedReader, async move {
        while let Err(error) = follow(&reader.0, &store).await {
            match error {
                WatchError::Store(error) => {
                    // The health check logs a missing permission once; this would log it at each
                    // attempt.
                    if !matches!(error, StoreError::Denied { .. }) {
                        tracing::warn!(%error, "the watch of a namespace waits for the store");
                    }
                    sleep(RETRY_DELAY).await;
                }
                // The drop of the reader ends the feed.
                WatchError::Gone => {
                    if let Some(feed) = reader.0.upgrade() {
                        feed.progress.send_modify(|progress| progress.gone = true);
                    }
                    return;
                }
                _ => return,
            }
        }
    });
}

/// The reader of a feed. When it ends for any reason, the feed is lost: its streams end, and the
/// next stream starts a new feed.
struct Reader(Weak<Feed>);

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(feed) = self.0.upgrade() {
            tracing::warn!(namespace = feed.name.as_str(), "the watch of a namespace has lost its position");
            feed.progress.send_modify(|progress| progress.lost = true);
            feed.protection_changed.send_replace(());
        }
    }
}

/// Reads on one connection until an error; `Ok` when no stream uses the feed.
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
        let read = events::wait(&mut connection, &places, XREAD_BLOCK, XREAD_COUNT).await?;
        let is_idle = read.is_empty();
        // A stream that was replaced can be silent too, or continue.
        let states = if is_idle || checked.is_none_or(|at| at.elapsed() >= STATE_INTERVAL) {
            checked = Some(Instant::now());
            let keys: Vec<_> = places.into_iter().map(|(keys, _)| keys).collect();
            Some(states(&mut connection, &keys, &epochs).await?)
        } else {
            None
        };
        let Some(feed) = feed.upgrade() else { return Ok(()) };
        for (partition, entries) in read {
            if !feed.publish(partition, entries) {
                return Err(WatchError::Lost);
            }
        }
        if let Some(states) = states {
            feed.compare(&states, is_idle)?;
        }
    }
}

impl Feed {
    /// Publishes entries to the table and the backlog; false if one is missing.
    fn publish(&self, partition: usize, entries: Vec<Entry>) -> bool {
        let mut protection_changed = false;
        let mut published = Vec::with_capacity(entries.len());
        {
            let mut table = self.table();
            let (mut at, mut term) = {
                let progress = self.progress.borrow();
                (progress.position.0[partition], progress.terms[partition])
            };
            for entry in entries {
                if entry.last <= at {
                    continue;
                }
                if entry.first != at {
                    return false;
                }
                // A partition can be created again, with the loss as its next event, before a read of its state.
                let loses_position = |run: &events::Run| match run.happened {
                    Happened::HistoryLost(lost, kept) => lost.term == term && kept < at,
                    _ => false,
                };
                if entry.runs.iter().any(loses_position) {
                    return false;
                }
                if let Some((its, first)) = entry.term {
                    // Another term continues this history only if it begins here. Otherwise it has
                    // replaced it.
                    if its != term && first != entry.first + 1 {
                        return false;
                    }
                    term = its;
                }
                at = entry.last;
                if let Some(table) = table.as_mut() {
                    protection_changed |= table.apply(partition as u16, entry.last, &entry.stock);
                }
                published.push(Arc::new(PartitionEntry { partition: partition as u16, entry }));
            }
            self.keep_size(&mut table);
            // Before the backlog: a stream that subscribes and then reads the position misses
            // nothing.
            self.progress.send_modify(|progress| {
                progress.position.0[partition] = at;
                progress.terms[partition] = term;
                progress.at = Instant::now();
            });
            self.witnesses[partition].observe(HistoryPoint { epoch: self.epochs[partition], term, sequence: at });
        }
        for entry in published {
            let bytes = entry.entry.memory();
            self.backlog.push(entry, bytes);
        }
        if protection_changed {
            self.protection_changed.send_replace(());
        }
        true
    }

    /// Compares the position with the states of the partitions. A partition that is behind has lost
    /// changes.
    fn compare(&self, states: &[PartitionState], is_idle: bool) -> Result<(), WatchError> {
        let fenced = fenced_in(states);
        let is_lost = {
            let progress = self.progress.borrow();
            let places = progress.position.0.iter().zip(&progress.terms).zip(states);
            places.into_iter().any(|((&sequence, &term), state)| {
                // Entries can be newer than the state, but not if nothing was read.
                let is_behind = is_idle && state.at.sequence < sequence;
                is_behind || state.at.sequence == sequence && state.at.term != term
            })
        };
        if is_lost {
            return Err(WatchError::Lost);
        }
        let is_new = self.progress.borrow().fenced != fenced;
        if is_idle || is_new {
            self.progress.send_modify(|progress| {
                progress.fenced = fenced;
                if is_idle {
                    progress.at = Instant::now();
                }
            });
        }
        if is_new {
            self.protection_changed.send_replace(());
        }
        Ok(())
    }
}

/// The state of each partition, if the partitions were not replaced.
pub(super) async fn states(
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
                    // The streams continue if the deletion is abandoned.
                    Some(false) => being_deleted().into(),
                    Some(true) => WatchError::Gone,
                    None => WatchError::Lost,
                });
            }
        }
    }
    Ok(states)
}

pub(super) fn position_of(states: &[PartitionState]) -> Position {
    Position(states.iter().map(|state| state.at.sequence).collect())
}

pub(super) fn fenced_in(states: &[PartitionState]) -> Option<u16> {
    (0..).zip(states).find(|(_, state)| state.is_fenced).map(|(partition, _)| partition)
}
