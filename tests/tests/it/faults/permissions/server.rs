//! A server whose Redis user lacks a permission: calls, `/readyz`, the log, and recovery.

use std::{collections::HashSet, time::Duration};

use deadpool_redis::redis::Value;
use inventory_sentinel::{Reason, v1};
use sentinel_server::least_acl;
use sentinel_tests::{
    LossyProxy, Redis, SentinelProcess, assert_refused, eventually, figure, new_id, reserve_request, until_fenced,
};
use tokio::time::timeout;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::streams::{
    events::{Feed, next},
    stock::{watch_protected, watch_stock},
};

use super::{USER, rules, without};

/// The connections of a server try these too, and work without them.
const OPTIONAL: [&str; 2] = ["client|setinfo", "config|get"];

/// The rules that the metadata of STORE_DENIED names.
fn missing(status: &Status) -> String {
    assert_refused(Err::<(), _>(status.clone()), Reason::StoreDenied, None);
    let metadata = status.get_details_error_info().expect("an ErrorInfo").metadata;
    let missing = metadata.get("missing").unwrap_or_else(|| panic!("no rules in {status:?}")).clone();
    assert!(status.message().contains(&missing), "{status:?}");
    missing
}

/// Waits until the server is not ready because it lacks exactly these rules.
async fn until_it_lacks(server: &SentinelProcess, rules: &str) {
    let reported = format!("store: the Redis user of the service lacks permissions: grant {rules} (");
    eventually(&format!("it lacks {rules}"), async || server.readyz().await.1.contains(&reported).then_some(())).await;
    assert!(!server.readyz().await.0);
    assert_eq!(crate::operations::process::health(server).await, "NotServing");
}

/// The commands and keys that Redis has refused to the user.
async fn refused_by(redis: &Redis) -> HashSet<String> {
    let log: Vec<Vec<Value>> = redis.execute("ACL LOG 1000").await;
    let field = |entry: &[Value], name: &str| {
        let at = entry.iter().position(|value| *value == Value::BulkString(name.into())).expect(name) + 1;
        let Value::BulkString(text) = &entry[at] else { panic!("{entry:?}") };
        String::from_utf8(text.clone()).expect("text")
    };
    log.iter().map(|entry| field(entry, "object")).collect()
}

