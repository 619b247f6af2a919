//! The reports of the sweeper: metrics, and log lines that are written once until the state changes.

use std::collections::{BTreeSet, HashSet};

use super::{Sweeper, is_broken, work::Discovered};
use crate::{
    domain::{ClockOffsets, NamespaceName},
    store::NamespaceStore,
};

/// The least change of a clock's offset that is logged, in milliseconds.
const REPORTED_OFFSET: u64 = 1_000;

impl<S: NamespaceStore> Sweeper<S> {
    /// Counts the namespaces that could not be opened, and logs each once, until it opens. Returns those that can't be
    /// opened now.
    pub(super) fn report_unopened(&self, before: &HashSet<NamespaceName>, found: Discovered) -> HashSet<NamespaceName> {
        let mut now = HashSet::new();
        for (name, error) in found.failed {
            self.metrics.inc_sweep_failure();
            let is_broken = is_broken(&error);
            if is_broken && !before.contains(&name) {
                tracing::error!(namespace = name.as_str(), %error, "a namespace can't be opened, so it is not swept");
            }
            if is_broken || before.contains(&name) {
                now.insert(name);
            }
        }
        if found.is_whole {
            for name in before.difference(&now) {
                tracing::info!(namespace = name.as_str(), "a namespace can be opened again, or is gone");
            }
        } else {
            now.extend(before.iter().cloned());
        }
        now
    }

    /// Counts the invalid entries of the list of namespaces, and logs them if they have changed.
    pub(super) fn report_bad_names(&self, before: &mut BTreeSet<String>, found: &Discovered) {
        if !found.is_whole || found.bad == *before {
            return;
        }
        self.metrics.set_bad_names(found.bad.len());
        match found.bad.first() {
            Some(first) => tracing::error!(
                count = found.bad.len(),
                first,
                "the list of namespaces has entries that this service did not write; they are ignored"
            ),
            None => tracing::info!("the list of namespaces has no invalid entry any more"),
        }
        before.clone_from(&found.bad);
    }

    pub(super) fn report_clocks(&self, reported: &mut ClockOffsets) {
        let offsets = self.namespaces.clock_offsets();
        self.metrics.set_clock_offsets(offsets);
        if offsets.differs(*reported, REPORTED_OFFSET) {
            tracing::warn!(
                clock_offset_ms = offsets.clock,
                time_of_day_offset_ms = offsets.time_of_day,
                "the difference between the store's clock and those of the partitions has changed"
            );
            *reported = offsets;
        }
    }
}
