//! Who plays what in the sale by the rules, and what carts look like. Pure.

use inventory_sentinel_client::Line;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Most products of a cart.
const MOST_LINES: usize = 4;

/// What one attempt shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Asks for more units than one reservation may have.
    AsksTooMany,
    /// Asks for a longer ttl than the SKU allows.
    AsksTooLong,
    /// Does not say who he is.
    HasNoName,
    /// Pays for all.
    Pays,
    /// Pays for one unit; the rest is given back with it.
    PaysPart,
    /// Pays for one unit and keeps holding the rest, then pays for that.
    PaysInParts,
    /// Gives one unit back, then pays for the rest.
    GivesPartBack,
    /// Gives all back.
    FailsToPay,
    /// Says nothing any more; the hold expires.
    WalksAway,
    /// Pays when the hold has expired.
    PaysLate,
    /// Moves the deadline, then pays.
    Extends,
    /// Wants more time than a hold may live, then pays.
    ExtendsTooFar,
    /// Wants a second cart, beyond what one buyer may have, then pays for the first.
    WantsMore,
    /// Wants to pay for more than is held, then for what is.
    PaysTooMuch,
    /// Swaps the cart for another, then pays.
    Swaps,
}

/// Of a hundred attempts, how many play what.
const SHARES: [(Role, usize); 15] = [
    (Role::AsksTooMany, 3),
    (Role::AsksTooLong, 3),
    (Role::HasNoName, 2),
    (Role::Pays, 38),
    (Role::PaysPart, 7),
    (Role::PaysInParts, 7),
    (Role::GivesPartBack, 7),
    (Role::FailsToPay, 8),
    (Role::WalksAway, 6),
    (Role::PaysLate, 6),
    (Role::Extends, 3),
    (Role::ExtendsTooFar, 3),
    (Role::WantsMore, 3),
    (Role::PaysTooMuch, 2),
    (Role::Swaps, 2),
];
/// Steps between the roles of neighbours and of attempts: without a common factor with a hundred, so that any
/// hundred buyers in a row play every role.
const BUYER_STEP: u64 = 37;
const TURN_STEP: u64 = 61;

impl Role {
    /// The role of a buyer's attempt.
    pub(crate) fn of(seed: u64, buyer: u32, turn: u32) -> Role {
        let place = seed % 100 + u64::from(buyer) * BUYER_STEP + u64::from(turn) * TURN_STEP;
        let mut place = (place % 100) as usize;
        for (role, share) in SHARES {
            if place < share {
                return role;
            }
            place -= share;
        }
        Role::Pays
    }

    /// The same, of one who means it: nothing is left to expire or given back whole.
    pub(crate) fn in_earnest(self) -> Role {
        match self {
            Role::FailsToPay | Role::WalksAway | Role::PaysLate => Role::Pays,
            role => role,
        }
    }

    /// Whether it takes two units of a product to play it.
    pub(crate) fn needs_two(self) -> bool {
        matches!(self, Role::PaysPart | Role::PaysInParts | Role::GivesPartBack)
    }
}

/// Units of one product in a cart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) product: usize,
    pub(crate) units: u32,
}

/// A cart of one to four products; of the first, so many units.
pub(crate) fn cart(dice: &mut StdRng, products: usize, first: u32) -> Vec<Want> {
    let lines = dice.random_range(1..=MOST_LINES.min(products));
    let all: Vec<usize> = (0..products).collect();
    let chosen = all.choose_multiple(dice, lines);
    let units = |line| if line == 0 { first } else { 1 };
    chosen.enumerate().map(|(line, &product)| Want { product, units: units(line) }).collect()
}

/// The lines of a cart as a call has them.
pub(crate) fn lines(cart: &[Want], skus: &[String]) -> Vec<Line> {
    cart.iter().map(|want| Line::new(&skus[want.product], want.units as i32)).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn any_hundred_buyers_in_a_row_play_every_role_as_often_as_it_says() {
        assert_eq!(SHARES.iter().map(|(_, share)| share).sum::<usize>(), 100);
        for (seed, from, turn) in [(0, 0, 0), (u64::MAX, 1_234, 3)] {
            let played: Vec<Role> = (from..from + 100).map(|buyer| Role::of(seed, buyer, turn)).collect();
            for (role, share) in SHARES {
                assert_eq!(played.iter().filter(|&&played| played == role).count(), share, "{role:?}");
            }
        }
    }

    #[test]
    fn carts_have_one_to_four_products_each_once() {
        let mut dice = StdRng::seed_from_u64(1);
        let mut sizes = [0; MOST_LINES + 1];
        for _ in 0..200 {
            let cart = cart(&mut dice, 5, 2);
            sizes[cart.len()] += 1;
            assert_eq!(cart[0].units, 2);
            let mut products: Vec<_> = cart.iter().map(|want| want.product).collect();
            products.sort_unstable();
            products.dedup();
            assert_eq!(products.len(), cart.len());
        }
        assert!(sizes[0] == 0 && sizes[1..].iter().all(|&size| size > 20), "{sizes:?}");
    }
}
