//! The report of an audit. Plain data, no I/O.

use super::ReservationId;

/// The kind of a finding.
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

/// One inconsistency that an audit found.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The SKU; empty if the finding is about a reservation.
    pub sku: String,
    /// The reservation that it is about, if any.
    pub reservation: Option<ReservationId>,
    /// The number according to the records.
    pub expected: u64,
    /// The number according to the counter.
    pub actual: u64,
}

/// The result of an audit: its findings, and totals of the records that it read.
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
    /// The report of an audit that has read nothing.
    pub fn empty() -> Self {
        Self { clean: true, findings: Vec::new(), skus: 0, pending: 0, available: 0, held: 0, sold: 0, supplied: 0 }
    }
}
