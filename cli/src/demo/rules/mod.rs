//! The sale by the rules: a dated sale with a window, limits, carts, parts, late payments, and a product that is
//! not protected for a while.
//!
//! - `terms`: the rules, and what must be seen of them; `roles`: who plays what; `hold`: a buyer's book. Pure.
//! - `sale`: what all buyers share; `buyer`, `late`: what they do; `operator`: what the operator does.

mod buyer;
mod hold;
mod late;
mod operator;
mod roles;
mod sale;
mod terms;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use self::{
    hold::Hold,
    roles::{Role, Want},
    sale::{Ask, Sale},
    terms::{CLOCK_GRACE, STAY_TTL, Terms},
};
use super::{
    ledger::{Ledger, Pace},
    plan::Plan,
    progress::Progress,
    shelves,
    shop::Shop,
    wave::{Visit, Wave},
};
use crate::failure::Failure;

/// How long before the opening the queue begins.
const OPENING_LEAD: Duration = Duration::from_secs(5);
/// How long after its announcement the sale closes.
const CLOSING_LEAD: Duration = Duration::from_secs(3);
/// Most buyers who ask before the opening; at most a quarter of the opening's attempts are theirs.
const MOST_WAITING: u32 = 5_000;
/// Buyers who ask for the product that is not protected, once its holds have drained; and for each product at
/// the closing, before and after.
const LATECOMERS: u32 = 20;
/// A delivery is this part of what there is of a product.
const DELIVERY_SHARE: u32 = 20;
/// How long the last units may take to be sold, one by one.
const LAST_UNITS_LIMIT: Duration = Duration::from_secs(60);

/// What each wave is called by the dice.
const QUEUE: u8 = 0;
const OPENING: u8 = 1;
const MIDDLE: u8 = 2;
const RETURN: u8 = 3;
const AFTER: u8 = 4;

/// Plays the sale; what it put on the shelves in all, by product.
pub(crate) async fn play(
    shop: &Shop,
    plan: &Arc<Plan>,
    ledger: &Arc<Ledger>,
    progress: &Progress,
) -> Result<Vec<u32>, Failure> {
    let opens_at = terms::from_now(OPENING_LEAD);
    let sale = Sale::new(shop, plan, ledger, Terms { opens_at, drained: 1 });
    let mut supplies = plan.supplies.clone();
    let mut guests = Guests { sale: &sale, next: plan.buyers, dice: plan.dice(AFTER, 0) };
    ledger.expect(terms::REFUSALS, terms::PLAYED);
    operator::set_the_terms(&sale).await?;

    progress.phase("queueing before the opening");
    let early = plan.buyers.min(MOST_WAITING).min(plan.opening_attempts / 4);
    wave(&sale, Wave { attempts: early, pace: Pace::Aside, opens_at: None }, QUEUE).await?;

    progress.phase("selling from the opening on");
    let half = plan.opening_attempts / 2;
    wave(&sale, Wave { opens_at: Some(opens_at), ..Wave::rush(half - early) }, OPENING).await?;

    progress.phase("selling, one product not protected");
    let middle = wave(&sale, Wave::rush(plan.opening_attempts - half), MIDDLE);
    tokio::try_join!(operator::protect(&sale, false), middle)?;

    progress.phase("draining, and waiting for abandoned holds to expire");
    shelves::wait_until_given_back(shop, plan, ledger).await?;
    for hold in guests.ask_for(sale.terms.drained, LATECOMERS).await? {
        ledger.broken(format!("{} was reserved of a product that is not protected", hold.id));
        guests.give_back(hold).await?;
    }
    operator::protect(&sale, true).await?;

    // A third of those who are late is paid back, another finds a delivery, the last comes to empty shelves.
    progress.phase("late payments");
    operator::deliver(&sale, &mut supplies, DELIVERY_SHARE).await?;
    let mut last_late = Vec::new();
    for (turn, hold) in sale.take_late().into_iter().enumerate() {
        match turn % 3 {
            0 => late::pay_by_default(&sale, hold).await?,
            1 => late::pay_late_and_repurchase(&sale, hold, &mut guests.dice).await?,
            _ => last_late.push(hold),
        }
    }

    progress.phase("selling what was given back and delivered");
    wave(&sale, Wave::rush(plan.return_attempts), RETURN).await?;
    guests.sell_the_last().await?;
    for turn in 0..plan.lone_attempts {
        guests.buy((turn % plan.products) as usize).await?;
    }
    for hold in last_late {
        late::pay_late_and_repurchase(&sale, hold, &mut guests.dice).await?;
    }

    progress.phase("closing");
    close(&sale, &mut supplies, &mut guests).await?;
    terms::check_coverage(ledger);
    Ok(supplies)
}

