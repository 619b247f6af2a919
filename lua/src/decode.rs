//! The script's reply to a batch as an answer for each operation. Pure, no I/O.

use deadpool_redis::redis::Value;

use crate::{
    bytes::{ByteReader, array},
    codes::AnswerCode,
    domain::{
        Answer, Clock, Fence, FenceId, Line, Operation, Outcome, Refusal, Reservation, ReservationId, ReservedLine,
        Sku, State, Stock, StoreTime, Term, Verdict,
    },
    encode::{Batch, Group},
    error::DecodeError,
    history::{fence_from, verdicts_from},
    records::{next_reservation, next_stock},
};

/// A reply that is not decoded yet.
pub type RawReply = Value;

/// The script's answer to one operation.
pub enum OperationResult {
    /// The answer.
    Answered(Answer),
    /// Due holds wait to be given back: submit it once more.
    Again(Operation),
}

/// The reply to a batch.
pub struct Reply {
    /// On the partition's clock.
    pub now: StoreTime,
    /// The clock beside the store's.
    pub clock: Clock,
    /// Holds that this call gave back because their deadline had passed.
    pub expired: u64,
    /// The next deadline of the partition, `None` if no hold waits.
    pub next_due: Option<StoreTime>,
    /// The revision of the namespace's config.
    pub config_revision: u64,
    /// The last sequence of the partition, and its term.
    pub sequence: u64,
    /// The term of that sequence.
    pub term: Term,
    /// Set where the partition has lost changes and is not settled.
    pub fence: Option<Fence>,
    /// On the claims that were sent with the batch; empty if all are part of the history.
    pub verdicts: Vec<Verdict>,
    /// One for each operation, in their order.
    pub results: Vec<OperationResult>,
}

impl Batch {
    /// Decodes the reply to this batch, which was built from these operations on this partition.
    pub fn decode(&self, reply: &RawReply, partition: u16, operations: Vec<Operation>) -> Result<Reply, DecodeError> {
        self.read(reply, partition, operations).ok_or_else(|| DecodeError::malformed("the reply of the script"))
    }

    fn read(&self, reply: &RawReply, partition: u16, operations: Vec<Operation>) -> Option<Reply> {
        let [Value::BulkString(head), replies @ ..] = array(reply)? else {
            return None;
        };
        if replies.len() != self.groups.len() {
            return None;
        }
        let mut head = ByteReader(head);
        let (now, sequence, expired) = (StoreTime(head.u48()?), head.u48()?, head.u32()?.into());
        let next_due = Some(head.u48()?).filter(|due| *due > 0).map(StoreTime);
        let (config_revision, last, term) = (head.u48()?, head.u48()?, head.term()?);
        let (clock_length, verdicts) = (head.u8()?, head.u8()?);
        let clock = if clock_length == 0 { Clock::default() } else { head.clock()? };
        let verdicts = verdicts_from(head.take(verdicts.into())?)?;
        let mut decoder = Decoder {
            partition,
            fence: fence_from(head.0, clock)?,
            now,
            clock,
            sequence,
            results: operations.iter().map(|_| None).collect(),
            operations: operations.into_iter().map(Some).collect(),
        };
        for (group, reply) in self.groups.iter().zip(replies) {
            decoder.group(group, reply)?;
        }
        Some(Reply {
            now,
            clock,
            expired,
            next_due,
            config_revision,
            sequence: last,
            term,
            fence: decoder.fence,
            verdicts,
            results: decoder.finish(),
        })
    }
}

struct Decoder {
    partition: u16,
    fence: Option<Fence>,
    now: StoreTime,
    clock: Clock,
    sequence: u64,
    operations: Vec<Option<Operation>>,
    results: Vec<Option<OperationResult>>,
}

impl Decoder {
    fn group(&mut self, group: &Group, reply: &Value) -> Option<()> {
        let [Value::BulkString(codes), Value::BulkString(shared), details @ ..] = array(reply)? else {
            return None;
        };
        let mut details = match details {
            [] => ByteReader(&[]),
            [Value::BulkString(details)] => ByteReader(details),
            _ => return None,
        };
        let shared_answer = group.kind.is_shared();
        if codes.len() != if shared_answer { 1 } else { group.indices.len() } {
            return None;
        }
        let (mut code, mut detail) = (AnswerCode::AsBefore, details.0);
        for (i, &member) in group.indices.iter().enumerate() {
            let shares = if shared_answer { i > 0 } else { codes[i] == AnswerCode::AsBefore.byte() };
            if shares {
                details = ByteReader(detail);
            } else {
                code = AnswerCode::from_byte(codes[i])?;
                detail = details.0;
            }
            // A shared change is one change, however many operations requested it.
            if !shares || !shared_answer {
                self.sequence += code.changes();
            }
            let operation = self.operations[member].take()?;
            let cursor = ReplyCursor { now: self.now, clock: self.clock, code, shared, details: &mut details };
            self.results[member] = Some(match code {
                AnswerCode::Again => OperationResult::Again(operation),
                AnswerCode::Fenced => {
                    let refusal = Refusal::StoreFenced { partition: self.partition, fence: self.fence };
                    OperationResult::Answered(Answer { outcome: Err(refusal), sequence: self.sequence })
                }
                _ => OperationResult::Answered(Answer { outcome: cursor.outcome(operation)?, sequence: self.sequence }),
            });
        }
        details.0.is_empty().then_some(())
    }

