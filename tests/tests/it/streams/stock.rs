//! The streams of stock and of protection: a snapshot first, then the changes.

use std::{collections::BTreeMap, time::Duration};

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{Redis, SentinelProcess, TestClient, assert_refused, eventually};
use tokio::task::JoinSet;
use tonic::Streaming;

use super::events::next;

pub(crate) async fn watch_stock(
    shop: &TestClient,
    skus: &[&str],
    interval: Duration,
    token: &str,
) -> Streaming<v1::WatchStockResponse> {
    let request = v1::WatchStockRequest {
        namespace_id: shop.namespace.clone(),
        skus: skus.iter().map(|&sku| sku.into()).collect(),
        min_interval: Some(interval.try_into().expect("an interval")),
        resume_token: token.into(),
    };
    shop.events.clone().watch_stock(request).await.expect("a stream").into_inner()
}

/// The next response with changes.
async fn next_changes(stream: &mut Streaming<v1::WatchStockResponse>) -> v1::WatchStockResponse {
    loop {
        let response = next(stream).await.expect("a response");
        if !response.skus.is_empty() {
            return response;
        }
    }
}

pub(crate) fn available(response: &v1::WatchStockResponse) -> BTreeMap<&str, Option<i64>> {
    response.skus.iter().map(|sku| (sku.sku.as_str(), sku.stock.as_ref().map(|stock| stock.available))).collect()
}

#[tokio::test]
async fn stock_is_told_as_it_is_and_then_as_it_changes() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("vita", 20).await;
    let interval = Duration::from_millis(10);
    let mut all = watch_stock(&shop, &[], interval, "").await;
    let mut some = watch_stock(&shop, &["ps5", "none", "ps5"], interval, "").await;
    for (stream, expected) in
        [(&mut all, [("ps5", Some(10)), ("vita", Some(20))]), (&mut some, [("none", None), ("ps5", Some(10))])]
    {
        let snapshot = next(stream).await.expect("a snapshot");
        assert!(snapshot.is_snapshot);
        assert_eq!(available(&snapshot), BTreeMap::from(expected));
        let complete = next(stream).await.expect("its end");
        assert!(!complete.is_snapshot && complete.skus.is_empty());
    }
    shop.hold("ps5", 3).await;
    shop.hold("vita", 1).await;
    let mut seen = BTreeMap::new();
    let token = loop {
        let response = next(&mut all).await.expect("a response");
        seen.extend(available(&response).into_iter().map(|(sku, units)| (sku.to_owned(), units)));
        if seen == BTreeMap::from([("ps5".into(), Some(7)), ("vita".into(), Some(19))]) {
            break response.resume_token;
        }
    };
    let changed = next_changes(&mut some).await;
    assert_eq!(available(&changed), BTreeMap::from([("ps5", Some(7))]), "only the requested SKUs");

    // A response without changes is a sign of life.
    let idle = next(&mut all).await.expect("a sign of life");
    assert!(idle.skus.is_empty() && !idle.is_snapshot && idle.resume_token == token);

    shop.hold("ps5", 1).await;
    let mut resumed = watch_stock(&shop, &[], interval, &token).await;
    // The server may not have read the hold when the stream begins.
    let since = next_changes(&mut resumed).await;
    assert!(!since.is_snapshot);
    assert_eq!(available(&since), BTreeMap::from([("ps5", Some(6))]));
    let mut elsewhere = watch_stock(&server.shop("sale"), &["vita"], interval, "").await;
    assert!(next(&mut elsewhere).await.expect("a snapshot").is_snapshot);
}

#[tokio::test]
async fn changes_of_stock_come_no_oftener_than_asked() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000_000).await;
    let interval = Duration::from_millis(400);
    let mut stream = watch_stock(&shop, &["ps5"], interval, "").await;
    let began = std::time::Instant::now();
    let buyer = {
        let shop = shop.clone();
        tokio::spawn(async move {
            while began.elapsed() < Duration::from_secs(3) {
                shop.hold("ps5", 1).await;
            }
        })
    };
    let (mut responses, mut left) = (0, 0);
    while !buyer.is_finished() {
        let response = next(&mut stream).await.expect("a response");
        responses += 1;
        left = response.skus.first().map_or(left, |sku| sku.stock.as_ref().expect("stock").available);
    }
    buyer.await.expect("a buyer");
    let most = began.elapsed().as_millis() / interval.as_millis() + 3;
    assert!((3..=most).contains(&responses), "{responses} of at most {most}");
    let now = shop.counts("ps5").await.0;
    while left != now {
        let response = next(&mut stream).await.expect("the last");
        left = response.skus.first().map_or(left, |sku| sku.stock.as_ref().expect("stock").available);
    }

    let invalid = async |skus: Vec<String>, nanos| {
        let min_interval = Some(prost_types::Duration { seconds: 0, nanos });
        let request = v1::WatchStockRequest { namespace_id: "sale".into(), skus, min_interval, ..Default::default() };
        shop.events.clone().watch_stock(request).await.map(|_| ())
    };
    let many = (0..1_001).map(|i| format!("s{i}")).collect();
    assert_refused(invalid(vec![], 9_999_999).await, Reason::InvalidInterval, Some("min_interval"));
    assert_refused(invalid(vec![], -1).await, Reason::InvalidInterval, Some("min_interval"));
    assert_refused(invalid(vec!["a".into(), String::new()], 10_000_000).await, Reason::EmptySku, Some("skus[1]"));
    assert_refused(invalid(vec!["a\nb".into()], 10_000_000).await, Reason::InvalidSku, Some("skus[0]"));
    assert_refused(invalid(many, 10_000_000).await, Reason::TooManyOperations, Some("skus"));
}

