//! How many instructions an operation takes in Redis, in the server and in the no-op server. One process at a time is
//! counted; who calls it, and what it calls, runs beside it uncounted.
//!
//! The background work of a process is in the count too: once a second the server checks its Redis, and Redis at
//! itself. Where calls are counted together that is well below a hundredth; where one wave is counted at a time, it
//! is in a few waves only, and so not in their median.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result};
use deadpool_redis::redis::Script;

use super::{
    BATCH, THREADS, WARM_UP,
    callgrind::Callgrind,
    driver::{Driver, Work},
    guards::{Count, Kind},
    server, start,
};
use crate::{
    credentials::Guard,
    process::{Durability, Redis, Server},
    stats::Spread,
};

/// How often everything is counted, each time in new processes.
const REPETITIONS: usize = 3;
/// Calls of one operation that are counted together.
const LONE_CALLS: usize = 100;
/// The same of batches; and where they are short, so that as much is counted.
const BATCH_CALLS: usize = 16;
const SHORT_BATCH_CALLS: usize = 64;
/// Reserves under way at once, and how often so many are sent.
const WAVE: usize = 64;
const WAVES: usize = 15;

const SERVER: &str = "server_instructions_reserve";
const SERVER_BATCH: &str = "server_instructions_batch_reserve";
const NO_OP: &str = "noop_instructions_reserve";
const ABOVE_NO_OP: &str = "server_instructions_above_noop";

/// The counts in Redis, in this order: later ones resolve what earlier ones reserve.
const REDIS_ROWS: [(&str, Work, usize, usize); 7] = [
    ("redis_instructions_reserve", Work::Reserve, 1, LONE_CALLS),
    ("redis_instructions_sold_out", Work::SoldOut, 1, LONE_CALLS),
    ("redis_instructions_batch_reserve", Work::Reserve, BATCH, BATCH_CALLS),
    ("redis_instructions_batch_commit", Work::Commit, BATCH, BATCH_CALLS),
    ("redis_instructions_batch_sold_out", Work::SoldOut, BATCH, SHORT_BATCH_CALLS),
    // Last, so that the rows above are counted as they were without these.
    (SOLD_OUT_UNCLAIMED, Work::SoldOutUnclaimed, 1, LONE_CALLS),
    (BATCH_SOLD_OUT_UNCLAIMED, Work::SoldOutUnclaimed, BATCH, SHORT_BATCH_CALLS),
];

/// A sold-out answer without `first_attempt`.
const SOLD_OUT_UNCLAIMED: &str = "redis_instructions_sold_out_looked_up";
const BATCH_SOLD_OUT_UNCLAIMED: &str = "redis_instructions_batch_sold_out_looked_up";

/// The least that an answer about an identity takes, and so the floor of a sold-out answer: each id becomes a string
/// of Lua and is read. There is no clock, no stock and no rule in this.
const LOOKUP: &str = "local n = #ARGV[1] / 16
local ids = { struct.unpack(string.rep('c16', n), ARGV[1]) }
ids[n + 1] = nil
local records = redis.call('HMGET', KEYS[1], unpack(ids))
for i = 1, n do
  if records[i] then return redis.error_reply('known') end
end
return string.rep('S', n)";
/// Odd, with bits everywhere.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
const LOOKUP_ONLY: &str = "redis_instructions_batch_look_up_only";

/// Counts all rows, in new processes each time.
pub(crate) async fn count(programs: &Path) -> Result<Vec<Count>> {
    let mut redis: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let (mut ours, mut ours_in_batches, mut no_op) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 1..=REPETITIONS {
        let log = |what| eprintln!("counting instructions, {repetition} of {REPETITIONS}: {what}");
        log("redis");
        count_redis(programs, |name, count| redis.entry(name).or_default().push(count)).await?;
        log("server");
        let (unary, in_batches) = count_server(programs).await?;
        ours.push(unary);
        ours_in_batches.push(in_batches);
        log("no-op");
        no_op.push(count_no_op(programs).await?);
    }
    let above: Vec<u64> = ours.iter().zip(&no_op).map(|(ours, no_op)| ours.saturating_sub(*no_op)).collect();
    let mut counts = Vec::new();
    for name in REDIS_ROWS.map(|row| row.0).into_iter().chain([LOOKUP_ONLY]) {
        counts.extend(redis.get(name).and_then(|repetitions| Count::of(name, Kind::Redis, repetitions)));
    }
    counts.extend(Count::of(SERVER, Kind::Program, &ours));
    counts.extend(Count::of(SERVER_BATCH, Kind::Program, &ours_in_batches));
    counts.extend(Count::of(NO_OP, Kind::Program, &no_op));
    counts.extend(Count::of(ABOVE_NO_OP, Kind::Difference, &above));
    Ok(counts)
}

