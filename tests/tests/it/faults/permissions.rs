//! The Redis user of the service. All calls work under the documented permissions. If one is missing, no change is
//! half-done, the refusal and `/readyz` name it, and the server recovers when it is granted.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use deadpool_redis::redis::{Cmd, RedisError, Value, aio::MultiplexedConnection, cmd};
use inventory_sentinel::{Reason, v1};
use inventory_sentinel_script::script::script_source;
use sentinel_server::least_acl;
use sentinel_tests::{
    LossyProxy, Redis, SentinelProcess, TestClient, assert_refused, epoch, eventually, figure, new_id, number_in,
    reserve_request, script_call, until_fenced,
};
use tokio::time::timeout;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::streams::{
    events::{Feed, next},
    stock::{watch_protected, watch_stock},
};

/// The user of the service.
const USER: &str = "sentinel";
/// The connections of a server try these too, and work without them.
const OPTIONAL: [&str; 2] = ["client|setinfo", "config|get"];

/// The rules of the documented line.
fn rules() -> Vec<String> {
    least_acl().split(' ').map(str::to_owned).collect()
}

/// The ACL rule that takes a rule away again.
fn without(rule: &str) -> String {
    match rule.strip_prefix('+') {
        Some(command) => format!("-{command}"),
        None => "resetkeys".to_owned(),
    }
}

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
    let flags = format!("--redis-url {}&db=3", redis.url_as(USER));
    let server = SentinelProcess::launch().flags(&flags).start_unready().await;
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
        .flags(&format!("--redis-url {} --sweep-interval 1m --resend-for 30s", proxy.url_as(USER)))
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
        let events: i64 = redis.execute("XLEN is:{sale/0}:events").await;
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

// The script, called without a server and so without its gate.

const KEYS: &str = "is:{sale/0}:";
/// The commands that every batch needs.
const LOADS: [&str; 3] = ["hlen", "hmget", "time"];

fn u48(number: u64) -> [u8; 6] {
    number.to_be_bytes()[2..].try_into().expect("six bytes")
}

fn shape(quantity: u32, sku: &str, ttl: u64) -> Vec<u8> {
    [&u48(ttl)[..], &[1], &quantity.to_be_bytes(), &[sku.len() as u8], sku.as_bytes()].concat()
}

