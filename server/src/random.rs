//! The source of randomness. A server uses that of the system. A simulation uses a seeded one, and so repeats a run
//! exactly. Uses nothing of this crate.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{RngCore, rngs::StdRng};

/// Random numbers for ids, epochs, secrets and the jitter of pauses.
#[derive(Clone, Debug, Default)]
pub(crate) enum Random {
    /// Unpredictable: the generator of this thread, which the system seeds.
    #[default]
    System,
    /// The same numbers for the same seed and the same order of calls.
    #[cfg_attr(not(test), expect(dead_code, reason = "only simulations seed it"))]
    Seeded(Arc<Mutex<StdRng>>),
}

impl Random {
    /// Repeats the numbers of this seed.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        use rand::SeedableRng as _;
        Self::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut dyn RngCore) -> T) -> T {
        match self {
            Self::System => draw(&mut rand::rng()),
            Self::Seeded(rng) => draw(&mut *rng.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl RngCore for &Random {
    fn next_u32(&mut self) -> u32 {
        self.with(|rng| rng.next_u32())
    }

    fn next_u64(&mut self) -> u64 {
        self.with(|rng| rng.next_u64())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.with(|rng| rng.fill_bytes(bytes));
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers() {
        let draw = |random: &Random| -> [u64; 4] { std::array::from_fn(|_| { random }.random()) };
        assert_eq!(draw(&Random::seeded(7)), draw(&Random::seeded(7)));
        assert_ne!(draw(&Random::seeded(7)), draw(&Random::seeded(8)));
        assert_ne!(draw(&Random::System), draw(&Random::System));
    }
}
