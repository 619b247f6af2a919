//! The steps of the model test: what can happen, how likely it is, and every call that is malformed.
//! Strategies and plain data, no I/O.

use proptest::{collection::vec, prelude::*, sample::select};
use sentinel_tests::model::{MAX_LINES, MAX_QUANTITY, MAX_STOCK, MAX_TTL, Op};

pub(super) const SKUS: [&str; 4] = ["a", "b", "c", "d"];
/// The life of a hold that some later step finds expired, in milliseconds.
pub(super) const SOON: i64 = 400;
/// The life of a hold that the next step finds expired, in milliseconds.
const AT_ONCE: i64 = 3;

/// One step; what names an earlier call or reservation counts from the latest, and wraps.
#[derive(Clone, Debug)]
pub(super) enum Step {
    SetStock(usize, i64),
    AdjustStock(usize, i64),
    Configure(usize, bool),
    Reserve(Vec<(usize, i32)>, Option<i64>, bool),
    Commit(usize),
    Rollback(usize),
    GetReservation(usize),
    IsProtected(usize),
    /// An earlier call again.
    Repeat(usize),
    /// The identity of an earlier call, with something else in one of its fields.
    Reuse(usize, usize),
    /// A call that refers to nothing, or has a field out of range.
    Bad(Op),
    /// Waits until the next hold has expired.
    PassDeadline,
    /// This happens while nobody calls, perhaps while holds fall due.
    Idle(Storm),
    /// This happens during a call.
    During(Storm, Box<Step>),
}

/// What can happen to a server, after so many milliseconds of a call.
#[derive(Clone, Debug)]
pub(super) enum Storm {
    RedisKilled(u64),
    ServerKilled(u64),
    ServerStopped(u64),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => call(),
        1 => storm().prop_map(Step::Idle),
        2 => (storm(), call()).prop_map(|(storm, step)| Step::During(storm, Box::new(step))),
    ]
}

fn call() -> impl Strategy<Value = Step> {
    let sku = 0..SKUS.len();
    let ttl = select(vec![None, None, Some(MAX_TTL.as_millis() as i64), Some(SOON), Some(SOON), Some(AT_ONCE)]);
    let lines = proptest::sample::subsequence(vec![0, 1, 2, 3], 1..=4).prop_shuffle();
    let lines = (lines, vec(1..=4_i32, 4)).prop_map(|(skus, quantities)| skus.into_iter().zip(quantities).collect());
    prop_oneof![
        4 => (sku.clone(), prop_oneof![9 => 0..=12_i64, 1 => Just(MAX_STOCK)]).prop_map(|(sku, units)| Step::SetStock(sku, units)),
        3 => (sku.clone(), prop_oneof![9 => -6..=6_i64, 1 => Just(MAX_STOCK)]).prop_map(|(sku, units)| Step::AdjustStock(sku, units)),
        1 => (sku.clone(), prop::bool::weighted(0.7)).prop_map(|(sku, on)| Step::Configure(sku, on)),
        12 => (lines, ttl, any::<bool>()).prop_map(|(lines, ttl, buyer)| Step::Reserve(lines, ttl, buyer)),
        5 => (0..6_usize).prop_map(Step::Commit),
        4 => (0..6_usize).prop_map(Step::Rollback),
        1 => (0..6_usize).prop_map(Step::GetReservation),
        1 => sku.prop_map(Step::IsProtected),
        3 => (0..12_usize).prop_map(Step::Repeat),
        2 => (0..12_usize, 0..6_usize).prop_map(|(call, field)| Step::Reuse(call, field)),
        2 => select(bad_calls()).prop_map(Step::Bad),
        2 => Just(Step::PassDeadline),
    ]
}

fn storm() -> impl Strategy<Value = Storm> {
    prop_oneof![
        (0..4_u64).prop_map(Storm::RedisKilled),
        (0..4_u64).prop_map(Storm::ServerKilled),
        (0..4_u64).prop_map(Storm::ServerStopped),
    ]
}

