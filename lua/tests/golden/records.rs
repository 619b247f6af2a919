//! Every form of a stock record and of a reservation, and every version of a config and of a state.

use inventory_sentinel_script::{
    DecodeError, NamespaceConfig, PartitionState,
    domain::{HistoryPoint, Reservation, ReservationId, Rules, State, Stock, StoreTime, Term},
    is_memo, reservation_from, state_from, stock_from,
};

use crate::{PLAIN, STOCK, buyer, bytes, config, hex, reservation_id, reserved, stock, term};

#[test]
fn each_form_of_a_stock_record() {
    let counters = &STOCK[..STOCK.len() - 2];
    let record = |rest: &str| stock_from(&bytes(&format!("{counters}{rest}")));
    let rules = Rules {
        revision: 1,
        max_quantity: 5,
        max_ttl: 1_000,
        buyer_limit: 2,
        opens_at: StoreTime(1),
        closes_at: StoreTime(2),
    };
    let ruled = "000000000001 00000005 0000000003e8 00000002 000000000001 000000000002";
    assert_eq!(record("01"), Some(stock()));
    assert_eq!(record("00"), Some(Stock { is_protected: false, ..stock() }));
    assert_eq!(record(&format!("03 {ruled}")), Some(Stock { rules, ..stock() }));
    assert_eq!(record("05 000000000007"), Some(Stock { withdrawn: 7, ..stock() }));
    assert_eq!(record("0d 000000000007"), Some(Stock { withdrawn: 7, ..stock() }));
    // Since format 4: the earliest deadline. Since format 5: paused, and since when the limit counts.
    assert_eq!(record("11 000000000063"), Some(stock()));
    let all = format!("7f {ruled} 000000000008 000000000007 000000000063");
    assert_eq!(record(&all), Some(Stock { rules, withdrawn: 7, is_paused: true, ..stock() }));
    for bad in ["", "03", "11 00", "01 00"] {
        assert_eq!(record(bad), None, "{bad}");
    }
}

#[test]
fn each_form_and_state_of_a_reservation() {
    let record = |text: &str| reservation_from(reservation_id(), &bytes(text));
    let (none, sold, released) = ([[0, 0], [0, 0]], [[2, 0], [1, 0]], [[0, 2], [0, 1]]);
    assert_eq!(record(&format!("50 {PLAIN}")), Some(reserved(State::Pending, None, none)));
    let resolved =
        [("43", State::Committed, sold), ("52", State::RolledBack, released), ("45", State::Expired, released)];
    for (letter, state, lines) in resolved {
        let expected = Some(reserved(state, Some(9), lines));
        assert_eq!(record(&format!("{letter} 000000000009 50 {PLAIN}")), expected, "{letter}");
    }
    // Extended: the lines that count, the origin, and of each line what is sold and released.
    let origin = "33333333333333333333333333333333";
    let units = "00000001 00000001 00000000 00000000";
    let from = |id: u8| Some(ReservationId { id: [id; 16], partition: 3 });
    let partial = |state, resolved_at, rest: u32| {
        let lines = if state == State::Expired { [[1, 1], [0, 1]] } else { [[1, 1], [0, rest]] };
        Reservation { origin: from(0x33), ..reserved(state, resolved_at, lines) }
    };
    assert_eq!(record(&format!("70 {PLAIN} 00000001 {origin} {units}")), Some(partial(State::Pending, None, 0)));
    for (letter, state) in [("63", State::Committed), ("72", State::RolledBack), ("65", State::Expired)] {
        let text = format!("{letter} 000000000009 70 {PLAIN} 00000001 {origin} {units}");
        assert_eq!(record(&text), Some(partial(state, Some(9), 0)), "{letter}");
    }
    // Since format 3: the digest of the request, and the purchase.
    let digested = format!("00000001 {origin} 44444444444444444444444444444444");
    let purchase = "55555555555555555555555555555555";
    for (letter, state) in [("e3", State::Committed), ("f2", State::RolledBack), ("e5", State::Expired)] {
        let text = format!("{letter} 000000000009 f0 {PLAIN} {digested} {purchase} {units}");
        let expected = Reservation { purchase: from(0x55), ..partial(state, Some(9), 0) };
        assert_eq!(record(&text), Some(expected), "{letter}");
    }
    let nothing = "00000000000000000000000000000000";
    let pending = format!("f0 {PLAIN} {digested} {nothing} {units}");
    assert_eq!(record(&pending), Some(partial(State::Pending, None, 0)));
    // Since format 5: its changes.
    let changes = "01 66666666666666666666666666666666 01";
    let pending = format!("d0 {PLAIN} {digested} {nothing} {units} {changes}");
    assert_eq!(record(&pending), Some(partial(State::Pending, None, 0)));
    for (letter, state) in [("c3", State::Committed), ("d2", State::RolledBack), ("c5", State::Expired)] {
        let text = format!("{letter} 000000000009 d0 {PLAIN} {digested} {nothing} {units} {changes}");
        assert_eq!(record(&text), Some(partial(state, Some(9), 0)), "{letter}");
    }
    let named = PLAIN.replace("000000000001 00 ", "000000000001 03616461 ");
    assert_eq!(record(&format!("50 {named}")).map(|reservation| reservation.buyer), Some(buyer("ada")));
    for bad in ["", "51", "4d 000000000009 53", "50 00", &format!("50 {PLAIN} 00"), &format!("43 {PLAIN}")] {
        assert_eq!(record(bad), None, "{bad}");
    }
    assert!(is_memo(&bytes("4d 000000000009 53")) && !is_memo(&bytes(PLAIN)) && !is_memo(b""));
}

