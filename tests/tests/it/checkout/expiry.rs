//! Holds end at their deadline on Redis's clock, with and without traffic, and their units come back first.

use std::time::Duration;

use inventory_sentinel::v1::{ReservationState as State, reserve_response::Result as Reserved};
use sentinel_tests::{Redis, SentinelProcess, assert_refused, eventually, millis, reserve_request, stored_stock};
use tokio::task::JoinSet;

/// The state matches Redis's clock to the millisecond at each read.
#[tokio::test]
async fn a_hold_ends_exactly_at_its_deadline() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let before = redis.now().await;
    let hold = shop.hold_for("ps5", 3, Duration::from_millis(300)).await;
    let after = redis.now().await;
    let (created, deadline) = (millis(hold.created_at), millis(hold.expires_at));
    assert!((before..=after).contains(&created), "{before} {created} {after}");
    assert_eq!(deadline - created, 300);
    assert_eq!(hold.resolved_at, None);

    let (mut seen_pending, mut ended) = (0, None);
    while ended.is_none() {
        let before = redis.now().await;
        let now = shop.reservation(&hold.reservation_id).await.expect("it is known");
        let after = redis.now().await;
        match now.state() {
            State::Pending => {
                assert!(before < deadline, "pending at {before}, after its deadline {deadline}");
                seen_pending += 1;
            }
            State::Expired => {
                assert!(after >= deadline, "expired at {after}, before its deadline {deadline}");
                ended = Some(now);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(seen_pending > 0);
    let ended = ended.unwrap();
    assert_eq!(ended.resolved_at, hold.expires_at);
    assert_eq!((ended.lines[0].held, ended.lines[0].sold, ended.lines[0].released), (0, 0, 3));
    assert_eq!(shop.counts("ps5").await, (10, 0, 0));
}

#[tokio::test]
async fn a_hold_ends_without_traffic_too() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let hold = shop.hold_for("ps5", 3, Duration::from_millis(100)).await;
    // Nobody calls the server. Only Redis is read.
    eventually("the sweeper gives it back", async || (stored_stock(&redis, "ps5").await.held == 0).then_some(())).await;
    assert!(redis.now().await >= millis(hold.expires_at));
    eventually("it is counted", async || {
        (server.metric("inventory_sentinel_expired_total").await == 1.0).then_some(())
    })
    .await;
    let ended = shop.reservation(&hold.reservation_id).await.expect("it is known");
    assert_eq!((ended.state(), ended.resolved_at), (State::Expired, hold.expires_at));
    assert_eq!(shop.counts("ps5").await, (10, 0, 0));
}

/// A server that has never served the namespace sweeps it after the server that sold it is gone.
#[tokio::test]
async fn holds_of_a_dead_server_end_by_another() {
    let redis = Redis::start().await;
    let mut seller = SentinelProcess::on(&redis).await;
    let shop = seller.shop("sale");
    shop.supply("ps5", 10).await;
    shop.hold_for("ps5", 3, Duration::from_secs(1)).await;
    seller.kill9();
    let other = SentinelProcess::on(&redis).await;
    eventually("the other server gives it back", async || (stored_stock(&redis, "ps5").await.held == 0).then_some(()))
        .await;
    assert_eq!(other.shop("sale").counts("ps5").await, (10, 0, 0));
}

#[tokio::test]
async fn what_the_deadline_decided_stays_so() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let hold = shop.hold_for("ps5", 3, Duration::from_millis(1)).await;
    eventually("it expires", async || {
        let now = shop.reservation(&hold.reservation_id).await.expect("it is known");
        (now.state() == State::Expired).then_some(())
    })
    .await;
    let expired = inventory_sentinel::Reason::ReservationExpired;
    assert_refused(shop.commit(&hold.reservation_id).await, expired, None);
    let answer = shop.rollback(&hold.reservation_id).await.expect("a rollback after the deadline is fine");
    assert!(answer.replayed);
    let now = answer.reservation.unwrap();
    assert_eq!((now.state(), now.resolved_at), (State::Expired, hold.expires_at));
    assert_refused(shop.commit(&hold.reservation_id).await, expired, None);
    assert_eq!(shop.counts("ps5").await, (10, 0, 0));
}

/// More due holds than one script call expires, no sweeper, and a buyer who reserves all units.
#[tokio::test]
async fn sold_out_is_never_said_while_a_due_hold_is_out() {
    const HOLDS: i64 = 3_000;
    let redis = Redis::start_in_memory().await;
    let flags = "--durability fast --sweep-interval 1m";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", HOLDS).await;
    shop.supply("vita", 1).await;
    let mut buyers = JoinSet::new();
    for _ in 0..HOLDS {
        let shop = shop.clone();
        buyers.spawn(async move { millis(shop.hold_for("ps5", 1, Duration::from_secs(4)).await.expires_at) });
    }
    let last = buyers.join_all().await.into_iter().max().unwrap();
    eventually("all are due", async || (redis.now().await >= last).then_some(())).await;
    let out = stored_stock(&redis, "ps5").await.held;
    assert!(out > 1_024, "only {out} holds are out: this machine is too slow for this test");

    let answer = shop.reserve(reserve_request(&[("ps5", HOLDS as i32)])).await.expect("an answer");
    assert!(matches!(answer.result, Some(Reserved::Reservation(_))), "{answer:?}");
    assert_eq!(shop.counts("ps5").await, (0, HOLDS, 0));
    assert_eq!(server.metric("inventory_sentinel_expired_total").await, HOLDS as f64);
    shop.audit().await;
}

/// One side of every race between a payment and the deadline wins, and the counters agree with the answers.
#[tokio::test]
async fn commit_against_the_deadline_has_one_winner() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10_000).await;
    let mut races = JoinSet::new();
    for i in 0..1_000 {
        let shop = shop.clone();
        races.spawn(async move {
            let hold = shop.hold_for("ps5", 1, Duration::from_millis(20)).await;
            tokio::time::sleep(Duration::from_millis(10 + i % 20)).await;
            match shop.commit(&hold.reservation_id).await {
                Ok(answer) => {
                    let sold = answer.reservation.unwrap();
                    assert!(millis(sold.resolved_at) < millis(sold.expires_at), "{sold:?}");
                    1
                }
                refused => {
                    assert_refused(refused, inventory_sentinel::Reason::ReservationExpired, None);
                    0
                }
            }
        });
    }
    let sold: i64 = races.join_all().await.into_iter().sum();
    assert_eq!(shop.counts("ps5").await, (10_000 - sold, 0, sold));
    shop.audit().await;
}
