//! `sentinelctl demo`: a flash sale against the running server, and the count whether it was exact.
//!
//! # Layout
//! - `plain`, `rules`: the scenarios, phase by phase, with the buyers of each.
//! - `plan`: sizes and dice, from the arguments and a seed; pure.
//! - `shop`: the server as buyers and operators see it: sends calls, and repeats what is worth repeating.
//! - `wave`: many buyers at once.
//! - `shelves`: waits until holds are given back.
//! - `ledger`: what the server acknowledged, and how long it took.
//! - `verdict`: the ledger against the server's books.
//! - `progress`, `report`: what people see.

mod ledger;
mod plain;
mod plan;
mod progress;
mod report;
mod rules;
mod shelves;
mod shop;
mod verdict;
mod wave;

use std::{sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::{ledger::Ledger, plan::Plan, progress::Progress, report::Report, shop::Shop, verdict::Shelves};
use crate::failure::Failure;

/// How long the holds last of those who do not come back in time.
const SHORT_TTL: Duration = Duration::from_secs(3);

pub(crate) const JSON_HELP: &str = "\
The JSON object of --json:
  attempts: Reserve requests, each with an identity of its own, repeats not counted; reserved = committed +
  rolled_back + expired, in reservations: one that bought anything is committed; sold_out: attempts answered with
  a shortage; refused_attempts: those that a rule refused; attempts = reserved - repurchased + sold_out +
  refused_attempts. repurchased: reservations that a late Commit made. units: put on sale in all; oversold, lost:
  units. reservations_per_second: successful ones, from the opening until as many units were reserved as there
  were at first; attempts_per_second: all answers over the time of selling; p50_us, p99_us: Reserve in the rush,
  from the sending to the answer, with up to in_flight attempts under way; lone_*: the same for a single caller
  after it. In the plain scenario a reservation is one unit.
  refused: for each reason, how many calls of any kind were refused for it; played: how often each other thing
  happened that the scenario is there to show. Both are empty in the plain scenario; in rules each count is above
  zero, or the demo says which is not and fails.";

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// One unit each: pay, fail to pay, or walk away.
    Plain,
    /// A dated sale with every rule: window, limits, carts, parts, late payments, protection.
    Rules,
}

/// The sizes of the sale.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// What is played.
    #[arg(long, value_enum, default_value_t = Scenario::Plain)]
    scenario: Scenario,
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
    pub(crate) json: bool,
}

/// Plays the sale; true if it was exact.
pub(crate) async fn run(server: &str, args: &DemoArgs) -> Result<bool, Failure> {
    let plan = Arc::new(Plan::new(args)?);
    let shop = Shop::open(server, &plan).await?;
    let ledger = Arc::new(Ledger::new(&plan));
    let progress = Progress::start(Arc::clone(&ledger), &plan);

    let shelves = match plan.scenario {
        Scenario::Plain => {
            plain::play(&shop, &plan, &ledger, &progress).await?;
            Shelves { supplies: plan.supplies.clone(), sold_out: true }
        }
        Scenario::Rules => {
            let supplies = rules::play(&shop, &plan, &ledger, &progress).await?;
            Shelves { supplies, sold_out: false }
        }
    };

    progress.phase("counting");
    let verdict = verdict::reach(&shop, &plan, &ledger, &shelves).await?;
    drop(progress);

    let report = Report::new(&plan, &shop, &ledger, verdict);
    report.print(args.json)?;
    Ok(report.exact())
}