#[test]
fn each_version_of_a_config() {
    let numbers =
        "000000000001 000000000002 000000000003 000000000004 000000000005 000000000006 000000000007 000000000008 0009";
    for (format, version, rest) in [(1, "01", ""), (2, "02", "02"), (3, "02", "03"), (4, "02", "04"), (5, "03", "0503")]
    {
        let record = [bytes(&format!("{version} {numbers} {rest}")), vec![0xab; 32]].concat();
        assert_eq!(hex(&config(format).encode()), hex(&record), "{format}");
        assert!(NamespaceConfig::decode(&record).is_ok_and(|decoded| decoded == config(format)), "{format}");
    }
    let newer = [bytes(&format!("04 {numbers} 0503")), vec![0xab; 33]].concat();
    assert!(matches!(NamespaceConfig::decode(&newer), Err(DecodeError::Newer(_))));
    let format = [bytes(&format!("03 {numbers} 0603")), vec![0xab; 32]].concat();
    assert!(matches!(NamespaceConfig::decode(&format), Err(DecodeError::Newer(_))));
    assert!(matches!(NamespaceConfig::decode(&newer[..20]), Err(DecodeError::Malformed(_))));
}

#[test]
fn each_version_of_a_state() {
    let at = HistoryPoint { epoch: 7, term: term(), sequence: 258 };
    let state = |version: u8, rest: usize, flags: u8| {
        let numbers = [bytes("000000000007"), vec![b'a'; 40], bytes("000000000102"), vec![0; 45], vec![flags]];
        [vec![version], numbers.concat(), vec![0; rest]].concat()
    };
    assert_eq!((state(2, 6, 0).len(), state(3, 18, 0).len()), (105, 117));
    for record in [state(2, 6, 1), state(3, 18, 1)] {
        assert_eq!(state_from(&record), Some(PartitionState { at, is_fenced: true }));
    }
    let old = [bytes("000000000007 000000000102"), vec![0; 39]].concat();
    let at = HistoryPoint { term: Term::NONE, ..at };
    assert_eq!(state_from(&old), Some(PartitionState { at, is_fenced: false }));
    assert_eq!(state_from(&state(4, 18, 0)), None);
}
