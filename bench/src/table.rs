//! The rows and ratios of the lab: every way beside ours, and what each ratio must be.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    callers::Shop,
    figures::{Run, Spread, p50, p99, rate, server_cpu, store_cpu},
    lab::{Better, Ratio, Row, Wanted},
    peers::{direct::Direct, redis_benchmark::RedisBenchmark, sql::Postgres},
    process::{Durability, Redis, Server},
    scale,
    ways::Way,
};

/// Callers at once where the machine is to be full.
const MANY: usize = 512;
/// SKUs where callers want different ones.
const SPREAD: usize = 1_000;

/// Flags of a server that sends every request by itself: the same script, a connection of the pool each.
const PER_REQUEST: &[&str] = &["--batch-max-operations", "1", "--batches-in-flight", "64", "--pool-size", "64"];

const UNARY: &str = "unary";
const NO_OP: &str = "no-op";
const PER_REQUEST_ROW: &str = "per request";
const DIRECT: &str = "direct library";
const BATCHED: &str = "batched";
const BATCHED_DURABLE: &str = "batched, durable";
const SQL: &str = "sql";
const SALES: &str = "batched, reserve + commit";
const DIRECT_SALES: &str = "direct library, reserve + commit";
const SOLD_OUT: &str = "unary, sold out";
const UNARY_DURABLE: &str = "unary, durable";
const HALF: &str = "unary, half rate, open loop";
const HALF_NO_OP: &str = "no-op, the same rate, open loop";
const LONE: &str = "lone caller";
const LONE_PER_REQUEST: &str = "lone caller, per request";

const AMONG_SKUS: &str = "unary, among 1,000,000 SKUs";
const OVER_SKUS: &str = "unary, over 1,000,000 SKUs";
const AMONG_HOLDS: &str = "unary, among 1,000,000 holds";

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) no_op: PathBuf,
    pub(crate) direct: PathBuf,
}

/// The rows, all of their processes started; and what could not be.
pub(crate) async fn rows(programs: &Programs) -> Result<(Vec<Row>, Vec<String>)> {
    let server = |durability, flags| Server::start(&programs.server, durability, flags);
    let fast = Arc::new(server(Durability::Fast, &[]).await?);
    let durable = Arc::new(server(Durability::Durable, &[]).await?);
    let per_request = Arc::new(server(Durability::Fast, PER_REQUEST).await?);
    let no_op = Arc::new(Server::start_no_op(&programs.no_op).await?);
    let redis = Arc::new(Redis::start(Durability::Fast).await?);

    let unary = |server: &Arc<Server>, skus, is_full, callers| Way::Unary {
        server: Arc::clone(server),
        skus,
        is_full,
        callers,
    };
    let gathered = |server: &Arc<Server>, sells| Way::Gathered { server: Arc::clone(server), sells, callers: MANY };
    let mut rows = vec![
        // Its rate is that which the rows at half of it take.
        Row::new(UNARY, "fast", unary(&fast, 1, true, MANY)),
        Row::new(NO_OP, "-", unary(&no_op, 1, true, MANY)),
        Row::new(PER_REQUEST_ROW, "fast", unary(&per_request, 1, true, MANY)),
        Row::new(UNARY_DURABLE, "durable", unary(&durable, 1, true, MANY)),
        Row::new(SOLD_OUT, "fast", unary(&fast, 1, false, MANY)),
        Row::new("unary, over 1,000 SKUs", "fast", unary(&fast, SPREAD, true, MANY)),
        Row::new(BATCHED, "fast", gathered(&fast, false)),
        Row::new(BATCHED_DURABLE, "durable", gathered(&durable, false)),
        Row::new(SALES, "fast", gathered(&fast, true)),
        Row::new(HALF, "fast", Way::HalfRate { server: Arc::clone(&fast) }),
        Row::new(HALF_NO_OP, "-", Way::HalfRate { server: Arc::clone(&no_op) }),
        Row::new(LONE, "fast", unary(&fast, 1, true, 1)),
        Row::new(LONE_PER_REQUEST, "fast", unary(&per_request, 1, true, 1)),
    ];
    let mut absent = Vec::new();
    if programs.direct.is_file() {
        let direct = |sells| {
            let (program, redis) = (programs.direct.clone(), Arc::clone(&redis));
            Way::Direct(Direct { program, redis, callers: MANY, sells })
        };
        // Beside the rows that they are compared with.
        rows.insert(1, Row::new(DIRECT, "fast", direct(false)));
        rows.push(Row::new(DIRECT_SALES, "fast", direct(true)));
    } else {
        absent.push("the direct library: its program was not built, as bench/set-up has said".to_owned());
    }
    match RedisBenchmark::of(redis) {
        Some(benchmark) => rows.push(Row::new("redis-benchmark", "fast", Way::RedisBenchmark(benchmark))),
        None => absent.push("redis-benchmark: not installed".to_owned()),
    }
    match Postgres::start().await {
        Ok(postgres) => {
            let postgres = Arc::new(postgres);
            let sql = |skus| Way::Sql { postgres: Arc::clone(&postgres), skus, callers: MANY };
            rows.push(Row::new(SQL, "durable", sql(1)));
            rows.push(Row::new("sql, over 1,000 SKUs", "durable", sql(SPREAD)));
        }
        Err(error) => absent.push(format!("SQL: {error:#}")),
    }
    Ok((rows, absent))
}

