//! The plain sale: one unit per buyer, who pays, fails to pay or abandons the hold. In the end every unit is sold.
//!
//! - `workload`: the behavior of the buyers and its frequencies; pure.
//! - `buyer`: one attempt of one buyer.

mod buyer;
mod workload;

use std::{sync::Arc, time::Duration};

use rand::Rng as _;
use tokio::time::Instant;

use self::workload::Workload;
use super::{
    expiry,
    ledger::{LatencyClass, Ledger},
    phase::Phase,
    plan::Plan,
    progress::Progress,
    shop::Shop,
};
use crate::failure::Failure;

/// How long selling the last units one by one may take.
const LAST_UNITS_LIMIT: Duration = Duration::from_secs(60);

/// Runs the sale until every unit is sold.
pub(crate) async fn play(
    shop: &Shop,
    plan: &Arc<Plan>,
    ledger: &Arc<Ledger>,
    progress: &Progress,
) -> Result<(), Failure> {
    // The opening: all buyers at once; some fail to pay or abandon the hold.
    progress.phase("selling");
    concurrent(shop, plan, ledger, plan.opening_attempts, Workload::OPENING).await?;

    progress.phase("waiting for abandoned holds to expire");
    expiry::wait_for_expiry(shop, plan, ledger).await?;

    // Returning buyers buy the released units.
    progress.phase("selling released units");
    concurrent(shop, plan, ledger, plan.return_attempts, Workload::RETURN).await?;

    progress.phase("selling the last units");
    sell_the_last(shop, plan, ledger).await?;
    for turn in 0..plan.sequential_attempts {
        let product = (turn % plan.products) as usize;
        buyer::attempt(shop, ledger, LatencyClass::Sequential, product, Workload::SURE).await?;
    }
    Ok(())
}

async fn concurrent(
    shop: &Shop,
    plan: &Arc<Plan>,
    ledger: &Arc<Ledger>,
    attempts: u32,
    workload: Workload,
) -> Result<(), Failure> {
    let worker = |worker: super::phase::Worker| {
        let (shop, plan, ledger) = (shop.clone(), Arc::clone(plan), Arc::clone(ledger));
        async move {
            let mut rng = plan.rng(workload.number(), worker.buyer);
            let product = rng.random_range(0..plan.skus.len());
            for _ in 0..worker.attempts {
                let behavior = workload.draw(&mut rng);
                let _permit = worker.permit().await;
                buyer::attempt(&shop, &ledger, worker.latency_class, product, behavior).await?;
            }
            Ok(())
        }
    };
    Phase::concurrent(attempts).run(plan, ledger, worker).await
}

/// Buys the units that the planned attempts left, one by one; usually none.
async fn sell_the_last(shop: &Shop, plan: &Plan, ledger: &Ledger) -> Result<(), Failure> {
    let deadline = Instant::now() + LAST_UNITS_LIMIT;
    for (product, sku) in plan.skus.iter().enumerate() {
        let mut available = shop.stock(sku).await?.available;
        while available > 0 && Instant::now() < deadline {
            buyer::attempt(shop, ledger, LatencyClass::Sequential, product, Workload::SURE).await?;
            available -= 1;
            if available == 0 {
                available = shop.stock(sku).await?.available;
            }
        }
    }
    Ok(())
}
