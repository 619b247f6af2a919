//! A store that comes back empty: FLUSHALL, an empty folder, a partition whose keys are gone. A namespace that a server
//! has seen is never "not found" and never "not protected".

use std::time::Duration;

use deadpool_redis::redis::Cmd;
use inventory_sentinel::{
    Reason,
    v1::{self, reserve_response::Result as Reserved},
};
use sentinel_tests::{
    Fence, LossyProxy, Redis, SentinelProcess, TestClient, assert_fenced, assert_refused, eventually, figure,
    model::execute::may_repeat, new_id, partition_keys, until_fenced,
};
use tokio::task::JoinSet;
use tonic::Status;

use super::{reported_fence, sell, sell_out, take_one};

/// How the store loses everything.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Flushed,
    EmptyFolder,
}

const LOSSES: [Loss; 2] = [Loss::Flushed, Loss::EmptyFolder];

impl Loss {
    async fn happens_to(self, redis: &mut Redis) {
        match self {
            Loss::Flushed => redis.execute::<()>("FLUSHALL").await,
            Loss::EmptyFolder => redis.restart_empty().await,
        }
    }
}

/// A sale of 100 units of `ps5`: 10 are sold and one is held.
struct Sale {
    redis: Redis,
    server: SentinelProcess,
    shop: TestClient,
    held: String,
}

impl Sale {
    async fn start() -> Sale {
        let redis = Redis::start().await;
        let server = SentinelProcess::on(&redis).await;
        let shop = server.shop("sale");
        shop.supply("ps5", 100).await;
        sell(&shop, "ps5", 10).await;
        let held = shop.hold("ps5", 1).await.reservation_id;
        Sale { redis, server, shop, held }
    }
}

/// That everything is lost: 22 changes were seen.
fn assert_all_is_lost(fence: &Fence) {
    assert_eq!((fence.partition, fence.seen.sequence, fence.kept_sequence), (0, 22, 0));
}

macro_rules! emptied {
    ($($name:ident: $what:literal, |$shop:ident, $held:ident| $call:expr;)+) => { $(
        #[tokio::test]
        async fn $name() {
            for loss in LOSSES {
                let Sale { mut redis, server: _server, shop: $shop, held: $held } = Sale::start().await;
                loss.happens_to(&mut redis).await;
                assert_all_is_lost(&until_fenced($what, async || $call.await).await);
                assert_all_is_lost(&assert_fenced($call.await));
            }
        }
    )+ };
}

// Each is the first call after the loss: its answer must not depend on an earlier check. These calls used to return
// SKU_NOT_FOUND and RESERVATION_NOT_FOUND, which are final. IsProtected returned false, which sends all buyers to the
// ordinary path. A repeated warm-up sold all units a second time.
emptied! {
    an_emptied_store_is_not_out_of_skus: "Reserve", |shop, _held| take_one(&shop, "ps5");
    an_emptied_store_has_not_resolved_a_hold: "Commit", |shop, held| shop.commit(&held);
    an_emptied_store_gives_nothing_back: "Rollback", |shop, held| shop.rollback(&held);
    an_emptied_store_does_not_forget_a_reservation: "GetReservation", |shop, held| shop.reservation(&held);
    an_emptied_store_still_protects: "IsProtected", |shop, _held| shop.try_is_protected("ps5");
    an_emptied_store_is_not_warmed_up: "SetStock if_absent", |shop, _held| shop.warm_up("ps5", 100);
    an_emptied_store_takes_no_stock: "SetStock", |shop, _held| shop.set_stock("ps5", 100, &new_id());
    an_emptied_store_takes_no_delta: "AdjustStock", |shop, _held| shop.adjust_stock("ps5", 100, &new_id());
    an_emptied_store_does_not_forget_a_sku: "GetStock", |shop, _held| shop.try_stock("ps5");
    an_emptied_store_has_no_unknown_skus: "BatchGetStock", |shop, _held| batch_get_stock(&shop);
}

async fn batch_get_stock(shop: &TestClient) -> Result<v1::BatchGetStockResponse, Status> {
    let request = v1::BatchGetStockRequest { namespace_id: "sale".into(), skus: vec!["ps5".into()] };
    shop.checkout.clone().batch_get_stock(request).await.map(tonic::Response::into_inner)
}

