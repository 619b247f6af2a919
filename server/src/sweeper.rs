//! The sweeper: gives back what is due in partitions that nobody calls, so that a hold ends at its
//! deadline with and without traffic. Uses the namespaces and their lanes.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{ClockOffsets, Operation},
    lane::Lane,
    namespaces::Namespaces,
    store::{Store, identity::Identity},
    telemetry::metrics::Metrics,
};

/// How often all namespaces of the store are looked through for those this server does not know.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// How long a partition may be unheard of: another server's holds are ours when it dies, and a new server has to hear within
/// `DOUBT_STANDS` (lua/clock.lua) what time it is.
const UNHEARD: Duration = Duration::from_secs(3);
/// How often a server looks whether the partitions that it has opened are there, and at how many at most each time.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
const PRESENCE_PARTITIONS: usize = 1_000;
/// A change of a clock's offset that is logged, in milliseconds.
const REPORTED_OFFSET: u64 = 1_000;
/// Longest time that one sweep may take.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);

/// Sweeps until the stop. A store that has restarted or was emptied is swept at once and whole: each sweep compares
/// what this server knows with what is there.
pub(crate) async fn run(
    namespaces: Arc<Namespaces>,
    store: Arc<Store>,
    identity: Arc<Identity>,
    metrics: Arc<Metrics>,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_around: Option<Instant> = None;
    let mut presence = Presence { checked: Instant::now(), next: 0 };
    let mut reported = ClockOffsets::default();
    loop {
        let is_replaced = tokio::select! {
            () = stop.cancelled() => return,
            () = identity.replaced() => true,
            _ = ticks.tick() => false,
        };
        if is_replaced {
            for namespace in namespaces.all() {
                for lane in namespace.lanes().iter().filter(|lane| !lane.is_closed()) {
                    sweep(lane).await;
                }
            }
            looked_around = None;
        }
        if presence.has_lost_one(&namespaces, &store).await {
            looked_around = None;
        }
        if looked_around.is_none_or(|at| at.elapsed() >= LOOK_AROUND) && look_around(&namespaces, &store).await {
            looked_around = Some(Instant::now());
        }
        for namespace in namespaces.all() {
            for lane in namespace.lanes() {
                if lane.is_closed() {
                    // Its namespace is opened again by `look_around`.
                    looked_around = None;
                } else if lane.wants_sweep(UNHEARD) {
                    sweep(lane).await;
                }
            }
        }
        let offsets = namespaces.clock_offsets();
        metrics.set_clock_offsets(offsets);
        if offsets.differs(reported, REPORTED_OFFSET) {
            tracing::warn!(
                clock_offset_ms = offsets.clock,
                time_of_day_offset_ms = offsets.time_of_day,
                "the difference between the store's clock and those of the partitions has changed"
            );
            reported = offsets;
        }
    }
}

/// Which open partitions are looked for next.
struct Presence {
    checked: Instant,
    next: usize,
}

impl Presence {
    /// Looks for the next partitions, if it is time to. Sweeps them where one is gone, which closes its lane, so that it
    /// is opened again.
    async fn has_lost_one(&mut self, namespaces: &Namespaces, store: &Store) -> bool {
        if self.checked.elapsed() < PRESENCE_INTERVAL {
            return false;
        }
        self.checked = Instant::now();
        let mut all = namespaces.all();
        all.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        let partitions =
            all.iter().flat_map(|namespace| namespace.partitions().map(move |(n, keys)| (namespace, n, keys)));
        let partitions: Vec<_> = partitions.skip(self.next).take(PRESENCE_PARTITIONS).collect();
        self.next = if partitions.len() < PRESENCE_PARTITIONS { 0 } else { self.next + PRESENCE_PARTITIONS };
        let keys: Vec<_> = partitions.iter().map(|(_, _, keys)| keys.clone()).collect();
        // A store that does not answer is the health check's to report.
        if keys.is_empty() || store.has_all(&keys).await.unwrap_or(true) {
            return false;
        }
        for (namespace, partition, _) in partitions {
            if let Some(lane) = namespace.lane(partition).filter(|lane| !lane.is_closed()) {
                sweep(lane).await;
            }
        }
        true
    }
}

/// Gives back what is due, in bounded steps, until nothing is. An error is the lane's to report;
/// the next tick tries again.
async fn sweep(lane: &Lane) {
    let deadline = Instant::now() + SWEEP_LIMIT;
    loop {
        let swept = match lane.submit(Operation::Sweep, deadline) {
            Ok(pending) => pending.wait().await,
            Err(error) => Err(error),
        };
        if swept.is_err() || lane.is_closed() || !lane.wants_sweep(UNHEARD) {
            return;
        }
    }
}

/// Opens the namespaces that other servers have made, and those that this server knows. Returns false to try again soon.
async fn look_around(namespaces: &Arc<Namespaces>, store: &Store) -> bool {
    let known = namespaces.open_known().await;
    let mut cursor = 0;
    loop {
        let Ok((names, next)) = store.namespaces(cursor).await else {
            return false;
        };
        for name in names {
            if namespaces.get(&name).await.is_err() {
                return false;
            }
        }
        if next == 0 {
            return known;
        }
        cursor = next;
    }
}
