//! Bounds of stored data: how long records are kept, how many there may be, and Redis's memory limit.

use std::time::Duration;

use inventory_sentinel::{Reason, v1::ReservationState as State};
use sentinel_tests::{
    Redis, SentinelProcess, assert_refused, eventually, id_born, millis, new_id, reason, reserve_request,
};
use tokio::task::JoinSet;

const RETENTION: i64 = 2_000;

#[tokio::test]
async fn resolved_reservations_stay_for_the_retention_and_go_soon_after() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--retention 2s").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let id = shop.hold("ps5", 1).await.reservation_id;
    let sold = shop.commit(&id).await.expect("sold").reservation.unwrap();
    let resolved = millis(sold.resolved_at);
    let age = eventually("it is forgotten", async || {
        // Changes continue, so generations change.
        shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
        match shop.reservation(&id).await {
            Ok(reservation) => {
                assert_eq!(reservation.state(), State::Committed);
                None
            }
            Err(status) => {
                assert_eq!(reason(&status), Reason::ReservationNotFound);
                Some(redis.now().await - resolved)
            }
        }
    })
    .await;
    assert!(age >= RETENTION, "forgotten after {age} ms");
    assert!(age <= 3 * RETENTION + 2_000, "remembered for {age} ms");

    // The padding stays.
    eventually("an idle partition drops what is over", async || (redis.records().await == [1, 1]).then_some(())).await;
    shop.audit().await;
}

/// Records of one generation are deleted together: after its longest hold has ended and is older than the retention.
#[tokio::test]
async fn a_hold_may_outlive_the_retention_several_times() {
    const LIFE: i64 = 4 * RETENTION;
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--retention 2s").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let held = shop.hold_for("ps5", 1, Duration::from_millis(LIFE as u64)).await;
    let bought = shop.hold_for("ps5", 1, Duration::from_millis(LIFE as u64)).await;
    let (expires_at, mut sold) = (millis(held.expires_at), None);
    let forgotten = eventually("both are forgotten", async || {
        shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
        let now = redis.now().await;
        // In the older generation now.
        if sold.is_none() && now > expires_at - LIFE + 2 * RETENTION {
            let committed = shop.commit(&bought.reservation_id).await.expect("sold").reservation.unwrap();
            sold = Some(millis(committed.resolved_at));
        }
        let known = shop.reservation(&bought.reservation_id).await;
        let state = shop.reservation(&held.reservation_id).await.map(|held| held.state());
        match (state, redis.now().await) {
            (Ok(State::Pending), _) => assert!(now < expires_at, "held at {now}"),
            (Ok(State::Expired), now) => assert!(now >= expires_at, "expired at {now}"),
            (Err(status), now) => {
                assert_eq!(reason(&status), Reason::ReservationNotFound);
                return known.is_err().then_some(now);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(known.expect("known").state(), if sold.is_some() { State::Committed } else { State::Pending });
        None
    })
    .await;
    assert!(forgotten >= expires_at + RETENTION, "forgotten {} ms after its deadline", forgotten - expires_at);
    let (_, held, sold) = shop.counts("ps5").await;
    assert_eq!((held, sold), (0, 1));
    shop.audit().await;
}

#[tokio::test]
async fn an_identity_that_may_be_forgotten_is_refused() {
    let server = SentinelProcess::launch().flags("--retention 2s").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let old = id_born(Duration::from_secs(3));
    assert_refused(shop.set_stock("ps5", 1, &old).await, Reason::RequestTooOld, Some("request_id"));
    assert_refused(shop.adjust_stock("ps5", 1, &old).await, Reason::RequestTooOld, Some("request_id"));
    let mut placed = reserve_request(&[("ps5", 1)]);
    placed.request_id = old;
    assert_refused(shop.reserve(placed).await, Reason::RequestTooOld, Some("request_id"));
    assert_eq!(shop.counts("ps5").await, (10, 0, 0));
}

#[tokio::test]
async fn at_the_quota_nothing_new_is_made_and_all_that_is_out_is_resolved() {
    let server = SentinelProcess::launch().flags("--quota-records 3 --quota-skus 2").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("vita", 10).await;
    assert_refused(shop.set_stock("switch", 1, &new_id()).await, Reason::NamespaceQuota, None);
    assert_refused(shop.adjust_stock("switch", 1, &new_id()).await, Reason::NamespaceQuota, None);
    let placed = reserve_request(&[("ps5", 1)]);
    let one = shop.hold_order(placed.clone()).await.reservation_id;
    let other = shop.hold("ps5", 1).await.reservation_id;
    shop.hold("vita", 1).await;
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::NamespaceQuota, None);
    // These create nothing.
    assert_eq!(shop.hold_order(placed).await.reservation_id, one);
    shop.protect("vita", false).await.expect("a rule");
    shop.commit(&one).await.expect("sold");
    shop.rollback(&other).await.expect("given back");
    assert_eq!(shop.counts("ps5").await, (9, 0, 1));
    // Another namespace has a separate quota.
    server.shop("other").supply("ps5", 1).await;
    shop.audit().await;
}

#[tokio::test]
async fn out_of_memory_only_what_makes_records_is_refused() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(shop.hold("ps5", 1).await.reservation_id);
    }
    let short_lived = shop.hold_for("ps5", 5, Duration::from_secs(1)).await.reservation_id;
    redis.execute::<()>("CONFIG SET maxmemory 1").await;

    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::StoreFull, None);
    assert_refused(shop.set_stock("vita", 200, &new_id()).await, Reason::StoreFull, None);
    assert_refused(shop.adjust_stock("vita", 1, &new_id()).await, Reason::StoreFull, None);
    shop.stock("ps5").await;
    shop.protect("ps5", true).await.expect("a rule");
    // In the same batches as refused ones.
    let mut calls = JoinSet::new();
    for id in &held[..18] {
        let (shop, id) = (shop.clone(), id.clone());
        calls.spawn(async move {
            let (resolved, refused) = tokio::join!(shop.commit(&id), shop.reserve(reserve_request(&[("ps5", 1)])));
            resolved.expect("a sale gets through");
            assert_refused(refused, Reason::StoreFull, None);
        });
    }
    calls.join_all().await;
    shop.rollback(&held[18]).await.expect("a rollback gets through");
    eventually("the deadline gets through", async || {
        let state = shop.reservation(&short_lived).await.expect("it is known").state();
        (state == State::Expired).then_some(())
    })
    .await;
    assert_eq!(shop.counts("ps5").await, (81, 1, 18));
    assert!(server.readyz().await.0, "a full store still resolves: {}", server.readyz().await.1);

    redis.execute::<()>("CONFIG SET maxmemory 0").await;
    shop.hold("ps5", 1).await;
    shop.audit().await;
}
