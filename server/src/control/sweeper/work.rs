//! The work items of the sweeper, and their results. Data only, no I/O.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use futures_util::stream::FuturesUnordered;

use crate::{
    domain::NamespaceName,
    lane::{Lane, LaneError},
    namespaces::Namespace,
    store::error::StoreError,
};

/// The most sweeps, and openings of closed namespaces, at the same time.
pub(super) const SWEEPS_AT_ONCE: usize = 16;

/// One partition of an open namespace.
pub(super) struct Target {
    pub(super) namespace: Arc<Namespace>,
    pub(super) partition: u16,
}

impl Target {
    pub(super) fn lane(&self) -> Option<&Lane> {
        self.namespace.lane(self.partition)
    }

    pub(super) fn key(&self) -> Key {
        (self.namespace.name.clone(), Some(self.partition))
    }
}

/// The key of a work item: a partition, or a namespace as a whole.
pub(super) type Key = (NamespaceName, Option<u16>);

/// A work item.
pub(super) enum Item {
    /// A partition that has to be swept.
    Partition(Target),
    /// A closed namespace that has to be opened again.
    Closed(NamespaceName),
}

impl Item {
    pub(super) fn key(&self) -> Key {
        match self {
            Item::Partition(target) => target.key(),
            Item::Closed(name) => (name.clone(), None),
        }
    }
}

/// The result of a work item.
pub(super) enum Done {
    Swept(Target, Result<(), LaneError>),
    Opened(NamespaceName, Result<(), StoreError>),
    /// All partitions of the check if one of them is gone, otherwise none.
    Checked(Vec<Target>),
    Discovered(Discovered),
}

/// The result of a reading of the list of all namespaces.
pub(super) struct Discovered {
    /// Whether the list was read to its end.
    pub(super) is_whole: bool,
    /// Namespaces that can't be opened, each with its error.
    pub(super) failed: Vec<(NamespaceName, StoreError)>,
    /// Entries of the list that are no valid names.
    pub(super) bad: BTreeSet<String>,
}

/// Waiting and running work. Each item is in it once. Bounded by the number of open partitions.
#[derive(Default)]
pub(super) struct Work {
    pub(super) waiting: VecDeque<Item>,
    /// The keys of all waiting and running items.
    known: HashSet<Key>,
    /// The number of running items, at most [`SWEEPS_AT_ONCE`].
    pub(super) sweeps: usize,
    pub(super) running: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
}

impl Work {
    pub(super) fn add(&mut self, item: Item) {
        if self.known.insert(item.key()) {
            self.waiting.push_back(item);
        }
    }

    pub(super) fn end(&mut self, key: &Key) {
        self.known.remove(key);
        self.sweeps -= 1;
    }
}
