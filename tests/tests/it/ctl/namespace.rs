//! `sentinelctl namespace ...`.

use inventory_sentinel::Reason;
use sentinel_tests::{Ctl, SentinelProcess, assert_refused, reserve_request};

use super::ctl;

#[tokio::test]
async fn a_namespace_is_made_changed_shown_and_listed() {
    let server = SentinelProcess::start().await;
    let made =
        ctl(&server, &["namespace", "configure", "drop-7", "--partitions", "4", "--default-ttl", "3m"]).await.ends(0);
    assert_eq!(made.err, "note: namespace drop-7 was created\n");
    let made = made.object();
    assert_eq!((&made["namespace_id"], &made["version"]), (&"drop-7".into(), &1.into()));
    assert_eq!((&made["config"]["partitions"], &made["config"]["default_ttl"]), (&4.into(), &"180s".into()));
    let settings = [
        "namespace",
        "configure",
        "drop-7",
        "--max-ttl",
        "10m",
        "--max-life",
        "20m",
        "--retention",
        "2h",
        "--quota-records",
        "1000",
        "--quota-skus",
        "10",
        "--if-version",
        "1",
    ];
    let changed = ctl(&server, &settings).await.ends(0);
    assert_eq!(changed.err, "");
    let changed = changed.object();
    let config = &changed["config"];
    assert_eq!(
        [&config["max_ttl"], &config["max_life"], &config["retention"], &config["default_ttl"]],
        ["600s", "1200s", "7200s", "180s"]
    );
    assert_eq!((config["quota_records"].as_i64(), config["quota_skus"].as_i64()), (Some(1_000), Some(10)));
    // The name after the command, or the global option.
    let shown = Ctl::new(["namespace", "show", "-n", "drop-7"]).at(server.grpc()).run().await.ends(0).object();
    assert_eq!(shown, changed);
    let listed = ctl(&server, &["namespace", "list"]).await.ends(0).object();
    assert_eq!(listed, serde_json::json!({"namespace_id": "drop-7"}));
    let fixed = ctl(&server, &["namespace", "configure", "drop-7", "--partitions", "8"]).await.ends(65);
    assert!(fixed.err.contains("(PARTITIONS_FIXED)"), "{fixed:?}");
    ctl(&server, &["namespace", "configure", "drop-7"]).await.ends(64);
    let unknown = ctl(&server, &["namespace", "show"]).await.ends(65);
    assert!(unknown.err.contains("(NAMESPACE_NOT_FOUND)") && unknown.err.contains("`sentinelctl namespace list`"));
}

#[tokio::test]
async fn a_namespace_is_paused_and_resumed_and_its_skus_stay_as_they_are() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("pad", 10).await;
    let held = shop.hold("pad", 1).await;
    ctl(&server, &["sku", "pause", "ps5"]).await.ends(0);
    assert_eq!(ctl(&server, &["namespace", "show"]).await.ends(0).object()["config"]["is_paused"], false);
    let paused = ctl(&server, &["namespace", "pause"]).await.ends(0).object();
    assert_eq!((&paused["namespace_id"], &paused["config"]["is_paused"]), (&"sale".into(), &true.into()));
    assert!(ctl(&server, &["namespace", "show", "--table"]).await.ends(0).out.contains("\npaused         yes\n"));
    assert_refused(shop.reserve(reserve_request(&[("pad", 1)])).await, Reason::SalePaused, None);
    shop.commit(&held.reservation_id).await.expect("what is held can be sold");
    let pad = ctl(&server, &["sku", "show", "pad"]).await.ends(0).object();
    assert_eq!(pad["rules"]["is_paused"], false, "its own rules do not pause it");

    let resumed = Ctl::new(["namespace", "resume", "sale"]).at(server.grpc()).run().await.ends(0).object();
    assert_eq!(resumed["config"]["is_paused"], false);
    shop.hold("pad", 1).await;
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::SalePaused, None);
    let configured = ctl(&server, &["namespace", "configure", "--is-paused", "true"]).await.ends(0).object();
    assert_eq!(configured["config"]["is_paused"], true);

    // A misspelt name creates no namespace.
    let unknown = ctl(&server, &["namespace", "pause", "slae"]).await.ends(65);
    assert!(unknown.err.contains("(NAMESPACE_NOT_FOUND)"), "{unknown:?}");
    assert_eq!(ctl(&server, &["namespace", "list"]).await.ends(0).objects().len(), 1);
}

