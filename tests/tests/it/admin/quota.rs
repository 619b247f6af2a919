//! Changes of an administrator at the quota of records and at the memory limit: existing things can always be changed.
//! And the count of the remembered requests.

use std::time::Duration;

use deadpool_redis::redis::Cmd;
use inventory_sentinel::{Reason, v1};
use inventory_sentinel_script::is_memo;
use sentinel_tests::{
    Redis, SentinelProcess, TestClient, assert_refused, eventually, new_id, number_in, partition_keys, reserve_request,
};

use super::identity::{configure, delete, import, limit_buyers, quota, set_protection, try_set_protection, ttl};

/// The remembered requests of administrators in both generations, and in the older one, as the state of a namespace of
/// format 3 has them: raw, as no decoder returns them.
async fn counted(redis: &Redis) -> (i64, i64) {
    let state: Vec<u8> = redis.query(&Cmd::hget(partition_keys("sale", 0).meta(), "state")).await;
    (number_in(&state[105..111]), number_in(&state[111..117]))
}

/// The same, counted from the raw records: the kind of a memo has no decoder.
async fn remembered(redis: &Redis) -> (i64, i64) {
    let state: Vec<u8> = redis.query(&Cmd::hget(partition_keys("sale", 0).meta(), "state")).await;
    let is_b_current = state[67] == 1;
    let mut found = [0, 0];
    for (i, key) in partition_keys("sale", 0).records().into_iter().enumerate() {
        let fields: Vec<Vec<u8>> = redis.query(&Cmd::hgetall(key)).await;
        for record in fields.chunks(2) {
            let is_admin = record[0] != b"weight" && is_memo(&record[1]) && b"SAFDIN".contains(&record[1][7]);
            found[i] += i64::from(is_admin);
        }
    }
    (found[0] + found[1], found[usize::from(!is_b_current)])
}

#[tokio::test]
async fn changes_of_an_administrator_pass_a_quota_of_records_that_is_used_up() {
    for format in [1, 2, 3] {
        let flags = format!("--quota-records 3 --quota-skus 2 --format {format}");
        let server = SentinelProcess::launch().flags(&flags).start().await;
        let shop = server.shop("sale");
        shop.supply("ps5", 10).await;
        shop.supply("vita", 10).await;
        let mut held = 0;
        while shop.reserve(reserve_request(&[("ps5", 1)])).await.is_ok() {
            held += 1;
        }
        assert_eq!(held, if format == 3 { 3 } else { 1 }, "format {format}: what administrators do counts");
        assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::NamespaceQuota, None);
        shop.set_stock("ps5", 20, &new_id()).await.expect("set");
        shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
        limit_buyers(&shop, 0, None, &new_id()).await.expect("a rule");
        assert_eq!(set_protection(&shop, &["vita"], false, &new_id()).await, [v1::ProtectionOutcome::Changed]);
        shop.delete_sku("vita").await.expect("deleted");
        let rows: Vec<_> = (0..3).map(|i| (format!("sku-{i}"), 1)).collect();
        let results = import(&shop, &rows, &new_id()).await;
        let applied = results.iter().filter(|result| result.outcome() == v1::ImportOutcome::Applied).count();
        assert_eq!(applied, 1, "the quota of SKUs stays: {results:?}");
        assert_refused(shop.set_stock("switch", 1, &new_id()).await, Reason::NamespaceQuota, None);
        assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::NamespaceQuota, None);
        configure(&shop, quota(100), None, &new_id()).await.expect("the quota is raised");
        shop.hold("ps5", 1).await;
        shop.audit().await;
    }
}

#[tokio::test]
async fn imports_do_not_use_up_the_quota_of_records() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--quota-records 5").start().await;
    let shop = server.shop("sale");
    let rows: Vec<_> = (0..200).map(|i| (format!("sku-{i}"), 10)).collect();
    let results = import(&shop, &rows, "import").await;
    assert!(results.iter().all(|result| result.outcome() == v1::ImportOutcome::Applied), "{results:?}");
    // The same identity protects them: no row is taken for the other.
    let skus: Vec<&str> = rows.iter().map(|(sku, _)| sku.as_str()).collect();
    assert_eq!(set_protection(&shop, &skus, false, "import").await, [v1::ProtectionOutcome::Changed; 200]);
    assert_eq!(set_protection(&shop, &skus, false, "import").await, [v1::ProtectionOutcome::Unchanged; 200]);
    assert_refused(try_set_protection(&shop, &skus, true, "import").await, Reason::RequestIdReused, None);
    set_protection(&shop, &skus, true, "open").await;
    for sku in &skus[..5] {
        shop.hold(sku, 1).await;
    }
    assert_refused(shop.reserve(reserve_request(&[("sku-9", 1)])).await, Reason::NamespaceQuota, None);
    assert_eq!((counted(&redis).await, remembered(&redis).await), ((600, 0), (600, 0)));
    shop.audit().await;
}