    /// Operations that were not sent to the script are sweeps.
    fn finish(self) -> Vec<OperationResult> {
        let sequence = self.sequence;
        let swept = || OperationResult::Answered(Answer { outcome: Ok(Outcome::Swept), sequence });
        self.results.into_iter().map(|result| result.unwrap_or_else(swept)).collect()
    }
}

/// The part of a reply that answers one operation.
struct ReplyCursor<'a, 'b> {
    now: StoreTime,
    clock: Clock,
    code: AnswerCode,
    shared: &'a [u8],
    /// The details of this operation, if it has any, and of those behind it. Each detail contains its own length.
    details: &'a mut ByteReader<'b>,
}

impl ReplyCursor<'_, '_> {
    /// `None`: the reply is malformed.
    fn outcome(mut self, operation: Operation) -> Option<Result<Outcome, Refusal>> {
        let refusal = match self.code {
            AnswerCode::Applied
            | AnswerCode::Unchanged
            | AnswerCode::AppliedInTwoSteps
            | AnswerCode::Repurchased
            | AnswerCode::RepurchasedBefore
            | AnswerCode::Replayed
            | AnswerCode::Value
            | AnswerCode::Short => return self.success(operation).map(Ok),
            AnswerCode::NoSuchSku
            | AnswerCode::NotProtected
            | AnswerCode::SalePaused
            | AnswerCode::OutsideWindow
            | AnswerCode::TooManyUnits
            | AnswerCode::TtlTooLong => self.rule(operation)?,
            AnswerCode::BuyerMissing | AnswerCode::OverBuyerLimit | AnswerCode::LineNotHeld => self.line()?,
            AnswerCode::IdReused => Refusal::RequestIdReused,
            AnswerCode::OverQuota => Refusal::NamespaceQuota,
            AnswerCode::StoreFull => Refusal::StoreFull,
            AnswerCode::NoSuchReservation => Refusal::ReservationNotFound,
            AnswerCode::ReservationExpired => Refusal::ReservationExpired,
            AnswerCode::ReservationRolledBack => Refusal::ReservationRolledBack,
            AnswerCode::ReservationCommitted => Refusal::ReservationAlreadyCommitted,
            AnswerCode::RepurchaseShort => self.late_and_short()?,
            AnswerCode::TooManyChanges => Refusal::TooManyChanges,
            AnswerCode::BeyondLongestLife => Refusal::ExtendLimit { left: self.details.u48()? },
            AnswerCode::BelowHeld => Refusal::StockBelowHeld { held: self.stock()?.held },
            AnswerCode::HasHolds if matches!(operation, Operation::ClosePartition { .. }) => {
                Refusal::PartitionHasHolds { held: self.details.u48()? }
            }
            AnswerCode::HasHolds => Refusal::SkuHasHolds { held: self.stock()?.held },
            AnswerCode::AboveStockLimit => Refusal::StockLimit,
            AnswerCode::SkuExists => Refusal::SkuExists,
            AnswerCode::OtherVersion if self.details.0.is_empty() => Refusal::VersionMismatch(None),
            AnswerCode::OtherVersion => Refusal::VersionMismatch(Some(self.stock()?)),
            AnswerCode::ClosesBeforeOpening => Refusal::ClosesBeforeOpening,
            AnswerCode::NotFenced => Refusal::NotFenced,
            AnswerCode::OtherFence => Refusal::FenceChanged(FenceId::parse(self.shared)?),
            AnswerCode::Superseded => Refusal::SettlementSuperseded,
            AnswerCode::AsBefore | AnswerCode::Again | AnswerCode::Fenced => return None,
        };
        Some(Err(refusal))
    }