/// The ratios, with what each must be and what is aimed at.
pub(crate) const RATIOS: &[Wanted] = &[
    more("unary_vs_noop", UNARY, NO_OP, 0.8, 0.95),
    less("server_cpu_vs_noop", UNARY, NO_OP, server_cpu, 1.3, 1.1),
    more("unary_vs_per_request", UNARY, PER_REQUEST_ROW, 2.0, 2.8),
    more("unary_vs_direct_library", UNARY, DIRECT, 0.7, 1.0),
    more("batched_vs_direct_library", BATCHED, DIRECT, 2.5, 6.0),
    more("batched_vs_sql", BATCHED_DURABLE, SQL, 30.0, 100.0),
    less("redis_cpu_vs_direct", SALES, DIRECT_SALES, store_cpu, 0.25, 0.12),
    less("soldout_vs_success_redis_cpu", SOLD_OUT, UNARY, store_cpu, 0.3, 0.1),
    more("durable_vs_fast", UNARY_DURABLE, UNARY, 0.8, 0.97),
    less("p99_vs_noop", HALF, HALF_NO_OP, p99, 3.0, 1.5),
    less("idle_latency_vs_per_request", LONE, LONE_PER_REQUEST, p50, 1.1, 0.9),
];

/// The rows of the full run: shops of a size, which stand through all rounds.
pub(crate) async fn rows_of_scale(server: &Path) -> Result<(Vec<Row>, Scale)> {
    let server = Arc::new(Server::start(server, Durability::Fast, &[]).await?);
    let many_skus = scale::shop_with_skus(&server, scale::MILLION).await?;
    let holds = scale::shop_with_holds(&server, "holds", scale::MILLION).await?;
    let one_of_many = Shop { skus: many_skus.skus[..1].into(), ..many_skus.clone() };
    let row = |name, shop| {
        Row::new(name, Durability::Fast.name(), Way::Standing { server: Arc::clone(&server), shop, callers: MANY })
    };
    let rows = vec![row(AMONG_SKUS, one_of_many), row(OVER_SKUS, many_skus), row(AMONG_HOLDS, holds)];
    Ok((rows, Scale { server }))
}

/// Their ratios.
pub(crate) const RATIOS_OF_SCALE: &[Wanted] = &[
    more("million_skus_vs_one", AMONG_SKUS, UNARY, 0.85, 1.0),
    more("million_holds_vs_none", AMONG_HOLDS, UNARY, 0.85, 1.0),
];

/// What of the full run is no row: figures that are taken by themselves, after the rows.
pub(crate) struct Scale {
    server: Arc<Server>,
}

