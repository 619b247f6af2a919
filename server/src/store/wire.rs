//! Operations and answers as bytes: the arguments, the reply and the records of the script. The same
//! formats are in `lua/contract.lua` and `lua/records.lua`. Pure functions, no I/O.

use std::{collections::HashMap, time::Duration};

use deadpool_redis::redis::{Cmd, Value, cmd};

use super::{error::StoreError, keys::PartitionKeys};
use crate::domain::{
    Answer, BuyerId, Id, Line, Millis, Operation, Outcome, Quantity, Refusal, Reservation, ReservationId, Rules, Sku,
    State, Stock,
};

/// The version of the config record.
const CONFIG_VERSION: u8 = 1;
const CONFIG_BYTES: usize = 39;
/// Bytes of the secret that ids are derived with.
pub(crate) const SECRET_BYTES: usize = 32;
/// The flag of a stock record that says protected.
const PROTECTED: u8 = 1;

/// What is fixed when a namespace is made; every partition has a copy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NamespaceConfig {
    /// How long resolved reservations and requests are known.
    pub(crate) retention: Duration,
    /// The ttl of a hold that names none.
    pub(crate) default_ttl: Duration,
    /// The longest ttl of a hold.
    pub(crate) max_ttl: Duration,
    /// Most records of one partition.
    pub(crate) quota_records: u64,
    /// Most SKUs of one partition.
    pub(crate) quota_skus: u64,
    /// Changes that the event stream keeps, about.
    pub(crate) events_kept: u64,
    /// Partitions.
    pub(crate) partitions: u16,
    /// What ids are derived with; never shown.
    pub(crate) secret: [u8; SECRET_BYTES],
}

impl NamespaceConfig {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![CONFIG_VERSION];
        for number in [
            self.retention.as_millis() as u64,
            self.default_ttl.as_millis() as u64,
            self.max_ttl.as_millis() as u64,
            self.quota_records,
            self.quota_skus,
            self.events_kept,
        ] {
            put_u48(&mut out, number);
        }
        out.extend_from_slice(&self.partitions.to_be_bytes());
        out.extend_from_slice(&self.secret);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != CONFIG_BYTES + SECRET_BYTES {
            return None;
        }
        let mut bytes = Bytes(bytes);
        if bytes.u8()? != CONFIG_VERSION {
            return None;
        }
        let mut millis = || bytes.u48().map(Duration::from_millis);
        let (retention, default_ttl, max_ttl) = (millis()?, millis()?, millis()?);
        Some(Self {
            retention,
            default_ttl,
            max_ttl,
            quota_records: bytes.u48()?,
            quota_skus: bytes.u48()?,
            events_kept: bytes.u48()?,
            partitions: bytes.u16()?,
            secret: bytes.0.try_into().ok()?,
        })
    }
}

/// A partition as it was found or made.
pub(crate) struct Opened {
    pub(crate) now: Millis,
    pub(crate) config: NamespaceConfig,
    pub(crate) epoch: u64,
}

/// The call that opens a partition, with what is proposed if there is none.
pub(crate) fn open_command(sha: &str, keys: &PartitionKeys, config: &NamespaceConfig, epoch: u64) -> Cmd {
    let mut command = script_call(sha, keys);
    command.arg("open").arg(config.encode()).arg(epoch);
    command
}

pub(crate) fn decode_opened(reply: &Value) -> Result<Opened, StoreError> {
    let opened = || {
        let [Value::Int(now), Value::BulkString(config), Value::Int(epoch)] = array(reply)? else {
            return None;
        };
        Some(Opened {
            now: Millis(u64::try_from(*now).ok()?),
            config: NamespaceConfig::decode(config)?,
            epoch: u64::try_from(*epoch).ok()?,
        })
    };
    opened().ok_or_else(|| StoreError::corrupt("the meta of a partition"))
}

/// The config in a partition's meta, for one that may not exist.
pub(crate) fn decode_config(reply: &Value) -> Result<Option<NamespaceConfig>, StoreError> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => {
            NamespaceConfig::decode(bytes).map(Some).ok_or_else(|| StoreError::corrupt("the config of a partition"))
        }
        _ => Err(StoreError::corrupt("the config of a partition")),
    }
}

fn script_call(sha: &str, keys: &PartitionKeys) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(sha).arg(keys.all().len()).arg(keys.all());
    command
}

/// Operations that differ only by their ids, and go to the script as one.
struct Group {
    kind: u8,
    args: Vec<u8>,
    ids: Vec<u8>,
    /// The effective ttl of a Reserve.
    ttl: u64,
    /// A buyer field for each operation of a Reserve.
    buyers: Vec<u8>,
    has_buyers: bool,
    /// Indices of the operations, in the order of the ids.
    members: Vec<usize>,
}

