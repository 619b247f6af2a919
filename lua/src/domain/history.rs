//! The history of a partition: terms, places in it, and what was lost of it. Plain data, no I/O.

use std::fmt;

use super::{Reading, StoreTime};

/// The name of a term, 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Term([u8; Self::LENGTH]);

impl Term {
    /// Bytes of a name.
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

/// A change, by the history that it belongs to.
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
    /// Whether the partition takes and adds no units. In `fast` one that was emptied goes on.
    pub is_gated: bool,
}

/// The name of a fence, 16 hexadecimal digits: another one as soon as another loss is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FenceId(pub [u8; 16]);

impl FenceId {
    /// Of a partition whose losses nobody knows.
    pub const NONE: Self = Self([b'0'; 16]);

    /// Parses a name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name: [u8; 16] = name.try_into().ok()?;
        name.iter().all(u8::is_ascii_hexdigit).then_some(Self(name))
    }

    /// Empty where nobody knows a loss.
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

/// A caller's knowledge of a partition: changes that were acknowledged, one for each term, and its clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knowledge {
    /// Whether a loss gates the partition.
    pub gates: bool,
    /// Acknowledged changes.
    pub claims: Vec<HistoryPoint>,
    /// The partition's clock; `None`: not known.
    pub reading: Option<Reading>,
}
