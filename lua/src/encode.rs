//! Operations as the arguments of the script: operations that differ only by their ids form one group. Pure, no I/O.

use std::{collections::HashMap, time::Duration};

use deadpool_redis::redis::Cmd;

use crate::{
    bytes::{put_u48, script_call},
    codes::{
        OpKind,
        stock_flags::{PAUSED, PROTECTED},
    },
    domain::{Condition, Id, Knowledge, Line, Operation, RulesChange, Sku, Term},
    history::encode_knowledge,
    keys::PartitionKeys,
};

/// The revision that matches any revision.
const ANY_REVISION: u64 = (1 << 48) - 1;

/// Operations that differ only by their ids, sent to the script as one group.
pub(crate) struct Group {
    pub(crate) kind: OpKind,
    /// Reserve: the requested ttl, 0 if unset. The payload contains the ttl in force.
    requested_ttl: u64,
    payload: Vec<u8>,
    ids: Vec<u8>,
    extra: GroupExtra,
    /// Indices of the operations, in the order of the ids.
    pub(crate) indices: Vec<usize>,
}

/// The data that a group has beside its payload and its ids.
enum GroupExtra {
    Nothing,
    /// Reserve: a buyer field for each operation, and the hold that is replaced.
    Reserve {
        buyers: Vec<u8>,
        has_buyers: bool,
        replaces: Option<Id>,
    },
    /// Late Commit: the id of the purchase for each operation.
    Purchases(Vec<u8>),
}

/// The operations of one script call, grouped.
pub struct Batch {
    pub(crate) groups: Vec<Group>,
}

impl Batch {
    /// Groups the operations; `default_ttl` is that of the namespace.
    pub fn new<'a>(operations: impl IntoIterator<Item = &'a Operation>, default_ttl: Duration) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut index: HashMap<(OpKind, u64, Vec<u8>), usize> = HashMap::new();
        let (mut payload, mut last) = (Vec::new(), 0);
        for (member, operation) in operations.into_iter().enumerate() {
            payload.clear();
            let Some(kind) = put_payload(&mut payload, operation, default_ttl) else {
                continue;
            };
            let requested_ttl = requested_ttl(operation);
            let is_like =
                |group: &Group| group.kind == kind && group.requested_ttl == requested_ttl && group.payload == payload;
            if !kind.is_groupable() || !groups.get(last).is_some_and(is_like) {
                // Most operations belong to the group of the one before. Only for others the index is searched.
                let new = groups.len();
                last = if kind.is_groupable() {
                    *index.entry((kind, requested_ttl, payload.clone())).or_insert(new)
                } else {
                    new
                };
                if last == new {
                    let (payload, extra) = (payload.clone(), GroupExtra::of(operation));
                    groups.push(Group { kind, requested_ttl, payload, ids: Vec::new(), extra, indices: Vec::new() });
                }
            }
            groups[last].add(member, operation);
        }
        Self { groups }
    }

    /// Marks the batch as possibly sent before: it no longer claims that its Reserves are first attempts.
    pub fn clear_first_attempt(&mut self) {
        for group in &mut self.groups {
            if group.kind == OpKind::FirstReserve {
                group.kind = OpKind::Reserve;
            }
        }
    }

    /// The call of the script. The groups do not contain the server's knowledge of the history, so a batch that is sent
    /// again has the newest.
    pub fn command(
        &self,
        sha: &str,
        keys: &PartitionKeys,
        epoch: u64,
        knowledge: &Knowledge,
        replid: Option<Term>,
    ) -> Cmd {
        let mut command = script_call(sha, keys);
        command.arg(epoch).arg(encode_knowledge(knowledge, replid));
        for group in &self.groups {
            let extra = group.extra.encode(group.requested_ttl);
            command.arg(group.kind.word()).arg(&group.payload).arg(&group.ids).arg(extra);
        }
        command
    }
}

