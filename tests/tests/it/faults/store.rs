//! A Redis with faults: without its scripts, with foreign data, unreachable, or with unsuitable settings.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool_redis::redis::{Cmd, cmd};
use inventory_sentinel::{Reason, v1};
use sentinel_tests::{Redis, SentinelProcess, assert_refused, eventually, new_id, partition_keys, reserve_request};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_lost_script_is_loaded_again_and_nobody_sees_it() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let mut buyers = JoinSet::new();
    for _ in 0..8 {
        let shop = shop.clone();
        buyers.spawn(async move {
            for _ in 0..50 {
                let id = shop.hold("ps5", 1).await.reservation_id;
                shop.commit(&id).await.expect("sold");
            }
        });
    }
    let mut flushed = 0;
    while !buyers.is_empty() {
        redis.execute::<()>("SCRIPT FLUSH").await;
        flushed += 1;
        if let Ok(Some(done)) = tokio::time::timeout(Duration::from_millis(20), buyers.join_next()).await {
            done.expect("a buyer saw it");
        }
    }
    assert!(flushed > 1);
    assert_eq!(shop.counts("ps5").await, (600, 0, 400));
    shop.audit().await;
}

#[tokio::test]
async fn a_wrong_type_under_any_key_is_reported_and_nothing_is_written() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let (shop, other) = (server.shop("sale"), server.shop("other"));
    shop.supply("ps5", 100).await;
    other.supply("ps5", 100).await;
    let sold = shop.hold("ps5", 1).await.reservation_id;
    shop.commit(&sold).await.expect("sold");
    let held = shop.hold("ps5", 1).await.reservation_id;

    let keys = partition_keys("sale", 0);
    // All but the last, which only limits per buyer need.
    for key in &keys.all()[..6] {
        let aside = format!("aside:{key}");
        let exists: bool = redis.query(&Cmd::exists(key)).await;
        if exists {
            redis.query::<()>(&Cmd::rename(key, &aside)).await;
        }
        redis.query::<()>(&Cmd::set(key, "foreign")).await;
        let before = redis.digest("{sale/0}").await;
        assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::StoreCorrupt, None);
        assert!(redis.digest("{sale/0}").await == before, "{key}: something was written");
        other.hold("ps5", 1).await;
        redis.query::<()>(&Cmd::del(key)).await;
        if exists {
            redis.query::<()>(&Cmd::rename(&aside, key)).await;
        }
        shop.hold("ps5", 1).await;
    }
    // The last key.
    let limit = v1::SkuRules { buyer_limit: Some(3), ..Default::default() };
    other.configure("ps5", limit).await.expect("a limit");
    let cart = || v1::ReserveRequest { buyer_id: "mo".into(), ..reserve_request(&[("ps5", 1)]) };
    redis.query::<()>(&Cmd::set(partition_keys("other", 0).buyers(), "foreign")).await;
    let before = redis.digest("{other/0}").await;
    assert_refused(other.reserve(cart()).await, Reason::StoreCorrupt, None);
    assert!(redis.digest("{other/0}").await == before, "buyers: something was written");
    redis.query::<()>(&Cmd::del(partition_keys("other", 0).buyers())).await;
    other.hold_order(cart()).await;
    // A value in a hash that this service did not write.
    let stock = keys.stock();
    let good: Vec<u8> = redis.query(&Cmd::hget(stock, "ps5")).await;
    redis.query::<()>(&Cmd::hset(stock, "ps5", "9")).await;
    let before = redis.digest("{sale/0}").await;
    assert_refused(shop.commit(&held).await, Reason::StoreCorrupt, None);
    assert_refused(shop.try_stock("ps5").await, Reason::StoreCorrupt, None);
    assert!(redis.digest("{sale/0}").await == before);
    redis.query::<()>(&Cmd::hset(stock, "ps5", good)).await;
    // A state of another length.
    let meta = keys.meta();
    let good: Vec<u8> = redis.query(&Cmd::hget(meta, "state")).await;
    redis.query::<()>(&Cmd::hset(meta, "state", &good[..39])).await;
    assert_refused(shop.commit(&held).await, Reason::StoreCorrupt, None);
    redis.query::<()>(&Cmd::hset(meta, "state", good)).await;
    shop.commit(&held).await.expect("sold");

    assert_eq!(shop.counts("ps5").await, (92, 6, 2));
    assert!(server.log_lines().iter().any(|line| line["level"] == "ERROR" && line["reason"] == "STORE_CORRUPT"));
    shop.audit().await;
    other.audit().await;
}

