//! The store and its script without a server: keys, raw records, and calls of the script on partition 0 of `sale`.
//! For reports of failures, all that partition 0 of a namespace has about one reservation.

use std::collections::HashMap;

use deadpool_redis::redis::{Cmd, cmd};
use inventory_sentinel_script::{
    domain::{NamespaceName, ReservationId, Stock},
    events::Entry,
    keys::PartitionKeys,
    reservation_from, state_from, stock_from,
};

use crate::{Redis, redis::patient};

/// One group of a batch: kind, payload, ids and extra.
pub type Group = (&'static str, Vec<u8>, Vec<u8>, Vec<u8>);

/// The keys of a partition of a namespace.
pub fn partition_keys(namespace: &str, partition: u16) -> PartitionKeys {
    PartitionKeys::new(&NamespaceName::parse(namespace.to_owned()).expect("a valid name"), partition)
}

/// A call of this script with the keys of the partition. The caller adds ARGV.
pub fn script_call(source: &str) -> Cmd {
    let keys = partition_keys("sale", 0);
    let mut command = cmd("EVAL");
    command.arg(source).arg(keys.all().len()).arg(keys.all());
    command
}

/// A number of 48 bits, as records and arguments contain it.
pub fn u48(number: u64) -> [u8; 6] {
    number.to_be_bytes()[2..].try_into().expect("six bytes")
}

/// The line set of a reservation with this ttl in milliseconds, as an argument.
pub fn line_set(ttl: u64, lines: &[(u32, &str)]) -> Vec<u8> {
    let mut set = u48(ttl).to_vec();
    set.push(lines.len() as u8);
    for (quantity, sku) in lines {
        set.extend(quantity.to_be_bytes());
        set.push(sku.len() as u8);
        set.extend(sku.as_bytes());
    }
    set
}

/// The epoch of the partition, from its state.
pub async fn epoch(redis: &Redis) -> u64 {
    let state: Vec<u8> = redis.query(&Cmd::hget(partition_keys("sale", 0).meta(), "state")).await;
    state_from(&state).expect("a state").at.epoch
}

/// The record of a SKU, read from Redis: a call to a server would expire due holds first.
pub async fn stored_stock(redis: &Redis, sku: &str) -> Stock {
    let record: Vec<u8> = redis.query(&Cmd::hget(partition_keys("sale", 0).stock(), sku)).await;
    stock_from(&record).expect("a stock record")
}

/// Whether the clock of partition 0 is the clock of the store at this URL: without offset, correction and doubt. After
/// a restart that took long it is in doubt for up to 5 s (docs/decisions/0017-a-clock-per-partition.md).
pub async fn follows_store_clock(url: &str, namespace: &str) -> bool {
    // Positions in the state, see lua/scripts/formats.lua.
    const OFFSET: std::ops::Range<usize> = 59..67;
    const FLAGS: usize = 98;
    const STEPPED: u8 = 16;
    let query = Cmd::hget(partition_keys(namespace, 0).meta(), "state");
    let state: Option<Vec<u8>> = query.query_async(&mut patient(url).await).await.expect("a state");
    state.is_none_or(|state| state[OFFSET].iter().all(|byte| *byte == 0) && state[FLAGS] & STEPPED == 0)
}

/// A report on a reservation of partition 0 from the store at this URL: its record in either generation, the state of
/// the partition, and the events of the reservation, each with the one before it and the one behind it.
pub async fn stored_history(url: &str, namespace: &str, reservation_id: &str) -> String {
    let id = match ReservationId::parse(reservation_id) {
        Ok(id) => id,
        Err(error) => return format!("{reservation_id} is no id: {error:?}\n"),
    };
    let keys = partition_keys(namespace, 0);
    let mut connection = patient(url).await;
    let mut text = String::new();
    for key in keys.records() {
        let record: Option<Vec<u8>> = Cmd::hget(key, &id.id).query_async(&mut connection).await.expect("a record");
        let number: i64 = Cmd::hlen(key).query_async(&mut connection).await.expect("a number");
        let record = record.map(|record| (reservation_from(id, &record), record));
        text.push_str(&format!("  {key}, {number} fields: {record:?}\n"));
    }
    let state: Option<Vec<u8>> = Cmd::hget(keys.meta(), "state").query_async(&mut connection).await.expect("a state");
    let state = state.map(|state| (state_from(&state), state));
    text.push_str(&format!("  state: {state:?}\n"));
    let events: Vec<(String, HashMap<String, Vec<u8>>)> =
        cmd("XRANGE").arg(keys.events()).arg("-").arg("+").query_async(&mut connection).await.expect("events");
    let events: Vec<_> = events
        .iter()
        .map(|(position, fields)| Entry::decode(position, fields.values().next().map_or(&[], Vec::as_slice)))
        .collect();
    text.push_str(&format!("  {} events\n", events.len()));
    let is_about = |at: usize| {
        let entry = events.get(at).and_then(|event| event.as_ref().ok());
        entry.is_some_and(|entry| entry.runs.iter().flat_map(|run| &run.changes).any(|change| change.id == id.id))
    };
    for (at, event) in events.iter().enumerate() {
        let is_near = at > 0 && is_about(at - 1) || is_about(at + 1);
        match event {
            Ok(event) if is_about(at) => text.push_str(&format!("  event of the reservation: {event:?}\n")),
            Ok(Entry { at, first, last, term, .. }) if is_near => {
                text.push_str(&format!("  event beside it: at {at:?}, {first} to {last}, term {term:?}\n"));
            }
            Ok(_) => {}
            Err(error) => text.push_str(&format!("  {error}\n")),
        }
    }
    text
}
