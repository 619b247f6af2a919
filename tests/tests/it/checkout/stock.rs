//! The counters: each call that moves units, each that does not, and the effect of a SKU's rules.

use inventory_sentinel::{Reason, v1::reserve_response::Result as Reserved};
use sentinel_tests::{SentinelProcess, assert_refused, new_id, reserve_request};

#[tokio::test]
async fn a_hold_released_twice_gives_back_its_own_units_only() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.hold("ps5", 2).await;
    let second = shop.hold("ps5", 3).await.reservation_id;
    shop.hold("ps5", 4).await;
    assert_eq!(shop.counts("ps5").await, (1, 9, 0));
    shop.rollback(&second).await.expect("given back");
    assert!(shop.rollback(&second).await.expect("again").replayed);
    assert_eq!(shop.counts("ps5").await, (4, 6, 0));
    shop.audit().await;
}

#[tokio::test]
async fn all_that_is_available_can_be_taken_and_no_more() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 5).await;
    let short = shop.reserve(reserve_request(&[("ps5", 6)])).await.expect("an answer");
    assert!(matches!(short.result, Some(Reserved::Shortage(_))), "{short:?}");
    assert_eq!(shop.counts("ps5").await, (5, 0, 0), "a shortage takes nothing");
    shop.hold("ps5", 5).await;
    assert_eq!(shop.counts("ps5").await, (0, 5, 0));
}

#[tokio::test]
async fn a_cart_is_held_whole_or_not_at_all() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let skus: Vec<String> = (0..32).map(|i| format!("sku-{i}")).collect();
    for sku in &skus {
        shop.supply(sku, 2).await;
    }
    let cart: Vec<(&str, i32)> = skus.iter().map(|sku| (sku.as_str(), 1)).collect();
    let held = shop.hold_order(reserve_request(&cart)).await;
    assert_eq!(held.lines.len(), 32);
    shop.hold("sku-31", 1).await;
    let short = shop.reserve(reserve_request(&cart)).await.expect("an answer");
    assert!(matches!(short.result, Some(Reserved::Shortage(_))), "{short:?}");
    assert_eq!(shop.counts("sku-0").await, (1, 1, 0));
    shop.commit(&held.reservation_id).await.expect("sold");
    for sku in &skus[..31] {
        assert_eq!(shop.counts(sku).await, (1, 0, 1));
    }
    shop.audit().await;
}

#[tokio::test]
async fn stock_is_what_is_on_hand_and_never_below_what_is_held() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let sold = shop.hold("ps5", 3).await.reservation_id;
    shop.commit(&sold).await.expect("sold");
    shop.hold("ps5", 4).await;
    assert_eq!(shop.counts("ps5").await, (3, 4, 3));

    // On hand is available and held; what is sold is gone.
    shop.supply("ps5", 20).await;
    assert_eq!(shop.counts("ps5").await, (16, 4, 3));
    shop.supply("ps5", 4).await;
    assert_eq!(shop.counts("ps5").await, (0, 4, 3));
    assert_refused(shop.set_stock("ps5", 3, &new_id()).await, Reason::StockBelowHeld, None);
    assert_refused(shop.adjust_stock("ps5", -1, &new_id()).await, Reason::StockBelowHeld, None);
    shop.adjust_stock("ps5", 2, &new_id()).await.expect("adjusted");
    shop.adjust_stock("ps5", -2, &new_id()).await.expect("adjusted");
    assert_eq!(shop.counts("ps5").await, (0, 4, 3));

    // The largest stock there may be.
    shop.supply("vita", 1_000_000_000).await;
    assert_refused(shop.adjust_stock("vita", 1, &new_id()).await, Reason::StockLimit, None);
    shop.hold("vita", 1_000_000).await;
    assert_refused(shop.adjust_stock("vita", 1, &new_id()).await, Reason::StockLimit, None);
    assert_eq!(shop.counts("vita").await, (999_000_000, 1_000_000, 0));
    shop.audit().await;
}

#[tokio::test]
async fn versions_and_sequences_only_grow() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let mut last = (0, 0);
    let mut grows = |sequence: i64, version: i64| {
        assert!(sequence > last.0 && version > last.1, "{:?} is not above {last:?}", (sequence, version));
        last = (sequence, version);
    };
    let set = shop.set_stock("ps5", 10, &new_id()).await.expect("set");
    grows(set.sequence, set.stock.unwrap().version);
    let held = shop.reserve(reserve_request(&[("ps5", 1)])).await.expect("held");
    grows(held.sequence, shop.stock("ps5").await.version);
    let Some(Reserved::Reservation(reservation)) = held.result else { panic!("no reservation") };
    grows(shop.commit(&reservation.reservation_id).await.expect("sold").sequence, shop.stock("ps5").await.version);
    let adjusted = shop.adjust_stock("ps5", -1, &new_id()).await.expect("adjusted");
    grows(adjusted.sequence, adjusted.stock.unwrap().version);
    let ruled = shop.protect("ps5", false).await.expect("a rule");
    let version = ruled.stock.expect("the counters").version;
    grows(ruled.sequence, version);

    // A change without effect has no number.
    let same = shop.protect("ps5", false).await.expect("a rule");
    assert_eq!(same.sequence, ruled.sequence);
    assert_eq!(shop.try_stock("ps5").await.expect("the stock").sequence, ruled.sequence);
    // The other SKU has its separate version; the sequence is that of the partition.
    let other = shop.set_stock("vita", 1, &new_id()).await.expect("set");
    assert_eq!(other.sequence, ruled.sequence + 1);
    assert_eq!(shop.stock("ps5").await.version, version);
}

#[tokio::test]
async fn without_protection_nothing_new_is_held_and_what_is_out_is_resolved() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    assert!(!shop.is_protected("ps5").await, "an unknown namespace protects nothing");
    shop.supply("ps5", 10).await;
    assert!(shop.is_protected("ps5").await);
    assert!(!shop.is_protected("vita").await, "an unknown sku is not protected");
    let (one, other) = (shop.hold("ps5", 1).await.reservation_id, shop.hold("ps5", 2).await.reservation_id);

    let answer = shop.protect("ps5", false).await.expect("a rule");
    assert_eq!(answer.rules.unwrap().is_protected, Some(false));
    assert!(!shop.is_protected("ps5").await && !shop.stock("ps5").await.is_protected);
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::SkuNotProtected, None);
    shop.commit(&one).await.expect("sold");
    shop.rollback(&other).await.expect("given back");
    // Its units can still be moved, and that does not protect it again.
    shop.supply("ps5", 5).await;
    assert!(!shop.is_protected("ps5").await);
    assert_eq!(shop.counts("ps5").await, (5, 0, 1));

    shop.protect("ps5", true).await.expect("a rule");
    shop.hold("ps5", 5).await;
    shop.audit().await;
}
