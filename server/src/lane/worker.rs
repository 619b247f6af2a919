//! The worker of a lane: takes operations from the queue, encodes them as one batch, sends the batch, decodes
//! the reply and responds to the callers. If the reply is lost, it sends the batch again. Uses the store, the
//! resend policy, the witness and the telemetry; `select` chooses the operations.
//!
//! The calls are nested in the order of this file: `run` (until the lane ends), `run_batch` (one batch, in one or
//! two modes), `run_in_mode` (encode, send, decode), `send` (with resends), `respond`.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::{
    Job, LaneContext, LaneError, PartitionRef, Responder, Shared,
    select::{DeadlineChecks, NextBatch},
};
use crate::{
    domain::{HistoryPoint, Knowledge, Operation},
    resend::Resends,
    store::{
        BatchCall, BatchStore, Mode,
        error::StoreError,
        wire::{Batch, OperationResult, Reply},
    },
    telemetry::spans,
    witness::Observed,
};

/// Responses delivered before the worker yields, so connections can flush while the rest are
/// delivered.
const RESPONSES_PER_YIELD: usize = 64;
/// Pause before operations are resent that the script could not decide because the partition's clock
/// is in doubt (`lua/scripts/load/clock.lua`).
const DOUBT_PAUSE: Duration = Duration::from_millis(20);

/// Runs one batch at a time. A lane has as many workers as it may have batches in flight.
pub(super) struct Worker<S> {
    pub(super) partition: PartitionRef,
    pub(super) context: LaneContext<S>,
    pub(super) shared: Arc<Shared>,
}

/// The outcome of a batch in one mode.
enum BatchOutcome {
    /// Every caller has its response.
    Done,
    /// The script could not decide these operations yet: due holds must be returned first, or the
    /// clock is in doubt. They are resent after the pause.
    Again { jobs: Vec<Job>, pause: Duration },
    /// The store is at its memory limit, and nothing was applied. These operations may still be applied
    /// in [`Mode::Resolving`].
    Full(Vec<Job>),
}

/// The reply to a batch, not decoded yet.
struct Answered<R> {
    reply: R,
    /// The knowledge that was sent with the batch.
    knowledge: Knowledge,
    sent_at: Instant,
    /// Whether the reply to an earlier attempt was lost. Its copy of the batch may still reach the store.
    lost_reply: bool,
}

impl<S: BatchStore> Worker<S> {
    /// Runs batches until the lane is dropped and its queue is empty.
    pub(super) async fn run(self) {
        let mut guard = KillOnDrop { shared: &self.shared, is_done: false };
        let mut checks = DeadlineChecks::new();
        let mut is_turn_of_parked = true;
        // While others are queued, parked operations get at most half of the time: after each batch they
        // rest for as long as it took.
        let mut rest_until = Instant::now();
        while self.shared.queue.wait().await {
            let NextBatch { jobs, were_parked } = self.next_batch(is_turn_of_parked).await;
            is_turn_of_parked = !were_parked;
            let start = Instant::now();
            if !were_parked {
                self.shared.queue.delay_parked(rest_until);
            }
            self.run_batch(jobs, &mut checks).await;
            if were_parked {
                rest_until = Instant::now() + start.elapsed();
            }
        }
        guard.is_done = true;
    }

    /// Runs these operations as one batch. If the store is at its memory limit, refuses the Reserves and
    /// runs the others once more. Parks operations that the script could not decide yet, so the next
    /// batch has room for others.
    pub(super) async fn run_batch(&self, mut jobs: Vec<Job>, checks: &mut DeadlineChecks) {
        let mut mode = Mode::Plain;
        loop {
            let now = Instant::now();
            jobs.retain_mut(|job| {
                let is_wanted = job.responder.is_wanted(now);
                if !is_wanted {
                    job.responder.expire();
                }
                is_wanted
            });
            if jobs.is_empty() {
                return;
            }
            jobs = match self.run_in_mode(jobs, mode, checks).await {
                BatchOutcome::Done => return,
                BatchOutcome::Again { jobs, pause } => {
                    self.shared.metrics.add_queued(jobs.len() as i64);
                    return self.shared.queue.park(jobs, Instant::now() + pause);
                }
                BatchOutcome::Full(jobs) => {
                    mode = Mode::Resolving;
                    jobs
                }
            };
        }
    }

