//! `sentinelctl doctor`, `info`, `audit` and `settle`.

use deadpool_redis::redis::Cmd;
use sentinel_server::least_acl;
use sentinel_tests::{Ctl, Ran, Redis, SentinelProcess, eventually, new_id, partition_keys, until_fenced};
use serde_json::Value;
use tempfile::TempDir;

use super::ctl;

async fn doctor(server: &SentinelProcess, more: &[&str]) -> Ran {
    let url = format!("http://{}", server.admin_address());
    let arguments = ["doctor", "--admin-url", &url].into_iter().chain(more.iter().copied());
    Ctl::new(arguments).at(server.grpc()).run().await
}

/// The checks of this name.
fn checks<'a>(objects: &'a [Value], name: &str) -> Vec<&'a Value> {
    let found: Vec<_> = objects.iter().filter(|check| check["check"] == name).collect();
    assert!(!found.is_empty(), "no {name} in {objects:?}");
    found
}

fn status(objects: &[Value], name: &str) -> String {
    let found = checks(objects, name);
    let worst = ["FAIL", "WARN", "OK"].into_iter().find(|&status| found.iter().any(|check| check["status"] == status));
    worst.expect("a status").to_owned()
}

#[tokio::test]
async fn a_sound_server_has_no_fail() {
    let redis = Redis::start_with(&["--appendonly yes", "--appendfsync always", "--maxmemory 1gb"]).await;
    let folder = TempDir::with_prefix("sentinel-state-").expect("a folder");
    let server = SentinelProcess::launch().on(&redis).state_dir(folder.path()).start().await;
    server.shop("sale").supply("ps5", 1).await;
    eventually("the state file is written", async || server.info().await.state_written_at).await;
    let ran = doctor(&server, &[]).await.ends(0);
    let found = ran.objects();
    assert!(found.iter().all(|check| check["status"] == "OK" && check["next"].is_null()), "{ran:?}");
    let services: Vec<_> = checks(&found, "health").iter().map(|check| check["found"].as_str().unwrap()).collect();
    assert!(services.len() == 4 && services.iter().all(|found| found.ends_with(": SERVING")), "{services:?}");
    for name in
        ["connection", "clock", "version", "durability", "store", "state file", "clocks", "partitions", "readyz"]
    {
        assert_eq!(checks(&found, name).len(), 1, "{name}");
    }
    assert!(checks(&found, "state file")[0]["found"].as_str().unwrap().ends_with(" ago"), "{found:?}");
    // Three of them have a separate check.
    assert_eq!(checks(&found, "promise").len(), server.info().await.promises.len() - 3);
    let table = doctor(&server, &["--table"]).await.ends(0).out;
    assert!(table.lines().count() == found.len() && table.lines().all(|line| line.starts_with("OK    ")), "{table}");
}

#[tokio::test]
async fn what_could_be_better_is_a_warning() {
    let server = SentinelProcess::launch().flags("--durability fast").start().await;
    let ran = Ctl::new(["doctor", "--admin-url", "http://127.0.0.1:1"]).at(server.grpc()).run().await.ends(0);
    let found = ran.objects();
    for name in ["durability", "state file", "readyz"] {
        assert_eq!(status(&found, name), "WARN");
        assert!(checks(&found, name)[0]["next"].as_str().is_some_and(|next| !next.is_empty()), "{ran:?}");
    }
    let warned: Vec<_> = checks(&found, "promise").into_iter().filter(|check| check["status"] == "WARN").collect();
    assert!(warned.iter().all(|check| check["next"].as_str().is_some_and(|next| !next.is_empty())), "{ran:?}");
    let of_disk = |check: &&&Value| {
        check["found"].as_str().is_some_and(|found| found.ends_with(": fast: an OK is in memory only"))
    };
    assert_eq!(warned.iter().filter(of_disk).count(), 5, "{ran:?}");
    // An empty variable is an unset one, and a flag overrides it.
    let url = format!("http://{}", server.admin_address());
    let ran = Ctl::new(["doctor"]).at(server.grpc()).variable("SENTINEL_ADMIN_URL", url.as_str()).run().await.ends(0);
    assert_eq!(status(&ran.objects(), "readyz"), "OK");
    let flag = ["doctor", "--admin-url", "http://127.0.0.1:1"];
    let ran = Ctl::new(flag).at(server.grpc()).variable("SENTINEL_ADMIN_URL", url).run().await.ends(0);
    assert_eq!(status(&ran.objects(), "readyz"), "WARN");
    Ctl::new(["doctor", "--admin-url", "nonsense"]).at(server.grpc()).run().await.ends(64);
}

