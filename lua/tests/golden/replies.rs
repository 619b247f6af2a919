//! The replies of the script: every answer code, the head of a batch, and the replies of the other calls.

use deadpool_redis::redis::Value;
use inventory_sentinel_script::{
    Batch, Configured, OperationResult, Presence, Stepped,
    codes::AnswerCode,
    decode_configured, decode_deleted, decode_found, decode_opened, decode_step,
    domain::{
        Clock, Condition, Fence, FenceId, HistoryPoint, Operation, Outcome, Refusal, Reservation, ReservationId,
        ReservedLine, RulesChange, State, StoreTime, Ttl, Verdict,
    },
};

use crate::arguments::reserve;
use crate::{
    ID, MEMO, PLAIN, STOCK, TTL, bytes, config, hex, line, on_hand, reservation_id, reserved, sku, stock, term,
};

/// A head: now 100, sequence 8, 2 expired, next deadline 200, revision 4, last sequence 9, the term, no clock and no
/// verdict.
fn head() -> Vec<u8> {
    let numbers = "000000000064 000000000008 00000002 0000000000c8 000000000004 000000000009";
    [bytes(numbers), vec![b'a'; 40], vec![0, 0]].concat()
}

/// The answer to one operation whose group has this reply.
fn answer(operation: Operation, code: AnswerCode, shared: &str, details: &str) -> OperationResult {
    let batch = Batch::new([&operation], TTL);
    let text = |text: &str| Value::BulkString(bytes(text));
    let group = vec![Value::BulkString(vec![code.byte()]), text(shared), text(details)];
    let reply = Value::Array(vec![Value::BulkString(head()), Value::Array(group)]);
    let mut reply = batch.decode(&reply, 3, vec![operation]).unwrap_or_else(|error| panic!("{code:?}: {error}"));
    assert_eq!((reply.now, reply.expired, reply.config_revision, reply.sequence), (StoreTime(100), 2, 4, 9));
    assert_eq!(
        (reply.next_due, reply.term, reply.fence, reply.verdicts.len()),
        (Some(StoreTime(200)), term(), None, 0)
    );
    reply.results.remove(0)
}

