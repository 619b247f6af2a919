//! Many buyers at once: makes a task for each, and opens the doors for all of them together.

use std::sync::Arc;

use rand::Rng as _;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    buyer,
    ledger::{Ledger, Pace},
    plan::{self, Mix, Plan},
    shop::Shop,
};
use crate::failure::Failure;

/// Lets all buyers in at the same moment and returns when their `attempts` are done.
pub(crate) async fn run(
    shop: &Shop,
    plan: &Arc<Plan>,
    ledger: &Arc<Ledger>,
    attempts: u32,
    mix: Mix,
) -> Result<(), Failure> {
    let (doors, closed) = watch::channel(false);
    let seats = Arc::new(Semaphore::new(plan.in_flight as usize));
    let mut buyers = JoinSet::new();
    for (buyer, share) in (0..).zip(plan::shares(attempts, plan.buyers)) {
        if share == 0 {
            break;
        }
        let mut doors = closed.clone();
        let (shop, plan, ledger) = (shop.clone(), Arc::clone(plan), Arc::clone(ledger));
        let seats = Arc::clone(&seats);
        buyers.spawn(async move {
            let mut dice = plan.dice(mix, buyer);
            let product = dice.random_range(0..plan.skus.len());
            // Neither can fail: the doors and the seats outlive the buyers.
            let _ = doors.wait_for(|&open| open).await;
            for _ in 0..share {
                let behaviour = mix.draw(&mut dice);
                let _seat = seats.acquire().await;
                buyer::attempt(&shop, &ledger, Pace::Rush, product, behaviour).await?;
            }
            Ok(())
        });
    }
    ledger.clock_on();
    doors.send_replace(true);
    while let Some(buyer) = buyers.join_next().await {
        // Dropping the set on the way out ends all the others.
        buyer.map_err(|error| Failure::Failed(format!("a buyer failed: {error}")))??;
    }
    ledger.clock_off();
    Ok(())
}