impl Group {
    fn add(&mut self, member: usize, operation: &Operation) {
        self.indices.push(member);
        if let Some(id) = id_of(operation) {
            self.ids.extend_from_slice(id);
        }
        match (&mut self.extra, operation) {
            (GroupExtra::Reserve { buyers, has_buyers, .. }, Operation::Reserve { buyer, .. }) => {
                let buyer = buyer.as_str();
                buyers.push(buyer.len() as u8);
                buyers.extend_from_slice(buyer.as_bytes());
                *has_buyers |= !buyer.is_empty();
            }
            (GroupExtra::Purchases(ids), Operation::Commit { purchase: Some(purchase), .. }) => {
                ids.extend_from_slice(purchase);
            }
            _ => {}
        }
    }
}

impl GroupExtra {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Reserve { replaces, .. } => {
                GroupExtra::Reserve { buyers: Vec::new(), has_buyers: false, replaces: *replaces }
            }
            Operation::Commit { purchase: Some(_), .. } => GroupExtra::Purchases(Vec::new()),
            _ => GroupExtra::Nothing,
        }
    }

    fn encode(&self, requested_ttl: u64) -> Vec<u8> {
        match self {
            GroupExtra::Nothing => Vec::new(),
            GroupExtra::Purchases(ids) => ids.clone(),
            GroupExtra::Reserve { buyers, has_buyers, replaces } => {
                let mut out = Vec::with_capacity(6 + buyers.len());
                put_u48(&mut out, requested_ttl);
                if *has_buyers {
                    out.extend_from_slice(buyers);
                }
                out.extend(replaces.iter().flatten());
                out
            }
        }
    }
}

/// The identity of an operation, if it has one.
fn id_of(operation: &Operation) -> Option<&Id> {
    match operation {
        Operation::Reserve { id, .. }
        | Operation::Commit { id, .. }
        | Operation::Rollback(id)
        | Operation::GetReservation(id) => Some(&id.id),
        Operation::CommitLines { memo, .. }
        | Operation::RollbackLines { memo, .. }
        | Operation::Extend { memo, .. }
        | Operation::SetStock { memo, .. }
        | Operation::AdjustStock { memo, .. }
        | Operation::ConfigureSku { memo, .. }
        | Operation::DeleteSku { memo, .. }
        | Operation::BeginSettlement { memo, .. }
        | Operation::EndSettlement { memo, .. }
        | Operation::ClosePartition { memo, .. } => Some(memo),
        Operation::SettleSku { key, .. } => Some(key),
        Operation::GetStock { .. } | Operation::IsProtected { .. } | Operation::Sweep => None,
    }
}

/// The requested ttl of a Reserve; 0: unset.
fn requested_ttl(operation: &Operation) -> u64 {
    if let Operation::Reserve { ttl: Some(ttl), .. } = operation { ttl.as_millis() } else { 0 }
}

