//! Operations as the arguments of the script: those that differ only by their ids go as one group.
//! Pure, no I/O.

use std::{collections::HashMap, time::Duration};

use deadpool_redis::redis::Cmd;

use super::{
    history::encode_knowledge,
    put_u48,
    records::{PAUSED, PROTECTED},
    script_call,
};
use crate::{
    domain::{Condition, Id, Knowledge, Line, Operation, RulesChange, Sku, Term},
    store::keys::PartitionKeys,
};

/// The revision that stands for any.
const ANY_REVISION: u64 = (1 << 48) - 1;
/// The kind of a Reserve whose identity was never sent before, and of one of which that is not certain.
const FIRST_ATTEMPT: u8 = b'N';
const REPEATABLE: u8 = b'R';

/// Operations that differ only by their ids, and go to the script as one.
pub(super) struct Group {
    pub(super) kind: Kind,
    /// Of a Reserve: the ttl as asked, 0 where it was unset; the args have the one in force.
    asked_ttl: u64,
    args: Vec<u8>,
    ids: Vec<u8>,
    extra: Extra,
    /// Indices of the operations, in the order of the ids.
    pub(super) members: Vec<usize>,
}

/// The kind of a group, as the script names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind(pub(super) u8);

impl Kind {
    /// Whether one answer is for all who asked: operations without an identity.
    pub(super) fn is_shared(self) -> bool {
        b"TH".contains(&self.0)
    }

    /// Whether each operation is a group of its own.
    pub(super) fn is_single(self) -> bool {
        b"rcbESAFDIUOX".contains(&self.0)
    }
}

/// What stands beside the ids.
enum Extra {
    Nothing,
    /// Of a Reserve: a buyer field for each operation, and what is replaced.
    Reserve {
        buyers: Vec<u8>,
        has_buyers: bool,
        replaces: Option<Id>,
    },
    /// Of a late Commit: the id of the purchase for each.
    Purchases(Vec<u8>),
}

/// The operations of one script call, grouped.
pub(crate) struct Batch {
    pub(super) groups: Vec<Group>,
}

impl Batch {
    pub(crate) fn new<'a>(operations: impl IntoIterator<Item = &'a Operation>, default_ttl: Duration) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut index: HashMap<(Kind, u64, Vec<u8>), usize> = HashMap::new();
        let (mut args, mut last) = (Vec::new(), 0);
        for (member, operation) in operations.into_iter().enumerate() {
            args.clear();
            let Some(kind) = put_args(&mut args, operation, default_ttl) else {
                continue;
            };
            let asked_ttl = asked_ttl(operation);
            let is_like = |group: &Group| group.kind == kind && group.asked_ttl == asked_ttl && group.args == args;
            if kind.is_single() || !groups.get(last).is_some_and(is_like) {
                // Most are like the one before; else they are looked for.
                let new = groups.len();
                last =
                    if kind.is_single() { new } else { *index.entry((kind, asked_ttl, args.clone())).or_insert(new) };
                if last == new {
                    let (args, extra) = (args.clone(), Extra::of(operation));
                    groups.push(Group { kind, asked_ttl, args, ids: Vec::new(), extra, members: Vec::new() });
                }
            }
            groups[last].add(member, operation);
        }
        Self { groups }
    }

    /// From now on it may have been sent before.
    pub(crate) fn set_repeated(&mut self) {
        for group in &mut self.groups {
            if group.kind.0 == FIRST_ATTEMPT {
                group.kind.0 = REPEATABLE;
            }
        }
    }

    /// The call of the script. What is known of the history stands outside of the groups, so that a batch that is
    /// sent again has the newest.
    pub(crate) fn command(
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
            command.arg(&[group.kind.0]).arg(&group.args).arg(&group.ids).arg(group.extra.encode(group.asked_ttl));
        }
        command
    }
}

impl Group {
    fn add(&mut self, member: usize, operation: &Operation) {
        self.members.push(member);
        if let Some(id) = id_of(operation) {
            self.ids.extend_from_slice(id);
        }
        match (&mut self.extra, operation) {
            (Extra::Reserve { buyers, has_buyers, .. }, Operation::Reserve { buyer, .. }) => {
                let buyer = buyer.as_str();
                buyers.push(buyer.len() as u8);
                buyers.extend_from_slice(buyer.as_bytes());
                *has_buyers |= !buyer.is_empty();
            }
            (Extra::Purchases(ids), Operation::Commit { purchase: Some(purchase), .. }) => {
                ids.extend_from_slice(purchase);
            }
            _ => {}
        }
    }
}

