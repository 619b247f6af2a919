//! SettlePartition: its figures, its repeats, its refusals, and concurrent settlements, of which one wins.

use std::time::Duration;

use deadpool_redis::redis::Cmd;
use inventory_sentinel::{
    Reason,
    v1::{self, EventKind},
};
use inventory_sentinel_script::limits::MAX_ID_BYTES;
use sentinel_tests::{
    LossyProxy, Redis, SentinelProcess, TestClient, assert_refused, eventually, figure, model::MAX_STOCK,
    model::execute::may_repeat, new_id, partition_keys, reason, until_fenced,
};
use tokio::{task::JoinSet, time::timeout};

use super::{Lost, sell, sell_out, take_one};
use crate::streams::events::{Feed, assert_gapless};

/// An operator who forgets a SKU must not sell it. One who names a SKU that the copy lacks gets it back.
#[tokio::test]
async fn what_has_no_figure_has_no_units_and_what_is_unknown_is_made() {
    let (lost, ()) = Lost::after(async |shop| {
        for sku in ["a", "b", "free"] {
            shop.supply(sku, 10).await;
        }
        shop.protect("free", false).await.expect("not protected");
        shop.hold("b", 2).await;
        sell(shop, "b", 3).await;
    })
    .await;
    let settled = lost.settle(&[figure("a", 7), figure("lost", 4), figure("free", 1_000_000_000)]).await;
    assert_eq!(settled.skus, 4);
    let shop = &lost.shop;
    assert_eq!(shop.counts("a").await, (7, 0, 0));
    assert_eq!(shop.counts("b").await, (0, 2, 3), "no figure, so nothing can be taken; what is held and sold stays");
    assert_eq!(shop.counts("lost").await, (4, 0, 0));
    assert!(shop.is_protected("lost").await && !shop.is_protected("free").await);
    assert_eq!(shop.stock("free").await.available, 1_000_000_000);
    assert_eq!(sell_out(shop, "b").await, 0);
    sell(shop, "lost", 4).await;
    // The usual calls correct a figure afterwards.
    shop.adjust_stock("b", 5, &new_id()).await.expect("five more");
    assert_eq!(sell_out(shop, "b").await, 5);
    shop.audit().await;
}