/// The operations of one script call, grouped.
pub(crate) struct Batch {
    groups: Vec<Group>,
}

impl Batch {
    pub(crate) fn new<'a>(operations: impl IntoIterator<Item = &'a Operation>, default_ttl: Duration) -> Self {
        let mut batch = Self { groups: Vec::new() };
        let mut index: HashMap<(u8, Vec<u8>), usize> = HashMap::new();
        for (member, operation) in operations.into_iter().enumerate() {
            let Some(call) = Call::of(operation, default_ttl) else {
                continue;
            };
            let group = match index.get(&(call.kind, call.args.clone())) {
                // Each change of stock has an identity of its own, and so a group.
                Some(&group) if !matches!(call.kind, b'S' | b'A') => group,
                _ => {
                    index.insert((call.kind, call.args.clone()), batch.groups.len());
                    batch.groups.push(Group {
                        kind: call.kind,
                        args: call.args,
                        ids: Vec::new(),
                        ttl: call.ttl,
                        buyers: Vec::new(),
                        has_buyers: false,
                        members: Vec::new(),
                    });
                    batch.groups.len() - 1
                }
            };
            let group = &mut batch.groups[group];
            group.ids.extend_from_slice(call.id.unwrap_or_default());
            group.buyers.push(call.buyer.len() as u8);
            group.buyers.extend_from_slice(call.buyer.as_bytes());
            group.has_buyers |= !call.buyer.is_empty();
            group.members.push(member);
        }
        batch
    }

    pub(crate) fn command(&self, sha: &str, keys: &PartitionKeys, epoch: u64) -> Cmd {
        let mut command = script_call(sha, keys);
        command.arg(epoch);
        for group in &self.groups {
            let mut extra = Vec::new();
            if group.kind == b'R' {
                put_u48(&mut extra, group.ttl);
                if group.has_buyers {
                    extra.extend_from_slice(&group.buyers);
                }
            }
            command.arg(&[group.kind]).arg(&group.args).arg(&group.ids).arg(extra);
        }
        command
    }
}

/// One operation as the script sees it.
struct Call<'a> {
    kind: u8,
    args: Vec<u8>,
    id: Option<&'a [u8]>,
    ttl: u64,
    buyer: &'a str,
}

impl<'a> Call<'a> {
    /// `None`: nothing to say to the script.
    fn of(operation: &'a Operation, default_ttl: Duration) -> Option<Self> {
        let call =
            |kind, args, id: Option<&'a Id>| Call { kind, args, id: id.map(<[u8; 16]>::as_slice), ttl: 0, buyer: "" };
        Some(match operation {
            Operation::Reserve { id, lines, ttl, buyer } => {
                let asked = ttl.map_or(0, |ttl| ttl.as_millis());
                Call {
                    ttl: if asked == 0 { default_ttl.as_millis() as u64 } else { asked },
                    buyer: buyer.as_str(),
                    ..call(b'R', shape(asked, lines), Some(&id.id))
                }
            }
            Operation::Commit(id) => call(b'C', Vec::new(), Some(&id.id)),
            Operation::Rollback(id) => call(b'B', Vec::new(), Some(&id.id)),
            Operation::GetReservation(id) => call(b'G', Vec::new(), Some(&id.id)),
            Operation::SetStock { id, sku, on_hand } => {
                let mut args = Vec::new();
                put_u48(&mut args, on_hand.get());
                args.extend_from_slice(sku.as_str().as_bytes());
                call(b'S', args, Some(id))
            }
            Operation::AdjustStock { id, sku, delta } => {
                let mut args = delta.get().to_be_bytes().to_vec();
                args.extend_from_slice(sku.as_str().as_bytes());
                call(b'A', args, Some(id))
            }
            Operation::ConfigureSku { sku, rules: Rules { is_protected } } => {
                let mut args = vec![
                    if is_protected.is_some() { PROTECTED } else { 0 },
                    if is_protected.unwrap_or_default() { PROTECTED } else { 0 },
                ];
                args.extend_from_slice(sku.as_str().as_bytes());
                call(b'F', args, None)
            }
            Operation::GetStock { sku } => call(b'T', sku.as_str().as_bytes().to_vec(), None),
            Operation::Sweep => return None,
        })
    }
}

/// The shape of a reservation: the ttl as it was asked for, and the lines.
fn shape(ttl: u64, lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::with_capacity(7 + lines.len() * 24);
    put_u48(&mut out, ttl);
    out.push(lines.len() as u8);
    for line in lines {
        out.extend_from_slice(&line.quantity.get().to_be_bytes());
        out.push(line.sku.as_str().len() as u8);
        out.extend_from_slice(line.sku.as_str().as_bytes());
    }
    out
}

