//! Consumers of a store that lost changes. No change is skipped silently, and a resume token is evidence of a loss.

use std::{collections::BTreeMap, time::Duration};

use inventory_sentinel::{Reason, v1::EventKind};
use sentinel_tests::{
    Redis, SentinelProcess, StoreCopy, TestClient, assert_fenced, assert_refused, eventually, figure, new_id, reason,
    until_fenced,
};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{reported_fence, sell, take_one, token, two_lost_sales};
use crate::streams::{
    events::{Feed, assert_gapless_but, ended, next},
    stock::{available, watch_protected, watch_stock},
};

/// 100 units and 70 of them sold; the copy was made at 30.
struct Consumed {
    redis: Redis,
    server: SentinelProcess,
    shop: TestClient,
    copy: StoreCopy,
    /// Behind change 21, which the copy has; and behind 141, which it lacks.
    kept: String,
    lost: String,
}

impl Consumed {
    async fn start() -> Consumed {
        let redis = Redis::start().await;
        let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
        let shop = server.shop("sale");
        shop.supply("ps5", 100).await;
        sell(&shop, "ps5", 10).await;
        let kept = token(&shop, 21).await;
        sell(&shop, "ps5", 20).await;
        let copy = redis.files().copy();
        sell(&shop, "ps5", 40).await;
        let lost = token(&shop, 141).await;
        Consumed { redis, server, shop, copy, kept, lost }
    }

    async fn settle(&self) {
        self.shop.settle(0, &[figure("ps5", 30)], &new_id()).await.expect("settled");
    }
}

/// Returns the refusal of this token, at once or with the first response.
async fn resumed(shop: &TestClient, token: &str) -> Result<(), Status> {
    Feed::open(shop, token, false).await?.next().await.map(|_| ())
}

/// Checks that a stream ended or was refused because the history of partition 0 is another one.
fn assert_compacted<T: std::fmt::Debug>(result: Result<T, Status>) {
    let status = result.expect_err("EVENTS_COMPACTED");
    assert_refused(Err::<(), _>(status.clone()), Reason::EventsCompacted, None);
    let metadata = status.get_details_error_info().expect("an ErrorInfo").metadata;
    assert_eq!(metadata.get("partitions").map(String::as_str), Some("0"), "{metadata:?}");
}

