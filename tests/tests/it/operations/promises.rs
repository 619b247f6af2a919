//! GetServerInfo and `/readyz` report the state of each promise behind an OK. A promise that was not checked is never
//! reported as kept.

use inventory_sentinel::v1::PromiseState::{self, Broken, Kept, NotChecked};
use sentinel_server::least_acl;
use sentinel_tests::{Redis, SentinelProcess, eventually, http_get, new_id, until_fenced};
use tempfile::TempDir;

/// All of them, in their order.
const ALL: [&str; 14] = [
    "store_reachable",
    "append_only_file",
    "fsync_before_answer",
    "fsync_during_rewrite",
    "first_rewrite",
    "last_write",
    "no_eviction",
    "memory_limit",
    "terms",
    "permissions",
    "store_identity",
    "history",
    "clocks",
    "partitions",
];
/// Those that make an OK durable.
const DURABLE: &[&str] =
    &["append_only_file", "fsync_before_answer", "fsync_during_rewrite", "first_rewrite", "last_write"];
const ON_DISK: [&str; 3] = ["--appendonly yes", "--appendfsync always", "--maxmemory 1gb"];

/// Waits until exactly these promises are in these states and all others are kept; returns their details in that order.
async fn not_kept(server: &SentinelProcess, expected: &[(&str, PromiseState)]) -> Vec<String> {
    let found = async || {
        let promises = server.info().await.promises;
        let names: Vec<&str> = promises.iter().map(|promise| promise.name.as_str()).collect();
        assert_eq!(names, ALL);
        assert!(promises.iter().all(|promise| !promise.detail.is_empty()), "{promises:?}");
        let others: Vec<_> = promises.iter().filter(|promise| promise.state() != Kept).collect();
        let states: Vec<_> = others.iter().map(|promise| (promise.name.as_str(), promise.state())).collect();
        (states == expected).then(|| others.iter().map(|promise| promise.detail.clone()).collect())
    };
    // The operator's port reports the same as text. The states before and after its report must be the same.
    let (details, body) = eventually(&format!("{expected:?}"), async || {
        let details: Vec<String> = found().await?;
        let (_, body) = http_get(server.admin_address(), "/readyz").await.expect("an answer");
        (found().await.as_ref() == Some(&details)).then_some((details, body))
    })
    .await;
    for ((name, state), detail) in expected.iter().zip(&details) {
        let word = if *state == Broken { "broken" } else { "not checked" };
        assert!(body.lines().any(|line| line == format!("{name}: {word}: {detail}")), "{name} in {body}");
    }
    let kept = ALL.iter().filter(|name| !expected.iter().any(|(other, _)| other == *name));
    for name in kept {
        assert!(body.lines().any(|line| line.starts_with(&format!("{name}: kept: "))), "{name} in {body}");
    }
    details
}

#[tokio::test]
async fn a_store_as_it_should_be_keeps_every_promise() {
    let redis = Redis::start_with(&ON_DISK).await;
    let folder = TempDir::with_prefix("sentinel-state-").expect("a folder");
    let server = SentinelProcess::launch().on(&redis).state_dir(folder.path()).start().await;
    server.shop("sale").supply("ps5", 1).await;
    not_kept(&server, &[]).await;
    let promises = server.info().await.promises;
    let detail = |name: &str| promises.iter().find(|promise| promise.name == name).expect(name).detail.clone();
    assert!(detail("memory_limit").contains("1073741824"), "{promises:?}");
    assert!(detail("store_identity").contains(&server.info().await.store_id), "{promises:?}");
    let replication: String = redis.execute("INFO replication").await;
    let id = replication.lines().find_map(|line| line.strip_prefix("master_replid:")).expect("an id").trim();
    assert!(detail("terms").contains(id), "{promises:?}");
}

