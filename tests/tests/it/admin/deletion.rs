//! DeleteNamespace: interrupted and repeated, with other servers, old tokens and an older store. And how namespaces are
//! created: their number, and mistyped names.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value};
use inventory_sentinel::{Reason, v1};
use inventory_sentinel_client::DeleteNamespaceError;
use inventory_sentinel_script::{keys::NAMESPACES, script::script_source};
use sentinel_tests::{
    Redis, SentinelProcess, TestClient, assert_refused, eventually, figure, new_id, partition_keys, reason,
    reserve_request, script_call, until_fenced,
};
use tempfile::TempDir;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::streams::{
    events::{Feed, ended},
    stock::{watch_protected, watch_stock},
};

const RESUMED: &str = "inventory_sentinel_resumed_deletions_total";

async fn delete(shop: &TestClient, request_id: &str) -> Result<bool, Status> {
    let request =
        v1::DeleteNamespaceRequest { namespace_id: shop.namespace.clone(), request_id: request_id.to_owned() };
    shop.admin.clone().delete_namespace(request).await.map(|answer| answer.into_inner().replayed)
}

async fn names(shop: &TestClient) -> Vec<String> {
    let request = v1::ListNamespacesRequest { page_size: 1_000, ..Default::default() };
    let page = shop.admin.clone().list_namespaces(request).await.expect("a page").into_inner();
    page.namespaces.into_iter().map(|listed| listed.namespace_id).collect()
}

/// All keys of `sale`, by a raw pattern: it must not miss a key that [`partition_keys`] lacks.
async fn keys(redis: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = redis.execute("KEYS is:{sale/*").await;
    keys.sort();
    keys
}

fn meta(partition: u16) -> String {
    partition_keys("sale", partition).meta().to_owned()
}

fn metadata(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info().and_then(|info| info.metadata.get(key).cloned())
}

/// Waits until the call is refused for this reason.
async fn until_refused<T>(what: &str, expected: Reason, mut call: impl AsyncFnMut() -> Result<T, Status>) {
    eventually(what, async || call().await.err().filter(|status| reason(status) == expected)).await;
}

/// Nothing of a deleted namespace can be read or changed here.
async fn assert_gone(shop: &TestClient, reservation: &str) {
    assert_refused(shop.try_stock("ps5").await, Reason::NamespaceNotFound, None);
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::NamespaceNotFound, None);
    assert_refused(shop.commit(reservation).await, Reason::NamespaceNotFound, None);
    let list = v1::ListStockRequest { namespace_id: shop.namespace.clone(), ..Default::default() };
    assert_refused(shop.admin.clone().list_stock(list).await, Reason::NamespaceNotFound, None);
    let config = v1::GetNamespaceRequest { namespace_id: shop.namespace.clone() };
    assert_refused(shop.admin.clone().get_namespace(config).await, Reason::NamespaceNotFound, None);
    let audit = v1::AuditRequest { namespace_id: shop.namespace.clone() };
    assert_refused(shop.admin.clone().audit(audit).await, Reason::NamespaceNotFound, None);
}

