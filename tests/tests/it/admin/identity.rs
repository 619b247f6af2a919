//! Each change of an administrator has an identity. A lost reply or a delayed duplicate never undoes a later change.
//! Neither a quota nor the store's memory limit prevents a change of existing things.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, cmd};
use inventory_sentinel::{Reason, v1};
use sentinel_tests::{
    LossyProxy, Redis, SentinelProcess, TestClient, assert_refused, eventually, id_born, new_id, number_in, reason,
    reserve_request,
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

async fn set_protection(
    shop: &TestClient,
    skus: &[&str],
    is_protected: bool,
    request_id: &str,
) -> Vec<v1::ProtectionOutcome> {
    try_set_protection(shop, skus, is_protected, request_id).await.expect("the protection is set")
}

async fn try_set_protection(
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

async fn limit_buyers(
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

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn ttl(seconds_: i64) -> v1::NamespaceConfig {
    v1::NamespaceConfig { default_ttl: seconds(seconds_), ..Default::default() }
}

fn quota(records: i64) -> v1::NamespaceConfig {
    v1::NamespaceConfig { quota_records: Some(records), ..Default::default() }
}

async fn configure(
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

async fn default_ttl(shop: &TestClient) -> Option<prost_types::Duration> {
    let request = v1::GetNamespaceRequest { namespace_id: shop.namespace.clone() };
    let answer = shop.admin.clone().get_namespace(request).await.expect("the config").into_inner();
    answer.config.expect("a config").default_ttl
}

async fn delete(shop: &TestClient, sku: &str, request_id: &str) -> Result<v1::DeleteSkuResponse, tonic::Status> {
    let (namespace_id, sku, request_id) = (shop.namespace.clone(), sku.to_owned(), request_id.to_owned());
    let request = v1::DeleteSkuRequest { namespace_id, sku, request_id };
    shop.admin.clone().delete_sku(request).await.map(tonic::Response::into_inner)
}

async fn import(shop: &TestClient, rows: &[(String, i64)], request_id: &str) -> Vec<v1::ImportRowResult> {
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

/// The remembered requests of administrators in both generations, and in the older one, as the state of a namespace of
/// format 3 has them.
async fn counted(redis: &Redis) -> (i64, i64) {
    let state: Vec<u8> = redis.query(&Cmd::hget("is:{sale/0}:meta", "state")).await;
    (number_in(&state[105..111]), number_in(&state[111..117]))
}

/// The same, counted from the records.
async fn remembered(redis: &Redis) -> (i64, i64) {
    let state: Vec<u8> = redis.query(&Cmd::hget("is:{sale/0}:meta", "state")).await;
    let is_b_current = state[67] == 1;
    let mut found = [0, 0];
    for (i, key) in ["is:{sale/0}:records:a", "is:{sale/0}:records:b"].into_iter().enumerate() {
        let fields: Vec<Vec<u8>> = redis.query(&Cmd::hgetall(key)).await;
        for record in fields.chunks(2) {
            let is_admin = record[0] != b"weight" && record[1][0] == b'M' && b"SAFDIN".contains(&record[1][7]);
            found[i] += i64::from(is_admin);
        }
    }
    (found[0] + found[1], found[usize::from(!is_b_current)])
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

#[tokio::test]
async fn changes_of_an_administrator_pass_a_quota_of_records_that_is_used_up() {
    for format in [1, 2, 3] {
        let flags = format!("--quota-records 3 --quota-skus 2 --format {format}");
        let server = SentinelProcess::launch().flags(&flags).start().await;
        let shop = server.shop("sale");
        shop.supply("ps5", 10).await;
        shop.supply("vita", 10).await;
        let mut held = 0;
        while shop.reserve(reserve_request(&[("ps5", 1)])).await.is_ok() {
            held += 1;
        }
        assert_eq!(held, if format == 3 { 3 } else { 1 }, "format {format}: what administrators do counts");
        assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::NamespaceQuota, None);
        shop.set_stock("ps5", 20, &new_id()).await.expect("set");
        shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
        limit_buyers(&shop, 0, None, &new_id()).await.expect("a rule");
        assert_eq!(set_protection(&shop, &["vita"], false, &new_id()).await, [v1::ProtectionOutcome::Changed]);
        shop.delete_sku("vita").await.expect("deleted");
        let rows: Vec<_> = (0..3).map(|i| (format!("sku-{i}"), 1)).collect();
        let results = import(&shop, &rows, &new_id()).await;
        let applied = results.iter().filter(|result| result.outcome() == v1::ImportOutcome::Applied).count();
        assert_eq!(applied, 1, "the quota of SKUs stays: {results:?}");
        assert_refused(shop.set_stock("switch", 1, &new_id()).await, Reason::NamespaceQuota, None);
        assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::NamespaceQuota, None);
        configure(&shop, quota(100), None, &new_id()).await.expect("the quota is raised");
        shop.hold("ps5", 1).await;
        shop.audit().await;
    }
}

#[tokio::test]
async fn imports_do_not_use_up_the_quota_of_records() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--quota-records 5").start().await;
    let shop = server.shop("sale");
    let rows: Vec<_> = (0..200).map(|i| (format!("sku-{i}"), 10)).collect();
    let results = import(&shop, &rows, "import").await;
    assert!(results.iter().all(|result| result.outcome() == v1::ImportOutcome::Applied), "{results:?}");
    // The same identity protects them: no row is taken for the other.
    let skus: Vec<&str> = rows.iter().map(|(sku, _)| sku.as_str()).collect();
    assert_eq!(set_protection(&shop, &skus, false, "import").await, [v1::ProtectionOutcome::Changed; 200]);
    assert_eq!(set_protection(&shop, &skus, false, "import").await, [v1::ProtectionOutcome::Unchanged; 200]);
    assert_refused(try_set_protection(&shop, &skus, true, "import").await, Reason::RequestIdReused, None);
    set_protection(&shop, &skus, true, "open").await;
    for sku in &skus[..5] {
        shop.hold(sku, 1).await;
    }
    assert_refused(shop.reserve(reserve_request(&[("sku-9", 1)])).await, Reason::NamespaceQuota, None);
    assert_eq!((counted(&redis).await, remembered(&redis).await), ((600, 0), (600, 0)));
    shop.audit().await;
}

#[tokio::test]
async fn at_the_memory_limit_an_administrator_changes_what_exists_and_makes_nothing() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--quota-records 3").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("vita", 10).await;
    for _ in 0..3 {
        shop.hold("ps5", 1).await;
    }
    redis.execute::<()>("CONFIG SET maxmemory 1").await;
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::StoreFull, None);
    shop.set_stock("ps5", 20, "set").await.expect("set");
    assert!(shop.set_stock("ps5", 20, "set").await.expect("known").replayed);
    shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
    limit_buyers(&shop, 0, None, &new_id()).await.expect("a rule");
    assert_eq!(set_protection(&shop, &["vita"], false, &new_id()).await, [v1::ProtectionOutcome::Changed]);
    shop.delete_sku("vita").await.expect("deleted");
    configure(&shop, quota(100), Some(1), "raise").await.expect("the quota is raised");
    assert_eq!(configure(&shop, quota(100), Some(1), "raise").await.expect("known").version, 2);

    let before = (redis.digest("stock").await, redis.digest("records").await, redis.digest("events").await);
    assert_refused(shop.set_stock("switch", 1, "new").await, Reason::StoreFull, None);
    assert_refused(shop.adjust_stock("switch", 1, &new_id()).await, Reason::StoreFull, None);
    let rows = [("switch".to_owned(), 1), ("ps5".to_owned(), 1)];
    let results = import(&shop, &rows, &new_id()).await;
    assert_eq!((results[0].reason.as_str(), results[1].outcome()), ("STORE_FULL", v1::ImportOutcome::AlreadyThere));
    let elsewhere = TestClient { namespace: "other".into(), ..shop.clone() };
    assert_refused(configure(&elsewhere, ttl(50), None, "").await, Reason::StoreFull, None);
    let after = (redis.digest("stock").await, redis.digest("records").await, redis.digest("events").await);
    assert!(before == after, "a refusal changes nothing");

    redis.execute::<()>("CONFIG SET maxmemory 0").await;
    assert!(!shop.set_stock("switch", 1, "new").await.expect("a refusal is not remembered").replayed);
    shop.hold("ps5", 1).await;
    assert_eq!(counted(&redis).await, remembered(&redis).await);
    shop.audit().await;
}

/// The counts follow the generations, whatever is in them.
#[tokio::test]
async fn the_count_of_remembered_requests_stays_exact_when_generations_change() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--retention 1s --sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let (mut seen_older, mut seen_none) = (false, false);
    for round in 0..400 {
        // Not torn by a change of generations between two reads.
        let (admin, older) = eventually("two reads of the same state", async || {
            let (before, found) = (counted(&redis).await, remembered(&redis).await);
            if counted(&redis).await != before {
                return None;
            }
            assert_eq!(before, found, "round {round}");
            Some(found)
        })
        .await;
        seen_older |= older > 0 && admin > older;
        seen_none |= admin == 0;
        if seen_older && seen_none {
            break;
        }
        if seen_older {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
        shop.protect("ps5", true).await.expect("it is so already");
        delete(&shop, "nothing", "").await.expect("nothing to delete");
        if round % 5 == 0 {
            shop.hold_for("ps5", 1, Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen_older && seen_none, "{seen_older} {seen_none}");
    eventually("all is forgotten", async || (redis.records().await == [1, 1]).then_some(())).await;
    assert_eq!(counted(&redis).await, (0, 0));
    shop.audit().await;
}

/// A change without effect is recorded without an event, and does not move the sequence.
#[tokio::test]
async fn a_change_that_changes_nothing_is_remembered_without_an_event() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let events = redis.digest("events").await;
    let sequence = shop.try_stock("ps5").await.expect("the stock").sequence;
    assert_eq!(delete(&shop, "vita", "gone").await.expect("nothing to delete").sequence, sequence);
    assert_eq!(set_protection(&shop, &["ps5"], true, "open").await, [v1::ProtectionOutcome::Unchanged]);
    assert_eq!(limit_buyers(&shop, 0, Some(0), "none").await.expect("no limit").rules_version, 0);
    assert!(redis.digest("events").await == events, "no event");
    assert_eq!((counted(&redis).await, remembered(&redis).await), ((4, 0), (4, 0)));
    shop.supply("vita", 1).await;
    shop.protect("ps5", false).await.expect("a rule");
    limit_buyers(&shop, 3, None, "").await.expect("a rule");
    assert!(delete(&shop, "vita", "gone").await.expect("known").replayed);
    assert_eq!(set_protection(&shop, &["ps5"], true, "open").await, [v1::ProtectionOutcome::Unchanged]);
    assert!(limit_buyers(&shop, 0, Some(0), "none").await.expect("known").replayed);
    assert_eq!(shop.counts("vita").await, (1, 0, 0));
    assert!(!shop.is_protected("ps5").await);
    // Request ids are shared by all kinds of changes.
    assert_refused(delete(&shop, "ps5", "gone").await, Reason::RequestIdReused, None);
    assert_refused(limit_buyers(&shop, 1, Some(0), "none").await, Reason::RequestIdReused, None);
    assert_refused(limit_buyers(&shop, 1, None, "gone").await, Reason::RequestIdReused, None);
    assert_refused(shop.adjust_stock("ps5", 1, "none").await, Reason::RequestIdReused, None);
    shop.audit().await;
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
    redis.execute::<()>("DEL is:{sale/1}:meta is:{sale/1}:records:a is:{sale/1}:records:b").await;
    let later = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = later.shop("sale");
    let again = configure(&shop, config(), Some(0), "make").await.expect("known");
    assert_eq!((again.version, again.replayed), (1, true));
    let known: i64 = redis.execute("EXISTS is:{sale/0}:meta is:{sale/1}:meta is:{sale/2}:meta").await;
    assert_eq!(known, 3);

    // The same of a change: one partition has the old config still.
    let old: Vec<u8> = redis.query(&Cmd::hget("is:{sale/2}:meta", "config")).await;
    configure(&shop, ttl(78), Some(1), "change").await.expect("changed");
    redis.query::<()>(&Cmd::hset("is:{sale/2}:meta", "config", old)).await;
    let last = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let again = configure(&last.shop("sale"), ttl(78), Some(1), "change").await.expect("known");
    assert_eq!((again.version, again.replayed), (2, true));
    let configs: Vec<Vec<u8>> = vec![
        redis.query(&Cmd::hget("is:{sale/0}:meta", "config")).await,
        redis.query(&Cmd::hget("is:{sale/2}:meta", "config")).await,
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
            for key in ["is:{sale/0}:records:a", "is:{sale/0}:records:b"] {
                let fields: Vec<Vec<u8>> = pair.redis.query(cmd("HVALS").arg(key)).await;
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
