//! `sentinelctl demo`: a flash sale against the running server, and the count whether it was exact.
//!
//! # Layout
//! - `plan`: sizes and seeded behaviour; pure.
//! - `shop`: the server as a buyer sees it: sends calls, and repeats what is worth repeating.
//! - `buyer`: one attempt of one buyer, from Reserve to its end.
//! - `wave`: many buyers at once.
//! - `ledger`: what the server acknowledged, and how long it took.
//! - `verdict`: the ledger against the server's books.
//! - `progress`, `report`: what people see.

mod buyer;
mod ledger;
mod plan;
mod progress;
mod report;
mod shop;
mod verdict;
mod wave;

use std::{sync::Arc, time::Duration};

use clap::Args;
use tokio::time::{Instant, sleep};

use self::{
    ledger::{Ledger, Pace},
    plan::{Mix, Plan},
    progress::Progress,
    report::Report,
    shop::Shop,
};
use crate::failure::Failure;

/// How long the holds of those who walk away last.
const WALK_AWAY_TTL: Duration = Duration::from_secs(3);
/// How much later than their deadline holds may be seen as given back.
const GIVE_BACK_GRACE: Duration = Duration::from_secs(15);
/// How often the stock is read while holds are awaited.
const GIVE_BACK_POLL: Duration = Duration::from_millis(50);
/// How long the last units may take to be sold, one by one.
const LAST_UNITS_LIMIT: Duration = Duration::from_secs(60);

pub(crate) const JSON_HELP: &str = "\
The JSON object of --json:
  Every reservation of the demo is one unit, so all counts are both. attempts: Reserve requests, each with an
  identity of its own, repeats not counted; reserved = committed + rolled_back + expired; sold_out: attempts
  answered with a shortage; oversold, lost: units; reservations_per_second: successful ones, from the opening
  until there were as many as units; attempts_per_second: all answers over the time of selling; p50_us, p99_us: Reserve
  in the rush, from the sending to the answer, with up to in_flight attempts under way; lone_*: the same for
  a single caller after it.";

/// The sizes of the sale.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Units for sale, over all products.
    #[arg(long, default_value_t = 10_000)]
    units: u32,
    /// Products.
    #[arg(long, default_value_t = 5)]
    products: u32,
    /// Buyers who come at once at the opening.
    #[arg(long, default_value_t = 50_000)]
    buyers: u32,
    /// Attempts to buy, over all buyers. More are made only if units are left after that.
    #[arg(long, default_value_t = 200_000)]
    attempts: u32,
    /// Repeats the same mix of buyers; by default a new one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Attempts under way at the same time, at most; the other buyers queue in this process.
    #[arg(long, default_value_t = 2_048)]
    in_flight: u32,
    /// Print one JSON object as the last line, and the table to standard error.
    #[arg(long)]
    json: bool,
}

/// Plays the sale; true if it was exact.
pub(crate) async fn run(server: &str, args: &DemoArgs) -> Result<bool, Failure> {
    let plan = Arc::new(Plan::new(args)?);
    let shop = Shop::open(server, &plan).await?;
    let ledger = Arc::new(Ledger::new(&plan));
    let progress = Progress::start(Arc::clone(&ledger), &plan);

    // The opening: everyone at once, some of whom fail to pay or walk away.
    progress.phase("selling");
    let rush = |attempts, mix| wave::run(&shop, &plan, &ledger, attempts, mix);
    rush(plan.opening_attempts, Mix::OPENING).await?;

    progress.phase("waiting for abandoned holds to expire");
    wait_until_given_back(&shop, &plan, &ledger).await?;

    // Those who come back buy what was given back.
    progress.phase("selling what was given back");
    rush(plan.return_attempts, Mix::RETURN).await?;

    progress.phase("selling the last units");
    sell_the_last(&shop, &plan, &ledger).await?;
    for turn in 0..plan.lone_attempts {
        let product = (turn % plan.products) as usize;
        buyer::attempt(&shop, &ledger, Pace::Lone, product, Mix::SURE).await?;
    }

    progress.phase("counting");
    let verdict = verdict::reach(&shop, &plan, &ledger).await?;
    drop(progress);

    let report = Report::new(&plan, &shop, &ledger, verdict);
    report.print(args.json)?;
    Ok(report.exact())
}

/// Waits until no unit is held any more, as the server itself counts it.
async fn wait_until_given_back(shop: &Shop, plan: &Plan, ledger: &Ledger) -> Result<(), Failure> {
    let limit = WALK_AWAY_TTL + GIVE_BACK_GRACE;
    let deadline = Instant::now() + limit;
    loop {
        let mut held = 0;
        for sku in &plan.skus {
            held += shop.stock(sku).await?.held;
        }
        if held == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            ledger.broken(format!("{held} units are still held {limit:?} after the rush"));
            return Ok(());
        }
        sleep(GIVE_BACK_POLL).await;
    }
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