impl Scale {
    /// `rows`: what the figures are compared with. `minutes`: how long memory is watched.
    pub(crate) async fn figures(self, rows: &[Row], rounds: usize, minutes: u64) -> Result<Vec<Ratio>> {
        let server = &self.server;
        let rate_of = |name: &str| {
            let row = rows.iter().find(|row| row.name == name);
            row.and_then(|row| row.spread(rate)).map(|spread| spread.median).with_context(|| format!("no row {name}"))
        };
        let (mut storms, mut bytes, mut drains) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            eprint!("\rround {round} of {rounds}: {:<40}", "a million holds fall due");
            let storm = scale::storm(server, round, rate_of(UNARY)? / 4.0).await?;
            storms.push(storm.during.p99 / storm.before.p99);
            eprintln!("\rall given back in {:.1} s {:<40}", storm.length.as_secs_f64(), "");
            eprint!("\rround {round} of {rounds}: {:<40}", "a million holds and events");
            let shop = scale::shop_with_holds(server, &format!("events-{round}"), scale::MILLION).await?;
            bytes.push(scale::bytes_per_hold(server, &shop).await?);
            drains.push(scale::drain(server, &shop).await? / rate_of(BATCHED)?);
        }
        eprint!("\r{:<60}", format!("{minutes} minutes of load"));
        let growth = scale::memory_growth(server, MANY, Duration::from_secs(60 * minutes)).await?;
        eprintln!("\r{:<60}\r", "");
        let figure = |name, figures: Vec<f64>, better, must, aim| {
            let spread = Spread::of(figures).context("there are rounds")?;
            anyhow::Ok(Ratio { name, spread, better, must, aim })
        };
        Ok(vec![
            figure("expiry_storm_p99", storms, Better::Less, 2.0, 1.2)?,
            figure("bytes_per_pending_hold", bytes, Better::Less, 160.0, 110.0)?,
            figure("event_drain_vs_mutations", drains, Better::More, 2.0, 5.0)?,
            figure("server_memory_growth", vec![growth], Better::Less, 1.1, 1.0)?,
        ])
    }
}

const fn more(name: &'static str, this: &'static str, that: &'static str, must: f64, aim: f64) -> Wanted {
    Wanted { name, this, that, figure: rate, better: Better::More, must, aim }
}

const fn less(
    name: &'static str,
    this: &'static str,
    that: &'static str,
    figure: fn(&Run) -> f64,
    must: f64,
    aim: f64,
) -> Wanted {
    Wanted { name, this, that, figure, better: Better::Less, must, aim }
}

/// Callers at once where batches are small.
const FEW: usize = 16;

/// The rows of two builds of the server, and what is compared.
pub(crate) async fn builds(after: &Path, before: &Path) -> Result<Vec<Row>> {
    let server = |binary| Server::start(binary, Durability::Fast, &[]);
    let (before, after) = (Arc::new(server(before).await?), Arc::new(server(after).await?));
    let row = |name, server: &Arc<Server>, is_full, callers| {
        Row::new(name, "fast", Way::Unary { server: Arc::clone(server), skus: 1, is_full, callers })
    };
    Ok(vec![
        row("many, before", &before, true, MANY),
        row("many, after", &after, true, MANY),
        row("few, before", &before, true, FEW),
        row("few, after", &after, true, FEW),
        row("lone, before", &before, true, 1),
        row("lone, after", &after, true, 1),
        row("sold out, before", &before, false, MANY),
        row("sold out, after", &after, false, MANY),
    ])
}

/// Nothing but what it was before is asked of a build.
pub(crate) const BUILD_RATIOS: &[Wanted] = &[
    more("many_rate", "many, after", "many, before", 1.0, 1.0),
    less("many_redis_cpu", "many, after", "many, before", store_cpu, 1.0, 1.0),
    less("many_server_cpu", "many, after", "many, before", server_cpu, 1.0, 1.0),
    more("few_rate", "few, after", "few, before", 1.0, 1.0),
    less("few_redis_cpu", "few, after", "few, before", store_cpu, 1.0, 1.0),
    more("lone_rate", "lone, after", "lone, before", 1.0, 1.0),
    less("lone_redis_cpu", "lone, after", "lone, before", store_cpu, 1.0, 1.0),
    more("sold_out_rate", "sold out, after", "sold out, before", 1.0, 1.0),
    less("sold_out_redis_cpu", "sold out, after", "sold out, before", store_cpu, 1.0, 1.0),
];