/// The events must show the settlement, or consumers compute other counters than the store has.
#[tokio::test]
async fn a_settlement_has_its_own_events() {
    let (lost, ()) = Lost::after(async |shop| {
        shop.supply("a", 10).await;
        shop.supply("b", 10).await;
        shop.hold("a", 2).await;
    })
    .await;
    let settled = lost.settle(&[figure("a", 3)]).await;
    sell(&lost.shop, "a", 1).await;
    let mut feed = Feed::open(&lost.shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    assert_gapless(&feed.events, 1);
    let at = |kind: EventKind| feed.events.iter().filter(move |event| event.kind() == kind).collect::<Vec<_>>();
    let mut figures: Vec<_> = at(EventKind::SkuSettled).iter().map(|event| (event.sku.as_str(), event.delta)).collect();
    figures.sort_unstable();
    assert_eq!(figures, [("a", -5), ("b", -10)]);
    let opened = at(EventKind::PartitionSettled);
    assert_eq!(opened.len(), 1, "{:?}", feed.events);
    assert_eq!(opened[0].sequence, settled.sequence, "the gate opens last");
    assert!(at(EventKind::SkuSettled).iter().all(|event| event.sequence < settled.sequence));
    let (epoch, term) = (feed.events[0].epoch, &opened[0].term);
    assert!(epoch > 0 && feed.events.iter().all(|event| event.epoch == epoch), "a settlement keeps the epoch");
    assert!(*term != feed.events[0].term && term.len() == 40, "the store restarted between them");
}

/// An operator may mistype. A wrong figure, SKU or partition must leave the gate closed.
#[tokio::test]
async fn a_settlement_that_can_not_be_is_refused_and_changes_nothing() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--partitions 4 --sweep-interval 1m").start().await;
    let (shop, ghost) = (server.shop("sale"), server.shop("ghost"));
    // The last character of a reservation id is the partition.
    let mut sku_of = [const { None }; 4];
    for sku in (0..).map(|i| format!("sku-{i}")) {
        shop.supply(&sku, 10).await;
        let id = shop.hold(&sku, 1).await.reservation_id;
        sku_of[usize::from(id.as_bytes()[23] - b'A')] = Some(sku);
        if sku_of.iter().all(Option::is_some) {
            break;
        }
    }
    let [here, elsewhere] = [0, 1].map(|partition: usize| sku_of[partition].clone().expect("a SKU of each"));
    assert_refused(shop.settle(0, &[], &new_id()).await, Reason::NotFenced, None);
    let copy = redis.files().copy();
    shop.adjust_stock(&here, 1, &new_id()).await.expect("one more");
    redis.restart_with_copy(&copy).await;
    assert_eq!(until_fenced("Reserve", async || take_one(&shop, &here).await).await.partition, 0);
    shop.hold(&elsewhere, 1).await;
    assert_refused(shop.settle(1, &[], &new_id()).await, Reason::NotFenced, None);

    let before = redis.digest("").await;
    let many: Vec<_> = (0..1_001).map(|i| figure(&format!("sku-{i}"), 1)).collect();
    let malformed = [
        (-1, vec![], Reason::InvalidPartition, Some("partition")),
        (4, vec![], Reason::InvalidPartition, Some("partition")),
        (i32::MAX, vec![], Reason::InvalidPartition, Some("partition")),
        (0, vec![figure(&here, 1), figure(&elsewhere, 1)], Reason::InvalidPartition, Some("skus[1].sku")),
        (0, vec![figure(&here, 1), figure(&here, 1)], Reason::DuplicateSku, Some("skus[1].sku")),
        (0, vec![figure("", 1)], Reason::EmptySku, Some("skus[0].sku")),
        (0, vec![figure("p\ns", 1)], Reason::InvalidSku, Some("skus[0].sku")),
        (0, vec![figure(&here, -1)], Reason::InvalidStock, Some("skus[0].available")),
        (0, vec![figure(&here, MAX_STOCK + 1)], Reason::InvalidStock, Some("skus[0].available")),
        (0, many, Reason::TooManyRows, Some("skus")),
    ];
    for (partition, figures, reason, field) in malformed {
        assert_refused(shop.settle(partition, &figures, &new_id()).await, reason, field);
    }
    let identities = [
        (String::new(), Reason::RequestIdRequired),
        ("x".repeat(MAX_ID_BYTES + 1), Reason::InvalidRequestId),
        (sentinel_tests::id_born(Duration::from_secs(2 * 24 * 60 * 60)), Reason::RequestTooOld),
    ];
    for (request_id, reason) in identities {
        assert_refused(shop.settle(0, &[], &request_id).await, reason, Some("request_id"));
    }
    assert_refused(ghost.settle(0, &[], &new_id()).await, Reason::NamespaceNotFound, None);
    assert!(redis.digest("").await == before, "a refusal wrote something");

    let (settlement, figures) = (new_id(), [figure(&here, 5)]);
    shop.settle(0, &figures, &settlement).await.expect("settled");
    assert!(shop.settle(0, &figures, &settlement).await.expect("settled before").replayed);
    let returning = v1::SettledSku { old_holds_return: true, ..figure(&here, 5) };
    for other in [vec![figure(&here, 6)], vec![], vec![returning]] {
        assert_refused(shop.settle(0, &other, &settlement).await, Reason::RequestIdReused, None);
    }
    assert_refused(shop.settle(0, &figures, &new_id()).await, Reason::NotFenced, None);
    assert_eq!(shop.stock(&here).await.available, 5);
    shop.audit().await;
}

/// A fenced partition of `sale` with so many SKUs (`s0`, `s1`, …) that a settlement needs several steps.
async fn many_skus(redis: &mut Redis, shop: &TestClient) {
    const SKUS: usize = 6_000;
    let names: Vec<String> = (0..SKUS).map(|i| format!("s{i}")).collect();
    let messages = names.chunks(1_000).map(|part| {
        let rows = part.iter().map(|sku| v1::ImportRow { sku: sku.clone(), on_hand: 9 }).collect();
        v1::ImportStockRequest {
            namespace_id: "sale".into(),
            request_id: "import".into(),
            rows,
            overwrite: false,
            existing_namespace_only: false,
        }
    });
    let messages: Vec<_> = messages.collect();
    let mut import =
        shop.admin.clone().import_stock(tokio_stream::iter(messages)).await.expect("a stream").into_inner();
    while import.message().await.expect("an answer").is_some() {}
    let copy = redis.files().copy();
    shop.adjust_stock("s0", 1, &new_id()).await.expect("one more");
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(shop, "s0").await).await;
}

