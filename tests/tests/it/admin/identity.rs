//! Each change of an administrator has an identity. A lost reply or a delayed duplicate never undoes a later change.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, cmd};
use inventory_sentinel::{Reason, v1};
use inventory_sentinel_script::keys::PartitionKeys;
use sentinel_tests::{
    LossyProxy, Redis, SentinelProcess, TestClient, assert_refused, eventually, id_born, new_id, partition_keys, reason,
};
use tokio::task::JoinHandle;
use tonic::Request;

/// Two servers on one store, one of them through a proxy that can lose replies, and a namespace that both have opened.
struct Pair {
    redis: Redis,
    proxy: LossyProxy,
    _servers: [SentinelProcess; 2],
    /// Uses the proxy.
    shop: TestClient,
    /// Uses the store directly.
    other: TestClient,
}

impl Pair {
    async fn start(flags: &str) -> Pair {
        let redis = Redis::start().await;
        let proxy = LossyProxy::start(&redis).await;
        let flags = format!("--sweep-interval 1m {flags}");
        let url = format!("--redis-url {}", proxy.url());
        let server = SentinelProcess::launch().flags(flags.trim()).flags(&url).start().await;
        let beside = SentinelProcess::launch().on(&redis).flags(flags.trim()).start().await;
        let (shop, other) = (server.shop("sale"), beside.shop("sale"));
        other.supply("ps5", 10).await;
        shop.stock("ps5").await;
        Pair { redis, proxy, _servers: [server, beside], shop, other }
    }

    /// Makes a call whose change is applied and whose reply is lost. Its repeat reaches the store after `meanwhile`.
    /// Returns the answer of the call.
    async fn delayed<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
        meanwhile: impl AsyncFnOnce(),
    ) -> T {
        let lost = self.proxy.lost();
        self.proxy.lose_a_reply_and_go_away();
        let call: JoinHandle<T> = tokio::spawn(call);
        eventually("the reply is lost", async || (self.proxy.lost() > lost).then_some(())).await;
        meanwhile().await;
        self.proxy.come_back();
        call.await.expect("the call does not panic")
    }
}

pub(super) async fn set_protection(
    shop: &TestClient,
    skus: &[&str],
    is_protected: bool,
    request_id: &str,
) -> Vec<v1::ProtectionOutcome> {
    try_set_protection(shop, skus, is_protected, request_id).await.expect("the protection is set")
}

pub(super) async fn try_set_protection(
    shop: &TestClient,
    skus: &[&str],
    is_protected: bool,
    request_id: &str,
) -> Result<Vec<v1::ProtectionOutcome>, tonic::Status> {
    let request = v1::SetProtectionRequest {
        namespace_id: shop.namespace.clone(),
        skus: skus.iter().map(|&sku| sku.to_owned()).collect(),
        is_protected: Some(is_protected),
        request_id: request_id.into(),
    };
    let answer = shop.admin.clone().set_protection(request).await?.into_inner();
    Ok(answer.outcomes().collect())
}

pub(super) async fn limit_buyers(
    shop: &TestClient,
    limit: i32,
    if_version: Option<i64>,
    request_id: &str,
) -> Result<v1::ConfigureSkuResponse, tonic::Status> {
    let request = v1::ConfigureSkuRequest {
        namespace_id: shop.namespace.clone(),
        sku: "ps5".into(),
        rules: Some(v1::SkuRules { buyer_limit: Some(limit), ..Default::default() }),
        request_id: request_id.into(),
        if_version,
    };
    shop.admin.clone().configure_sku(request).await.map(tonic::Response::into_inner)
}

pub(super) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub(super) fn ttl(seconds_: i64) -> v1::NamespaceConfig {
    v1::NamespaceConfig { default_ttl: seconds(seconds_), ..Default::default() }
}

pub(super) fn quota(records: i64) -> v1::NamespaceConfig {
    v1::NamespaceConfig { quota_records: Some(records), ..Default::default() }
}

pub(super) async fn configure(
    shop: &TestClient,
    config: v1::NamespaceConfig,
    if_version: Option<i64>,
    request_id: &str,
) -> Result<v1::ConfigureNamespaceResponse, tonic::Status> {
    let request = v1::ConfigureNamespaceRequest {
        namespace_id: shop.namespace.clone(),
        config: Some(config),
        request_id: request_id.into(),
        if_version,
    };
    shop.admin.clone().configure_namespace(request).await.map(tonic::Response::into_inner)
}

