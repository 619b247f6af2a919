//! Holds that are older than a settlement: their units leave `supplied` instead of returning to `available`, because
//! the sale of the same units may be among the lost changes.

use std::time::Duration;

use inventory_sentinel::{
    Reason,
    v1::{self, EventKind, reserve_response::Result as Reserved},
};
use sentinel_tests::{TestClient, assert_refused, figure, new_id, reserve_request};

use super::Lost;
use crate::streams::events::Feed;

fn returning(sku: &str, available: i64) -> v1::SettledSku {
    v1::SettledSku { old_holds_return: true, ..figure(sku, available) }
}

/// Available, held and sold units, and those that are withdrawn.
async fn counts(shop: &TestClient, sku: &str) -> (i64, i64, i64, i64) {
    let (available, held, sold) = shop.counts(sku).await;
    (available, held, sold, shop.stock(sku).await.withdrawn)
}

fn by(buyer: &str, quantity: i32) -> v1::ReserveRequest {
    v1::ReserveRequest { buyer_id: buyer.into(), ..reserve_request(&[("a", quantity)]) }
}

fn replacing(old: &str, quantity: i32) -> v1::ReserveRequest {
    v1::ReserveRequest { replaces_reservation_id: old.into(), ..reserve_request(&[("a", quantity)]) }
}

fn lines(lines: &[v1::Line]) -> Vec<(&str, i32)> {
    lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect()
}

