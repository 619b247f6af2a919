//! Every event in every version of an entry.

use inventory_sentinel_script::{
    DecodeError,
    codes::EventKind,
    domain::{Happened, HistoryPoint, Rules, State, StoreTime},
    events::{After, Entry},
};

use crate::{ID, bytes, line, sku, term};

/// An entry of this version whose only run is this, with one SKU that is gone.
fn entry(version: u8, run: &[u8]) -> Vec<u8> {
    let mut entry = vec![version];
    entry.extend(bytes("000000000064"));
    if version > 2 {
        entry.extend(bytes("fffffffffffffffe"));
    }
    entry.extend(bytes("000000000008"));
    if version > 1 {
        entry.extend([bytes("000000000008"), vec![b'a'; 40], bytes("000000000005")].concat());
    }
    entry.extend([bytes("0001"), run.to_vec(), bytes("0001 01 78 00")].concat());
    entry
}

/// A run of one change, without a buyer.
fn run(version: u8, kind: EventKind, state: u8, moved: &[u8], rest: &[u8]) -> Vec<u8> {
    let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let withdrawn = if version > 1 { bytes("0000") } else { Vec::new() };
    let head = [vec![kind.byte(), state], bytes("000000000007"), vec![0], long(moved), long(rest), withdrawn].concat();
    [head, bytes("0001"), ID.to_vec(), bytes("0001 0001 0001")].concat()
}

#[test]
fn each_event_and_each_version_of_an_entry() {
    let line_set = bytes("000000000000 01 00000002 03 707335");
    let lines = || vec![line(2, "ps5")];
    let supplied = bytes("fffffffffffffffe 707335");
    let lost = [bytes("000000000007"), vec![b'a'; 40], bytes("000000000009 000000000006")].concat();
    let rules = "000000000001 00000005 0000000003e8 00000002 000000000001 000000000002";
    let configured = inventory_sentinel_script::domain::Configured {
        is_protected: true,
        is_paused: true,
        rules: Rules {
            revision: 1,
            max_quantity: 5,
            max_ttl: 1_000,
            buyer_limit: 2,
            opens_at: StoreTime(1),
            closes_at: StoreTime(2),
        },
    };
    let ps5 = || sku("ps5");
    let point = HistoryPoint { epoch: 7, term: term(), sequence: 9 };
    let vectors = [
        (EventKind::Held, b'P', line_set.clone(), Happened::Reserved(lines())),
        (EventKind::Committed, b'C', line_set.clone(), Happened::Committed(lines())),
        (EventKind::RolledBack, b'R', line_set.clone(), Happened::RolledBack(lines())),
        (EventKind::Expired, b'E', line_set.clone(), Happened::Expired(lines())),
        (EventKind::Extended, b'P', line_set.clone(), Happened::Extended(lines())),
        (EventKind::Repurchased, b'C', line_set, Happened::BoughtLate(lines())),
        (EventKind::StockSet, b'-', supplied.clone(), Happened::StockSet(ps5(), -2)),
        (EventKind::StockAdjusted, b'-', supplied.clone(), Happened::StockAdjusted(ps5(), -2)),
        (EventKind::Configured, b'-', bytes("01 707335"), Happened::Configured(ps5(), None)),
        (
            EventKind::Configured,
            b'-',
            bytes(&format!("61 {rules} 707335")),
            Happened::Configured(ps5(), Some(configured)),
        ),
        (EventKind::Deleted, b'-', b"ps5".to_vec(), Happened::Deleted(ps5())),
        (EventKind::SkuSettled, b'-', supplied, Happened::SkuSettled(ps5(), -2)),
        (EventKind::PartitionSettled, b'-', Vec::new(), Happened::PartitionSettled),
        (EventKind::HistoryLost, b'-', lost, Happened::HistoryLost(point, 6)),
    ];
    let seen: Vec<_> = vectors.iter().map(|(kind, ..)| *kind).collect();
    let missing: Vec<_> = EventKind::ALL.iter().filter(|kind| !seen.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for version in 1..=3 {
        for (kind, state, moved, happened) in &vectors {
            let data = entry(version, &run(version, *kind, *state, moved, &[]));
            let entry = Entry::decode("9-0", &data).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            assert_eq!((entry.at, entry.first, entry.last), (StoreTime(100), 8, 9));
            assert_eq!(entry.clock.correction, if version > 2 { -2 } else { 0 });
            assert_eq!(entry.term, (version > 1).then(|| (term(), 5)));
            assert_eq!(entry.stock, [(sku("x"), None)]);
            let [run] = &entry.runs[..] else { panic!("one run") };
            assert_eq!((&run.happened, run.withdrawn.len()), (happened, 0), "{kind:?}");
            assert_eq!((run.changes[0].id, run.changes[0].sequence), (ID, 9));
            let after = match state {
                b'P' => After::Holding { lines: lines(), deadline: StoreTime(7) },
                b'C' => After::Resolved(State::Committed),
                b'R' => After::Resolved(State::RolledBack),
                b'E' => After::Resolved(State::Expired),
                _ => After::Nothing,
            };
            assert_eq!(run.after, after, "{kind:?}");
        }
    }
    assert!(matches!(Entry::decode("9-0", &[4]), Err(DecodeError::Newer(_))));
    assert!(matches!(Entry::decode("9-0", &[3]), Err(DecodeError::Malformed(_))));
}
