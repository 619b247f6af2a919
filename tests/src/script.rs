//! The store and its script without a server: keys, raw records, and calls of the script on partition 0 of `sale`.

use deadpool_redis::redis::{Cmd, cmd};
use inventory_sentinel_script::{
    domain::{NamespaceName, Stock},
    keys::PartitionKeys,
    state_from, stock_from,
};

use crate::Redis;

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
