//! The sweeper: expires due holds in partitions without traffic, so that a hold always ends at its deadline. Opens the
//! namespaces that other servers have created, and those that were closed. Ends abandoned deletions. Uses the
//! namespaces, their lanes, and the store for the list of names.
//!
//! Sweeps run concurrently, each within a time limit, so that a slow, stuck or broken partition does not delay others.
//!
//! - this file: the loop that decides which work is due;
//! - [`work`]: the work items; [`jobs`]: the jobs on one partition or namespace;
//! - [`discovery`]: the list of all namespaces; [`report`]: metrics and log lines.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Display,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt as _;
use rand::Rng as _;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

mod discovery;
mod jobs;
mod report;
mod work;

use self::{
    discovery::discover_namespaces,
    work::{Done, Item, Key, SWEEPS_AT_ONCE, Target, Work},
};
use crate::{
    domain::{ClockOffsets, NamespaceName},
    lane::{Lane, LaneError},
    namespaces::Namespaces,
    random::Random,
    store::{NamespaceStore, error::StoreError, identity::Identity},
    telemetry::metrics::Metrics,
};

/// Longest time between two readings of the list of all namespaces.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);
/// Longest time between two sweeps of a partition without traffic. So when a server dies, the others expire the holds
/// of its callers, and every server reads the clock of every partition within `DOUBT_LASTS`
/// (lua/scripts/load/clock.lua).
const STALE_AFTER: Duration = Duration::from_secs(3);
/// A server waits for a random share of [`STALE_AFTER`] and of [`DISCOVERY_INTERVAL`], at least this one. Each server
/// has a different share for each partition, so that servers that start together do not sweep together.
const LEAST_SHARE: f64 = 0.75;
/// First and longest pause before another attempt at a broken partition or namespace.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Time between two checks whether the open partitions are present.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
/// The most partitions of one such check.
const PRESENCE_PARTITIONS: usize = 1_000;

/// Sweeps until the stop. After a restart or a loss of the store all partitions are swept at once: each sweep compares
/// the recorded history with the partition.
pub(crate) async fn run<S: NamespaceStore>(
    namespaces: Arc<Namespaces<S>>,
    store: Arc<S>,
    identity: Arc<Identity>,
    metrics: Arc<Metrics>,
    random: Random,
    interval: Duration,
    stop: CancellationToken,
) {
    let seed = { &random }.random();
    let mut sweeper =
        Sweeper { namespaces, store, metrics, random, seed, work: Work::default(), failing: HashMap::new() };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut discover_namespaces_at, mut presence_at, mut next_present) = (Instant::now(), Instant::now(), 0);
    let (mut is_discovering, mut is_checking) = (false, false);
    let mut unopened = HashSet::new();
    let mut bad_names = BTreeSet::new();
    let mut reported = ClockOffsets::default();
    loop {
        tokio::select! {
            // A fixed order, so that a simulation repeats a run exactly.
            biased;
            () = stop.cancelled() => return,
            () = identity.replaced() => {
                sweeper.add_all();
                discover_namespaces_at = Instant::now();
            }
            Some(done) = sweeper.work.running.next() => match done {
                Done::Swept(target, result) => sweeper.swept(target, &result),
                Done::Opened(name, result) => sweeper.opened(name, &result),
                Done::Checked(lost) => {
                    is_checking = false;
                    presence_at = Instant::now() + PRESENCE_INTERVAL;
                    if !lost.is_empty() {
                        lost.into_iter().for_each(|target| sweeper.work.add(Item::Partition(target)));
                        discover_namespaces_at = Instant::now();
                    }
                }
                Done::Discovered(found) => {
                    is_discovering = false;
                    let pause = if found.is_whole { sweeper.jittered(DISCOVERY_INTERVAL) } else { interval };
                    discover_namespaces_at = Instant::now() + pause;
                    sweeper.report_bad_names(&mut bad_names, &found);
                    unopened = sweeper.report_unopened(&unopened, found);
                }
            },
            _ = ticks.tick() => {
                sweeper.add_due();
                sweeper.report_clocks(&mut reported);
                if !is_checking && Instant::now() >= presence_at {
                    is_checking = true;
                    let targets = sweeper.next_targets(&mut next_present);
                    sweeper.work.running.push(Box::pin(jobs::check(Arc::clone(&sweeper.store), targets)));
                }
            }
        }
        if !is_discovering && Instant::now() >= discover_namespaces_at {
            is_discovering = true;
            let (namespaces, store) = (Arc::clone(&sweeper.namespaces), Arc::clone(&sweeper.store));
            let metrics = Arc::clone(&sweeper.metrics);
            sweeper.work.running.push(Box::pin(discover_namespaces(namespaces, store, metrics)));
        }
        sweeper.start();
    }
}

/// The next attempt at a broken partition or namespace.
struct Failing {
    pause: Duration,
    retry_at: Instant,
}

struct Sweeper<S> {
    namespaces: Arc<Namespaces<S>>,
    store: Arc<S>,
    metrics: Arc<Metrics>,
    random: Random,
    /// Gives each partition a different share of [`STALE_AFTER`] on each server.
    seed: u64,
    work: Work,
    /// The broken partitions and namespaces. An entry is removed when it works again, or when its namespace is not open
    /// any more.
    failing: HashMap<Key, Failing>,
}