pub(super) async fn default_ttl(shop: &TestClient) -> Option<prost_types::Duration> {
    let request = v1::GetNamespaceRequest { namespace_id: shop.namespace.clone() };
    let answer = shop.admin.clone().get_namespace(request).await.expect("the config").into_inner();
    answer.config.expect("a config").default_ttl
}

pub(super) async fn delete(
    shop: &TestClient,
    sku: &str,
    request_id: &str,
) -> Result<v1::DeleteSkuResponse, tonic::Status> {
    let (namespace_id, sku, request_id) = (shop.namespace.clone(), sku.to_owned(), request_id.to_owned());
    let request = v1::DeleteSkuRequest { namespace_id, sku, request_id };
    shop.admin.clone().delete_sku(request).await.map(tonic::Response::into_inner)
}

pub(super) async fn import(shop: &TestClient, rows: &[(String, i64)], request_id: &str) -> Vec<v1::ImportRowResult> {
    let rows = rows.iter().map(|(sku, on_hand)| v1::ImportRow { sku: sku.clone(), on_hand: *on_hand }).collect();
    let message = v1::ImportStockRequest {
        namespace_id: shop.namespace.clone(),
        request_id: request_id.into(),
        rows,
        overwrite: false,
        existing_namespace_only: false,
    };
    let mut answers = shop.admin.clone().import_stock(tokio_stream::iter([message])).await.expect("a stream");
    answers.get_mut().message().await.expect("an answer").expect("one for each message").results
}

#[tokio::test]
async fn a_delayed_duplicate_of_delete_sku_leaves_what_was_made_after_it() {
    let pair = Pair::start("").await;
    for request_id in ["", "delete-1"] {
        let shop = pair.shop.clone();
        let deleted = pair.delayed(async move { delete(&shop, "ps5", request_id).await }, async || {
            pair.other.supply("ps5", 100).await;
        });
        let deleted = deleted.await.expect("deleted");
        assert_eq!(pair.shop.counts("ps5").await, (100, 0, 0), "{request_id}: what was made after it is there");
        assert_eq!((deleted.replayed, deleted.stock.expect("as it is now").available), (true, 100));
    }
    pair.shop.audit().await;

    // The same where there was nothing to delete: remembered too.
    let shop = pair.shop.clone();
    let deleted = pair.delayed(async move { delete(&shop, "vita", "").await }, async || {
        pair.other.supply("vita", 5).await;
    });
    assert!(deleted.await.expect("nothing to delete").replayed);
    assert_eq!(pair.shop.counts("vita").await, (5, 0, 0));
    pair.shop.audit().await;
}

#[tokio::test]
async fn a_delayed_duplicate_of_set_protection_leaves_what_was_set_after_it() {
    let pair = Pair::start("").await;
    // A change, and one that changes nothing because it is so already.
    for (before, wanted) in [(true, false), (false, false), (false, true), (true, true)] {
        pair.other.protect("ps5", before).await.expect("a rule");
        let shop = pair.shop.clone();
        let set = pair.delayed(async move { set_protection(&shop, &["ps5"], wanted, "").await }, async || {
            pair.other.protect("ps5", !wanted).await.expect("a rule");
        });
        assert_eq!(set.await, [v1::ProtectionOutcome::Unchanged], "what is sent again changes nothing");
        assert_eq!(pair.shop.is_protected("ps5").await, !wanted, "from {before} to {wanted}");
    }
    pair.shop.audit().await;
}

#[tokio::test]
async fn a_lost_reply_of_configure_sku_is_no_version_mismatch() {
    let pair = Pair::start("").await;
    let shop = pair.shop.clone();
    let first = pair.delayed(async move { limit_buyers(&shop, 2, Some(0), "").await }, async || {}).await;
    assert_eq!(first.expect("applied once").rules_version, 1);
    // A later change stays, and the answer describes the present.
    let shop = pair.shop.clone();
    let second = pair.delayed(async move { limit_buyers(&shop, 3, Some(1), "").await }, async || {
        limit_buyers(&pair.other, 4, Some(2), "").await.expect("a later change");
    });
    let second = second.await.expect("applied once");
    assert_eq!((second.rules_version, second.rules.expect("the rules").buyer_limit), (3, Some(4)));
    assert!(second.replayed);
    assert_refused(limit_buyers(&pair.shop, 5, Some(2), "").await, Reason::VersionMismatch, None);
    pair.shop.audit().await;
}

