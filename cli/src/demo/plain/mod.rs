//! The plain sale: one unit each; buyers pay, fail to pay or walk away, and in the end all is sold.
//!
//! - `mix`: how often buyers do what; pure.
//! - `buyer`: one attempt of one buyer, from Reserve to its end.

mod buyer;
mod mix;

use std::{sync::Arc, time::Duration};

use rand::Rng as _;
use tokio::time::Instant;

use self::mix::Mix;
use super::{
    ledger::{Ledger, Pace},
    plan::Plan,
    progress::Progress,
    shelves,
    shop::Shop,
    wave::Wave,
};
use crate::failure::Failure;

/// How long the last units may take to be sold, one by one.
const LAST_UNITS_LIMIT: Duration = Duration::from_secs(60);

/// Plays the sale until every unit is sold.
pub(crate) async fn play(
    shop: &Shop,
    plan: &Arc<Plan>,
    ledger: &Arc<Ledger>,
    progress: &Progress,
) -> Result<(), Failure> {
    // The opening: everyone at once, some of whom fail to pay or walk away.
    progress.phase("selling");
    rush(shop, plan, ledger, plan.opening_attempts, Mix::OPENING).await?;

    progress.phase("waiting for abandoned holds to expire");
    shelves::wait_until_given_back(shop, plan, ledger).await?;

    // Those who come back buy what was given back.
    progress.phase("selling what was given back");
    rush(shop, plan, ledger, plan.return_attempts, Mix::RETURN).await?;

    progress.phase("selling the last units");
    sell_the_last(shop, plan, ledger).await?;
    for turn in 0..plan.lone_attempts {
        let product = (turn % plan.products) as usize;
        buyer::attempt(shop, ledger, Pace::Lone, product, Mix::SURE).await?;
    }
    Ok(())
}

async fn rush(shop: &Shop, plan: &Arc<Plan>, ledger: &Arc<Ledger>, attempts: u32, mix: Mix) -> Result<(), Failure> {
    let visit = |visit: super::wave::Visit| {
        let (shop, plan, ledger) = (shop.clone(), Arc::clone(plan), Arc::clone(ledger));
        async move {
            let mut dice = plan.dice(mix.number(), visit.buyer);
            let product = dice.random_range(0..plan.skus.len());
            for _ in 0..visit.attempts {
                let behaviour = mix.draw(&mut dice);
                let _seat = visit.seat().await;
                buyer::attempt(&shop, &ledger, visit.pace, product, behaviour).await?;
            }
            Ok(())
        }
    };
    Wave::rush(attempts).run(plan, ledger, visit).await
}

/// Buys, one by one, what the attempts of the plan have left; usually nothing.
async fn sell_the_last(shop: &Shop, plan: &Plan, ledger: &Ledger) -> Result<(), Failure> {
    let deadline = Instant::now() + LAST_UNITS_LIMIT;
    for (product, sku) in plan.skus.iter().enumerate() {
        let mut available = shop.stock(sku).await?.available;
        while available > 0 && Instant::now() < deadline {
            buyer::attempt(shop, ledger, Pace::Lone, product, Mix::SURE).await?;
            available -= 1;
            if available == 0 {
                available = shop.stock(sku).await?.available;
            }
        }
    }
    Ok(())
}
