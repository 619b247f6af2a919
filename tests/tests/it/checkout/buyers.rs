//! The count of a buyer exists only as long as the limit that it serves. It starts and ends with the limit, is deleted
//! in bounded steps, and counts towards the quota.

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{Redis, SentinelProcess, TestClient, assert_refused, eventually, new_id, reserve_request};

fn by(buyer: &str, sku: &str, quantity: i32) -> v1::ReserveRequest {
    v1::ReserveRequest { buyer_id: buyer.into(), ..reserve_request(&[(sku, quantity)]) }
}

/// Sets the limit per buyer of a SKU; 0: none.
async fn limit(shop: &TestClient, sku: &str, units: i32) {
    let rules = v1::SkuRules { buyer_limit: Some(units), ..v1::SkuRules::default() };
    shop.configure(sku, rules).await.expect("a limit");
}

/// Many buyers hold a unit each.
async fn hold_each(shop: &TestClient, sku: &str, buyers: std::ops::Range<usize>) {
    let holds: Vec<_> = buyers
        .map(|n| {
            let (shop, sku) = (shop.clone(), sku.to_owned());
            tokio::spawn(async move { shop.hold_order(by(&format!("buyer {n}"), &sku, 1)).await })
        })
        .collect();
    for hold in holds {
        hold.await.expect("a hold");
    }
}

async fn eventually_counts(redis: &Redis, expected: i64) {
    eventually("the counts are dropped", async || (redis.buyer_counts().await == expected).then_some(())).await;
}

#[tokio::test]
async fn a_limit_that_is_set_again_counts_from_nothing() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    limit(&shop, "ps5", 2).await;
    let old = shop.hold_order(by("amy", "ps5", 2)).await.reservation_id;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    // A limit that replaces another keeps the counts.
    limit(&shop, "ps5", 3).await;
    let third = shop.hold_order(by("amy", "ps5", 1)).await.reservation_id;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);

    limit(&shop, "ps5", 0).await;
    let between = shop.hold_order(by("amy", "ps5", 5)).await.reservation_id;
    limit(&shop, "ps5", 2).await;
    let new = shop.hold_order(by("amy", "ps5", 2)).await.reservation_id;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    // A hold that was not counted for this limit returns nothing to its count.
    shop.rollback_lines(&old, &[("ps5", 1)], &new_id()).await.expect("a part");
    for id in [&old, &third, &between] {
        shop.rollback(id).await.expect("given back");
    }
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    shop.rollback(&new).await.expect("given back");
    shop.hold_order(by("amy", "ps5", 2)).await;
    shop.audit().await;
}

/// Nor does a hold that was made before the limit, and is replaced or expires.
#[tokio::test]
async fn a_hold_of_before_the_limit_gives_nothing_back_to_it() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    limit(&shop, "ps5", 5).await;
    let old = shop.hold_order(by("amy", "ps5", 3)).await.reservation_id;
    let brief = shop.hold_order(v1::ReserveRequest {
        ttl: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        ..by("amy", "ps5", 2)
    });
    let brief = brief.await.reservation_id;
    limit(&shop, "ps5", 0).await;
    limit(&shop, "ps5", 5).await;
    shop.hold_order(by("amy", "ps5", 4)).await;
    let replacing = |units| v1::ReserveRequest { replaces_reservation_id: old.clone(), ..by("amy", "ps5", units) };
    assert_refused(shop.reserve(replacing(2)).await, Reason::BuyerLimit, None);
    shop.expired(&brief).await;
    assert_refused(shop.reserve(by("amy", "ps5", 2)).await, Reason::BuyerLimit, None);
    shop.hold_order(replacing(1)).await;
    assert_eq!(shop.counts("ps5").await, (95, 5, 0));
    shop.audit().await;
}

