//! The arguments of every operation, and of the calls that open, configure and delete a partition.

use std::time::Duration;

use deadpool_redis::redis::{Arg, Cmd};
use inventory_sentinel_script::{
    Batch, ConfigMemo, DeletionStep,
    codes::OpKind,
    configure_command, deletion_command,
    domain::{
        Condition, Delta, FenceId, HistoryPoint, Id, Knowledge, NamespaceChange, Operation, ReservationId, RulesChange,
        StoreTime, Ttl,
    },
    encode_change, open_command,
};

use crate::{ID, MEMO, TTL, buyer, bytes, config, hex, keys, line, nothing_known, on_hand, reservation_id, sku, term};

fn arguments(command: &Cmd) -> Vec<Vec<u8>> {
    let argument = |argument: Arg<&[u8]>| match argument {
        Arg::Simple(bytes) => bytes.to_vec(),
        _ => panic!("an argument without bytes"),
    };
    command.args_iter().map(argument).collect()
}

/// The groups of these operations: the kind, and the rest in hexadecimal.
fn groups(operations: &[Operation]) -> Vec<[String; 4]> {
    let command = Batch::new(operations, TTL).command("sha", &keys(), 7, &nothing_known(), None);
    let arguments = arguments(&command);
    assert_eq!(arguments[..3], [b"EVALSHA".to_vec(), b"sha".to_vec(), b"7".to_vec()]);
    assert_eq!(arguments[3], b"is:{sale/3}:meta");
    assert_eq!(arguments[10..12], [b"7".to_vec(), b"g\0\0\0\0\0\0".to_vec()]);
    let group = |group: &[Vec<u8>]| {
        let kind = String::from_utf8(group[0].clone()).expect("a word");
        [kind, hex(&group[1]), hex(&group[2]), hex(&group[3])]
    };
    arguments[12..].chunks(4).map(group).collect()
}

pub(crate) fn reserve(ttl: Option<i64>, named: &str, replaces: Option<Id>, is_first_attempt: bool) -> Operation {
    Operation::Reserve {
        id: reservation_id(),
        lines: vec![line(2, "ps5")],
        ttl: ttl.map(|seconds| Ttl::parse(seconds, 0, Duration::from_secs(3_600)).expect("a ttl")),
        buyer: buyer(named),
        replaces,
        is_first_attempt,
    }
}