pub(crate) async fn watch_protected(shop: &TestClient, token: &str) -> Streaming<v1::WatchProtectedResponse> {
    let request = v1::WatchProtectedRequest { namespace_id: shop.namespace.clone(), resume_token: token.into() };
    shop.checkout.clone().watch_protected(request).await.expect("a stream").into_inner()
}

/// The next response with changes.
async fn next_protection(stream: &mut Streaming<v1::WatchProtectedResponse>) -> v1::WatchProtectedResponse {
    loop {
        let response = next(stream).await.expect("a response");
        if !response.added_skus.is_empty() || !response.removed_skus.is_empty() {
            return response;
        }
    }
}

#[tokio::test]
async fn protection_is_told_whole_then_as_it_changes_and_over_a_restart() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    for sku in ["a", "b", "c"] {
        shop.supply(sku, 10).await;
    }
    shop.protect("b", false).await.expect("not protected");
    let mut stream = watch_protected(&shop, "").await;
    let snapshot = next(&mut stream).await.expect("a snapshot");
    assert_eq!(
        (snapshot.added_skus, snapshot.removed_skus, snapshot.is_snapshot),
        (vec!["a".into(), "c".into()], vec![], true)
    );
    let complete = next(&mut stream).await.expect("its end");
    assert!(complete.added_skus.is_empty() && !complete.is_snapshot);
    shop.hold("a", 1).await;
    shop.protect("b", true).await.expect("protected");
    let changes = next_protection(&mut stream).await;
    assert_eq!((changes.added_skus, changes.removed_skus, changes.is_snapshot), (vec!["b".into()], vec![], false));
    let token = changes.resume_token;

    shop.protect("a", false).await.expect("not protected");
    server.restart().await;
    let shop = server.shop("sale");
    shop.supply("d", 1).await;
    let mut stream = watch_protected(&shop, &token).await;
    let (mut set, mut whole) = (std::collections::BTreeSet::from(["a", "b", "c"].map(String::from)), false);
    // The token is not of this run of the server, which sends a snapshot.
    while set != ["b", "c", "d"].map(String::from).into() {
        let changes = next(&mut stream).await.expect("a response");
        if changes.is_snapshot && !whole {
            (set, whole) = (Default::default(), true);
        }
        set.extend(changes.added_skus);
        set.retain(|sku| !changes.removed_skus.contains(sku));
    }
    assert!(whole);
    shop.protect("d", false).await.expect("not protected");
    let changes = next_protection(&mut stream).await;
    assert_eq!((changes.added_skus, changes.removed_skus), (vec![], vec!["d".into()]));
    let mut resumed = watch_protected(&shop, &changes.resume_token).await;
    shop.protect("d", true).await.expect("protected");
    let changes = next_protection(&mut resumed).await;
    assert_eq!((changes.added_skus, changes.is_snapshot), (vec!["d".into()], false), "what changed since, and no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_watchers_are_one_reader() {
    let redis = Redis::start_in_memory().await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let mut opening = JoinSet::new();
    let mut apart = shop.clone();
    for i in 0..1_000 {
        // A connection may have 256 calls.
        if i % 200 == 0 {
            apart = server.shop_apart("sale").await;
        }
        let shop = apart.clone();
        opening.spawn(async move {
            let skus: &[&str] = if i % 2 == 0 { &["ps5"] } else { &[] };
            let mut stream = watch_stock(&shop, skus, Duration::from_millis(50), "").await;
            assert_eq!(available(&next(&mut stream).await.expect("a snapshot"))["ps5"], Some(10));
            stream
        });
    }
    let streams = opening.join_all().await;
    assert_eq!(server.metric("inventory_sentinel_watches").await, 1_000.0);
    eventually("one client waits for next_changes", async || {
        let clients: String = redis.execute("CLIENT LIST").await;
        let readers = clients.lines().filter(|client| client.contains("cmd=xread")).count();
        assert!(readers <= 1, "{clients}");
        (readers == 1).then_some(())
    })
    .await;
    shop.hold("ps5", 1).await;
    let mut hearing = JoinSet::new();
    for mut stream in streams {
        hearing.spawn(async move { while next(&mut stream).await.expect("a response").skus.is_empty() {} });
    }
    hearing.join_all().await;
    eventually("nobody watches any more", async || {
        let none_left = server.metric("inventory_sentinel_watches").await == 0.0;
        let clients: String = redis.execute("CLIENT LIST").await;
        (none_left && !clients.contains("cmd=xread")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_namespace_with_too_many_skus_is_not_kept_for_who_watches_numbers() {
    let server = SentinelProcess::launch().flags("--max-watched-skus 3").start().await;
    let (small, large) = (server.shop("small"), server.shop("large"));
    for i in 0..4 {
        large.supply(&format!("sku-{i}"), 1).await;
    }
    small.supply("ps5", 1).await;
    let request = v1::WatchStockRequest { namespace_id: "large".into(), ..Default::default() };
    assert_refused(large.events.clone().watch_stock(request).await, Reason::TooManyWatches, None);
    let request = v1::WatchProtectedRequest { namespace_id: "large".into(), ..Default::default() };
    assert_refused(large.checkout.clone().watch_protected(request).await, Reason::TooManyWatches, None);
    let mut feed = super::events::Feed::open(&large, "", true).await.expect("events are not kept by SKU");
    feed.catch_up().await;
    assert_eq!(feed.events.len(), 4);
    let mut stream = watch_stock(&small, &[], Duration::from_millis(50), "").await;
    assert_eq!(available(&next(&mut stream).await.expect("a snapshot"))["ps5"], Some(1));
}
