//! The script of the server, called as no server calls it: on partition 0 of the namespace `sale`.

use deadpool_redis::redis::{Cmd, cmd};

use crate::{Redis, number_in};

/// Bytes of a state of format 1.
const STATE_LENGTH_1: usize = 51;
const KEYS: [&str; 7] = ["meta", "stock", "records:a", "records:b", "deadlines", "events", "buyers"];

/// A call of this script with the keys of the partition. The caller adds ARGV.
pub fn script_call(source: &str) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(source).arg(KEYS.len()).arg(KEYS.map(|name| format!("is:{{sale/0}}:{name}")).as_slice());
    command
}

/// The epoch of the partition, from its state. In format 1 nothing stands before it.
pub async fn epoch(redis: &Redis) -> i64 {
    let state: Vec<u8> = redis.query(&Cmd::hget("is:{sale/0}:meta", "state")).await;
    let version = usize::from(state.len() > STATE_LENGTH_1);
    number_in(&state[version..version + 6])
}