/// The history regrew past the token of a consumer who was away. Its stream went on at 142, and 80 changes of the new
/// history were never delivered.
#[tokio::test]
async fn a_token_of_lost_changes_is_refused_before_and_after_the_new_history_passes_it() {
    let mut all = Consumed::start().await;
    all.redis.restart_with_copy(&all.copy).await;
    until_fenced("Reserve", async || take_one(&all.shop, "ps5").await).await;
    assert_compacted(resumed(&all.shop, &all.lost).await);
    all.settle().await;
    assert_compacted(resumed(&all.shop, &all.lost).await);
    all.shop.adjust_stock("ps5", 100, &new_id()).await.expect("more");
    sell(&all.shop, "ps5", 60).await;
    let sequence = all.shop.try_stock("ps5").await.expect("the stock").sequence;
    assert!(sequence > 141, "{sequence}");
    assert_compacted(resumed(&all.shop, &all.lost).await);

    // A settled loss is settled: the token fences nothing.
    sell(&all.shop, "ps5", 1).await;
    assert_eq!(all.server.info().await.fenced_partitions, []);
    // The consumer compares with the lists and begins at the oldest change, or at a new one.
    let mut feed = Feed::open(&all.shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    assert_gapless_but(&feed.events, 1, (63, 142));
    assert!(resumed(&all.shop, &feed.token).await.is_ok());
}

/// A slow consumer has read only changes that the copy has too. None of these are lost, so the consumer must lose
/// nothing either.
#[tokio::test]
async fn a_token_of_the_kept_part_goes_on_without_a_gap() {
    let mut all = Consumed::start().await;
    all.redis.restart_with_copy(&all.copy).await;
    until_fenced("Reserve", async || take_one(&all.shop, "ps5").await).await;
    let mut feed = Feed::open(&all.shop, &all.kept, false).await.expect("a stream");
    feed.catch_up().await;
    assert!(feed.events.len() >= 40, "{:?}", feed.events);
    all.settle().await;
    sell(&all.shop, "ps5", 2).await;
    eventually("the last sale is delivered", async || {
        feed.next().await.expect("the stream continues");
        let sold = feed.events.iter().filter(|event| event.kind() == EventKind::Committed).count();
        (sold == 20 + 2).then_some(())
    })
    .await;
    assert_gapless_but(&feed.events, 22, (63, 142));
    let terms: std::collections::BTreeSet<_> = feed.events.iter().map(|event| &event.term).collect();
    assert_eq!(terms.len(), 2, "one term before the loss and one after it");
}

/// An open stream has delivered changes that no longer exist. It used to continue as if nothing had happened.
#[tokio::test]
async fn streams_that_are_open_notice_the_loss() {
    let mut all = Consumed::start().await;
    let mut feed = Feed::open(&all.shop, &all.lost, false).await.expect("a stream");
    feed.catch_up().await;
    let mut stock = watch_stock(&all.shop, &["ps5"], Duration::from_millis(10), "").await;
    let snapshot = next(&mut stock).await.expect("a snapshot");
    assert!(snapshot.is_snapshot && available(&snapshot)["ps5"] == Some(30));
    let token = next(&mut stock).await.expect("its end").resume_token;
    let mut protected = watch_protected(&all.shop, "").await;
    assert!(next(&mut protected).await.expect("a snapshot").is_snapshot);
    all.redis.restart_with_copy(&all.copy).await;

    assert_compacted(Err::<(), _>(ended(&mut feed.stream).await));
    let status = ended(&mut stock).await;
    assert_eq!(reason(&status), Reason::StoreUnavailable, "{status:?}");
    let status = ended(&mut protected).await;
    assert_eq!(reason(&status), Reason::StoreUnavailable, "{status:?}");
    reported_fence(&all.server, 0).await;

    // The counters of the lost changes are no longer those of the table.
    let mut stock = watch_stock(&all.shop, &["ps5"], Duration::from_millis(10), &token).await;
    let snapshot = next(&mut stock).await.expect("a snapshot");
    assert!(snapshot.is_snapshot, "{snapshot:?}");
    assert_eq!(available(&snapshot), BTreeMap::from([("ps5", Some(70))]));
    assert!(!next(&mut stock).await.expect("its end").is_snapshot);
    all.settle().await;
    eventually("the stream shows the figure of the settlement", async || {
        let response = next(&mut stock).await.expect("a response");
        (available(&response).get("ps5") == Some(&Some(30))).then_some(())
    })
    .await;
}

/// The same when the store comes back empty.
#[tokio::test]
async fn streams_that_are_open_notice_an_emptied_store() {
    let mut all = Consumed::start().await;
    let mut feed = Feed::open(&all.shop, &all.lost, false).await.expect("a stream");
    feed.catch_up().await;
    let mut stock = watch_stock(&all.shop, &[], Duration::from_millis(10), "").await;
    next(&mut stock).await.expect("a snapshot");
    all.redis.restart_empty().await;
    assert_compacted(Err::<(), _>(ended(&mut feed.stream).await));
    let status = ended(&mut stock).await;
    assert_eq!(reason(&status), Reason::StoreUnavailable, "{status:?}");
    until_fenced("Reserve", async || take_one(&all.shop, "ps5").await).await;
    for token in [&all.kept, &all.lost] {
        assert_compacted(resumed(&all.shop, token).await);
    }
    all.settle().await;
    for token in [&all.kept, &all.lost] {
        assert_compacted(resumed(&all.shop, token).await);
    }
    sell(&all.shop, "ps5", 30).await;
    let mut feed = Feed::open(&all.shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    assert!(feed.events.iter().any(|event| event.kind() == EventKind::PartitionSettled), "{:?}", feed.events);
}

/// A forged token could close every sale. A token that no server issued is refused and proves nothing.
#[tokio::test]
async fn a_token_that_no_server_made_is_refused_and_fences_nothing() {
    let all = Consumed::start().await;
    all.shop.adjust_stock("ps5", 100, &new_id()).await.expect("more");
    for i in 0..all.lost.len() {
        let mut forged = all.lost.clone().into_bytes();
        forged[i] = if forged[i] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).expect("a token");
        assert_refused(resumed(&all.shop, &forged).await, Reason::InvalidResumeToken, Some("resume_token"));
    }
    for malformed in [&all.lost[1..], &all.lost[..all.lost.len() - 2], &format!("{}AA", all.lost), "AQ"] {
        assert_refused(resumed(&all.shop, malformed).await, Reason::InvalidResumeToken, Some("resume_token"));
    }
    sell(&all.shop, "ps5", 1).await;
    assert_eq!(all.server.info().await.fenced_partitions, []);
    assert!(resumed(&all.shop, &all.lost).await.is_ok(), "the true one is good");
}

/// All servers are new. The token of a consumer alone reveals the loss.
#[tokio::test]
async fn a_token_alone_fences_a_store_that_no_server_remembers() {
    let Consumed { mut redis, mut server, copy, kept, lost, .. } = Consumed::start().await;
    server.kill9();
    redis.restart_with_copy(&copy).await;
    let fresh = SentinelProcess::on(&redis).await;
    let shop = fresh.shop("sale");
    // Not in doubt, and so no reason to close the sale.
    assert!(resumed(&shop, &kept).await.is_ok());
    sell(&shop, "ps5", 1).await;
    assert_compacted(resumed(&shop, &lost).await);
    let fence = assert_fenced(take_one(&shop, "ps5").await);
    assert_eq!((fence.seen.sequence, fence.kept_sequence), (141, 61));
    assert_fenced(shop.try_is_protected("ps5").await);
    assert_eq!(fresh.info().await.fenced_partitions.len(), 1);

    shop.settle(0, &[figure("ps5", 29)], &new_id()).await.expect("settled");
    assert_compacted(resumed(&shop, &lost).await);
    sell(&shop, "ps5", 29).await;
    let later = SentinelProcess::on(&redis).await;
    assert_compacted(resumed(&later.shop("sale"), &lost).await);
    assert!(!take_one(&later.shop("sale"), "ps5").await.expect("it is settled").replayed);
    assert_eq!(later.info().await.fenced_partitions, []);
}

/// A settlement accepts the losses that were recorded when it was made. A consumer has seen a later change that is lost
/// too.
#[tokio::test]
async fn a_token_above_what_is_forgiven_fences_once_more() {
    let (redis, early, late) = two_lost_sales().await;
    let fresh = SentinelProcess::on(&redis).await;
    let shop = fresh.shop("sale");
    assert_compacted(resumed(&shop, &early).await);
    assert_eq!(assert_fenced(take_one(&shop, "ps5").await).seen.sequence, 3);
    shop.settle(0, &[figure("ps5", 99)], &new_id()).await.expect("settled");
    sell(&shop, "ps5", 1).await;
    assert_compacted(resumed(&shop, &early).await);
    sell(&shop, "ps5", 1).await;
    assert_compacted(resumed(&shop, &late).await);
    assert_eq!(assert_fenced(take_one(&shop, "ps5").await).seen.sequence, 5);
    shop.settle(0, &[figure("ps5", 96)], &new_id()).await.expect("settled");
    assert_compacted(resumed(&shop, &late).await);
    sell(&shop, "ps5", 1).await;
}

/// The token of one namespace proves nothing about another.
#[tokio::test]
async fn a_token_of_another_namespace_fences_nothing() {
    let all = Consumed::start().await;
    let other = all.server.shop("other");
    other.supply("ps5", 10).await;
    assert_refused(resumed(&other, &all.lost).await, Reason::EventsCompacted, None);
    sell(&other, "ps5", 1).await;
    assert_eq!(all.server.info().await.fenced_partitions, []);
}
