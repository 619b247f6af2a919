//! The sizes of the sale and its random generators, from the arguments and a seed. Pure.

use rand::{Rng as _, SeedableRng as _, distr::Alphanumeric, rngs::StdRng};

use super::{DemoArgs, Scenario};
use crate::failure::Failure;

/// The most units, buyers or attempts of a demo: the ledger is kept in memory.
const MAX_SIZE: u32 = 10_000_000;
/// The most products: each has a stock and a line in the table.
const MAX_PRODUCTS: u32 = 1_000;
/// The most attempts in flight.
const MAX_IN_FLIGHT: u32 = 65_536;
/// Attempts of a single caller after the concurrent phases, for the latency.
const SEQUENTIAL_ATTEMPTS: u32 = 500;

/// The smallest sale of the rules scenario. Smaller ones may not exercise every rule.
const MIN_UNITS: u32 = 400;
const MIN_PRODUCTS: u32 = 4;
const MIN_BUYERS: u32 = 200;

/// The sizes of a sale.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) namespace: String,
    pub(crate) seed: u64,
    pub(crate) products: u32,
    pub(crate) units: u32,
    pub(crate) buyers: u32,
    pub(crate) in_flight: u32,
    /// All attempts: of the opening, of the return, and the sequential ones.
    pub(crate) attempts: u32,
    pub(crate) opening_attempts: u32,
    pub(crate) return_attempts: u32,
    pub(crate) sequential_attempts: u32,
    pub(crate) skus: Vec<String>,
    /// Units of each product.
    pub(crate) supplies: Vec<u32>,
}

impl Plan {
    pub(crate) fn new(args: &DemoArgs) -> Result<Plan, Failure> {
        let &DemoArgs { scenario, units, products, buyers, attempts, in_flight, .. } = args;
        let (least_units, least_products, least_buyers) = match scenario {
            Scenario::Plain => (1, 1, 1),
            Scenario::Rules => (MIN_UNITS, MIN_PRODUCTS, MIN_BUYERS),
        };
        within("--products", products, least_products, MAX_PRODUCTS)?;
        within("--units", units, products.max(least_units), MAX_SIZE)?;
        within("--buyers", buyers, least_buyers, MAX_SIZE)?;
        within("--attempts", attempts, buyers.max(units), MAX_SIZE)?;
        within("--in-flight", in_flight, 1, MAX_IN_FLIGHT)?;

        // Three quarters of the attempts belong to the opening, at least one per buyer.
        let opening_attempts = (attempts - attempts / 4).max(buyers);
        let later = attempts - opening_attempts;
        let sequential_attempts = SEQUENTIAL_ATTEMPTS.min(later / 10);
        Ok(Plan {
            scenario,
            namespace: format!("demo-{}", short_random()),
            seed: args.seed.unwrap_or_else(|| rand::rng().random()),
            products,
            units,
            buyers,
            in_flight,
            attempts,
            opening_attempts,
            return_attempts: later - sequential_attempts,
            sequential_attempts,
            skus: (1..=products).map(|n| format!("product-{n}")).collect(),
            supplies: shares(units, products).collect(),
        })
    }

    /// The random generator of one buyer in one phase. It depends on the seed only, not on the order of calls.
    pub(crate) fn rng(&self, phase: u8, buyer: u32) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..12].copy_from_slice(&buyer.to_le_bytes());
        seed[12] = phase;
        StdRng::from_seed(seed)
    }
}

fn within(flag: &str, value: u32, least: u32, most: u32) -> Result<(), Failure> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Failure::Usage(format!("{flag} is {value}; with the other sizes given it must be between {least} and {most}")))
}

/// `total` in `parts` parts that differ by one at most.
pub(crate) fn shares(total: u32, parts: u32) -> impl Iterator<Item = u32> {
    (0..parts).map(move |part| total / parts + u32::from(part < total % parts))
}

fn short_random() -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).map(char::from);
    letters.take(8).collect::<String>().to_lowercase()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn args(units: u32, products: u32, buyers: u32, attempts: u32) -> DemoArgs {
        let scenario = Scenario::Plain;
        DemoArgs { scenario, units, products, buyers, attempts, seed: Some(7), in_flight: 10, json: false }
    }

    #[test]
    fn the_sizes_add_up() {
        for (units, products, buyers, attempts) in
            [(10_000, 5, 50_000, 200_000), (7, 3, 1, 7), (1, 1, 9, 9), (13, 13, 100, 101)]
        {
            let plan = Plan::new(&args(units, products, buyers, attempts)).expect("a plan");
            assert_eq!(plan.supplies.iter().sum::<u32>(), units);
            assert!(plan.supplies.iter().all(|&supply| supply > 0));
            let parts = [plan.opening_attempts, plan.return_attempts, plan.sequential_attempts];
            assert_eq!(parts.iter().sum::<u32>(), attempts);
            assert!(plan.opening_attempts >= buyers);
        }
    }

    #[test]
    fn sizes_that_can_not_sell_out_are_bad_usage() {
        for (units, products, buyers, attempts) in
            [(0, 1, 1, 1), (4, 5, 1, 10), (5, 0, 1, 10), (5, 5, 0, 10), (5, 5, 11, 10), (11, 5, 1, 10)]
        {
            let error = Plan::new(&args(units, products, buyers, attempts)).expect_err("no plan");
            assert_eq!(error.code(), Failure::USAGE, "{error}");
        }
    }
}