/// Two operators settle at the same time, with different figures: one complete set of figures applies.
#[tokio::test(flavor = "multi_thread")]
async fn of_settlements_at_the_same_time_one_wins() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    many_skus(&mut redis, &shop).await;
    let mut operators = JoinSet::new();
    for operator in 0..8 {
        let shop = shop.clone();
        operators.spawn(async move {
            let figures: Vec<_> = (0..500).map(|i| figure(&format!("s{}", i * 12), 100 + operator)).collect();
            (operator, shop.settle(0, &figures, &new_id()).await)
        });
    }
    let (mut winners, mut superseded) = (Vec::new(), 0);
    for (operator, answer) in operators.join_all().await {
        match answer {
            Ok(settled) => winners.push((operator, settled)),
            Err(status) if reason(&status) == Reason::SettlementSuperseded => {
                assert_refused(Err::<(), _>(status), Reason::SettlementSuperseded, None);
                superseded += 1;
            }
            late => assert_refused(late, Reason::NotFenced, None),
        }
    }
    assert!(winners.len() == 1 && superseded > 0, "{winners:?}, {superseded} superseded");
    let (winner, settled) = &winners[0];
    assert!(!settled.replayed);
    for i in (0..6_000).step_by(4) {
        let expected = if i % 12 == 0 { 100 + winner } else { 0 };
        assert_eq!(shop.counts(&format!("s{i}")).await, (expected, 0, 0), "s{i}");
    }
    shop.audit().await;
}

/// A settlement that stops in the middle opens nothing. The same call finishes it.
#[tokio::test]
async fn a_settlement_that_is_cut_off_is_finished_by_its_repeat() {
    let mut redis = Redis::start().await;
    let proxy = LossyProxy::start(&redis).await;
    let flags = format!("--redis-url {} --resend-for 0s --sweep-interval 1m", proxy.url());
    let server = SentinelProcess::launch().flags(&flags).start().await;
    let shop = server.shop("sale");
    many_skus(&mut redis, &shop).await;
    let (settlement, figures) = (new_id(), [figure("s0", 3), figure("s1", 4)]);
    proxy.lose_replies(1);
    let cut = timeout(Duration::from_millis(20), shop.settle(0, &figures, &settlement)).await;
    proxy.lose_replies(0);
    if !matches!(cut, Ok(Ok(_))) {
        let settled = eventually("the repeat settles", async || match shop.settle(0, &figures, &settlement).await {
            Err(status) if may_repeat(&status) => None,
            answer => Some(answer.expect("settled")),
        })
        .await;
        assert!(settled.sequence > 0);
    }
    assert!(shop.settle(0, &figures, &settlement).await.expect("settled before").replayed);
    assert_eq!((shop.counts("s0").await, shop.counts("s1").await), ((3, 0, 0), (4, 0, 0)));
    assert_eq!((shop.counts("s2").await, shop.counts("s5999").await), ((0, 0, 0), (0, 0, 0)));
    shop.audit().await;
}

/// A fault between two writes left the event stream ahead of the state. Every change used to be refused permanently. A
/// settlement repairs it.
#[tokio::test]
async fn a_partition_whose_stream_is_ahead_of_its_state_can_be_settled() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let keys = partition_keys("sale", 0);
    let meta = keys.meta();
    let state: Vec<u8> = redis.query(&Cmd::hget(meta, "state")).await;
    sell(&shop, "ps5", 3).await;
    server.kill9();
    redis.query::<()>(&Cmd::hset(meta, "state", state)).await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    assert_refused(take_one(&shop, "ps5").await, Reason::StoreCorrupt, None);
    assert_refused(shop.adjust_stock("ps5", 1, &new_id()).await, Reason::StoreCorrupt, None);
    shop.settle(0, &[figure("ps5", 7)], &new_id()).await.expect("settled");
    assert_eq!(shop.counts("ps5").await, (7, 0, 3));
    assert_eq!(sell_out(&shop, "ps5").await, 7);
    let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    let sequences: Vec<_> = feed.events.iter().map(|event| event.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "no two changes have one sequence: {sequences:?}");
    shop.audit().await;
}

/// The gate survives a restart of the store: it is on disk before the refusal.
#[tokio::test]
async fn the_gate_is_as_durable_as_a_sale() {
    let (mut lost, ()) = Lost::after(async |shop| drop(shop.supply("ps5", 10).await)).await;
    lost.server.kill9();
    lost.redis.restart().await;
    let later = SentinelProcess::launch().on(&lost.redis).start_unready().await;
    let shop = later.shop("sale");
    let fence = until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    assert_eq!((fence.seen.sequence, fence.kept_sequence), (2, 1));
    shop.settle(0, &[figure("ps5", 10)], &new_id()).await.expect("settled");

    // After the settlement, a restart of the store is an ordinary one.
    lost.redis.restart().await;
    let held = eventually("the store can be used", async || match take_one(&shop, "ps5").await {
        Err(status) if may_repeat(&status) => None,
        answer => Some(answer.expect("it is settled")),
    })
    .await;
    assert!(held.sequence > 3, "{held:?}");
    assert_eq!(later.info().await.fenced_partitions, []);
}
