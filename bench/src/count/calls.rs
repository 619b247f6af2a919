//! How many commands a script call makes, and how many script calls a message: from `INFO commandstats` of a Redis
//! that only its server uses.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use deadpool_redis::redis;

use super::{
    BATCH, WARM_UP,
    driver::{Driver, Work},
    guards::{Count, Kind},
};
use crate::process::{Durability, Redis};

/// Calls that are counted, each alone.
const CALLS: usize = 15;
/// The counts, in this order: later ones resolve what earlier ones reserve.
const ROWS: [(&str, Work, usize); 8] = [
    ("reserve", Work::Reserve, 1),
    ("commit", Work::Commit, 1),
    ("rollback", Work::Rollback, 1),
    ("sold_out", Work::SoldOut, 1),
    ("batch_reserve", Work::Reserve, BATCH),
    ("batch_commit", Work::Commit, BATCH),
    ("batch_rollback", Work::Rollback, BATCH),
    ("batch_sold_out", Work::SoldOut, BATCH),
];

/// The commands that the server sends beside its scripts, once a second and as a connection opens. No script may
/// call these, or ours have no use for them; whatever else there is counts as the script's.
const ASIDES: [&str; 3] = ["config", "client", "get"];
/// INFO commands between two readings that are no script's: the first reading, which does not count itself.
const OWN_INFO: u64 = 1;
/// How a script is called.
const SCRIPT_CALLS: [&str; 2] = ["evalsha", "eval"];

/// Counts all rows on one server. The median over the calls is what counts, which leaves out what comes up now and
/// then.
pub(crate) async fn count(programs: &Path) -> Result<Vec<Count>> {
    let redis = Redis::start(Durability::Fast).await?;
    let server = super::start(Command::new(super::server(programs)), redis).await?;
    let redis = server.redis().context("our server has a Redis")?;
    let mut driver = Driver::new(&server).await?;
    let mut counts = Vec::new();
    for (name, work, size) in ROWS {
        driver.prepare(work, size, WARM_UP + CALLS).await?;
        driver.calls(work, size, WARM_UP).await?;
        let (mut commands, mut script_calls) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            let before = Stats::read(redis).await?;
            driver.call(work, size).await?;
            let made = Stats::read(redis).await?.since(&before);
            ensure!(made.script_calls > 0, "{name}: no script was called");
            commands.push(made.commands.div_ceil(made.script_calls));
            script_calls.push(made.script_calls);
        }
        counts.extend(Count::of(format!("redis_calls_{name}"), Kind::Calls, &commands));
        if size > 1 {
            counts.extend(Count::of(format!("script_calls_{name}"), Kind::Calls, &script_calls));
        }
    }
    Ok(counts)
}

/// Calls by command, since Redis was started.
struct Stats(BTreeMap<String, u64>);

impl Stats {
    async fn read(redis: &Redis) -> Result<Self> {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis.connection()).await?;
        Self::parse(&info).context("unexpected commandstats")
    }

    fn parse(info: &str) -> Option<Self> {
        let lines = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        let calls = lines.map(|(name, rest)| Some((name.to_owned(), rest.split(',').next()?.parse().ok()?)));
        calls.collect::<Option<_>>().map(Self)
    }

    /// Script calls since `before`, and commands that they have made.
    fn since(&self, before: &Self) -> Made {
        let mut made = Made::default();
        for (name, calls) in &self.0 {
            let calls = calls - before.0.get(name).unwrap_or(&0);
            let command = name.split('|').next().unwrap_or(name);
            if SCRIPT_CALLS.contains(&command) {
                made.script_calls += calls;
            } else if command == "info" {
                made.commands += calls.saturating_sub(OWN_INFO);
            } else if !ASIDES.contains(&command) {
                made.commands += calls;
            }
        }
        made
    }
}

/// The called commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Made {
    script_calls: u64,
    commands: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_scripts_are_told_from_asides() {
        let before = "# Commandstats\r\ncmdstat_evalsha:calls=3,usec=90,usec_per_call=30.00,rejected_calls=0,\
                      failed_calls=0\r\n\
                      cmdstat_hset:calls=5,usec=9,usec_per_call=1.80,rejected_calls=0,failed_calls=0\r\n\
                      cmdstat_info:calls=1,usec=50,usec_per_call=50.00,rejected_calls=0,failed_calls=0\r\n";
        let after = "cmdstat_evalsha:calls=5,usec=150\r\ncmdstat_hset:calls=9,usec=16\r\n\
                     cmdstat_xadd:calls=2,usec=8\r\n\
                     cmdstat_info:calls=4,usec=200\r\ncmdstat_config|get:calls=1,usec=9\r\n\
                     cmdstat_client|setinfo:calls=2,usec=2\r\n\
                     cmdstat_ping:calls=2,usec=2\r\n";
        let (before, after) = (Stats::parse(before).unwrap(), Stats::parse(after).unwrap());
        assert_eq!(after.since(&before), Made { script_calls: 2, commands: 10 });
        assert_eq!(after.since(&after), Made::default());
    }

    #[test]
    fn what_is_no_number_is_not_read() {
        assert!(Stats::parse("cmdstat_hset:calls=many,usec=1\r\n").is_none());
        assert!(Stats::parse("").unwrap().0.is_empty());
    }
}
