//! The steps of the model test: their kinds, their probabilities, and every malformed call. Strategies and plain data,
//! no I/O.

use inventory_sentinel::v1::SkuRules;
use inventory_sentinel_script::limits::{MAX_ID_BYTES, MAX_LINES};
use proptest::{collection::vec, prelude::*, sample::select};
use prost_types::{Duration, Timestamp};
use sentinel_tests::model::{ANY_TTL, Condition, DEFAULT_TTL, MAX_QUANTITY, MAX_STOCK, MAX_TTL, Op};

pub(super) const SKUS: [&str; 4] = ["a", "b", "c", "d"];
/// The ttl of a hold that some later step finds expired, in milliseconds.
pub(super) const SOON: i64 = 400;
/// The ttl of a hold that the next step finds expired, in milliseconds.
const AT_ONCE: i64 = 3;
/// Sales open and close far enough from now to be independent of the clock; in seconds since 1970.
const LONG_AGO: i64 = 1_000_000;
const FAR_AWAY: i64 = 4_000_000_000;

/// One step. A reference to an earlier call or reservation counts from the latest one, and wraps.
#[derive(Clone, Debug)]
pub(super) enum Step {
    SetStock(usize, i64, If),
    AdjustStock(usize, i64),
    /// These rules, sometimes only at a version with this difference from the true one.
    Configure(usize, SkuRules, Option<i64>),
    GetSku(usize),
    DeleteSku(usize),
    Reserve(Vec<(usize, i32)>, Option<i64>, &'static str),
    /// A Reserve that replaces a reservation.
    Replace(usize, Box<Step>),
    /// The second: repurchases after the deadline.
    Commit(usize, bool),
    /// The last: keeps the rest.
    CommitLines(usize, Part, bool),
    Rollback(usize),
    RollbackLines(usize, Part),
    Extend(usize, i64),
    GetReservation(usize),
    IsProtected(usize),
    /// An earlier call again.
    Repeat(usize),
    /// An earlier call again, in another form.
    Reword(usize, Words),
    /// The identity of an earlier call, with another value in one of its fields.
    Reuse(usize, usize),
    /// A call that refers to nothing, or has a field out of range.
    Bad(Op),
    /// Waits until the next hold has expired.
    PassDeadline,
    /// A fault while nobody calls, perhaps while holds fall due.
    Idle(Fault),
    /// A fault during a call.
    During(Fault, Box<Step>),
}

/// When SetStock applies: at a version with this difference from the true one.
#[derive(Clone, Copy, Debug)]
pub(super) enum If {
    Always,
    Absent,
    Version(i64),
}

/// Another form of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    /// The number of lines that move to the end; if odd, their order is reversed.
    turned: usize,
    /// Another ttl, or none. The call stays the same only if that ttl was in force.
    ttl_ms: Option<Option<i64>>,
}

/// Lines of a reservation.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Indexes of lines, which wrap, and units, at most those that are held.
    pub(super) lines: Vec<(usize, i32)>,
    /// Instead: SKUs, and units independent of what is held.
    pub(super) is_wild: bool,
}

/// A fault of a server, this many milliseconds after a call.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    RedisKilled(u64),
    ServerKilled(u64),
    ServerStopped(u64),
}

/// One step, or several about one buyer that chance would seldom combine.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        94 => step().prop_map(|step| vec![step]),
        3 => given_back(),
        2 => paid_late(AT_ONCE),
        1 => paid_late(SOON),
    ]
}

/// A SKU with a limit of 4 units per buyer, and a buyer who takes some.
fn taken(sku: usize, units: i32, ttl: Option<i64>) -> Vec<Step> {
    let rules = SkuRules { buyer_limit: Some(4), is_protected: Some(true), ..SkuRules::default() };
    let take = Step::Reserve(vec![(sku, units)], ttl, "cy");
    vec![Step::SetStock(sku, 9, If::Always), Step::Configure(sku, rules, None), take]
}

fn some(units: i32) -> Part {
    Part { lines: vec![(0, units)], is_wild: false }
}

