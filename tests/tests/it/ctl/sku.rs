//! `sentinelctl sku ...`.

use inventory_sentinel::Reason;
use sentinel_tests::{SentinelProcess, assert_refused, reserve_request};

use super::ctl;

#[tokio::test]
async fn rules_are_set_kept_and_taken_away() {
    let server = SentinelProcess::start().await;
    server.shop("sale").supply("ps5", 10).await;
    let set = [
        "sku",
        "rules",
        "ps5",
        "--max-quantity",
        "3",
        "--max-ttl",
        "5m",
        "--buyer-limit",
        "2",
        "--opens-at",
        "2026-11-27T19:00:00+01:00",
        "--closes-at",
        "2026-11-27T20:00:00.500Z",
        "--if-version",
        "0",
    ];
    let rules = ctl(&server, &set).await.ends(0).object();
    let expected = serde_json::json!({
        "is_protected": true, "is_paused": false, "max_quantity": 3, "max_ttl": "300s", "buyer_limit": 2,
        "opens_at": "2026-11-27T18:00:00.000Z", "closes_at": "2026-11-27T20:00:00.500Z",
    });
    assert_eq!((&rules["rules"], &rules["rules_version"]), (&expected, &1.into()));
    let stale = ctl(&server, &set).await.ends(65);
    assert!(stale.err.contains("is 1, not the expected one (VERSION_MISMATCH)"), "{stale:?}");
    let cleared = ["sku", "rules", "ps5", "--max-ttl", "none", "--buyer-limit", "none", "--opens-at", "none"];
    let cleared = ctl(&server, &cleared).await.ends(0).object();
    let expected = serde_json::json!({
        "is_protected": true, "is_paused": false, "max_quantity": 3, "max_ttl": null, "buyer_limit": null,
        "opens_at": null, "closes_at": "2026-11-27T20:00:00.500Z",
    });
    assert_eq!(cleared["rules"], expected);
    assert_eq!(ctl(&server, &["sku", "show", "ps5"]).await.ends(0).object(), cleared);
    let table = ctl(&server, &["sku", "show", "ps5", "--table"]).await.ends(0).out;
    assert!(table.contains("\nmax quantity   3\n") && table.contains("\nopens at       -\n"), "{table}");
    ctl(&server, &["sku", "rules", "ps5"]).await.ends(64);
    let wrong = ctl(
        &server,
        &["sku", "rules", "ps5", "--closes-at", "2026-11-27T17:00:00Z", "--opens-at", "2026-11-27T18:00:00Z"],
    );
    assert!(wrong.await.ends(65).err.contains("(INVALID_RULE)"));
    let malformed = ctl(&server, &["sku", "rules", "ps5", "--opens-at", "tomorrow"]).await;
    assert!(malformed.code == 64 && malformed.err.contains("RFC 3339"), "{malformed:?}");
}

#[tokio::test]
async fn the_sale_of_skus_is_paused_and_resumed() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("-10% mug", 10).await;
    shop.supply("pad", 10).await;
    let held = shop.hold("ps5", 1).await;
    let pause = ["sku", "pause", "--request-id", "pause-1", "--", "ps5", "-10% mug"];
    for _ in 0..2 {
        let paused = ctl(&server, &pause).await.ends(0).objects();
        let states: Vec<_> = paused.iter().map(|sku| (&sku["stock"]["sku"], &sku["rules"]["is_paused"])).collect();
        assert_eq!(states, [(&"ps5".into(), &true.into()), (&"-10% mug".into(), &true.into())], "a repeat is harmless");
    }
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::SalePaused, None);
    assert!(shop.is_protected("ps5").await, "the ordinary path must not sell it meanwhile");
    shop.commit(&held.reservation_id).await.expect("what is held can be sold");
    shop.hold("pad", 1).await;
    let table = ctl(&server, &["stock", "list", "--table"]).await.ends(0).out;
    let paused = |sku: &str| table.lines().any(|line| line.starts_with(sku) && line.ends_with("  yes"));
    assert!(table.lines().next().is_some_and(|line| line.ends_with("PAUSED")), "{table}");
    assert!(paused("ps5") && paused("-10% mug") && !paused("pad"), "{table}");
    assert!(ctl(&server, &["sku", "show", "ps5", "--table"]).await.ends(0).out.contains("\npaused         yes\n"));

    let unknown = ctl(&server, &["sku", "resume", "ps5", "nothing"]).await.ends(65);
    assert!(unknown.err.contains("\"nothing\"") && unknown.err.contains("(SKU_NOT_FOUND)"), "{unknown:?}");
    assert_eq!(unknown.objects()[0]["rules"]["is_paused"], false, "those before it have changed");
    shop.hold("ps5", 1).await;
    assert_eq!(ctl(&server, &["sku", "pause"]).await.code, 64);
}

#[tokio::test]
async fn protection_is_set_for_many() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("pad", 10).await;
    let ran = ctl(&server, &["sku", "unprotect", "ps5", "pad"]).await.ends(0);
    assert!(ran.objects().iter().all(|sku| sku["outcome"] == "CHANGED"), "{ran:?}");
    assert!(!shop.is_protected("ps5").await && !shop.is_protected("pad").await);
    let ran = ctl(&server, &["sku", "protect", "ps5", "nothing"]).await.ends(65);
    let outcomes: Vec<_> = ran.objects().iter().map(|sku| sku["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes, ["CHANGED", "SKU_NOT_FOUND"]);
    assert!(shop.is_protected("ps5").await && ran.err.contains("\"nothing\""), "{ran:?}");
}

#[tokio::test]
async fn a_sku_is_forgotten_only_with_yes() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let held = shop.hold("ps5", 3).await;
    let refused = ctl(&server, &["sku", "delete", "ps5"]).await.ends(77);
    assert!(refused.err.contains("7 units available, 3 held and 0 sold"), "{refused:?}");
    let holds = ctl(&server, &["sku", "delete", "ps5", "--yes"]).await.ends(65);
    assert!(holds.err.contains("3 units of SKU \"ps5\" are held (SKU_HAS_HOLDS)"), "{holds:?}");
    assert_eq!(shop.counts("ps5").await, (7, 3, 0));
    shop.rollback(&held.reservation_id).await.expect("rolled back");
    assert_eq!(ctl(&server, &["sku", "delete", "ps5", "--yes"]).await.ends(0).object()["available"], 10);
    assert!(ctl(&server, &["sku", "delete", "ps5", "--yes"]).await.ends(65).err.contains("(SKU_NOT_FOUND)"));
}

/// A limit that is lifted takes its counts with it, which a shop may not expect.
#[tokio::test]
async fn lifting_a_limit_says_what_is_forgotten() {
    let server = SentinelProcess::start().await;
    ctl(&server, &["stock", "set", "ps5", "10"]).await.ends(0);
    assert_eq!(ctl(&server, &["sku", "rules", "ps5", "--buyer-limit", "2"]).await.ends(0).err, "");
    assert_eq!(ctl(&server, &["sku", "rules", "ps5", "--buyer-limit", "3"]).await.ends(0).err, "");
    let lifted = ctl(&server, &["sku", "rules", "ps5", "--buyer-limit", "none"]).await.ends(0);
    assert!(lifted.err.starts_with("note: the counts per buyer are deleted with the limit"), "{lifted:?}");
}
