//! The rows and ratios of the lab: every way beside ours, and what each ratio must be.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;

use crate::{
    figures::{p50, p99, rate, server_cpu, store_cpu},
    lab::{Better, Row, Wanted},
    peers::{direct::Direct, redis_benchmark::RedisBenchmark, sql::Postgres},
    process::{Redis, Server},
    ways::Way,
};

/// Callers at once where the machine is to be full.
const MANY: usize = 512;
/// SKUs where callers want different ones.
const SPREAD: usize = 1_000;

pub(crate) const FAST: &[&str] = &["--durability", "fast"];
const DURABLE: &[&str] = &["--durability", "durable"];
/// Flags of a server that sends every request by itself: the same script, a connection of the pool each.
const PER_REQUEST: &[&str] =
    &["--batch-max-operations", "1", "--batches-in-flight", "64", "--pool-size", "64", "--durability", "fast"];

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

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) no_op: PathBuf,
    pub(crate) direct: PathBuf,
}

/// The rows, all of their processes started; and what could not be.
pub(crate) async fn rows(programs: &Programs) -> Result<(Vec<Row>, Vec<String>)> {
    let server = |flags| Server::start(&programs.server, flags);
    let fast = Arc::new(server(FAST).await?);
    let durable = Arc::new(server(DURABLE).await?);
    let per_request = Arc::new(server(PER_REQUEST).await?);
    let no_op = Arc::new(Server::start_no_op(&programs.no_op).await?);
    let redis = Arc::new(Redis::start().await?);

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
        absent.push("the direct library: its program was not built, for want of Go".to_owned());
    }
    if runs("redis-benchmark") {
        rows.push(Row::new("redis-benchmark", "fast", Way::RedisBenchmark(RedisBenchmark { redis })));
    } else {
        absent.push("redis-benchmark: not installed".to_owned());
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

fn runs(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").output().is_ok()
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

const fn more(name: &'static str, this: &'static str, that: &'static str, must: f64, aim: f64) -> Wanted {
    Wanted { name, this, that, figure: rate, better: Better::More, must, aim }
}

const fn less(
    name: &'static str,
    this: &'static str,
    that: &'static str,
    figure: fn(&crate::figures::Run) -> f64,
    must: f64,
    aim: f64,
) -> Wanted {
    Wanted { name, this, that, figure, better: Better::Less, must, aim }
}

/// Callers at once where batches are small.
const FEW: usize = 16;

/// The rows of two builds of the server, and what is compared.
pub(crate) async fn builds(after: &Path, before: &Path) -> Result<Vec<Row>> {
    let (before, after) = (Arc::new(Server::start(before, FAST).await?), Arc::new(Server::start(after, FAST).await?));
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
