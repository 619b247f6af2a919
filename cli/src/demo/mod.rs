//! `sentinelctl demo`: runs a flash sale against a server and verifies that it was exact.
//!
//! # Layout
//! - `plain`, `rules`: the scenarios, phase by phase, with the buyers of each.
//! - `plan`: sizes and random generators, from the arguments and a seed; pure.
//! - `shop`: sends the calls of buyers and operators, and retries transient errors.
//! - `phase`: many buyers at once.
//! - `expiry`: waits until abandoned holds expire.
//! - `ledger`: the acknowledged results and their latencies.
//! - `verify`: compares the ledger with the server.
//! - `progress`, `report`: the output.

mod expiry;
mod ledger;
mod phase;
mod plain;
mod plan;
mod progress;
mod report;
mod rules;
mod shop;
mod verify;

use std::{sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::{ledger::Ledger, plan::Plan, progress::Progress, report::Report, shop::Shop, verify::Expected};
use crate::{config::Settings, failure::Failure};

/// Ttl of the holds that are left to expire.
const SHORT_TTL: Duration = Duration::from_secs(3);

pub(crate) const JSON_HELP: &str = "\
The JSON object of --json:
  attempts: Reserve requests with distinct identities, without repeats. reserved: reservations, = committed +
  rolled_back + expired; one that sold any unit is committed. sold_out: attempts with a shortage. refused_attempts:
  attempts that a rule refused. attempts = reserved - repurchased + sold_out + refused_attempts. repurchased:
  reservations that a late Commit made. units: all units supplied. oversold, lost: units.
  reservations_per_second: successful ones, from the opening until the initial supply was reserved.
  attempts_per_second: all responses over the selling time. p50_us, p99_us: latency of Reserve during the concurrent
  phases, with up to in_flight attempts in flight. lone_*: the same for a single caller afterwards. In the plain
  scenario a reservation is one unit.
  refused: calls of any kind that were refused, by reason. played: other events that the scenario demonstrates, by
  name. Both are empty in the plain scenario. In rules each count is above zero; otherwise the demo names the missing
  ones and fails.";

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// One unit per buyer, who pays, fails to pay, or abandons the hold.
    Plain,
    /// A sale with every rule: window, limits, carts, partial commits, late payments, protection.
    Rules,
}

/// The sizes of the sale.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Scenario to run.
    #[arg(long, value_enum, default_value_t = Scenario::Plain)]
    scenario: Scenario,
    /// Units for sale, over all products.
    #[arg(long, default_value_t = 10_000)]
    units: u32,
    /// Products.
    #[arg(long, default_value_t = 5)]
    products: u32,
    /// Concurrent buyers at the opening.
    #[arg(long, default_value_t = 50_000)]
    buyers: u32,
    /// Attempts to buy, over all buyers. Further attempts follow only if units are left.
    #[arg(long, default_value_t = 200_000)]
    attempts: u32,
    /// Seed of the buyers' behavior; random by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Most attempts in flight; the other buyers queue in this process.
    #[arg(long, default_value_t = 2_048)]
    in_flight: u32,
    /// Print one JSON object as the last line, and the table to standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the sale; true if it was exact.
pub(crate) async fn run(settings: &Settings, args: &DemoArgs) -> Result<bool, Failure> {
    let plan = Arc::new(Plan::new(args)?);
    let shop = Shop::open(settings, &plan).await?;
    let ledger = Arc::new(Ledger::new(&plan));
    let progress = Progress::start(Arc::clone(&ledger), &plan);

    let expected = match plan.scenario {
        Scenario::Plain => {
            plain::play(&shop, &plan, &ledger, &progress).await?;
            Expected { supplies: plan.supplies.clone(), sold_out: true }
        }
        Scenario::Rules => {
            let supplies = rules::play(&shop, &plan, &ledger, &progress).await?;
            Expected { supplies, sold_out: false }
        }
    };

    progress.phase("verifying");
    let verdict = verify::run(&shop, &plan, &ledger, &expected).await?;
    drop(progress);

    let report = Report::new(&plan, &shop, &ledger, verdict);
    report.print(args.json)?;
    Ok(report.exact())
}
