//! The operations that a lane submits to its partition. Plain data, no I/O.

use super::{BuyerId, Delta, FenceId, Id, Line, OnHand, ReservationId, RulesChange, Sku, Ttl};

/// When SetStock may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// If there is no such SKU.
    IfAbsent,
    /// If the SKU has this version.
    IfVersion(u64),
}

/// An operation that a lane submits to its partition. The store remembers a change by its `memo`. A change without a
/// `memo` has the identity of its reservation.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Holds units.
    Reserve {
        /// The reservation.
        id: ReservationId,
        /// The lines.
        lines: Vec<Line>,
        /// `None`: the default of the namespace.
        ttl: Option<Ttl>,
        /// The buyer; may be empty.
        buyer: BuyerId,
        /// The hold that is given back in the same step.
        replaces: Option<Id>,
        /// Whether the identity was never sent before, as the caller claims.
        is_first_attempt: bool,
    },
    /// Sells the units of a reservation.
    Commit {
        /// The reservation.
        id: ReservationId,
        /// The id under which it is repurchased after the deadline.
        purchase: Option<Id>,
    },
    /// Sells some units of a reservation.
    CommitLines {
        /// Its identity.
        memo: Id,
        /// The reservation.
        id: ReservationId,
        /// The lines.
        lines: Vec<Line>,
        /// Whether the other units stay held; otherwise they are given back.
        keep_rest: bool,
    },
    /// Gives the units of a reservation back.
    Rollback(ReservationId),
    /// Gives some units of a reservation back.
    RollbackLines {
        /// Its identity.
        memo: Id,
        /// The reservation.
        id: ReservationId,
        /// The lines.
        lines: Vec<Line>,
    },
    /// Moves the deadline of a reservation.
    Extend {
        /// Its identity.
        memo: Id,
        /// The reservation.
        id: ReservationId,
        /// How long it is held from now on.
        ttl: Ttl,
    },
    /// Reads a reservation.
    GetReservation(ReservationId),
    /// Sets the units of a SKU.
    SetStock {
        /// Its identity.
        memo: Id,
        /// The SKU.
        sku: Sku,
        /// Its units, held ones included.
        on_hand: OnHand,
        /// When it may be applied.
        condition: Condition,
    },
    /// Adds units to a SKU, or takes some away.
    AdjustStock {
        /// Its identity.
        memo: Id,
        /// The SKU.
        sku: Sku,
        /// Units to add or to take away.
        delta: Delta,
    },
    /// Changes the rules of a SKU.
    ConfigureSku {
        /// Its identity.
        memo: Id,
        /// The SKU.
        sku: Sku,
        /// The rules to change.
        change: RulesChange,
        /// Only if the rules have this revision.
        if_revision: Option<u64>,
    },
    /// Deletes a SKU.
    DeleteSku {
        /// Its identity.
        memo: Id,
        /// The SKU.
        sku: Sku,
    },
    /// Reads a SKU.
    GetStock {
        /// The SKU.
        sku: Sku,
    },
    /// As GetStock, but refused while the partition is fenced.
    IsProtected {
        /// The SKU.
        sku: Sku,
    },
    /// Begins the settlement of a partition that lost changes.
    BeginSettlement {
        /// Its identity.
        memo: Id,
        /// A digest of the identity and the operator's figures.
        key: Id,
        /// The fence that is settled.
        fence: FenceId,
    },
    /// Sets the counters of one SKU in the settlement that has begun.
    SettleSku {
        /// The key of the settlement.
        key: Id,
        /// The SKU.
        sku: Sku,
        /// Units available.
        available: OnHand,
        /// Whether units of older holds return to the stock.
        old_holds_return: bool,
        /// Whether a SKU that does not exist is left out.
        only_known: bool,
    },
    /// Ends the settlement and opens the partition.
    EndSettlement {
        /// Its identity.
        memo: Id,
        /// The key of the settlement.
        key: Id,
    },
    /// Closes the partition, which is the first step of its deletion; or only checks that it could be closed.
    ClosePartition {
        /// Its identity.
        memo: Id,
        /// The token of the call that deletes.
        token: Id,
        /// A digest of its request.
        request: Id,
        /// Whether nothing is closed.
        only_check: bool,
    },
    /// Gives due holds back and does nothing else.
    Sweep,
}

impl Operation {
    /// Whether a store at its memory limit refuses it. Creating a SKU is refused by the script instead.
    pub fn grows(&self) -> bool {
        matches!(self, Operation::Reserve { .. })
    }

    /// Whether it changes nothing. If the answer of a read is lost, no change is in doubt.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Operation::GetReservation(_)
                | Operation::GetStock { .. }
                | Operation::IsProtected { .. }
                | Operation::Sweep
        )
    }

    /// Marks it as an operation that may have been sent before.
    pub fn set_repeated(&mut self) {
        if let Operation::Reserve { is_first_attempt, .. } = self {
            *is_first_attempt = false;
        }
    }

    /// The number of lines that it can touch. A batch has a bound on the sum.
    pub fn weight(&self) -> usize {
        match self {
            Operation::Reserve { lines, .. }
            | Operation::CommitLines { lines, .. }
            | Operation::RollbackLines { lines, .. } => lines.len(),
            _ => 1,
        }
    }
}