#[tokio::test]
async fn everything_works_under_the_documented_permissions() {
    let mut redis = Redis::start().await;
    redis.permit(USER, &least_acl()).await;
    let server =
        SentinelProcess::launch().on_as(&redis, USER).flags("--retention 1s --sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.warm_up("vita", 10).await.expect("a warm-up");
    shop.adjust_stock("vita", 5, &new_id()).await.expect("five more");
    let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
    let mut stock = watch_stock(&shop, &[], Duration::from_millis(10), "").await;
    let mut protected = watch_protected(&shop, "").await;
    next(&mut stock).await.expect("a table");
    next(&mut protected).await.expect("a table");

    // A hold, and each way to resolve one.
    let sold = shop.hold("ps5", 2).await.reservation_id;
    shop.commit(&sold).await.expect("sold");
    let back = shop.hold("ps5", 1).await.reservation_id;
    shop.rollback(&back).await.expect("given back");
    let parts = shop.hold("ps5", 3).await.reservation_id;
    shop.commit_lines(&parts, &[("ps5", 1)], v1::RestPolicy::Keep, &new_id()).await.expect("sold in part");
    shop.rollback_lines(&parts, &[("ps5", 1)], &new_id()).await.expect("given back in part");
    shop.extend(&parts, Duration::from_secs(100), &new_id()).await.expect("extended");
    shop.commit(&parts).await.expect("the rest");
    let late = shop.hold_for("ps5", 1, Duration::from_millis(1)).await.reservation_id;
    shop.expired(&late).await;
    shop.commit_late(&late).await.expect("repurchased");

    // Rules.
    let limit = v1::SkuRules { buyer_limit: Some(2), ..Default::default() };
    shop.configure("vita", limit).await.expect("a limit");
    let cart = || v1::ReserveRequest { buyer_id: "mo".into(), ..reserve_request(&[("vita", 2)]) };
    let counted = shop.hold_order(cart()).await.reservation_id;
    assert_refused(shop.reserve(cart()).await, Reason::BuyerLimit, None);
    shop.rollback(&counted).await.expect("given back, and counted no more");
    let held = shop.hold_order(cart()).await.reservation_id;
    let swap =
        v1::ReserveRequest { replaces_reservation_id: held, buyer_id: "mo".into(), ..reserve_request(&[("vita", 1)]) };
    let swapped = shop.hold_order(swap).await.reservation_id;
    shop.rollback(&swapped).await.expect("given back");
    shop.protect("vita", false).await.expect("not protected");
    assert!(!shop.is_protected("vita").await);
    let config = v1::NamespaceConfig { quota_skus: Some(50), ..Default::default() };
    let namespace_id = "sale".to_owned();
    let change = v1::ConfigureNamespaceRequest { namespace_id, config: Some(config), ..Default::default() };
    shop.admin.clone().configure_namespace(change).await.expect("another quota");

    // Many at once.
    let namespace_id = || "sale".to_owned();
    let rows = (0..50).map(|i| v1::ImportRow { sku: format!("s{i}"), on_hand: 5 }).collect();
    let message = v1::ImportStockRequest {
        namespace_id: namespace_id(),
        request_id: new_id(),
        rows,
        overwrite: false,
        existing_namespace_only: false,
    };
    let import = shop.admin.clone().import_stock(tokio_stream::iter([message])).await.expect("a stream");
    import.into_inner().message().await.expect("an answer").expect("one for each message");
    shop.delete_sku("s7").await.expect("gone");
    let list = v1::ListNamespacesRequest::default();
    assert_eq!(shop.admin.clone().list_namespaces(list).await.expect("a page").into_inner().namespaces.len(), 1);
    let list = v1::ListStockRequest { namespace_id: namespace_id(), ..Default::default() };
    shop.admin.clone().list_stock(list).await.expect("a page");
    let list = v1::ListReservationsRequest { namespace_id: namespace_id(), ..Default::default() };
    shop.admin.clone().list_reservations(list).await.expect("a page");
    feed.catch_up().await;
    next(&mut stock).await.expect("changes");
    next(&mut protected).await.expect("changes");

    // Redis loses the script, and records are forgotten.
    redis.execute::<()>("SCRIPT FLUSH").await;
    shop.hold_for("ps5", 1, Duration::from_millis(1)).await;
    eventually("a generation of records is deleted", async || {
        shop.adjust_stock("ps5", 1, &new_id()).await.expect("one more");
        shop.reservation(&sold).await.is_err().then_some(())
    })
    .await;
    shop.audit().await;

    // A loss, and its settlement.
    let copy = redis.files().copy();
    shop.supply("lost", 1).await;
    let refused = refused_by(&redis).await;
    redis.kill9();
    redis.files().put_back(&copy);
    redis.restart().await;
    redis.permit(USER, &least_acl()).await;
    until_fenced("SetStock", async || shop.set_stock("found", 1, &new_id()).await).await;
    shop.settle(0, &[figure("ps5", 60), figure("vita", 9)], &new_id()).await.expect("settled");
    let id = shop.hold("ps5", 1).await.reservation_id;
    shop.commit(&id).await.expect("sold");
    shop.audit().await;
    server.wait_until_ready().await;

    let refused: HashSet<_> = refused.union(&refused_by(&redis).await).cloned().collect();
    assert!(refused.is_subset(&OPTIONAL.map(str::to_owned).into()), "these were refused: {refused:?}");
    assert!(refused.contains("config|get"), "it is optional");
}

/// Takes these rules away, one after the other, from the user of a server in the middle of a sale.
async fn each_missing_rule_is_named_and_heals(rules: &[String]) {
    let redis = Redis::start().await;
    redis.permit(USER, &least_acl()).await;
    let server = SentinelProcess::launch().on_as(&redis, USER).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let mut sold = 0;
    for rule in rules {
        let held = shop.hold("ps5", 1).await.reservation_id;
        redis.permit(USER, &without(rule)).await;
        until_it_lacks(&server, rule).await;
        let before = redis.digest("").await;
        for refused in [
            shop.reserve(reserve_request(&[("ps5", 1)])).await.map(drop),
            shop.commit(&held).await.map(drop),
            shop.set_stock("ps5", 1, &new_id()).await.map(drop),
            shop.try_stock("ps5").await.map(drop),
            shop.try_is_protected("ps5").await.map(drop),
            shop.try_audit().await.map(drop),
            shop.admin.clone().list_namespaces(v1::ListNamespacesRequest::default()).await.map(drop),
        ] {
            assert_eq!(missing(&refused.expect_err("no call passes")), *rule);
        }
        assert!(redis.digest("").await == before, "{rule}: something was written");
        redis.permit(USER, rule).await;
        server.wait_until_ready().await;
        shop.commit(&held).await.expect("the sale continues");
        sold += 1;
    }
    assert_eq!(shop.counts("ps5").await, (100 - sold, 0, sold));
    shop.audit().await;

    let lines = server.log_lines();
    for rule in rules {
        let grant = format!("grant {rule} (");
        let logged = lines.iter().filter(|line| line["reason"].as_str().is_some_and(|reason| reason.contains(&grant)));
        assert_eq!(logged.count(), 1, "{rule}: one line when it is missing");
    }
    let failed = lines.iter().filter(|line| line["message"] == "a batch failed");
    assert_eq!(failed.count(), 0, "a reported cause is not logged again for each batch");
}

#[tokio::test]
async fn each_missing_permission_is_named_and_heals() {
    let rules = rules();
    let (first, rest) = rules.split_at(rules.len() / 4);
    let (second, rest) = rest.split_at(first.len());
    let (third, fourth) = rest.split_at(first.len());
    tokio::join!(
        each_missing_rule_is_named_and_heals(first),
        each_missing_rule_is_named_and_heals(second),
        each_missing_rule_is_named_and_heals(third),
        each_missing_rule_is_named_and_heals(fourth),
    );
}

#[tokio::test]
async fn a_server_without_permissions_says_so_from_the_start() {
    let redis = Redis::start().await;
    redis.permit(USER, "+@all -evalsha -eval ~is:*").await;
    let server = SentinelProcess::launch().on_as(&redis, USER).start_unready().await;
    until_it_lacks(&server, "+evalsha +eval").await;
    redis.permit(USER, "-@all resetkeys +evalsha +eval +info").await;
    let all = rules();
    // SET can be checked only on permitted keys.
    let rest = all.iter().filter(|rule| !["~is:*", "+evalsha", "+eval", "+info", "+set"].contains(&rule.as_str()));
    let rest: Vec<&str> = rest.map(String::as_str).collect();
    until_it_lacks(&server, &format!("{} ~is:*", rest.join(" "))).await;
    assert_eq!(redis.execute::<i64>("DBSIZE").await, 0);
    redis.permit(USER, &least_acl()).await;
    server.wait_until_ready().await;
    server.shop("sale").supply("ps5", 1).await;

    // A database needs one more.
    let url = format!("{}&db=3", redis.url_as(USER));
    let server = SentinelProcess::launch().variable("SENTINEL_REDIS_URL", &url).start_unready().await;
    until_it_lacks(&server, "+select").await;
    redis.permit(USER, "+select").await;
    server.wait_until_ready().await;
}

/// A renamed command counts as one that the user may not send.
#[tokio::test]
async fn a_renamed_command_is_named() {
    let redis = Redis::start_with(&["--appendonly yes", "--appendfsync always", "--rename-command ZREM ZREMOVE"]).await;
    let server = SentinelProcess::launch().on(&redis).start_unready().await;
    until_it_lacks(&server, "+zrem").await;
    assert_eq!(missing(&server.shop("sale").set_stock("ps5", 1, &new_id()).await.expect_err("refused")), "+zrem");
    // The Rust client does not repeat it.
    let sale = server.client().await.namespace("sale");
    let error = sale.reserve("ps5", 1).await.expect_err("refused");
    let rpc = error.rpc().expect("a refusal of the service");
    assert_eq!((rpc.reason(), rpc.attempts(), rpc.outcome_unknown()), (Some(Reason::StoreDenied), 1, false));
}

/// The user lacks one command, which is needed rarely: the server finds out in the middle of a sale.
async fn a_sale_stops_and_resumes(rule: &str) {
    let redis = Redis::start().await;
    redis.permit(USER, "~is:* +@all").await;
    let server =
        SentinelProcess::launch().on_as(&redis, USER).flags("--retention 1s --sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let sold = shop.hold("ps5", 1).await.reservation_id;
    shop.commit(&sold).await.expect("sold");
    shop.hold_for("ps5", 5, Duration::from_millis(300)).await;
    redis.permit(USER, &without(rule)).await;
    let placed = || v1::ReserveRequest { ttl: Some(millis(1)), ..reserve_request(&[("ps5", 1)]) };
    let status = eventually("a call is refused", async || shop.reserve(placed()).await.err()).await;
    assert_eq!(missing(&status), rule);
    until_it_lacks(&server, rule).await;
    let denied = r#"inventory_sentinel_store_errors_total{kind="denied"}"#;
    eventually("the script refused it too", async || (server.metric(denied).await > 0.0).then_some(())).await;

    redis.permit(USER, rule).await;
    server.wait_until_ready().await;
    let id = shop.hold("ps5", 1).await.reservation_id;
    shop.commit(&id).await.expect("the sale continues");
    eventually("what was due meanwhile is given back", async || {
        let (_, held, sold) = shop.counts("ps5").await;
        (held == 0 && sold == 2).then_some(())
    })
    .await;
    assert_eq!(shop.counts("ps5").await, (98, 0, 2));
    shop.audit().await;
}

#[tokio::test]
async fn without_zrem_nothing_expires_half_way() {
    a_sale_stops_and_resumes("+zrem").await;
}

#[tokio::test]
async fn without_zadd_nothing_is_held_half_way() {
    a_sale_stops_and_resumes("+zadd").await;
}

#[tokio::test]
async fn without_unlink_no_generation_goes_half_way() {
    a_sale_stops_and_resumes("+unlink").await;
}

fn millis(n: i32) -> prost_types::Duration {
    prost_types::Duration { seconds: 0, nanos: n * 1_000_000 }
}

/// The reply to a change is lost, and its repeat is refused. The outcome stays unknown until a repeat with the same
/// identity.
#[tokio::test]
async fn a_lost_reply_stays_unknown_when_the_repeat_is_denied() {
    let redis = Redis::start().await;
    redis.permit(USER, &least_acl()).await;
    let proxy = LossyProxy::start(&redis).await;
    let server = SentinelProcess::launch()
        .variable("SENTINEL_REDIS_URL", &proxy.url_as(USER))
        .flags("--sweep-interval 1m --resend-for 30s")
        .start()
        .await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    proxy.lose_replies(usize::MAX);
    let placed = reserve_request(&[("ps5", 1)]);
    let call = {
        let (shop, placed) = (shop.clone(), placed.clone());
        tokio::spawn(async move { shop.reserve(placed).await })
    };
    eventually("it is applied", async || {
        let events: i64 = redis.events().await;
        (events == 2).then_some(())
    })
    .await;
    redis.permit(USER, "-hmget").await;
    let answer = timeout(Duration::from_secs(15), call).await.expect("an answer long before the resending ends");
    assert_refused(answer.expect("an end"), Reason::OutcomeUnknown, None);
    proxy.lose_replies(0);
    redis.permit(USER, "+hmget").await;
    server.wait_until_ready().await;
    let repeat = eventually("a repeat", async || shop.reserve(placed.clone()).await.ok()).await;
    assert!(repeat.replayed, "{repeat:?}");
    assert_eq!(shop.counts("ps5").await, (9, 1, 0));
}
