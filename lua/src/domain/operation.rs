//! What a lane carries to its partition, and what comes of it. Plain data, no I/O.

use std::time::Duration;

use super::{
    BuyerId, Clock, Delta, Fence, FenceId, HistoryPoint, Id, Line, Millis, OnHand, Quantity, ReservationId, Sku, Ttl,
};

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Committed,
    RolledBack,
    Expired,
}

/// One line of a reservation, and what became of its units; the rest of them is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedLine {
    pub sku: Sku,
    pub quantity: Quantity,
    pub sold: u32,
    pub released: u32,
}

impl ReservedLine {
    pub fn held(&self) -> u32 {
        self.quantity.get().saturating_sub(self.sold).saturating_sub(self.released)
    }
}

/// Units held for a buyer until a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub id: ReservationId,
    pub state: State,
    pub lines: Vec<ReservedLine>,
    pub buyer: BuyerId,
    pub created_at: Millis,
    pub expires_at: Millis,
    pub resolved_at: Option<Millis>,
    /// The reservation that this one came after.
    pub origin: Option<ReservationId>,
    /// Of an expired reservation: what a late Commit bought anew.
    pub purchase: Option<ReservationId>,
}

impl Reservation {
    /// With its instants as the time of day; they are stored on the partition's clock.
    pub fn at_time_of_day(self, clock: Clock) -> Self {
        Self {
            created_at: clock.time_of_day(self.created_at),
            expires_at: clock.time_of_day(self.expires_at),
            resolved_at: self.resolved_at.map(|at| clock.time_of_day(at)),
            ..self
        }
    }
}

/// The counters of one SKU, and its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    pub available: u64,
    pub held: u64,
    pub sold: u64,
    pub supplied: u64,
    /// Units that left `supplied` with holds older than a settlement.
    pub withdrawn: u64,
    pub version: u64,
    pub is_protected: bool,
    /// Whether every Reserve of it is refused.
    pub is_paused: bool,
    pub rules: Rules,
}

/// The rules of a SKU beside its protection; 0 means none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Grows with every change; 0 while there was none.
    pub revision: u64,
    pub max_quantity: u32,
    /// Milliseconds.
    pub max_ttl: u64,
    pub buyer_limit: u32,
    pub opens_at: Millis,
    pub closes_at: Millis,
}

/// Rules of a SKU to change; what is `None` stays, what is 0 goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RulesChange {
    pub is_protected: Option<bool>,
    pub max_quantity: Option<u32>,
    /// Milliseconds.
    pub max_ttl: Option<u64>,
    pub buyer_limit: Option<u32>,
    pub opens_at: Option<Millis>,
    pub closes_at: Option<Millis>,
    pub is_paused: Option<bool>,
}

/// Settings of a namespace to change; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceChange {
    pub partitions: Option<u16>,
    pub default_ttl: Option<Duration>,
    pub max_ttl: Option<Duration>,
    pub max_life: Option<Duration>,
    pub retention: Option<Duration>,
    pub quota_records: Option<u64>,
    pub quota_skus: Option<u64>,
    pub format: Option<u8>,
    pub is_paused: Option<bool>,
}

/// When SetStock may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    IfAbsent,
    IfVersion(u64),
}

/// What a lane carries to its partition. The `memo` of a change is the identity by which it is
/// remembered; a change without one has the identity of its reservation.
#[derive(Debug)]
pub enum Operation {
    Reserve {
        id: ReservationId,
        lines: Vec<Line>,
        /// `None`: the default of the namespace.
        ttl: Option<Ttl>,
        buyer: BuyerId,
        /// The hold that is given back in the same step.
        replaces: Option<Id>,
        /// Whether the identity was never sent before, as the caller says.
        is_first_attempt: bool,
    },
    Commit {
        id: ReservationId,
        /// After the deadline: buy anew, under this id.
        purchase: Option<Id>,
    },
    CommitLines {
        memo: Id,
        id: ReservationId,
        lines: Vec<Line>,
        keep_rest: bool,
    },
    Rollback(ReservationId),
    RollbackLines {
        memo: Id,
        id: ReservationId,
        lines: Vec<Line>,
    },
    Extend {
        memo: Id,
        id: ReservationId,
        ttl: Ttl,
    },
    GetReservation(ReservationId),
    SetStock {
        memo: Id,
        sku: Sku,
        on_hand: OnHand,
        condition: Condition,
    },
    AdjustStock {
        memo: Id,
        sku: Sku,
        delta: Delta,
    },
    ConfigureSku {
        memo: Id,
        sku: Sku,
        change: RulesChange,
        /// Only if the rules have this revision.
        if_revision: Option<u64>,
    },
    DeleteSku {
        memo: Id,
        sku: Sku,
    },
    GetStock {
        sku: Sku,
    },
    /// As GetStock, but refused while the partition is fenced.
    IsProtected {
        sku: Sku,
    },
    /// Begins the settlement of a partition that lost changes.
    BeginSettlement {
        memo: Id,
        /// Stands for the identity and the operator's figures.
        key: Id,
        fence: FenceId,
    },
    /// Sets the counters of one SKU in the settlement that has begun.
    SettleSku {
        key: Id,
        sku: Sku,
        available: OnHand,
        old_holds_return: bool,
        /// Does not make a SKU that is not known.
        only_known: bool,
    },
    /// Ends the settlement and opens the partition.
    EndSettlement {
        memo: Id,
        key: Id,
    },
    /// Closes the partition, which is the first step of its deletion; or only checks that it could be closed.
    ClosePartition {
        memo: Id,
        /// Of the call that deletes.
        token: Id,
        /// Stands for its request.
        request: Id,
        only_check: bool,
    },
    /// Gives back what is due and nothing else.
    Sweep,
}