/// Writes the payload of an operation and returns its kind. `None`: the operation is not sent to the script.
fn put_payload(payload: &mut Vec<u8>, operation: &Operation, default_ttl: Duration) -> Option<OpKind> {
    let kind = match operation {
        Operation::Reserve { lines, ttl, replaces, is_first_attempt, .. } => {
            put_line_set(payload, ttl.map_or(default_ttl.as_millis() as u64, |ttl| ttl.as_millis()), lines);
            match (replaces, is_first_attempt) {
                (Some(_), _) => OpKind::ReserveReplacing,
                (None, true) => OpKind::FirstReserve,
                (None, false) => OpKind::Reserve,
            }
        }
        Operation::Commit { purchase: None, .. } => OpKind::Commit,
        Operation::Commit { purchase: Some(_), .. } => OpKind::CommitLate,
        Operation::Rollback(_) => OpKind::Rollback,
        Operation::GetReservation(_) => OpKind::GetReservation,
        Operation::CommitLines { id, lines, keep_rest, .. } => {
            payload.extend_from_slice(&id.id);
            payload.push((*keep_rest).into());
            put_line_set(payload, 0, lines);
            OpKind::CommitLines
        }
        Operation::RollbackLines { id, lines, .. } => {
            payload.extend_from_slice(&id.id);
            put_line_set(payload, 0, lines);
            OpKind::RollbackLines
        }
        Operation::Extend { id, ttl, .. } => {
            payload.extend_from_slice(&id.id);
            put_u48(payload, ttl.as_millis());
            OpKind::Extend
        }
        Operation::SetStock { sku, on_hand, condition, .. } => {
            put_u48(payload, on_hand.get());
            let (condition, version) = match *condition {
                Condition::Always => (0, 0),
                Condition::IfAbsent => (1, 0),
                Condition::IfVersion(version) => (2, version),
            };
            payload.push(condition);
            put_u48(payload, version);
            put_sku(payload, sku);
            OpKind::SetStock
        }
        Operation::AdjustStock { sku, delta, .. } => {
            payload.extend_from_slice(&delta.get().to_be_bytes());
            put_sku(payload, sku);
            OpKind::AdjustStock
        }
        Operation::ConfigureSku { sku, change, if_revision, .. } => {
            put_change(payload, change);
            put_u48(payload, if_revision.unwrap_or(ANY_REVISION));
            put_sku(payload, sku);
            OpKind::ConfigureSku
        }
        Operation::DeleteSku { sku, .. } => {
            put_sku(payload, sku);
            OpKind::DeleteSku
        }
        Operation::GetStock { sku } => {
            put_sku(payload, sku);
            OpKind::GetStock
        }
        Operation::IsProtected { sku } => {
            put_sku(payload, sku);
            OpKind::IsProtected
        }
        Operation::BeginSettlement { key, fence, .. } => {
            payload.extend_from_slice(key);
            payload.extend_from_slice(&fence.0);
            OpKind::BeginSettlement
        }
        Operation::SettleSku { sku, available, old_holds_return, only_known, .. } => {
            payload.push(u8::from(*old_holds_return) + 2 * u8::from(*only_known));
            put_u48(payload, available.get());
            put_sku(payload, sku);
            OpKind::SettleSku
        }
        Operation::EndSettlement { key, .. } => {
            payload.extend_from_slice(key);
            OpKind::EndSettlement
        }
        Operation::ClosePartition { token, request, only_check, .. } => {
            payload.push(u8::from(!*only_check));
            payload.extend_from_slice(token);
            payload.extend_from_slice(request);
            OpKind::ClosePartition
        }
        Operation::Sweep => return None,
    };
    Some(kind)
}

/// Appends a line set: the ttl and the lines of a reservation.
fn put_line_set(out: &mut Vec<u8>, ttl: u64, lines: &[Line]) {
    out.reserve(7 + lines.len() * 24);
    put_u48(out, ttl);
    out.push(lines.len() as u8);
    for line in lines {
        out.extend_from_slice(&line.quantity.get().to_be_bytes());
        out.push(line.sku.as_str().len() as u8);
        put_sku(out, &line.sku);
    }
}

fn put_sku(out: &mut Vec<u8>, sku: &Sku) {
    out.extend_from_slice(sku.as_str().as_bytes());
}

/// Writes a mask with a bit for each rule that changes, then the values of all rules.
fn put_change(out: &mut Vec<u8>, change: &RulesChange) {
    let RulesChange { is_protected, max_quantity, max_ttl, buyer_limit, opens_at, closes_at, is_paused } = *change;
    let set = [
        is_protected.is_some(),
        max_quantity.is_some(),
        max_ttl.is_some(),
        buyer_limit.is_some(),
        opens_at.is_some(),
        closes_at.is_some(),
        is_paused.is_some(),
    ];
    out.push(set.iter().enumerate().map(|(bit, &set)| u8::from(set) << bit).sum());
    let flag = |value: Option<bool>, flag: u8| if value == Some(true) { flag } else { 0 };
    out.push(flag(is_protected, PROTECTED) + flag(is_paused, PAUSED));
    out.extend_from_slice(&max_quantity.unwrap_or(0).to_be_bytes());
    put_u48(out, max_ttl.unwrap_or(0));
    out.extend_from_slice(&buyer_limit.unwrap_or(0).to_be_bytes());
    put_u48(out, opens_at.map_or(0, |at| at.0));
    put_u48(out, closes_at.map_or(0, |at| at.0));
}
