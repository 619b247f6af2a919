//! The sweeper: a broken namespace or a blocked partition delays no other.

use std::time::Duration;

use deadpool_redis::redis::Cmd;
use sentinel_tests::{HostedSentinel, Redis, SentinelProcess, eventually, partition_keys};
use tokio::time::timeout;

/// The number of log lines with this namespace and this message.
fn logged(server: &SentinelProcess, namespace: &str, message: &str) -> usize {
    let lines = server.log_lines();
    lines.iter().filter(|line| line["namespace"] == namespace && line["message"] == message).count()
}

#[tokio::test]
async fn a_namespace_that_can_not_be_opened_is_reported_and_all_others_are_swept() {
    const SHOPS: usize = 30;
    let redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let names: Vec<String> = (1..SHOPS).map(|i| format!("shop-{i}")).chain(["bad".to_owned()]).collect();
    for name in &names {
        server.shop(name).supply("ps5", 1).await;
    }
    for name in &names {
        server.shop(name).hold_for("ps5", 1, Duration::from_secs(2)).await;
    }
    server.kill9();
    redis.query::<()>(&Cmd::set(partition_keys("bad", 0).meta(), "boo")).await;
    server.restart().await;
    eventually("all that can be swept are swept", async || {
        (server.metric("inventory_sentinel_expired_total").await as usize == SHOPS - 1).then_some(())
    })
    .await;
    const UNOPENED: &str = "a namespace can't be opened, so it is not swept";
    eventually("the bad one is counted each time", async || {
        (server.metric("inventory_sentinel_sweep_failures_total").await >= 2.0).then_some(())
    })
    .await;
    assert_eq!(logged(&server, "bad", UNOPENED), 1);
    assert!(names[..SHOPS - 1].iter().all(|name| logged(&server, name, UNOPENED) == 0));

    redis.query::<()>(&Cmd::del(partition_keys("bad", 0).meta())).await;
    eventually("its repair is reported", async || {
        (logged(&server, "bad", "a namespace can be opened again, or is gone") == 1).then_some(())
    })
    .await;
}

/// A namespace that breaks while it is open.
#[tokio::test]
async fn a_partition_that_breaks_is_reported_once_and_all_others_are_swept() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let (bad, good) = (server.shop("bad"), server.shop("good"));
    for shop in [&bad, &good] {
        shop.supply("ps5", 2).await;
    }
    redis.query::<()>(&Cmd::set(partition_keys("bad", 0).meta(), "boo")).await;
    eventually("the bad one is counted", async || {
        (server.metric("inventory_sentinel_sweep_failures_total").await >= 3.0).then_some(())
    })
    .await;
    assert_eq!(logged(&server, "bad", "a partition can't be swept"), 1);
    good.hold_for("ps5", 1, Duration::from_millis(50)).await;
    eventually("the good one is swept", async || {
        (server.metric("inventory_sentinel_expired_total").await as usize == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_stuck_holds_no_other_up() {
    let redis = Redis::start().await;
    let server = HostedSentinel::on(&redis, "").await;
    // The oldest lane is the one that blocks.
    let (stuck, free) = (server.shop("stuck"), server.shop("free"));
    for shop in [&stuck, &free] {
        shop.supply("ps5", 2).await;
    }
    server.stall("lane_worker");
    let call = stuck.hold("ps5", 1);
    assert!(timeout(Duration::from_millis(500), call).await.is_err(), "its worker is stuck");
    // Longer than the sweeper needs to reach an idle partition.
    eventually("the sweeper has come to the stuck one", async || {
        (server.metric("inventory_sentinel_lane_queue_operations").await? >= 2.0).then_some(())
    })
    .await;
    free.hold_for("ps5", 1, Duration::from_millis(50)).await;
    eventually("the other one is swept", async || {
        (server.metric("inventory_sentinel_expired_total").await? == 1.0).then_some(())
    })
    .await;
}
