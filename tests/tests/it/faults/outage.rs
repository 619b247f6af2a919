//! An outage of the store, in the log and for callers. The log is bounded, whatever the number of namespaces, and calls
//! work as soon as the store is back.

use std::time::Duration;

use deadpool_redis::redis::cmd;
use inventory_sentinel::v1;
use sentinel_tests::{Redis, SentinelProcess, eventually};
use tokio::{task::JoinSet, time::timeout};

const NAMESPACES: usize = 40;
const PARTITIONS: usize = 4;
/// Lines of the log that an outage, the return of the store, or a loss may take.
const MOST_LINES: usize = 30;
const FAILURES: &str = "inventory_sentinel_sweep_failures_total";

/// A server with many idle namespaces. Each partition has changes that can be lost.
async fn with_namespaces(redis: &Redis) -> SentinelProcess {
    let flags = format!("--partitions {PARTITIONS} --store-timeout 1s --connect-timeout 1s");
    let server = SentinelProcess::launch().on(redis).flags(&flags).start().await;
    let mut made = JoinSet::new();
    for begin in 0..4 {
        let shops: Vec<_> = (begin..NAMESPACES).step_by(4).map(|i| server.shop(&format!("sale-{i}"))).collect();
        made.spawn(async move {
            for shop in shops {
                for sku in 0..4 * PARTITIONS {
                    shop.supply(&format!("sku-{sku}"), 1).await;
                }
            }
        });
    }
    made.join_all().await;
    server
}

fn lines(server: &SentinelProcess) -> usize {
    server.log().lines().count()
}

/// Most of the log since then, for the message of an assertion.
fn logged_since(server: &SentinelProcess, before: usize) -> String {
    server.log().lines().skip(before).take(2 * MOST_LINES).collect::<Vec<_>>().join("\n")
}

async fn assert_outage_is_bounded(server: &SentinelProcess, before: usize) {
    let logged = lines(server) - before;
    assert!(logged <= MOST_LINES, "{logged} lines: {}", logged_since(server, before));
    let text = logged_since(server, before);
    assert!(text.contains("the store does not answer"), "no line for the start: {text}");
}

async fn wait_for_failures(server: &SentinelProcess, more: usize) {
    let before = server.metric(FAILURES).await;
    eventually("sweeps fail", async || (server.metric(FAILURES).await >= before + more as f64).then_some(())).await;
}

