//! The behavior of the buyers of the plain sale, and its frequencies. Pure.

use rand::{Rng as _, rngs::StdRng};

/// The end of a reservation, as its buyer chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
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

/// The behavior of one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) outcome: Outcome,
    pub(crate) repeat: Repeat,
}

/// Percentages of attempts. Buyers that neither pay nor fail to pay abandon the hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pays: u8,
    fails: u8,
    repeats: u8,
}

impl Workload {
    /// The opening.
    pub(crate) const OPENING: Workload = Workload { pays: 70, fails: 18, repeats: 20 };
    /// Returning buyers always pay: no unit is released after them.
    pub(crate) const RETURN: Workload = Workload { pays: 100, fails: 0, repeats: 20 };
    /// A buyer that pays and repeats nothing.
    pub(crate) const SURE: Attempt = Attempt { outcome: Outcome::Pay, repeat: Repeat::Never };

    /// Selects the random generators of the phase.
    pub(crate) fn number(self) -> u8 {
        self.pays
    }

    /// Draws the behavior of the next attempt.
    pub(crate) fn draw(self, rng: &mut StdRng) -> Attempt {
        let roll: u8 = rng.random_range(0..100);
        let outcome = if roll < self.pays {
            Outcome::Pay
        } else if roll < self.pays + self.fails {
            Outcome::FailToPay
        } else {
            Outcome::WalkAway
        };
        let repeats = rng.random_range(0..100) < self.repeats;
        let repeat = match (repeats, rng.random::<bool>()) {
            (false, _) => Repeat::Never,
            (true, false) => Repeat::AtOnce,
            (true, true) => Repeat::Afterwards,
        };
        Attempt { outcome, repeat }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::demo::plan::{Plan, tests::args};

    #[test]
    fn the_same_seed_draws_the_same_mix() {
        let plan = Plan::new(&args(10, 1, 10, 10)).expect("a plan");
        let draw = |buyer| {
            let mut rng = plan.rng(Workload::OPENING.number(), buyer);
            let drawn: Vec<_> = (0..50).map(|_| Workload::OPENING.draw(&mut rng)).collect();
            format!("{drawn:?}")
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn the_mix_is_what_it_says() {
        let mut rng = StdRng::seed_from_u64(1);
        let drawn: Vec<_> = (0..10_000).map(|_| Workload::OPENING.draw(&mut rng)).collect();
        let count = |outcome| drawn.iter().filter(|drawn| drawn.outcome == outcome).count();
        assert!((6_700..7_300).contains(&count(Outcome::Pay)));
        assert!((1_600..2_000).contains(&count(Outcome::FailToPay)));
        assert!((1_050..1_350).contains(&count(Outcome::WalkAway)));
        let twice = drawn.iter().filter(|drawn| drawn.repeat != Repeat::Never);
        assert!((1_800..2_200).contains(&twice.count()));
        let mut returning = (0..1_000).map(|_| Workload::RETURN.draw(&mut rng));
        assert!(returning.all(|drawn| drawn.outcome == Outcome::Pay));
    }
}
