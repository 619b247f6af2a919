//! A store that comes back as an older copy of itself: the calls that are refused, those that still work, and all
//! servers obey.

use std::time::Duration;

use inventory_sentinel::v1::{self, batch_operation::Operation, batch_result::Result as Outcome};
use sentinel_tests::{
    Redis, SentinelProcess, assert_fenced, assert_point, figure, new_id, reserve_request, until_fenced,
};
use tonic::Status;

use super::{Lost, reported_fence, sell, sell_out, take_one};

/// 100 units and 70 of them sold, when Redis restarts with the copy from 30. The server used to ignore what it had
/// seen, and sold 140 of 100; the audit was clean.
#[tokio::test]
async fn an_older_copy_sells_nothing_until_it_is_settled_and_never_more_than_there_was() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    sell(&shop, "ps5", 30).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 40).await;
    redis.restart_with_copy(&copy).await;

    let fence = until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    assert_eq!((fence.partition, fence.seen.sequence, fence.kept_sequence), (0, 141, 61));
    let reported = reported_fence(&server, 0).await;
    assert_eq!((reported.seen.as_ref(), reported.kept_sequence), (Some(&fence.seen), 61));
    assert!(reported.fenced_at.is_some(), "{reported:?}");
    assert_eq!(shop.counts("ps5").await, (70, 0, 30), "the counters are those of the copy");
    shop.audit().await;

    let settlement = new_id();
    let settled = shop.settle(0, &[figure("ps5", 30)], &settlement).await.expect("settled");
    assert_eq!((settled.skus, settled.replayed), (1, false));
    assert_eq!(shop.counts("ps5").await, (30, 0, 30), "30 are left of 100");
    assert_eq!(server.info().await.fenced_partitions, []);
    assert_eq!(70 + sell_out(&shop, "ps5").await, 100, "all sales that were acknowledged, lost ones included");
    assert_eq!(shop.counts("ps5").await, (0, 0, 60));
    shop.audit().await;

    // The operator repeats the call, although sales went on since.
    let replay = shop.settle(0, &[figure("ps5", 30)], &settlement).await.expect("settled before");
    assert_eq!((replay.skus, replay.replayed), (0, true));
    assert_eq!(shop.counts("ps5").await, (0, 0, 60), "a replay sets nothing");
    assert_eq!(sell_out(&shop, "ps5").await, 0);
}

/// While units can be taken or added, the lost sales can be repeated. The contents of the copy are not in doubt.
#[tokio::test]
async fn a_fenced_partition_takes_and_adds_nothing_and_resolves_what_it_knows() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.supply("vita", 10).await;
    let placed = reserve_request(&[("ps5", 1)]);
    let known = shop.hold_order(placed.clone()).await.reservation_id;
    let bought = shop.hold("ps5", 1).await.reservation_id;
    let returned = shop.hold("ps5", 1).await.reservation_id;
    let expired = shop.hold_for("ps5", 1, Duration::from_millis(1)).await.reservation_id;
    shop.expired(&expired).await;
    let copy = redis.files().copy();
    let lost_order = reserve_request(&[("ps5", 2)]);
    let lost = shop.hold_order(lost_order.clone()).await.reservation_id;
    shop.supply("cable", 5).await;
    redis.restart_with_copy(&copy).await;

    let first = until_fenced("Commit", async || shop.commit(&lost).await).await;
    let before = redis.digest("{sale/0}").await;
    let same = |what: &str, result: Result<(), Status>| {
        assert_eq!(assert_fenced(result), first, "{what} has the details of the first refusal");
    };
    macro_rules! fenced {
        ($($call:expr;)+) => { $(same(stringify!($call), $call.await.map(drop));)+ };
    }
    fenced! {
        take_one(&shop, "ps5");
        take_one(&shop, "unknown");
        shop.reserve(reserve_request(&[("vita", 1), ("ps5", 1)]));
        shop.reserve(lost_order);
        shop.try_is_protected("ps5");
        shop.try_is_protected("cable");
        shop.set_stock("ps5", 100, &new_id());
        shop.set_stock("ps5", 3, &new_id());
        shop.warm_up("cable", 5);
        shop.warm_up("ps5", 100);
        shop.adjust_stock("ps5", 1, &new_id());
        shop.adjust_stock("ps5", -1, &new_id());
        shop.adjust_stock("cable", -1, &new_id());
        shop.delete_sku("vita");
        shop.commit_late(&expired);
        shop.commit(&lost);
        shop.commit_late(&lost);
        shop.rollback(&lost);
        shop.reservation(&lost);
        shop.extend(&lost, Duration::from_secs(900), &new_id());
        shop.try_stock("cable");
    }
    let request = v1::BatchGetStockRequest { namespace_id: "sale".into(), skus: vec!["ps5".into(), "cable".into()] };
    same("BatchGetStock", shop.checkout.clone().batch_get_stock(request).await.map(drop));
    let request = v1::GetSkuRequest { namespace_id: "sale".into(), sku: "cable".into() };
    same("GetSku", shop.admin.clone().get_sku(request).await.map(drop));
    let rows = ["ps5", "cable"].map(|sku| v1::ImportRow { sku: sku.into(), on_hand: 5 });
    for overwrite in [false, true] {
        let (namespace_id, request_id, rows) = ("sale".to_owned(), new_id(), rows.to_vec());
        let message =
            v1::ImportStockRequest { namespace_id, request_id, rows, overwrite, existing_namespace_only: false };
        let import = shop.admin.clone().import_stock(tokio_stream::iter([message])).await.expect("a stream");
        let answer = import.into_inner().message().await.expect("an answer").expect("one for each message");
        let reasons: Vec<_> = answer.results.iter().map(|row| row.reason.as_str()).collect();
        assert_eq!(reasons, ["STORE_FENCED", "STORE_FENCED"], "ImportStock, overwrite: {overwrite}");
    }
    let reserve = v1::ReserveRequest { namespace_id: "sale".into(), ..reserve_request(&[("ps5", 1)]) };
    let operations = vec![v1::BatchOperation { operation: Some(Operation::Reserve(reserve)), timeout: None }];
    let batch = shop.checkout.clone().batch(v1::BatchRequest { operations }).await.expect("a batch").into_inner();
    let Some(Outcome::Failure(failure)) = &batch.results[0].result else { panic!("{batch:?}") };
    assert_eq!(
        (failure.reason.as_str(), failure.metadata["kept_sequence"].parse()),
        ("STORE_FENCED", Ok(first.kept_sequence))
    );
    assert!(redis.digest("{sale/0}").await == before, "a refusal wrote something");

    assert_eq!(shop.counts("ps5").await, (97, 3, 0));
    assert_eq!(shop.reservation(&known).await.expect("it is known").reservation_id, known);
    let replay = shop.reserve(placed).await.expect("it is known");
    assert!(replay.replayed && replay.sequence > 0, "{replay:?}");
    assert!(!shop.commit(&bought).await.expect("it is known").replayed);
    assert!(shop.commit(&bought).await.expect("it is known").replayed);
    shop.rollback(&returned).await.expect("it is known");
    let (_, held, sold) = shop.counts("ps5").await;
    assert_eq!((held, sold), (1, 1));
    shop.audit().await;
    assert_eq!(assert_fenced(take_one(&shop, "ps5").await), first, "what is resolved opens nothing");
}

