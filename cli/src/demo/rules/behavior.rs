//! The behavior of the attempts of the rules scenario, and their carts. Pure.

use inventory_sentinel_client::Line;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

/// The most products of a cart.
const MAX_CART_LINES: usize = 4;

/// The behavior of the buyer in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// Reserves more units than one reservation may have.
    ExceedsQuantity,
    /// Reserves with a longer ttl than the SKU allows.
    ExceedsTtl,
    /// Reserves without a buyer id.
    HasNoBuyerId,
    /// Pays for all.
    Pays,
    /// Pays for one unit, which releases the rest.
    PaysPart,
    /// Pays for one unit and keeps holding the rest, then pays for that.
    PaysInParts,
    /// Releases one unit, then pays for the rest.
    GivesPartBack,
    /// Rolls back all.
    FailsToPay,
    /// Abandons the hold, which expires.
    WalksAway,
    /// Pays when the hold has expired.
    PaysLate,
    /// Moves the deadline, then pays.
    Extends,
    /// Extends beyond the longest life, then pays.
    ExtendsTooFar,
    /// Reserves a second cart beyond the buyer limit, then pays for the first.
    ExceedsBuyerLimit,
    /// Commits more than is held, then pays.
    ExceedsHeld,
    /// Swaps the cart for another, then pays.
    Swaps,
}

/// Percentages of attempts.
const SHARES: [(Behavior, usize); 15] = [
    (Behavior::ExceedsQuantity, 3),
    (Behavior::ExceedsTtl, 3),
    (Behavior::HasNoBuyerId, 2),
    (Behavior::Pays, 38),
    (Behavior::PaysPart, 7),
    (Behavior::PaysInParts, 7),
    (Behavior::GivesPartBack, 7),
    (Behavior::FailsToPay, 8),
    (Behavior::WalksAway, 6),
    (Behavior::PaysLate, 6),
    (Behavior::Extends, 3),
    (Behavior::ExtendsTooFar, 3),
    (Behavior::ExceedsBuyerLimit, 3),
    (Behavior::ExceedsHeld, 2),
    (Behavior::Swaps, 2),
];
/// Steps between the behaviors of neighbouring buyers and attempts. They are coprime to 100, so any hundred buyers in a
/// row have every behavior.
const BUYER_STEP: u64 = 37;
const TURN_STEP: u64 = 61;

impl Behavior {
    /// The behavior of a buyer's attempt.
    pub(crate) fn of(seed: u64, buyer: u32, turn: u32) -> Behavior {
        let place = seed % 100 + u64::from(buyer) * BUYER_STEP + u64::from(turn) * TURN_STEP;
        let mut place = (place % 100) as usize;
        for (behavior, share) in SHARES {
            if place < share {
                return behavior;
            }
            place -= share;
        }
        Behavior::Pays
    }

    /// The same, but the hold is neither abandoned nor rolled back.
    pub(crate) fn non_abandoning(self) -> Behavior {
        match self {
            Behavior::FailsToPay | Behavior::WalksAway | Behavior::PaysLate => Behavior::Pays,
            behavior => behavior,
        }
    }

    /// Whether it needs two units of a product.
    pub(crate) fn needs_two(self) -> bool {
        matches!(self, Behavior::PaysPart | Behavior::PaysInParts | Behavior::GivesPartBack)
    }
}

/// Units of one product in a cart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CartLine {
    pub(crate) product: usize,
    pub(crate) units: u32,
}

/// A cart of one to four products, with `first` units of the first.
pub(crate) fn cart(rng: &mut StdRng, products: usize, first: u32) -> Vec<CartLine> {
    let lines = rng.random_range(1..=MAX_CART_LINES.min(products));
    let all: Vec<usize> = (0..products).collect();
    let chosen = all.choose_multiple(rng, lines);
    let units = |line| if line == 0 { first } else { 1 };
    chosen.enumerate().map(|(line, &product)| CartLine { product, units: units(line) }).collect()
}

/// The lines of a cart for a call.
pub(crate) fn lines(cart: &[CartLine], skus: &[String]) -> Vec<Line> {
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
            let played: Vec<Behavior> = (from..from + 100).map(|buyer| Behavior::of(seed, buyer, turn)).collect();
            for (behavior, share) in SHARES {
                assert_eq!(played.iter().filter(|&&played| played == behavior).count(), share, "{behavior:?}");
            }
        }
    }

    #[test]
    fn carts_have_one_to_four_products_each_once() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut sizes = [0; MAX_CART_LINES + 1];
        for _ in 0..200 {
            let cart = cart(&mut rng, 5, 2);
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