/// Each kind of operation, with its word and its three arguments.
fn operations() -> Vec<(Operation, [&'static str; 4])> {
    let id = reservation_id;
    let lines = || vec![line(1, "ps5")];
    let ones = "11111111111111111111111111111111";
    let twos = "22222222222222222222222222222222";
    // The ttl of 60 s, one line, two units, three bytes of SKU.
    let line_set = "00000000ea60 01 00000002 03 707335";
    let set_stock = |condition| Operation::SetStock { memo: MEMO, sku: sku("ps5"), on_hand: on_hand(100), condition };
    let change = RulesChange {
        is_protected: Some(true),
        max_quantity: Some(5),
        max_ttl: Some(1_000),
        buyer_limit: Some(2),
        opens_at: Some(StoreTime(1)),
        closes_at: Some(StoreTime(2)),
        is_paused: Some(true),
    };
    let fence = FenceId::parse(b"0123456789abcdef").expect("a fence");
    let replacing = "000000000000 33333333333333333333333333333333";
    vec![
        (reserve(None, "", None, false), ["reserve", line_set, ones, "000000000000"]),
        (reserve(Some(60), "ada", None, false), ["reserve", line_set, ones, "00000000ea60 03 616461"]),
        (reserve(None, "", None, true), ["reserve_first", line_set, ones, "000000000000"]),
        (reserve(None, "", Some([0x33; 16]), true), ["reserve_replacing", line_set, ones, replacing]),
        (Operation::Commit { id: id(), purchase: None }, ["commit", "", ones, ""]),
        (Operation::Commit { id: id(), purchase: Some(MEMO) }, ["commit_late", "", ones, twos]),
        (Operation::Rollback(id()), ["rollback", "", ones, ""]),
        (Operation::GetReservation(id()), ["get_reservation", "", ones, ""]),
        (
            Operation::CommitLines { memo: MEMO, id: id(), lines: lines(), keep_rest: true },
            ["commit_lines", "11111111111111111111111111111111 01 000000000000 01 00000001 03 707335", twos, ""],
        ),
        (
            Operation::RollbackLines { memo: MEMO, id: id(), lines: lines() },
            ["rollback_lines", "11111111111111111111111111111111 000000000000 01 00000001 03 707335", twos, ""],
        ),
        (
            Operation::Extend { memo: MEMO, id: id(), ttl: Ttl::parse(1, 0, TTL).expect("a ttl") },
            ["extend", "11111111111111111111111111111111 0000000003e8", twos, ""],
        ),
        (set_stock(Condition::Always), ["set_stock", "000000000064 00 000000000000 707335", twos, ""]),
        (set_stock(Condition::IfAbsent), ["set_stock", "000000000064 01 000000000000 707335", twos, ""]),
        (set_stock(Condition::IfVersion(9)), ["set_stock", "000000000064 02 000000000009 707335", twos, ""]),
        (
            Operation::AdjustStock { memo: MEMO, sku: sku("ps5"), delta: Delta::parse(-2).expect("a delta") },
            ["adjust_stock", "fffffffffffffffe 707335", twos, ""],
        ),
        (
            Operation::ConfigureSku { memo: MEMO, sku: sku("ps5"), change, if_revision: Some(4) },
            [
                "configure_sku",
                "7f 21 00000005 0000000003e8 00000002 000000000001 000000000002 000000000004 707335",
                twos,
                "",
            ],
        ),
        (
            Operation::ConfigureSku {
                memo: MEMO,
                sku: sku("ps5"),
                change: RulesChange { is_protected: Some(false), ..RulesChange::default() },
                if_revision: None,
            },
            [
                "configure_sku",
                "01 00 00000000 000000000000 00000000 000000000000 000000000000 ffffffffffff 707335",
                twos,
                "",
            ],
        ),
        (Operation::DeleteSku { memo: MEMO, sku: sku("ps5") }, ["delete_sku", "707335", twos, ""]),
        (Operation::GetStock { sku: sku("ps5") }, ["get_stock", "707335", "", ""]),
        (Operation::IsProtected { sku: sku("ps5") }, ["is_protected", "707335", "", ""]),
        (
            Operation::BeginSettlement { memo: MEMO, key: ID, fence },
            ["begin_settlement", "11111111111111111111111111111111 30313233343536373839616263646566", twos, ""],
        ),
        (
            Operation::SettleSku {
                key: ID,
                sku: sku("ps5"),
                available: on_hand(5),
                old_holds_return: true,
                only_known: true,
            },
            ["settle_sku", "03 000000000005 707335", ones, ""],
        ),
        (Operation::EndSettlement { memo: MEMO, key: ID }, ["end_settlement", ones, twos, ""]),
        (
            Operation::ClosePartition { memo: MEMO, token: ID, request: [0x33; 16], only_check: false },
            ["close_partition", "01 11111111111111111111111111111111 33333333333333333333333333333333", twos, ""],
        ),
    ]
}

#[test]
fn each_operation_has_its_arguments() {
    let mut seen = Vec::new();
    for (operation, [kind, rest @ ..]) in operations() {
        let [payload, ids, extra] = rest.map(|text| text.replace(' ', ""));
        let what = format!("{operation:?}");
        assert_eq!(groups(&[operation]), [[kind.to_owned(), payload, ids, extra]], "{what}");
        seen.push(kind);
    }
    let missing: Vec<_> = OpKind::ALL.iter().filter(|kind| !seen.contains(&kind.word())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(groups(&[Operation::Sweep]).is_empty());
}

#[test]
fn operations_that_differ_by_their_ids_only_are_one_group() {
    let of = |id: u8| Operation::Commit { id: ReservationId { id: [id; 16], partition: 3 }, purchase: None };
    let read = || Operation::GetStock { sku: sku("ps5") };
    let grouped = groups(&[of(1), read(), of(2), Operation::Sweep, read()]);
    assert_eq!(grouped.len(), 2);
    assert_eq!(grouped[0], ["commit", "", "0101010101010101010101010101010102020202020202020202020202020202", ""]);
    assert_eq!(grouped[1], ["get_stock", "707335", "", ""]);
}

#[test]
fn the_calls_that_open_configure_and_delete() {
    let change = NamespaceChange { partitions: Some(3), is_paused: Some(true), ..NamespaceChange::default() };
    let fingerprint = encode_change(&change, Some(4));
    assert_eq!(hex(&fingerprint), "000000000000000003080000000000000004090000000000000001");
    let memo = ConfigMemo { id: ID, fingerprint, if_revision: Some(4) };
    let claim = HistoryPoint { epoch: 7, term: term(), sequence: 9 };
    let knowledge = Knowledge { gates: false, claims: vec![claim], reading: None };
    let known = [b"n".to_vec(), bytes("000000000007"), vec![b'a'; 40], bytes("000000000009 000000000000")].concat();
    let opened = arguments(&open_command("sha", &keys(), &knowledge, &config(5), 7, Some(&memo)));
    let expected =
        [b"open".to_vec(), known.clone(), config(5).encode(), b"7".to_vec(), ID.to_vec(), memo.fingerprint.clone()];
    assert_eq!(opened[10..], expected);
    let replaced = arguments(&configure_command("sha", &keys(), &knowledge, 4, None, Some(&memo)));
    let expected =
        [b"configure".to_vec(), known, b"4".to_vec(), Vec::new(), ID.to_vec(), memo.fingerprint, b"4".to_vec()];
    assert_eq!(replaced[10..], expected);
    let steps = [
        (DeletionStep::Take, "take", "0"),
        (DeletionStep::Decide, "decide", "0"),
        (DeletionStep::Reopen, "reopen", "0"),
        (DeletionStep::Unlink(2), "unlink", "2"),
        (DeletionStep::Bury, "bury", "0"),
    ];
    for (step, name, number) in steps {
        let sent = arguments(&deletion_command("sha", &keys(), step, &ID));
        assert_eq!(sent[10..], [b"delete".to_vec(), name.into(), ID.to_vec(), number.into()]);
    }
}