/// Wrong counters that only an audit can find: it finds each of them.
#[tokio::test]
async fn an_audit_finds_what_does_not_add_up() {
    use inventory_sentinel::v1::AuditFindingKind as Kind;

    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.hold("ps5", 3).await;
    assert_eq!((shop.audit().await.pending_reservations, shop.audit().await.held), (1, 3));
    let kinds = async || -> Vec<Kind> {
        let audit = shop.try_audit().await.expect("an audit");
        assert_eq!(audit.clean, audit.findings.is_empty());
        audit.findings.iter().map(|finding| finding.kind()).collect()
    };

    let keys = partition_keys("sale", 0);
    let stock = keys.stock();
    let good: Vec<u8> = redis.query(&Cmd::hget(stock, "ps5")).await;
    // The test writes the raw format: counters of 6 bytes each, big-endian: available, held, sold, supplied.
    let tamper = async |byte: usize| {
        let mut bad = good.clone();
        bad[byte] += 1;
        redis.query::<()>(&Cmd::hset(stock, "ps5", bad)).await;
    };
    tamper(5).await;
    assert_eq!(kinds().await, [Kind::NotConserved], "a unit from nowhere");
    tamper(11).await;
    assert_eq!(kinds().await, [Kind::NotConserved, Kind::HeldMismatch], "a unit held by nobody");
    redis.query::<()>(&Cmd::hset(stock, "ps5", &good)).await;
    shop.audit().await;

    let deadlines = keys.deadlines();
    let entries: Vec<(Vec<u8>, f64)> = redis.query(&Cmd::zrange_withscores(deadlines, 0, -1)).await;
    redis.query::<()>(&Cmd::del(deadlines)).await;
    assert_eq!(kinds().await, [Kind::NoDeadline], "a hold that would never end");
    redis.query::<()>(cmd("ZADD").arg(deadlines).arg(entries[0].1).arg(&entries[0].0)).await;
    shop.audit().await;
}

/// Many times more than fits into the memory of one pass of an audit, with concurrent callers.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_in_many_passes_is_exact() {
    use inventory_sentinel::v1::AuditFindingKind as Kind;
    const SKUS: usize = 500;
    const HOLDS: usize = 3_000;

    let redis = Redis::start_in_memory().await;
    let flags = "--durability fast --audit-memory 65536 --sweep-interval 20ms";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    let rows = (0..SKUS).map(|i| v1::ImportRow { sku: format!("sku-{i}"), on_hand: 100_000 }).collect();
    let message = v1::ImportStockRequest {
        namespace_id: "sale".into(),
        request_id: new_id(),
        rows,
        overwrite: false,
        existing_namespace_only: false,
    };
    let mut import = shop.admin.clone().import_stock(tokio_stream::iter([message])).await.expect("a stream");
    import.get_mut().message().await.expect("an answer").expect("an answer");
    let mut buyers = JoinSet::new();
    for buyer in 0..20 {
        let shop = shop.clone();
        buyers.spawn(async move {
            for i in 0..HOLDS / 20 {
                let (one, other) =
                    (format!("sku-{}", (buyer + i) % SKUS), format!("sku-{}", (buyer + 7 * i + 1) % SKUS));
                let lines = [(one.as_str(), 2), (other.as_str(), 1)];
                shop.hold_order(reserve_request(if one == other || i % 2 == 0 { &lines[..1] } else { &lines })).await;
            }
        });
    }
    buyers.join_all().await;
    assert_eq!(shop.audit().await.pending_reservations, HOLDS as i64);

    let done = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for buyer in 0..8 {
        let (shop, done) = (shop.clone(), Arc::clone(&done));
        buyers.spawn(async move {
            for i in buyer.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let sku = format!("sku-{}", i * 31 % SKUS);
                let hold = shop.hold_for(&sku, 3, Duration::from_millis(if i % 4 == 0 { 5 } else { 60_000 })).await;
                let (id, part) = (&hold.reservation_id, [(sku.as_str(), 1)]);
                match i % 4 {
                    1 => drop(shop.commit(id).await.expect("sold")),
                    2 => drop(shop.rollback(id).await.expect("given back")),
                    3 => {
                        let sold = shop.commit_lines(id, &part, v1::RestPolicy::Keep, &new_id()).await;
                        sold.expect("sold in part");
                        shop.extend(id, Duration::from_secs(90), &new_id()).await.expect("held for longer");
                    }
                    _ => {}
                }
            }
        });
    }
    for _ in 0..3 {
        shop.audit().await;
    }
    done.store(true, Ordering::Relaxed);
    buyers.join_all().await;
    shop.audit().await;

    // The audit still finds wrong counters.
    let keys = partition_keys("sale", 0);
    let stock = keys.stock();
    for i in 0..SKUS {
        let sku = format!("sku-{i}");
        let mut record: Vec<u8> = redis.query(&Cmd::hget(stock, &sku)).await;
        // In the raw record one unit more is held, and one less is available.
        record[5] = record[5].wrapping_sub(1);
        record[11] = record[11].wrapping_add(1);
        if record[5] != 255 && record[11] != 0 {
            redis.query::<()>(&Cmd::hset(stock, &sku, record)).await;
            let audit = shop.try_audit().await.expect("an audit");
            let findings: Vec<_> =
                audit.findings.iter().map(|finding| (finding.kind(), finding.sku.as_str())).collect();
            assert_eq!(findings, [(Kind::HeldMismatch, sku.as_str())]);
            return;
        }
    }
    panic!("no SKU to tamper with");
}