/// Per operation, the operations of many calls counted together: what Redis does now and then, as tables that grow,
/// is a share of each.
async fn count_redis(programs: &Path, mut counted: impl FnMut(&'static str, u64)) -> Result<()> {
    let callgrind = Callgrind::new()?;
    let redis = Redis::start_by(callgrind.command(Redis::program()?), Durability::Fast).await?;
    let server = start(Command::new(server(programs)), redis).await?;
    let redis = server.redis().context("our server has a Redis")?;
    let (pid, mut connection) = (redis.id(), redis.connection());
    let mut driver = Driver::new(&server).await?;
    callgrind.begin(pid).await?;
    for (name, work, size, calls) in REDIS_ROWS {
        driver.prepare(work, size, WARM_UP + calls).await?;
        driver.calls(work, size, WARM_UP).await?;
        callgrind.take(pid).await?;
        driver.calls(work, size, calls).await?;
        counted(name, callgrind.take(pid).await? / (calls * size) as u64);
    }
    let lookup = Script::new(LOOKUP);
    for call in 0..WARM_UP + SHORT_BATCH_CALLS {
        if call == WARM_UP {
            callgrind.take(pid).await?;
        }
        // As even as ids are, and of nobody.
        let ids = (1..=BATCH).map(|i| ((call * BATCH + i) as u128).wrapping_mul(SPREAD).to_be_bytes());
        let ids: Vec<u8> = ids.flatten().collect();
        lookup.key(driver.records()).arg(ids).invoke_async::<String>(&mut connection).await?;
    }
    counted(LOOKUP_ONLY, callgrind.take(pid).await? / (SHORT_BATCH_CALLS * BATCH) as u64);
    Ok(())
}

/// Per Reserve: of waves of unary calls, and of Batch messages.
async fn count_server(programs: &Path) -> Result<(u64, u64)> {
    let callgrind = Callgrind::new()?;
    let server = start(callgrind.command(server(programs)), Redis::start(Durability::Fast).await?).await?;
    let mut driver = Driver::new(&server).await?;
    let unary = count_waves(&callgrind, &server, &mut driver).await?;
    driver.calls(Work::Reserve, BATCH, WARM_UP).await?;
    callgrind.take(server.id()).await?;
    driver.calls(Work::Reserve, BATCH, BATCH_CALLS).await?;
    Ok((unary, callgrind.take(server.id()).await? / (BATCH * BATCH_CALLS) as u64))
}

/// Instructions of a server that is guarded in this way, per unary Reserve: the median of several new processes.
pub(crate) async fn count_guarded(server: &Path, guard: Guard) -> Result<u64> {
    let mut counts = Vec::new();
    for _ in 0..REPETITIONS {
        counts.push(count_guarded_once(server, guard).await? as f64);
    }
    Ok(Spread::of(counts).context("there are counts")?.median as u64)
}

async fn count_guarded_once(server: &Path, guard: Guard) -> Result<u64> {
    let callgrind = Callgrind::new()?;
    let threads = THREADS.to_string();
    let flags = ["--threads", &threads, "--sweep-interval", "1m", "--store-timeout", "1m", "--reload-interval", "5s"];
    let redis = Redis::start(Durability::Fast).await?;
    let server = Server::start_guarded(callgrind.command(server), redis, Durability::Fast, &flags, guard).await?;
    count_waves(&callgrind, &server, &mut Driver::new(&server).await?).await
}

async fn count_no_op(programs: &Path) -> Result<u64> {
    let callgrind = Callgrind::new()?;
    let command = callgrind.command(programs.join("sentinel-noop"));
    let server = Server::start_no_op_by(command, Some(THREADS)).await?;
    count_waves(&callgrind, &server, &mut Driver::new(&server).await?).await
}

/// Per unary Reserve, of the median wave.
async fn count_waves(callgrind: &Callgrind, server: &Server, driver: &mut Driver) -> Result<u64> {
    callgrind.begin(server.id()).await?;
    for _ in 0..WARM_UP {
        driver.wave(WAVE).await?;
    }
    callgrind.take(server.id()).await?;
    let mut waves = Vec::new();
    for _ in 0..WAVES {
        driver.wave(WAVE).await?;
        waves.push(callgrind.take(server.id()).await? as f64);
    }
    let median = Spread::of(waves).context("there are waves")?.median;
    Ok(median as u64 / WAVE as u64)
}