#[tokio::test]
async fn a_deleted_namespace_leaves_a_tombstone_and_a_repeat_is_a_replay() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--partitions 3").start().await;
    let shop = server.shop("sale");
    assert_refused(delete(&shop, "first").await, Reason::NamespaceNotFound, None);
    let (_, held) = shop.hold_one_of_each(12).await;
    let status = delete(&shop, "first").await.expect_err("units are held");
    assert_refused(Err::<(), _>(status.clone()), Reason::NamespaceHasHolds, None);
    let number = |key| metadata(&status, key).and_then(|value| value.parse::<i64>().ok());
    assert!(number("held") > Some(0) && number("partition") < Some(3), "{status:?}");
    // A repeat changes nothing.
    for (id, sku) in held.iter().zip(0..) {
        shop.commit(id).await.expect("sold");
        shop.supply(&format!("sku-{sku}"), 5).await;
    }
    assert!(!delete(&shop, "first").await.expect("deleted"));
    assert_gone(&shop, &held[0]).await;
    assert_eq!(names(&shop).await, Vec::<String>::new());
    assert_eq!(keys(&redis).await, [0, 1, 2].map(meta));
    let fields: Vec<String> = redis.execute(&format!("HKEYS {}", meta(0))).await;
    assert_eq!(fields, ["deleted"]);
    let bytes: i64 = redis.execute(&format!("MEMORY USAGE {}", meta(0))).await;
    assert!(bytes < 400, "{bytes}");
    assert!(delete(&shop, "first").await.expect("a replay"));
    assert_refused(delete(&shop, "second").await, Reason::NamespaceNotFound, None);
    assert_refused(delete(&shop, "").await, Reason::NamespaceNotFound, None);

    // A delayed duplicate does not delete the namespace that took the name.
    shop.supply("ps5", 7).await;
    assert!(delete(&shop, "first").await.expect("a replay"));
    assert_eq!(shop.counts("ps5").await, (7, 0, 0));
    assert_eq!(server.metric("inventory_sentinel_fenced_partitions").await, 0.0);

    let client = server.client().await.namespace("sale").admin();
    assert!(!client.delete_namespace().await.expect("deleted"));
    assert!(matches!(client.delete_namespace().await, Err(DeleteNamespaceError::NamespaceNotFound(_))));
}

#[tokio::test]
async fn holds_that_are_due_are_given_back_first() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let mut last = shop.hold_for("ps5", 1, Duration::from_millis(300)).await;
    for _ in 0..300 {
        last = shop.hold_for("ps5", 1, Duration::from_millis(300)).await;
    }
    let due = sentinel_tests::millis(last.expires_at);
    eventually("the last hold is due", async || (redis.now().await > due).then_some(())).await;
    assert!(!delete(&shop, "a").await.expect("deleted"));
    assert_gone(&shop, &last.reservation_id).await;
}

/// A request id that was used in the namespace is refused for its deletion.
#[tokio::test]
async fn an_identity_of_another_request_deletes_nothing() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.set_stock("ps5", 3, "opening").await.expect("set");
    assert_refused(delete(&shop, "opening").await, Reason::RequestIdReused, None);
    assert_eq!(shop.counts("ps5").await, (3, 0, 0));
}