#[tokio::test]
async fn a_store_that_comes_late_is_waited_for() {
    let mut redis = Redis::start().await;
    redis.kill9();
    let server = SentinelProcess::launch().on(&redis).start_unready().await;
    let shop = server.shop("sale");
    assert!(!server.readyz().await.0);
    assert_eq!(crate::operations::process::health(&server).await, "NotServing");
    assert_refused(shop.set_stock("ps5", 1, &new_id()).await, Reason::StoreUnavailable, None);
    redis.restart().await;
    server.wait_until_ready().await;
    assert_eq!(crate::operations::process::health(&server).await, "Serving");
    shop.supply("ps5", 1).await;
    shop.hold("ps5", 1).await;

    // And again while it serves.
    redis.kill9();
    eventually("it is not ready", async || (!server.readyz().await.0).then_some(())).await;
    let names = "cannot connect to unix:///";
    eventually("it names the address", async || server.readyz().await.1.contains(names).then_some(())).await;
    assert_refused(shop.try_stock("ps5").await, Reason::StoreUnavailable, None);
    redis.restart().await;
    server.wait_until_ready().await;
    assert_eq!(shop.counts("ps5").await, (0, 1, 0), "fsynced before it was acknowledged");
}

/// Waits for the reason in `/readyz`; checks that the log contains it and that calls are refused with it.
async fn is_unfit(server: &SentinelProcess, why: &str) {
    eventually(why, async || server.readyz().await.1.contains(why).then_some(())).await;
    assert!(!server.readyz().await.0);
    assert_eq!(crate::operations::process::health(server).await, "NotServing");
    let has_reason = |line: &serde_json::Value| {
        line["component"] == "store" && line["reason"].as_str().is_some_and(|reason| reason.contains(why))
    };
    eventually("the log has it", async || server.log_lines().iter().any(has_reason).then_some(())).await;
    let status = server.shop("sale").set_stock("ps5", 1, &new_id()).await.expect_err("no call passes");
    assert!(status.message().contains(why), "{status:?}");
    assert_refused(Err::<(), _>(status), Reason::StoreUnavailable, None);
}

#[tokio::test]
async fn a_store_that_evicts_is_not_used() {
    let redis =
        Redis::start_with(&["--appendonly yes", "--appendfsync always", "--maxmemory-policy allkeys-lru"]).await;
    let server = SentinelProcess::launch().on(&redis).start_unready().await;
    is_unfit(&server, "maxmemory-policy allkeys-lru").await;
    assert_eq!(redis.execute::<i64>("DBSIZE").await, 0);
    redis.execute::<()>("CONFIG SET maxmemory-policy noeviction").await;
    server.wait_until_ready().await;
    server.shop("sale").supply("ps5", 1).await;
    // Detected in the middle of a sale too.
    redis.execute::<()>("CONFIG SET maxmemory-policy volatile-ttl").await;
    is_unfit(&server, "maxmemory-policy volatile-ttl").await;
}

#[tokio::test]
async fn a_store_that_keeps_nothing_on_disk_is_used_in_the_fast_mode_only() {
    let redis = Redis::start_in_memory().await;
    let server = SentinelProcess::launch().on(&redis).start_unready().await;
    is_unfit(&server, "appendonly yes").await;
    redis.execute::<()>("CONFIG SET appendonly yes").await;
    is_unfit(&server, "appendfsync always").await;
    redis.execute::<()>("CONFIG SET appendfsync always").await;
    server.wait_until_ready().await;

    let memory = Redis::start_in_memory().await;
    let fast = SentinelProcess::launch().on(&memory).flags("--durability fast").start().await;
    fast.shop("sale").supply("ps5", 1).await;
}

