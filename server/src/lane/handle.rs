//! The handle of a lane: submits operations to its queue and awaits their answers. Uses the queue and
//! the clock, and starts the workers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Answer, Job, LaneContext, LaneError, PartitionClock, PartitionRef, Queue, Responder, Shared, WORKER_ENDED,
    worker::Worker,
};
use crate::{
    domain::{Clock, Operation, StoreTime, TimeOfDay},
    store::BatchStore,
    tasks::Task,
};

/// Submits operations to the queue. The lane ends when this is dropped and its queue is empty.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: Arc<Shared>,
}

impl Lane {
    /// Starts the workers of a lane. `now` and `clock` are the partition's clock as just read.
    pub(crate) fn start<S: BatchStore>(
        partition: &PartitionRef,
        now: StoreTime,
        clock: Clock,
        context: &LaneContext<S>,
    ) -> Self {
        let shared = Arc::new(Shared {
            queue: Queue::new(context.limits.queue),
            clock: PartitionClock::opened(now, clock),
            metrics: Arc::clone(&context.metrics),
            is_closed: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
        });
        for _ in 0..context.limits.in_flight {
            let worker = Worker { partition: partition.clone(), context: context.clone(), shared: Arc::clone(&shared) };
            context.tasks.spawn(Task::LaneWorker, worker.run());
        }
        Self { shared }
    }

    /// Queues an operation. If it is still queued at the deadline, it is dropped.
    pub(crate) fn submit(&self, operation: Operation, deadline: Instant) -> Result<Pending, LaneError> {
        let Shared { queue, metrics, .. } = &*self.shared;
        let is_read = operation.is_read();
        let (responder, answer) = Responder::new(deadline, is_read);
        // Calls return the due holds that they depend on, so a sweep need not delay them. It is parked, and
        // parked operations take turns with others.
        let is_sweep = matches!(operation, Operation::Sweep);
        let job = Job { operation, responder };
        let is_queued = if is_sweep { queue.push_parked(job) } else { queue.push(job) };
        if !is_queued {
            metrics.inc_shed();
            return Err(LaneError::Overloaded);
        }
        metrics.add_queued(1);
        if self.shared.is_dead.load(Ordering::Acquire) {
            // The last worker may have ended before the operation was queued.
            self.shared.refuse_queued();
        }
        Ok(Pending { answer, is_read })
    }

    /// The partition's time of day at this instant.
    pub(crate) fn time_of_day(&self, at: Instant) -> TimeOfDay {
        self.shared.clock.time_of_day(at)
    }

    /// The partition's clock relative to that of the store.
    pub(crate) fn clock(&self) -> Clock {
        self.shared.clock.relative()
    }

    /// Whether a hold is due, or the last reply is older than this.
    pub(crate) fn needs_sweep(&self, stale_after: Duration) -> bool {
        self.shared.clock.needs_sweep(stale_after)
    }

    /// Whether the partition is gone, was replaced, or has another config. The namespace must then be
    /// reopened.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.is_closed.load(Ordering::Acquire)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// An operation that was submitted. If it is dropped while queued, the operation is not sent.
pub(crate) struct Pending {
    answer: oneshot::Receiver<Result<Answer, LaneError>>,
    is_read: bool,
}

impl Pending {
    /// Awaits the answer, which arrives shortly after the deadline at the latest.
    pub(crate) async fn wait(self) -> Result<Answer, LaneError> {
        self.answer.await.unwrap_or_else(|_| {
            let why = WORKER_ENDED.into();
            Err(if self.is_read { LaneError::Unavailable { why } } else { LaneError::OutcomeUnknown { why } })
        })
    }
}