#[tokio::test]
async fn a_pause_that_needs_a_newer_format_says_how_to_raise_it() {
    let server = SentinelProcess::launch().flags("--format 4").start().await;
    server.shop("sale").supply("ps5", 10).await;
    for pause in [&["namespace", "pause"][..], &["sku", "pause", "ps5"]] {
        let refused = ctl(&server, pause).await.ends(65);
        let next = "next: raise the format with `sentinelctl namespace configure sale --format 5`";
        assert!(refused.err.contains(next), "{refused:?}");
    }
    ctl(&server, &["namespace", "configure", "sale", "--format", "5"]).await.ends(0);
    assert_eq!(ctl(&server, &["sku", "pause", "ps5"]).await.ends(0).object()["rules"]["is_paused"], true);
}

#[tokio::test]
async fn a_namespace_is_deleted_after_a_yes_and_not_while_units_are_held() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("drop-7");
    shop.supply("ps5", 10).await;
    let held = shop.hold("ps5", 1).await.reservation_id;
    let refused = ctl(&server, &["namespace", "delete", "drop-7"]).await.ends(77);
    assert!(refused.err.contains("drop-7") && refused.err.contains("--yes"), "{refused:?}");
    let holds = ctl(&server, &["namespace", "delete", "drop-7", "--yes"]).await.ends(65);
    assert!(holds.err.contains("(NAMESPACE_HAS_HOLDS)") && holds.err.contains("namespace pause drop-7"), "{holds:?}");
    shop.commit(&held).await.expect("the namespace still works");
    let delete = ["namespace", "delete", "drop-7", "--yes", "--request-id", "end-of-drop-7"];
    let deleted = ctl(&server, &delete).await.ends(0).object();
    assert_eq!(deleted, serde_json::json!({"namespace_id": "drop-7"}));
    assert_eq!(ctl(&server, &delete).await.ends(0).object(), deleted, "a repeat is no other deletion");
    assert_eq!(ctl(&server, &["namespace", "list"]).await.ends(0).out, "");
    let unknown = ctl(&server, &["namespace", "delete", "drop-7", "--yes"]).await.ends(65);
    assert!(unknown.err.contains("(NAMESPACE_NOT_FOUND)"), "{unknown:?}");
}

/// A SKU does not contain the pause of its namespace, so the command prints it.
#[tokio::test]
async fn a_paused_namespace_is_noted_beside_its_skus() {
    let server = SentinelProcess::start().await;
    ctl(&server, &["stock", "set", "ps5", "10"]).await.ends(0);
    let commands: [&[&str]; 3] = [&["stock", "list"], &["stock", "get", "ps5"], &["sku", "show", "ps5"]];
    for command in commands {
        assert_eq!(ctl(&server, command).await.ends(0).err, "");
    }
    ctl(&server, &["namespace", "pause"]).await.ends(0);
    for command in commands {
        let note = "note: namespace sale is paused: none of its SKUs can be reserved\n";
        assert_eq!(ctl(&server, command).await.ends(0).err, note);
    }
}

#[tokio::test]
async fn a_mistyped_namespace_is_refused_where_that_is_wanted() {
    let server = SentinelProcess::start().await;
    for command in [&["stock", "set", "ps5", "10"][..], &["stock", "adjust", "ps5", "10"]] {
        let refused = ctl(&server, &[command, &["--existing-namespace"]].concat()).await.ends(65);
        assert!(refused.err.contains("(NAMESPACE_NOT_FOUND)"), "{refused:?}");
    }
    assert_eq!(ctl(&server, &["namespace", "list"]).await.ends(0).out, "");
}
