//! Ways to reserve units, through this server or an alternative, with one interface: one run, and its result.

use std::{sync::Arc, time::Duration};

use anyhow::Result;

use crate::{
    baselines::{
        direct::Direct,
        redis_benchmark::RedisBenchmark,
        sql::{Form, Postgres},
    },
    clients::{Gathered, Unary},
    fixture::Shop,
    load::{self, Caller},
    process::Server,
    stats::{Latency, Run},
    usage::Usage,
};

/// One workload.
pub(crate) enum Workload {
    /// Through the generated client, one call a message, in a new shop in each round.
    /// All other workloads set `first_attempt` if it is true.
    Unary { server: Arc<Server>, skus: usize, is_full: bool, callers: usize, first_attempt: bool },
    /// The same in a shop that is there already.
    Standing { server: Arc<Server>, shop: Shop, callers: usize },
    /// The same at half of the rate that the first row of this round has reached.
    HalfRate { server: Arc<Server> },
    /// Through the Rust client, which gathers calls. `sells`: an answer is a Reserve and its Commit.
    Gathered { server: Arc<Server>, sells: bool, callers: usize },
    /// No service: a Go library on Redis.
    Direct(Direct),
    /// No service and hardly a caller.
    RedisBenchmark(RedisBenchmark),
    /// A database.
    Sql { postgres: Arc<Postgres>, form: Form, skus: usize, callers: usize },
}

/// Callers who take turns on an open loop's connections.
pub(crate) const TURNS: usize = 64;

impl Workload {
    /// Runs for so long. `saturation` is the rate that the first row has reached in this round.
    pub(crate) async fn run(&self, round: usize, length: Duration, saturation: Option<f64>) -> Result<Run> {
        match self {
            &Workload::Unary { ref server, skus, is_full, callers, first_attempt } => {
                let namespace = format!("unary-{skus}-{is_full}-{callers}-{first_attempt}-{round}");
                let shop = open(server, &namespace, skus, is_full).await?;
                let callers = Unary::callers(server, &shop, callers, first_attempt).await?;
                closed(callers, length, async || server.usage().await).await
            }
            Workload::Standing { server, shop, callers } => {
                let callers = Unary::callers(server, shop, *callers, true).await?;
                closed(callers, length, async || server.usage().await).await
            }
            Workload::HalfRate { server } => {
                let shop = open(server, &format!("half-{round}"), 1, true).await?;
                let callers = Unary::callers(server, &shop, TURNS, true).await?;
                let rate = saturation.unwrap_or(DEFAULT_RATE) / 2.0;
                let before = server.usage().await?;
                let answers = load::open(callers, rate, move |due| due < length).await?;
                let after = server.usage().await?;
                let mut histogram = hdrhistogram::Histogram::new(3)?;
                for answer in &answers {
                    histogram.record(answer.latency.as_micros() as u64)?;
                }
                Ok(Run {
                    rate: answers.len() as f64 / length.as_secs_f64(),
                    latency: Latency::from(&histogram),
                    cpu: after.per_answer(&before, answers.len() as f64),
                    operations_per_batch: after.operations_per_batch(&before),
                })
            }
            Workload::Gathered { server, sells, callers } => {
                let shop = open(server, &format!("gathered-{sells}-{callers}-{round}"), 1, true).await?;
                let callers = Gathered::callers(server, &shop, *sells, *callers).await?;
                closed(callers, length, async || server.usage().await).await
            }
            Workload::Direct(direct) => direct.run(round, length).await,
            Workload::RedisBenchmark(benchmark) => benchmark.run(round, length).await,
            Workload::Sql { postgres, form: Form::Transaction, skus, callers } => {
                let callers = postgres.transactions(*skus, *callers).await?;
                closed(callers, length, async || postgres.usage()).await
            }
            Workload::Sql { postgres, form: Form::OneStatement, skus, callers } => {
                let callers = postgres.one_statements(*skus, *callers).await?;
                closed(callers, length, async || postgres.usage()).await
            }
        }
    }
}

/// Calls per second where nothing was measured yet: a warm-up.
const DEFAULT_RATE: f64 = 10_000.0;

async fn open(server: &Server, namespace: &str, skus: usize, is_full: bool) -> Result<Shop> {
    let shop = Shop::new(namespace, skus, is_full);
    if server.redis().is_some() {
        shop.open(server).await?;
    }
    Ok(shop)
}

async fn closed<C: Caller>(callers: Vec<C>, length: Duration, usage: impl AsyncFn() -> Result<Usage>) -> Result<Run> {
    // Its connections stay until all is read: what closing them costs is no part of the run.
    let _one = callers.first().cloned();
    let before = usage().await?;
    let (histogram, seconds) = load::closed(callers, length).await?;
    let after = usage().await?;
    let answers = histogram.len() as f64;
    Ok(Run {
        rate: answers / seconds,
        latency: Latency::from(&histogram),
        cpu: after.per_answer(&before, answers),
        operations_per_batch: after.operations_per_batch(&before),
    })
}
