//! What an audit reads and finds. Plain data, no I/O.

use super::ReservationId;

/// What an audit found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    NotConserved,
    Negative,
    HeldMismatch,
    NoDeadline,
}

/// One thing that an audit found wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: FindingKind,
    /// Empty where it is about a reservation.
    pub sku: String,
    pub reservation: Option<ReservationId>,
    /// What the records say.
    pub expected: u64,
    /// What the counter says.
    pub actual: u64,
}

/// What an audit read, and what it found.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub clean: bool,
    pub findings: Vec<Finding>,
    pub skus: u64,
    pub pending: u64,
    pub available: u64,
    pub held: u64,
    pub sold: u64,
    pub supplied: u64,
}

impl Report {
    /// Nothing read, nothing wrong.
    pub fn empty() -> Self {
        Self { clean: true, findings: Vec::new(), skus: 0, pending: 0, available: 0, held: 0, sold: 0, supplied: 0 }
    }
}