/// From `appendonly yes` until the end of its first rewrite, Redis loses acknowledged writes with a crash.
#[tokio::test]
async fn an_append_only_file_that_was_just_switched_on_is_waited_for() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    redis.execute::<()>("CONFIG SET appendonly no").await;
    is_unfit(&server, "appendonly yes").await;
    // Microseconds for each key, so that the rewrite takes some seconds.
    redis.execute::<()>("CONFIG SET rdb-key-save-delay 300000").await;
    redis.execute::<()>("CONFIG SET appendonly yes").await;
    server.wait_until_ready().await;
    shop.hold("ps5", 1).await;
    redis.restart().await;
    server.wait_until_ready().await;
    assert_eq!(shop.counts("ps5").await, (0, 1, 0), "it was acknowledged");

    // A later rewrite loses nothing: the file before it is complete.
    eventually("it is fit", async || (checks(&redis).await > 0 && server.readyz().await.0).then_some(())).await;
    redis.execute::<()>("CONFIG SET rdb-key-save-delay 2000000").await;
    redis.execute::<String>("BGREWRITEAOF").await;
    let before = checks(&redis).await;
    eventually("it is seen", async || (checks(&redis).await >= before + 2).then_some(())).await;
    assert!(server.readyz().await.0);
    assert_eq!(redis.execute::<String>("INFO persistence").await.matches("aof_rewrite_in_progress:1").count(), 1);
}

/// How often the servers of a store have checked its settings.
async fn checks(redis: &Redis) -> u64 {
    let stats = redis.execute::<String>("INFO commandstats").await;
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_config|get:calls="));
    calls.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_store_that_pauses_its_fsync_is_not_used() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    redis.execute::<()>("CONFIG SET no-appendfsync-on-rewrite yes").await;
    is_unfit(&server, "no-appendfsync-on-rewrite no").await;
    redis.execute::<()>("CONFIG SET no-appendfsync-on-rewrite no").await;
    server.wait_until_ready().await;
}

/// Without the server's check this setting loses acknowledged writes when the machine crashes. Writes that the server
/// acknowledges survive.
#[tokio::test]
async fn only_what_is_synced_is_acknowledged() {
    let mut redis = Redis::start_with_disk().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 3).await;
    // The rewrite takes seconds.
    redis.execute::<()>("CONFIG SET rdb-key-save-delay 300000").await;
    for (pauses, kept) in [("no", Some("1")), ("yes", None)] {
        redis.execute::<()>(&format!("CONFIG SET no-appendfsync-on-rewrite {pauses}")).await;
        if kept.is_none() {
            is_unfit(&server, "no-appendfsync-on-rewrite no").await;
        }
        redis.execute::<String>("BGREWRITEAOF").await;
        redis.execute::<()>(&format!("SET rewritten-{pauses} 1")).await;
        let held = shop.reserve(reserve_request(&[("ps5", 1)])).await;
        assert_eq!(held.is_ok(), kept.is_some(), "{held:?}");
        assert_eq!(redis.execute::<String>("INFO persistence").await.matches("aof_rewrite_in_progress:1").count(), 1);
        redis.lose_power();
        redis.restart().await;
        let found = redis.execute::<Option<String>>(&format!("GET rewritten-{pauses}")).await;
        assert_eq!(found.as_deref(), kept, "no-appendfsync-on-rewrite {pauses}");
        server.wait_until_ready().await;
        assert_eq!(shop.counts("ps5").await, (2, 1, 0), "what was acknowledged is there");
        redis.execute::<()>("CONFIG SET rdb-key-save-delay 300000").await;
    }
}

#[tokio::test]
async fn a_replica_is_not_used() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).start().await;
    server.shop("sale").supply("ps5", 1).await;
    // There is no such primary, but the setting alone makes it a replica.
    redis.execute::<()>("REPLICAOF 127.0.0.1 1").await;
    is_unfit(&server, "not the primary").await;
    redis.execute::<()>("REPLICAOF NO ONE").await;
    server.wait_until_ready().await;
    assert_eq!(server.shop("sale").counts("ps5").await, (1, 0, 0));
}