/// Kind, args, ids and extra.
type Group = (&'static str, Vec<u8>, Vec<u8>, Vec<u8>);

/// A Redis whose user lacks one permission after the other.
struct Alone {
    redis: Redis,
    user: MultiplexedConnection,
    script: String,
    epoch: u64,
    used: std::cell::Cell<u64>,
}

impl Alone {
    /// A partition whose server is gone.
    async fn start(flags: &str) -> Alone {
        let redis = Redis::start().await;
        let mut server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
        let shop = server.shop("sale");
        shop.supply("ps5", 1_000_000).await;
        shop.supply("few", 1_000_000).await;
        let limit = v1::SkuRules { buyer_limit: Some(5), ..Default::default() };
        shop.configure("few", limit).await.expect("a limit");
        server.kill9();
        Alone::on(redis).await
    }

    async fn on(redis: Redis) -> Alone {
        redis.permit(USER, &least_acl()).await;
        let (user, epoch) = (redis.connection_as(USER).await, epoch(&redis).await);
        Alone { redis, user, script: script_source(), epoch, used: std::cell::Cell::new(0) }
    }

    /// An id that was not used before.
    fn id(&self) -> Vec<u8> {
        self.used.set(self.used.get() + 1);
        [&self.used.get().to_be_bytes()[..], &[1; 8]].concat()
    }

    /// A name that was not used before.
    fn name(&self) -> String {
        self.id();
        format!("new-{}", self.used.get())
    }

    fn batch(&self, groups: &[Group]) -> Cmd {
        let mut command = script_call(&self.script);
        // The clock of the machine is that of Redis, so no time is in doubt (lua/scripts/load/clock.lua).
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
        command.arg(self.epoch).arg([b"g", &u48(now)[..]].concat());
        for (kind, args, ids, extra) in groups {
            command.arg(kind).arg(args).arg(ids).arg(extra);
        }
        command
    }

    /// Makes this call as a user with all permissions.
    async fn make(&self, groups: &[Group]) {
        self.redis.query::<Value>(&self.batch(groups)).await;
    }

    fn reserve(&self, sku: &str, id: &[u8], buyer: &str, ttl: u64) -> Group {
        let buyer = if buyer.is_empty() { Vec::new() } else { [&[buyer.len() as u8][..], buyer.as_bytes()].concat() };
        ("reserve", shape(2, sku, ttl), id.to_vec(), [&u48(0)[..], &buyer].concat())
    }

    /// Makes the call as users that each lack one of these commands, and checks that exactly these are needed. `call`
    /// prepares it again each time.
    async fn needs_of(&self, what: &str, commands: &[&str], needed: &[&str], mut call: impl AsyncFnMut() -> Cmd) {
        let mut refused = Vec::new();
        for command in commands {
            let rule = &format!("+{command}");
            let command = call().await;
            self.redis.permit(USER, &without(rule)).await;
            let before = self.redis.digest("").await;
            let answer: Result<Value, RedisError> = command.query_async(&mut self.user.clone()).await;
            if let Err(error) = answer {
                let message = error.to_string();
                let is_denied = error.code() == Some("SENTINELDENIED")
                    || message.contains("executing the script can't run")
                    || message.contains("ACL failure in script");
                assert!(is_denied, "{what} without {rule}: {message}");
                assert!(self.redis.digest("").await == before, "{what} without {rule}: half done");
                refused.push(rule[1..].to_owned());
            }
            self.redis.permit(USER, rule).await;
        }
        refused.sort();
        let mut needed = needed.to_vec();
        needed.sort_unstable();
        assert_eq!(refused, needed, "{what}");
    }

    /// The same with all commands; `needed` is in addition to those of every batch.
    async fn needs(&self, what: &str, needed: &[&str], call: impl AsyncFnMut() -> Cmd) {
        let rules = rules();
        // INFO is needed once a second.
        let is_left_out = |command: &&str| ["eval", "info"].contains(command);
        let commands: Vec<_> = rules.iter().filter_map(|rule| rule.strip_prefix('+')).collect();
        let commands: Vec<_> = commands.into_iter().filter(|command| !is_left_out(command)).collect();
        self.needs_of(what, &commands, &[&LOADS[..], needed].concat(), call).await;
    }
}

#[tokio::test]
async fn no_batch_is_half_done_for_want_of_a_permission() {
    let alone = Alone::start("--sweep-interval 1m").await;
    let none = Vec::new;
    let held = async |sku: &str, buyer: &str| {
        let id = alone.id();
        alone.make(&[alone.reserve(sku, &id, buyer, 3_600_000)]).await;
        id
    };
    let adjust = |sku: &str| [&1i64.to_be_bytes()[..], sku.as_bytes()].concat();

    let holds = ["hset", "xadd", "zadd", "zcard"];
    alone.needs("Reserve", &holds, async || alone.batch(&[alone.reserve("ps5", &alone.id(), "", 60_000)])).await;
    alone
        .needs("Reserve of a buyer", &holds, async || {
            alone.batch(&[alone.reserve("few", &alone.id(), &alone.name(), 60_000)])
        })
        .await;
    for kind in ["commit", "rollback"] {
        let resolved = async || alone.batch(&[(kind, none(), held("ps5", "").await, none())]);
        alone.needs("Commit or Rollback", &["hset", "xadd"], resolved).await;
    }
    let back = async || alone.batch(&[("rollback", none(), held("few", &alone.name()).await, none())]);
    alone.needs("Rollback, and the buyer has none left", &["hdel", "hset", "xadd"], back).await;
    let part = async || {
        let target = held("ps5", "").await;
        alone.batch(&[("commit_lines", [&target[..], &[1], &shape(1, "ps5", 0)].concat(), alone.id(), none())])
    };
    alone.needs("Commit of a part", &["hset", "xadd"], part).await;
    let extend = async || {
        let target = held("ps5", "").await;
        alone.batch(&[("extend", [&target[..], &u48(3_000_000)].concat(), alone.id(), none())])
    };
    alone.needs("Extend", &holds, extend).await;
    let swap = async || {
        let target = held("ps5", "").await;
        alone.batch(&[(
            "reserve_replacing",
            shape(1, "ps5", 60_000),
            alone.id(),
            [&u48(0)[..], &[0], &target].concat(),
        )])
    };
    alone.needs("a swap", &holds, swap).await;
    let adjusted = async || alone.batch(&[("adjust_stock", adjust("ps5"), alone.id(), none())]);
    alone.needs("AdjustStock", &["hset", "xadd"], adjusted).await;
    let made = async || alone.batch(&[("adjust_stock", adjust(&alone.name()), alone.id(), none())]);
    alone.needs("a new SKU", &["hset", "xadd"], made).await;
    let deleted = async || {
        let sku = alone.name();
        alone.make(&[("adjust_stock", adjust(&sku), alone.id(), none())]).await;
        alone.batch(&[("delete_sku", sku.into_bytes(), alone.id(), none())])
    };
    alone.needs("DeleteSku", &["hdel", "hset", "xadd"], deleted).await;

    let due = async |groups: &[Group]| {
        let id = alone.id();
        alone.make(&[alone.reserve("ps5", &id, "", 1)]).await;
        let until = alone.redis.now().await + 1;
        eventually("it is due", async || (alone.redis.now().await > until).then_some(())).await;
        alone.batch(groups)
    };
    let expires = ["hset", "xadd", "zrangebyscore", "zrem"];
    alone.needs("expiry", &expires, async || due(&[]).await).await;
    let both = [&expires[..], &["zadd", "zcard"]].concat();
    alone
        .needs("expiry before a Reserve", &both, async || due(&[alone.reserve("ps5", &alone.id(), "", 60_000)]).await)
        .await;
    let stale = async || {
        let id = alone.id();
        alone.make(&[alone.reserve("ps5", &id, "", 50)]).await;
        alone.make(&[("commit", none(), id, none())]).await;
        let until = alone.redis.now().await + 50;
        eventually("its entry is due", async || (alone.redis.now().await > until).then_some(())).await;
        alone.batch(&[])
    };
    alone.needs("an entry that is done with", &["hset", "zrangebyscore", "zrem"], stale).await;

    // The data is consistent.
    let server = SentinelProcess::on(&alone.redis).await;
    server.shop("sale").audit().await;
}

#[tokio::test]
async fn no_generation_goes_half_way_for_want_of_a_permission() {
    let alone = Alone::start("--sweep-interval 1m --retention 1s").await;
    let over = async || {
        alone.make(&[("adjust_stock", [&1i64.to_be_bytes()[..], b"ps5"].concat(), alone.id(), Vec::new())]).await;
        let until = alone.redis.now().await + 1_050;
        eventually("its time is over", async || (alone.redis.now().await > until).then_some(())).await;
        alone.batch(&[])
    };
    let needed = [&LOADS[..], &["hset", "unlink"]].concat();
    alone.needs_of("the deletion of a generation", &[&needed[..], &["xadd", "zadd"]].concat(), &needed, over).await;
}

#[tokio::test]
async fn no_partition_is_made_configured_or_settled_half_way_for_want_of_a_permission() {
    let mut alone = Alone::start("--sweep-interval 1m").await;
    let config: Vec<u8> = alone.redis.query(&Cmd::hget(format!("{KEYS}meta"), "config")).await;
    let revision = |config: &[u8]| sentinel_tests::number_in(&config[1..7]);
    let configured = async || {
        let now: Vec<u8> = alone.redis.query(&Cmd::hget(format!("{KEYS}meta"), "config")).await;
        let mut next = now.clone();
        next[6] += 1;
        let mut command = script_call(&alone.script);
        command.arg("configure").arg("g").arg(revision(&now)).arg(next);
        command
    };
    alone.needs("ConfigureNamespace", &["hset"], configured).await;

    let opened = async || {
        alone.redis.execute::<()>("FLUSHALL").await;
        let mut command = script_call(&alone.script);
        command.arg("open").arg("g").arg(&config).arg(7);
        command
    };
    let makes = ["exists", "hmget", "hset", "time"];
    let all = [&makes[..], &["hlen", "hget", "xadd"]].concat();
    alone.needs_of("a partition that is made", &all, &makes, opened).await;

    // A loss: the partition is created again by a server that has seen a change.
    let lost = [&b"g"[..], &u48(7), "f".repeat(40).as_bytes(), &u48(9)].concat();
    let fenced = async || {
        alone.redis.execute::<()>("FLUSHALL").await;
        let mut command = script_call(&alone.script);
        command.arg("open").arg(&lost).arg(&config).arg(7);
        command
    };
    alone.needs_of("a lost partition that is made again", &all, &makes, fenced).await;
    alone.redis.query::<Value>(&fenced().await).await;
    alone.epoch = 7;
    // The event of the loss.
    let Value::Array(reply) = alone.redis.query::<Value>(&alone.batch(&[])).await else { panic!("a reply") };
    let Value::BulkString(head) = &reply[0] else { panic!("{reply:?}") };
    let fence = head[head.len() - 16..].to_vec();

    let begun = async || {
        let key = alone.id();
        alone.batch(&[("begin_settlement", [&key[..], &fence].concat(), alone.id(), Vec::new())])
    };
    alone.needs("the begin of a settlement", &["hset", "xrevrange"], begun).await;
    let key = alone.id();
    alone.make(&[("begin_settlement", [&key[..], &fence].concat(), alone.id(), Vec::new())]).await;
    let set = async || {
        let sku = alone.name();
        alone.batch(&[("settle_sku", [&[0][..], &u48(5), sku.as_bytes()].concat(), key.clone(), Vec::new())])
    };
    alone.needs("a figure of a settlement", &["hset", "xadd"], set).await;
    // There is only one end.
    let needed = [&LOADS[..], &["hset", "xadd"]].concat();
    let end = || alone.batch(&[("end_settlement", key.clone(), vec![9; 16], Vec::new())]);
    alone.needs_of("the end of a settlement", &needed, &needed, async || end()).await;
    alone.redis.query::<Value>(&end()).await;

    let server = SentinelProcess::on(&alone.redis).await;
    server.shop("sale").audit().await;
}

/// Redis reaches its memory limit while a script runs: that batch is written completely, and the next is refused.
#[tokio::test]
async fn a_batch_that_crosses_the_memory_limit_is_whole() {
    let alone = Alone::start("--sweep-interval 1m").await;
    let (mut whole, mut crossed, mut refused) = (0, 0, 0);
    for step in 0..40 {
        let skus = (0..500).map(|n| format!("{step}-{n}-{}", "x".repeat(90)));
        let groups = skus
            .map(|sku| ("adjust_stock", [&1i64.to_be_bytes()[..], sku.as_bytes()].concat(), alone.id(), Vec::new()));
        let command = alone.batch(&groups.collect::<Vec<_>>());
        let used = async || {
            let info: String = alone.redis.execute("INFO memory").await;
            let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a line");
            line.trim().parse::<i64>().expect("a number")
        };
        let limit = used().await + 20_000 * step;
        let before = alone.redis.digest("").await;
        alone.redis.execute::<()>(&format!("CONFIG SET maxmemory {limit}")).await;
        let answer: Result<Value, _> = command.query_async(&mut alone.user.clone()).await;
        alone.redis.execute::<()>("CONFIG SET maxmemory 0").await;
        match answer {
            Ok(_) => {
                whole += 1;
                crossed += usize::from(used().await > limit);
                let skus: i64 = alone.redis.query(cmd("HLEN").arg(format!("{KEYS}stock"))).await;
                assert_eq!(skus, 2 + 500 * whole, "all of it");
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.code(), Some("OOM"), "{error}");
                assert!(alone.redis.digest("").await == before, "refused, and half done");
            }
        }
    }
    assert!(crossed > 0 && refused > 0, "{whole} whole, {crossed} of them over the limit, {refused} refused");
    let server = SentinelProcess::on(&alone.redis).await;
    server.shop("sale").audit().await;
}

