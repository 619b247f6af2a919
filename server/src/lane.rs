//! The lane: the queue in front of one partition. It commits operations in groups: whatever waits
//! when a batch can go, goes; it never waits for a batch to fill. Uses the store and the telemetry.
//!
//! An operation whose caller is gone or whose deadline has passed is dropped before it is sent, and
//! never after: once sent, it is carried to its end whoever listens.

use std::{
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::Rng as _;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};
use tracing::{Instrument as _, Span};

use crate::{
    domain::{Answer, Millis, NamespaceName, Operation},
    store::{
        Mode, Store,
        error::StoreError,
        keys::PartitionKeys,
        wire::{Batch, RawReply, Reply, Verdict},
    },
    telemetry::{metrics::Metrics, spans},
};

/// Most lines that one script call touches, counted as [`Operation::weight`] does.
const MAX_BATCH_WEIGHT: usize = 1_024;
/// Turns of other tasks that a batch lets pass at most, while they bring operations for it.
const MAX_TURNS: usize = 4;
/// The first pause before a batch whose reply was lost is sent again.
const RESEND_BACKOFF: Duration = Duration::from_millis(10);
/// The longest such pause.
const MAX_RESEND_BACKOFF: Duration = Duration::from_millis(500);
/// A step of the store's clock against ours that is reported.
const REPORTED_JUMP: Duration = Duration::from_secs(1);

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
    /// How long a batch whose reply was lost is sent again.
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
}

/// A handle on the queue. The lane ends when its last handle is dropped and its queue is empty.
#[derive(Debug)]
pub(crate) struct Lane {
    queue: mpsc::Sender<Job>,
    view: Arc<View>,
    metrics: Arc<Metrics>,
}

/// What is known of the partition from its last reply.
#[derive(Debug)]
struct View {
    last: StdMutex<Seen>,
    closed: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    now: Millis,
    at: Instant,
    next_due: Option<Millis>,
}

struct Job {
    operation: Operation,
    answer: oneshot::Sender<Result<Answer, LaneError>>,
    deadline: Instant,
    /// Set when the operation goes out: from then on its outcome may be unknown.
    sent: Arc<AtomicBool>,
    span: Span,
}

impl Lane {
    /// Starts the lane's workers. `now` is the store's clock as it was just read.
    pub(crate) fn start(
        destination: Destination,
        now: Millis,
        limits: LaneLimits,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(limits.queue);
        let receiver = Arc::new(Mutex::new(receiver));
        let seen = Seen { now, at: Instant::now(), next_due: None };
        let view = Arc::new(View { last: StdMutex::new(seen), closed: AtomicBool::new(false) });
        for _ in 0..limits.in_flight {
            let worker = Worker {
                destination: destination.clone(),
                limits,
                store: Arc::clone(&store),
                metrics: Arc::clone(&metrics),
                view: Arc::clone(&view),
            };
            tokio::spawn(worker.work(Arc::clone(&receiver)));
        }
        Self { queue, view, metrics }
    }

    /// Queues an operation, which is dropped if its turn comes after the deadline.
    pub(crate) fn submit(&self, operation: Operation, deadline: Instant) -> Result<Pending, LaneError> {
        let (answer, answered) = oneshot::channel();
        let sent = Arc::new(AtomicBool::new(false));
        let is_read = operation.is_read();
        let job = Job { operation, answer, deadline, sent: Arc::clone(&sent), span: Span::current() };
        if self.queue.try_send(job).is_err() {
            self.metrics.inc_shed();
            return Err(LaneError::Overloaded);
        }
        self.metrics.add_queued(1);
        Ok(Pending { answered, sent, is_read, deadline })
    }

    /// The store's clock, as far as it can be told from here.
    pub(crate) fn now(&self) -> Millis {
        let seen = self.view.seen();
        Millis(seen.now.0 + seen.at.elapsed().as_millis() as u64)
    }

    /// Whether a hold is due as far as is known, or nothing was heard for so long.
    pub(crate) fn wants_sweep(&self, unheard: Duration) -> bool {
        let seen = self.view.seen();
        seen.at.elapsed() >= unheard || seen.next_due.is_some_and(|due| due <= self.now())
    }

    /// Whether the partition was found to be gone, replaced or configured anew: the namespace must be
    /// opened again.
    pub(crate) fn is_closed(&self) -> bool {
        self.view.closed.load(Ordering::Acquire)
    }
}

/// An operation whose answer is not there yet. Dropped before its turn, it is not sent.
pub(crate) struct Pending {
    answered: oneshot::Receiver<Result<Answer, LaneError>>,
    sent: Arc<AtomicBool>,
    is_read: bool,
    deadline: Instant,
}

