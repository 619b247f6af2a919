//! The choice of the next batch: takes the operations that fit from the queue, and drops queued operations
//! whose caller no longer waits for them. Uses the queue. No I/O.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{Job, worker::Worker};
use crate::store::BatchStore;

/// Most lines in one batch, counted as [`Operation::weight`](crate::domain::Operation::weight) does.
const MAX_BATCH_WEIGHT: usize = 1_024;
/// Divides the limits on operations and lines for a batch of parked operations, because other
/// operations wait for its end.
const PARKED_FRACTION: usize = 4;
/// Before a batch is sent, the worker yields at most this often to tasks that still submit operations.
const MAX_COALESCE_YIELDS: usize = 16;
/// Deadline check interval while a batch is in flight. A response about a passed deadline is at most
/// this late.
const DEADLINE_TICK: Duration = Duration::from_millis(5);
/// Interval of the search for disconnected callers in a queue that is more than half full. A search
/// visits every queued operation.
const DISCONNECTED_SEARCH_INTERVAL: Duration = Duration::from_millis(50);

/// The timers of a worker whose batch is in flight: when it checks deadlines, and when it last
/// searched for disconnected callers.
pub(super) struct DeadlineChecks {
    pub(super) ticks: Interval,
    searched_at: Instant,
}

impl DeadlineChecks {
    pub(super) fn new() -> Self {
        let mut ticks = tokio::time::interval(DEADLINE_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, searched_at: Instant::now() }
    }
}

/// The operations of the next batch: all of them were parked, or none.
pub(super) struct NextBatch {
    pub(super) jobs: Vec<Job>,
    pub(super) were_parked: bool,
}

impl<S: BatchStore> Worker<S> {
    /// Takes the queued operations that fit into one batch.
    pub(super) async fn next_batch(&self, is_turn_of_parked: bool) -> NextBatch {
        // Never wait for future calls, but let tasks that are already runnable submit theirs first.
        let (queue, limit) = (&self.shared.queue, self.context.limits.batch);
        let mut waiting = queue.waiting();
        for _ in 0..MAX_COALESCE_YIELDS {
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut waiting, queue.waiting());
            if waiting <= before || waiting >= limit {
                break;
            }
        }
        // Parked operations and others take turns, because a batch of parked ones returns due holds,
        // which takes long.
        let mut jobs = if is_turn_of_parked || waiting == 0 { self.next_parked() } else { Vec::new() };
        let were_parked = !jobs.is_empty();
        if !were_parked {
            jobs = queue.take(limit);
            let len = batch_len(&jobs, MAX_BATCH_WEIGHT);
            if len < jobs.len() {
                queue.put_back(jobs.split_off(len));
            }
        }
        self.shared.metrics.add_queued(-(jobs.len() as i64));
        NextBatch { jobs, were_parked }
    }

    /// Takes the parked operations that fit into one batch.
    fn next_parked(&self) -> Vec<Job> {
        let queue = &self.shared.queue;
        let mut jobs = queue.take_parked((self.context.limits.batch / PARKED_FRACTION).max(1));
        let len = batch_len(&jobs, MAX_BATCH_WEIGHT / PARKED_FRACTION);
        if len < jobs.len() {
            queue.put_back_parked(jobs.split_off(len));
        }
        jobs
    }

    /// Drops queued operations whose deadline has passed. If the queue is more than half full, also
    /// drops those whose caller has disconnected, to make room.
    pub(super) fn expire_queued(&self, now: Instant, checks: &mut DeadlineChecks) {
        let queue = &self.shared.queue;
        let is_search = now.duration_since(checks.searched_at) >= DISCONNECTED_SEARCH_INTERVAL && queue.is_half_full();
        if is_search {
            checks.searched_at = now;
        }
        let dropped = queue.take_if(|job| job.responder.deadline <= now || is_search && !job.responder.is_waiting());
        self.shared.metrics.add_queued(-(dropped.len() as i64));
        for mut job in dropped {
            job.responder.expire();
        }
    }
}

/// The number of jobs that fit into a batch of this weight; at least one.
fn batch_len(jobs: &[Job], max_weight: usize) -> usize {
    let mut weight = 0;
    let fitting = jobs.iter().take_while(|job| {
        weight += job.operation.weight();
        weight <= max_weight
    });
    fitting.count().max(1)
}
