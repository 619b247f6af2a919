//! The rows and ratios of the lab: every way beside ours, and what each ratio must be.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    baselines::{
        direct::Direct,
        redis_benchmark::RedisBenchmark,
        sql::{Form, Postgres},
    },
    fixture::Shop,
    process::{Durability, Redis, Server},
    runner::{Better, Contender, Name, Ratio, Requirement, Row, Wanted},
    scale,
    stats::{Run, Spread, p50, p99, rate, server_cpu, store_cpu},
    workloads::Way,
};

/// Callers at once where the machine is to be full.
const MANY: usize = 512;
/// Callers at once where Redis is to have as much to do as it can get: so many that the batches are full, as they are
/// where Redis and not its neighbours on the machine is what sales wait for.
const CROWD: usize = 2_048;
/// SKUs where callers want different ones.
const SPREAD: usize = 1_000;

/// Flags of a server that sends every request alone: the same script, a connection of the pool each.
const PER_REQUEST: &[&str] = &["--batch-max-operations", "1", "--batches-in-flight", "64", "--pool-size", "64"];

const UNARY: Name = fast("unary");
const NO_OP: Name = peer(keeps_nothing("no-op"));
const NO_OP_ALL_CORES: Name = peer(keeps_nothing("no-op, a thread for each core"));
const PER_REQUEST_ROW: Name = peer(fast("per request"));
const UNARY_DURABLE: Name = durable("unary, durable");
const SOLD_OUT: Name = fast("unary, sold out");
const SOLD_OUT_UNCLAIMED: Name = fast("unary, sold out, looked up");
const UNARY_SPREAD: Name = fast("unary, over 1,000 SKUs");
const HALF: Name = fast("unary, half rate, open loop");
const HALF_NO_OP: Name = peer(keeps_nothing("no-op, the same rate, open loop"));
const LONE: Name = fast("lone caller");
const LONE_PER_REQUEST: Name = peer(fast("lone caller, per request"));
const BATCHED: Name = fast("batched");
const BATCHED_DURABLE: Name = durable("batched, durable");
const SALES: Name = fast("batched, reserve + commit");
const SALES_OF_CROWD: Name = fast("batched, reserve + commit, 2,048 callers");
const DIRECT: Name = peer(fast("direct library"));
const DIRECT_SALES: Name = peer(fast("direct library, reserve + commit"));
const DIRECT_SALES_OF_CROWD: Name = peer(fast("direct library, reserve + commit, 2,048 callers"));
const BENCHMARK: Name = peer(fast("redis-benchmark"));
const SQL: Name = peer(durable("sql, usual transaction"));
const SQL_SPREAD: Name = peer(durable("sql, usual transaction, over 1,000 SKUs"));
const SQL_ONE: Name = peer(durable("sql, one statement"));
const SQL_ONE_SPREAD: Name = peer(durable("sql, one statement, over 1,000 SKUs"));

const AMONG_SKUS: Name = fast("unary, among 1,000,000 SKUs");
const OVER_SKUS: Name = fast("unary, over 1,000,000 SKUs");
const AMONG_HOLDS: Name = fast("unary, among 1,000,000 holds");

const fn fast(text: &'static str) -> Name {
    Name { text, durability: Some(Durability::Fast), is_peer: false }
}

const fn durable(text: &'static str) -> Name {
    Name { text, durability: Some(Durability::Durable), is_peer: false }
}

const fn keeps_nothing(text: &'static str) -> Name {
    Name { text, durability: None, is_peer: false }
}

const fn peer(name: Name) -> Name {
    Name { is_peer: true, ..name }
}

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) no_op: PathBuf,
    pub(crate) direct: PathBuf,
}

