//! The lane: the queue in front of one partition. It commits operations in groups: whatever waits
//! when a batch can go, goes; it never waits for a batch to fill. Uses the store and the telemetry.
//!
//! An operation whose caller is gone or whose deadline has passed is dropped before it is sent, and
//! never after: once sent, it is carried to its end whoever listens. Deadlines are kept by who carries a
//! batch, for all that it carries and all that wait behind it: a caller needs no timer of his own.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, Interval, MissedTickBehavior},
};
use tracing::{Instrument as _, Span};

mod queue;
mod view;

use self::{queue::Queue, view::View};

use crate::{
    domain::{Answer, Clock, HistoryPoint, Knowledge, Millis, NamespaceName, Operation, TimeOfDay},
    resend::Resends,
    store::{
        Mode, Store,
        error::StoreError,
        keys::PartitionKeys,
        wire::{Batch, OperationResult, RawReply, Reply},
    },
    tasks::{Task, Tasks},
    telemetry::{metrics::Metrics, spans},
    witness::{Observed, Witness},
};

/// Most lines that one script call touches, counted as [`Operation::weight`] does.
const MAX_BATCH_WEIGHT: usize = 1_024;
/// The size of a batch of operations that were sent before and have to wait for due holds: one part in so many of the
/// operations, and of the weight, of another batch. Other operations wait for it.
const PARKED_SHARE: usize = 4;
/// Turns of other tasks that a batch lets pass at most, while they bring operations for it.
const MAX_TURNS: usize = 16;
/// Callers who are told before these have their turn, so that their responses leave while others are told.
const TOLD_AT_ONCE: usize = 64;
/// The pause before operations are sent again that wait for the partition's clock to be certain (lua/clock.lua).
const DOUBT_PAUSE: Duration = Duration::from_millis(20);
/// How often deadlines are looked at while a batch is under way: an answer that tells of one is late by this at
/// most.
const LOOK: Duration = Duration::from_millis(5);
/// How often a queue that is more than half full is searched for operations whose caller has gone: a search touches each of them.
const LOOK_FOR_GONE: Duration = Duration::from_millis(50);

/// Why an operation has no answer of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaneError {
    /// Shed: too many wait. Not sent.
    Overloaded,
    /// The caller's deadline passed before it was sent.
    DeadlinePassed,
    /// Sent, and no answer in time.
    OutcomeUnknown { why: Arc<str> },
    /// Certainly not applied.
    Unavailable { why: Arc<str> },
    /// Not applied: the store is at its memory limit.
    Full,
    /// Not applied: the store holds something that is not ours.
    Corrupt { why: Arc<str> },
    /// Not applied: the store holds a record of a newer version.
    Newer { why: Arc<str> },
    /// Not applied: the Redis user of the service lacks permissions, which these ACL rules grant.
    Denied { missing: Arc<str> },
}

/// How lanes work; the same for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneLimits {
    /// Operations that may wait.
    pub(crate) queue: usize,
    /// Operations of one batch.
    pub(crate) batch: usize,
    /// Batches under way at once.
    pub(crate) in_flight: usize,
    /// How long a batch whose reply was lost is sent again, if the retention of the namespace is not shorter than twice this.
    pub(crate) resend_for: Duration,
}

/// Which partition a lane leads to.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) namespace: NamespaceName,
    pub(crate) partition: u16,
    pub(crate) keys: PartitionKeys,
    pub(crate) epoch: u64,
    /// Of the namespace's config, which says the default ttl.
    pub(crate) config_revision: u64,
    pub(crate) default_ttl: Duration,
    /// How long the store remembers requests.
    pub(crate) retention: Duration,
    /// What this server knows of the partition's history.
    pub(crate) witness: Arc<Witness>,
}

/// The way into the queue. The lane ends when this is dropped and its queue is empty.
#[derive(Debug)]
pub(crate) struct Lane {
    queue: Arc<Queue<Job>>,
    view: Arc<View>,
    metrics: Arc<Metrics>,
}

