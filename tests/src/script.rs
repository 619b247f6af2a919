//! The server's script, called as no server calls it: on partition 0 of the namespace `sale`.

use deadpool_redis::redis::{Cmd, cmd};
use inventory_sentinel_script::{domain::NamespaceName, keys::PartitionKeys, state_from};

use crate::Redis;

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

/// The epoch of the partition, from its state.
pub async fn epoch(redis: &Redis) -> u64 {
    let state: Vec<u8> = redis.query(&Cmd::hget(partition_keys("sale", 0).meta(), "state")).await;
    state_from(&state).expect("a state").at.epoch
}