impl Pending {
    /// Waits for its answer, until its deadline at most.
    pub(crate) async fn wait(mut self) -> Result<Answer, LaneError> {
        // Of many that wait together most are answered by the time that somebody looks.
        let answered = match self.answered.try_recv() {
            Ok(result) => return result,
            Err(_) => tokio::time::timeout_at(self.deadline, &mut self.answered).await,
        };
        let was_sent = self.sent.load(Ordering::Acquire);
        match answered {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if !was_sent => Err(LaneError::Unavailable { why: "the server is stopping".into() }),
            Ok(Err(_)) => Err(LaneError::OutcomeUnknown { why: "the server is stopping".into() }),
            Err(_) if self.is_read || !was_sent => Err(LaneError::DeadlinePassed),
            Err(_) => Err(LaneError::OutcomeUnknown { why: "the deadline passed before the store answered".into() }),
        }
    }
}

impl View {
    fn seen(&self) -> Seen {
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes a reply that was asked for at `asked`; returns the jump of the store's clock, if large.
    fn note(&self, reply: &Reply, asked: Instant) -> Option<i64> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = Instant::now();
        // The clock was read at some time between the question and the answer.
        let earliest = last.now.0 + asked.saturating_duration_since(last.at).as_millis() as u64;
        let latest = last.now.0 + at.saturating_duration_since(last.at).as_millis() as u64;
        let tolerance = REPORTED_JUMP.as_millis() as u64;
        let jump = if reply.now.0 > latest + tolerance {
            Some((reply.now.0 - latest) as i64)
        } else if reply.now.0 + tolerance < earliest {
            Some(-((earliest - reply.now.0) as i64))
        } else {
            None
        };
        *last = Seen { now: reply.now, at, next_due: reply.next_due };
        jump
    }
}

/// Carries one batch at a time; a lane has as many workers as batches may be under way.
struct Worker {
    destination: Destination,
    limits: LaneLimits,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    view: Arc<View>,
}

impl Worker {
    async fn work(self, queue: Arc<Mutex<mpsc::Receiver<Job>>>) {
        loop {
            let Some(mut jobs) = self.next(&mut *queue.lock().await).await else { return };
            self.metrics.add_queued(-(jobs.len() as i64));
            loop {
                let fitting = cut(&jobs);
                if fitting == jobs.len() {
                    break;
                }
                let rest = jobs.split_off(fitting);
                self.carry(jobs).await;
                jobs = rest;
            }
            self.carry(jobs).await;
        }
    }

    /// What waits for a batch; `None` once nothing ever will.
    async fn next(&self, queue: &mut mpsc::Receiver<Job>) -> Option<Vec<Job>> {
        let mut jobs = Vec::new();
        if queue.recv_many(&mut jobs, self.limits.batch).await == 0 {
            return None;
        }
        // No waiting for calls that may come: but those that have come, and wait for their turn on a processor
        // to be put into the queue, have it first.
        for _ in 0..MAX_TURNS {
            tokio::task::yield_now().await;
            let before = jobs.len();
            while jobs.len() < self.limits.batch {
                let Ok(job) = queue.try_recv() else { break };
                jobs.push(job);
            }
            if jobs.len() == before {
                break;
            }
        }
        Some(jobs)
    }

    /// Carries these to their end. Usually one round; more where due holds had to be given back
    /// first, or where the store is at its memory limit.
    async fn carry(&self, mut jobs: Vec<Job>) {
        let mut mode = Mode::Plain;
        loop {
            let now = Instant::now();
            if !jobs.iter().all(|job| job.is_wanted(now)) {
                jobs = jobs.into_iter().filter_map(|job| job.if_wanted(now)).collect();
            }
            if jobs.is_empty() {
                return;
            }
            jobs = match self.round(jobs, mode).await {
                Round::Done => return,
                Round::Again(jobs) => jobs,
                Round::Full(jobs) => {
                    mode = Mode::Resolving;
                    jobs
                }
            };
        }
    }

    async fn round(&self, jobs: Vec<Job>, mode: Mode) -> Round {
        let to = &self.destination;
        let batch = Batch::new(jobs.iter().map(|job| &job.operation), to.default_ttl);
        for job in &jobs {
            job.sent.store(true, Ordering::Release);
        }
        self.metrics.observe_batch(jobs.len());
        let span = spans::batch_span(to.namespace.as_str(), to.partition, jobs.len(), jobs.iter().map(|job| &job.span));
        let asked = Instant::now();
        let result = self.send(&batch, mode, &span).await;

        let (operations, callers): (Vec<_>, Vec<_>) = jobs.into_iter().map(Job::split).unzip();
        match result {
            Ok(value) => match batch.decode(&value, operations) {
                Ok(reply) => self.answer(reply, callers, asked),
                Err(error) => self.fail(&error, callers, |_| false),
            },
            Err(StoreError::Full) if mode == Mode::Plain => {
                let (full, rest): (Vec<_>, Vec<_>) =
                    operations.into_iter().zip(callers).partition(|(operation, _)| operation.grows());
                for (_, caller) in full {
                    caller.tell(Err(LaneError::Full));
                }
                Round::Full(rest.into_iter().map(Job::join).collect())
            }
            Err(error) => {
                let reads: Vec<bool> = operations.iter().map(Operation::is_read).collect();
                self.fail(&error, callers, |i| reads[i])
            }
        }
    }

