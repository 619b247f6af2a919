//! The recorded history of one partition. Uses the domain, the metrics and the log. No I/O.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

use super::{clock::KnownClock, file::MAX_RECORDED_CLAIMS};
use crate::{
    domain::{Clock, Fence, HistoryPoint, Knowledge, NamespaceName, StoreTime, Term, Verdict},
    telemetry::metrics::Metrics,
};

/// The recorded history of one partition: for each term that no later reply has confirmed, the highest acknowledged
/// sequence. Replies may come in any order, so there can be several terms.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(super) gates: bool,
    pub(super) namespace: NamespaceName,
    pub(super) partition: u16,
    pub(super) known: Mutex<Known>,
    pub(super) clock: KnownClock,
    /// Counts the changes that the file has to follow.
    pub(super) changes: Arc<AtomicU64>,
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) epoch: u64,
    pub(super) claims: Vec<HistoryPoint>,
    pub(super) fence: Option<Fence>,
    /// The sequence of the last fenced reply; 0 if the partition is not fenced.
    pub(super) fenced_until: u64,
}

/// The history of a partition in a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    pub(crate) at: HistoryPoint,
    pub(crate) fence: Option<Fence>,
    /// The verdicts on the claims that were sent; empty if all are part of the history.
    pub(crate) verdicts: &'a [Verdict],
}

impl Witness {
    /// The knowledge for a batch.
    pub(crate) fn knowledge(&self) -> Knowledge {
        Knowledge { gates: self.gates, claims: self.known().claims.clone(), reading: self.clock.last() }
    }

    /// The knowledge for the opening of the partition: at least the claim that it exists.
    pub(crate) fn opening_knowledge(&self) -> Knowledge {
        let known = self.known();
        let mut claims = known.claims.clone();
        if !claims.iter().any(|claim| claim.epoch == known.epoch) {
            claims.push(HistoryPoint { epoch: known.epoch, term: Term::NONE, sequence: 0 });
        }
        // The script creates a lost partition with the epoch of the last claim.
        claims.sort_by_key(|claim| (claim.epoch == known.epoch, claim.sequence));
        Knowledge { gates: self.gates, claims, reading: self.clock.last() }
    }

    /// Records the reply to a call that was sent with this knowledge. A reply that is not fenced confirms the claims of
    /// earlier terms, or reports that they were settled.
    pub(crate) fn confirm(&self, sent: &Knowledge, observed: Observed<'_>) {
        let mut known = self.known();
        let Observed { at, fence, verdicts } = observed;
        if fence.is_none_or(|fence| !fence.is_gated) {
            known
                .claims
                .retain(|claim| (claim.epoch, claim.term) == (at.epoch, at.term) || !sent.claims.contains(claim));
        }
        let is_lost = verdicts.contains(&Verdict::Lost);
        if !self.gates && fence.is_none() && is_lost {
            self.metrics.inc_history_losses();
            tracing::error!(
                namespace = self.namespace.as_str(),
                partition = self.partition,
                "the store has lost acknowledged changes; the service continues, as `fast` allows"
            );
        }
        // A reply from before the fence may arrive after the fenced replies.
        let is_late = fence.is_none() && at.epoch == known.epoch && at.sequence < known.fenced_until;
        if !is_late {
            if known.fence.is_some() != fence.is_some() {
                self.report_fence(fence);
            }
            known.fence = fence;
            known.fenced_until = if fence.is_some() { at.sequence } else { 0 };
        }
        self.raise(&mut known, at);
    }

    /// Records the time in a reply, unless the clock is in doubt.
    pub(crate) fn read_clock(&self, now: StoreTime, clock: Clock, sent: Instant, answered: Instant) {
        if clock.doubt == 0 {
            self.clock.record(now, sent, answered);
        }
    }

    /// Records a change that was read from the events.
    pub(crate) fn observe(&self, at: HistoryPoint) {
        let mut known = self.known();
        self.raise(&mut known, at);
    }

