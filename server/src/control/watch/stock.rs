//! A stream of the table: first all rows, then those that change. Its only state is a position.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Hub, PROGRESS_INTERVAL, Position, WatchError, Watcher,
    feed::Listener,
    table::{IndexKind, Rows, Table},
};
use crate::{
    domain::{HistoryPoint, Sku, Stock},
    namespaces::Namespace,
};

/// SKUs of one update.
const PAGE_SIZE: usize = 1_000;

/// The rows that a stream shows.
#[derive(Debug)]
pub(crate) enum View {
    /// The counters of these SKUs, or of all if the list is empty, at most once in each interval.
    Stock { skus: Vec<Sku>, interval: Duration },
    /// Which SKUs are protected.
    Protection,
}

/// The current state of some SKUs.
#[derive(Debug)]
pub(crate) struct StockUpdate {
    /// `None`: the SKU does not exist.
    pub(crate) rows: Vec<(Sku, Option<Stock>)>,
    /// Part of the first full list, not of the changes after it.
    pub(crate) is_snapshot: bool,
    pub(crate) position: Position,
    /// The point in the history of each partition.
    pub(crate) claims: Vec<HistoryPoint>,
}

/// The progress of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Some rows have not been sent yet.
    Snapshot,
    /// All rows have been sent, but not the end of the snapshot.
    Complete,
    Live,
}

/// One stream.
pub(crate) struct StockWatch {
    watcher: Watcher,
    listener: Listener,
    view: View,
    after: Position,
    stage: Stage,
    last: Option<Instant>,
}

impl StockWatch {
    /// From the start, or from the position of an earlier stream if the table still reaches it.
    pub(crate) async fn open(
        hub: &Hub,
        namespace: &Namespace,
        view: View,
        resume: Option<(Position, Vec<HistoryPoint>)>,
    ) -> Result<Self, WatchError> {
        let watcher = hub.watcher(namespace).await?;
        watcher.feed.load().await?;
        let resume = match resume {
            Some((position, claims)) if watcher.feed.refuted(&claims).await?.is_empty() => Some(position),
            _ => None,
        };
        let resumed = resume.filter(|position| watcher.feed.query(|table| table.reaches(position)).unwrap_or(false));
        let stage = if resumed.is_none() { Stage::Snapshot } else { Stage::Live };
        let after = resumed.unwrap_or_else(|| Position::zero(watcher.feed.partitions()));
        Ok(Self { listener: watcher.feed.listen(), watcher, view, after, stage, last: None })
    }

    /// The next update; an empty one if nothing has changed for a while.
    pub(crate) async fn next(&mut self) -> Result<StockUpdate, WatchError> {
        let mut progress = self.last.map_or_else(Instant::now, |last| last + PROGRESS_INTERVAL);
        loop {
            match self.stage {
                Stage::Snapshot => {
                    let rows = self.next_rows()?;
                    if !rows.is_empty() {
                        // A list of SKUs is sent in one update.
                        self.stage = if self.is_named() { Stage::Complete } else { Stage::Snapshot };
                        return Ok(self.update(rows, true));
                    }
                    self.stage = Stage::Complete;
                }
                Stage::Complete => {
                    self.stage = Stage::Live;
                    return Ok(self.update(Rows::new(), false));
                }
                Stage::Live => {}
            }
            if let (View::Stock { interval, .. }, Some(last)) = (&self.view, self.last) {
                sleep_until(last + *interval).await;
            }
            let rows = self.next_rows()?;
            if !rows.is_empty() {
                return Ok(self.update(rows, false));
            }
            if self.stage != Stage::Live {
                continue;
            }
            let woken = match self.view {
                View::Stock { interval, .. } => {
                    let woken = timeout_at(progress, self.listener.progress()).await;
                    if woken.is_ok() {
                        // Other SKUs change all the time. The query runs no more often than the
                        // interval.
                        sleep_until((Instant::now() + interval.min(PROGRESS_INTERVAL)).min(progress)).await;
                    }
                    woken
                }
                View::Protection => timeout_at(progress, self.listener.protection()).await,
            };
            if woken.is_err() || Instant::now() >= progress {
                if self.watcher.feed.is_fresh() {
                    let rows = self.next_rows()?;
                    return Ok(self.update(rows, false));
                }
                progress = Instant::now() + PROGRESS_INTERVAL;
            }
        }
    }

    fn update(&mut self, rows: Rows, is_snapshot: bool) -> StockUpdate {
        self.last = Some(Instant::now());
        StockUpdate { rows, is_snapshot, position: self.after.clone(), claims: self.watcher.feed.claims() }
    }

    fn is_named(&self) -> bool {
        matches!(&self.view, View::Stock { skus, .. } if !skus.is_empty())
    }

    /// The next rows after the position. A snapshot of all SKUs skips deleted ones.
    fn next_rows(&mut self) -> Result<Rows, WatchError> {
        let Self { watcher, view, after, stage, .. } = self;
        if let Some(loss) = watcher.feed.loss() {
            return Err(loss);
        }
        if let (View::Protection, Some(partition)) = (&*view, watcher.feed.fenced()) {
            // The lost changes can concern protection.
            return Err(WatchError::Fenced { partition, fence: None });
        }
        let is_snapshot = *stage == Stage::Snapshot;
        let query = |table: &Table| {
            if !is_snapshot && !table.reaches(after) {
                // Too slow: the table has dropped deleted SKUs since. Starts over.
                *after = Position::zero(after.0.len());
                *stage = Stage::Snapshot;
                return Rows::new();
            }
            match view {
                View::Stock { skus, .. } if !skus.is_empty() => table.of_skus(skus, after, is_snapshot),
                View::Stock { .. } => page(table, IndexKind::Any, after, |stock| !is_snapshot || stock.is_some()),
                View::Protection => page(table, IndexKind::Protection, after, |stock| {
                    !is_snapshot || stock.is_some_and(|s| s.is_protected)
                }),
            }
        };
        watcher.feed.query(query)
    }
}

/// A page of rows that pass, if there is one.
fn page(table: &Table, kind: IndexKind, after: &mut Position, passes: impl Fn(Option<Stock>) -> bool) -> Rows {
    loop {
        let mut rows = table.since(kind, after, PAGE_SIZE);
        if rows.is_empty() {
            return rows;
        }
        rows.retain(|(_, stock)| passes(*stock));
        if !rows.is_empty() {
            return rows;
        }
    }
}
