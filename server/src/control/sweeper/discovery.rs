//! The discovery of namespaces: opens the recorded ones and those of the list, and ends abandoned deletions. Uses the
//! namespaces, and the store for the list.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::{
    jobs::OPEN_LIMIT,
    work::{Discovered, Done},
};
use crate::{
    domain::NamespaceName,
    namespaces::{DeleteError, Namespaces},
    store::{NamespaceStore, error::StoreError},
    telemetry::metrics::Metrics,
};

/// The most openings of namespaces of the list at the same time.
const OPENINGS_AT_ONCE: usize = 4;

/// Opens the recorded namespaces and those of the list, and skips each that can't be opened. Then ends the abandoned
/// deletions.
pub(super) async fn discover_namespaces<S: NamespaceStore>(
    namespaces: Arc<Namespaces<S>>,
    store: Arc<S>,
    metrics: Arc<Metrics>,
) -> Done {
    let mut found = Discovered { is_whole: true, failed: Vec::new(), bad: BTreeSet::new() };
    let mut names = namespaces.known();
    let mut cursor = Some(0);
    loop {
        let open = |name: NamespaceName| {
            let namespaces = &namespaces;
            async move {
                let late = |_| Err(StoreError::unknown("the namespace did not open in time"));
                let opened = timeout(OPEN_LIMIT, namespaces.get(&name)).await.unwrap_or_else(late);
                opened.err().map(|error| (name, error))
            }
        };
        let failed = stream::iter(names).map(open).buffer_unordered(OPENINGS_AT_ONCE);
        let mut failed: Vec<_> = failed.filter_map(std::future::ready).collect().await;
        found.failed.append(&mut failed);
        let Some(from) = cursor else { break };
        let Ok(page) = store.namespaces(from).await else {
            found.is_whole = false;
            break;
        };
        names = page.names;
        cursor = (page.next != 0).then_some(page.next);
        found.bad.extend(page.bad);
    }
    for name in namespaces.abandoned_deletions() {
        resume_deletion(&namespaces, &name, &metrics).await;
    }
    // A name can be recorded and in the list, and the list can return it twice.
    let mut seen = HashSet::new();
    found.failed.retain(|(name, _)| seen.insert(name.clone()));
    Done::Discovered(found)
}

/// Ends an abandoned deletion, or reverses it if units are held. A failure is tried again later.
async fn resume_deletion<S: NamespaceStore>(namespaces: &Namespaces<S>, name: &NamespaceName, metrics: &Metrics) {
    let result = timeout(OPEN_LIMIT, namespaces.resume_deletion(name)).await;
    let name = name.as_str();
    match result {
        Ok(Ok(false)) => return,
        Ok(Ok(true)) => tracing::warn!(namespace = name, "an abandoned deletion was completed"),
        Ok(Err(DeleteError::HasHolds { held, .. })) => {
            tracing::warn!(namespace = name, held, "an abandoned deletion was reversed: units are held");
        }
        Ok(Err(DeleteError::Refused(refusal))) => {
            tracing::warn!(namespace = name, ?refusal, "an abandoned deletion was reversed");
        }
        Ok(Err(error)) => {
            metrics.inc_sweep_failure();
            tracing::warn!(namespace = name, ?error, "an abandoned deletion can't be completed now");
            return;
        }
        Err(_) => {
            metrics.inc_sweep_failure();
            tracing::warn!(namespace = name, "an abandoned deletion did not end in time");
            return;
        }
    }
    metrics.inc_resumed_deletion();
}
