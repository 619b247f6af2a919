//! The watch hub: any number of streams of a namespace from one reader of its events. Part of the
//! control plane: its connections are from a separate pool, and it uses no lane. Uses the store, and nothing
//! above it.
//!
//! - here: [`Hub`], the feeds of all watched namespaces, and their limits;
//! - [`feed`]: the shared state of one namespace; [`reader`]: the task that fills it;
//! - [`backlog`]: the last entries;
//! - [`table`]: the current state of every SKU, indexed by its last change. A stream of stock is a
//!   position in it;
//! - [`stock`]: a stream of the table; [`events`]: a stream of all events.
//!
//! Watchers add no load to Redis. A slow stream of stock skips to the latest state; a slow stream
//! of events is ended. Only streams that resume from an old position read Redis themselves, a few
//! at a time, each in a task. Such a task holds its permit and connection for a bounded time,
//! however slow the client is.

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

mod backlog;
pub(crate) mod events;
mod feed;
mod reader;
pub(crate) mod stock;
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

/// Interval of the responses of an idle stream, which state that it is up to date.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Streams that may read the store at the same time, to catch up.
const MAX_CATCH_UPS: usize = 8;
/// Longest time of one such read.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// The limits of all streams.
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
    /// The limit is reached.
    TooMany,
    /// The namespace has more SKUs than this limit of the table.
    TooLarge(usize),
    /// The client did not read fast enough.
    TooSlow,
    /// The next entries were trimmed, or these partitions have lost earlier ones.
    Compacted(Vec<u16>),
    /// This partition has lost events and is not settled.
    Fenced {
        partition: u16,
        fence: Option<Fence>,
    },
    /// The namespace was deleted.
    Gone,
    /// The store was replaced, or it has lost changes.
    Lost,
    Store(StoreError),
}

impl From<StoreError> for WatchError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The position of a stream: the last sequence that it has sent, for each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position(pub(crate) Box<[u64]>);

impl Position {
    /// Before everything.
    fn zero(partitions: usize) -> Self {
        Self(vec![0; partitions].into())
    }

    /// Whether everything up to `other` has been sent.
    fn covers(&self, other: &[u64]) -> bool {
        self.0.iter().zip(other).all(|(sent, other)| sent >= other)
    }
}

/// All feeds of this server.
pub(crate) struct Hub {
    store: Arc<Store>,
    limits: WatchLimits,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    permits: Arc<Semaphore>,
    catch_ups: Arc<Semaphore>,
    feeds: Mutex<HashMap<NamespaceName, Weak<Feed>>>,
}

/// The use of a feed by one stream.
struct Watcher {
    feed: Arc<Feed>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    catch_ups: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
}

/// A read of the store for one stream, in a task. A stream is not polled while its client reads
/// nothing: its future would keep the connection for as long. The read ends with the stream.
struct Reading<T>(JoinHandle<Option<Result<T, WatchError>>>);

impl<T> Reading<T> {
    /// The result of the read. Cancel safe.
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
    /// Starts a read of the store. It waits for its turn, and its time is limited.
    fn read<T, F>(&self, read: impl FnOnce(Arc<Feed>) -> F + Send + 'static) -> Reading<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, WatchError>> + Send,
    {
        let (feed, turns) = (Arc::clone(&self.feed), Arc::clone(&self.catch_ups));
        Reading(self.tasks.spawn(Task::CatchUp, async move {
            // Each holder has a time limit, so this ends.
            let _turn = turns.acquire().await;
            let late = |_| Err(StoreError::unknown("the store was not read in time").into());
            timeout(CATCH_UP_TIMEOUT, read(feed)).await.unwrap_or_else(late)
        }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.metrics.add_watches(-1);
    }
}

impl Hub {
    /// A hub with a pool of connections. Watchers take none from checkout.
    pub(crate) fn new(
        pool: &Pool,
        limits: Limits,
        watches: WatchLimits,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> Result<Self, StoreError> {
        // A read blocks in the store until there is an event.
        let limits =
            Limits { size: watches.namespaces + MAX_CATCH_UPS, reply: limits.reply + reader::XREAD_BLOCK, ..limits };
        Ok(Self {
            store: Arc::new(Store::new(pool.sibling(limits, Handout::Checked)?)),
            limits: watches,
            metrics,
            tasks,
            permits: Arc::new(Semaphore::new(watches.watches)),
            catch_ups: Arc::new(Semaphore::new(MAX_CATCH_UPS)),
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
        let (metrics, catch_ups) = (Arc::clone(&self.metrics), Arc::clone(&self.catch_ups));
        Ok(Watcher { feed, metrics, tasks: self.tasks.clone(), catch_ups, _permit: permit })
    }

    fn running(&self, namespace: &Namespace) -> Option<Arc<Feed>> {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.get(&namespace.name)?.upgrade().filter(|feed| feed.is_of(namespace))
    }

    /// Starts a feed, unless another stream has started it meanwhile.
    async fn start(&self, namespace: &Namespace) -> Result<Arc<Feed>, WatchError> {
        let feed = Arc::new(Feed::open(namespace, Arc::clone(&self.store), self.limits.skus).await?);
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let running = feeds.get(&namespace.name).and_then(Weak::upgrade);
        if let Some(running) = running.filter(|feed| feed.is_of(namespace)) {
            return Ok(running);
        }
        // Removes a lost feed, which the new one replaces.
        feeds.retain(|name, feed| feed.strong_count() > 0 && *name != namespace.name);
        if feeds.len() >= self.limits.namespaces {
            return Err(WatchError::TooMany);
        }
        feeds.insert(namespace.name.clone(), Arc::downgrade(&feed));
        reader::run(&feed, &self.tasks);
        Ok(feed)
    }
}
