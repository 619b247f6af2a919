//! The report of an audit. Plain data, no I/O.

use super::ReservationId;

/// What an audit found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The counters of a SKU do not add up to its supply.
    NotConserved,
    /// A counter is below zero.
    Negative,
    /// The held units of a SKU are not those of its pending reservations.
    HeldMismatch,
    /// A pending reservation is not in the deadline index.
    NoDeadline,
}

/// One thing that an audit found wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Empty where it is about a reservation.
    pub sku: String,
    /// The reservation that it is about, if any.
    pub reservation: Option<ReservationId>,
    /// By the records.
    pub expected: u64,
    /// By the counter.
    pub actual: u64,
}

/// What an audit has read and found.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether nothing is wrong.
    pub clean: bool,
    /// The findings, a bounded number of them.
    pub findings: Vec<Finding>,
    /// SKUs read.
    pub skus: u64,
    /// Pending reservations read.
    pub pending: u64,
    /// Available units of all SKUs.
    pub available: u64,
    /// Held units of all SKUs.
    pub held: u64,
    /// Sold units of all SKUs.
    pub sold: u64,
    /// Supplied units of all SKUs.
    pub supplied: u64,
}

impl Report {
    /// Of nothing.
    pub fn empty() -> Self {
        Self { clean: true, findings: Vec::new(), skus: 0, pending: 0, available: 0, held: 0, sold: 0, supplied: 0 }
    }
}
