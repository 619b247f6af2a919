//! The rules scenario: a sale with a window, limits, carts, partial commits, late payments, and a product that is
//! temporarily not protected.
//!
//! - `sale_rules`: the rules and the expected refusals; `behavior`: the behavior in each attempt; `hold`: a buyer's
//!   record. Pure.
//! - `sale`: the state that all buyers share; `buyer`, `late`: the calls of buyers; `operator`: those of the operator.

mod behavior;
mod buyer;
mod hold;
mod late;
mod operator;
mod sale;
mod sale_rules;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use self::{
    behavior::{Behavior, CartLine},
    hold::Hold,
    sale::{CartRequest, Sale},
    sale_rules::{CLOCK_GRACE, STAY_TTL, SaleRules},
};
use super::{
    expiry,
    ledger::{LatencyClass, Ledger},
    phase::{Phase, Worker},
    plan::Plan,
    progress::Progress,
    shop::Shop,
};
use crate::failure::Failure;

/// How long before the opening the first attempts are made.
const OPENING_LEAD: Duration = Duration::from_secs(5);
/// How long after the change of the window the sale closes.
const CLOSING_LEAD: Duration = Duration::from_secs(3);
/// Most attempts before the opening; at most a quarter of the opening's attempts.
const MAX_EARLY: u32 = 5_000;
/// Attempts on the unprotected product after its holds have drained, and on each product before and after the closing.
const LATECOMERS: u32 = 20;
/// A delivery adds one part in this many to the supply of a product.
const DELIVERY_SHARE: u32 = 20;
/// How long selling the last units one by one may take.
const LAST_UNITS_LIMIT: Duration = Duration::from_secs(60);

/// The phases, as selectors of the random generators.
const QUEUE: u8 = 0;
const OPENING: u8 = 1;
const MIDDLE: u8 = 2;
const RETURN: u8 = 3;
const AFTER: u8 = 4;

/// Runs the sale; returns the units supplied, by product.
pub(crate) async fn play(
    shop: &Shop,
    plan: &Arc<Plan>,
    ledger: &Arc<Ledger>,
    progress: &Progress,
) -> Result<Vec<u32>, Failure> {
    let opens_at = sale_rules::from_now(OPENING_LEAD);
    let sale = Sale::new(shop, plan, ledger, SaleRules { opens_at, drained: 1 });
    let mut supplies = plan.supplies.clone();
    let mut buyers = SequentialBuyers { sale: &sale, next: plan.buyers, rng: plan.rng(AFTER, 0) };
    ledger.expect(sale_rules::REFUSALS, sale_rules::PLAYED);
    operator::set_rules(&sale).await?;

    progress.phase("before the opening");
    let early = plan.buyers.min(MAX_EARLY).min(plan.opening_attempts / 4);
    phase(&sale, Phase { attempts: early, latency_class: LatencyClass::Unmeasured, opens_at: None }, QUEUE).await?;

    progress.phase("selling from the opening on");
    let half = plan.opening_attempts / 2;
    phase(&sale, Phase { opens_at: Some(opens_at), ..Phase::concurrent(half - early) }, OPENING).await?;

    progress.phase("selling, one product not protected");
    let middle = phase(&sale, Phase::concurrent(plan.opening_attempts - half), MIDDLE);
    tokio::try_join!(operator::protect(&sale, false), middle)?;

    progress.phase("draining, and waiting for abandoned holds to expire");
    expiry::wait_for_expiry(shop, plan, ledger).await?;
    for hold in buyers.reserve_each(sale.rules.drained, LATECOMERS).await? {
        ledger.violation(format!("{} was reserved of a product that is not protected", hold.id));
        buyers.roll_back(hold).await?;
    }
    operator::protect(&sale, true).await?;

    // A third of the late buyers is refunded, a third finds a delivery, and the last third finds no stock.
    progress.phase("late payments");
    operator::deliver(&sale, &mut supplies, DELIVERY_SHARE).await?;
    let mut last_late = Vec::new();
    for (turn, hold) in sale.take_late().into_iter().enumerate() {
        match turn % 3 {
            0 => late::pay_by_default(&sale, hold).await?,
            1 => late::pay_late_and_repurchase(&sale, hold, &mut buyers.rng).await?,
            _ => last_late.push(hold),
        }
    }

    progress.phase("selling released and delivered units");
    phase(&sale, Phase::concurrent(plan.return_attempts), RETURN).await?;
    buyers.sell_the_last().await?;
    for turn in 0..plan.sequential_attempts {
        buyers.buy((turn % plan.products) as usize).await?;
    }
    for hold in last_late {
        late::pay_late_and_repurchase(&sale, hold, &mut buyers.rng).await?;
    }

    progress.phase("closing");
    close(&sale, &mut supplies, &mut buyers).await?;
    sale_rules::check_coverage(ledger);
    Ok(supplies)
}

