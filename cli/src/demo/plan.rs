//! The sizes of the sale and how its buyers behave, all from the arguments and a seed. Pure.

use rand::{Rng as _, SeedableRng as _, distr::Alphanumeric, rngs::StdRng};

use super::DemoArgs;
use crate::failure::Failure;

/// The most units, buyers or attempts of a demo: what one process can keep a ledger of.
const MAX_SIZE: u32 = 10_000_000;
/// The most products: each gets its own stock and a line in the table.
const MAX_PRODUCTS: u32 = 1_000;
/// The most attempts under way at once.
const MAX_IN_FLIGHT: u32 = 65_536;
/// Attempts of a lone caller after the rush, for his latency.
const LONE_ATTEMPTS: u32 = 500;

/// A sale, settled before it begins.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespace: String,
    pub(crate) seed: u64,
    pub(crate) products: u32,
    pub(crate) units: u32,
    pub(crate) buyers: u32,
    pub(crate) in_flight: u32,
    /// All attempts: those of the opening, of the return, and the lone ones.
    pub(crate) attempts: u32,
    pub(crate) opening_attempts: u32,
    pub(crate) return_attempts: u32,
    pub(crate) lone_attempts: u32,
    pub(crate) skus: Vec<String>,
    /// Units of each product.
    pub(crate) supplies: Vec<u32>,
}

impl Plan {
    pub(crate) fn new(args: &DemoArgs) -> Result<Plan, Failure> {
        let &DemoArgs { units, products, buyers, attempts, in_flight, .. } = args;
        within("--products", products, 1, MAX_PRODUCTS)?;
        within("--units", units, products, MAX_SIZE)?;
        within("--buyers", buyers, 1, MAX_SIZE)?;
        within("--attempts", attempts, buyers.max(units), MAX_SIZE)?;
        within("--in-flight", in_flight, 1, MAX_IN_FLIGHT)?;

        // Three quarters come at the opening, and each buyer at least once.
        let opening_attempts = (attempts - attempts / 4).max(buyers);
        let later = attempts - opening_attempts;
        let lone_attempts = LONE_ATTEMPTS.min(later / 10);
        Ok(Plan {
            namespace: format!("demo-{}", short_random()),
            seed: args.seed.unwrap_or_else(|| rand::rng().random()),
            products,
            units,
            buyers,
            in_flight,
            attempts,
            opening_attempts,
            return_attempts: later - lone_attempts,
            lone_attempts,
            skus: (1..=products).map(|n| format!("product-{n}")).collect(),
            supplies: shares(units, products).collect(),
        })
    }

    /// The dice of one buyer in one wave: the same for the same seed, whoever comes first.
    pub(crate) fn dice(&self, wave: Mix, buyer: u32) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..12].copy_from_slice(&buyer.to_le_bytes());
        seed[12] = wave.pays;
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

/// What becomes of a reservation that an attempt gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pay,
    FailToPay,
    WalkAway,
}

/// Whether and when each call of an attempt is sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Never,
    AtOnce,
    Afterwards,
}

/// How one attempt goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) fate: Fate,
    pub(crate) repeat: Repeat,
}

/// Of a hundred buyers, how many do what; those who neither pay nor fail to walk away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pays: u8,
    fails: u8,
    repeats: u8,
}

impl Mix {
    /// At the opening.
    pub(crate) const OPENING: Mix = Mix { pays: 70, fails: 18, repeats: 20 };
    /// Those who come back mean it; nothing is given back after them, so that all is sold in the end.
    pub(crate) const RETURN: Mix = Mix { pays: 100, fails: 0, repeats: 20 };
    /// A lone buyer who pays, once.
    pub(crate) const SURE: Behaviour = Behaviour { fate: Fate::Pay, repeat: Repeat::Never };

    /// How the next attempt goes.
    pub(crate) fn draw(self, dice: &mut StdRng) -> Behaviour {
        let roll: u8 = dice.random_range(0..100);
        let fate = if roll < self.pays {
            Fate::Pay
        } else if roll < self.pays + self.fails {
            Fate::FailToPay
        } else {
            Fate::WalkAway
        };
        let repeats = dice.random_range(0..100) < self.repeats;
        let repeat = match (repeats, dice.random::<bool>()) {
            (false, _) => Repeat::Never,
            (true, false) => Repeat::AtOnce,
            (true, true) => Repeat::Afterwards,
        };
        Behaviour { fate, repeat }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn args(units: u32, products: u32, buyers: u32, attempts: u32) -> DemoArgs {
        DemoArgs { units, products, buyers, attempts, seed: Some(7), in_flight: 10, json: false }
    }

    #[test]
    fn the_sizes_add_up() {
        for (units, products, buyers, attempts) in
            [(10_000, 5, 50_000, 200_000), (7, 3, 1, 7), (1, 1, 9, 9), (13, 13, 100, 101)]
        {
            let plan = Plan::new(&args(units, products, buyers, attempts)).expect("a plan");
            assert_eq!(plan.supplies.iter().sum::<u32>(), units);
            assert!(plan.supplies.iter().all(|&supply| supply > 0));
            let parts = [plan.opening_attempts, plan.return_attempts, plan.lone_attempts];
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

    #[test]
    fn the_same_seed_draws_the_same_mix() {
        let plan = Plan::new(&args(10, 1, 10, 10)).expect("a plan");
        let draw = |buyer| {
            let mut dice = plan.dice(Mix::OPENING, buyer);
            let drawn: Vec<_> = (0..50).map(|_| Mix::OPENING.draw(&mut dice)).collect();
            format!("{drawn:?}")
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn the_mix_is_what_it_says() {
        let mut dice = StdRng::seed_from_u64(1);
        let drawn: Vec<_> = (0..10_000).map(|_| Mix::OPENING.draw(&mut dice)).collect();
        let count = |fate| drawn.iter().filter(|drawn| drawn.fate == fate).count();
        assert!((6_700..7_300).contains(&count(Fate::Pay)));
        assert!((1_600..2_000).contains(&count(Fate::FailToPay)));
        assert!((1_050..1_350).contains(&count(Fate::WalkAway)));
        let twice = drawn.iter().filter(|drawn| drawn.repeat != Repeat::Never);
        assert!((1_800..2_200).contains(&twice.count()));
        let mut returning = (0..1_000).map(|_| Mix::RETURN.draw(&mut dice));
        assert!(returning.all(|drawn| drawn.fate == Fate::Pay));
    }
}