/// The data that an older release left when ZREM was refused: the event and the records are written, the index and the
/// state are not. The next change has no number in the stream until the partition is settled.
#[tokio::test]
async fn a_partition_that_was_left_half_done_is_settled() {
    let alone = Alone::start("--sweep-interval 1m").await;
    alone.make(&[alone.reserve("ps5", &alone.id(), "", 1)]).await;
    let (meta, deadlines) = (format!("{KEYS}meta"), format!("{KEYS}deadlines"));
    let state: Vec<u8> = alone.redis.query(&Cmd::hget(&meta, "state")).await;
    let index: Vec<u8> = alone.redis.query(cmd("DUMP").arg(&deadlines)).await;
    let until = alone.redis.now().await + 1;
    eventually("it is due", async || (alone.redis.now().await > until).then_some(())).await;
    alone.make(&[]).await;
    alone.redis.query::<()>(&Cmd::hset(&meta, "state", state)).await;
    alone.redis.query::<()>(cmd("RESTORE").arg(&deadlines).arg(0).arg(index).arg("REPLACE")).await;

    let server = SentinelProcess::on(&alone.redis).await;
    let shop = server.shop("sale");
    is_settled_and_sells(&shop).await;
    assert_eq!(shop.counts("ps5").await, (9, 0, 1));
    assert_eq!(pending(&alone.redis).await, (0, 0), "in the state: a generation with a pending hold is never deleted");
    shop.audit().await;
}

