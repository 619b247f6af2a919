//! The outcomes of operations, and the reasons for which the store refuses them. Plain data, no I/O.

use super::{Fence, FenceId, Line, Reservation, Sku, Stock, StoreTime};

/// The store's decision about an operation.
#[derive(Debug)]
pub struct Answer {
    /// The outcome, or why it was refused.
    pub outcome: Result<Outcome, Refusal>,
    /// The sequence of the partition after the operation.
    pub sequence: u64,
}

/// The outcome of an operation that was not refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An operation on a reservation: the reservation after it.
    Reservation {
        /// The reservation.
        reservation: Reservation,
        /// Whether the request was applied before.
        replayed: bool,
    },
    /// Reserve: too few units. The lines, each with its available units.
    Shortage(Vec<(Line, u64)>),
    /// An operation on a SKU: the counters after it. A DeleteSku that was not applied before returns those before it.
    Stock {
        /// The SKU.
        sku: Sku,
        /// Its counters.
        stock: Stock,
        /// Whether the request was applied before.
        replayed: bool,
    },
    /// ConfigureSku: the SKU already has these rules.
    Unchanged {
        /// The SKU.
        sku: Sku,
        /// Its counters.
        stock: Stock,
    },
    /// DeleteSku: there is no such SKU.
    NothingToDelete {
        /// Whether the request was applied before.
        replayed: bool,
    },
    /// A step of a settlement.
    Settlement {
        /// Whether the step was applied before.
        replayed: bool,
    },
    /// ClosePartition: it is closed, or can be.
    Closed,
    /// Sweep: nothing to report.
    Swept,
}

/// Why the store refused an operation; nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such SKU.
    SkuNotFound(Sku),
    /// The SKU is not governed here.
    SkuNotProtected(Sku),
    /// Sales of the SKU are paused. `None`: of the whole namespace.
    SalePaused(Option<Sku>),
    /// The sale has not opened.
    SaleNotOpen {
        /// The SKU.
        sku: Sku,
        /// When its sale opens.
        opens_at: StoreTime,
        /// When its sale closes; 0: never.
        closes_at: StoreTime,
    },
    /// The sale has closed.
    SaleClosed {
        /// The SKU.
        sku: Sku,
        /// When its sale opens.
        opens_at: StoreTime,
        /// When its sale closes; 0: never.
        closes_at: StoreTime,
    },
    /// More units of a line than the SKU permits.
    QuantityLimit {
        /// The SKU.
        sku: Sku,
        /// The most units.
        limit: u64,
    },
    /// A longer ttl than the SKU permits.
    TtlLimit {
        /// The SKU.
        sku: Sku,
        /// The longest ttl, in milliseconds.
        limit: u64,
    },
    /// The SKU has a limit per buyer, and none is named.
    BuyerRequired(Sku),
    /// More units than one buyer may have.
    BuyerLimit {
        /// The SKU.
        sku: Sku,
        /// Units that the buyer has.
        has: u64,
        /// The most units.
        limit: u64,
    },
    /// The identity was used with other arguments.
    RequestIdReused,
    /// The quota of the namespace is used up.
    NamespaceQuota,
    /// The store is at its memory limit, and this would create a SKU.
    StoreFull,
    /// No such reservation.
    ReservationNotFound,
    /// The reservation expired.
    ReservationExpired,
    /// The reservation was rolled back.
    ReservationRolledBack,
    /// The reservation was committed.
    ReservationAlreadyCommitted,
    /// More units of a line than are held.
    LineNotHeld {
        /// The SKU.
        sku: Sku,
        /// Units held.
        held: u64,
    },
    /// The reservation has the most changes that it may have.
    TooManyChanges,
    /// Too few units to repurchase an expired reservation. The lines, each with its available units.
    LateCommitSoldOut(Vec<(Line, u64)>),
    /// The hold would last longer than a hold may.
    ExtendLimit {
        /// Milliseconds by which the deadline could still be moved.
        left: u64,
    },
    /// Fewer units than are held.
    StockBelowHeld {
        /// Units held.
        held: u64,
    },
    /// More units than a SKU may have.
    StockLimit,
    /// The SKU exists, and the request required that it does not.
    SkuExists,
    /// Units of the SKU are held.
    SkuHasHolds {
        /// Units held.
        held: u64,
    },
    /// Reservations of a partition are pending.
    PartitionHasHolds {
        /// Their number.
        held: u64,
    },
    /// The SKU or its rules have another version. `None`: no such SKU.
    VersionMismatch(Option<Stock>),
    /// The sale would close before it opens.
    ClosesBeforeOpening,
    /// The partition has lost changes and is not settled.
    StoreFenced {
        /// The partition.
        partition: u16,
        /// Its fence, if it is gated or was emptied.
        fence: Option<Fence>,
    },
    /// There is nothing to settle.
    NotFenced,
    /// The partition has another fence, this one.
    FenceChanged(FenceId),
    /// Another settlement, or another loss, has come since.
    SettlementSuperseded,
}