    /// Encodes these operations, sends them, and responds to their callers. Checks deadlines meanwhile.
    async fn run_in_mode(&self, jobs: Vec<Job>, mode: Mode, checks: &mut DeadlineChecks) -> BatchOutcome {
        let PartitionRef { namespace, partition, default_ttl, .. } = &self.partition;
        let (operations, mut responders): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|Job { operation, responder }| (operation, responder)).unzip();
        let mut batch = Batch::new(&operations, *default_ttl);
        self.shared.metrics.observe_batch(operations.len());
        let callers = responders.iter().map(|responder| &responder.span);
        let span = spans::batch_span(namespace.as_str(), *partition, operations.len(), callers);
        let result = {
            let mut sending = pin!(self.send(&operations, &mut batch, mode, &span));
            loop {
                tokio::select! {
                    biased;
                    result = &mut sending => break result,
                    _ = checks.ticks.tick() => {
                        let now = Instant::now();
                        responders.iter_mut().for_each(|responder| responder.expire_in_flight(now));
                        self.expire_queued(now, checks);
                    }
                }
            }
        };
        match result {
            Ok(Answered { reply, knowledge, sent_at, lost_reply }) => {
                if lost_reply {
                    responders.iter_mut().for_each(Responder::record_lost_reply);
                }
                match self.context.store.decode(*partition, &batch, reply, operations) {
                    Ok(reply) => self.respond(reply, &knowledge, responders, sent_at).await,
                    Err(error) => self.fail(&error, responders),
                }
            }
            Err(StoreError::Full) if mode == Mode::Plain => {
                let jobs = operations.into_iter().zip(responders);
                let (full, rest): (Vec<_>, Vec<_>) = jobs
                    .map(|(operation, responder)| Job { operation, responder })
                    .partition(|job| job.operation.grows());
                for mut job in full {
                    job.responder.respond(Err(LaneError::Full));
                }
                BatchOutcome::Full(rest)
            }
            Err(error) => self.fail(&error, responders),
        }
    }

    /// Sends a batch, and sends it again while its reply is lost and [`Resends`] allows it. Every change
    /// in it has an identity, so it has one effect, however often it arrives.
    async fn send(
        &self,
        operations: &[Operation],
        batch: &mut Batch,
        mode: Mode,
        span: &Span,
    ) -> Result<Answered<S::Reply>, StoreError> {
        let PartitionRef { keys, epoch, witness, retention, .. } = &self.partition;
        let limits = &self.context.limits;
        let mut resends = Resends::new(Instant::now(), limits.resend_for, *retention, &self.context.random);
        loop {
            let redis = spans::redis_span(span, "batch");
            let knowledge = witness.knowledge();
            let call = BatchCall { keys, epoch: *epoch, knowledge: &knowledge, operations, batch, mode };
            let call = self.context.store.run_batch(call).instrument(redis);
            let error = match resends.attempt(call).await {
                Ok((reply, sent_at)) => {
                    return Ok(Answered { reply, knowledge, sent_at, lost_reply: resends.has_lost_reply() });
                }
                Err(error) => error,
            };
            self.shared.metrics.inc_store_error(error.kind());
            // The partition is gone or was replaced.
            if matches!(error, StoreError::Closed) {
                self.shared.close();
            }
            batch.clear_first_attempt();
            resends.pause_after(error).await?;
        }
    }

    /// Records what the reply shows of the partition, and responds to the callers.
    async fn respond(
        &self,
        reply: Reply,
        known: &Knowledge,
        responders: Vec<Responder>,
        sent_at: Instant,
    ) -> BatchOutcome {
        self.observe(&reply, known, sent_at);
        let mut again = Vec::new();
        for (done, (result, mut responder)) in reply.results.into_iter().zip(responders).enumerate() {
            if done > 0 && done.is_multiple_of(RESPONSES_PER_YIELD) {
                tokio::task::yield_now().await;
            }
            match result {
                OperationResult::Answered(answer) => responder.respond(Ok(answer)),
                OperationResult::Again(mut operation) => {
                    // If the batch was resent, an earlier copy may still arrive. So the next one must not
                    // claim to be the first.
                    operation.set_repeated();
                    again.push(Job { operation, responder });
                }
            }
        }
        if again.is_empty() {
            return BatchOutcome::Done;
        }
        let pause = if reply.clock.doubt > 0 { DOUBT_PAUSE } else { Duration::ZERO };
        BatchOutcome::Again { jobs: again, pause }
    }

    /// Records the history, the clock and the config revision of a reply.
    fn observe(&self, reply: &Reply, known: &Knowledge, sent_at: Instant) {
        let PartitionRef { namespace, partition, epoch, config_revision, witness, .. } = &self.partition;
        let metrics = &self.shared.metrics;
        let at = HistoryPoint { epoch: *epoch, term: reply.term, sequence: reply.sequence };
        witness.confirm(known, Observed { at, fence: reply.fence, verdicts: &reply.verdicts });
        let received_at = Instant::now();
        witness.read_clock(reply.now, reply.clock, sent_at, received_at);
        if let Some(step) = self.shared.clock.observe(reply, received_at) {
            metrics.inc_clock_step();
            tracing::debug!(
                namespace = namespace.as_str(),
                partition,
                milliseconds = step,
                "the store's clock made a step"
            );
        }
        metrics.add_expired(reply.expired);
        if reply.config_revision == *config_revision {
            return;
        }
        if reply.config_revision < *config_revision {
            tracing::error!(
                namespace = namespace.as_str(),
                partition,
                version = config_revision,
                "the store has lost a config, which this server writes back"
            );
        }
        self.shared.close();
    }

    /// Responds to all callers of a batch that has failed.
    fn fail(&self, error: &StoreError, responders: Vec<Responder>) -> BatchOutcome {
        // The health check logs a missing permission, once and not for each batch.
        if !matches!(error, StoreError::Denied { .. }) {
            tracing::warn!(
                namespace = self.partition.namespace.as_str(),
                partition = self.partition.partition,
                operations = responders.len(),
                kind = error.kind(),
                %error,
                "a batch failed"
            );
        }
        for mut responder in responders {
            let is_read = responder.is_read();
            responder.respond(Err(LaneError::of_batch(error, is_read)));
        }
        BatchOutcome::Done
    }
}

/// Kills the lane if its worker ends early, for example after a panic. The callers of the batch in
/// flight get their response when their jobs are dropped ([`Pending::wait`](super::Pending::wait)).
struct KillOnDrop<'a> {
    shared: &'a Shared,
    is_done: bool,
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.shared.kill();
        }
    }
}