/// Other servers notice the deletion, in memory and in their files. They neither fence the namespace nor create it
/// again.
#[tokio::test]
async fn other_servers_forget_a_deleted_namespace_and_take_the_next_one_for_another() {
    let (redis, state) = (Redis::start().await, TempDir::with_prefix("sentinel-state-").expect("a folder"));
    let one = SentinelProcess::on(&redis).await;
    let two = SentinelProcess::on(&redis).await;
    let mut three = SentinelProcess::launch().on(&redis).state_dir(state.path()).start().await;
    let (shop, other, absent) = (one.shop("sale"), two.shop("sale"), three.shop("sale"));
    shop.supply("ps5", 10).await;
    let sold = other.hold("ps5", 1).await.reservation_id;
    absent.commit(&sold).await.expect("sold");
    assert_eq!(absent.counts("ps5").await, (9, 0, 1));
    let mut feed = Feed::open(&other, "", true).await.expect("a stream");
    feed.catch_up().await;
    let token = feed.token.clone();
    let mut stock = watch_stock(&other, &["ps5"], Duration::from_millis(10), "").await;
    let mut protected = watch_protected(&other, "").await;
    let page = v1::ListStockRequest { namespace_id: "sale".into(), page_size: 1, ..Default::default() };
    shop.supply("vita", 1).await;
    let mut page_token = String::new();
    for sku in 0..600 {
        shop.supply(&format!("sku-{sku}"), 1).await;
        if sku > 520 && page_token.is_empty() {
            page_token =
                shop.admin.clone().list_stock(page.clone()).await.expect("a page").into_inner().next_page_token;
        }
    }
    assert!(!page_token.is_empty());
    // This server has the namespace in its file only.
    three.terminate();
    assert!(three.exit().await.success(), "{}", three.log());

    assert!(!delete(&shop, "end").await.expect("deleted"));
    assert_eq!(reason(&ended(&mut feed.stream).await), Reason::NamespaceNotFound);
    assert_eq!(reason(&ended(&mut stock).await), Reason::NamespaceNotFound);
    assert_eq!(reason(&ended(&mut protected).await), Reason::NamespaceNotFound);
    until_refused("GetStock", Reason::NamespaceNotFound, async || other.try_stock("ps5").await).await;
    assert_gone(&other, &sold).await;
    three.restart().await;
    let absent = three.shop("sale");
    assert_gone(&absent, &sold).await;
    assert!(delete(&absent, "end").await.expect("a replay on any server"));
    // Each sweeper reads the list of namespaces within 5 s.
    let start = redis.now().await;
    eventually("each server has read the list", async || (redis.now().await > start + 6_000).then_some(())).await;
    for server in [&one, &two, &three] {
        assert_eq!(server.info().await.fenced_partitions, []);
        assert!(!server.log().contains("lost acknowledged"), "{}", server.log());
        assert!(!server.log().contains("can't be"), "{}", server.log());
        assert_gone(&server.shop("sale"), &sold).await;
    }
    assert_eq!(keys(&redis).await, [meta(0)]);

    // Another namespace of the same name.
    let absent = three.shop("sale");
    absent.supply("ps5", 2).await;
    for shop in [&shop, &other, &absent] {
        assert_eq!(shop.counts("ps5").await, (2, 0, 0));
        assert_refused(shop.commit(&sold).await, Reason::ReservationNotFound, None);
        let resumed = async { Feed::open(shop, &token, false).await?.next().await.map(|_| ()) };
        assert_refused(resumed.await, Reason::EventsCompacted, None);
        let next = v1::ListStockRequest { page_token: page_token.clone(), ..page.clone() };
        assert_refused(shop.admin.clone().list_stock(next).await, Reason::InvalidPageToken, Some("page_token"));
        let held = shop.hold("ps5", 1).await.reservation_id;
        shop.rollback(&held).await.expect("given back");
    }
    three.terminate();
    assert!(three.exit().await.success(), "{}", three.log());
    three.restart().await;
    assert_eq!(three.shop("sale").counts("ps5").await, (2, 0, 0));
    for server in [&one, &two, &three] {
        assert_eq!(server.info().await.fenced_partitions, []);
    }
}

/// The steps of a deletion of a namespace with one partition. A server may die after any of them.
fn steps(epoch: u64) -> Vec<Cmd> {
    let (token, request) = ([7_u8; 16], [8_u8; 16]);
    let closing = [&[1][..], &token, &request].concat();
    let mut close = script_call(&script_source());
    close.arg(epoch).arg("g").arg("close_partition").arg(closing).arg(&[9_u8; 16][..]).arg("");
    let mut steps = vec![close];
    let mut add = |step: &str, number: usize| {
        let mut command = script_call(&script_source());
        command.arg("delete").arg(step).arg(&token[..]).arg(number);
        steps.push(command);
    };
    add("decide", 0);
    (2..=7).for_each(|number| add("unlink", number));
    let mut unregister = Cmd::new();
    unregister.arg("SREM").arg(NAMESPACES).arg("sale");
    steps.push(unregister);
    steps
}