/// The end of the window: holds that were taken inside it are resolved after it, and nobody gets a new one.
async fn close(sale: &Sale, supplies: &mut [u32], guests: &mut Guests<'_>) -> Result<(), Failure> {
    operator::deliver(sale, supplies, DELIVERY_SHARE).await?;
    let closes_at = terms::from_now(CLOSING_LEAD);
    operator::announce_closing(sale, closes_at).await?;
    let mut inside = Vec::new();
    for product in 0..sale.plan.skus.len().min(LATECOMERS as usize) {
        inside.extend(guests.ask_for(product, 2).await?);
    }
    sleep((closes_at + CLOCK_GRACE).duration_since(SystemTime::now()).unwrap_or_default()).await;
    for hold in guests.ask_for(0, LATECOMERS).await? {
        sale.ledger.broken(format!("{} was reserved after the closing", hold.id));
        guests.give_back(hold).await?;
    }
    for (turn, hold) in inside.into_iter().enumerate() {
        match turn % 2 {
            0 => buyer::pay(sale, hold, &mut guests.dice).await?,
            _ => guests.give_back(hold).await?,
        }
        sale.ledger.played("resolved_after_closing");
    }
    Ok(())
}

/// Many buyers at once, each with his roles in turn.
async fn wave(sale: &Sale, wave: Wave, number: u8) -> Result<(), Failure> {
    let visit = |visit: Visit| {
        let sale = sale.clone();
        async move {
            let mut dice = sale.plan.dice(number, visit.buyer);
            for turn in 0..visit.attempts {
                let role = Role::of(sale.plan.seed, visit.buyer, turn + u32::from(number));
                let role = if number == RETURN { role.in_earnest() } else { role };
                let _seat = visit.seat().await;
                buyer::attempt(&sale, visit.pace, visit.buyer, role, &mut dice).await?;
            }
            Ok(())
        }
    };
    wave.run(&sale.plan, &sale.ledger, visit).await
}

/// Buyers who come one by one, each a new one.
struct Guests<'a> {
    sale: &'a Sale,
    next: u32,
    dice: StdRng,
}

impl Guests<'_> {
    /// The holds that so many guests get when each asks for a unit.
    async fn ask_for(&mut self, product: usize, guests: u32) -> Result<Vec<Hold>, Failure> {
        let mut holds = Vec::new();
        for _ in 0..guests {
            holds.extend(self.ask(product, Pace::Aside).await?);
        }
        Ok(holds)
    }

    async fn ask(&mut self, product: usize, pace: Pace) -> Result<Option<Hold>, Failure> {
        let cart = [Want { product, units: 1 }];
        let ask = Ask { buyer: self.next, is_named: true, cart: &cart, ttl: STAY_TTL, replaces: None };
        self.next += 1;
        self.sale.ask(pace, &mut self.dice, &ask).await
    }

    async fn give_back(&mut self, hold: Hold) -> Result<(), Failure> {
        buyer::give_all_back(self.sale, hold, &mut self.dice).await
    }

    /// One guest buys a unit, if there is one.
    async fn buy(&mut self, product: usize) -> Result<bool, Failure> {
        let Some(hold) = self.ask(product, Pace::Lone).await? else {
            return Ok(false);
        };
        buyer::pay(self.sale, hold, &mut self.dice).await?;
        Ok(true)
    }

    /// Buys what the waves have left; usually little.
    async fn sell_the_last(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + LAST_UNITS_LIMIT;
        for product in 0..self.sale.plan.skus.len() {
            while Instant::now() < deadline && self.buy(product).await? {}
        }
        Ok(())
    }
}