/// The fix that the server names is printed: the operator may not have the server's log.
#[tokio::test]
async fn a_store_that_is_not_fit_is_shown_with_its_fix() {
    let redis = Redis::start().await;
    redis.permit("sentinel", &least_acl()).await;
    redis.permit("sentinel", "+config|get").await;
    let server = SentinelProcess::launch().on_as(&redis, "sentinel").start().await;
    redis.execute::<()>("CONFIG SET maxmemory-policy allkeys-lru").await;
    eventually("it is not ready", async || (!server.readyz().await.0).then_some(())).await;
    let found = doctor(&server, &[]).await.ends(1).objects();
    assert_eq!((status(&found, "health").as_str(), status(&found, "connection").as_str()), ("FAIL", "OK"));
    let readyz = checks(&found, "readyz")[0];
    assert_eq!((&readyz["status"], &readyz["next"]), (&"FAIL".into(), &"set maxmemory-policy noeviction".into()));
    assert!(readyz["found"].as_str().unwrap().contains("allkeys-lru"), "{readyz}");

    redis.execute::<()>("CONFIG SET maxmemory-policy noeviction").await;
    redis.permit("sentinel", "-zrem").await;
    eventually("it lacks zrem", async || server.readyz().await.1.contains("+zrem").then_some(())).await;
    let table = doctor(&server, &["--table"]).await.ends(1).out;
    let line = table.lines().find(|line| line.starts_with("FAIL  readyz")).unwrap_or_else(|| panic!("{table}"));
    assert!(
        line.contains("lacks permissions") && line.ends_with("; next: grant +zrem (docs/operate/permissions.md)"),
        "{line}"
    );
    let denied = ctl(&server, &["stock", "adjust", "ps5", "1"]).await.ends(65);
    assert!(denied.err.contains("(STORE_DENIED)") && denied.err.contains("next: grant +zrem"), "{denied:?}");
}

#[tokio::test]
async fn no_server_is_a_fail() {
    let ran = Ctl::new(["doctor", "--admin-url", "http://127.0.0.1:1"]).at("127.0.0.1:1").run().await.ends(1);
    let found = ran.objects();
    assert_eq!((status(&found, "connection").as_str(), status(&found, "readyz").as_str()), ("FAIL", "WARN"));
}

#[tokio::test]
async fn an_audit_says_whether_the_books_are_clean() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.hold("ps5", 3).await;
    let clean = ctl(&server, &["audit"]).await.ends(0).object();
    assert_eq!((&clean["clean"], &clean["held"], &clean["pending_reservations"]), (&true.into(), &3.into(), &1.into()));
    // The test writes the raw format: a unit without a source in the counters, 6 bytes each, big-endian.
    let keys = partition_keys("sale", 0);
    let mut counters: Vec<u8> = redis.query(&Cmd::hget(keys.stock(), "ps5")).await;
    counters[5] += 1;
    redis.query::<()>(&Cmd::hset(keys.stock(), "ps5", counters)).await;
    let found = ctl(&server, &["audit"]).await.ends(1).object();
    assert_eq!((&found["clean"], &found["findings"][0]["kind"]), (&false.into(), &"NOT_CONSERVED".into()));
    let table = ctl(&server, &["audit", "--table"]).await.ends(1).out;
    assert!(table.starts_with("clean                 NO\n") && table.contains("\nNOT_CONSERVED  ps5"), "{table}");
}