#[tokio::test]
async fn a_lost_reply_of_configure_namespace_is_sent_again_and_is_no_version_mismatch() {
    let pair = Pair::start("").await;
    for (request_id, version, seconds_) in [("", 1, 50), ("configure-1", 3, 51)] {
        let shop = pair.shop.clone();
        let configure_it = async move { configure(&shop, ttl(seconds_), Some(version), request_id).await };
        let changed = pair.delayed(configure_it, async || {
            configure(&pair.other, ttl(70), Some(version + 1), "").await.expect("a later change");
        });
        let changed = changed.await.expect("applied once");
        assert_eq!((changed.version, changed.config.expect("a config").default_ttl), (version + 2, seconds(70)));
        assert!(changed.replayed);
        assert_eq!(default_ttl(&pair.other).await, seconds(70), "the later change stays");
    }
    // The same request, long after.
    let again = configure(&pair.shop, ttl(51), Some(3), "configure-1").await.expect("known");
    assert_eq!(again.version, 5);
    assert_refused(configure(&pair.shop, ttl(52), Some(3), "configure-1").await, Reason::RequestIdReused, None);
    assert_refused(configure(&pair.shop, ttl(51), Some(3), "configure-2").await, Reason::VersionMismatch, None);
    assert_eq!(default_ttl(&pair.other).await, seconds(70));
    // A change that changes nothing is remembered too.
    configure(&pair.shop, ttl(70), None, "same").await.expect("it is so already");
    configure(&pair.other, ttl(80), None, "").await.expect("changed");
    assert_eq!(configure(&pair.shop, ttl(70), None, "same").await.expect("known").version, 6);
    assert_eq!(default_ttl(&pair.other).await, seconds(80));
    // All kinds of changes of a partition share their request ids.
    assert_refused(pair.shop.set_stock("ps5", 1, "same").await, Reason::RequestIdReused, None);
}

#[tokio::test]
async fn a_lost_reply_of_a_creation_is_no_version_mismatch() {
    let pair = Pair::start("").await;
    let config = || v1::NamespaceConfig { partitions: Some(3), ..ttl(77) };
    for request_id in ["", "make-1"] {
        let shop = TestClient { namespace: format!("new{request_id}"), ..pair.shop.clone() };
        let make = {
            let (shop, config) = (shop.clone(), config());
            async move { configure(&shop, config, Some(0), request_id).await }
        };
        let made = pair.delayed(make, async || {}).await.expect("made once");
        assert_eq!((made.version, made.config.expect("a config").partitions), (1, Some(3)));
        for sku in ["a", "b", "c", "d", "e"] {
            shop.supply(sku, 1).await;
        }
        shop.audit().await;
    }
    let shop = TestClient { namespace: "newmake-1".into(), ..pair.shop.clone() };
    let again = configure(&shop, config(), Some(0), "make-1").await.expect("known");
    assert_eq!(again.version, 1);
    assert_refused(configure(&shop, config(), Some(0), "make-2").await, Reason::VersionMismatch, None);
    assert_refused(configure(&shop, ttl(78), Some(0), "make-1").await, Reason::RequestIdReused, None);
}

#[tokio::test]
async fn what_becomes_of_a_namespace_is_unknown_where_the_reply_stays_lost() {
    let redis = Redis::start().await;
    let flags = "--store-timeout 200ms --resend-for 300ms --sweep-interval 1m";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    redis.execute::<()>("CLIENT PAUSE 1500 WRITE").await;
    let lost = configure(&shop, ttl(50), Some(1), "lost").await;
    assert_refused(lost, Reason::OutcomeUnknown, None);
    let again = eventually("the store answers", async || configure(&shop, ttl(50), Some(1), "lost").await.ok()).await;
    assert_eq!(again.version, 2);

    // The caller's own deadline, which is shorter than what the store may take.
    redis.stop();
    let mut request = Request::new(v1::GetNamespaceRequest { namespace_id: "sale".into() });
    request.set_timeout(Duration::from_millis(100));
    let read = shop.admin.clone().get_namespace(request).await.map(|_| ());
    redis.cont();
    assert_refused(read, Reason::DeadlineExceeded, None);
}