/// An operation, and who waits for it.
#[derive(Debug)]
struct Job {
    operation: Operation,
    caller: Caller,
}

#[derive(Debug)]
struct Caller {
    /// Gone once it was used.
    answer: Option<oneshot::Sender<Result<Answer, LaneError>>>,
    deadline: Instant,
    is_read: bool,
    span: Span,
}

impl Lane {
    /// Starts the lane's workers. `now` is the partition's clock as it was just read.
    pub(crate) fn start(
        destination: Destination,
        now: Millis,
        clock: Clock,
        limits: LaneLimits,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Self {
        let queue = Arc::new(Queue::new(limits.queue));
        let view = Arc::new(View::opened(now, clock));
        for _ in 0..limits.in_flight {
            let worker = Worker {
                destination: destination.clone(),
                limits,
                store: Arc::clone(&store),
                metrics: Arc::clone(&metrics),
                view: Arc::clone(&view),
                queue: Arc::clone(&queue),
            };
            tasks.spawn(Task::LaneWorker, worker.work());
        }
        Self { queue, view, metrics }
    }

    /// Queues an operation, which is dropped if its turn comes after the deadline.
    pub(crate) fn submit(&self, operation: Operation, deadline: Instant) -> Result<Pending, LaneError> {
        let (answer, answered) = oneshot::channel();
        let is_read = operation.is_read();
        let caller = Caller { answer: Some(answer), deadline, is_read, span: Span::current() };
        // A sweep is for holds that no call waits for, so it takes turns with the calls.
        let is_sweep = matches!(operation, Operation::Sweep);
        let job = Job { operation, caller };
        if !(if is_sweep { self.queue.push_parked(job) } else { self.queue.push(job) }) {
            self.metrics.inc_shed();
            return Err(LaneError::Overloaded);
        }
        self.metrics.add_queued(1);
        if self.view.is_dead() {
            // The worker that would have taken it may have ended before it was queued.
            refuse_queued(&self.queue, &self.metrics);
        }
        Ok(Pending { answered, is_read })
    }

    /// The time of day at this time, as the partition has it.
    pub(crate) fn time_of_day(&self, at: Instant) -> TimeOfDay {
        self.view.time_of_day(at)
    }

    /// The partition's clock beside that of the store.
    pub(crate) fn clock(&self) -> Clock {
        self.view.clock()
    }

    /// Whether a hold is due as far as is known, or nothing was heard for so long.
    pub(crate) fn wants_sweep(&self, unheard: Duration) -> bool {
        self.view.wants_sweep(unheard)
    }

    /// Whether the partition was found to be gone, replaced or configured anew: the namespace must be
    /// opened again.
    pub(crate) fn is_closed(&self) -> bool {
        self.view.closed.load(Ordering::Acquire)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// An operation whose answer is not there yet. Dropped before its turn, it is not sent.
pub(crate) struct Pending {
    answered: oneshot::Receiver<Result<Answer, LaneError>>,
    is_read: bool,
}

impl Pending {
    /// Waits for its answer, which comes about at its deadline at the latest.
    pub(crate) async fn wait(self) -> Result<Answer, LaneError> {
        let why = || "the worker of the partition ended".into();
        self.answered.await.unwrap_or_else(|_| {
            Err(if self.is_read {
                LaneError::Unavailable { why: why() }
            } else {
                LaneError::OutcomeUnknown { why: why() }
            })
        })
    }
}

/// Carries one batch at a time; a lane has as many workers as batches may be under way.
struct Worker {
    destination: Destination,
    limits: LaneLimits,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    view: Arc<View>,
    queue: Arc<Queue<Job>>,
}

/// When a worker whose batch is under way looks at deadlines, and when it has searched for callers who have gone.
struct Looks {
    ticks: Interval,
    searched: Instant,
}

impl Worker {
    async fn work(self) {
        let mut closing = Closing { lane: &self, has_ended: false };
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = Looks { ticks, searched: Instant::now() };
        let mut is_turn_of_parked = true;
        // Beside others, parked operations take half of the time: they rest for as long as their last batch has taken.
        let mut rest_until = Instant::now();
        while self.queue.wait().await {
            let jobs = self.next(&mut is_turn_of_parked).await;
            let (start, are_parked) = (Instant::now(), !is_turn_of_parked);
            if !are_parked {
                self.queue.delay_parked(rest_until);
            }
            self.carry(jobs, &mut looks).await;
            if are_parked {
                rest_until = Instant::now() + start.elapsed();
            }
        }
        closing.has_ended = true;
    }

    /// What waits and fits into one batch.
    async fn next(&self, is_turn_of_parked: &mut bool) -> Vec<Job> {
        // No waiting for calls that may come: but those that have come, and wait for their turn on a processor
        // to be put into the queue, have it first.
        let mut waiting = self.queue.waiting();
        for _ in 0..MAX_TURNS {
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut waiting, self.queue.waiting());
            if waiting <= before || waiting >= self.limits.batch {
                break;
            }
        }
        // Parked operations and others take turns: a batch of the first gives back due holds, which takes long.
        let mut jobs = self.next_parked(*is_turn_of_parked || waiting == 0);
        *is_turn_of_parked = jobs.is_empty();
        if jobs.is_empty() {
            jobs = self.queue.take(self.limits.batch);
            let fitting = cut(&jobs, MAX_BATCH_WEIGHT);
            if fitting < jobs.len() {
                self.queue.put_back(jobs.split_off(fitting));
            }
        }
        self.metrics.add_queued(-(jobs.len() as i64));
        jobs
    }

    /// The parked operations of the next batch: few, so that all others get through.
    fn next_parked(&self, is_their_turn: bool) -> Vec<Job> {
        if !is_their_turn {
            return Vec::new();
        }
        let mut jobs = self.queue.take_parked((self.limits.batch / PARKED_SHARE).max(1));
        let fitting = cut(&jobs, MAX_BATCH_WEIGHT / PARKED_SHARE);
        if fitting < jobs.len() {
            self.queue.put_back_parked(jobs.split_off(fitting));
        }
        jobs
    }

    /// Drops the operations in the queue whose deadline has passed: they were not sent. Where the queue fills up, those whose
    /// caller has gone too, so that they keep no place.
    fn give_up_waiting(&self, now: Instant, searched: &mut Instant) {
        let searches = now.duration_since(*searched) >= LOOK_FOR_GONE && self.queue.is_half_full();
        if searches {
            *searched = now;
        }
        let late = self.queue.take_if(|job| job.caller.deadline <= now || searches && !job.caller.is_waiting());
        self.metrics.add_queued(-(late.len() as i64));
        for mut job in late {
            job.caller.tell(Err(LaneError::DeadlinePassed));
        }
    }

    /// Sends these as one batch; once more where the store is at its memory limit. Operations that have to wait for due holds to
    /// be given back are parked in the queue, so that the next batch has room for others.
    async fn carry(&self, mut jobs: Vec<Job>, looks: &mut Looks) {
        let mut mode = Mode::Plain;
        loop {
            let now = Instant::now();
            jobs.retain_mut(|job| {
                let is_wanted = job.caller.is_waiting() && job.caller.deadline > now;
                if !is_wanted {
                    // Who has gone does not hear it.
                    job.caller.tell(Err(LaneError::DeadlinePassed));
                }
                is_wanted
            });
            if jobs.is_empty() {
                return;
            }
            jobs = match self.round(jobs, mode, looks).await {
                Round::Done => return,
                Round::Again { jobs, pause } => {
                    self.metrics.add_queued(jobs.len() as i64);
                    return self.queue.park(jobs, Instant::now() + pause);
                }
                Round::Full(jobs) => {
                    mode = Mode::Resolving;
                    jobs
                }
            };
        }
    }

    async fn round(&self, mut jobs: Vec<Job>, mode: Mode, looks: &mut Looks) -> Round {
        let to = &self.destination;
        let mut batch = Batch::new(jobs.iter().map(|job| &job.operation), to.default_ttl);
        self.metrics.observe_batch(jobs.len());
        let span =
            spans::batch_span(to.namespace.as_str(), to.partition, jobs.len(), jobs.iter().map(|job| &job.caller.span));
        let result = {
            let mut sending = pin!(self.send(&mut batch, mode, &span));
            loop {
                tokio::select! {
                    biased;
                    result = &mut sending => break result,
                    _ = looks.ticks.tick() => {
                        let now = Instant::now();
                        jobs.iter_mut().for_each(|job| job.caller.give_up(now));
                        self.give_up_waiting(now, &mut looks.searched);
                    }
                }
            }
        };

        let (operations, callers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|Job { operation, caller }| (operation, caller)).unzip();
        match result {
            Ok(Sent { reply, knowledge, at }) => match batch.decode(&reply, to.partition, operations) {
                Ok(reply) => self.answer(reply, &knowledge, callers, at).await,
                Err(error) => self.fail(&error.into(), callers),
            },
            Err(StoreError::Full) if mode == Mode::Plain => {
                let (full, rest): (Vec<_>, Vec<_>) =
                    operations.into_iter().zip(callers).partition(|(operation, _)| operation.grows());
                for (_, mut caller) in full {
                    caller.tell(Err(LaneError::Full));
                }
                Round::Full(rest.into_iter().map(|(operation, caller)| Job { operation, caller }).collect())
            }
            Err(error) => self.fail(&error, callers),
        }
    }

    async fn answer(&self, reply: Reply, known: &Knowledge, callers: Vec<Caller>, sent: Instant) -> Round {
        let at = HistoryPoint { epoch: self.destination.epoch, term: reply.term, sequence: reply.sequence };
        let witness = &self.destination.witness;
        witness.confirm(known, Observed { at, fence: reply.fence, verdicts: &reply.verdicts });
        let answered = Instant::now();
        witness.read_clock(reply.now, reply.clock, sent, answered);
        if let Some(step) = self.view.note(&reply, answered) {
            self.metrics.inc_clock_step();
            tracing::debug!(
                namespace = self.destination.namespace.as_str(),
                partition = self.destination.partition,
                milliseconds = step,
                "the store's clock made a step"
            );
        }
        self.metrics.add_expired(reply.expired);
        if reply.config_revision != self.destination.config_revision {
            if reply.config_revision < self.destination.config_revision {
                tracing::error!(
                    namespace = self.destination.namespace.as_str(),
                    partition = self.destination.partition,
                    version = self.destination.config_revision,
                    "the store has lost a config, which this server writes back"
                );
            }
            self.view.closed.store(true, Ordering::Release);
        }
        let mut again = Vec::new();
        for (done, (result, mut caller)) in reply.results.into_iter().zip(callers).enumerate() {
            if done > 0 && done.is_multiple_of(TOLD_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            match result {
                OperationResult::Answered(answer) => caller.tell(Ok(answer)),
                OperationResult::Again(mut operation) => {
                    // Of what was sent twice, one that was lost may arrive after the one that was answered.
                    operation.set_repeated();
                    again.push(Job { operation, caller });
                }
            }
        }
        let pause = if reply.clock.doubt > 0 { DOUBT_PAUSE } else { Duration::ZERO };
        if again.is_empty() { Round::Done } else { Round::Again { jobs: again, pause } }
    }

    fn fail(&self, error: &StoreError, callers: Vec<Caller>) -> Round {
        // A missing permission is the health check's to log: once, not for each batch.
        if !matches!(error, StoreError::Denied { .. }) {
            tracing::warn!(
                namespace = self.destination.namespace.as_str(),
                partition = self.destination.partition,
                operations = callers.len(),
                kind = error.kind(),
                %error,
                "a batch failed"
            );
        }
        for mut caller in callers {
            let is_read = caller.is_read;
            caller.tell(Err(match error {
                StoreError::Unknown { why } if !is_read => LaneError::OutcomeUnknown { why: why.clone() },
                StoreError::Unknown { why } | StoreError::NotApplied { why } => {
                    LaneError::Unavailable { why: why.clone() }
                }
                StoreError::Full => LaneError::Full,
                StoreError::Corrupt { why } => LaneError::Corrupt { why: why.clone() },
                StoreError::Newer { why } => LaneError::Newer { why: why.clone() },
                StoreError::Denied { missing, .. } => LaneError::Denied { missing: missing.clone() },
                StoreError::Busy | StoreError::NoScript | StoreError::Closed | StoreError::Foreign { .. } => {
                    LaneError::Unavailable { why: error.to_string().into() }
                }
            }));
        }
        Round::Done
    }

    /// Sends a batch until it is known what became of it: every change in it has an identity, so that
    /// it means the same however often it arrives. Returns the reply and the knowledge that was sent with it.
    async fn send(&self, batch: &mut Batch, mode: Mode, span: &Span) -> Result<Sent, StoreError> {
        let mut resends = Resends::new(Instant::now(), self.limits.resend_for, self.destination.retention);
        loop {
            let redis = spans::redis_span(span, "batch");
            let Destination { keys, epoch, witness, .. } = &self.destination;
            let knowledge = witness.knowledge();
            let attempt = self.store.apply(keys, *epoch, &knowledge, batch, mode).instrument(redis);
            let error = match resends.attempt(attempt).await {
                Ok((reply, at)) => return Ok(Sent { reply, knowledge, at }),
                Err(error) => error,
            };
            self.metrics.inc_store_error(error.kind());
            if matches!(error, StoreError::Closed) {
                self.view.closed.store(true, Ordering::Release);
            }
            batch.clear_first_attempt();
            resends.pause_after(error).await?;
        }
    }
}

/// Closes the lane of a worker that ends before its queue does, as after a panic: the namespace is opened again, and
/// nobody waits for a worker that is gone. The callers of the batch in hand are answered when their jobs are dropped.
struct Closing<'a> {
    lane: &'a Worker,
    has_ended: bool,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.lane.view.kill();
            self.lane.queue.close();
            refuse_queued(&self.lane.queue, &self.lane.metrics);
        }
    }
}