/// Calls that no state of the shop can accept.
fn bad_calls() -> Vec<Op> {
    let (fine, long, spaced, id) = ("fine".to_owned(), "x".repeat(129), "a b".to_owned(), "bad".to_owned());
    let reserve = |lines: Vec<(String, i32)>| Op::Reserve {
        request_id: id.clone(),
        lines,
        ttl_ms: None,
        buyer_id: String::new(),
    };
    let lasting = |ttl_ms| Op::Reserve {
        request_id: id.clone(),
        lines: vec![("a".into(), 1)],
        ttl_ms: Some(ttl_ms),
        buyer_id: String::new(),
    };
    let mut bad = vec![
        Op::ConfigureSku { sku: fine.clone(), is_protected: None },
        Op::ConfigureSku { sku: fine.clone(), is_protected: Some(true) },
        Op::IsProtected { sku: String::new() },
        Op::Reserve { request_id: id.clone(), lines: vec![("a".into(), 1)], ttl_ms: None, buyer_id: spaced.clone() },
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
        bad.push(Op::SetStock { sku: "a".into(), on_hand, request_id: id.clone() });
    }
    for delta in [0, -MAX_STOCK - 1, MAX_STOCK + 1, i64::MIN, i64::MAX] {
        bad.push(Op::AdjustStock { sku: "a".into(), delta, request_id: id.clone() });
    }
    for name in [String::new(), long, spaced] {
        bad.push(Op::GetStock { sku: name.clone() });
        bad.push(Op::AdjustStock { sku: "a".into(), delta: 1, request_id: name.clone() });
        bad.push(Op::SetStock { sku: name, on_hand: 1, request_id: id.clone() });
    }
    // The last two are well formed: an id that nobody has, and one of a partition that is not there.
    for reservation_id in [String::new(), "A".repeat(23), "!".repeat(24), "A".repeat(24), "_".repeat(24)] {
        bad.push(Op::Commit { reservation_id: reservation_id.clone() });
        bad.push(Op::Rollback { reservation_id: reservation_id.clone() });
        bad.push(Op::GetReservation { reservation_id });
    }
    bad
}

/// The same identity, with something else in a field.
pub(super) fn reused(op: Op, field: usize) -> Op {
    match (op, field) {
        (Op::SetStock { sku, on_hand, request_id }, 0) => Op::AdjustStock { sku, delta: on_hand.max(1), request_id },
        (Op::SetStock { sku, on_hand, request_id }, 1..=3) => {
            Op::SetStock { sku, on_hand: if on_hand == 9 { 8 } else { 9 }, request_id }
        }
        (Op::SetStock { on_hand, request_id, .. }, _) => Op::SetStock { sku: "d".into(), on_hand, request_id },
        (Op::AdjustStock { sku, delta, request_id }, 0..=3) => {
            Op::AdjustStock { sku, delta: if delta == 1 { 2 } else { 1 }, request_id }
        }
        (Op::AdjustStock { sku, request_id, .. }, _) => {
            Op::Reserve { request_id, lines: vec![(sku, 1)], ttl_ms: None, buyer_id: String::new() }
        }
        (Op::Reserve { request_id, mut lines, mut ttl_ms, mut buyer_id }, field) => {
            match field {
                0 => lines.iter_mut().for_each(|line| line.1 = if line.1 == 1 { 2 } else { 1 }),
                1 => lines.reverse(),
                2 => lines.truncate(1),
                3 => ttl_ms = Some(ttl_ms.map_or(600_000, |ttl| ttl.saturating_sub(1).max(1))),
                4 => buyer_id.push('x'),
                _ => return Op::SetStock { sku: "a".into(), on_hand: 5, request_id },
            }
            Op::Reserve { request_id, lines, ttl_ms, buyer_id }
        }
        // The others have no identity to use again.
        (op, _) => op,
    }
}