    fn success(&mut self, operation: Operation) -> Option<Outcome> {
        let replayed = matches!(self.code, AnswerCode::Replayed | AnswerCode::RepurchasedBefore);
        let mut reservation = |id| {
            let reservation = next_reservation(id, self.details)?.at_time_of_day(self.clock);
            Some(Outcome::Reservation { reservation, replayed })
        };
        match operation {
            Operation::Reserve { lines, .. } if self.code == AnswerCode::Short => {
                let mut shared = ByteReader(self.shared);
                let _ttl = shared.u48()?;
                availability(lines, &mut shared).map(Outcome::Shortage)
            }
            Operation::Reserve { id, lines, buyer, replaces, .. } if !replayed => {
                let ttl = ByteReader(self.shared).u48()?;
                let now = StoreTime(self.now.0 + self.clock.doubt);
                let reservation = Reservation {
                    id,
                    state: State::Pending,
                    lines: lines
                        .into_iter()
                        .map(|Line { sku, quantity }| ReservedLine { sku, quantity, sold: 0, released: 0 })
                        .collect(),
                    buyer,
                    created_at: now,
                    expires_at: StoreTime(now.0 + ttl),
                    resolved_at: None,
                    origin: replaces.map(|origin| ReservationId { id: origin, partition: id.partition }),
                    purchase: None,
                };
                let reservation = reservation.at_time_of_day(self.clock);
                Some(Outcome::Reservation { reservation, replayed })
            }
            Operation::Commit { id, purchase }
                if matches!(self.code, AnswerCode::Repurchased | AnswerCode::RepurchasedBefore) =>
            {
                reservation(ReservationId { id: purchase?, partition: id.partition })
            }
            Operation::Reserve { id, .. }
            | Operation::Commit { id, .. }
            | Operation::CommitLines { id, .. }
            | Operation::Rollback(id)
            | Operation::RollbackLines { id, .. }
            | Operation::Extend { id, .. }
            | Operation::GetReservation(id) => reservation(id),
            Operation::DeleteSku { .. } if self.details.0.is_empty() => Some(Outcome::NothingToDelete { replayed }),
            Operation::ConfigureSku { sku, .. } if self.code == AnswerCode::Unchanged => {
                Some(Outcome::Unchanged { sku, stock: self.stock()? })
            }
            Operation::SetStock { sku, .. }
            | Operation::AdjustStock { sku, .. }
            | Operation::ConfigureSku { sku, .. }
            | Operation::DeleteSku { sku, .. }
            | Operation::GetStock { sku }
            | Operation::IsProtected { sku }
            | Operation::SettleSku { sku, .. } => Some(Outcome::Stock { sku, stock: self.stock()?, replayed }),
            Operation::BeginSettlement { .. } | Operation::EndSettlement { .. } => {
                Some(Outcome::Settlement { replayed })
            }
            Operation::ClosePartition { .. } => Some(Outcome::Closed),
            Operation::Sweep => Some(Outcome::Swept),
        }
    }

    /// A refusal of the whole group, by a rule of one of its SKUs.
    fn rule(&self, operation: Operation) -> Option<Refusal> {
        let mut shared = ByteReader(self.shared);
        if matches!(operation, Operation::Reserve { .. }) {
            let _ttl = shared.u48()?;
        }
        let line = shared.u8()?;
        if self.code == AnswerCode::SalePaused && line == 0 {
            return Some(Refusal::SalePaused(None));
        }
        let sku = named_sku(operation, line)?;
        Some(match self.code {
            AnswerCode::SalePaused => Refusal::SalePaused(Some(sku)),
            AnswerCode::NoSuchSku => Refusal::SkuNotFound(sku),
            AnswerCode::NotProtected => Refusal::SkuNotProtected(sku),
            AnswerCode::OutsideWindow => {
                let (opens_at, closes_at) = (StoreTime(shared.u48()?), StoreTime(shared.u48()?));
                if closes_at.0 > 0 && self.clock.time_of_day(self.now) >= closes_at {
                    Refusal::SaleClosed { sku, opens_at, closes_at }
                } else {
                    Refusal::SaleNotOpen { sku, opens_at, closes_at }
                }
            }
            AnswerCode::TooManyUnits => Refusal::QuantityLimit { sku, limit: shared.u48()? },
            _ => Refusal::TtlLimit { sku, limit: shared.u48()? },
        })
    }

    /// A refusal of one operation that is about one of its SKUs.
    fn line(&mut self) -> Option<Refusal> {
        let detail = &mut *self.details;
        let sku = Sku::from_store(detail.take_u8_prefixed()?)?;
        Some(match self.code {
            AnswerCode::BuyerMissing => Refusal::BuyerRequired(sku),
            AnswerCode::OverBuyerLimit => Refusal::BuyerLimit { sku, has: detail.u48()?, limit: detail.u48()? },
            _ => Refusal::LineNotHeld { sku, held: detail.u48()? },
        })
    }

    /// The lines that a late Commit would have repurchased, and the available units of each.
    fn late_and_short(&mut self) -> Option<Refusal> {
        let lines = self.details.lines()?;
        availability(lines, self.details).map(Refusal::LateCommitSoldOut)
    }

    fn stock(&mut self) -> Option<Stock> {
        next_stock(self.details)
    }
}

/// The lines, each with its available units.
fn availability(lines: Vec<Line>, numbers: &mut ByteReader<'_>) -> Option<Vec<(Line, u64)>> {
    lines.into_iter().map(|line| Some((line, numbers.u48()?))).collect()
}

/// The SKU of the line with this number, from 1.
fn named_sku(operation: Operation, number: u8) -> Option<Sku> {
    match operation {
        Operation::Reserve { mut lines, .. }
        | Operation::CommitLines { mut lines, .. }
        | Operation::RollbackLines { mut lines, .. } => {
            let line = usize::from(number).checked_sub(1)?;
            (line < lines.len()).then(|| lines.swap_remove(line).sku)
        }
        Operation::SetStock { sku, .. }
        | Operation::AdjustStock { sku, .. }
        | Operation::ConfigureSku { sku, .. }
        | Operation::DeleteSku { sku, .. }
        | Operation::GetStock { sku }
        | Operation::IsProtected { sku }
        | Operation::SettleSku { sku, .. } => Some(sku),
        _ => None,
    }
}