impl Extra {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Reserve { replaces, .. } => {
                Extra::Reserve { buyers: Vec::new(), has_buyers: false, replaces: *replaces }
            }
            Operation::Commit { purchase: Some(_), .. } => Extra::Purchases(Vec::new()),
            _ => Extra::Nothing,
        }
    }

    fn encode(&self, asked_ttl: u64) -> Vec<u8> {
        match self {
            Extra::Nothing => Vec::new(),
            Extra::Purchases(ids) => ids.clone(),
            Extra::Reserve { buyers, has_buyers, replaces } => {
                let mut out = Vec::with_capacity(6 + buyers.len());
                put_u48(&mut out, asked_ttl);
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

/// The ttl of a Reserve as it was asked for; 0: unset.
fn asked_ttl(operation: &Operation) -> u64 {
    if let Operation::Reserve { ttl: Some(ttl), .. } = operation { ttl.as_millis() } else { 0 }
}

/// How the script names an operation, and its args; `None`: there is nothing to say to it.
fn put_args(args: &mut Vec<u8>, operation: &Operation, default_ttl: Duration) -> Option<Kind> {
    let kind = match operation {
        Operation::Reserve { lines, ttl, replaces, is_first_attempt, .. } => {
            put_shape(args, ttl.map_or(default_ttl.as_millis() as u64, |ttl| ttl.as_millis()), lines);
            match (replaces, is_first_attempt) {
                (Some(_), _) => b'r',
                (None, true) => FIRST_ATTEMPT,
                (None, false) => REPEATABLE,
            }
        }
        Operation::Commit { purchase: None, .. } => b'C',
        Operation::Commit { purchase: Some(_), .. } => b'L',
        Operation::Rollback(_) => b'B',
        Operation::GetReservation(_) => b'G',
        Operation::CommitLines { id, lines, keep_rest, .. } => {
            args.extend_from_slice(&id.id);
            args.push((*keep_rest).into());
            put_shape(args, 0, lines);
            b'c'
        }
        Operation::RollbackLines { id, lines, .. } => {
            args.extend_from_slice(&id.id);
            put_shape(args, 0, lines);
            b'b'
        }
        Operation::Extend { id, ttl, .. } => {
            args.extend_from_slice(&id.id);
            put_u48(args, ttl.as_millis());
            b'E'
        }
        Operation::SetStock { sku, on_hand, condition, .. } => {
            put_u48(args, on_hand.get());
            let (condition, version) = match *condition {
                Condition::Always => (0, 0),
                Condition::IfAbsent => (1, 0),
                Condition::IfVersion(version) => (2, version),
            };
            args.push(condition);
            put_u48(args, version);
            put_sku(args, sku);
            b'S'
        }
        Operation::AdjustStock { sku, delta, .. } => {
            args.extend_from_slice(&delta.get().to_be_bytes());
            put_sku(args, sku);
            b'A'
        }
        Operation::ConfigureSku { sku, change, if_revision, .. } => {
            put_change(args, change);
            put_u48(args, if_revision.unwrap_or(ANY_REVISION));
            put_sku(args, sku);
            b'F'
        }
        Operation::DeleteSku { sku, .. } => {
            put_sku(args, sku);
            b'D'
        }
        Operation::GetStock { sku } => {
            put_sku(args, sku);
            b'T'
        }
        Operation::IsProtected { sku } => {
            put_sku(args, sku);
            b'H'
        }
        Operation::BeginSettlement { key, fence, .. } => {
            args.extend_from_slice(key);
            args.extend_from_slice(&fence.0);
            b'I'
        }
        Operation::SettleSku { sku, available, old_holds_return, only_known, .. } => {
            args.push(u8::from(*old_holds_return) + 2 * u8::from(*only_known));
            put_u48(args, available.get());
            put_sku(args, sku);
            b'U'
        }
        Operation::EndSettlement { key, .. } => {
            args.extend_from_slice(key);
            b'O'
        }
        Operation::ClosePartition { token, request, only_check, .. } => {
            args.push(u8::from(!*only_check));
            args.extend_from_slice(token);
            args.extend_from_slice(request);
            b'X'
        }
        Operation::Sweep => return None,
    };
    Some(Kind(kind))
}

/// The shape of a reservation: its ttl, and the lines.
fn put_shape(out: &mut Vec<u8>, ttl: u64, lines: &[Line]) {
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

/// Which rules change, a bit each, and their values.
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