/// A reply that is not read yet.
pub(crate) type RawReply = Value;

/// What the script said about one operation.
pub(crate) enum Verdict {
    Answered(Answer),
    /// Due holds wait to be given back: submit it once more.
    Again(Operation),
}

/// The reply to a batch.
pub(crate) struct Reply {
    pub(crate) now: Millis,
    /// Holds that this call gave back because their deadline had passed.
    pub(crate) expired: u64,
    /// The next deadline of the partition, `None` if no hold waits.
    pub(crate) next_due: Option<Millis>,
    /// One for each operation, in their order.
    pub(crate) verdicts: Vec<Verdict>,
}

impl Batch {
    /// Reads the reply to this batch, which was made of these operations.
    pub(crate) fn decode(&self, reply: &Value, operations: Vec<Operation>) -> Result<Reply, StoreError> {
        let corrupt = || StoreError::corrupt("the reply of the script");
        let [now, sequence, expired, next_due, groups @ ..] = array(reply).ok_or_else(corrupt)? else {
            return Err(corrupt());
        };
        let number = |value: &Value| match value {
            Value::Int(number) => u64::try_from(*number).map_err(|_| corrupt()),
            _ => Err(corrupt()),
        };
        let mut decoder = Decoder {
            now: Millis(number(now)?),
            ttl: 0,
            sequence: number(sequence)?,
            operations: operations.into_iter().map(Some).collect(),
            verdicts: Vec::new(),
        };
        decoder.verdicts.resize_with(decoder.operations.len(), || None);
        if groups.len() != self.groups.len() {
            return Err(corrupt());
        }
        for (group, reply) in self.groups.iter().zip(groups) {
            decoder.group(group, reply).ok_or_else(corrupt)?;
        }
        let next_due = number(next_due)?;
        Ok(Reply {
            now: decoder.now,
            expired: number(expired)?,
            next_due: (next_due > 0).then_some(Millis(next_due)),
            verdicts: decoder.finish(),
        })
    }
}

struct Decoder {
    now: Millis,
    /// The effective ttl of the group that is being read.
    ttl: u64,
    sequence: u64,
    operations: Vec<Option<Operation>>,
    verdicts: Vec<Option<Verdict>>,
}

impl Decoder {
    fn group(&mut self, group: &Group, reply: &Value) -> Option<()> {
        let [Value::BulkString(codes), Value::BulkString(shared), details @ ..] = array(reply)? else {
            return None;
        };
        self.ttl = group.ttl;
        let mut details = details.iter().map(bytes);
        // Kinds without an id have one answer for all who asked.
        let for_all = group.ids.is_empty();
        if codes.len() != if for_all { 1 } else { group.members.len() } {
            return None;
        }
        let mut detail: Option<&[u8]> = None;
        for (i, &member) in group.members.iter().enumerate() {
            let code = codes[if for_all { 0 } else { i }];
            if i == 0 || !for_all {
                // ConfigureSku that changed something is one change, however many asked for it.
                self.sequence += u64::from(code == b'K');
                detail = if has_detail(group.kind, code) { Some(details.next()??) } else { None };
            }
            let operation = self.operations[member].take()?;
            self.verdicts[member] = Some(match code {
                b'A' => Verdict::Again(operation),
                _ => Verdict::Answered(Answer {
                    outcome: self.outcome(operation, code, shared, detail)?,
                    sequence: self.sequence,
                }),
            });
        }
        Some(())
    }

    fn outcome(
        &self,
        operation: Operation,
        code: u8,
        shared: &[u8],
        detail: Option<&[u8]>,
    ) -> Option<Result<Outcome, Refusal>> {
        let refusal = match code {
            b'K' | b'Y' | b'V' | b'S' => return self.success(operation, code, shared, detail).map(Ok),
            b'N' => Refusal::SkuNotFound(named_sku(operation, shared)?),
            b'U' => Refusal::SkuNotProtected(named_sku(operation, shared)?),
            b'D' => Refusal::RequestIdReused,
            b'Q' => Refusal::NamespaceQuota,
            b'X' => Refusal::ReservationNotFound,
            b'E' => Refusal::ReservationExpired,
            b'B' => Refusal::ReservationRolledBack,
            b'C' => Refusal::ReservationAlreadyCommitted,
            b'H' => Refusal::StockBelowHeld { held: stock_from(detail?)?.held },
            b'L' => Refusal::StockLimit,
            _ => return None,
        };
        Some(Err(refusal))
    }

