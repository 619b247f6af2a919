//! The sweeper: expires due holds in partitions without traffic, so that a hold always ends at its deadline. Opens the
//! namespaces that other servers have created, and those that were closed. Ends abandoned deletions. Uses the
//! namespaces, their lanes, and the store for the list of names.
//!
//! Sweeps run concurrently, each within a time limit, so that a slow, stuck or broken partition does not delay others.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fmt::Display,
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use rand::Rng as _;
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{ClockOffsets, NamespaceName, Operation},
    lane::{Lane, LaneError},
    namespaces::{DeleteError, Namespace, Namespaces},
    random::Random,
    store::{NamespaceStore, error::StoreError, identity::Identity},
    telemetry::metrics::Metrics,
};

/// The most sweeps, and openings of closed namespaces, at the same time.
const SWEEPS_AT_ONCE: usize = 16;
/// The most openings of namespaces of the list at the same time.
const OPENINGS_AT_ONCE: usize = 4;
/// Longest time that one sweep may take.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);
/// A lane responds at the deadline of an operation. If it has not this much later, it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Longest time that one namespace may take to open.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Longest time between two readings of the list of all namespaces.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);
/// Longest time between two sweeps of a partition without traffic. When a server dies, the others expire the holds of
/// its callers. And every server calls every partition within `DOUBT_LASTS` (lua/scripts/load/clock.lua) to read its
/// clock.
const STALE_AFTER: Duration = Duration::from_secs(3);
/// The least share of [`STALE_AFTER`] and of [`DISCOVERY_INTERVAL`] that a server waits. Each server has another share
/// for each partition, so that servers that were started together do not sweep together.
const LEAST_SHARE: f64 = 0.75;
/// First and longest pause before another attempt at a broken partition or namespace.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Time between two checks whether the open partitions are present.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
/// The most partitions of one such check.
const PRESENCE_PARTITIONS: usize = 1_000;
/// The least change of a clock's offset that is logged, in milliseconds.
const REPORTED_OFFSET: u64 = 1_000;

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
                    sweeper.work.running.push(Box::pin(check(Arc::clone(&sweeper.store), targets)));
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

/// One partition of an open namespace.
struct Target {
    namespace: Arc<Namespace>,
    partition: u16,
}

impl Target {
    fn lane(&self) -> Option<&Lane> {
        self.namespace.lane(self.partition)
    }

    fn key(&self) -> Key {
        (self.namespace.name.clone(), Some(self.partition))
    }
}

/// The key of a work item: a partition, or a namespace as a whole.
type Key = (NamespaceName, Option<u16>);

/// A work item.
enum Item {
    /// A partition that has to be swept.
    Partition(Target),
    /// A closed namespace that has to be opened again.
    Closed(NamespaceName),
}

impl Item {
    fn key(&self) -> Key {
        match self {
            Item::Partition(target) => target.key(),
            Item::Closed(name) => (name.clone(), None),
        }
    }
}

/// The result of a work item.
enum Done {
    Swept(Target, Result<(), LaneError>),
    Opened(NamespaceName, Result<(), StoreError>),
    /// All partitions of the check if one of them is gone, otherwise none.
    Checked(Vec<Target>),
    Discovered(Discovered),
}

/// The result of a reading of the list of all namespaces.
struct Discovered {
    /// Whether the list was read to its end.
    is_whole: bool,
    /// Namespaces that can't be opened, each with its error.
    failed: Vec<(NamespaceName, StoreError)>,
    /// Entries of the list that are no valid names.
    bad: BTreeSet<String>,
}

/// Waiting and running work. Each item is in it once. Bounded by the number of open partitions.
#[derive(Default)]
struct Work {
    waiting: VecDeque<Item>,
    /// The keys of all waiting and running items.
    known: HashSet<Key>,
    /// The number of running items, at most [`SWEEPS_AT_ONCE`].
    sweeps: usize,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
}

impl Work {
    fn add(&mut self, item: Item) {
        if self.known.insert(item.key()) {
            self.waiting.push_back(item);
        }
    }

    fn end(&mut self, key: &Key) {
        self.known.remove(key);
        self.sweeps -= 1;
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
                    Box::pin(sweep(target, stale_after))
                }
                Item::Closed(name) => Box::pin(open(Arc::clone(&self.namespaces), name)),
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
                    self.fails(key, &"it does not answer");
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

    /// Counts the namespaces that could not be opened, and logs each once, until it opens. Returns those that can't be
    /// opened now.
    fn report_unopened(&self, before: &HashSet<NamespaceName>, found: Discovered) -> HashSet<NamespaceName> {
        let mut now = HashSet::new();
        for (name, error) in found.failed {
            self.metrics.inc_sweep_failure();
            let is_broken = is_broken(&error);
            if is_broken && !before.contains(&name) {
                tracing::error!(namespace = name.as_str(), %error, "a namespace can't be opened, so it is not swept");
            }
            if is_broken || before.contains(&name) {
                now.insert(name);
            }
        }
        if found.is_whole {
            for name in before.difference(&now) {
                tracing::info!(namespace = name.as_str(), "a namespace can be opened again, or is gone");
            }
        } else {
            now.extend(before.iter().cloned());
        }
        now
    }

