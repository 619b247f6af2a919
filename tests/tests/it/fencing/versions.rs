//! Versions of stored data. Data of a newer release is refused before the first write. A namespace of format 1 works as
//! before until it is raised.

use std::time::Duration;

use deadpool_redis::redis::Cmd;
use inventory_sentinel::{Reason, v1};
use sentinel_tests::{
    Redis, SentinelProcess, TestClient, assert_refused, eventually, figure, new_id, partition_keys, reserve_request,
    until_fenced,
};

use super::{sell, sell_out, take_one};
use crate::streams::events::Feed;

// Raw keys and offsets on purpose: other releases have written data at these places.
const META: &str = "is:{sale/0}:meta";
const STOCK: &str = "is:{sale/0}:stock";
/// Length of a state of format 1.
const STATE_1: usize = 51;

/// Replaces one byte of a field; returns the field before.
async fn poke(redis: &Redis, key: &str, field: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let good: Vec<u8> = redis.query(&Cmd::hget(key, field)).await;
    let mut newer = good.clone();
    newer[at] = byte;
    redis.query::<()>(&Cmd::hset(key, field, newer)).await;
    good
}

/// Checks that calls of all kinds are refused as STORE_NEWER, and that no byte is written.
macro_rules! newer {
    ($redis:expr, $($call:expr),+ $(,)?) => {
        let before = $redis.digest("").await;
        $(assert_refused($call.await, Reason::StoreNewer, None);)+
        assert!($redis.digest("").await == before, "a refusal wrote something");
    };
}

/// A server of this release runs beside a newer one. It used to take the new state for that of a replaced partition.
#[tokio::test]
async fn a_state_of_a_newer_release_is_not_touched() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let held = shop.hold("ps5", 1).await.reservation_id;
    let good = poke(&redis, META, b"state", 0, 9).await;
    newer! {
        redis,
        take_one(&shop, "ps5"), shop.commit(&held), shop.rollback(&held), shop.try_stock("ps5"),
        shop.set_stock("ps5", 5, &new_id()), shop.adjust_stock("vita", 1, &new_id()), shop.delete_sku("ps5"),
        shop.settle(0, &[figure("ps5", 1)], &new_id()),
    }
    redis.query::<()>(&Cmd::hset(META, "state", good)).await;
    shop.commit(&held).await.expect("sold");
    assert_eq!(shop.counts("ps5").await, (9, 0, 1));
    shop.audit().await;
}

/// Unknown flags used to be ignored, and written back without their meaning.
#[tokio::test]
async fn a_stock_record_of_a_newer_release_is_not_touched() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("vita", 10).await;
    let held = shop.hold("ps5", 1).await.reservation_id;
    let good = poke(&redis, STOCK, b"ps5", 30, 0x81).await;
    newer! {
        redis,
        take_one(&shop, "ps5"), shop.reserve(reserve_request(&[("vita", 1), ("ps5", 1)])), shop.commit(&held),
        shop.rollback(&held), shop.try_stock("ps5"), shop.set_stock("ps5", 5, &new_id()), shop.warm_up("ps5", 1),
        shop.adjust_stock("ps5", 1, &new_id()), shop.protect("ps5", false), shop.delete_sku("ps5"),
    }
    // The refusal concerns this SKU only.
    sell(&shop, "vita", 1).await;
    redis.query::<()>(&Cmd::hset(STOCK, "ps5", good)).await;
    shop.commit(&held).await.expect("sold");
    shop.audit().await;
}

/// The script took an unknown letter for an ended reservation, and answered RESERVATION_EXPIRED.
#[tokio::test]
async fn a_reservation_of_a_newer_release_is_not_touched() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let placed = reserve_request(&[("ps5", 1)]);
    let held = shop.hold_order(placed.clone()).await.reservation_id;
    let other = shop.hold("ps5", 1).await.reservation_id;
    let keys = partition_keys("sale", 0);
    let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
    for key in keys.records() {
        let fields: Vec<(Vec<u8>, Vec<u8>)> = redis.query(&Cmd::hgetall(key)).await;
        records.extend(fields.into_iter().filter(|(_, record)| record[0] == b'P').map(|(id, _)| (key, id)));
    }
    assert_eq!(records.len(), 2);
    let mut good = Vec::new();
    for (key, id) in &records {
        good.push(poke(&redis, key, id, 0, b'Q').await);
    }
    newer! {
        redis,
        shop.commit(&held), shop.rollback(&held), shop.commit_late(&other), shop.reservation(&other),
        shop.extend(&held, Duration::from_secs(900), &new_id()), shop.reserve(placed),
        shop.rollback_lines(&held, &[("ps5", 1)], &new_id()),
    }
    take_one(&shop, "ps5").await.expect("it is about those reservations alone");
    for ((key, id), good) in records.iter().zip(good) {
        redis.query::<()>(&Cmd::hset(*key, id, good)).await;
    }
    shop.commit(&held).await.expect("sold");
    shop.audit().await;
}