    fn success(&self, operation: Operation, code: u8, shared: &[u8], detail: Option<&[u8]>) -> Option<Outcome> {
        let replayed = code == b'Y';
        Some(match operation {
            Operation::Reserve { lines, .. } if code == b'S' => {
                let mut available = Bytes(shared);
                let lines = lines.into_iter().map(|line| Some((line, available.u48()?)));
                Outcome::Shortage(lines.collect::<Option<_>>()?)
            }
            Operation::Reserve { id, lines, ttl: _, buyer } if code == b'K' => Outcome::Reservation {
                reservation: Reservation {
                    id,
                    state: State::Pending,
                    lines,
                    buyer,
                    created_at: self.now,
                    expires_at: Millis(self.now.0 + self.ttl),
                    resolved_at: None,
                },
                replayed,
            },
            Operation::Reserve { id, .. }
            | Operation::Commit(id)
            | Operation::Rollback(id)
            | Operation::GetReservation(id) => {
                Outcome::Reservation { reservation: reservation_from(id, detail?)?, replayed }
            }
            Operation::SetStock { sku, .. }
            | Operation::AdjustStock { sku, .. }
            | Operation::ConfigureSku { sku, .. }
            | Operation::GetStock { sku } => Outcome::Stock { sku, stock: stock_from(detail?)?, replayed },
            Operation::Sweep => Outcome::Swept,
        })
    }

    /// What the script was not asked about is a sweep.
    fn finish(self) -> Vec<Verdict> {
        let sequence = self.sequence;
        let swept = || Verdict::Answered(Answer { outcome: Ok(Outcome::Swept), sequence });
        self.verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(swept)).collect()
    }
}

/// Whether a detail stands in the reply for this code.
fn has_detail(kind: u8, code: u8) -> bool {
    match code {
        b'Y' | b'V' | b'H' => true,
        b'K' => kind != b'R',
        _ => false,
    }
}

fn named_sku(operation: Operation, shared: &[u8]) -> Option<Sku> {
    match operation {
        Operation::Reserve { mut lines, .. } => {
            let line = usize::from(*shared.first()?).checked_sub(1)?;
            (line < lines.len()).then(|| lines.swap_remove(line).sku)
        }
        Operation::SetStock { sku, .. }
        | Operation::AdjustStock { sku, .. }
        | Operation::ConfigureSku { sku, .. }
        | Operation::GetStock { sku } => Some(sku),
        _ => None,
    }
}

/// The counters in a stock record.
pub(crate) fn stock_from(record: &[u8]) -> Option<Stock> {
    let mut bytes = Bytes(record);
    let stock = Stock {
        available: bytes.u48()?,
        held: bytes.u48()?,
        sold: bytes.u48()?,
        supplied: bytes.u48()?,
        version: bytes.u48()?,
        is_protected: bytes.u8()? & PROTECTED != 0,
    };
    bytes.0.is_empty().then_some(stock)
}

/// The reservation in a record.
pub(crate) fn reservation_from(id: ReservationId, record: &[u8]) -> Option<Reservation> {
    let mut bytes = Bytes(record);
    let state = match bytes.u8()? {
        b'P' => State::Pending,
        b'C' => State::Committed,
        b'R' => State::RolledBack,
        b'E' => State::Expired,
        _ => return None,
    };
    let expires_at = Millis(bytes.u48()?);
    let created_at = Millis(bytes.u48()?);
    let resolved_at = if state == State::Pending { None } else { Some(Millis(bytes.u48()?)) };
    let buyer = bytes.short()?;
    let buyer = BuyerId::parse(String::from_utf8(buyer.to_vec()).ok()?).ok()?;
    let lines = bytes.lines()?;
    bytes.0.is_empty().then_some(Reservation { id, state, lines, buyer, created_at, expires_at, resolved_at })
}

/// The sequence in the state record of a partition.
pub(crate) fn sequence_of(state: &[u8]) -> Option<u64> {
    let mut bytes = Bytes(state);
    let _epoch = bytes.u48()?;
    bytes.u48()
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn put_u48(out: &mut Vec<u8>, number: u64) {
    debug_assert!(number < 1 << 48, "numbers in records have six bytes");
    out.extend_from_slice(&number.to_be_bytes()[2..]);
}

/// A cursor over big-endian bytes; `None` at the end.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u48(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(self.take(6)?);
        Some(u64::from_be_bytes(bytes))
    }

    /// A length of one byte, and so many bytes.
    pub(crate) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// The lines of a shape.
    pub(crate) fn lines(&mut self) -> Option<Vec<Line>> {
        let _ttl = self.u48()?;
        (0..self.u8()?)
            .map(|_| {
                let quantity = Quantity::from_store(self.u32()?);
                Some(Line { quantity, sku: Sku::from_store(self.short()?)? })
            })
            .collect()
    }
}