/// The rows, all of their processes started; and what could not be.
pub(crate) async fn rows(programs: &Programs) -> Result<(Vec<Contender>, Vec<String>)> {
    let server = |durability, flags| Server::start(&programs.server, durability, flags);
    let fast = Arc::new(server(Durability::Fast, &[]).await?);
    let durable = Arc::new(server(Durability::Durable, &[]).await?);
    let per_request = Arc::new(server(Durability::Fast, PER_REQUEST).await?);
    let no_op = Arc::new(Server::start_no_op(&programs.no_op, None).await?);
    let cores = std::thread::available_parallelism()?.get();
    let no_op_all_cores = Arc::new(Server::start_no_op(&programs.no_op, Some(cores)).await?);
    let redis = Arc::new(Redis::start(Durability::Fast).await?);

    let unary = |server: &Arc<Server>, skus, is_full, callers| Way::Unary {
        server: Arc::clone(server),
        skus,
        is_full,
        callers,
        first_attempt: true,
    };
    let looked_up =
        Way::Unary { server: Arc::clone(&fast), skus: 1, is_full: false, callers: MANY, first_attempt: false };
    let gathered = |server: &Arc<Server>, sells, callers| Way::Gathered { server: Arc::clone(server), sells, callers };
    let half = |server: &Arc<Server>| Way::HalfRate { server: Arc::clone(server) };
    let direct = |sells, callers| {
        let (program, redis) = (programs.direct.clone(), Arc::clone(&redis));
        Way::Direct(Direct { program, redis, callers, sells })
    };
    let mut absent = Vec::new();
    let has_direct = programs.direct.is_file();
    if !has_direct {
        absent.push("the direct library: its program was not built, as bench/setup.sh has reported".to_owned());
    }
    let benchmark = RedisBenchmark::of(Arc::clone(&redis)).map(Way::RedisBenchmark);
    if benchmark.is_none() {
        absent.push("redis-benchmark: not installed".to_owned());
    }
    let postgres = match Postgres::start().await {
        Ok(postgres) => Some(Arc::new(postgres)),
        Err(error) => {
            absent.push(format!("SQL: {error:#}"));
            None
        }
    };
    let sql = |form, skus| {
        let postgres = postgres.as_ref().map(Arc::clone)?;
        Some(Way::Sql { postgres, form, skus, callers: MANY })
    };
    // Those that are compared are near each other. The first has the rate that the rows at half of it take.
    let rows = [
        (UNARY, Some(unary(&fast, 1, true, MANY))),
        (DIRECT, has_direct.then(|| direct(false, MANY))),
        (BATCHED, Some(gathered(&fast, false, MANY))),
        (NO_OP, Some(unary(&no_op, 1, true, MANY))),
        (NO_OP_ALL_CORES, Some(unary(&no_op_all_cores, 1, true, MANY))),
        (PER_REQUEST_ROW, Some(unary(&per_request, 1, true, MANY))),
        (UNARY_DURABLE, Some(unary(&durable, 1, true, MANY))),
        (SOLD_OUT, Some(unary(&fast, 1, false, MANY))),
        (SOLD_OUT_UNCLAIMED, Some(looked_up)),
        (UNARY_SPREAD, Some(unary(&fast, SPREAD, true, MANY))),
        (HALF, Some(half(&fast))),
        (HALF_NO_OP, Some(half(&no_op))),
        (LONE, Some(unary(&fast, 1, true, 1))),
        (LONE_PER_REQUEST, Some(unary(&per_request, 1, true, 1))),
        (SALES, Some(gathered(&fast, true, MANY))),
        (DIRECT_SALES, has_direct.then(|| direct(true, MANY))),
        (SALES_OF_CROWD, Some(gathered(&fast, true, CROWD))),
        (DIRECT_SALES_OF_CROWD, has_direct.then(|| direct(true, CROWD))),
        (BENCHMARK, benchmark),
        (BATCHED_DURABLE, Some(gathered(&durable, false, MANY))),
        (SQL, sql(Form::Transaction, 1)),
        (SQL_ONE, sql(Form::OneStatement, 1)),
        (SQL_SPREAD, sql(Form::Transaction, SPREAD)),
        (SQL_ONE_SPREAD, sql(Form::OneStatement, SPREAD)),
    ];
    Ok((rows.into_iter().filter_map(|(name, way)| Some(Contender { name, way: way? })).collect(), absent))
}

/// The ratios, with what each must be and what is aimed at.
pub(crate) const RATIOS: &[Wanted] = &[
    more("unary_vs_noop", UNARY, NO_OP, 0.8, 0.95),
    informs("unary_vs_noop_on_all_cores", UNARY, NO_OP_ALL_CORES, rate, Better::More),
    less("server_cpu_vs_noop", UNARY, NO_OP, server_cpu, 1.3, 1.1),
    more("unary_vs_per_request", UNARY, PER_REQUEST_ROW, 2.0, 2.8),
    more("unary_vs_direct_library", UNARY, DIRECT, 0.7, 1.0),
    more("batched_vs_direct_library", BATCHED, DIRECT, 2.5, 6.0),
    more("batched_vs_sql", BATCHED_DURABLE, SQL, 30.0, 100.0),
    informs("batched_vs_sql_one_statement", BATCHED_DURABLE, SQL_ONE, rate, Better::More),
    less("redis_cpu_vs_direct", SALES_OF_CROWD, DIRECT_SALES_OF_CROWD, store_cpu, 0.25, 0.12),
    informs("redis_cpu_vs_direct_512_callers", SALES, DIRECT_SALES, store_cpu, Better::Less),
    less("soldout_vs_success_redis_cpu", SOLD_OUT, UNARY, store_cpu, 0.3, 0.1),
    informs("soldout_looked_up_vs_success_redis_cpu", SOLD_OUT_UNCLAIMED, UNARY, store_cpu, Better::Less),
    more("durable_vs_fast", UNARY_DURABLE, UNARY, 0.8, 0.97),
    less("p99_vs_noop", HALF, HALF_NO_OP, p99, 3.0, 1.5),
    less("idle_latency_vs_per_request", LONE, LONE_PER_REQUEST, p50, 1.1, 0.9),
];

