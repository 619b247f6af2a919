//! Runs a phase of the sale with many buyers: one task per buyer, all released at the same moment. Independent of what
//! the buyers do.

use std::{sync::Arc, time::SystemTime};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

use super::{
    ledger::{LatencyClass, Ledger},
    plan::{self, Plan},
};
use crate::failure::Failure;

/// One buyer of a phase.
pub(crate) struct Worker {
    pub(crate) buyer: u32,
    pub(crate) attempts: u32,
    pub(crate) latency_class: LatencyClass,
    permits: Arc<Semaphore>,
}

impl Worker {
    /// A permit for one attempt; their number limits the attempts in flight.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // It can't fail: the semaphore is never closed.
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }
}

/// A phase of the sale.
pub(crate) struct Phase {
    /// Attempts of all buyers together.
    pub(crate) attempts: u32,
    pub(crate) latency_class: LatencyClass,
    /// When the buyers start; `None`: when all tasks exist.
    pub(crate) opens_at: Option<SystemTime>,
}

impl Phase {
    pub(crate) fn concurrent(attempts: u32) -> Phase {
        Phase { attempts, latency_class: LatencyClass::Concurrent, opens_at: None }
    }

    /// Starts all buyers at the same moment and returns when all have ended.
    pub(crate) async fn run<F>(self, plan: &Plan, ledger: &Ledger, worker: impl Fn(Worker) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let (start_barrier, closed) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(plan.in_flight as usize));
        let mut buyers = JoinSet::new();
        for (buyer, attempts) in (0..).zip(plan::shares(self.attempts, plan.buyers)) {
            if attempts == 0 {
                break;
            }
            let mut start_barrier = closed.clone();
            let worker =
                worker(Worker { buyer, attempts, latency_class: self.latency_class, permits: Arc::clone(&permits) });
            buyers.spawn(async move {
                // It can't fail: the sender outlives the buyers.
                let _ = start_barrier.wait_for(|&open| open).await;
                worker.await
            });
        }
        if let Some(opens_at) = self.opens_at {
            sleep(opens_at.duration_since(SystemTime::now()).unwrap_or_default()).await;
        }
        ledger.start_clock(self.latency_class);
        start_barrier.send_replace(true);
        while let Some(buyer) = buyers.join_next().await {
            // On an error, dropping the set aborts the others.
            buyer.map_err(|error| Failure::Failed(format!("a buyer failed: {error}")))??;
        }
        ledger.stop_clock();
        Ok(())
    }
}
