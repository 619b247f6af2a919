//! The mode `fast`, which promises less: a loss closes no partition, but is reported.

use inventory_sentinel::{Reason, v1::EventKind};
use sentinel_tests::{
    Redis, SentinelProcess, assert_fenced, assert_point, assert_refused, eventually, figure,
    model::execute::may_repeat, new_id, until_fenced,
};

use super::{reported_fence, take_one};
use crate::streams::events::{Feed, assert_gapless, assert_gapless_but, ended};

const LOSSES: &str = "inventory_sentinel_history_losses_total";

/// A snapshot, 20 changes, a crash, 60 changes. An open stream used to deliver 40 of the 60 without any report.
#[tokio::test]
async fn a_fast_store_that_lost_changes_sells_on_and_says_so() {
    let mut redis = Redis::start_in_memory().await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    for _ in 0..10 {
        shop.hold("ps5", 1).await;
    }
    redis.execute::<()>("SAVE").await;
    let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
    for _ in 0..20 {
        shop.hold("ps5", 1).await;
    }
    while feed.events.len() < 31 {
        feed.next().await.expect("a response");
    }
    let term = feed.events[30].term.clone();
    assert_eq!(server.metric(LOSSES).await, 0.0);
    redis.restart().await;

    let mut held = 0;
    while held < 60 {
        match take_one(&shop, "ps5").await {
            Err(status) if may_repeat(&status) => {}
            answer => {
                answer.expect("a loss closes nothing");
                held += 1;
            }
        }
    }
    assert_eq!(shop.counts("ps5").await, (930, 70, 0));
    assert!(shop.is_protected("ps5").await);
    let status = ended(&mut feed.stream).await;
    assert_refused(Err::<(), _>(status), Reason::EventsCompacted, None);
    eventually("the loss is counted", async || (server.metric(LOSSES).await >= 1.0).then_some(())).await;
    let logged = |line: &serde_json::Value| {
        matches!(line["level"].as_str(), Some("WARN" | "ERROR")) && line["namespace"] == "sale"
    };
    assert!(server.log_lines().iter().any(logged), "{}", server.log());
    assert_eq!(server.info().await.fenced_partitions, []);
    assert_refused(shop.settle(0, &[figure("ps5", 1)], &new_id()).await, Reason::NotFenced, None);

    let mut whole = Feed::open(&shop, "", true).await.expect("a stream");
    whole.catch_up().await;
    assert_gapless_but(&whole.events, 1, (11, 32));
    let marks: Vec<_> = whole.events.iter().filter(|event| event.kind() == EventKind::HistoryLost).collect();
    assert_eq!(marks.len(), 1, "{marks:?}");
    let lost = marks[0].lost.clone().expect("what was lost");
    assert_point(&lost);
    assert_eq!((lost.epoch, &lost.term, lost.sequence), (marks[0].epoch, &term, 31));
    assert_eq!(marks[0].kept_sequence, 11);
    assert!(marks[0].sequence > 11 && marks[0].term != term, "{:?}", marks[0]);
    assert_eq!(whole.events.len(), 11 + 60 + 1, "all changes and the mark");
    // A token from before the loss is refused here too.
    let refused = match Feed::open(&shop, &feed.token, false).await {
        Ok(mut feed) => feed.next().await.map(|_| ()),
        Err(status) => Err(status),
    };
    assert_refused(refused, Reason::EventsCompacted, None);
    shop.audit().await;
}

/// The same with another cause: the file of a store that does not sync is restored.
#[tokio::test]
async fn a_fast_store_that_comes_back_older_sells_on() {
    let mut redis = Redis::start_with(&["--appendonly yes", "--appendfsync no"]).await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let copy = redis.files().copy();
    shop.hold("ps5", 1).await;
    for losses in 1..=2 {
        redis.restart_with_copy(&copy).await;
        let held = eventually("the store can be used", async || match take_one(&shop, "ps5").await {
            Err(status) if may_repeat(&status) => None,
            answer => Some(answer.expect("a loss closes nothing")),
        })
        .await;
        assert!(held.sequence > 1);
        eventually("the loss is counted", async || (server.metric(LOSSES).await >= f64::from(losses)).then_some(()))
            .await;
    }
    assert_eq!(shop.counts("ps5").await, (99, 1, 0));
    shop.audit().await;
}

/// A sale whose Redis was emptied sells what it is given afterwards. Missing SKUs may be lost: the answer "not
/// protected" would send all buyers to the ordinary path.
#[tokio::test]
async fn a_fast_store_that_was_emptied_sells_on_and_never_says_not_protected() {
    let redis = Redis::start_in_memory().await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let lost = shop.hold("ps5", 1).await.reservation_id;
    redis.execute::<()>("FLUSHALL").await;
    let fence = until_fenced("IsProtected", async || shop.try_is_protected("ps5").await).await;
    assert_eq!((fence.seen.sequence, fence.kept_sequence), (2, 0));
    assert_fenced(take_one(&shop, "ps5").await);
    assert_fenced(shop.commit(&lost).await);
    assert_eq!(reported_fence(&server, 0).await.kept_sequence, 0);

    shop.supply("vita", 5).await;
    take_one(&shop, "vita").await.expect("what is there is sold");
    assert!(shop.is_protected("vita").await);
    assert_fenced(shop.try_stock("ps5").await);
    let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    assert_eq!(feed.events[0].kind(), EventKind::HistoryLost);

    shop.settle(0, &[figure("vita", 4)], &new_id()).await.expect("settled");
    assert_refused(shop.try_stock("ps5").await, Reason::SkuNotFound, None);
    assert_refused(shop.commit(&lost).await, Reason::ReservationNotFound, None);
    assert_eq!(shop.counts("vita").await, (4, 1, 0));
    assert!(!shop.is_protected("ps5").await);
    eventually("the server reports no fence", async || server.info().await.fenced_partitions.is_empty().then_some(()))
        .await;
    shop.audit().await;
}

/// An ordinary restart is no loss in this mode either.
#[tokio::test]
async fn a_fast_store_that_lost_nothing_counts_no_loss() {
    let mut redis = Redis::start_with(&["--appendonly yes", "--appendfsync no"]).await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
    for _ in 0..3 {
        redis.restart().await;
        eventually("the store can be used", async || take_one(&shop, "ps5").await.ok()).await;
    }
    while feed.events.len() < 4 {
        feed.next().await.expect("the stream continues");
    }
    assert_gapless(&feed.events, 1);
    assert!(feed.events.iter().all(|event| event.kind() != EventKind::HistoryLost));
    assert_eq!(server.metric(LOSSES).await, 0.0);
}