#[test]
fn each_answer_code_has_its_meaning() {
    use AnswerCode as Code;
    let id = reservation_id;
    let plain = || format!("50 {PLAIN}");
    let bought = || format!("43 000000000009 50 {PLAIN}");
    let commit = || Operation::Commit { id: id(), purchase: None };
    let late = || Operation::Commit { id: id(), purchase: Some(MEMO) };
    let set = || Operation::SetStock { memo: MEMO, sku: sku("ps5"), on_hand: on_hand(1), condition: Condition::Always };
    let configure = || Operation::ConfigureSku {
        memo: MEMO,
        sku: sku("ps5"),
        change: RulesChange { is_paused: Some(true), ..RulesChange::default() },
        if_revision: None,
    };
    let delete = || Operation::DeleteSku { memo: MEMO, sku: sku("ps5") };
    let extend = || Operation::Extend { memo: MEMO, id: id(), ttl: Ttl::parse(1, 0, TTL).expect("a ttl") };
    let begin = || Operation::BeginSettlement { memo: MEMO, key: ID, fence: FenceId::NONE };
    let close = || Operation::ClosePartition { memo: MEMO, token: ID, request: ID, only_check: true };
    let lines = || Operation::CommitLines { memo: MEMO, id: id(), lines: vec![line(1, "ps5")], keep_rest: true };
    let read = || Operation::GetStock { sku: sku("ps5") };
    let hold = || reserve(None, "", None, false);
    let replayed = |reservation, replayed| Ok(Outcome::Reservation { reservation, replayed });
    let held = || Reservation {
        lines: vec![ReservedLine { sku: sku("ps5"), quantity: line(2, "ps5").quantity, sold: 0, released: 0 }],
        created_at: StoreTime(100),
        expires_at: StoreTime(60_100),
        ..reserved(State::Pending, None, [[0, 0], [0, 0]])
    };
    let sold = || reserved(State::Committed, Some(9), [[2, 0], [1, 0]]);
    let purchase = || Reservation { id: ReservationId { id: MEMO, partition: 3 }, ..sold() };
    let counted = |replayed| Ok(Outcome::Stock { sku: sku("ps5"), stock: stock(), replayed });
    // The ttl in force, and behind it the shared part of the code.
    let ttl = |shared: &str| format!("00000000ea60 {shared}");
    let named = "03 707335";
    let late_lines = "000000000000 01 00000002 03 707335";
    let window = |opens_at, closes_at| (sku("ps5"), StoreTime(opens_at), StoreTime(closes_at));
    let (not_open, closed) = (window(200, 0), window(0, 50));
    let other = FenceId::parse(b"0123456789abcdef").expect("a fence");
    let fenced = Refusal::StoreFenced { partition: 3, fence: None };
    type Expected = (Operation, AnswerCode, String, String, u64, Result<Outcome, Refusal>);
    let vector = |operation, code, shared: &str, detail: &str, sequence, outcome| -> Expected {
        (operation, code, shared.to_owned(), detail.to_owned(), sequence, outcome)
    };
    let refused =
        |operation, code, shared: &str, detail: &str, refusal| vector(operation, code, shared, detail, 8, Err(refusal));
    let vectors = vec![
        vector(hold(), Code::Applied, &ttl(""), "", 9, replayed(held(), false)),
        vector(commit(), Code::Applied, "", &bought(), 9, replayed(sold(), false)),
        vector(lines(), Code::AppliedInTwoSteps, "", &bought(), 10, replayed(sold(), false)),
        vector(set(), Code::Applied, "", STOCK, 9, counted(false)),
        vector(configure(), Code::Unchanged, "", STOCK, 8, Ok(Outcome::Unchanged { sku: sku("ps5"), stock: stock() })),
        vector(delete(), Code::Unchanged, "", "", 8, Ok(Outcome::NothingToDelete { replayed: false })),
        vector(delete(), Code::Replayed, "", "", 8, Ok(Outcome::NothingToDelete { replayed: true })),
        vector(late(), Code::Repurchased, "", &bought(), 9, replayed(purchase(), false)),
        vector(late(), Code::RepurchasedBefore, "", &bought(), 8, replayed(purchase(), true)),
        vector(
            hold(),
            Code::Replayed,
            &ttl(""),
            &plain(),
            8,
            replayed(reserved(State::Pending, None, [[0, 0]; 2]), true),
        ),
        vector(read(), Code::Value, "", STOCK, 8, counted(false)),
        vector(begin(), Code::Value, "", "", 8, Ok(Outcome::Settlement { replayed: false })),
        vector(close(), Code::Value, "", "", 8, Ok(Outcome::Closed)),
        vector(hold(), Code::Short, &ttl("000000000001"), "", 8, Ok(Outcome::Shortage(vec![(line(2, "ps5"), 1)]))),
        refused(commit(), Code::Fenced, "", "", fenced),
        refused(begin(), Code::NotFenced, "", "", Refusal::NotFenced),
        refused(begin(), Code::Superseded, "", "", Refusal::SettlementSuperseded),
        refused(begin(), Code::OtherFence, &hex(b"0123456789abcdef"), "", Refusal::FenceChanged(other)),
        refused(hold(), Code::NoSuchSku, &ttl("01"), "", Refusal::SkuNotFound(sku("ps5"))),
        refused(read(), Code::NoSuchSku, "01", "", Refusal::SkuNotFound(sku("ps5"))),
        refused(hold(), Code::NotProtected, &ttl("01"), "", Refusal::SkuNotProtected(sku("ps5"))),
        refused(hold(), Code::SalePaused, &ttl("00"), "", Refusal::SalePaused(None)),
        refused(hold(), Code::SalePaused, &ttl("01"), "", Refusal::SalePaused(Some(sku("ps5")))),
        refused(hold(), Code::OutsideWindow, &ttl("01 0000000000c8 000000000000"), "", {
            let (sku, opens_at, closes_at) = not_open;
            Refusal::SaleNotOpen { sku, opens_at, closes_at }
        }),
        refused(hold(), Code::OutsideWindow, &ttl("01 000000000000 000000000032"), "", {
            let (sku, opens_at, closes_at) = closed;
            Refusal::SaleClosed { sku, opens_at, closes_at }
        }),
        refused(hold(), Code::TooManyUnits, &ttl("01 000000000005"), "", {
            Refusal::QuantityLimit { sku: sku("ps5"), limit: 5 }
        }),
        refused(hold(), Code::TtlTooLong, &ttl("01 000000000005"), "", Refusal::TtlLimit { sku: sku("ps5"), limit: 5 }),
        refused(hold(), Code::BuyerMissing, &ttl(""), named, Refusal::BuyerRequired(sku("ps5"))),
        refused(hold(), Code::OverBuyerLimit, &ttl(""), "03 707335 000000000001 000000000002", {
            Refusal::BuyerLimit { sku: sku("ps5"), has: 1, limit: 2 }
        }),
        refused(late(), Code::RepurchaseShort, "", &format!("{late_lines} 000000000001"), {
            Refusal::LateCommitSoldOut(vec![(line(2, "ps5"), 1)])
        }),
        refused(hold(), Code::IdReused, &ttl(""), "", Refusal::RequestIdReused),
        refused(hold(), Code::OverQuota, &ttl(""), "", Refusal::NamespaceQuota),
        refused(set(), Code::StoreFull, "", "", Refusal::StoreFull),
        refused(commit(), Code::NoSuchReservation, "", "", Refusal::ReservationNotFound),
        refused(commit(), Code::ReservationExpired, "", "", Refusal::ReservationExpired),
        refused(commit(), Code::ReservationRolledBack, "", "", Refusal::ReservationRolledBack),
        refused(Operation::Rollback(id()), Code::ReservationCommitted, "", "", Refusal::ReservationAlreadyCommitted),
        refused(lines(), Code::LineNotHeld, "", "03 707335 000000000001", {
            Refusal::LineNotHeld { sku: sku("ps5"), held: 1 }
        }),
        refused(extend(), Code::TooManyChanges, "", "", Refusal::TooManyChanges),
        refused(extend(), Code::BeyondLongestLife, "", "000000000005", Refusal::ExtendLimit { left: 5 }),
        refused(set(), Code::BelowHeld, "", STOCK, Refusal::StockBelowHeld { held: 2 }),
        refused(delete(), Code::HasHolds, "", STOCK, Refusal::SkuHasHolds { held: 2 }),
        refused(close(), Code::HasHolds, "", "000000000007", Refusal::PartitionHasHolds { held: 7 }),
        refused(set(), Code::AboveStockLimit, "", "", Refusal::StockLimit),
        refused(set(), Code::SkuExists, "", "", Refusal::SkuExists),
        refused(set(), Code::OtherVersion, "", "", Refusal::VersionMismatch(None)),
        refused(set(), Code::OtherVersion, "", STOCK, Refusal::VersionMismatch(Some(stock()))),
        refused(configure(), Code::ClosesBeforeOpening, "", "", Refusal::ClosesBeforeOpening),
    ];
    let mut seen = vec![Code::AsBefore, Code::Again];
    for (operation, code, shared, detail, sequence, outcome) in vectors {
        let OperationResult::Answered(found) = answer(operation, code, &shared, &detail) else {
            panic!("{code:?} is an answer");
        };
        assert_eq!((found.outcome, found.sequence), (outcome, sequence), "{code:?}");
        seen.push(code);
    }
    assert!(matches!(answer(hold(), Code::Again, &ttl(""), ""), OperationResult::Again(_)));
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !seen.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Three commits of one group, of which the second is answered as the first, and a sweep.
#[test]
fn an_answer_may_be_that_of_the_operation_before() {
    let commit = |id| Operation::Commit { id: ReservationId { id: [id; 16], partition: 3 }, purchase: None };
    let operations = vec![commit(1), commit(2), Operation::Sweep, commit(3)];
    let batch = Batch::new(&operations, TTL);
    let details = bytes(&format!("43 000000000009 50 {PLAIN}"));
    let group = vec![Value::BulkString(b"K=X".to_vec()), Value::BulkString(Vec::new()), Value::BulkString(details)];
    let reply = Value::Array(vec![Value::BulkString(head()), Value::Array(group)]);
    let reply = batch.decode(&reply, 3, operations).expect("a reply");
    let sequences: Vec<_> = reply
        .results
        .iter()
        .map(|result| match result {
            OperationResult::Answered(answer) => (answer.sequence, answer.outcome.is_ok()),
            OperationResult::Again(_) => panic!("an answer"),
        })
        .collect();
    assert_eq!(sequences, [(9, true), (10, true), (10, true), (10, false)]);
}

#[test]
fn a_head_has_its_clock_its_verdicts_and_its_fence() {
    let start = "000000000064 000000000008 00000000 000000000000 000000000004 000000000008";
    let clock = "0000000000000005 fffffffffffffffe 000000000003";
    let lost = [bytes("000000000007"), vec![b'a'; 40], bytes("000000000009")].concat();
    let fence = [bytes("01 00000000000a"), lost, bytes("000000000006"), b"0123456789abcdef".to_vec()].concat();
    let head = [bytes(start), vec![b'a'; 40], vec![22, 4], bytes(clock), b"ksul".to_vec(), fence].concat();
    let batch = Batch::new([], TTL);
    let reply = batch.decode(&Value::Array(vec![Value::BulkString(head)]), 3, Vec::new()).expect("a reply");
    assert_eq!(reply.clock, Clock { offset: 5, correction: -2, doubt: 3 });
    assert_eq!(reply.verdicts, [Verdict::Part, Verdict::Settled, Verdict::Unproven, Verdict::Lost]);
    assert_eq!(reply.next_due, None);
    let expected = Fence {
        noticed_at: StoreTime(8),
        seen: HistoryPoint { epoch: 7, term: term(), sequence: 9 },
        kept: 6,
        id: FenceId::parse(b"0123456789abcdef").expect("a fence"),
        is_gated: true,
    };
    assert_eq!(reply.fence, Some(expected));
}

#[test]
fn the_replies_of_the_calls_that_open_configure_and_delete() {
    let text = |bytes: Vec<u8>| Value::BulkString(bytes);
    let clock = bytes("0000000000000005 fffffffffffffffe 000000000003");
    let opened = Value::Array(vec![Value::Int(100), text(config(5).encode()), Value::Int(7), text(clock)]);
    let opened = decode_opened(&opened).expect("a partition");
    assert_eq!((opened.now, opened.epoch), (StoreTime(100), 7));
    assert_eq!(opened.clock, Clock { offset: 5, correction: -2, doubt: 3 });
    let codes = [
        Configured::Overtaken,
        Configured::Replaced,
        Configured::Replayed,
        Configured::Reused,
        Configured::OtherRevision,
    ];
    for (code, expected) in (0..).zip(codes) {
        let reply = Value::Array(vec![Value::Int(code), text(config(5).encode())]);
        assert!(
            decode_configured(&reply).is_ok_and(|(configured, config)| configured == expected && config.revision == 1)
        );
    }
    let point = [bytes("000000000007"), vec![b'a'; 40], bytes("000000000009")].concat();
    let at = HistoryPoint { epoch: 7, term: term(), sequence: 9 };
    let deleting = [vec![1], ID.to_vec(), MEMO.to_vec(), vec![1], point.clone()].concat();
    for (reply, expected) in [(0, Stepped::Nothing), (1, Stepped::Done), (2, Stepped::Overtaken)] {
        assert_eq!(decode_step(&Value::Int(reply)), Ok(expected));
    }
    let taken = decode_step(&text(deleting.clone()));
    assert!(matches!(taken, Ok(Stepped::Taken(found)) if found.at == at && found.is_final && found.request == MEMO));
    let deleted = [vec![1, 1], point, MEMO.to_vec()].concat();
    let found = decode_deleted(&text(deleted.clone())).expect("one");
    assert_eq!((found.len(), found[0].at, found[0].request), (1, at, MEMO));
    let fields =
        |config, deleting, closed| decode_found(&Value::Array(vec![config, deleting, text(deleted.clone()), closed]));
    let live = fields(text(config(5).encode()), Value::Nil, Value::Nil).expect("a namespace");
    assert!(matches!(live.presence, Presence::Live(_)));
    let deleting = fields(Value::Nil, text(deleting), text(config(5).encode())).expect("one that is deleted");
    assert!(matches!(deleting.presence, Presence::Deleting { .. }));
    assert!(matches!(fields(Value::Nil, Value::Nil, Value::Nil).expect("none").presence, Presence::Absent));
}
