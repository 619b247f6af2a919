//! Redis's own measuring program, calling the library's script: what Redis does of it with the cheapest of callers.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use deadpool_redis::redis;
use tokio::process::Command;

use crate::{
    process::Redis,
    stats::{Latency, Run},
    usage::{Usage, ended_cpu},
};

const RESERVE: &str = include_str!("../../direct/reserve.lua");
/// Connections, each with one call under way; beyond this number it only gets slower.
const CONNECTIONS: usize = 50;
/// Calls of one run, for each second that it is to last: it takes a number, not a time.
const CALLS_PER_SECOND: u64 = 40_000;
/// Longest run.
const LIMIT: Duration = Duration::from_secs(120);
/// Holds have numbers below this.
const HOLDS: &str = "1000000000";

pub(crate) struct RedisBenchmark {
    redis: Arc<Redis>,
    program: &'static str,
}

impl RedisBenchmark {
    /// `None` where it is not installed; Valkey has it under another name.
    pub(crate) fn of(redis: Arc<Redis>) -> Option<Self> {
        let runs = |program: &&str| std::process::Command::new(program).arg("--version").output().is_ok();
        let program = ["redis-benchmark", "valkey-benchmark"].into_iter().find(runs)?;
        Some(Self { redis, program })
    }

    pub(crate) async fn run(&self, round: usize, length: Duration) -> Result<Run> {
        let mut redis = self.redis.connection();
        let stock = format!("{{benchmark-{round}}}:stock");
        let _: () = redis::cmd("SET").arg(&stock).arg(1_000_000_000).query_async(&mut redis).await?;
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(RESERVE).query_async(&mut redis).await?;
        let calls = length.as_millis() as u64 * CALLS_PER_SECOND / 1000;
        let usage = async || {
            anyhow::Ok(Usage { client: ended_cpu()?, store: Some(self.redis.cpu().await?), ..Usage::default() })
        };
        let before = usage().await?;
        let mut command = Command::new(self.program);
        command.args(["-h", "127.0.0.1", "-p"]).arg(self.redis.address().port().to_string());
        command.args(["--csv", "-r", HOLDS]);
        command.arg("-c").arg(CONNECTIONS.to_string()).arg("-n").arg(calls.to_string());
        command.args(["evalsha", &sha, "2", &stock]).arg(format!("{{benchmark-{round}}}:hold:__rand_int__"));
        command.args(["1", "3600"]).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output())
            .await?
            .with_context(|| format!("cannot run {}", self.program))?;
        ensure!(output.status.success(), "{} failed:\n{}", self.program, String::from_utf8_lossy(&output.stderr));
        let cpu = usage().await?.per_answer(&before, calls as f64);
        let printed = String::from_utf8(output.stdout)?;
        let (rate, latency) = parse(&printed).with_context(|| format!("unexpected output:\n{printed}"))?;
        Ok(Run { rate, latency, cpu, operations_per_batch: None })
    }
}

/// Its last line: the test, calls per second, then in milliseconds the mean, the least, p50, p95, p99 and the most.
fn parse(csv: &str) -> Option<(f64, Latency)> {
    let line = csv.lines().rfind(|line| line.starts_with('"'))?;
    let figures: Vec<f64> =
        line.split("\",\"").skip(1).map_while(|field| field.trim_matches('"').parse().ok()).collect();
    let [rate, _, _, p50, _, p99, most] = figures[..] else { return None };
    // It prints three decimals: whole microseconds; and no p99.9, which the most is no less than.
    let microseconds = |milliseconds: f64| (milliseconds * 1e3).round();
    Some((rate, Latency { p50: microseconds(p50), p99: microseconds(p99), p999: microseconds(most) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_last_line_is_read() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                   \"p99_latency_ms\",\"max_latency_ms\"\n\"evalsha 1f 2 a, b\",\"38314.18\",\"0.812\",\"0.200\",\
                   \"0.751\",\"1.295\",\"2.015\",\"9.071\"\n";
        let (rate, latency) = parse(csv).unwrap();
        assert_eq!((rate, latency.p50, latency.p99, latency.p999), (38314.18, 751.0, 2015.0, 9071.0));
        assert!(parse("").is_none());
    }
}
