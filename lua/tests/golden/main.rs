//! Golden vectors: the bytes of every operation, answer and record. They never change. A test that fails here means
//! that servers of two releases can no longer share a store.

use std::time::Duration;

use inventory_sentinel_script::{
    NamespaceConfig,
    domain::{
        BuyerId, Id, Knowledge, Line, NamespaceName, OnHand, Quantity, Reservation, ReservationId, ReservedLine, Rules,
        Sku, State, Stock, StoreTime, Term,
    },
    keys::PartitionKeys,
};

mod arguments;
mod events;
mod records;
mod replies;

const TTL: Duration = Duration::from_secs(60);
const ID: Id = [0x11; 16];
const MEMO: Id = [0x22; 16];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal digits; spaces are for the reader.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a digit") as u8;
    digits.chunks(2).map(|pair| 16 * digit(pair[0]) + digit(pair[1])).collect()
}

fn sku(name: &str) -> Sku {
    Sku::parse(name.into(), "sku").expect("a SKU")
}

fn line(units: i32, name: &str) -> Line {
    Line { sku: sku(name), quantity: Quantity::parse(units, "quantity").expect("a quantity") }
}

fn buyer(name: &str) -> BuyerId {
    BuyerId::parse(name.into()).expect("a buyer")
}

fn reservation_id() -> ReservationId {
    ReservationId { id: ID, partition: 3 }
}

fn term() -> Term {
    Term::parse(&[b'a'; 40]).expect("a term")
}

fn keys() -> PartitionKeys {
    PartitionKeys::new(&NamespaceName::parse("sale".into()).expect("a name"), 3)
}

fn nothing_known() -> Knowledge {
    Knowledge { gates: true, claims: Vec::new(), reading: None }
}

fn on_hand(units: i64) -> OnHand {
    OnHand::parse(units).expect("units")
}

/// Counters, version 9 and flags of a protected SKU.
const STOCK: &str = "000000000005 000000000002 000000000003 00000000000a 000000000009 01";

fn stock() -> Stock {
    Stock {
        available: 5,
        held: 2,
        sold: 3,
        supplied: 10,
        withdrawn: 0,
        version: 9,
        is_protected: true,
        is_paused: false,
        rules: Rules::default(),
    }
}

/// Deadline 7, created 1, no buyer; ttl 6, two lines.
const PLAIN: &str = "000000000007 000000000001 00 000000000006 02 00000002 03 707335 00000001 01 62";

fn reserved(state: State, resolved_at: Option<u64>, lines: [[u32; 2]; 2]) -> Reservation {
    let [first, second] = lines;
    let of = |Line { sku, quantity }, [sold, released]: [u32; 2]| ReservedLine { sku, quantity, sold, released };
    Reservation {
        id: reservation_id(),
        state,
        lines: vec![of(line(2, "ps5"), first), of(line(1, "b"), second)],
        buyer: buyer(""),
        created_at: StoreTime(1),
        expires_at: StoreTime(7),
        resolved_at: resolved_at.map(StoreTime),
        origin: None,
        purchase: None,
    }
}

fn config(format: u8) -> NamespaceConfig {
    NamespaceConfig {
        revision: 1,
        retention: Duration::from_millis(2),
        default_ttl: Duration::from_millis(3),
        max_ttl: Duration::from_millis(4),
        max_life: Duration::from_millis(5),
        quota_records: 6,
        quota_skus: 7,
        events_kept: 8,
        partitions: 9,
        format,
        is_paused: format > 4,
        has_sealed_ids: format > 4,
        secret: [0xab; 32],
    }
}
