//! The history of a partition: its terms, points in it, and lost changes. Plain data, no I/O.

use std::fmt;

use super::{Reading, StoreTime};

/// The name of a term, 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Term([u8; Self::LENGTH]);

impl Term {
    /// The length of a name in bytes.
    pub const LENGTH: usize = 40;
    /// The term of a partition that has none yet.
    pub const NONE: Self = Self([b'0'; Self::LENGTH]);

    /// Parses a name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name: [u8; Self::LENGTH] = name.try_into().ok()?;
        name.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)).then_some(Self(name))
    }

    /// Its name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change, identified by its position in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPoint {
    /// The epoch of the partition.
    pub epoch: u64,
    /// The term that wrote it.
    pub term: Term,
    /// Its sequence.
    pub sequence: u64,
}

/// A loss of changes that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// When the loss was noticed.
    pub noticed_at: StoreTime,
    /// The newest acknowledged change that is lost.
    pub seen: HistoryPoint,
    /// The last sequence of its term that is still there.
    pub kept: u64,
    /// Its name.
    pub id: FenceId,
    /// Whether the partition refuses every operation that takes or adds units. In `fast` an emptied partition
    /// continues.
    pub is_gated: bool,
}

/// The name of a fence, 16 hexadecimal digits. It changes with each further loss that is noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FenceId(pub [u8; 16]);

impl FenceId {
    /// The fence of a partition without a known loss.
    pub const NONE: Self = Self([b'0'; 16]);

    /// Parses a name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name: [u8; 16] = name.try_into().ok()?;
        name.iter().all(u8::is_ascii_hexdigit).then_some(Self(name))
    }

    /// Its name; empty for [`FenceId::NONE`].
    pub fn as_str(&self) -> &str {
        if *self == Self::NONE { "" } else { std::str::from_utf8(&self.0).unwrap_or_default() }
    }
}

impl fmt::Debug for FenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a claim is part of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Part,
    /// Lost, and an operator has settled it.
    Settled,
    /// Too old to be compared.
    Unproven,
    /// Lost, and not settled.
    Lost,
}

/// A server's knowledge of a partition: one acknowledged change for each term, and the partition's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knowledge {
    /// Whether a loss gates the partition.
    pub gates: bool,
    /// Acknowledged changes.
    pub claims: Vec<HistoryPoint>,
    /// The partition's clock; `None`: not known.
    pub reading: Option<Reading>,
}