/// The rows of the full run: shops of a size, which exist through all rounds.
pub(crate) async fn rows_of_scale(server: &Path) -> Result<(Vec<Contender>, Scale)> {
    let server = Arc::new(Server::start(server, Durability::Fast, &[]).await?);
    let many_skus = scale::shop_with_skus(&server, scale::MILLION).await?;
    let holds = scale::shop_with_holds(&server, "holds", scale::MILLION).await?;
    let one_of_many = Shop { skus: many_skus.skus[..1].into(), ..many_skus.clone() };
    let row = |name, shop| {
        let way = Way::Standing { server: Arc::clone(&server), shop, callers: MANY };
        Contender { name, way }
    };
    let rows = vec![row(AMONG_SKUS, one_of_many), row(OVER_SKUS, many_skus), row(AMONG_HOLDS, holds)];
    Ok((rows, Scale { server }))
}

/// Their ratios.
pub(crate) const RATIOS_OF_SCALE: &[Wanted] = &[
    more("million_skus_vs_one", AMONG_SKUS, UNARY, 0.85, 1.0),
    more("million_holds_vs_none", AMONG_HOLDS, UNARY, 0.85, 1.0),
];

/// The part of the full run that is no row: figures that are taken after the rows.
pub(crate) struct Scale {
    server: Arc<Server>,
}

impl Scale {
    /// `rows`: what the figures are compared with. `minutes`: how long memory is watched.
    ///
    /// A figure that cannot be taken is reported with its reason. The others continue.
    pub(crate) async fn figures(self, rows: &[Row], rounds: usize, minutes: u64) -> (Vec<Ratio>, Vec<String>) {
        let (mut ratios, mut failed) = (Vec::new(), Vec::new());
        let mut add = |name, figures: Result<Vec<f64>>, better, must, aim| match figures.map(Spread::of) {
            Ok(Some(spread)) => {
                ratios.push(Ratio { name, spread, better, requirement: Some(Requirement { must, aim }) })
            }
            Ok(None) => failed.push(format!("{name}: there was no round")),
            Err(error) => failed.push(format!("{name}: {error:#}")),
        };
        add("expiry_storm_p99", self.storms(rows, rounds).await, Better::Less, 2.0, 1.2);
        let (bytes, drains) = match self.sizes(rows, rounds).await {
            Ok((bytes, drains)) => (Ok(bytes), Ok(drains)),
            Err(error) => (Err(anyhow::anyhow!("{error:#}")), Err(error)),
        };
        add("bytes_per_pending_hold", bytes, Better::Less, 160.0, 110.0);
        add("event_drain_vs_mutations", drains, Better::More, 2.0, 5.0);
        eprint!("\r{:<60}", format!("{minutes} minutes of load"));
        let growth = scale::memory_growth(&self.server, Duration::from_secs(60 * minutes)).await;
        add("server_memory_growth", growth.map(|growth| vec![growth]), Better::Less, 1.1, 1.0);
        eprintln!("\r{:<60}\r", "");
        (ratios, failed)
    }

    async fn storms(&self, rows: &[Row], rounds: usize) -> Result<Vec<f64>> {
        let mut storms = Vec::new();
        for round in 1..=rounds {
            eprint!("\rround {round} of {rounds}: {:<40}", "a million holds fall due");
            let storm = scale::storm(&self.server, round, rate_of(rows, UNARY)? / 4.0).await?;
            storms.push(storm.during.p99 / storm.before.p99);
            eprintln!("\rall given back in {:.1} s {:<40}", storm.length.as_secs_f64(), "");
        }
        Ok(storms)
    }

    /// Bytes of a hold, and the rate of the drain.
    async fn sizes(&self, rows: &[Row], rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut bytes, mut drains) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            eprint!("\rround {round} of {rounds}: {:<40}", "a million holds and events");
            let shop = scale::shop_with_holds(&self.server, &format!("events-{round}"), scale::MILLION).await?;
            bytes.push(scale::bytes_per_hold(&self.server, &shop).await?);
            drains.push(scale::drain(&self.server, &shop).await? / rate_of(rows, BATCHED)?);
        }
        Ok((bytes, drains))
    }
}

/// The median rate of a row.
fn rate_of(rows: &[Row], name: Name) -> Result<f64> {
    let row = rows.iter().find(|row| row.name == name);
    let rate = row.and_then(|row| row.spread(rate)).map(|spread| spread.median);
    rate.with_context(|| format!("the row {:?} was not measured", name.text))
}