async fn wait_until_back(server: &SentinelProcess, before: usize) {
    server.wait_until_ready().await;
    eventually("the log reports the end", async || {
        logged_since(server, before).contains("the store answers again").then_some(())
    })
    .await;
    // And all namespaces are swept again.
    eventually("no sweep fails", async || {
        let before = server.metric(FAILURES).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        (server.metric(FAILURES).await == before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_takes_few_lines_of_the_log_whatever_the_number_of_namespaces() {
    let mut redis = Redis::start().await;
    let server = with_namespaces(&redis).await;
    // Some of them have streams.
    let mut watches = Vec::new();
    for i in 0..8 {
        let request = v1::WatchRequest { namespace_id: format!("sale-{i}"), ..Default::default() };
        let events = server.shop("sale").events;
        let mut stream = events.clone().watch(request).await.expect("a watch").into_inner();
        stream.message().await.expect("an answer").expect("an answer");
        watches.push(stream);
    }

    // Redis is suspended: each attempt takes its whole time limit.
    let before = lines(&server);
    redis.stop();
    wait_for_failures(&server, NAMESPACES).await;
    assert_outage_is_bounded(&server, before).await;
    redis.cont();
    wait_until_back(&server, before).await;
    assert_outage_is_bounded(&server, before).await;

    // Redis is killed: each attempt fails at once.
    let before = lines(&server);
    redis.kill9();
    wait_for_failures(&server, 5 * NAMESPACES * PARTITIONS).await;
    assert_outage_is_bounded(&server, before).await;
    redis.restart().await;
    wait_until_back(&server, before).await;
    assert_outage_is_bounded(&server, before).await;

    // Failed calls do not add a line each.
    let before = lines(&server);
    redis.kill9();
    eventually("it is not ready", async || (!server.readyz().await.0).then_some(())).await;
    for i in 0..200 {
        let shop = server.shop(&format!("sale-{}", i % NAMESPACES));
        shop.try_stock("sku-0").await.expect_err("the store is away");
    }
    assert_outage_is_bounded(&server, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_everything_takes_few_lines_of_the_log() {
    let redis = Redis::start().await;
    let server = with_namespaces(&redis).await;
    let before = lines(&server);
    redis.execute::<()>("FLUSHALL").await;
    let fenced = "inventory_sentinel_fenced_partitions";
    let all = (NAMESPACES * PARTITIONS) as f64;
    eventually("all are fenced", async || (server.metric(fenced).await >= all).then_some(())).await;
    // The log stays quiet while each namespace is swept repeatedly.
    let sweeps = async || {
        let stats: String = redis.execute("INFO commandstats").await;
        let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default().to_owned();
        let calls = line.split(['=', ',']).nth(1).and_then(|calls| calls.parse::<usize>().ok());
        calls.unwrap_or_default()
    };
    let swept = sweeps().await;
    eventually("they are swept", async || (sweeps().await >= swept + 3 * NAMESPACES * PARTITIONS).then_some(())).await;
    let logged = lines(&server) - before;
    assert!(logged <= MOST_LINES, "{logged} lines: {}", logged_since(&server, before));
    let text = logged_since(&server, before);
    assert!(text.contains("the store has lost acknowledged changes"), "{text}");
}

/// The first read of each kind after a restart, on connections that the restart has cut.
#[tokio::test]
async fn the_first_call_after_a_restart_of_the_store_works() {
    let mut redis = Redis::start().await;
    // Only the health check calls the store without a caller, so nothing else notices the dead connections.
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    for call in ["watch", "watch stock", "list", "audit", "settings", "another namespace", "stock"] {
        for is_first in [true, false] {
            if !is_first {
                redis.restart().await;
                server.wait_until_ready().await;
            }
            let outcome = match call {
                "watch" => {
                    let request = v1::WatchRequest { namespace_id: "sale".into(), ..Default::default() };
                    shop.events.clone().watch(request).await.map(drop)
                }
                "watch stock" => {
                    let request = v1::WatchStockRequest { namespace_id: "sale".into(), ..Default::default() };
                    match shop.events.clone().watch_stock(request).await {
                        Ok(stream) => stream.into_inner().message().await.map(drop),
                        Err(status) => Err(status),
                    }
                }
                "list" => {
                    let request = v1::ListStockRequest { namespace_id: "sale".into(), ..Default::default() };
                    shop.admin.clone().list_stock(request).await.map(drop)
                }
                "audit" => shop.try_audit().await.map(drop),
                "settings" => {
                    let request = v1::GetNamespaceRequest { namespace_id: "sale".into() };
                    shop.admin.clone().get_namespace(request).await.map(drop)
                }
                "another namespace" => match server.shop("ghost").try_audit().await {
                    Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
                    other => other.map(drop),
                },
                _ => shop.try_stock("ps5").await.map(drop),
            };
            assert!(outcome.is_ok(), "{call}, the first: {is_first}: {outcome:?}");
        }
    }
    // Connections that Redis itself closed, while it keeps running.
    let request = v1::ListStockRequest { namespace_id: "sale".into(), ..Default::default() };
    redis.query::<i64>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes")).await;
    let listed = timeout(Duration::from_secs(10), shop.admin.clone().list_stock(request)).await;
    listed.expect("an answer in time").expect("a list");
    redis.query::<i64>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes")).await;
    let request = v1::WatchRequest { namespace_id: "sale".into(), ..Default::default() };
    shop.events.clone().watch(request).await.expect("a watch");
}