/// Nobody calls, and an operator reads the state of the server.
#[tokio::test]
async fn an_emptied_store_is_noticed_without_a_call_and_can_be_settled() {
    for loss in LOSSES {
        let Sale { mut redis, server, shop, held } = Sale::start().await;
        let request = v1::GetNamespaceRequest { namespace_id: "sale".into() };
        let config = shop.admin.clone().get_namespace(request.clone()).await.expect("the config").into_inner();
        loss.happens_to(&mut redis).await;
        let fenced = reported_fence(&server, 0).await;
        assert_eq!((fenced.seen.map(|seen| seen.sequence), fenced.kept_sequence), (Some(22), 0), "{loss:?}");
        assert!(server.readyz().await.0, "{loss:?}: what can go on does");
        let kept = shop.admin.clone().get_namespace(request).await.expect("it is known").into_inner();
        assert_eq!(kept.config, config.config, "{loss:?}");

        let opened = shop.settle(0, &[figure("ps5", 89)], &new_id()).await.expect("settled");
        assert_eq!(opened.skus, 1);
        assert_refused(shop.commit(&held).await, Reason::ReservationNotFound, None);
        assert_refused(shop.rollback(&held).await, Reason::ReservationNotFound, None);
        assert_refused(shop.try_stock("vita").await, Reason::SkuNotFound, None);
        assert!(shop.is_protected("ps5").await && !shop.is_protected("vita").await);
        assert_eq!(shop.counts("ps5").await, (89, 0, 0));
        assert_eq!(11 + sell_out(&shop, "ps5").await, 100);
        shop.audit().await;
        assert!(opened.sequence > 0 && server.info().await.fenced_partitions.is_empty());
    }
}

/// Buyers call while the store is emptied: none of them gets a wrong answer.
#[tokio::test(flavor = "multi_thread")]
async fn no_caller_gets_a_wrong_answer_while_a_store_is_emptied() {
    let Sale { redis, server, shop, .. } = Sale::start().await;
    let mut buyers = JoinSet::new();
    for _ in 0..16 {
        let shop = shop.clone();
        buyers.spawn(async move {
            let mut held: Option<String> = None;
            loop {
                let answer = match held.take() {
                    None => take_one(&shop, "ps5").await.map(|answer| match answer.result {
                        Some(Reserved::Reservation(made)) => Some(made.reservation_id),
                        other => panic!("89 units are left for 16 buyers: {other:?}"),
                    }),
                    Some(id) => shop.rollback(&id).await.map(|_| None),
                };
                match answer {
                    Ok(next) => held = next,
                    Err(status) if may_repeat(&status) => {}
                    lost => return assert_fenced(lost),
                }
            }
        });
    }
    let before = shop.stock("ps5").await.version;
    eventually("they buy", async || (shop.stock("ps5").await.version > before + 200).then_some(())).await;
    redis.execute::<()>("FLUSHALL").await;
    for fence in buyers.join_all().await {
        assert!(fence.seen.sequence > before && fence.kept_sequence == 0, "{fence:?}");
    }
    assert_fenced(shop.try_stock("ps5").await);
    reported_fence(&server, 0).await;
}

/// One server has not seen the namespace. A warm-up through it creates the namespace a second time before the other
/// server checks. That other server fences it.
#[tokio::test]
async fn what_an_unaware_server_made_after_the_loss_is_fenced() {
    let redis = Redis::start().await;
    // Its only search for namespaces ends before one exists.
    let unaware = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let aware = SentinelProcess::on(&redis).await;
    let (first, other) = (aware.shop("sale"), unaware.shop("sale"));
    first.supply("ps5", 100).await;
    sell(&first, "ps5", 10).await;
    // It is suspended, so the other server is certainly first.
    aware.stop();
    redis.execute::<()>("FLUSHALL").await;
    other.warm_up("ps5", 100).await.expect("this server has not seen the namespace");
    let made = other.hold("ps5", 1).await.reservation_id;
    aware.cont();

    let fence = until_fenced("Reserve", async || take_one(&first, "ps5").await).await;
    assert_eq!((fence.seen.sequence, fence.kept_sequence), (21, 0));
    assert_eq!(assert_fenced(take_one(&other, "ps5").await), fence);
    assert_fenced(other.try_is_protected("ps5").await);
    assert_fenced(other.warm_up("vita", 1).await);
    // It is fenced with its present data: reservations there can be resolved.
    assert_eq!(other.counts("ps5").await, (99, 1, 0));
    other.commit(&made).await.expect("it is known");
    first.settle(0, &[figure("ps5", 89)], &new_id()).await.expect("settled");
    assert_eq!(10 + 1 + sell_out(&other, "ps5").await, 100);
    assert_eq!(sell_out(&first, "ps5").await, 0);
    first.audit().await;
    other.audit().await;
}

/// The same without calls to the server that has seen the namespace.
#[tokio::test]
async fn what_an_unaware_server_made_is_fenced_without_a_call() {
    let redis = Redis::start().await;
    let unaware = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let aware = SentinelProcess::on(&redis).await;
    aware.shop("sale").supply("ps5", 100).await;
    aware.stop();
    redis.execute::<()>("FLUSHALL").await;
    let other = unaware.shop("sale");
    other.warm_up("ps5", 100).await.expect("this server has not seen the namespace");
    aware.cont();
    reported_fence(&aware, 0).await;
    assert_fenced(take_one(&other, "ps5").await);
}