/// Units are returned in part, and then the same buyer reserves up to the limit, or more.
fn given_back() -> impl Strategy<Value = Vec<Step>> {
    (0..2_usize, 1..=4_i32, 1..=3_i32, 1..=4_i32).prop_map(|(sku, units, back, again)| {
        let more = [Step::RollbackLines(0, some(back)), Step::Reserve(vec![(sku, again)], None, "cy")];
        taken(sku, units, None).into_iter().chain(more).collect()
    })
}

/// A hold expires, perhaps after a part of it was returned. The same buyer reserves other units, or another buyer the
/// rest of the stock. Then the first buyer pays.
fn paid_late(ttl: i64) -> impl Strategy<Value = Vec<Step>> {
    let meanwhile = (0..2_usize, 1..=4_i32, select(vec!["cy", "cy", "bob"]));
    (meanwhile, 2..=4_i32, any::<bool>(), 2..=6_i64).prop_map(move |((sku, others, who), units, in_part, left)| {
        let mut steps = taken(sku, units, Some(ttl));
        if in_part && ttl == SOON {
            steps.push(Step::RollbackLines(0, some(1)));
        }
        steps.extend([Step::PassDeadline, Step::SetStock(sku, left, If::Always)]);
        steps.push(Step::Reserve(vec![(sku, others)], None, who));
        // Whether that made a reservation or not, one of these is the late one.
        steps.extend([Step::Commit(1, true), Step::Commit(0, true)]);
        steps
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => call(),
        1 => fault().prop_map(Step::Idle),
        2 => (fault(), call()).prop_map(|(fault, step)| Step::During(fault, Box::new(step))),
    ]
}

fn call() -> impl Strategy<Value = Step> {
    let sku = 0..SKUS.len();
    prop_oneof![
        4 => (sku.clone(), prop_oneof![9 => 0..=12_i64, 1 => Just(MAX_STOCK)], condition())
            .prop_map(|(sku, units, condition)| Step::SetStock(sku, units, condition)),
        3 => (sku.clone(), prop_oneof![9 => -6..=6_i64, 1 => Just(MAX_STOCK)])
            .prop_map(|(sku, units)| Step::AdjustStock(sku, units)),
        5 => (sku.clone(), rules(), prop::option::weighted(0.25, -1..=1_i64))
            .prop_map(|(sku, rules, off)| Step::Configure(sku, rules, off)),
        1 => sku.clone().prop_map(Step::GetSku),
        1 => sku.clone().prop_map(Step::DeleteSku),
        14 => reserve(),
        3 => (0..6_usize, reserve()).prop_map(|(at, reserve)| Step::Replace(at, Box::new(reserve))),
        6 => (0..6_usize, any::<bool>()).prop_map(|(at, late)| Step::Commit(at, late)),
        4 => (0..6_usize, part(), any::<bool>()).prop_map(|(at, part, keep)| Step::CommitLines(at, part, keep)),
        3 => (0..6_usize).prop_map(Step::Rollback),
        3 => (0..6_usize, part()).prop_map(|(at, part)| Step::RollbackLines(at, part)),
        3 => (0..6_usize, select(vec![AT_ONCE, SOON, 2 * SOON, 1_200_000, MAX_TTL.as_millis() as i64]))
            .prop_map(|(at, ttl)| Step::Extend(at, ttl)),
        1 => (0..6_usize).prop_map(Step::GetReservation),
        1 => sku.prop_map(Step::IsProtected),
        3 => (0..12_usize).prop_map(Step::Repeat),
        4 => (0..8_usize, words()).prop_map(|(call, words)| Step::Reword(call, words)),
        2 => (0..12_usize, 0..6_usize).prop_map(|(call, field)| Step::Reuse(call, field)),
        2 => select(bad_calls()).prop_map(Step::Bad),
        3 => Just(Step::PassDeadline),
    ]
}

fn reserve() -> impl Strategy<Value = Step> {
    let ttl = select(vec![None, None, Some(MAX_TTL.as_millis() as i64), Some(SOON), Some(SOON), Some(AT_ONCE)]);
    let lines = proptest::sample::subsequence(vec![0, 1, 2, 3], 1..=4).prop_shuffle();
    let lines = (lines, vec(1..=4_i32, 4)).prop_map(|(skus, quantities)| skus.into_iter().zip(quantities).collect());
    (lines, ttl, select(vec!["", "amy", "amy", "bob"])).prop_map(|(lines, ttl, buyer)| Step::Reserve(lines, ttl, buyer))
}

fn words() -> impl Strategy<Value = Words> {
    let named = [SOON, DEFAULT_TTL.as_millis() as i64, MAX_TTL.as_millis() as i64];
    let ttl = select(vec![None, Some(None), Some(Some(named[0])), Some(Some(named[1])), Some(Some(named[2]))]);
    (0..4_usize, ttl).prop_map(|(turned, ttl_ms)| Words { turned, ttl_ms })
}

fn condition() -> impl Strategy<Value = If> {
    prop_oneof![6 => Just(If::Always), 1 => Just(If::Absent), 2 => (-1..=1_i64).prop_map(If::Version)]
}

fn part() -> impl Strategy<Value = Part> {
    (vec((0..SKUS.len(), 1..=3_i32), 1..=3), prop::bool::weighted(0.15))
        .prop_map(|(lines, is_wild)| Part { lines, is_wild })
}

/// One or several rules; those that would refuse most of what follows are rare.
fn rules() -> impl Strategy<Value = SkuRules> {
    let unset = SkuRules::default();
    let ttl = |millis: i64| Duration { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 };
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    prop_oneof![
        2 => prop::bool::weighted(0.7).prop_map(move |on| SkuRules { is_protected: Some(on), ..unset }),
        1 => prop::bool::weighted(0.3).prop_map(move |on| SkuRules { is_paused: Some(on), ..unset }),
        2 => select(vec![0, 2, 3]).prop_map(move |units| SkuRules { max_quantity: Some(units), ..unset }),
        2 => select(vec![0, SOON, 700_000]).prop_map(move |millis| SkuRules { max_ttl: Some(ttl(millis)), ..unset }),
        6 => select(vec![0, 2, 3, 5, 5]).prop_map(move |units| SkuRules { buyer_limit: Some(units), ..unset }),
        2 => (select(vec![0, LONG_AGO, LONG_AGO, FAR_AWAY]), select(vec![0, FAR_AWAY, FAR_AWAY, LONG_AGO]))
            .prop_map(move |(opens, closes)| SkuRules { opens_at: at(opens), closes_at: at(closes), ..unset }),
        1 => Just(SkuRules { opens_at: at(0), closes_at: at(0), buyer_limit: Some(4), ..unset }),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (0..4_u64).prop_map(Fault::RedisKilled),
        (0..4_u64).prop_map(Fault::ServerKilled),
        (0..4_u64).prop_map(Fault::ServerStopped),
    ]
}

/// Calls that are refused in every state of the shop.
fn bad_calls() -> Vec<Op> {
    let (fine, long, broken, id) =
        ("fine".to_owned(), "x".repeat(MAX_ID_BYTES + 1), "a\tb".to_owned(), "bad".to_owned());
    let reserve = |lines: Vec<(String, i32)>| Op::Reserve {
        request_id: id.clone(),
        lines,
        ttl_ms: None,
        buyer_id: String::new(),
        replaces: String::new(),
    };
    let in_part = |reservation_id: &str, sku: &str, quantity| Op::CommitLines {
        reservation_id: reservation_id.into(),
        lines: vec![(sku.into(), quantity)],
        keep_rest: true,
        request_id: id.clone(),
    };
    let lasting = |ttl_ms| Op::Reserve {
        request_id: id.clone(),
        lines: vec![("a".into(), 1)],
        ttl_ms: Some(ttl_ms),
        buyer_id: String::new(),
        replaces: String::new(),
    };
    let mut bad = vec![
        Op::IsProtected { sku: String::new() },
        Op::Reserve {
            request_id: id.clone(),
            lines: vec![("a".into(), 1)],
            ttl_ms: None,
            buyer_id: broken.clone(),
            replaces: String::new(),
        },
        reserve(vec![]),
        reserve((0..=MAX_LINES).map(|i| (format!("{i}"), 1)).collect()),
        reserve(vec![("a".into(), 1), ("b".into(), 1), ("a".into(), 2)]),
        reserve(vec![("a".into(), 1), (fine.clone(), 1)]),
        reserve(vec![("a".into(), 1), ("{}".into(), 1)]),
        lasting(0),
        lasting(-1),
        lasting(MAX_TTL.as_millis() as i64 + 1),
        lasting(i64::MAX),
    ];
    for quantity in [0, -1, MAX_QUANTITY + 1, i32::MIN, i32::MAX] {
        bad.push(reserve(vec![("b".into(), 1), ("a".into(), quantity)]));
    }
    for on_hand in [-1, MAX_STOCK + 1, i64::MIN, i64::MAX] {
        bad.push(Op::SetStock { sku: "a".into(), on_hand, condition: Condition::Always, request_id: id.clone() });
    }
    for delta in [0, -MAX_STOCK - 1, MAX_STOCK + 1, i64::MIN, i64::MAX] {
        bad.push(Op::AdjustStock { sku: "a".into(), delta, request_id: id.clone() });
    }
    for name in [String::new(), long, broken] {
        bad.push(Op::GetStock { sku: name.clone() });
        bad.push(Op::AdjustStock { sku: "a".into(), delta: 1, request_id: name.clone() });
        bad.push(Op::GetSku { sku: name.clone() });
        bad.push(Op::DeleteSku { sku: name.clone(), request_id: id.clone() });
        bad.push(Op::SetStock { sku: name, on_hand: 1, condition: Condition::IfAbsent, request_id: id.clone() });
    }
    for quantity in [0, MAX_QUANTITY + 1] {
        bad.push(in_part(&"A".repeat(24), "a", quantity));
    }
    bad.push(in_part(&"A".repeat(24), "", 1));
    for ttl_ms in [0, -1, MAX_TTL.as_millis() as i64 + 1, ANY_TTL.as_millis() as i64 + 1] {
        bad.push(Op::Extend { reservation_id: "A".repeat(24), ttl_ms, request_id: id.clone() });
    }
    let condition = Condition::IfVersion(-1);
    bad.push(Op::SetStock { sku: "a".into(), on_hand: 1, condition, request_id: id.clone() });
    let (unset, before) = (SkuRules::default(), Timestamp { seconds: -1, nanos: 0 });
    for rules in [
        unset,
        SkuRules { is_protected: Some(true), ..unset },
        SkuRules { max_quantity: Some(-1), ..unset },
        SkuRules { buyer_limit: Some(MAX_QUANTITY + 1), ..unset },
        SkuRules { max_ttl: Some(Duration { seconds: -1, nanos: 0 }), ..unset },
        SkuRules { opens_at: Some(before), ..unset },
    ] {
        bad.push(Op::ConfigureSku { sku: fine.clone(), rules, if_version: None, request_id: id.clone() });
    }
    // The last two are well formed: an unknown id, and one of a partition that does not exist.
    for reservation_id in [String::new(), "A".repeat(23), "!".repeat(24), "A".repeat(24), "_".repeat(24)] {
        bad.push(Op::Commit { reservation_id: reservation_id.clone(), late: true });
        bad.push(in_part(&reservation_id, "a", 1));
        bad.push(Op::Extend { reservation_id: reservation_id.clone(), ttl_ms: 1, request_id: id.clone() });
        bad.push(Op::Rollback { reservation_id: reservation_id.clone() });
        bad.push(Op::GetReservation { reservation_id });
    }
    bad
}

/// The same identity and units in another form, which is the same call or is not.
pub(super) fn reworded(mut op: Op, Words { turned, ttl_ms: other }: Words) -> Op {
    if let Op::Reserve { lines, .. } | Op::CommitLines { lines, .. } | Op::RollbackLines { lines, .. } = &mut op
        && !lines.is_empty()
    {
        let length = lines.len();
        lines.rotate_left(turned % length);
        if turned % 2 == 1 {
            lines.reverse();
        }
    }
    if let (Op::Reserve { ttl_ms, .. }, Some(other)) = (&mut op, other) {
        *ttl_ms = other;
    }
    op
}

/// The same identity, with another value in a field.
pub(super) fn reused(op: Op, field: usize) -> Op {
    match (op, field) {
        (Op::SetStock { sku, on_hand, request_id, .. }, 0) => {
            Op::AdjustStock { sku, delta: on_hand.max(1), request_id }
        }
        (Op::SetStock { sku, on_hand, condition, request_id }, 1..=3) => {
            Op::SetStock { sku, on_hand: if on_hand == 9 { 8 } else { 9 }, condition, request_id }
        }
        (Op::SetStock { sku, on_hand, request_id, .. }, 4) => {
            Op::SetStock { sku, on_hand, condition: Condition::IfAbsent, request_id }
        }
        (Op::SetStock { on_hand, condition, request_id, .. }, _) => {
            Op::SetStock { sku: "d".into(), on_hand, condition, request_id }
        }
        (Op::AdjustStock { sku, delta, request_id }, 0..=3) => {
            Op::AdjustStock { sku, delta: if delta == 1 { 2 } else { 1 }, request_id }
        }
        (Op::AdjustStock { sku, request_id, .. }, _) => Op::Reserve {
            request_id,
            lines: vec![(sku, 1)],
            ttl_ms: None,
            buyer_id: String::new(),
            replaces: String::new(),
        },
        (Op::Reserve { request_id, mut lines, mut ttl_ms, mut buyer_id, mut replaces }, field) => {
            match field {
                0 => lines.iter_mut().for_each(|line| line.1 = if line.1 == 1 { 2 } else { 1 }),
                1 => lines.reverse(),
                2 => replaces = if replaces.is_empty() { "B".repeat(21) + "AAA" } else { String::new() },
                3 => ttl_ms = Some(ttl_ms.map_or(599_999, |ttl| ttl.saturating_sub(1).max(1))),
                4 => buyer_id.push('x'),
                _ => {
                    let condition = Condition::Always;
                    return Op::SetStock { sku: "a".into(), on_hand: 5, condition, request_id };
                }
            }
            Op::Reserve { request_id, lines, ttl_ms, buyer_id, replaces }
        }
        (Op::CommitLines { reservation_id, lines, request_id, .. }, 0) => {
            Op::RollbackLines { reservation_id, lines, request_id }
        }
        (Op::CommitLines { reservation_id, lines, keep_rest, request_id }, _) => {
            Op::CommitLines { reservation_id, lines, keep_rest: !keep_rest, request_id }
        }
        (Op::RollbackLines { reservation_id, mut lines, request_id }, _) => {
            lines.iter_mut().for_each(|line| line.1 = if line.1 == 1 { 2 } else { 1 });
            Op::RollbackLines { reservation_id, lines, request_id }
        }
        (Op::Extend { reservation_id, ttl_ms, request_id }, _) => {
            Op::Extend { reservation_id, ttl_ms: if ttl_ms == 1 { 2 } else { ttl_ms - 1 }, request_id }
        }
        (Op::ConfigureSku { sku, rules, if_version, request_id }, 0) => {
            Op::ConfigureSku { sku, rules, if_version: if if_version.is_none() { Some(0) } else { None }, request_id }
        }
        (Op::ConfigureSku { sku, request_id, .. }, 1) => Op::DeleteSku { sku, request_id },
        (Op::ConfigureSku { sku, rules, if_version, request_id }, _) => {
            let protected = rules.is_protected != Some(true);
            let rules = SkuRules { is_protected: Some(protected), ..rules };
            Op::ConfigureSku { sku, rules, if_version, request_id }
        }
        (Op::DeleteSku { sku, request_id }, 0) => {
            let rules = SkuRules { is_protected: Some(false), ..SkuRules::default() };
            Op::ConfigureSku { sku, rules, if_version: None, request_id }
        }
        (Op::DeleteSku { sku, request_id }, 1) => Op::AdjustStock { sku, delta: 1, request_id },
        (Op::DeleteSku { sku, request_id }, _) => {
            Op::DeleteSku { sku: if sku == "a" { "b".into() } else { "a".into() }, request_id }
        }
        // The others have no identity to use again.
        (op, _) => op,
    }
}