    fn raise(&self, known: &mut Known, at: HistoryPoint) {
        if at.term == Term::NONE || at.sequence == 0 {
            return;
        }
        let claims = &mut known.claims;
        match claims.iter_mut().find(|claim| (claim.epoch, claim.term) == (at.epoch, at.term)) {
            Some(claim) if claim.sequence >= at.sequence => return,
            Some(claim) => claim.sequence = at.sequence,
            None => {
                // One claim is reserved for the opening, see `opening_knowledge`.
                if claims.len() + 1 >= MAX_RECORDED_CLAIMS {
                    claims.remove(0);
                }
                claims.push(at);
            }
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports that the partition is fenced, or that it was settled.
    fn report_fence(&self, fence: Option<Fence>) {
        let (namespace, partition) = (self.namespace.as_str(), self.partition);
        match fence {
            Some(Fence { seen, kept, is_gated, .. }) => {
                self.metrics.inc_history_losses();
                self.metrics.add_fenced(1);
                let consequence = if is_gated {
                    "the partition is fenced until an operator settles it"
                } else {
                    "the partition was emptied and continues, as `fast` allows; a reservation that is not found is \
                     refused until the partition is settled"
                };
                tracing::error!(
                    namespace,
                    partition,
                    seen_epoch = seen.epoch,
                    seen_term = seen.term.as_str(),
                    seen_sequence = seen.sequence,
                    kept_sequence = kept,
                    consequence,
                    "the store has lost acknowledged changes"
                );
            }
            None => {
                self.metrics.add_fenced(-1);
                tracing::info!(namespace, partition, "the partition was settled");
            }
        }
    }

    pub(super) fn set_epoch(&self, epoch: u64) {
        let mut known = self.known();
        if known.epoch != epoch {
            known.epoch = epoch;
            self.clock.forget();
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(gates: bool) -> Witness {
        let known = Known { epoch: 7, claims: Vec::new(), fence: None, fenced_until: 0 };
        Witness {
            gates,
            namespace: NamespaceName::parse("sale".into()).unwrap(),
            partition: 0,
            known: Mutex::new(known),
            clock: KnownClock::default(),
            changes: Arc::default(),
            metrics: Arc::new(Metrics::new()),
        }
    }

    fn at(term: char, sequence: u64) -> HistoryPoint {
        HistoryPoint { epoch: 7, term: Term::parse(term.to_string().repeat(40).as_bytes()).unwrap(), sequence }
    }

    fn observed(at: HistoryPoint) -> Observed<'static> {
        Observed { at, fence: None, verdicts: &[] }
    }

    #[test]
    fn a_claim_is_kept_until_a_reply_of_a_later_term_confirms_it() {
        let witness = witness(true);
        let nothing = witness.knowledge();
        witness.confirm(&nothing, observed(at('a', 5)));
        let sent_early = witness.knowledge();
        // A reply of the next term, to a call that was sent before the claim grew.
        witness.confirm(&sent_early, observed(at('a', 9)));
        witness.confirm(&sent_early, observed(at('b', 10)));
        assert_eq!(witness.knowledge().claims, [at('a', 9), at('b', 10)]);
        let sent = witness.knowledge();
        witness.confirm(&sent, observed(at('b', 11)));
        assert_eq!(witness.knowledge().claims, [at('b', 11)]);
        // A reply that was late counts all the same.
        witness.confirm(&sent_early, observed(at('a', 12)));
        assert_eq!(witness.knowledge().claims, [at('b', 11), at('a', 12)]);
        witness.confirm(&nothing, observed(at('b', 3)));
        assert_eq!(witness.knowledge().claims, [at('b', 11), at('a', 12)], "a sequence never falls");
    }

    #[test]
    fn a_fenced_reply_confirms_nothing() {
        let witness = witness(true);
        witness.confirm(&witness.knowledge(), observed(at('a', 5)));
        let fence = Fence {
            noticed_at: crate::domain::StoreTime(1),
            seen: at('a', 5),
            kept: 3,
            id: crate::domain::FenceId::NONE,
            is_gated: true,
        };
        let sent = witness.knowledge();
        witness.confirm(&sent, Observed { at: at('b', 4), fence: Some(fence), verdicts: &[Verdict::Lost] });
        assert_eq!(witness.knowledge().claims, [at('a', 5), at('b', 4)]);
        let sent = witness.knowledge();
        witness.confirm(&sent, Observed { verdicts: &[Verdict::Settled], ..observed(at('b', 6)) });
        assert_eq!(witness.knowledge().claims, [at('b', 6)]);
    }

    #[test]
    fn the_opening_says_that_the_partition_exists() {
        let witness = witness(true);
        let exists = HistoryPoint { epoch: 7, term: Term::NONE, sequence: 0 };
        assert_eq!(witness.opening_knowledge().claims, [exists]);
        witness.confirm(&witness.knowledge(), observed(at('a', 5)));
        assert_eq!(witness.opening_knowledge().claims, [at('a', 5)]);
        witness.set_epoch(8);
        let exists = HistoryPoint { epoch: 8, ..exists };
        assert_eq!(witness.opening_knowledge().claims, [at('a', 5), exists]);
        for number in 0..100 {
            witness.observe(HistoryPoint { epoch: number, ..at('c', 1) });
        }
        assert!(witness.opening_knowledge().claims.len() <= MAX_RECORDED_CLAIMS);
    }
}
