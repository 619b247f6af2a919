//! Many buyers at once: makes a task for each, and opens the doors for all of them together. Knows nothing of
//! what they do inside.

use std::{sync::Arc, time::SystemTime};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::sleep,
};

use super::{
    ledger::{Ledger, Pace},
    plan::{self, Plan},
};
use crate::failure::Failure;

/// One buyer's visit.
pub(crate) struct Visit {
    pub(crate) buyer: u32,
    pub(crate) attempts: u32,
    pub(crate) pace: Pace,
    seats: Arc<Semaphore>,
}

impl Visit {
    /// A seat for one attempt: there are only so many.
    pub(crate) async fn seat(&self) -> Option<OwnedSemaphorePermit> {
        // It can't fail: nobody closes the seats.
        Arc::clone(&self.seats).acquire_owned().await.ok()
    }
}

/// A wave of buyers.
pub(crate) struct Wave {
    /// Attempts of all of them together.
    pub(crate) attempts: u32,
    pub(crate) pace: Pace,
    /// When the doors open; `None`: when everyone is there.
    pub(crate) opens_at: Option<SystemTime>,
}

impl Wave {
    pub(crate) fn rush(attempts: u32) -> Wave {
        Wave { attempts, pace: Pace::Rush, opens_at: None }
    }

    /// Lets all buyers in at the same moment and returns when their visits are over.
    pub(crate) async fn run<F>(self, plan: &Plan, ledger: &Ledger, visit: impl Fn(Visit) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let (doors, closed) = watch::channel(false);
        let seats = Arc::new(Semaphore::new(plan.in_flight as usize));
        let mut buyers = JoinSet::new();
        for (buyer, attempts) in (0..).zip(plan::shares(self.attempts, plan.buyers)) {
            if attempts == 0 {
                break;
            }
            let mut doors = closed.clone();
            let visit = visit(Visit { buyer, attempts, pace: self.pace, seats: Arc::clone(&seats) });
            buyers.spawn(async move {
                // It can't fail: the doors outlive the buyers.
                let _ = doors.wait_for(|&open| open).await;
                visit.await
            });
        }
        if let Some(opens_at) = self.opens_at {
            sleep(opens_at.duration_since(SystemTime::now()).unwrap_or_default()).await;
        }
        ledger.clock_on(self.pace);
        doors.send_replace(true);
        while let Some(buyer) = buyers.join_next().await {
            // Dropping the set on the way out ends all the others.
            buyer.map_err(|error| Failure::Failed(format!("a buyer failed: {error}")))??;
        }
        ledger.clock_off();
        Ok(())
    }
}
