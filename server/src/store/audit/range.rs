//! Ranges of hashes, which split the reservations and the SKUs of a partition into passes. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::AuditError;
use crate::domain::{Id, Sku};

/// A range of hashes that includes both ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Range {
    pub(super) const ALL: Range = Range { from: 0, to: u64::MAX };

    pub(super) fn has(self, hash: u64) -> bool {
        (self.from..=self.to).contains(&hash)
    }

    /// Keeps the lower half.
    pub(super) fn halve(&mut self) -> Result<(), AuditError> {
        if self.from == self.to {
            return Err(AuditError::TooLarge);
        }
        self.to = self.from + (self.to - self.from) / 2;
        Ok(())
    }

    /// All hashes after it.
    pub(super) fn rest(self) -> Option<Range> {
        Some(Range { from: self.to.checked_add(1)?, to: u64::MAX })
    }
}

/// Ids are digests, so any part of one is a hash.
pub(super) fn hash_of_id(id: &Id) -> u64 {
    id.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

pub(super) fn hash_of_sku(sku: &Sku) -> u64 {
    // A hasher without a key has the same result in each pass.
    let mut hasher = DefaultHasher::new();
    sku.hash(&mut hasher);
    hasher.finish()
}