#[tokio::test]
async fn at_the_memory_limit_an_administrator_changes_what_exists_and_makes_nothing() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--quota-records 3").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("vita", 10).await;
    for _ in 0..3 {
        shop.hold("ps5", 1).await;
    }
    redis.execute::<()>("CONFIG SET maxmemory 1").await;
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::StoreFull, None);
    shop.set_stock("ps5", 20, "set").await.expect("set");
    assert!(shop.set_stock("ps5", 20, "set").await.expect("known").replayed);
    shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
    limit_buyers(&shop, 0, None, &new_id()).await.expect("a rule");
    assert_eq!(set_protection(&shop, &["vita"], false, &new_id()).await, [v1::ProtectionOutcome::Changed]);
    shop.delete_sku("vita").await.expect("deleted");
    configure(&shop, quota(100), Some(1), "raise").await.expect("the quota is raised");
    assert_eq!(configure(&shop, quota(100), Some(1), "raise").await.expect("known").version, 2);

    let before = (redis.digest("stock").await, redis.digest("records").await, redis.digest("events").await);
    assert_refused(shop.set_stock("switch", 1, "new").await, Reason::StoreFull, None);
    assert_refused(shop.adjust_stock("switch", 1, &new_id()).await, Reason::StoreFull, None);
    let rows = [("switch".to_owned(), 1), ("ps5".to_owned(), 1)];
    let results = import(&shop, &rows, &new_id()).await;
    assert_eq!((results[0].reason.as_str(), results[1].outcome()), ("STORE_FULL", v1::ImportOutcome::AlreadyThere));
    let elsewhere = TestClient { namespace: "other".into(), ..shop.clone() };
    assert_refused(configure(&elsewhere, ttl(50), None, "").await, Reason::StoreFull, None);
    let after = (redis.digest("stock").await, redis.digest("records").await, redis.digest("events").await);
    assert!(before == after, "a refusal changes nothing");

    redis.execute::<()>("CONFIG SET maxmemory 0").await;
    assert!(!shop.set_stock("switch", 1, "new").await.expect("a refusal is not remembered").replayed);
    shop.hold("ps5", 1).await;
    assert_eq!(counted(&redis).await, remembered(&redis).await);
    shop.audit().await;
}

/// The counts follow the generations, whatever is in them.
#[tokio::test]
async fn the_count_of_remembered_requests_stays_exact_when_generations_change() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--retention 1s --sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let (mut seen_older, mut seen_none) = (false, false);
    for round in 0..400 {
        // Not torn by a change of generations between two reads.
        let (admin, older) = eventually("two reads of the same state", async || {
            let (before, found) = (counted(&redis).await, remembered(&redis).await);
            if counted(&redis).await != before {
                return None;
            }
            assert_eq!(before, found, "round {round}");
            Some(found)
        })
        .await;
        seen_older |= older > 0 && admin > older;
        seen_none |= admin == 0;
        if seen_older && seen_none {
            break;
        }
        if seen_older {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
        shop.protect("ps5", true).await.expect("it is so already");
        delete(&shop, "nothing", "").await.expect("nothing to delete");
        if round % 5 == 0 {
            shop.hold_for("ps5", 1, Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen_older && seen_none, "{seen_older} {seen_none}");
    eventually("all is forgotten", async || (redis.records().await == [1, 1]).then_some(())).await;
    assert_eq!(counted(&redis).await, (0, 0));
    shop.audit().await;
}

/// A change without effect is recorded without an event, and does not move the sequence.
#[tokio::test]
async fn a_change_that_changes_nothing_is_remembered_without_an_event() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let events = redis.digest("events").await;
    let sequence = shop.try_stock("ps5").await.expect("the stock").sequence;
    assert_eq!(delete(&shop, "vita", "gone").await.expect("nothing to delete").sequence, sequence);
    assert_eq!(set_protection(&shop, &["ps5"], true, "open").await, [v1::ProtectionOutcome::Unchanged]);
    assert_eq!(limit_buyers(&shop, 0, Some(0), "none").await.expect("no limit").rules_version, 0);
    assert!(redis.digest("events").await == events, "no event");
    assert_eq!((counted(&redis).await, remembered(&redis).await), ((4, 0), (4, 0)));
    shop.supply("vita", 1).await;
    shop.protect("ps5", false).await.expect("a rule");
    limit_buyers(&shop, 3, None, "").await.expect("a rule");
    assert!(delete(&shop, "vita", "gone").await.expect("known").replayed);
    assert_eq!(set_protection(&shop, &["ps5"], true, "open").await, [v1::ProtectionOutcome::Unchanged]);
    assert!(limit_buyers(&shop, 0, Some(0), "none").await.expect("known").replayed);
    assert_eq!(shop.counts("vita").await, (1, 0, 0));
    assert!(!shop.is_protected("ps5").await);
    // Request ids are shared by all kinds of changes.
    assert_refused(delete(&shop, "ps5", "gone").await, Reason::RequestIdReused, None);
    assert_refused(limit_buyers(&shop, 1, Some(0), "none").await, Reason::RequestIdReused, None);
    assert_refused(limit_buyers(&shop, 1, None, "gone").await, Reason::RequestIdReused, None);
    assert_refused(shop.adjust_stock("ps5", 1, "none").await, Reason::RequestIdReused, None);
    shop.audit().await;
}