const fn more(name: &'static str, this: Name, that: Name, must: f64, aim: f64) -> Wanted {
    Wanted { name, this, that, figure: rate, better: Better::More, requirement: Some(Requirement { must, aim }) }
}

/// A ratio without a requirement.
const fn informs(name: &'static str, this: Name, that: Name, figure: fn(&Run) -> f64, better: Better) -> Wanted {
    Wanted { name, this, that, figure, better, requirement: None }
}

const fn less(name: &'static str, this: Name, that: Name, figure: fn(&Run) -> f64, must: f64, aim: f64) -> Wanted {
    Wanted { name, this, that, figure, better: Better::Less, requirement: Some(Requirement { must, aim }) }
}

/// Callers at once where batches are small.
const FEW: usize = 16;

const MANY_BEFORE: Name = fast("many, before");
const MANY_AFTER: Name = fast("many, after");
const FEW_BEFORE: Name = fast("few, before");
const FEW_AFTER: Name = fast("few, after");
const LONE_BEFORE: Name = fast("lone, before");
const LONE_AFTER: Name = fast("lone, after");
const SOLD_OUT_BEFORE: Name = fast("sold out, before");
const SOLD_OUT_AFTER: Name = fast("sold out, after");
const UNCLAIMED_BEFORE: Name = fast("sold out, looked up, before");
const UNCLAIMED_AFTER: Name = fast("sold out, looked up, after");

/// The rows of two builds of the server, and what is compared. The callers are of this build on both sides, and send both
/// servers the same bytes: what an older build does not know of them, it ignores.
pub(crate) async fn builds(after: &Path, before: &Path) -> Result<Vec<Contender>> {
    let server = |binary| Server::start(binary, Durability::Fast, &[]);
    let (before, after) = (Arc::new(server(before).await?), Arc::new(server(after).await?));
    let row = |name, server: &Arc<Server>, is_full, callers, first_attempt| {
        let way = Way::Unary { server: Arc::clone(server), skus: 1, is_full, callers, first_attempt };
        Contender { name, way }
    };
    Ok(vec![
        row(MANY_BEFORE, &before, true, MANY, true),
        row(MANY_AFTER, &after, true, MANY, true),
        row(FEW_BEFORE, &before, true, FEW, true),
        row(FEW_AFTER, &after, true, FEW, true),
        row(LONE_BEFORE, &before, true, 1, true),
        row(LONE_AFTER, &after, true, 1, true),
        row(SOLD_OUT_BEFORE, &before, false, MANY, true),
        row(SOLD_OUT_AFTER, &after, false, MANY, true),
        row(UNCLAIMED_BEFORE, &before, false, MANY, false),
        row(UNCLAIMED_AFTER, &after, false, MANY, false),
    ])
}

/// The only requirement on a build is the value of the other build.
pub(crate) const BUILD_RATIOS: &[Wanted] = &[
    more("many_rate", MANY_AFTER, MANY_BEFORE, 1.0, 1.0),
    less("many_redis_cpu", MANY_AFTER, MANY_BEFORE, store_cpu, 1.0, 1.0),
    less("many_server_cpu", MANY_AFTER, MANY_BEFORE, server_cpu, 1.0, 1.0),
    more("few_rate", FEW_AFTER, FEW_BEFORE, 1.0, 1.0),
    less("few_redis_cpu", FEW_AFTER, FEW_BEFORE, store_cpu, 1.0, 1.0),
    more("lone_rate", LONE_AFTER, LONE_BEFORE, 1.0, 1.0),
    less("lone_redis_cpu", LONE_AFTER, LONE_BEFORE, store_cpu, 1.0, 1.0),
    more("sold_out_rate", SOLD_OUT_AFTER, SOLD_OUT_BEFORE, 1.0, 1.0),
    less("sold_out_redis_cpu", SOLD_OUT_AFTER, SOLD_OUT_BEFORE, store_cpu, 1.0, 1.0),
    more("sold_out_looked_up_rate", UNCLAIMED_AFTER, UNCLAIMED_BEFORE, 1.0, 1.0),
    less("sold_out_looked_up_redis_cpu", UNCLAIMED_AFTER, UNCLAIMED_BEFORE, store_cpu, 1.0, 1.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_is_equal_on_both_sides_where_something_is_kept() {
        for Wanted { name, this, that, .. } in [RATIOS, RATIOS_OF_SCALE, BUILD_RATIOS].concat() {
            let is_the_question = name == "durable_vs_fast";
            let keeps_nothing = that.durability.is_none();
            assert!(is_the_question || keeps_nothing || this.durability == that.durability, "{name}");
        }
    }

    #[test]
    fn each_name_is_used_once() {
        let mut names: Vec<_> = [RATIOS, RATIOS_OF_SCALE].concat().iter().map(|wanted| wanted.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
