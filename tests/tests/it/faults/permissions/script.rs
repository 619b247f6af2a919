//! The script under a Redis user that lacks one command, called without a server and so without its gate. No call may
//! be half-done.

use std::time::{SystemTime, UNIX_EPOCH};

use deadpool_redis::redis::{Cmd, RedisError, Value, aio::MultiplexedConnection};
use inventory_sentinel::v1;
use inventory_sentinel_script::{NamespaceConfig, script::script_source};
use sentinel_server::least_acl;
use sentinel_tests::{Group, Redis, SentinelProcess, epoch, eventually, line_set, partition_keys, script_call, u48};

use super::{USER, rules, without};

/// The commands that every batch needs.
const LOADS: [&str; 3] = ["hlen", "hmget", "time"];

/// A Redis whose user lacks one permission after the other.
pub(super) struct Alone {
    pub(super) redis: Redis,
    user: MultiplexedConnection,
    script: String,
    epoch: u64,
    used: std::cell::Cell<u64>,
}

impl Alone {
    /// A partition whose server is gone.
    pub(super) async fn start(flags: &str) -> Alone {
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

    pub(super) async fn on(redis: Redis) -> Alone {
        redis.permit(USER, &least_acl()).await;
        let (user, epoch) = (redis.connection_as(USER).await, epoch(&redis).await);
        Alone { redis, user, script: script_source(), epoch, used: std::cell::Cell::new(0) }
    }

    /// An id that was not used before.
    pub(super) fn id(&self) -> Vec<u8> {
        self.used.set(self.used.get() + 1);
        [&self.used.get().to_be_bytes()[..], &[1; 8]].concat()
    }

    /// A name that was not used before.
    fn name(&self) -> String {
        self.id();
        format!("new-{}", self.used.get())
    }

    pub(super) fn batch(&self, groups: &[Group]) -> Cmd {
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
    pub(super) async fn make(&self, groups: &[Group]) {
        self.redis.query::<Value>(&self.batch(groups)).await;
    }

    pub(super) fn reserve(&self, sku: &str, id: &[u8], buyer: &str, ttl: u64) -> Group {
        let buyer = if buyer.is_empty() { Vec::new() } else { [&[buyer.len() as u8][..], buyer.as_bytes()].concat() };
        ("reserve", line_set(ttl, &[(2, sku)]), id.to_vec(), [&u48(0)[..], &buyer].concat())
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
        alone.batch(&[("commit_lines", [&target[..], &[1], &line_set(0, &[(1, "ps5")])].concat(), alone.id(), none())])
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
            line_set(60_000, &[(1, "ps5")]),
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
    let keys = partition_keys("sale", 0);
    let config: Vec<u8> = alone.redis.query(&Cmd::hget(keys.meta(), "config")).await;
    let configured = async || {
        let now: Vec<u8> = alone.redis.query(&Cmd::hget(keys.meta(), "config")).await;
        let now = NamespaceConfig::decode(&now).expect("a config");
        let next = NamespaceConfig { revision: now.revision + 1, ..now };
        let mut command = script_call(&alone.script);
        command.arg("configure").arg("g").arg(now.revision).arg(next.encode());
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
                let skus: i64 = alone.redis.query(&Cmd::hlen(partition_keys("sale", 0).stock())).await;
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