/// The gate is in the store. Servers that never saw the lost changes obey it.
#[tokio::test]
async fn a_server_that_knows_nothing_obeys_the_gate() {
    let mut redis = Redis::start().await;
    let (server, other) = (SentinelProcess::on(&redis).await, SentinelProcess::on(&redis).await);
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 1).await;
    redis.restart_with_copy(&copy).await;
    let fence = until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    let later = SentinelProcess::launch().on(&redis).start_unready().await;
    for unaware in [&other, &later] {
        let shop = unaware.shop("sale");
        assert_eq!(until_fenced("Reserve", async || take_one(&shop, "ps5").await).await, fence);
        assert_eq!(assert_fenced(shop.try_is_protected("ps5").await), fence);
        assert_eq!(shop.counts("ps5").await, (100, 0, 0));
        assert_eq!(reported_fence(unaware, 0).await.seen, Some(fence.seen.clone()));
    }

    // Any of them settles, and all continue to sell.
    let settlement = new_id();
    later.shop("sale").settle(0, &[figure("ps5", 99)], &settlement).await.expect("settled");
    for server in [&server, &other, &later] {
        server.shop("sale").hold("ps5", 33).await;
        let replay = server.shop("sale").settle(0, &[figure("ps5", 99)], &settlement).await.expect("settled before");
        assert!(replay.replayed, "{replay:?}");
    }
    assert_eq!(sell_out(&shop, "ps5").await, 0);
    shop.audit().await;
}

/// The copy comes back once more, after the settlement: what was sold since then is lost too.
#[tokio::test]
async fn a_second_loss_is_noticed_after_the_first_is_settled() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 4).await;
    for left in [6, 3] {
        redis.restart_with_copy(&copy).await;
        let fence = until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
        assert_point(&fence.seen);
        shop.settle(0, &[figure("ps5", left)], &new_id()).await.expect("settled");
        sell(&shop, "ps5", 3).await;
    }
    assert_eq!(shop.counts("ps5").await, (0, 0, 3), "4 + 3 + 3 units were sold in all");
    shop.audit().await;
}

/// Another namespace of the store lost nothing: it still works.
#[tokio::test]
async fn only_the_partition_that_lost_changes_is_fenced() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let (shop, other) = (server.shop("sale"), server.shop("other"));
    shop.supply("ps5", 10).await;
    other.supply("ps5", 10).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 1).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    sell(&other, "ps5", 10).await;
    assert!(other.is_protected("ps5").await);
    assert_eq!(server.info().await.fenced_partitions.len(), 1);
}

/// The probe compares once a second: no call is needed.
#[tokio::test]
async fn an_older_copy_is_noticed_without_a_call() {
    let (mut redis, server) = {
        let redis = Redis::start().await;
        let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
        (redis, server)
    };
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 2).await;
    redis.restart_with_copy(&copy).await;
    let fenced = reported_fence(&server, 0).await;
    let seen = fenced.seen.expect("what was seen");
    assert_point(&seen);
    assert_eq!((seen.sequence, fenced.kept_sequence), (5, 1));
    assert_fenced(take_one(&shop, "ps5").await);
}

/// Holds expire in a fenced partition: a deadline is a promise to the buyer, not a sale.
#[tokio::test]
async fn holds_expire_in_a_fenced_partition_and_can_not_be_bought_late() {
    let (lost, held) = Lost::after(async |shop| {
        shop.supply("ps5", 10).await;
        shop.hold_for("ps5", 1, Duration::from_secs(3)).await.reservation_id
    })
    .await;
    lost.shop.expired(&held).await;
    assert_fenced(lost.shop.commit_late(&held).await);
    lost.settle(&[figure("ps5", 2)]).await;
    assert_eq!(lost.shop.counts("ps5").await, (2, 0, 0));
    lost.shop.commit_late(&held).await.expect("bought late");
    assert_eq!(lost.shop.counts("ps5").await, (1, 0, 1));
    lost.shop.audit().await;
}