#[tokio::test]
async fn a_deletion_that_ended_anywhere_goes_on_when_it_is_repeated() {
    for done in 1..=9 {
        let mut redis = Redis::start().await;
        let mut server = SentinelProcess::launch().on(&redis).start().await;
        let shop = server.shop("sale");
        shop.supply("ps5", 10).await;
        let sold = shop.hold("ps5", 2).await.reservation_id;
        shop.commit(&sold).await.expect("sold");
        let steps = steps(sentinel_tests::epoch(&redis).await);
        assert_eq!(steps.len(), 9);
        for step in &steps[..done] {
            redis.query::<Value>(step).await;
        }
        if done % 3 == 0 {
            redis.kill9();
            redis.restart().await;
            server.kill9();
            server.restart().await;
        }
        let shop = server.shop("sale");
        if done == 1 {
            // The deletion can still be cancelled, so no answer is final.
            until_refused("GetStock", Reason::StoreUnavailable, async || shop.try_stock("ps5").await).await;
            assert_refused(shop.commit(&sold).await, Reason::StoreUnavailable, None);
        } else {
            until_refused("GetStock", Reason::NamespaceNotFound, async || shop.try_stock("ps5").await).await;
            assert_gone(&shop, &sold).await;
        }
        // It is not created again meanwhile.
        assert_refused(shop.set_stock("ps5", 3, &new_id()).await, Reason::StoreUnavailable, None);
        let other = SentinelProcess::on(&redis).await;
        assert!(!delete(&other.shop("sale"), "end").await.expect("deleted"));
        assert_eq!(keys(&redis).await, [meta(0)], "{done}");
        until_refused("GetStock", Reason::NamespaceNotFound, async || shop.try_stock("ps5").await).await;
        shop.supply("ps5", 4).await;
        assert_eq!(other.shop("sale").counts("ps5").await, (4, 0, 0));
        assert_eq!(server.info().await.fenced_partitions, []);
        // A late step of the cancelled call changes nothing.
        for step in &steps[1..] {
            redis.query::<Value>(step).await;
        }
        assert_eq!(shop.counts("ps5").await, (4, 0, 0));
    }
}

/// Nobody repeats the deletion: the server completes or cancels it.
#[tokio::test]
async fn a_deletion_that_its_caller_has_left_is_ended_by_the_server() {
    for done in [1, 2, 8] {
        let redis = Redis::start().await;
        let mut server = SentinelProcess::launch().on(&redis).start().await;
        server.shop("sale").supply("ps5", 10).await;
        for step in &steps(sentinel_tests::epoch(&redis).await)[..done] {
            redis.query::<Value>(step).await;
        }
        // This process has not opened the namespace.
        server.kill9();
        server.restart().await;
        let shop = server.shop("sale");
        // Where the list of namespaces lacks it, this call makes the server find it.
        assert_refused(shop.set_stock("ps5", 3, &new_id()).await, Reason::StoreUnavailable, None);
        eventually("it is ended", async || (keys(&redis).await == [meta(0)]).then_some(())).await;
        eventually("it is counted", async || (server.metric(RESUMED).await == 1.0).then_some(())).await;
        shop.supply("ps5", 4).await;
        assert_eq!(shop.counts("ps5").await, (4, 0, 0));
    }
}

#[tokio::test]
async fn a_deletion_that_its_caller_has_left_is_given_up_where_units_are_held() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--partitions 2").start().await;
    let shop = server.shop("sale");
    let (_, held) = shop.hold_one_of_each(8).await;
    let is_first = |id: &&String| id.ends_with('A');
    for id in held.iter().filter(is_first) {
        shop.commit(id).await.expect("sold");
    }
    redis.query::<Value>(&steps(sentinel_tests::epoch(&redis).await)[0]).await;
    let last = held.iter().find(|id| !is_first(id)).expect("one of the second partition");
    eventually("it is given up", async || (server.metric(RESUMED).await == 1.0).then_some(())).await;
    eventually("the namespace is back", async || shop.commit(last).await.ok()).await;
    assert_eq!(shop.audit().await.skus, 8);
}

/// A partition received holds while others were already closed: all are opened again.
#[tokio::test]
async fn a_deletion_that_is_given_up_leaves_the_namespace_as_it_was() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--partitions 2").start().await;
    let shop = server.shop("sale");
    let (skus, held) = shop.hold_one_of_each(8).await;
    let is_first = |id: &&String| id.ends_with('A');
    for id in held.iter().filter(is_first) {
        shop.commit(id).await.expect("sold");
    }
    let before = redis.digest("").await;
    // As after a server that died: the first partition is closed.
    let close = &steps(sentinel_tests::epoch(&redis).await)[0];
    redis.query::<Value>(close).await;
    let status = delete(&shop, "end").await.expect_err("units are held");
    assert_eq!((reason(&status), metadata(&status, "partition")), (Reason::NamespaceHasHolds, Some("1".into())));
    let last = held.iter().find(|id| !is_first(id)).expect("one of the second partition");
    eventually("the namespace is back", async || shop.commit(last).await.ok()).await;
    let audit = shop.audit().await;
    assert_eq!((audit.skus, audit.supplied), (skus.len() as i64, 80));
    assert_eq!(before.len(), redis.digest("").await.len());
    assert_eq!(server.info().await.fenced_partitions, []);
}

