//! The promises: all conditions that an OK of this server depends on, with their states. They come
//! from the last check of the store, and from this server's record of history, clocks and fences.
//! Uses the namespaces and the witnesses; sends nothing to the store.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use crate::config::Durability;
use crate::domain::{Clock, ClockOffsets, Promise, PromiseState};
use crate::namespaces::Namespaces;
use crate::store::fitness;
use crate::store::identity::STORE_IDENTITY;
use crate::witness::{FencedPartition, Witnesses, Written};

const HISTORY: &str = "history";
const CLOCKS: &str = "clocks";
const PARTITIONS: &str = "partitions";

/// The most fenced partitions in one detail.
const NAMED: usize = 5;

/// The result of the last check of the store.
pub(crate) struct LastPass(RwLock<Vec<Promise>>);

impl LastPass {
    /// Before the first check.
    pub(crate) fn new(durability: Durability) -> Self {
        let why = "the store was not checked yet";
        let mut promises = fitness::unchecked(Ok(()), why, durability);
        promises.push(Promise::not_checked(STORE_IDENTITY, why));
        Self(RwLock::new(promises))
    }

    pub(crate) fn set(&self, promises: Vec<Promise>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = promises;
    }

    fn list(&self) -> Vec<Promise> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All promises.
#[derive(Clone)]
pub(crate) struct Promises {
    pub(crate) pass: Arc<LastPass>,
    pub(crate) witnesses: Arc<Witnesses>,
    pub(crate) namespaces: Arc<Namespaces>,
}

impl Promises {
    /// The current states, always of the same promises in the same order.
    pub(crate) fn list(&self) -> Vec<Promise> {
        let mut promises = self.pass.list();
        let is_answering = promises.first().is_some_and(|promise| promise.state == PromiseState::Kept);
        let path = self.witnesses.path().map(|path| path.display().to_string());
        promises.push(history(path.as_deref(), &self.witnesses.written()));
        let open = self.namespaces.all();
        let read: Vec<Clock> = open.iter().flat_map(|namespace| namespace.lanes()).map(|lane| lane.clock()).collect();
        promises.push(clocks(&read, is_answering));
        promises.push(partitions(&self.witnesses.fenced()));
        promises
    }
}

/// Whether a loss during a downtime of this server is detected.
fn history(path: Option<&str>, written: &Written) -> Promise {
    match (path, written) {
        (None, _) => Promise::not_checked(
            HISTORY,
            "memory only: after a restart this server cannot detect a store that lost changes: set --state-dir",
        ),
        (Some(path), Written { error: Some(error), .. }) => Promise::broken(
            HISTORY,
            format!("{path} cannot be written ({error}): make room there, and let the server write"),
        ),
        (Some(path), Written { at: None, .. }) => Promise::not_checked(HISTORY, format!("{path} was not written yet")),
        (Some(path), Written { at: Some(at), .. }) => {
            let age = SystemTime::now().duration_since(*at).unwrap_or_default().as_secs();
            Promise::kept(HISTORY, format!("{path} contains all that this server has recorded; written {age} s ago"))
        }
    }
}

/// The offsets of the open partitions' clocks from the store's clock.
fn clocks(read: &[Clock], is_answering: bool) -> Promise {
    if read.is_empty() {
        return Promise::not_checked(CLOCKS, "this server has no open partition");
    }
    if !is_answering {
        return Promise::not_checked(CLOCKS, "the store can't be used, so its clock is not read");
    }
    let doubt = read.iter().map(|clock| clock.doubt).max().unwrap_or_default();
    if doubt > 0 {
        return Promise::not_checked(
            CLOCKS,
            format!(
                "the store's clock has moved by {doubt} ms, and it is not certain yet whether time has passed \
                 (docs/concepts/clock.md)"
            ),
        );
    }
    let ClockOffsets { clock, time_of_day } =
        read.iter().fold(ClockOffsets::default(), |offsets, clock| offsets.or(*clock));
    Promise::kept(
        CLOCKS,
        format!("deadlines differ from the store's clock by {clock} ms at most, the time of day by {time_of_day} ms"),
    )
}

/// Whether this server has detected a fenced partition.
fn partitions(fenced: &[FencedPartition]) -> Promise {
    if fenced.is_empty() {
        return Promise::kept(PARTITIONS, "this server has detected no fenced partition");
    }
    let is_gated = fenced.iter().any(|fenced| fenced.fence.is_gated);
    let of_kind = fenced.iter().filter(|fenced| fenced.fence.is_gated == is_gated);
    let name = |fenced: &FencedPartition| {
        let FencedPartition { namespace, partition, fence } = fenced;
        format!("{}/{partition} (fence {})", namespace.as_str(), fence.id.as_str())
    };
    let names: Vec<_> = of_kind.clone().take(NAMED).map(name).collect();
    let more = if of_kind.count() > NAMED { " and others" } else { "" };
    let names = names.join(", ");
    if is_gated {
        let detail = format!("lost changes and are fenced: {names}{more}: settle them (docs/concepts/lost-changes.md)");
        return Promise::broken(PARTITIONS, detail);
    }
    Promise::not_checked(
        PARTITIONS,
        format!(
            "were emptied and continue, as fast allows: {names}{more}: settle them (docs/concepts/lost-changes.md)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fence, FenceId, HistoryPoint, NamespaceName, StoreTime, Term};

    #[test]
    fn history_is_kept_only_in_a_file_that_was_written() {
        let states = |path, written| history(path, &written).state;
        let (at, error) = (Some(SystemTime::now()), Some("full".to_owned()));
        assert_eq!(states(None, Written::default()), PromiseState::NotChecked);
        assert_eq!(states(Some("f"), Written::default()), PromiseState::NotChecked);
        assert_eq!(states(Some("f"), Written { at, error: None }), PromiseState::Kept);
        assert_eq!(states(Some("f"), Written { at, error }), PromiseState::Broken);
    }

    #[test]
    fn a_clock_that_nobody_has_read_or_that_is_in_doubt_is_not_checked() {
        let sound = Clock { offset: -3, correction: 1, doubt: 0 };
        assert_eq!(clocks(&[], true).state, PromiseState::NotChecked);
        assert_eq!(clocks(&[sound], false).state, PromiseState::NotChecked);
        let kept = clocks(&[sound, Clock::default()], true);
        assert_eq!(kept.state, PromiseState::Kept);
        assert!(kept.detail.contains("by -3 ms") && kept.detail.contains("by -2 ms"), "{kept}");
        let doubtful = clocks(&[sound, Clock { doubt: 5_000, ..sound }], true);
        assert_eq!(doubtful.state, PromiseState::NotChecked);
        assert!(doubtful.detail.contains("5000 ms"), "{doubtful}");
    }

    #[test]
    fn a_gated_partition_breaks_the_promise_and_one_that_goes_on_does_not() {
        let seen = HistoryPoint { epoch: 1, term: Term::NONE, sequence: 9 };
        let fenced = |is_gated| FencedPartition {
            namespace: NamespaceName::parse("sale".into()).unwrap(),
            partition: 2,
            fence: Fence { noticed_at: StoreTime(1), seen, kept: 3, id: FenceId(*b"0123456789abcdef"), is_gated },
        };
        assert_eq!(partitions(&[]).state, PromiseState::Kept);
        assert_eq!(partitions(&[fenced(false)]).state, PromiseState::NotChecked);
        let broken = partitions(&[fenced(false), fenced(true)]);
        assert_eq!(broken.state, PromiseState::Broken);
        assert!(broken.detail.contains("sale/2 (fence 0123456789abcdef)"), "{broken}");
    }
}