/// The end of the window: holds from before are resolved after it, and new ones are refused.
async fn close(sale: &Sale, supplies: &mut [u32], buyers: &mut SequentialBuyers<'_>) -> Result<(), Failure> {
    operator::deliver(sale, supplies, DELIVERY_SHARE).await?;
    let closes_at = sale_rules::from_now(CLOSING_LEAD);
    operator::announce_closing(sale, closes_at).await?;
    let mut inside = Vec::new();
    for product in 0..sale.plan.skus.len().min(LATECOMERS as usize) {
        inside.extend(buyers.reserve_each(product, 2).await?);
    }
    sleep((closes_at + CLOCK_GRACE).duration_since(SystemTime::now()).unwrap_or_default()).await;
    for hold in buyers.reserve_each(0, LATECOMERS).await? {
        sale.ledger.violation(format!("{} was reserved after the closing", hold.id));
        buyers.roll_back(hold).await?;
    }
    for (turn, hold) in inside.into_iter().enumerate() {
        match turn % 2 {
            0 => buyer::pay(sale, hold, &mut buyers.rng).await?,
            _ => buyers.roll_back(hold).await?,
        }
        sale.ledger.played("resolved_after_closing");
    }
    Ok(())
}

/// Runs a phase, in which the attempts of each buyer have varying behavior.
async fn phase(sale: &Sale, phase: Phase, number: u8) -> Result<(), Failure> {
    let worker = |worker: Worker| {
        let sale = sale.clone();
        async move {
            let mut rng = sale.plan.rng(number, worker.buyer);
            for turn in 0..worker.attempts {
                let behavior = Behavior::of(sale.plan.seed, worker.buyer, turn + u32::from(number));
                let behavior = if number == RETURN { behavior.non_abandoning() } else { behavior };
                let _permit = worker.permit().await;
                buyer::attempt(&sale, worker.latency_class, worker.buyer, behavior, &mut rng).await?;
            }
            Ok(())
        }
    };
    phase.run(&sale.plan, &sale.ledger, worker).await
}

/// Buyers that call one after the other, each a new one.
struct SequentialBuyers<'a> {
    sale: &'a Sale,
    next: u32,
    rng: StdRng,
}

impl SequentialBuyers<'_> {
    /// The holds of this many buyers, each of whom reserves a unit.
    async fn reserve_each(&mut self, product: usize, buyers: u32) -> Result<Vec<Hold>, Failure> {
        let mut holds = Vec::new();
        for _ in 0..buyers {
            holds.extend(self.reserve(product, LatencyClass::Unmeasured).await?);
        }
        Ok(holds)
    }

    async fn reserve(&mut self, product: usize, latency_class: LatencyClass) -> Result<Option<Hold>, Failure> {
        let cart = [CartLine { product, units: 1 }];
        let request = CartRequest { buyer: self.next, is_named: true, cart: &cart, ttl: STAY_TTL, replaces: None };
        self.next += 1;
        self.sale.reserve(latency_class, &mut self.rng, &request).await
    }

    async fn roll_back(&mut self, hold: Hold) -> Result<(), Failure> {
        buyer::roll_back_all(self.sale, hold, &mut self.rng).await
    }

    /// One buyer buys a unit, if one is available.
    async fn buy(&mut self, product: usize) -> Result<bool, Failure> {
        let Some(hold) = self.reserve(product, LatencyClass::Sequential).await? else {
            return Ok(false);
        };
        buyer::pay(self.sale, hold, &mut self.rng).await?;
        Ok(true)
    }

    /// Buys the units that the phases left; usually few.
    async fn sell_the_last(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + LAST_UNITS_LIMIT;
        for product in 0..self.sale.plan.skus.len() {
            while Instant::now() < deadline && self.buy(product).await? {}
        }
        Ok(())
    }
}
