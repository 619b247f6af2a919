//! The watch core: any number of streams about a namespace, from one reader of its event stream. Uses the
//! store, and nothing above it.
//!
//! - here: [`Hub`], which has the feed of each namespace that somebody watches, and bounds how many there are;
//! - [`feed`]: the one reader of a namespace, and what it hands to all;
//! - [`ring`]: the last entries;
//! - [`table`]: every SKU as it is now, by when it changed: what has changed since is looked up, not kept for
//!   each watcher;
//! - [`numbers`]: a stream of what the table says; [`changes`]: a stream of every event.
//!
//! A watcher costs the store nothing: a slow one of the table gets the newest when it reads, a slow one of events is cut
//! off. Only a stream that goes on from an old place reads the store by itself, a few at a time, each in a task of its
//! own: no permit and no connection is held while a client is slow.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::timeout,
};

pub(crate) mod changes;
mod feed;
pub(crate) mod numbers;
mod ring;
mod table;

use self::feed::Feed;
use crate::{
    config::Config,
    domain::{Fence, NamespaceName},
    namespaces::Namespace,
    store::{
        Store,
        error::StoreError,
        pool::{Handout, Limits, Pool},
    },
    tasks::{Task, Tasks},
    telemetry::metrics::Metrics,
};

/// How often a stream is told that it is up to date, while nothing happens.
const PROGRESS: Duration = Duration::from_secs(1);
/// Streams that read the store by themselves at the same time, to catch up.
const CATCHING_UP: usize = 8;
/// Longest time that one such read may take.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// How many streams there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchLimits {
    pub(crate) watches: usize,
    pub(crate) namespaces: usize,
    /// SKUs of one namespace that the table keeps.
    pub(crate) skus: usize,
}

impl From<&Config> for WatchLimits {
    fn from(config: &Config) -> Self {
        Self { watches: config.max_watches, namespaces: config.max_watched_namespaces, skus: config.max_watched_skus }
    }
}

/// Why a stream does not begin, or ends.
#[derive(Debug)]
pub(crate) enum WatchError {
    /// There are as many as there may be.
    TooMany,
    /// The namespace has more SKUs than the table may keep, which are so many.
    TooLarge(usize),
    /// It was not read fast enough.
    TooSlow,
    /// What comes next is not kept any more, or these partitions have lost what came before.
    Compacted(Vec<u16>),
    /// This partition has lost changes and is not settled.
    Fenced {
        partition: u16,
        fence: Option<Fence>,
    },
    /// The namespace was deleted.
    Gone,
    /// The store is not the one that was read before, or it has lost something.
    Lost,
    Store(StoreError),
}

impl From<StoreError> for WatchError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Where a stream stands: the sequence that has been told of each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position(pub(crate) Box<[u64]>);

impl Position {
    /// Before everything.
    fn zero(partitions: usize) -> Self {
        Self(vec![0; partitions].into())
    }

    /// Whether everything up to `other` has been told.
    fn covers(&self, other: &[u64]) -> bool {
        self.0.iter().zip(other).all(|(told, other)| told >= other)
    }
}

/// All feeds of this server.
pub(crate) struct Hub {
    store: Arc<Store>,
    limits: WatchLimits,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    permits: Arc<Semaphore>,
    catching_up: Arc<Semaphore>,
    feeds: Mutex<HashMap<NamespaceName, Weak<Feed>>>,
}

/// A feed, for as long as a stream needs it.
struct Watcher {
    feed: Arc<Feed>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    catching_up: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
}

/// A read of the store for one stream, in a task of its own: a stream whose client reads nothing is not polled, and what
/// its future held would be held for as long. The read ends with the stream.
struct Reading<T>(JoinHandle<Option<Result<T, WatchError>>>);

impl<T> Reading<T> {
    /// What was read. Can be dropped and called again.
    async fn result(&mut self) -> Result<T, WatchError> {
        match (&mut self.0).await {
            Ok(Some(result)) => result,
            // It panicked, or the server stops.
            Ok(None) | Err(_) => Err(StoreError::not_applied("the read of the store ended").into()),
        }
    }
}

impl<T> Drop for Reading<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watcher {
    /// Reads from the store when it is this stream's turn, for a limited time.
    fn read<T, F>(&self, read: impl FnOnce(Arc<Feed>) -> F + Send + 'static) -> Reading<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, WatchError>> + Send,
    {
        let (feed, turns) = (Arc::clone(&self.feed), Arc::clone(&self.catching_up));
        Reading(self.tasks.spawn(Task::CatchUp, async move {
            // Each holder is limited in time, so a turn comes.
            let _turn = turns.acquire().await;
            let late = |_| Err(StoreError::unknown("the store was not read in time").into());
            timeout(READ_LIMIT, read(feed)).await.unwrap_or_else(late)
        }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.metrics.add_watches(-1);
    }
}

impl Hub {
    /// With connections of its own: who watches takes none from who buys.
    pub(crate) fn new(
        beside: &Pool,
        limits: Limits,
        watches: WatchLimits,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> Result<Self, StoreError> {
        // The reader lets the store wait for news.
        let limits = Limits { size: watches.namespaces + CATCHING_UP, reply: limits.reply + feed::WAIT, ..limits };
        Ok(Self {
            store: Arc::new(Store::new(beside.beside(limits, Handout::Checked)?)),
            limits: watches,
            metrics,
            tasks,
            permits: Arc::new(Semaphore::new(watches.watches)),
            catching_up: Arc::new(Semaphore::new(CATCHING_UP)),
            feeds: Mutex::default(),
        })
    }

    async fn watcher(&self, namespace: &Namespace) -> Result<Watcher, WatchError> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| WatchError::TooMany)?;
        let feed = match self.running(namespace) {
            Some(feed) => feed,
            None => self.start(namespace).await?,
        };
        self.metrics.add_watches(1);
        let (metrics, catching_up) = (Arc::clone(&self.metrics), Arc::clone(&self.catching_up));
        Ok(Watcher { feed, metrics, tasks: self.tasks.clone(), catching_up, _permit: permit })
    }

    fn running(&self, namespace: &Namespace) -> Option<Arc<Feed>> {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.get(&namespace.name)?.upgrade().filter(|feed| feed.is_of(namespace))
    }

    /// A feed from now on, unless somebody was faster.
    async fn start(&self, namespace: &Namespace) -> Result<Arc<Feed>, WatchError> {
        let feed = Arc::new(Feed::open(namespace, Arc::clone(&self.store), self.limits.skus).await?);
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let running = feeds.get(&namespace.name).and_then(Weak::upgrade);
        if let Some(running) = running.filter(|feed| feed.is_of(namespace)) {
            return Ok(running);
        }
        // One that is lost makes room for the one that takes its place.
        feeds.retain(|name, feed| feed.strong_count() > 0 && *name != namespace.name);
        if feeds.len() >= self.limits.namespaces {
            return Err(WatchError::TooMany);
        }
        feeds.insert(namespace.name.clone(), Arc::downgrade(&feed));
        feed::run(&feed, &self.tasks);
        Ok(feed)
    }
}