/// Answers all who wait in a queue that no worker takes from: nothing of theirs was sent.
fn refuse_queued(queue: &Queue<Job>, metrics: &Metrics) {
    let queued = queue.take_if(|_| true);
    metrics.add_queued(-(queued.len() as i64));
    for mut job in queued {
        job.caller.tell(Err(LaneError::Unavailable { why: "the worker of the partition ended".into() }));
    }
}

/// A batch that was answered.
struct Sent {
    reply: RawReply,
    /// What was sent with it.
    knowledge: Knowledge,
    at: Instant,
}

/// What a round leaves to do.
enum Round {
    Done,
    Again {
        jobs: Vec<Job>,
        /// Before they are sent again.
        pause: Duration,
    },
    Full(Vec<Job>),
}

impl Caller {
    fn is_waiting(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }

    /// A caller who has gone hears nothing, and that is his choice.
    fn tell(&mut self, result: Result<Answer, LaneError>) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(result);
        }
    }

    /// Lets him go if his deadline has passed while his operation is under way.
    fn give_up(&mut self, now: Instant) {
        if self.deadline > now || self.answer.is_none() {
            return;
        }
        self.tell(Err(if self.is_read {
            LaneError::DeadlinePassed
        } else {
            LaneError::OutcomeUnknown { why: "the deadline passed before the store answered".into() }
        }));
    }
}

/// How many of these go into one batch that has room for this weight.
fn cut(jobs: &[Job], room: usize) -> usize {
    let mut weight = 0;
    let fit = jobs.iter().take_while(|job| {
        weight += job.operation.weight();
        weight <= room
    });
    fit.count().max(1)
}