/// The backup was made before the namespace was deleted. Its units may have been sold since, or moved elsewhere.
#[tokio::test]
async fn a_store_that_comes_back_with_a_deleted_namespace_is_fenced() {
    let (mut redis, state) = (Redis::start().await, TempDir::with_prefix("sentinel-state-").expect("a folder"));
    let mut server = SentinelProcess::launch().on(&redis).state_dir(state.path()).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let sold = shop.hold("ps5", 1).await.reservation_id;
    shop.commit(&sold).await.expect("sold");
    let copy = redis.files().copy();
    assert!(!delete(&shop, "end").await.expect("deleted"));
    server.terminate();
    assert!(server.exit().await.success(), "{}", server.log());
    redis.restart_with_copy(&copy).await;
    server.restart_unready().await;
    let shop = server.shop("sale");
    until_fenced("Reserve", async || shop.reserve(reserve_request(&[("ps5", 1)])).await).await;
    // The restored namespace is settled, and deleted again.
    assert_refused(delete(&shop, "again").await, Reason::StoreFenced, None);
    shop.settle(0, &[figure("ps5", 0)], &new_id()).await.expect("settled");
    assert!(!delete(&shop, "again").await.expect("deleted"));
    assert_gone(&shop, &sold).await;
    shop.supply("ps5", 1).await;
    assert_eq!(server.info().await.fenced_partitions, []);
}

/// Calls that are under way while the namespace is deleted get an answer, and none of them is lost in between.
#[tokio::test]
async fn what_is_under_way_gets_a_definite_answer() {
    let redis = Redis::start().await;
    let (one, two) = (SentinelProcess::on(&redis).await, SentinelProcess::on(&redis).await);
    let shop = one.shop("sale");
    shop.supply("ps5", 100_000).await;
    let sells = |shop: TestClient| async move {
        let mut last = None;
        for _ in 0..1_000_000 {
            match shop.reserve(reserve_request(&[("ps5", 1)])).await {
                Ok(answer) => {
                    let Some(v1::reserve_response::Result::Reservation(held)) = answer.result else { continue };
                    match shop.rollback(&held.reservation_id).await {
                        Ok(_) => {}
                        Err(status) => return (Some(status), last),
                    }
                }
                Err(status) if reason(&status) == Reason::NamespaceNotFound => return (None, last),
                Err(status) => last = Some(status),
            }
        }
        unreachable!("the namespace is deleted before");
    };
    let callers: Vec<_> =
        (0..16).map(|i| tokio::spawn(sells(if i % 2 == 0 { shop.clone() } else { two.shop("sale") }))).collect();
    eventually("nothing is held for a moment", async || delete(&shop, "end").await.ok()).await;
    for caller in callers {
        let (lost, last) = caller.await.expect("it ends");
        assert!(lost.is_none(), "a hold went with the namespace: {lost:?}");
        if let Some(status) = last {
            assert_eq!(reason(&status), Reason::StoreUnavailable, "{status:?}");
        }
    }
}