    /// Counts the invalid entries of the list of namespaces, and logs them if they have changed.
    fn report_bad_names(&self, before: &mut BTreeSet<String>, found: &Discovered) {
        if !found.is_whole || found.bad == *before {
            return;
        }
        self.metrics.set_bad_names(found.bad.len());
        match found.bad.first() {
            Some(first) => tracing::error!(
                count = found.bad.len(),
                first,
                "the list of namespaces has entries that this service did not write; they are left out"
            ),
            None => tracing::info!("the list of namespaces has only entries that this service wrote"),
        }
        before.clone_from(&found.bad);
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

    fn report_clocks(&self, reported: &mut ClockOffsets) {
        let offsets = self.namespaces.clock_offsets();
        self.metrics.set_clock_offsets(offsets);
        if offsets.differs(*reported, REPORTED_OFFSET) {
            tracing::warn!(
                clock_offset_ms = offsets.clock,
                time_of_day_offset_ms = offsets.time_of_day,
                "the difference between the store's clock and those of the partitions has changed"
            );
            *reported = offsets;
        }
    }
}

/// Whether an error concerns one namespace only. The health check reports those of the store as a whole.
fn is_broken(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. } | StoreError::Newer { .. } | StoreError::Closed)
}

/// Expires due holds, in bounded steps, until none is due or the time is over.
async fn sweep(target: Target, stale_after: Duration) -> Done {
    let result = match target.lane() {
        Some(lane) => sweep_lane(lane, stale_after).await,
        None => Ok(()),
    };
    Done::Swept(target, result)
}

async fn sweep_lane(lane: &Lane, stale_after: Duration) -> Result<(), LaneError> {
    let deadline = Instant::now() + SWEEP_LIMIT;
    loop {
        let pending = lane.submit(Operation::Sweep, deadline)?;
        // The lane responds by the deadline, unless it is stuck.
        let answer = timeout_at(deadline + STUCK_AFTER, pending.wait()).await;
        answer.unwrap_or(Err(LaneError::DeadlinePassed))?;
        // Holds that are still due at the deadline wait for the next sweep.
        if lane.is_closed() || !lane.needs_sweep(stale_after) || Instant::now() >= deadline {
            return Ok(());
        }
    }
}

/// Opens a closed namespace again.
async fn open<S: NamespaceStore>(namespaces: Arc<Namespaces<S>>, name: NamespaceName) -> Done {
    let result = match timeout(OPEN_LIMIT, namespaces.get(&name)).await {
        Ok(Ok(Some(_))) => Ok(()),
        // It was deleted: one that the store has lost would have been created again.
        Ok(Ok(None)) => {
            namespaces.drop_closed(&name);
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StoreError::unknown("the namespace did not open in time")),
    };
    Done::Opened(name, result)
}

/// Ends an abandoned deletion, or reverses it if units are held. A failure is tried again later.
async fn resume_deletion<S: NamespaceStore>(namespaces: &Namespaces<S>, name: &NamespaceName, metrics: &Metrics) {
    let result = timeout(OPEN_LIMIT, namespaces.resume_deletion(name)).await;
    let name = name.as_str();
    match result {
        Ok(Ok(false)) => return,
        Ok(Ok(true)) => tracing::warn!(namespace = name, "an abandoned deletion was completed"),
        Ok(Err(DeleteError::HasHolds { held, .. })) => {
            tracing::warn!(namespace = name, held, "an abandoned deletion was reversed: units are held");
        }
        Ok(Err(DeleteError::Refused(refusal))) => {
            tracing::warn!(namespace = name, ?refusal, "an abandoned deletion was reversed");
        }
        Ok(Err(error)) => {
            metrics.inc_sweep_failure();
            tracing::warn!(namespace = name, ?error, "an abandoned deletion can't be completed now");
            return;
        }
        Err(_) => {
            metrics.inc_sweep_failure();
            tracing::warn!(namespace = name, "an abandoned deletion did not end in time");
            return;
        }
    }
    metrics.inc_resumed_deletion();
}

/// Checks whether these partitions are present. Returns all of them if one is gone: its sweep closes its lane.
async fn check<S: NamespaceStore>(store: Arc<S>, targets: Vec<Target>) -> Done {
    let keys: Vec<_> = targets.iter().map(|target| target.namespace.keys(target.partition)).collect();
    // The health check reports a store that does not respond.
    let is_complete = keys.is_empty() || store.has_all(&keys).await.unwrap_or(true);
    Done::Checked(if is_complete { Vec::new() } else { targets })
}

/// Opens the recorded namespaces and those of the list, and skips each that can't be opened. Then ends the abandoned
/// deletions.
async fn discover_namespaces<S: NamespaceStore>(
    namespaces: Arc<Namespaces<S>>,
    store: Arc<S>,
    metrics: Arc<Metrics>,
) -> Done {
    let mut found = Discovered { is_whole: true, failed: Vec::new(), bad: BTreeSet::new() };
    let mut names = namespaces.known();
    let mut cursor = Some(0);
    loop {
        let open = |name: NamespaceName| {
            let namespaces = &namespaces;
            async move {
                let late = |_| Err(StoreError::unknown("the namespace did not open in time"));
                let opened = timeout(OPEN_LIMIT, namespaces.get(&name)).await.unwrap_or_else(late);
                opened.err().map(|error| (name, error))
            }
        };
        let failed = stream::iter(names).map(open).buffer_unordered(OPENINGS_AT_ONCE);
        let mut failed: Vec<_> = failed.filter_map(std::future::ready).collect().await;
        found.failed.append(&mut failed);
        let Some(from) = cursor else { break };
        let Ok(page) = store.namespaces(from).await else {
            found.is_whole = false;
            break;
        };
        names = page.names;
        cursor = (page.next != 0).then_some(page.next);
        found.bad.extend(page.bad);
    }
    for name in namespaces.abandoned_deletions() {
        resume_deletion(&namespaces, &name, &metrics).await;
    }
    // A name can be recorded and in the list, and the list can return it twice.
    let mut seen = HashSet::new();
    found.failed.retain(|(name, _)| seen.insert(name.clone()));
    Done::Discovered(found)
}