impl Operation {
    /// Whether a store at its memory limit refuses it. What would make a SKU is refused by the script.
    pub fn grows(&self) -> bool {
        matches!(self, Operation::Reserve { .. })
    }

    /// Whether it changes nothing, so that a lost answer leaves no doubt behind.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Operation::GetReservation(_)
                | Operation::GetStock { .. }
                | Operation::IsProtected { .. }
                | Operation::Sweep
        )
    }

    /// From now on it may have been sent before.
    pub fn set_repeated(&mut self) {
        if let Operation::Reserve { is_first_attempt, .. } = self {
            *is_first_attempt = false;
        }
    }

    /// How many lines it can touch: what a batch is bounded by, beside its operations.
    pub fn weight(&self) -> usize {
        match self {
            Operation::Reserve { lines, .. }
            | Operation::CommitLines { lines, .. }
            | Operation::RollbackLines { lines, .. } => lines.len(),
            _ => 1,
        }
    }
}

/// What the store decided about an operation, and where that stands in the partition's history.
#[derive(Debug)]
pub struct Answer {
    pub outcome: Result<Outcome, Refusal>,
    pub sequence: u64,
}

/// What came of an operation that was not refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of all that name a reservation: the reservation as it is now.
    Reservation { reservation: Reservation, replayed: bool },
    /// Reserve: the lines, and how many units there are of each.
    Shortage(Vec<(Line, u64)>),
    /// Of all that name a SKU: the counters as they are now; DeleteSku: as they were, or of a replay as they are now.
    Stock { sku: Sku, stock: Stock, replayed: bool },
    /// ConfigureSku: the rules are so already.
    Unchanged { sku: Sku, stock: Stock },
    /// DeleteSku: there is no such SKU.
    NothingToDelete { replayed: bool },
    /// A step of a settlement.
    Settlement { replayed: bool },
    /// ClosePartition: it is closed, or can be.
    Closed,
    /// Sweep: nothing to tell.
    Swept,
}

/// Why the store refused an operation; nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    SkuNotFound(Sku),
    SkuNotProtected(Sku),
    /// `None`: the whole namespace is paused.
    SalePaused(Option<Sku>),
    SaleNotOpen {
        sku: Sku,
        opens_at: Millis,
        closes_at: Millis,
    },
    SaleClosed {
        sku: Sku,
        opens_at: Millis,
        closes_at: Millis,
    },
    QuantityLimit {
        sku: Sku,
        limit: u64,
    },
    /// Milliseconds.
    TtlLimit {
        sku: Sku,
        limit: u64,
    },
    BuyerRequired(Sku),
    BuyerLimit {
        sku: Sku,
        has: u64,
        limit: u64,
    },
    RequestIdReused,
    NamespaceQuota,
    /// The store is at its memory limit, and this would make a SKU.
    StoreFull,
    ReservationNotFound,
    ReservationExpired,
    ReservationRolledBack,
    ReservationAlreadyCommitted,
    LineNotHeld {
        sku: Sku,
        held: u64,
    },
    TooManyChanges,
    /// The lines, and how many units there are of each.
    LateCommitSoldOut(Vec<(Line, u64)>),
    /// Milliseconds by which the deadline could still be moved.
    ExtendLimit {
        left: u64,
    },
    StockBelowHeld {
        held: u64,
    },
    StockLimit,
    SkuExists,
    SkuHasHolds {
        held: u64,
    },
    /// So many reservations of a partition are pending.
    PartitionHasHolds {
        held: u64,
    },
    /// What there is; `None`: no such SKU.
    VersionMismatch(Option<Stock>),
    ClosesBeforeOpening,
    /// The partition has lost changes and is not settled.
    StoreFenced {
        partition: u16,
        fence: Option<Fence>,
    },
    NotFenced,
    /// The fence as it is now.
    FenceChanged(FenceId),
    SettlementSuperseded,
}

/// All rules of a SKU after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configured {
    pub is_protected: bool,
    pub is_paused: bool,
    pub rules: Rules,
}

/// What a change was, with the units that it moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A reservation was made.
    Reserved(Vec<Line>),
    Committed(Vec<Line>),
    /// Given back by a call.
    RolledBack(Vec<Line>),
    /// Given back by the deadline.
    Expired(Vec<Line>),
    /// Held for longer; nothing moved.
    Extended(Vec<Line>),
    /// A reservation was made that is sold already.
    BoughtLate(Vec<Line>),
    /// So many units more on hand, or fewer.
    StockSet(Sku, i64),
    StockAdjusted(Sku, i64),
    /// The rules of a SKU were changed, to these; an older format does not say to which.
    Configured(Sku, Option<Configured>),
    Deleted(Sku),
    /// The store has lost changes up to this one; the last that is still there of its term.
    HistoryLost(HistoryPoint, u64),
    SkuSettled(Sku, i64),
    PartitionSettled,
}
