//! Long mixtures of faults. A restart without loss is never reported as a loss, and no sequence is acknowledged twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool_redis::redis::{Cmd, Value};
use inventory_sentinel::Reason;
use sentinel_tests::{
    Redis, SentinelProcess, eventually, figure, model::execute::may_repeat, new_id, reason, until_fenced,
};
use tokio::{task::JoinSet, time::sleep};

use super::{retry_until_answered, sell, take_one};

/// Nothing acknowledged is lost, whatever happens to the process.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_this_is_a_loss() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--batches-in-flight 4 --partitions 4").start().await;
    let shop = server.shop("sale");
    let skus: Vec<String> = (0..8).map(|i| format!("sku-{i}")).collect();
    for sku in &skus {
        shop.supply(sku, 1_000_000).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for i in 0..32 {
        let (shop, sku, stop) = (shop.clone(), skus[i % 8].clone(), Arc::clone(&stop));
        buyers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                match take_one(&shop, &sku).await {
                    Err(status) if may_repeat(&status) => sleep(Duration::from_millis(5)).await,
                    answer => drop(answer.expect("nothing is lost")),
                }
            }
        });
    }
    for round in 0..4 {
        for command in ["BGREWRITEAOF", "SCRIPT FLUSH", "DEBUG RELOAD", "DEBUG LOADAOF", "DEBUG CHANGE-REPL-ID"] {
            sleep(Duration::from_millis(150)).await;
            let mut connection = redis.connection().await;
            let mut words = Cmd::new();
            command.split(' ').for_each(|word| _ = words.arg(word));
            if let Err(error) = words.query_async::<Value>(&mut connection).await {
                eprintln!("{command}: {error}");
            }
        }
        if round % 2 == 1 {
            redis.execute::<Value>("BGREWRITEAOF").await;
        }
        redis.restart().await;
        sleep(Duration::from_millis(300)).await;
    }
    stop.store(true, Ordering::Relaxed);
    buyers.join_all().await;
    assert_eq!(server.info().await.fenced_partitions, []);
    shop.audit().await;
}

/// A replica with all changes becomes the primary.
#[tokio::test]
async fn a_replica_that_has_everything_takes_over() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let (durable, listen) = ("--appendonly yes --appendfsync always", format!("--bind 127.0.0.1 --port {port}"));
    let mut redis = Redis::start_with(&[durable, &listen]).await;
    let follows = format!("--replicaof 127.0.0.1 {port}");
    let replica = Redis::start_with(&[durable, &follows]).await;
    let door = tempfile::tempdir().expect("a folder");
    let at = door.path().join("redis.sock");
    std::os::unix::fs::symlink(redis.socket(), &at).expect("a link");
    let server = SentinelProcess::launch()
        .flags(&format!("--redis-url unix://{} --batches-in-flight 4", at.display()))
        .start()
        .await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    sell(&shop, "ps5", 20).await;
    eventually("it follows", async || {
        let info: String = replica.execute("INFO replication").await;
        let own: String = redis.execute("INFO replication").await;
        let offset =
            |info: &str| info.lines().find_map(|line| line.strip_prefix("master_repl_offset:").map(str::to_owned));
        (info.contains("master_link_status:up") && offset(&info) == offset(&own)).then_some(())
    })
    .await;
    redis.kill9();
    replica.execute::<()>("REPLICAOF NO ONE").await;
    std::fs::remove_file(&at).expect("removed");
    std::os::unix::fs::symlink(replica.socket(), &at).expect("a link");
    retry_until_answered("an answer", async || take_one(&shop, "ps5").await).await.expect("nothing is lost");
    sell(&shop, "ps5", 5).await;
    assert_eq!(shop.counts("ps5").await.2, 25);
    assert_eq!(server.info().await.fenced_partitions, []);
}

/// Buyers call two servers while older copies come back. No sequence is acknowledged twice, except after a settlement.
#[tokio::test(flavor = "multi_thread")]
async fn no_sequence_is_acknowledged_twice() {
    let mut redis = Redis::start().await;
    let launch = || SentinelProcess::launch().on(&redis).flags("--batches-in-flight 4 --sweep-interval 20ms");
    let servers = [launch().start().await, launch().start().await];
    let shop = servers[0].shop("sale");
    shop.supply("ps5", 1_000_000).await;
    take_one(&servers[1].shop("sale"), "ps5").await.expect("held");
    for round in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut buyers = JoinSet::new();
        for i in 0..32 {
            let (shop, stop) = (servers[i % 2].shop("sale"), Arc::clone(&stop));
            buyers.spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match take_one(&shop, "ps5").await {
                        // A replay has the number of the last change before it.
                        Ok(taken) if taken.replayed => {}
                        Ok(taken) => acknowledged.push(taken.sequence),
                        Err(status) if may_repeat(&status) => sleep(Duration::from_millis(2)).await,
                        Err(status) if reason(&status) == Reason::StoreFenced => {
                            sleep(Duration::from_millis(2)).await;
                        }
                        Err(status) => panic!("{status:?}"),
                    }
                }
                acknowledged
            });
        }
        sleep(Duration::from_millis(300)).await;
        redis.stop();
        let copy = redis.files().copy();
        redis.cont();
        sleep(Duration::from_millis(300)).await;
        redis.restart_with_copy(&copy).await;
        sleep(Duration::from_millis(1_500)).await;
        stop.store(true, Ordering::Relaxed);
        let mut all: Vec<_> = buyers.join_all().await.into_iter().flatten().collect();
        all.sort_unstable();
        let twice: Vec<_> = all.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "round {round}: {twice:?}");
        until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
        shop.settle(0, &[figure("ps5", 900_000)], &new_id()).await.expect("settled");
        for server in &servers {
            retry_until_answered("an answer", async || take_one(&server.shop("sale"), "ps5").await)
                .await
                .expect("settled");
        }
    }
}