#[tokio::test]
async fn what_buyers_had_is_dropped_with_the_limit_and_nothing_else() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    for sku in ["ps5", "vita", "gone"] {
        shop.supply(sku, 2_000).await;
        limit(&shop, sku, 2).await;
    }
    hold_each(&shop, "ps5", 0..1_000).await;
    hold_each(&shop, "vita", 0..300).await;
    for n in 0..3 {
        let id = shop.hold_order(by(&format!("buyer {n}"), "gone", 1)).await.reservation_id;
        shop.commit(&id).await.expect("sold");
    }
    assert_eq!(redis.buyer_counts().await, 1_303);
    limit(&shop, "ps5", 0).await;
    eventually_counts(&redis, 303).await;
    assert_refused(shop.reserve(by("buyer 7", "vita", 2)).await, Reason::BuyerLimit, None);
    shop.delete_sku("gone").await.expect("deleted");
    eventually_counts(&redis, 300).await;
    // Set again at once, while the counts of before are there.
    limit(&shop, "vita", 0).await;
    limit(&shop, "vita", 2).await;
    shop.hold_order(by("buyer 7", "vita", 2)).await;
    eventually_counts(&redis, 1).await;
    shop.audit().await;
}

/// A partition that always has traffic drops them too, and one whose store restarts in between.
#[tokio::test]
async fn counts_are_dropped_under_traffic_and_across_a_restart() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100_000).await;
    shop.supply("vita", 100_000).await;
    limit(&shop, "ps5", 2).await;
    hold_each(&shop, "ps5", 0..3_000).await;
    let buying = tokio::spawn({
        let shop = shop.clone();
        async move {
            loop {
                let _ = shop.reserve(reserve_request(&[("vita", 1)])).await;
            }
        }
    });
    limit(&shop, "ps5", 0).await;
    eventually("some are dropped", async || (redis.buyer_counts().await < 3_000).then_some(())).await;
    redis.kill9();
    redis.restart().await;
    eventually_counts(&redis, 0).await;
    buying.abort();
}

#[tokio::test]
async fn counts_of_buyers_are_in_the_quota_of_records() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--quota-records 10").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.supply("vita", 100).await;
    limit(&shop, "ps5", 2).await;
    for n in 0..5 {
        shop.hold_order(by(&format!("buyer {n}"), "ps5", 1)).await;
    }
    // Five records, and five counts.
    assert_refused(shop.reserve(by("buyer 5", "ps5", 1)).await, Reason::NamespaceQuota, None);
    // A hold without a count still fits.
    shop.hold("vita", 1).await;
    limit(&shop, "ps5", 0).await;
    shop.hold_order(by("buyer 5", "ps5", 1)).await;
    eventually_counts(&redis, 0).await;
    limit(&shop, "ps5", 2).await;
    // Seven records; two more and a count of both.
    shop.hold_order(by("buyer 5", "ps5", 1)).await;
    shop.hold_order(by("buyer 5", "ps5", 1)).await;
    assert_refused(shop.reserve(by("buyer 6", "ps5", 1)).await, Reason::NamespaceQuota, None);
    shop.audit().await;
}

/// In an older format a count has no instant and survives its limit. Raising the format does not change it.
#[tokio::test]
async fn a_namespace_of_an_older_format_counts_as_before() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--format 4").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    limit(&shop, "ps5", 2).await;
    shop.hold_order(by("amy", "ps5", 1)).await;
    limit(&shop, "ps5", 0).await;
    limit(&shop, "ps5", 2).await;
    let second = shop.hold_order(by("amy", "ps5", 1)).await.reservation_id;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    let config = Some(v1::NamespaceConfig { format: Some(5), ..Default::default() });
    let request = v1::ConfigureNamespaceRequest { namespace_id: "sale".into(), config, ..Default::default() };
    shop.admin.clone().configure_namespace(request).await.expect("raised");
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    shop.rollback(&second).await.expect("given back");
    shop.hold_order(by("amy", "ps5", 1)).await;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    limit(&shop, "ps5", 0).await;
    eventually_counts(&redis, 0).await;
    limit(&shop, "ps5", 2).await;
    shop.hold_order(by("amy", "ps5", 2)).await;
    shop.audit().await;
}