impl<S: NamespaceStore> Sweeper<S> {
    /// A random duration between [`LEAST_SHARE`] of this one and the whole.
    fn jittered(&self, duration: Duration) -> Duration {
        duration.mul_f64({ &self.random }.random_range(LEAST_SHARE..1.0))
    }

    /// Adds every partition.
    fn add_all(&mut self) {
        for namespace in self.namespaces.all() {
            for partition in 0..namespace.config.partitions {
                self.work.add(Item::Partition(Target { namespace: Arc::clone(&namespace), partition }));
            }
        }
    }

    /// Adds the partitions that need a sweep, and the closed namespaces.
    fn add_due(&mut self) {
        let (all, now) = (self.namespaces.all(), Instant::now());
        if !self.failing.is_empty() {
            let open: HashSet<_> = all.iter().map(|namespace| &namespace.name).collect();
            self.failing.retain(|(name, _), _| open.contains(name));
        }
        for namespace in all {
            let waits = |key: &Key| self.failing.get(key).is_some_and(|failing| failing.retry_at > now);
            if namespace.lanes().iter().any(Lane::is_closed) {
                let item = Item::Closed(namespace.name.clone());
                if !waits(&item.key()) {
                    self.work.add(item);
                }
                continue;
            }
            for (partition, lane) in (0..).zip(namespace.lanes()) {
                if lane.needs_sweep(self.stale_after(&namespace.name, partition)) {
                    let target = Target { namespace: Arc::clone(&namespace), partition };
                    if !waits(&target.key()) {
                        self.work.add(Item::Partition(target));
                    }
                }
            }
        }
    }

    /// The time without a call after which this server sweeps a partition.
    fn stale_after(&self, name: &NamespaceName, partition: u16) -> Duration {
        let mut hasher = DefaultHasher::new();
        (self.seed, name.as_str(), partition).hash(&mut hasher);
        let part = hasher.finish() as f64 / u64::MAX as f64;
        STALE_AFTER.mul_f64(LEAST_SHARE + (1.0 - LEAST_SHARE) * part)
    }

    /// Starts waiting items, up to [`SWEEPS_AT_ONCE`].
    fn start(&mut self) {
        while self.work.sweeps < SWEEPS_AT_ONCE
            && let Some(item) = self.work.waiting.pop_front()
        {
            self.work.sweeps += 1;
            self.work.running.push(match item {
                Item::Partition(target) => {
                    let stale_after = self.stale_after(&target.namespace.name, target.partition);
                    Box::pin(jobs::sweep(target, stale_after))
                }
                Item::Closed(name) => Box::pin(jobs::open(Arc::clone(&self.namespaces), name)),
            });
        }
    }

    fn swept(&mut self, target: Target, result: &Result<(), LaneError>) {
        let key = target.key();
        self.work.end(&key);
        match result {
            Ok(()) => self.works_again(&key),
            Err(error) => {
                self.metrics.inc_sweep_failure();
                // The health check reports an unreachable store. The sweep is tried again at the next tick.
                if let LaneError::Corrupt { why } | LaneError::Newer { why } = error {
                    self.fails(key, why);
                } else if *error == LaneError::DeadlinePassed {
                    self.fails(key, &"its lane did not respond in time");
                }
            }
        }
    }

    fn opened(&mut self, name: NamespaceName, result: &Result<(), StoreError>) {
        let key = (name, None);
        self.work.end(&key);
        match result {
            Ok(()) => self.works_again(&key),
            Err(error) => {
                self.metrics.inc_sweep_failure();
                if is_broken(error) {
                    self.fails(key, error);
                }
            }
        }
    }

    fn works_again(&mut self, key: &Key) {
        if self.failing.remove(key).is_some() {
            tracing::info!(namespace = key.0.as_str(), partition = key.1, "a partition is swept again");
        }
    }

    /// Records a broken partition or namespace. Logs it once, until it works again.
    fn fails(&mut self, key: Key, why: &dyn Display) {
        let pause = match self.failing.get(&key) {
            Some(failing) => (failing.pause * 2).min(RETRY_PAUSE.1),
            None => {
                tracing::error!(namespace = key.0.as_str(), partition = key.1, %why, "a partition can't be swept");
                RETRY_PAUSE.0
            }
        };
        self.failing.insert(key, Failing { pause, retry_at: Instant::now() + pause });
    }

    /// The partitions of the next check.
    fn next_targets(&self, next: &mut usize) -> Vec<Target> {
        let all = self.namespaces.all();
        let targets = all.iter().flat_map(|namespace| {
            let target = |partition| Target { namespace: Arc::clone(namespace), partition };
            (0..namespace.config.partitions).map(target)
        });
        let targets: Vec<_> = targets.skip(*next).take(PRESENCE_PARTITIONS).collect();
        *next = if targets.len() < PRESENCE_PARTITIONS { 0 } else { *next + PRESENCE_PARTITIONS };
        targets
    }
}

/// Whether an error concerns one namespace only. The health check reports those of the store as a whole.
fn is_broken(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. } | StoreError::Newer { .. } | StoreError::Closed)
}
