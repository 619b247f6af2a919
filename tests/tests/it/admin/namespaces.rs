//! Namespaces share nothing; partitions of one share its name and nothing else.

use inventory_sentinel::{
    Reason,
    v1::{ReserveRequest, reserve_response::Result as Reserved},
};
use sentinel_tests::{Redis, SentinelProcess, assert_refused, new_id, reason, reserve_request};

#[tokio::test]
async fn namespaces_share_neither_stock_nor_identities_nor_reservations() {
    let server = SentinelProcess::start().await;
    let (one, other) = (server.shop("one"), server.shop("other"));
    one.set_stock("ps5", 10, "opening").await.expect("set");
    assert!(!other.set_stock("ps5", 20, "opening").await.expect("set").replayed);
    let placed = reserve_request(&[("ps5", 1)]);
    let mine = one.hold_order(placed.clone()).await.reservation_id;
    let theirs =
        other.reserve(ReserveRequest { lines: reserve_request(&[("ps5", 3)]).lines, ..placed }).await.expect("held");
    let Some(Reserved::Reservation(theirs)) = theirs.result else { panic!("no reservation") };
    assert_ne!(mine, theirs.reservation_id, "ids can't be guessed from request ids");
    assert_refused(other.commit(&mine).await, Reason::ReservationNotFound, None);
    assert_refused(one.rollback(&theirs.reservation_id).await, Reason::ReservationNotFound, None);
    assert_eq!(one.counts("ps5").await, (9, 1, 0));
    assert_eq!(other.counts("ps5").await, (17, 3, 0));
    assert_eq!(theirs.namespace_id, "other");
    one.audit().await;
    other.audit().await;
}

#[tokio::test]
async fn an_empty_name_is_the_default_namespace() {
    let server = SentinelProcess::start().await;
    server.shop("").supply("ps5", 3).await;
    assert_eq!(server.shop("default").counts("ps5").await, (3, 0, 0));
    assert_eq!(server.shop("").hold("ps5", 1).await.namespace_id, "default");
}

#[tokio::test]
async fn a_reservation_carries_its_partition_and_a_cart_keeps_to_one() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--partitions 4").start().await;
    let shop = server.shop("sale");
    let (skus, held) = shop.hold_one_of_each(16).await;
    // The last character of an id is the partition's low six bits.
    let partition = |id: &String| id.chars().last().expect("an id has characters");
    let partitions: std::collections::BTreeSet<char> = held.iter().map(partition).collect();
    assert!(partitions.len() > 1 && partitions.iter().all(|p| ('A'..='D').contains(p)), "{partitions:?}");

    let before = redis.digest("").await;
    let (mut together, mut apart) = (0, 0);
    for i in 1..skus.len() {
        let answer = shop.reserve(reserve_request(&[(&skus[0], 1), (&skus[i], 1)])).await;
        if partition(&held[0]) == partition(&held[i]) {
            answer.expect("one partition");
            together += 1;
        } else {
            assert_refused(answer, Reason::CrossPartitionCart, None);
            apart += 1;
        }
    }
    assert!(together > 0 && apart > 0, "{together} together, {apart} apart");
    assert!(redis.digest("").await != before);

    for (sku, id) in skus.iter().zip(&held) {
        // Another partition does not know it, and a fifth there is not.
        for wrong in ['A', 'B', 'C', 'D', 'E', '_'] {
            if wrong != partition(id) {
                let id = format!("{}{wrong}", &id[..23]);
                assert_refused(shop.commit(&id).await, Reason::ReservationNotFound, None);
            }
        }
        shop.commit(id).await.expect("sold");
        assert_eq!(shop.stock(sku).await.sold, 1);
    }
    let audit = shop.audit().await;
    assert_eq!((audit.skus, audit.sold, audit.supplied), (16, 16, 160));

    // The number is fixed when the namespace is created, whatever the flags of a later server are.
    let later = SentinelProcess::launch().on(&redis).flags("--partitions 2").start().await;
    for id in &held {
        assert!(later.shop("sale").commit(id).await.expect("the same sale").replayed);
    }
}

#[tokio::test]
async fn servers_that_make_a_namespace_at_once_make_the_same() {
    let redis = Redis::start().await;
    let (one, other) = tokio::join!(SentinelProcess::on(&redis), SentinelProcess::on(&redis));
    for i in 0..20 {
        let name = format!("sale-{i}");
        let (a, b) = (one.shop(&name), other.shop(&name));
        let (left, right) = tokio::join!(a.set_stock("ps5", 10, "opening"), b.set_stock("ps5", 10, "opening"));
        let (left, right) = (left.expect("set").replayed, right.expect("set").replayed);
        assert!(left != right, "{name}: one identity, one effect");
        let held = a.hold("ps5", 1).await.reservation_id;
        b.commit(&held).await.expect("both know it");
    }
}

/// Callers distinguish these failures by their reason only.
#[tokio::test]
async fn unknown_things_are_told_apart() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    assert_eq!(reason(&shop.try_stock("ps5").await.expect_err("no namespace")), Reason::NamespaceNotFound);
    assert_eq!(reason(&shop.try_audit().await.expect_err("no namespace")), Reason::NamespaceNotFound);
    shop.adjust_stock("ps5", 1, &new_id()).await.expect("a delta makes the namespace");
    assert_eq!(shop.audit().await.skus, 1);
}