/// The copy shows a hold as pending that was bought and shipped before the loss. The figures of the operator count it
/// as sold, so its units must not come back.
#[tokio::test]
async fn units_of_an_old_hold_do_not_return() {
    let (lost, held) = Lost::after(async |shop| {
        shop.supply("a", 30).await;
        shop.supply("b", 30).await;
        [
            shop.hold("a", 2).await.reservation_id,
            shop.hold("b", 3).await.reservation_id,
            shop.hold_order(reserve_request(&[("a", 1), ("b", 4)])).await.reservation_id,
        ]
    })
    .await;
    let [of_a, of_b, cart] = held;
    lost.settle(&[figure("a", 5), returning("b", 6)]).await;
    let shop = &lost.shop;
    assert_eq!(counts(shop, "a").await, (5, 3, 0, 0));
    assert_eq!(counts(shop, "b").await, (6, 7, 0, 0));

    let answer = shop.rollback(&of_a).await.expect("it is known").reservation.expect("a reservation");
    assert_eq!((answer.state(), answer.lines[0].released), (v1::ReservationState::RolledBack, 2));
    assert_eq!(counts(shop, "a").await, (5, 1, 0, 2));
    assert!(shop.rollback(&of_a).await.expect("it is known").replayed);
    assert_eq!(counts(shop, "a").await, (5, 1, 0, 2), "a replay withdraws nothing");
    shop.rollback(&of_b).await.expect("it is known");
    assert_eq!(counts(shop, "b").await, (9, 4, 0, 0), "the operator chose that they return");
    shop.rollback(&cart).await.expect("it is known");
    assert_eq!(counts(shop, "a").await, (5, 0, 0, 3));
    assert_eq!(counts(shop, "b").await, (13, 0, 0, 0));
    shop.audit().await;

    // A hold from after the settlement is an ordinary one, although it is of the same SKU and the next change.
    let new = shop.hold("a", 5).await.reservation_id;
    shop.rollback(&new).await.expect("it is known");
    assert_eq!(counts(shop, "a").await, (5, 0, 0, 3));

    let mut feed = Feed::open(shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    let withdrawn = |id: &str| {
        let mut events = feed.events.iter().filter(|event| event.reservation_id == id);
        let event = events.find(|event| event.kind() == EventKind::RolledBack).expect("its end");
        (lines(&event.lines), lines(&event.withdrawn))
    };
    assert_eq!(withdrawn(&of_a), (vec![("a", 2)], vec![("a", 2)]));
    assert_eq!(withdrawn(&of_b), (vec![("b", 3)], vec![]));
    assert_eq!(withdrawn(&cart), (vec![("a", 1), ("b", 4)], vec![("a", 1)]));
    assert_eq!(withdrawn(&new), (vec![("a", 5)], vec![]));
}

/// The same hold, and nobody calls: the deadline returned units that were sold before the loss.
#[tokio::test]
async fn units_of_an_old_hold_that_expires_do_not_return() {
    let (lost, (held, extended)) = Lost::after(async |shop| {
        shop.supply("a", 30).await;
        let held = shop.hold_order(v1::ReserveRequest {
            ttl: Some(prost_types::Duration { seconds: 8, nanos: 0 }),
            ..reserve_request(&[("a", 4)])
        });
        (held.await.reservation_id, shop.hold("a", 1).await.reservation_id)
    })
    .await;
    let shop = &lost.shop;
    let before = shop.reservation(&held).await.expect("it is known");
    assert_eq!(before.state(), v1::ReservationState::Pending, "this machine is too slow for the ttl of this test");
    lost.settle(&[figure("a", 5)]).await;
    shop.expired(&held).await;
    assert_eq!(counts(shop, "a").await, (5, 1, 0, 4));
    // An extension does not make it a new hold.
    shop.extend(&extended, Duration::from_secs(900), &new_id()).await.expect("extended");
    shop.rollback(&extended).await.expect("it is known");
    assert_eq!(counts(shop, "a").await, (5, 0, 0, 5));
    shop.audit().await;

    let mut feed = Feed::open(shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    let ended = feed.events.iter().find(|event| event.kind() == EventKind::Expired).expect("its end");
    assert_eq!((ended.reservation_id.as_str(), lines(&ended.lines)), (held.as_str(), vec![("a", 4)]));
    assert_eq!(lines(&ended.withdrawn), [("a", 4)]);
    // A late Commit takes available units, as any purchase.
    shop.commit_late(&held).await.expect("bought late");
    assert_eq!(counts(shop, "a").await, (1, 0, 4, 5));
    shop.audit().await;
}

/// A hold can end in parts. Each part counts as old as the hold.
#[tokio::test]
async fn parts_of_an_old_hold_do_not_return_either() {
    let (lost, held) = Lost::after(async |shop| {
        shop.supply("a", 30).await;
        shop.supply("b", 30).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(shop.hold_order(reserve_request(&[("a", 3), ("b", 3)])).await.reservation_id);
        }
        held
    })
    .await;
    lost.settle(&[figure("a", 1), returning("b", 1)]).await;
    let shop = &lost.shop;
    let part = new_id();
    for replayed in [false, true] {
        let answer = shop.rollback_lines(&held[0], &[("a", 2), ("b", 1)], &part).await.expect("in part");
        assert_eq!(answer.replayed, replayed);
        assert_eq!(counts(shop, "a").await, (1, 7, 0, 2));
        assert_eq!(counts(shop, "b").await, (2, 8, 0, 0));
    }
    shop.commit(&held[0]).await.expect("the rest is sold");
    assert_eq!(counts(shop, "a").await, (1, 6, 1, 2));
    // One unit of each is sold, and the same call releases the rest.
    shop.commit_lines(&held[1], &[("a", 1), ("b", 1)], v1::RestPolicy::Release, &new_id()).await.expect("in part");
    assert_eq!(counts(shop, "a").await, (1, 3, 2, 4));
    assert_eq!(counts(shop, "b").await, (4, 3, 3, 0));
    // One is sold, and the rest stays held and counts as old.
    shop.commit_lines(&held[2], &[("a", 1)], v1::RestPolicy::Keep, &new_id()).await.expect("in part");
    shop.rollback(&held[2]).await.expect("the rest");
    assert_eq!(counts(shop, "a").await, (1, 0, 3, 6));
    assert_eq!(counts(shop, "b").await, (7, 0, 3, 0));
    shop.audit().await;
}

/// The buyer did not buy, whatever happened to the units: the limit counts units that a buyer holds or bought.
#[tokio::test]
async fn an_old_hold_that_ends_gives_its_buyer_the_limit_back() {
    let (lost, held) = Lost::after(async |shop| {
        shop.supply("a", 30).await;
        shop.configure("a", v1::SkuRules { buyer_limit: Some(2), ..Default::default() }).await.expect("a limit");
        shop.hold_order(by("mo", 2)).await.reservation_id
    })
    .await;
    lost.settle(&[figure("a", 3)]).await;
    let shop = &lost.shop;
    assert_refused(shop.reserve(by("mo", 1)).await, Reason::BuyerLimit, None);
    shop.rollback(&held).await.expect("it is known");
    assert_eq!(counts(shop, "a").await, (3, 0, 0, 2));
    shop.hold_order(by("mo", 2)).await;
    assert_refused(shop.reserve(by("mo", 1)).await, Reason::BuyerLimit, None);
    assert_eq!(counts(shop, "a").await, (1, 2, 0, 2));
}

/// A replacement uses the units of the replaced hold. Those of an old hold cannot be used.
#[tokio::test]
async fn an_old_hold_gives_nothing_to_the_hold_that_replaces_it() {
    let (lost, held) = Lost::after(async |shop| {
        shop.supply("a", 30).await;
        shop.hold("a", 3).await.reservation_id
    })
    .await;
    lost.settle(&[figure("a", 2)]).await;
    let shop = &lost.shop;
    let answer = shop.reserve(replacing(&held, 3)).await.expect("an answer");
    let Some(Reserved::Shortage(shortage)) = answer.result else { panic!("{answer:?}") };
    assert_eq!((shortage.lines[0].requested, shortage.lines[0].available), (3, 2));
    assert_eq!(counts(shop, "a").await, (2, 3, 0, 0), "a shortage leaves the old hold as it is");
    let new = shop.hold_order(replacing(&held, 2)).await;
    assert_eq!(new.origin_reservation_id, held);
    assert_eq!(counts(shop, "a").await, (0, 2, 0, 3));
    // The new hold is younger than the settlement.
    shop.rollback(&new.reservation_id).await.expect("it is known");
    assert_eq!(counts(shop, "a").await, (2, 0, 0, 3));
    shop.audit().await;
}

/// Withdrawn units stay counted, and the deletion of a SKU deletes the count.
#[tokio::test]
async fn the_count_of_withdrawn_units_lives_as_long_as_its_sku() {
    let (lost, held) = Lost::after(async |shop| {
        shop.supply("a", 30).await;
        shop.hold("a", 3).await.reservation_id
    })
    .await;
    lost.settle(&[figure("a", 2)]).await;
    let shop = &lost.shop;
    shop.rollback(&held).await.expect("it is known");
    shop.supply("a", 20).await;
    shop.adjust_stock("a", -5, &new_id()).await.expect("fewer");
    shop.protect("a", false).await.expect("not protected");
    assert_eq!(counts(shop, "a").await, (15, 0, 0, 3));
    let request = v1::ListStockRequest { namespace_id: "sale".into(), ..Default::default() };
    let list = shop.admin.clone().list_stock(request).await.expect("a page").into_inner();
    assert_eq!(list.skus[0].stock.as_ref().map(|stock| stock.withdrawn), Some(3));
    shop.delete_sku("a").await.expect("deleted");
    shop.supply("a", 1).await;
    assert_eq!(counts(shop, "a").await, (1, 0, 0, 0));
    shop.audit().await;
}