/// Concurrent deletions, on two servers and of several partitions. Later calls continue the steps of earlier ones.
#[tokio::test]
async fn deletions_at_the_same_time_all_end_and_the_namespace_is_gone() {
    let redis = Redis::start().await;
    let one = SentinelProcess::launch().on(&redis).flags("--partitions 4").start().await;
    let two = SentinelProcess::on(&redis).await;
    for round in 0..5 {
        let shop = one.shop("sale");
        for sku in 0..20 {
            shop.supply(&format!("sku-{sku}"), 1).await;
        }
        let deletions = (0..8).map(|i| {
            let (shop, id) = (if i % 2 == 0 { shop.clone() } else { two.shop("sale") }, format!("{round}-{}", i / 2));
            tokio::spawn(async move { delete(&shop, &id).await })
        });
        for deletion in deletions.collect::<Vec<_>>() {
            match deletion.await.expect("it ends") {
                Ok(_) => {}
                // The call arrived after the namespace was deleted.
                Err(status) => assert_eq!(reason(&status), Reason::NamespaceNotFound, "{status:?}"),
            }
        }
        assert_eq!(keys(&redis).await.len(), 4, "tombstones only");
        assert_eq!(names(&shop).await, Vec::<String>::new());
        for server in [&one, &two] {
            let shop = server.shop("sale");
            until_refused("GetStock", Reason::NamespaceNotFound, async || shop.try_stock("sku-1").await).await;
            assert_eq!(server.info().await.fenced_partitions, []);
        }
    }
}

#[tokio::test]
async fn there_are_no_more_namespaces_than_the_limit() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--max-namespaces 2").start().await;
    let shop = |name: &str| server.shop(name);
    shop("one").supply("ps5", 1).await;
    shop("two").supply("ps5", 1).await;
    let refused = shop("three").set_stock("ps5", 1, &new_id()).await;
    assert_refused(refused, Reason::TooManyNamespaces, None);
    assert_refused(shop("three").adjust_stock("ps5", 1, &new_id()).await, Reason::TooManyNamespaces, None);
    let configure = |name: &str| v1::ConfigureNamespaceRequest {
        namespace_id: name.into(),
        config: Some(v1::NamespaceConfig { quota_skus: Some(7), ..Default::default() }),
        ..Default::default()
    };
    let mut admin = server.admin();
    assert_refused(admin.configure_namespace(configure("three")).await, Reason::TooManyNamespaces, None);
    admin.configure_namespace(configure("two")).await.expect("one that is there");
    assert_eq!(keys(&redis).await, Vec::<String>::new());
    shop("one").supply("pad", 1).await;
    assert!(!delete(&shop("one"), "end").await.expect("deleted"));
    shop("three").supply("ps5", 1).await;
    assert_refused(shop("one").set_stock("ps5", 1, &new_id()).await, Reason::TooManyNamespaces, None);
}

#[tokio::test]
async fn a_mistyped_namespace_is_not_made() {
    let redis = Redis::start().await;
    let explicit = SentinelProcess::launch().on(&redis).flags("--create-namespaces explicit").start().await;
    let usual = SentinelProcess::on(&redis).await;
    let (shop, mut admin) = (explicit.shop("slae"), usual.admin());
    let status = shop.set_stock("ps5", 1, &new_id()).await.expect_err("no namespace");
    assert_eq!((reason(&status), metadata(&status, "namespace")), (Reason::NamespaceNotFound, Some("slae".into())));
    assert!(status.message().contains("slae"), "{status:?}");
    assert_refused(shop.adjust_stock("ps5", 1, &new_id()).await, Reason::NamespaceNotFound, None);
    let set = v1::SetStockRequest {
        namespace_id: "slae".into(),
        sku: "ps5".into(),
        on_hand: 1,
        request_id: new_id(),
        existing_namespace_only: true,
        ..Default::default()
    };
    assert_refused(admin.set_stock(set.clone()).await, Reason::NamespaceNotFound, None);
    let client = usual.client().await.namespace("slae").admin().existing_namespace_only();
    assert!(client.set_stock("ps5", 1).await.is_err());
    assert!(client.adjust_stock("ps5", 1).await.is_err());
    assert!(client.import_stock([("ps5", 1)]).await.is_err());
    assert_eq!(names(&shop).await, Vec::<String>::new());

    let config = Some(v1::NamespaceConfig { quota_skus: Some(7), ..Default::default() });
    let request = v1::ConfigureNamespaceRequest { namespace_id: "slae".into(), config, ..Default::default() };
    explicit.admin().configure_namespace(request).await.expect("made");
    admin.set_stock(set).await.expect("set");
    shop.supply("pad", 1).await;
    assert!(client.import_stock([("cable", 1)]).await.is_ok());
}