/// A change of the config ended after the first partition. Its repeat applies it to the others.
#[tokio::test]
async fn a_repeat_of_a_configuration_that_was_interrupted_ends_it() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    let config = || v1::NamespaceConfig { partitions: Some(3), ..ttl(77) };
    configure(&shop, config(), Some(0), "make").await.expect("made");
    // A server was killed before it created the second partition.
    let keys = [0, 1, 2].map(|partition| partition_keys("sale", partition));
    let [records_a, records_b] = keys[1].records();
    redis.query::<()>(&Cmd::del(&[keys[1].meta(), records_a, records_b])).await;
    let later = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = later.shop("sale");
    let again = configure(&shop, config(), Some(0), "make").await.expect("known");
    assert_eq!((again.version, again.replayed), (1, true));
    let known: i64 = redis.query(&Cmd::exists(&keys.each_ref().map(PartitionKeys::meta))).await;
    assert_eq!(known, 3);

    // The same of a change: one partition has the old config still.
    let old: Vec<u8> = redis.query(&Cmd::hget(keys[2].meta(), "config")).await;
    configure(&shop, ttl(78), Some(1), "change").await.expect("changed");
    redis.query::<()>(&Cmd::hset(keys[2].meta(), "config", old)).await;
    let last = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let again = configure(&last.shop("sale"), ttl(78), Some(1), "change").await.expect("known");
    assert_eq!((again.version, again.replayed), (2, true));
    let configs: Vec<Vec<u8>> = vec![
        redis.query(&Cmd::hget(keys[0].meta(), "config")).await,
        redis.query(&Cmd::hget(keys[2].meta(), "config")).await,
    ];
    assert!(configs[0] == configs[1], "all partitions have the same config");
}

/// An identity that the store may have forgotten is refused, as that of any other change.
#[tokio::test]
async fn an_old_identity_of_an_administrator_is_refused() {
    let server = SentinelProcess::launch().flags("--retention 2s").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let old = id_born(Duration::from_secs(3));
    assert_refused(delete(&shop, "ps5", &old).await, Reason::RequestTooOld, Some("request_id"));
    assert_refused(limit_buyers(&shop, 1, None, &old).await, Reason::RequestTooOld, Some("request_id"));
    let set = try_set_protection(&shop, &["ps5"], false, &old).await;
    assert_refused(set, Reason::RequestTooOld, Some("request_id"));
    assert_refused(configure(&shop, ttl(50), None, &old).await, Reason::RequestTooOld, Some("request_id"));
    assert_eq!(shop.counts("ps5").await, (10, 0, 0));
}

/// The store is unreachable for longer than requests are recorded: a repeat would be a second change.
#[tokio::test]
async fn a_lane_does_not_send_again_what_the_store_may_have_forgotten() {
    let pair = Pair::start("--retention 1s --resend-for 1m").await;
    let shop = pair.shop.clone();
    let adjusted = pair.delayed(async move { shop.adjust_stock("ps5", 100, "delivery").await }, async || {
        eventually("the request is forgotten", async || {
            pair.other.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut known = false;
            for key in partition_keys("sale", 0).records() {
                let fields: Vec<Vec<u8>> = pair.redis.query(cmd("HVALS").arg(key)).await;
                // A memo has no decoder: an AdjustStock of 100.
                known |= fields.iter().any(|record| record.get(7..16) == Some(&[b'A', 0, 0, 0, 0, 0, 0, 0, 100]));
            }
            (!known).then_some(())
        })
        .await;
    });
    let adjusted = adjusted.await;
    let (available, _, _) = pair.other.counts("ps5").await;
    assert!((100..200).contains(&available), "applied once: {available}, {adjusted:?}");
    assert_eq!(reason(&adjusted.expect_err("unknown")), Reason::OutcomeUnknown);
}