    fn answer(&self, reply: Reply, callers: Vec<Caller>, asked: Instant) -> Round {
        if let Some(jump) = self.view.note(&reply, asked) {
            self.metrics.inc_clock_jump();
            tracing::warn!(
                namespace = self.destination.namespace.as_str(),
                partition = self.destination.partition,
                milliseconds = jump,
                "the store's clock jumped"
            );
        }
        self.metrics.add_expired(reply.expired);
        if reply.config_revision != self.destination.config_revision {
            self.view.closed.store(true, Ordering::Release);
        }
        let mut again = Vec::new();
        for (verdict, caller) in reply.verdicts.into_iter().zip(callers) {
            match verdict {
                Verdict::Answered(answer) => caller.tell(Ok(answer)),
                Verdict::Again(operation) => again.push(Job::join((operation, caller))),
            }
        }
        if again.is_empty() { Round::Done } else { Round::Again(again) }
    }

    fn fail(&self, error: &StoreError, callers: Vec<Caller>, is_read: impl Fn(usize) -> bool) -> Round {
        if matches!(error, StoreError::Closed) {
            self.view.closed.store(true, Ordering::Release);
        }
        tracing::warn!(
            namespace = self.destination.namespace.as_str(),
            partition = self.destination.partition,
            operations = callers.len(),
            kind = error.kind(),
            %error,
            "a batch failed"
        );
        for (i, caller) in callers.into_iter().enumerate() {
            caller.tell(Err(match error {
                StoreError::Unknown { why } if !is_read(i) => LaneError::OutcomeUnknown { why: why.clone() },
                StoreError::Unknown { why } | StoreError::NotApplied { why } => {
                    LaneError::Unavailable { why: why.clone() }
                }
                StoreError::Full => LaneError::Full,
                StoreError::Corrupt { why } => LaneError::Corrupt { why: why.clone() },
                StoreError::NoScript | StoreError::Closed => LaneError::Unavailable { why: error.to_string().into() },
            }));
        }
        Round::Done
    }

    /// Sends a batch until it is known what became of it, as it is: every change in it has an
    /// identity, so that it means the same however often it arrives.
    async fn send(&self, batch: &Batch, mode: Mode, span: &Span) -> Result<RawReply, StoreError> {
        let give_up = Instant::now() + self.limits.resend_for;
        let mut backoff = RESEND_BACKOFF;
        let mut doubt = None;
        loop {
            let redis = spans::redis_span(span, "batch");
            let result =
                self.store.apply(&self.destination.keys, self.destination.epoch, batch, mode).instrument(redis).await;
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.metrics.inc_store_error(error.kind());
            match (&error, &doubt) {
                (StoreError::Unknown { .. }, _) => doubt = Some(error),
                (_, None) => return Err(error),
                // Whatever it is now: an earlier attempt may have been applied.
                (_, Some(_)) => {}
            }
            if Instant::now() + backoff >= give_up {
                return Err(doubt.unwrap_or(StoreError::unknown("the store did not answer")));
            }
            let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(MAX_RESEND_BACKOFF);
        }
    }
}

/// What a round leaves to do.
enum Round {
    Done,
    Again(Vec<Job>),
    Full(Vec<Job>),
}

/// Who waits for an operation.
struct Caller {
    answer: oneshot::Sender<Result<Answer, LaneError>>,
    deadline: Instant,
    sent: Arc<AtomicBool>,
    span: Span,
}

impl Caller {
    /// A caller who has gone hears nothing, and that is his choice.
    fn tell(self, result: Result<Answer, LaneError>) {
        let _ = self.answer.send(result);
    }
}

impl Job {
    fn split(self) -> (Operation, Caller) {
        let Self { operation, answer, deadline, sent, span } = self;
        (operation, Caller { answer, deadline, sent, span })
    }

    /// Back in the queue: the store has said that it was not applied.
    fn join((operation, caller): (Operation, Caller)) -> Self {
        let Caller { answer, deadline, sent, span } = caller;
        sent.store(false, Ordering::Release);
        Self { operation, answer, deadline, sent, span }
    }

    /// Whether somebody can use the answer still.
    fn is_wanted(&self, now: Instant) -> bool {
        self.deadline > now && !self.answer.is_closed()
    }

    fn if_wanted(self, now: Instant) -> Option<Self> {
        if self.is_wanted(now) {
            return Some(self);
        }
        // Who has gone does not hear it.
        self.split().1.tell(Err(LaneError::DeadlinePassed));
        None
    }
}

/// How many of these go into one batch.
fn cut(jobs: &[Job]) -> usize {
    let mut weight = 0;
    let fit = jobs.iter().take_while(|job| {
        weight += job.operation.weight();
        weight <= MAX_BATCH_WEIGHT
    });
    fit.count().max(1)
}