/// Everything that an operator does after a loss: notice it, confirm, settle, sell again.
#[tokio::test]
async fn a_fenced_partition_is_seen_and_settled() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    for sku in ["ps5", "a=b", "old", "rest"] {
        shop.supply(sku, 10).await;
    }
    let copy = redis.files().copy();
    shop.supply("lost", 1).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("SetStock", async || shop.set_stock("found", 1, &new_id()).await).await;

    let info = ctl(&server, &["info"]).await.ends(0).object();
    let fenced = &info["fenced_partitions"][0];
    assert_eq!(
        (&fenced["namespace_id"], &fenced["partition"], &fenced["is_gated"]),
        (&"sale".into(), &0.into(), &true.into())
    );
    let lost = fenced["seen"]["sequence"].as_i64().unwrap() - fenced["kept_sequence"].as_i64().unwrap();
    assert_eq!((lost, fenced["seen"]["term"].as_str().map(str::len)), (1, Some(40)));
    let fence = fenced["fence"].as_str().expect("a fence").to_owned();
    let table = ctl(&server, &["info", "--table"]).await.ends(0).out;
    assert!(table.contains("\nFENCED NAMESPACE  PARTITION  FENCE") && table.contains(&fence), "{table}");
    assert!(table.contains("\n\nPROMISE ") && table.contains("\npartitions            BROKEN       lost"), "{table}");
    assert_eq!(info["promises"][13]["state"], "BROKEN", "{info}");
    let refused = ctl(&server, &["stock", "adjust", "ps5", "1"]).await.ends(65);
    assert!(refused.err.contains("(STORE_FENCED)") && refused.err.contains("sentinelctl info"), "{refused:?}");
    let found = doctor(&server, &[]).await.ends(1).objects();
    let broken: Vec<_> = checks(&found, "promise").into_iter().filter(|check| check["status"] == "FAIL").collect();
    assert!(broken.is_empty(), "{broken:?}");
    let audited = ctl(&server, &["audit"]).await;
    assert!(audited.err.starts_with("note: partition 0 is fenced"), "{audited:?}");
    let partition = checks(&found, "partitions")[0];
    assert!(partition["found"].as_str().unwrap().contains("lost 1 changes"), "{partition}");
    assert!(
        partition["next"].as_str().unwrap().contains(&format!("settle --partition 0 --fence {fence}")),
        "{partition}"
    );

    let settle = [
        "settle",
        "--partition",
        "0",
        "--fence",
        &fence,
        "--available",
        "ps5=7",
        "--available",
        "a=b=2",
        "--available-beside-old-holds",
        "old=4",
        "--request-id",
        "settle-1",
    ];
    let unconfirmed = ctl(&server, &settle).await.ends(77);
    assert!(unconfirmed.err.contains("all others get 0 available"), "{unconfirmed:?}");
    let wrong: Vec<&str> =
        settle.iter().map(|&word| if word == fence { "0000000000000000" } else { word }).chain(["-y"]).collect();
    assert!(ctl(&server, &wrong).await.ends(65).err.contains("(FENCE_CHANGED)"));
    let settle: Vec<&str> = settle.iter().copied().chain(["--yes"]).collect();
    let settled = ctl(&server, &settle).await.ends(0).object();
    assert_eq!((&settled["skus"], &settled["replayed"]), (&4.into(), &false.into()));
    assert_eq!(ctl(&server, &settle).await.ends(0).object()["replayed"], true);
    for (sku, available) in [("ps5", 7), ("a=b", 2), ("old", 4), ("rest", 0)] {
        assert_eq!(shop.stock(sku).await.available, available, "{sku}");
    }
    assert_eq!(ctl(&server, &["info"]).await.ends(0).object()["fenced_partitions"], serde_json::json!([]));
}

#[tokio::test]
async fn the_figures_of_a_settlement_come_from_a_file_too() {
    let server = SentinelProcess::start().await;
    server.shop("sale").supply("ps5", 1).await;
    let settle = async |csv: &str| {
        let arguments =
            ["-n", "sale", "settle", "--partition", "0", "--fence", "5f0c9d1ab2e37780", "--yes", "--file", "-"];
        Ctl::new(arguments).at(server.grpc()).input(csv).run().await
    };
    let not_fenced = settle("sku,available,old_holds_return\nps5,1,true\npad,2,\n").await.ends(65);
    assert!(not_fenced.err.contains("(NOT_FENCED)"), "{not_fenced:?}");
    let malformed = settle("ps5,1,perhaps\n").await.ends(64);
    assert!(malformed.err.contains("line 1: old_holds_return is neither"), "{malformed:?}");
}
