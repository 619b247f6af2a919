//! A stream of what the table says: first everything, then what has changed. Keeps a position and nothing else.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Hub, PROGRESS, Position, WatchError, Watcher,
    feed::Listener,
    table::{Kind, Rows, Table},
};
use crate::{
    domain::{HistoryPoint, Sku, Stock},
    namespaces::Namespace,
};

/// SKUs told at a time.
const PAGE: usize = 1_000;

/// What is watched.
#[derive(Debug)]
pub(crate) enum View {
    /// The counters of these SKUs, or of all if none is named; told so often at most.
    Stock { skus: Vec<Sku>, interval: Duration },
    /// Which SKUs are protected.
    Protection,
}

/// Some SKUs as they are.
#[derive(Debug)]
pub(crate) struct News {
    /// `None`: there is no such SKU, or not any more.
    pub(crate) rows: Vec<(Sku, Option<Stock>)>,
    /// These are not what has changed, but what there is.
    pub(crate) is_snapshot: bool,
    pub(crate) position: Position,
    /// Where the history of each partition stands.
    pub(crate) claims: Vec<HistoryPoint>,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not everything has been told yet.
    Snapshot,
    /// Everything has, but not that it was everything.
    Complete,
    Live,
}

/// One stream.
pub(crate) struct NumbersWatch {
    watcher: Watcher,
    listener: Listener,
    view: View,
    after: Position,
    stage: Stage,
    last: Option<Instant>,
}

impl NumbersWatch {
    /// From the start, or from where an earlier stream was if that can be told from here.
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
        let resumed = resume.filter(|position| watcher.feed.look(|table| table.reaches(position)).unwrap_or(false));
        let stage = if resumed.is_none() { Stage::Snapshot } else { Stage::Live };
        let after = resumed.unwrap_or_else(|| Position::zero(watcher.feed.partitions()));
        Ok(Self { listener: watcher.feed.listen(), watcher, view, after, stage, last: None })
    }

    /// What is to be told next, as soon as there is something; at least that nothing has changed.
    pub(crate) async fn next(&mut self) -> Result<News, WatchError> {
        let mut progress = self.last.map_or_else(Instant::now, |last| last + PROGRESS);
        loop {
            match self.stage {
                Stage::Snapshot => {
                    let rows = self.look()?;
                    if !rows.is_empty() {
                        // Named ones come all at once.
                        self.stage = if self.is_named() { Stage::Complete } else { Stage::Snapshot };
                        return Ok(self.news(rows, true));
                    }
                    self.stage = Stage::Complete;
                }
                Stage::Complete => {
                    self.stage = Stage::Live;
                    return Ok(self.news(Rows::new(), false));
                }
                Stage::Live => {}
            }
            if let (View::Stock { interval, .. }, Some(last)) = (&self.view, self.last) {
                sleep_until(last + *interval).await;
            }
            let rows = self.look()?;
            if !rows.is_empty() {
                return Ok(self.news(rows, false));
            }
            if self.stage != Stage::Live {
                continue;
            }
            let heard = match self.view {
                View::Stock { interval, .. } => {
                    let heard = timeout_at(progress, self.listener.anything()).await;
                    if heard.is_ok() {
                        // Others' news come all the time; they are looked through no oftener than ours.
                        sleep_until((Instant::now() + interval.min(PROGRESS)).min(progress)).await;
                    }
                    heard
                }
                View::Protection => timeout_at(progress, self.listener.protection()).await,
            };
            if heard.is_err() || Instant::now() >= progress {
                if self.watcher.feed.is_fresh() {
                    let rows = self.look()?;
                    return Ok(self.news(rows, false));
                }
                progress = Instant::now() + PROGRESS;
            }
        }
    }

    fn news(&mut self, rows: Rows, is_snapshot: bool) -> News {
        self.last = Some(Instant::now());
        News { rows, is_snapshot, position: self.after.clone(), claims: self.watcher.feed.claims() }
    }

    fn is_named(&self) -> bool {
        matches!(&self.view, View::Stock { skus, .. } if !skus.is_empty())
    }

    /// The next rows behind the position. Of everything, those that are gone are no part.
    fn look(&mut self) -> Result<Rows, WatchError> {
        let Self { watcher, view, after, stage, .. } = self;
        if let Some(loss) = watcher.feed.loss() {
            return Err(loss);
        }
        if let (View::Protection, Some(partition)) = (&*view, watcher.feed.fenced()) {
            // What is protected may be among the lost changes.
            return Err(WatchError::Fenced { partition, fence: None });
        }
        let whole = *stage == Stage::Snapshot;
        let look = |table: &Table| {
            if !whole && !table.reaches(after) {
                // Too slow for what is remembered of SKUs that are gone: once more from the start.
                *after = Position::zero(after.0.len());
                *stage = Stage::Snapshot;
                return Rows::new();
            }
            match view {
                View::Stock { skus, .. } if !skus.is_empty() => table.named(skus, after, whole),
                View::Stock { .. } => page(table, Kind::Any, after, |stock| !whole || stock.is_some()),
                View::Protection => {
                    page(table, Kind::Protection, after, |stock| !whole || stock.is_some_and(|s| s.is_protected))
                }
            }
        };
        watcher.feed.look(look)
    }
}

/// A page of rows that pass, if there is one.
fn page(table: &Table, kind: Kind, after: &mut Position, passes: impl Fn(Option<Stock>) -> bool) -> Rows {
    loop {
        let mut rows = table.since(kind, after, PAGE);
        if rows.is_empty() {
            return rows;
        }
        rows.retain(|(_, stock)| passes(*stock));
        if !rows.is_empty() {
            return rows;
        }
    }
}
