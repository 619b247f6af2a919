//! The plain types of this client. Data only; they import no message.
//!
//! - here: reservations, stock, audits, pages. `event`: events. `server`: server state and settlements.

pub(crate) mod event;
pub(crate) mod server;

use std::{
    ops::Deref,
    time::{Duration, SystemTime},
};

use inventory_sentinel::Reason;

/// A SKU and how many units of it: one position of a cart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The SKU.
    pub sku: String,
    /// Units; the server accepts 1 to 1,000,000.
    pub quantity: i32,
}

impl Line {
    /// `quantity` units of `sku`.
    pub fn new(sku: impl Into<String>, quantity: i32) -> Self {
        Line { sku: sku.into(), quantity }
    }
}

/// The state of a reservation. Pending until it holds no unit, then final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Units are held for the buyer until the deadline.
    Pending,
    /// Some units were bought: the sale is final.
    Committed,
    /// Nothing was bought, and a call released the units.
    RolledBack,
    /// Nothing was bought, and the deadline released the units.
    Expired,
    /// A state of a newer server, by its number on the wire.
    Unknown(i32),
}

/// One line of a reservation and the state of its units: `quantity = held + sold + released`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReservationLine {
    /// The SKU, as it was reserved.
    pub sku: String,
    /// Units reserved at first.
    pub quantity: i32,
    /// Units still held.
    pub held: i32,
    /// Units bought.
    pub sold: i32,
    /// Units released, by a call or by the deadline.
    pub released: i32,
}

/// Units held for a buyer until a deadline, all of the lines or none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reservation {
    /// Opaque and unguessable; commit and rollback need it.
    pub id: String,
    /// The namespace of the reservation.
    pub namespace: String,
    /// Its state.
    pub state: State,
    /// The lines, in the order of the request.
    pub lines: Vec<ReservationLine>,
    /// The caller's id of the buyer, if one was set.
    pub buyer: Option<String>,
    /// When the units were reserved, on the time of day of the partition.
    pub created_at: SystemTime,
    /// The deadline, on the time of day of the partition: at this instant the units are no longer held.
    pub expires_at: SystemTime,
    /// When the state became final; `None` while pending.
    pub resolved_at: Option<SystemTime>,
    /// The predecessor of this reservation: the hold that it replaced, or the expired one that a late commit
    /// repurchased.
    pub origin: Option<String>,
    /// Of an expired reservation: the reservation by which a late commit repurchased it. Its units stay sold whatever
    /// is done with this reservation.
    pub purchase: Option<String>,
    /// The `request_id` of the Reserve that created it, if the server stores it: a UUID in lower case with hyphens, or
    /// up to 17 bytes.
    pub request_id: Option<String>,
}

/// A reservation with its current deadline, and the time by which it can still be extended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extended {
    /// The reservation.
    pub reservation: Reservation,
    /// How much further the deadline could be moved.
    pub extendable: Duration,
}

/// One line that the stock could not cover.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShortLine {
    /// The SKU.
    pub sku: String,
    /// Units requested.
    pub requested: i32,
    /// Units available, which is less.
    pub available: i64,
}

/// The counters of one SKU, all of one instant: `supplied = available + held + sold`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stock {
    /// The SKU.
    pub sku: String,
    /// Units that can be reserved now.
    pub available: i64,
    /// Units in pending reservations.
    pub held: i64,
    /// Units committed.
    pub sold: i64,
    /// Units ever added, minus those removed.
    pub supplied: i64,
    /// Grows with every change of this SKU and never repeats.
    pub version: i64,
    /// Whether this service governs the units.
    pub is_protected: bool,
    /// Whether the sale of this SKU is paused by its rule, as opposed to a pause of the namespace.
    pub is_paused: bool,
    /// Units that left `supplied` with holds older than a settlement.
    pub withdrawn: i64,
}

/// The kinds of audit findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// `supplied` differs from `available + held + sold`.
    NotConserved,
    /// A counter is negative.
    Negative,
    /// `held` differs from the units of the pending reservations.
    HeldMismatch,
    /// A pending reservation that no deadline covers.
    NoDeadline,
    /// A kind of a newer server, by its number on the wire.
    Unknown(i32),
}

/// A finding of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The kind of the finding.
    pub kind: FindingKind,
    /// The SKU, if the finding is about one.
    pub sku: Option<String>,
    /// The reservation, if the finding is about one.
    pub reservation_id: Option<String>,
    /// The units according to the records.
    pub expected: i64,
    /// The units according to the counter.
    pub actual: i64,
}

/// The counters of a namespace, compared with its records at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// True if there are no findings.
    pub clean: bool,
    /// The first 1,000 findings.
    pub findings: Vec<Finding>,
    /// SKUs read.
    pub skus: i64,
    /// Pending reservations.
    pub pending_reservations: i64,
    /// Units available, over all SKUs.
    pub available: i64,
    /// Units held.
    pub held: i64,
    /// Units sold.
    pub sold: i64,
    /// Units supplied.
    pub supplied: i64,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items, possibly none even if there are more pages.
    pub items: Vec<T>,
    /// The token of the next page; `None` after the last.
    pub next: Option<String>,
}

/// The outcome of one row of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Imported {
    /// The units on hand were set to those of the row.
    Applied,
    /// Nothing was changed: the SKU existed, or this import had applied the row before.
    AlreadyThere,
    /// Refused, or its outcome is unknown.
    #[non_exhaustive]
    Failed {
        /// Why; `None` for a reason of a newer server.
        reason: Option<Reason>,
        /// One sentence for humans.
        message: String,
    },
}

/// The outcome of SetProtection for one SKU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protection {
    /// The protection was changed.
    Changed,
    /// The protection already had this value.
    Unchanged,
    /// The SKU does not exist.
    SkuNotFound,
    /// An outcome of a newer server, by its number on the wire.
    Unknown(i32),
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied<T> {
    /// The changed object in its current state.
    pub value: T,
    /// True if the change had been applied before; this call changed nothing.
    pub replayed: bool,
    /// The position of this response in the history of the partition.
    pub sequence: i64,
}

/// The result of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// The object as it was read.
    pub value: T,
    /// The position of this response in the history of the partition.
    pub sequence: i64,
}

impl<T> Deref for Applied<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Deref for Snapshot<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}