/// The unaware server creates the namespace with more partitions, so the SKUs of the lost one are in all of them.
#[tokio::test]
async fn every_partition_of_a_namespace_that_took_over_is_fenced() {
    let redis = Redis::start().await;
    let unaware = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m --partitions 4").start().await;
    let aware = SentinelProcess::on(&redis).await;
    let (first, other) = (aware.shop("sale"), unaware.shop("sale"));
    let skus: Vec<String> = (0..16).map(|i| format!("sku-{i}")).collect();
    for sku in &skus {
        first.supply(sku, 10).await;
    }
    aware.stop();
    redis.execute::<()>("FLUSHALL").await;
    for sku in &skus {
        other.warm_up(sku, 10).await.expect("this server has not seen the namespace");
    }
    aware.cont();
    let mut partitions = std::collections::HashSet::new();
    for sku in &skus {
        partitions.insert(until_fenced("Reserve", async || take_one(&first, sku).await).await.partition);
        assert_fenced(take_one(&other, sku).await);
    }
    assert_eq!(partitions.len(), 4, "{partitions:?}");
}

/// The same for one partition whose keys are deleted, in a store that keeps its id: nobody calls.
#[tokio::test]
async fn a_partition_that_is_deleted_is_fenced_without_a_call() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--partitions 2").start().await;
    server.shop("sale").supply("ps5", 100).await;
    redis.query::<()>(&Cmd::del(partition_keys("sale", 1).all())).await;
    assert_eq!(reported_fence(&server, 1).await.kept_sequence, 0);
    assert_eq!(server.info().await.fenced_partitions.len(), 1);
}

/// The keys of one of several partitions are deleted by hand. The others lost nothing and still work.
#[tokio::test]
async fn a_partition_that_is_deleted_is_fenced_and_the_others_go_on() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--partitions 4").start().await;
    let shop = server.shop("sale");
    let (skus, held) = shop.hold_one_of_each(16).await;
    // The last character of an id is the partition.
    let is_lost = |id: &String| id.ends_with('C');
    assert!(held.iter().any(is_lost) && !held.iter().all(is_lost), "{held:?}");
    redis.query::<()>(&Cmd::del(partition_keys("sale", 2).all())).await;
    for (sku, id) in skus.iter().zip(&held) {
        if is_lost(id) {
            let fence = until_fenced("Reserve", async || take_one(&shop, sku).await).await;
            assert_eq!((fence.partition, fence.kept_sequence), (2, 0));
            assert_fenced(shop.commit(id).await);
            assert_fenced(shop.try_is_protected(sku).await);
        } else {
            take_one(&shop, sku).await.expect("nothing is lost here");
            shop.commit(id).await.expect("nothing is lost here");
        }
    }
    let fenced = server.info().await.fenced_partitions;
    assert_eq!(fenced.iter().map(|fenced| fenced.partition).collect::<Vec<_>>(), [2]);
    let figures: Vec<_> = skus.iter().zip(&held).filter(|(_, id)| is_lost(id)).map(|(sku, _)| figure(sku, 9)).collect();
    shop.settle(2, &figures, &new_id()).await.expect("settled");
    for figure in &figures {
        assert_eq!(sell_out(&shop, &figure.sku).await, 9);
    }
    shop.audit().await;
}

/// The reply to a batch is lost, and then the partition. A repeat of the batch cannot reveal its outcome. Such repeats
/// used to block the lane for the duration of `--resend-for`.
#[tokio::test]
async fn a_lost_reply_does_not_keep_the_lane_from_a_lost_partition() {
    const LIMIT: Duration = Duration::from_secs(15);
    let redis = Redis::start().await;
    let proxy = LossyProxy::start(&redis).await;
    let flags = format!("--redis-url {} --resend-for 5m --sweep-interval 1m", proxy.url());
    let server = SentinelProcess::launch().flags(&flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    sell(&shop, "ps5", 1).await;
    proxy.lose_a_reply_and_go_away();
    let doubtful = tokio::spawn({
        let shop = shop.clone();
        async move { take_one(&shop, "ps5").await }
    });
    eventually("its reply is lost", async || (proxy.lost() == 1).then_some(())).await;
    redis.execute::<()>("FLUSHALL").await;
    proxy.come_back();
    let answer = tokio::time::timeout(LIMIT, doubtful).await.expect("the resends end").expect("a call");
    assert_refused(answer, Reason::OutcomeUnknown, None);
    until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
}