/// A config of a newer release used to be reported as STORE_CORRUPT, for which an operator searches for a fault.
#[tokio::test]
async fn a_config_of_a_newer_release_is_not_touched() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let held = shop.hold("ps5", 1).await.reservation_id;
    server.kill9();
    let good = poke(&redis, META, b"config", 0, 9).await;
    let fresh = SentinelProcess::launch().on(&redis).start_unready().await;
    let shop = fresh.shop("sale");
    fresh.wait_until_ready().await;
    newer! {
        redis,
        take_one(&shop, "ps5"), shop.commit(&held), shop.try_stock("ps5"), shop.try_is_protected("ps5"),
        shop.warm_up("ps5", 10), shop.try_audit(), configure(&shop, 2),
    }
    fresh.shop("other").supply("ps5", 1).await;
    redis.query::<()>(&Cmd::hset(META, "config", good)).await;
    eventually("the namespace can be used", async || shop.commit(&held).await.ok()).await;
}

async fn configure(shop: &TestClient, format: i32) -> Result<v1::ConfigureNamespaceResponse, tonic::Status> {
    let config = v1::NamespaceConfig { format: Some(format), ..Default::default() };
    let request = v1::ConfigureNamespaceRequest {
        namespace_id: shop.namespace.clone(),
        config: Some(config),
        ..Default::default()
    };
    shop.admin.clone().configure_namespace(request).await.map(tonic::Response::into_inner)
}

async fn state_length(redis: &Redis) -> usize {
    redis.query::<Vec<u8>>(&Cmd::hget(META, "state")).await.len()
}

async fn format(shop: &TestClient) -> Option<i32> {
    let request = v1::GetNamespaceRequest { namespace_id: shop.namespace.clone() };
    let answer = shop.admin.clone().get_namespace(request).await.expect("the config").into_inner();
    answer.config.expect("a config").format
}

/// Old servers still run during an upgrade: they must be able to read what they find.
#[tokio::test]
async fn a_namespace_of_format_1_works_until_it_is_raised() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--format 1 --sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    assert_eq!(server.info().await.newest_format, 5);
    shop.supply("ps5", 10).await;
    assert_eq!(format(&shop).await, Some(1));
    let placed = reserve_request(&[("ps5", 2)]);
    let held = shop.hold_order(placed.clone()).await.reservation_id;
    assert!(shop.reserve(placed).await.expect("known").replayed);
    shop.commit_lines(&held, &[("ps5", 1)], v1::RestPolicy::Keep, &new_id()).await.expect("in part");
    shop.rollback(&held).await.expect("the rest");
    let short = shop.hold_for("ps5", 3, Duration::from_millis(1)).await.reservation_id;
    shop.expired(&short).await;
    shop.commit_late(&short).await.expect("bought late");
    shop.adjust_stock("ps5", 5, &new_id()).await.expect("more");
    let open = shop.hold("ps5", 2).await.reservation_id;
    redis.restart().await;
    eventually("the store can be used", async || shop.try_stock("ps5").await.ok()).await;
    sell(&shop, "ps5", 1).await;
    assert_eq!(shop.counts("ps5").await, (8, 2, 5));
    assert_eq!(state_length(&redis).await, STATE_1, "an older release reads it");
    let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    assert!(feed.events.iter().all(|event| event.epoch == 0 && event.term.is_empty()), "{:?}", feed.events);
    shop.audit().await;

    for format in [0, -1, 6, i32::MAX] {
        assert_refused(configure(&shop, format).await, Reason::InvalidConfig, Some("config.format"));
    }
    configure(&shop, 1).await.expect("it is so already");
    let raised = configure(&shop, 2).await.expect("raised");
    assert_eq!(raised.config.expect("a config").format, Some(2));
    assert_refused(configure(&shop, 1).await, Reason::InvalidConfig, Some("config.format"));
    configure(&shop, 2).await.expect("it is so already");
    shop.commit(&open).await.expect("a hold of before");
    assert_eq!(shop.counts("ps5").await, (8, 0, 7));
    assert!(state_length(&redis).await > STATE_1);
    assert_eq!(format(&shop).await, Some(2));
    shop.audit().await;

    // From here on a loss is noticed.
    let mut feed = Feed::open(&shop, &feed.token, false).await.expect("the token of before is good");
    feed.catch_up().await;
    let sold = feed.events.last().expect("the sale");
    assert!(sold.epoch > 0 && sold.term.len() == 40, "{sold:?}");
    let copy = redis.files().copy();
    sell(&shop, "ps5", 1).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    shop.settle(0, &[figure("ps5", 7)], &new_id()).await.expect("settled");
    assert_eq!(sell_out(&shop, "ps5").await, 7);
    shop.audit().await;
}

/// Without a flag no server creates the old format, and nothing returns to it.
#[tokio::test]
async fn a_new_namespace_has_the_newest_format() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    assert_eq!(format(&shop).await, Some(5));
    assert!(state_length(&redis).await > STATE_1);
    assert_refused(configure(&shop, 1).await, Reason::InvalidConfig, Some("config.format"));
    // A server with another default leaves this namespace unchanged.
    let later = SentinelProcess::launch().on(&redis).flags("--format 1").start().await;
    sell(&later.shop("sale"), "ps5", 1).await;
    assert_eq!(format(&later.shop("sale")).await, Some(5));
    let (code, log) = SentinelProcess::launch().on(&redis).flags("--format 6").run().await;
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("--format"), "{log}");
}
