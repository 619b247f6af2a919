//! The plain types of this client. Data only: they know neither the wire nor a connection.

use std::{
    ops::Deref,
    time::{Duration, SystemTime},
};

use inventory_sentinel::Reason;

/// A SKU and how many units of it: one position of a cart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// What is sold.
    pub sku: String,
    /// Units; the server takes 1 to 1,000,000.
    pub quantity: i32,
}

impl Line {
    /// `quantity` units of `sku`.
    pub fn new(sku: impl Into<String>, quantity: i32) -> Self {
        Line { sku: sku.into(), quantity }
    }
}

/// Where a reservation stands. Pending until it holds no unit, then one of the others for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Units are held for the buyer until the deadline.
    Pending,
    /// Something was bought: the sale is final.
    Committed,
    /// Nothing was bought, and a call gave the units back.
    RolledBack,
    /// Nothing was bought, and the deadline gave the units back.
    Expired,
    /// A state that this version of the client does not know, by its number on the wire.
    Unknown(i32),
}

/// One line of a reservation and what became of its units: `quantity = held + sold + released`.
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
    /// Units given back, by a call or by the deadline.
    pub released: i32,
}

/// Units held for a buyer until a deadline, all of the lines or none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reservation {
    /// Opaque and not to be guessed; commit and rollback need it.
    pub id: String,
    /// The namespace it was made in.
    pub namespace: String,
    /// Where it stands.
    pub state: State,
    /// The lines, in the order in which they were asked for.
    pub lines: Vec<ReservationLine>,
    /// The caller's name for the buyer, if one was given.
    pub buyer: Option<String>,
    /// When the units were taken, on the time of day of the partition.
    pub created_at: SystemTime,
    /// The deadline, on the time of day of the partition: at this instant the units are no longer held.
    pub expires_at: SystemTime,
    /// When the state became final; `None` while pending.
    pub resolved_at: Option<SystemTime>,
    /// The reservation that this one came after: the hold that it replaced, or the expired one that a
    /// late commit repurchased.
    pub origin: Option<String>,
    /// Of an expired reservation: the purchase that a late commit made of it. Its units are sold, and stay
    /// sold whatever is done with this reservation.
    pub purchase: Option<String>,
    /// The `request_id` of the Reserve that made it, where the server can say it: a UUID in lower case with hyphens, or up
    /// to 17 bytes.
    pub request_id: Option<String>,
}

/// A reservation with its deadline as it is now, and what is left to extend.
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
    /// Units asked for.
    pub requested: i32,
    /// Units there were: fewer, and possibly more than none.
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
    /// Units ever put here, less those taken away.
    pub supplied: i64,
    /// Grows with every change of this SKU and never repeats.
    pub version: i64,
    /// Whether the units are governed here.
    pub is_protected: bool,
    /// Whether the sale of this SKU is paused by its own rule.
    pub is_paused: bool,
    /// Units that left `supplied` with holds older than a settlement.
    pub withdrawn: i64,
}

/// What an audit can find wrong.
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
    /// A kind that this version of the client does not know, by its number on the wire.
    Unknown(i32),
}

/// One thing that an audit found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// The SKU it is about, if it is about one.
    pub sku: Option<String>,
    /// The reservation it is about, if it is about one.
    pub reservation_id: Option<String>,
    /// What the records say, in units.
    pub expected: i64,
    /// What the counter says, in units.
    pub actual: i64,
}

/// The books of a namespace, checked against its records at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// True if nothing is wrong.
    pub clean: bool,
    /// What is wrong, the first 1,000 findings.
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

/// A piece of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// What is on this page, possibly nothing even where there is more.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

/// What became of one row of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Imported {
    /// The units on hand are what the row says.
    Applied,
    /// Nothing was changed: the SKU was known, or this import has applied the row before.
    AlreadyThere,
    /// Refused, or the outcome is not known.
    #[non_exhaustive]
    Failed {
        /// Why; `None` if it is a reason that this version of the client does not know.
        reason: Option<Reason>,
        /// One sentence for people.
        message: String,
    },
}

/// What became of a SKU's protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protection {
    /// It was the other way before.
    Changed,
    /// It was so already.
    Unchanged,
    /// The SKU is not known.
    SkuNotFound,
    /// An outcome that this version of the client does not know, by its number on the wire.
    Unknown(i32),
}

/// The answer to a change: the thing changed, and how the server came to the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt<T> {
    /// The thing as it is now.
    pub value: T,
    /// True if the change had been applied before, and this call changed nothing.
    pub replayed: bool,
    /// The place of this answer in the history of the partition.
    pub sequence: i64,
}

/// The answer to a read: the thing, and the instant it was read at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// The thing as it was read.
    pub value: T,
    /// The place of this answer in the history of the partition.
    pub sequence: i64,
}

impl<T> Deref for Receipt<T> {
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
