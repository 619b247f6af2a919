//! The lane: the queue in front of one partition, and the workers that run its operations in batches.
//! Uses the store's traits, the resend policy, the witness and the telemetry. Does not know Redis.
//!
//! - [`handle`][]: [`Lane`] submits operations; [`Pending`] awaits an answer;
//! - [`queue`][]: bounded, in order, with a second order for parked operations;
//! - [`worker`][]: encodes, sends and decodes one batch after the other, and responds to the callers;
//! - [`select`][]: chooses the operations of the next batch;
//! - [`responder`][]: the caller of one operation;
//! - [`clock`][]: the partition's clock and next deadline, as of the last reply.
//!
//! A worker sends whatever is queued when it is free. It never waits for a batch to fill.
//!
//! An operation is dropped only while it is queued: if its caller disconnected or its deadline passed.
//! Once sent, it always runs to completion. The worker enforces deadlines for its batch and for the
//! queue, so callers need no timers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

mod clock;
mod handle;
mod queue;
mod responder;
mod select;
mod worker;

pub(crate) use self::handle::{Lane, Pending};
use self::{clock::PartitionClock, queue::Queue, responder::Responder};
use crate::{
    domain::{Answer, NamespaceName, Operation},
    random::Random,
    store::{error::StoreError, keys::PartitionKeys, wire::NamespaceConfig},
    tasks::Tasks,
    telemetry::metrics::Metrics,
    witness::Witness,
};

/// Why an operation has no answer from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaneError {
    /// Not sent: the queue is full.
    Overloaded,
    /// Nothing was applied: the caller's deadline passed while the operation was queued, or during a read.
    DeadlinePassed,
    /// The operation was sent, but its answer did not arrive. It may have been applied.
    OutcomeUnknown { why: Arc<str> },
    /// Certainly not applied.
    Unavailable { why: Arc<str> },
    /// Not applied: the store is at its memory limit.
    Full,
    /// Not applied: the store contains a record that this service did not write.
    Corrupt { why: Arc<str> },
    /// Not applied: the store contains a record of a newer version.
    Newer { why: Arc<str> },
    /// Not applied: the Redis user of the service lacks permissions. `missing` has the ACL rules that grant them.
    Denied { missing: Arc<str> },
}

impl LaneError {
    /// The error of one operation of a batch that has failed. A read has changed nothing, so its outcome is
    /// never unknown.
    fn of_batch(error: &StoreError, is_read: bool) -> Self {
        match error {
            StoreError::Unknown { why } if !is_read => Self::OutcomeUnknown { why: why.clone() },
            StoreError::Unknown { why } | StoreError::NotApplied { why } => Self::Unavailable { why: why.clone() },
            StoreError::Full => Self::Full,
            StoreError::Corrupt { why } => Self::Corrupt { why: why.clone() },
            StoreError::Newer { why } => Self::Newer { why: why.clone() },
            StoreError::Denied { missing, .. } => Self::Denied { missing: missing.clone() },
            StoreError::Busy | StoreError::NoScript | StoreError::Closed | StoreError::Foreign { .. } => {
                Self::Unavailable { why: error.to_string().into() }
            }
        }
    }
}

/// The limits of every lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneLimits {
    /// Operations in the queue.
    pub(crate) queue: usize,
    /// Operations in one batch.
    pub(crate) batch: usize,
    /// Batches in flight at once, which is the number of workers.
    pub(crate) in_flight: usize,
    /// A batch whose reply was lost is resent for this long, and for half of the namespace's
    /// retention at most.
    pub(crate) resend_for: Duration,
}

/// Everything that lanes share.
#[derive(Debug)]
pub(crate) struct LaneContext<S> {
    pub(crate) limits: LaneLimits,
    /// Only lanes use its connections.
    pub(crate) store: Arc<S>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
    pub(crate) random: Random,
}

impl<S> Clone for LaneContext<S> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits,
            store: Arc::clone(&self.store),
            metrics: Arc::clone(&self.metrics),
            tasks: self.tasks.clone(),
            random: self.random.clone(),
        }
    }
}

/// The partition behind a lane.
#[derive(Clone, Debug)]
pub(crate) struct PartitionRef {
    pub(crate) namespace: NamespaceName,
    pub(crate) partition: u16,
    pub(crate) keys: PartitionKeys,
    pub(crate) epoch: u64,
    /// The revision of the namespace's config at the time of opening.
    pub(crate) config_revision: u64,
    pub(crate) default_ttl: Duration,
    /// The store remembers requests for this long.
    pub(crate) retention: Duration,
    /// This server's knowledge of the partition's history.
    pub(crate) witness: Arc<Witness>,
}

impl PartitionRef {
    /// A partition of a namespace that was opened with this config.
    pub(crate) fn new(
        namespace: &NamespaceName,
        partition: u16,
        epoch: u64,
        config: &NamespaceConfig,
        witness: Arc<Witness>,
    ) -> Self {
        Self {
            namespace: namespace.clone(),
            partition,
            keys: PartitionKeys::new(namespace, partition),
            epoch,
            config_revision: config.revision,
            default_ttl: config.default_ttl,
            retention: config.retention,
            witness,
        }
    }
}

/// An operation and its caller.
#[derive(Debug)]
struct Job {
    operation: Operation,
    responder: Responder,
}

/// The state that the handle of a lane and its workers share.
#[derive(Debug)]
struct Shared {
    queue: Queue<Job>,
    clock: PartitionClock,
    metrics: Arc<Metrics>,
    /// The partition is gone, was replaced, or has another config: the namespace must be reopened.
    is_closed: AtomicBool,
    /// A worker ended while the lane was still in use, for example after a panic.
    is_dead: AtomicBool,
}

impl Shared {
    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Closes the lane after a worker has ended early, and refuses the queued operations. The namespace
    /// is reopened with a new lane.
    fn kill(&self) {
        self.is_dead.store(true, Ordering::Release);
        self.close();
        self.queue.close();
        self.refuse_queued();
    }

    /// Refuses every queued operation of a lane without a worker. None of them was sent.
    fn refuse_queued(&self) {
        let queued = self.queue.take_if(|_| true);
        self.metrics.add_queued(-(queued.len() as i64));
        for mut job in queued {
            job.responder.respond(Err(LaneError::Unavailable { why: WORKER_ENDED.into() }));
        }
    }
}

const WORKER_ENDED: &str = "the worker of the partition ended";
