//! The choice of the next batch: takes the operations that fit from the queue, and drops queued operations
//! that nobody needs any more. Uses the queue. No I/O.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{Job, LaneError, worker::Worker};
use crate::store::BatchStore;

/// Most lines in one batch, counted as [`Operation::weight`](crate::domain::Operation::weight) does.
const MAX_BATCH_WEIGHT: usize = 1_024;
/// A batch of parked operations has this fraction of the operations and lines of other batches,
/// because the others wait for it.
const PARKED_FRACTION: usize = 4;
/// Most yields to other tasks before a batch is sent, while they submit operations to it.
const MAX_COALESCE_YIELDS: usize = 16;
/// Deadline check interval while a batch is in flight. A response about a passed deadline is at most
/// this late.
const DEADLINE_TICK: Duration = Duration::from_millis(5);
/// Interval of the search for disconnected callers in a queue that is more than half full. A search
/// visits every queued operation.
const DISCONNECTED_SEARCH_INTERVAL: Duration = Duration::from_millis(50);

/// When a worker whose batch is in flight checks deadlines, and when it last searched for
/// disconnected callers.
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

impl<S: BatchStore> Worker<S> {
    /// The queued operations that fit into one batch.
    pub(super) async fn next_batch(&self, is_turn_of_parked: &mut bool) -> Vec<Job> {
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
        // Parked operations and others take turns. A batch of parked ones expires due holds, which
        // takes long.
        let mut jobs = if *is_turn_of_parked || waiting == 0 { self.next_parked() } else { Vec::new() };
        *is_turn_of_parked = jobs.is_empty();
        if jobs.is_empty() {
            jobs = queue.take(limit);
            let len = batch_len(&jobs, MAX_BATCH_WEIGHT);
            if len < jobs.len() {
                queue.put_back(jobs.split_off(len));
            }
        }
        self.shared.metrics.add_queued(-(jobs.len() as i64));
        jobs
    }

    /// The parked operations of the next batch.
    fn next_parked(&self) -> Vec<Job> {
        let queue = &self.shared.queue;
        let mut jobs = queue.take_parked((self.context.limits.batch / PARKED_FRACTION).max(1));
        let len = batch_len(&jobs, MAX_BATCH_WEIGHT / PARKED_FRACTION);
        if len < jobs.len() {
            queue.put_back_parked(jobs.split_off(len));
        }
        jobs
    }

    /// Drops queued operations whose deadline has passed. In a queue that fills up, also drops those
    /// whose caller has disconnected, so they take no room.
    pub(super) fn expire_queued(&self, now: Instant, checks: &mut DeadlineChecks) {
        let queue = &self.shared.queue;
        let is_search = now.duration_since(checks.searched_at) >= DISCONNECTED_SEARCH_INTERVAL && queue.is_half_full();
        if is_search {
            checks.searched_at = now;
        }
        let dropped = queue.take_if(|job| job.responder.deadline <= now || is_search && !job.responder.is_waiting());
        self.shared.metrics.add_queued(-(dropped.len() as i64));
        for mut job in dropped {
            job.responder.respond(Err(LaneError::DeadlinePassed));
        }
    }
}

/// How many of these jobs fit into a batch of this weight, but at least one.
fn batch_len(jobs: &[Job], max_weight: usize) -> usize {
    let mut weight = 0;
    let fitting = jobs.iter().take_while(|job| {
        weight += job.operation.weight();
        weight <= max_weight
    });
    fitting.count().max(1)
}