#[tokio::test]
async fn a_store_that_fsyncs_each_second_breaks_one() {
    let redis = Redis::start_with(&["--appendonly yes", "--appendfsync everysec", "--maxmemory 1gb"]).await;
    let server = SentinelProcess::launch().on(&redis).start_unready().await;
    let expected = [
        ("fsync_before_answer", Broken),
        ("store_identity", NotChecked),
        ("history", NotChecked),
        ("clocks", NotChecked),
    ];
    let details = not_kept(&server, &expected).await;
    assert!(details[0].contains("everysec") && details[0].contains("set appendfsync always"), "{details:?}");
    assert!(details[2].contains("memory only") && details[2].contains("--state-dir"), "{details:?}");
    assert!(!server.readyz().await.0);
    redis.execute::<()>("CONFIG SET appendfsync always").await;
    server.wait_until_ready().await;
    server.shop("sale").supply("ps5", 1).await;
    not_kept(&server, &[("history", NotChecked)]).await;
    redis.execute::<()>("CONFIG SET maxmemory 0").await;
    not_kept(&server, &[("memory_limit", NotChecked), ("history", NotChecked)]).await;
}

#[tokio::test]
async fn what_the_user_may_not_ask_is_not_called_kept() {
    let redis = Redis::start_with(&ON_DISK).await;
    redis.permit("sentinel", &least_acl()).await;
    let server = SentinelProcess::launch().on_as(&redis, "sentinel").start().await;
    server.shop("sale").supply("ps5", 1).await;
    let unseen = [("fsync_before_answer", NotChecked), ("fsync_during_rewrite", NotChecked), ("history", NotChecked)];
    let details = not_kept(&server, &unseen).await;
    assert!(details[..2].iter().all(|detail| detail.contains("CONFIG GET is not permitted")), "{details:?}");
    assert!(details[0].contains("appendfsync") && details[0].contains("always"), "{details:?}");

    redis.permit("sentinel", "+config|get -zrem").await;
    let lacking = [("permissions", Broken), ("store_identity", NotChecked), ("history", NotChecked)];
    let details = not_kept(&server, &lacking).await;
    assert!(details[0].ends_with("rules are missing: grant +zrem"), "{details:?}");
    redis.permit("sentinel", "-evalsha -eval").await;
    let found = async || not_kept(&server, &lacking).await[0].contains("cannot be checked: grant +eval").then_some(());
    eventually("it lacks both", found).await;

    // Only INFO would show the state of the others.
    redis.permit("sentinel", "+evalsha +eval +zrem -info").await;
    let state = |name| if name == "permissions" { Broken } else { NotChecked };
    let unread: Vec<_> = ALL[..13].iter().map(|&name| (name, state(name))).collect();
    let details = not_kept(&server, &unread).await;
    assert!(details[0].contains("INFO is not permitted") && details[9].ends_with("grant +info"), "{details:?}");
}

#[tokio::test]
async fn in_fast_nothing_is_promised_of_the_disk() {
    let redis = Redis::start_with(&["--appendonly no", "--maxmemory 1gb"]).await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    server.shop("sale").supply("ps5", 1).await;
    let expected: Vec<_> = DURABLE.iter().chain(&["history"]).map(|&name| (name, NotChecked)).collect();
    let details = not_kept(&server, &expected).await;
    assert!(details[..5].iter().all(|detail| detail == "fast: an OK is in memory only"), "{details:?}");
}

#[tokio::test]
async fn a_fenced_partition_breaks_one_and_the_server_stays_ready() {
    let mut redis = Redis::start_with(&ON_DISK).await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let copy = redis.files().copy();
    shop.supply("lost", 1).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("SetStock", async || shop.set_stock("found", 1, &new_id()).await).await;
    let details = not_kept(&server, &[("history", NotChecked), ("partitions", Broken)]).await;
    let fence = &server.info().await.fenced_partitions[0].fence;
    assert!(details[1].contains(&format!("sale/0 (fence {fence})")), "{details:?}");
    assert!(server.readyz().await.0, "other partitions are served");
}

#[tokio::test]
async fn of_a_store_that_is_away_nothing_is_known() {
    let mut redis = Redis::start_with(&ON_DISK).await;
    let server = SentinelProcess::launch().on(&redis).start().await;
    server.shop("sale").supply("ps5", 1).await;
    not_kept(&server, &[("history", NotChecked)]).await;
    redis.kill9();
    let expected: Vec<_> =
        ALL[..13].iter().map(|&name| (name, if name == "store_reachable" { Broken } else { NotChecked })).collect();
    let details = not_kept(&server, &expected).await;
    assert!(details[0].contains("cannot connect to unix:///"), "{details:?}");
    redis.restart().await;
    not_kept(&server, &[("history", NotChecked)]).await;
}