/// The partition refuses changes, is settled, and works again.
async fn is_settled_and_sells(shop: &TestClient) {
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::StoreCorrupt, None);
    shop.settle(0, &[figure("ps5", 10), figure("few", 20)], &new_id()).await.expect("settled");
    let id = shop.hold("ps5", 1).await.reservation_id;
    shop.commit(&id).await.expect("the sale continues");
}

/// Pending reservations as the state counts them: of both generations, and of the older one.
async fn pending(redis: &Redis) -> (i64, i64) {
    let state: Vec<u8> = redis.query(&Cmd::hget(format!("{KEYS}meta"), "state")).await;
    (number_in(&state[74..80]), number_in(&state[80..86]))
}

/// The same with ZADD: two holds have no entry in the deadline index, and one with an entry is committed.
#[tokio::test]
async fn holds_that_were_left_without_a_deadline_expire_after_the_settlement() {
    let alone = Alone::start("--sweep-interval 1m").await;
    let sold = alone.id();
    alone.make(&[alone.reserve("ps5", &sold, "", 3_600_000)]).await;
    let (meta, deadlines) = (format!("{KEYS}meta"), format!("{KEYS}deadlines"));
    let state: Vec<u8> = alone.redis.query(&Cmd::hget(&meta, "state")).await;
    let index: Vec<u8> = alone.redis.query(cmd("DUMP").arg(&deadlines)).await;
    let [named, other] = [alone.id(), alone.id()];
    alone
        .make(&[
            alone.reserve("few", &named, "amy", 1_500),
            alone.reserve("ps5", &other, "", 3_600_000),
            ("commit", Vec::new(), sold, Vec::new()),
        ])
        .await;
    alone.redis.query::<()>(&Cmd::hset(&meta, "state", state)).await;
    alone.redis.query::<()>(cmd("RESTORE").arg(&deadlines).arg(0).arg(index).arg("REPLACE")).await;
    assert_eq!(pending(&alone.redis).await, (1, 0), "as it was before");

    let server = SentinelProcess::on(&alone.redis).await;
    let shop = server.shop("sale");
    shop.settle(0, &[figure("ps5", 10), figure("few", 20)], &new_id()).await.expect("settled");
    eventually("the short hold has expired", async || (shop.counts("few").await.1 == 0).then_some(())).await;
    assert_eq!(shop.counts("ps5").await, (10, 2, 2));
    assert_eq!(pending(&alone.redis).await, (1, 0));
    shop.audit().await;
}

/// The same with HDEL: the half-done change is about no reservation.
#[tokio::test]
async fn a_deletion_that_was_left_half_done_is_settled() {
    let alone = Alone::start("--sweep-interval 1m").await;
    let adjusted = [&1i64.to_be_bytes()[..], b"old"].concat();
    alone.make(&[("adjust_stock", adjusted, alone.id(), Vec::new())]).await;
    let meta = format!("{KEYS}meta");
    let state: Vec<u8> = alone.redis.query(&Cmd::hget(&meta, "state")).await;
    alone.make(&[("delete_sku", b"old".to_vec(), alone.id(), Vec::new())]).await;
    alone.redis.query::<()>(&Cmd::hset(&meta, "state", state)).await;

    let server = SentinelProcess::on(&alone.redis).await;
    let shop = server.shop("sale");
    is_settled_and_sells(&shop).await;
    shop.audit().await;
}
