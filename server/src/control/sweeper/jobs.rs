//! The jobs of the sweeper on one partition or one namespace, each within a time limit. Uses the lanes, the namespaces
//! and the store.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::work::{Done, Target};
use crate::{
    domain::{NamespaceName, Operation},
    lane::{Lane, LaneError},
    namespaces::Namespaces,
    store::{NamespaceStore, error::StoreError},
};

/// Longest time that one sweep may take.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);
/// A lane responds at the deadline of an operation. If it has not this much later, it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Longest time that one namespace may take to open.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Expires due holds, in bounded steps, until none is due or [`SWEEP_LIMIT`] has passed.
pub(super) async fn sweep(target: Target, stale_after: Duration) -> Done {
    let result = match target.lane() {
        Some(lane) => sweep_lane(lane, stale_after).await,
        None => Ok(()),
    };
    Done::Swept(target, result)
}

async fn sweep_lane(lane: &Lane, stale_after: Duration) -> Result<(), LaneError> {
    let deadline = Instant::now() + SWEEP_LIMIT;
    loop {
        let pending = lane.submit(Operation::Sweep, deadline)?;
        // The lane responds by the deadline, unless it is stuck.
        let answer = timeout_at(deadline + STUCK_AFTER, pending.wait()).await;
        answer.unwrap_or(Err(LaneError::DeadlinePassed))?;
        // Holds that are still due at the deadline wait for the next sweep.
        if lane.is_closed() || !lane.needs_sweep(stale_after) || Instant::now() >= deadline {
            return Ok(());
        }
    }
}

/// Opens a closed namespace again.
pub(super) async fn open<S: NamespaceStore>(namespaces: Arc<Namespaces<S>>, name: NamespaceName) -> Done {
    let result = match timeout(OPEN_LIMIT, namespaces.get(&name)).await {
        Ok(Ok(Some(_))) => Ok(()),
        // It was deleted. `get` creates a namespace again that the store has lost, so absent means deleted.
        Ok(Ok(None)) => {
            namespaces.drop_closed(&name);
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StoreError::unknown("the namespace did not open in time")),
    };
    Done::Opened(name, result)
}

/// Checks whether these partitions are present. If one is gone, returns all of them, to be swept: the sweep of the
/// one that is gone closes its lane.
pub(super) async fn check<S: NamespaceStore>(store: Arc<S>, targets: Vec<Target>) -> Done {
    let keys: Vec<_> = targets.iter().map(|target| target.namespace.keys(target.partition)).collect();
    // The health check reports a store that does not respond.
    let is_complete = keys.is_empty() || store.has_all(&keys).await.unwrap_or(true);
    Done::Checked(if is_complete { Vec::new() } else { targets })
}
