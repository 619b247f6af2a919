//! What an audit reads and finds. Plain data, no I/O.

use super::ReservationId;

/// What an audit found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FindingKind {
    NotConserved,
    Negative,
    HeldMismatch,
    NoDeadline,
}

/// One thing that an audit found wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: FindingKind,
    /// Empty where it is about a reservation.
    pub(crate) sku: String,
    pub(crate) reservation: Option<ReservationId>,
    /// What the records say.
    pub(crate) expected: u64,
    /// What the counter says.
    pub(crate) actual: u64,
}

/// What an audit read, and what it found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) clean: bool,
    pub(crate) findings: Vec<Finding>,
    pub(crate) skus: u64,
    pub(crate) pending: u64,
    pub(crate) available: u64,
    pub(crate) held: u64,
    pub(crate) sold: u64,
    pub(crate) supplied: u64,
}

impl Report {
    /// Nothing read, nothing wrong.
    pub(crate) fn empty() -> Self {
        Self { clean: true, findings: Vec::new(), skus: 0, pending: 0, available: 0, held: 0, sold: 0, supplied: 0 }
    }
}
