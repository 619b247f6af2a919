//! What the buyers of the plain sale do with what they get, and how often. Pure.

use rand::{Rng as _, rngs::StdRng};

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

    /// Tells the dice of the waves apart.
    pub(crate) fn number(self) -> u8 {
        self.pays
    }

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
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::demo::plan::{Plan, tests::args};

    #[test]
    fn the_same_seed_draws_the_same_mix() {
        let plan = Plan::new(&args(10, 1, 10, 10)).expect("a plan");
        let draw = |buyer| {
            let mut dice = plan.dice(Mix::OPENING.number(), buyer);
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
