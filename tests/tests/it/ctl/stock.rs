//! `sentinelctl stock list|get|set|adjust`.

use sentinel_tests::{SentinelProcess, new_id};

use super::{HOSTILE, ctl};

#[tokio::test]
async fn the_counters_are_set_adjusted_and_shown() {
    let server = SentinelProcess::start().await;
    let made = ctl(&server, &["stock", "set", "ps5", "100"]).await.ends(0);
    assert_eq!(made.err, "note: namespace sale was created\n");
    let made = made.object();
    assert_eq!((&made["sku"], &made["available"], &made["is_protected"]), (&"ps5".into(), &100.into(), &true.into()));
    let adjusted = ctl(&server, &["stock", "adjust", "ps5", "-10"]).await.ends(0);
    assert_eq!((adjusted.object()["available"].as_i64(), adjusted.err.as_str()), (Some(90), ""));
    server.shop("sale").hold("ps5", 4).await;
    let keys = ["available", "held", "is_paused", "is_protected", "sku", "sold", "supplied", "version", "withdrawn"];
    let got = ctl(&server, &["stock", "get", "ps5"]).await.ends(0).object();
    assert_eq!(got.as_object().expect("an object").keys().collect::<Vec<_>>(), keys);
    assert_eq!((got["available"].as_i64(), got["held"].as_i64()), (Some(86), Some(4)));
    let table = ctl(&server, &["stock", "get", "ps5", "--table"]).await.ends(0);
    let version = got["version"].to_string();
    let expected = format!(
        "SKU  AVAILABLE  HELD  SOLD  SUPPLIED  PROTECTED  VERSION  PAUSED\n\
         ps5         86     4     0        90  yes        {version:>7}  no\n"
    );
    assert_eq!(table.out, expected);
}

#[tokio::test]
async fn a_list_has_every_sku_once_and_ends_at_the_limit() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    for i in 0..25 {
        shop.supply(&format!("sku-{i:02}"), i).await;
    }
    let listed = ctl(&server, &["stock", "list"]).await.ends(0).objects();
    let mut skus: Vec<_> = listed.iter().map(|sku| sku["stock"]["sku"].as_str().expect("a sku").to_owned()).collect();
    skus.sort();
    assert_eq!(skus, (0..25).map(|i| format!("sku-{i:02}")).collect::<Vec<_>>());
    assert!(listed.iter().all(|sku| sku["rules"]["buyer_limit"].is_null() && sku["rules_version"] == 0), "{listed:?}");
    assert_eq!(ctl(&server, &["stock", "list", "--limit", "7"]).await.ends(0).objects().len(), 7);
    let table = ctl(&server, &["stock", "list", "--table"]).await.ends(0).out;
    assert!(table.lines().count() == 26 && table.starts_with("SKU"), "{table}");
}

/// A name is data: nothing in it may become an option, a column or a line.
#[tokio::test]
async fn hostile_names_are_names() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    for (units, sku) in (1..).zip(HOSTILE) {
        let text = units.to_string();
        ctl(&server, &["stock", "set", "--", sku, &text]).await.ends(0);
        assert_eq!(shop.stock(sku).await.available, units, "{sku}");
        assert_eq!(ctl(&server, &["stock", "get", "--", sku]).await.ends(0).object()["sku"], sku);
        let rules = ["sku", "rules", "--buyer-limit", "2", "--", sku];
        assert_eq!(ctl(&server, &rules).await.ends(0).object()["rules"]["buyer_limit"], 2);
        ctl(&server, &["sku", "delete", "--yes", "--", sku]).await.ends(0);
    }
    // The server refuses a SKU that could forge a line, and the message escapes it.
    let forged = ctl(&server, &["stock", "get", "a\nnext: \u{1b}[31m\u{202e}"]).await.ends(65);
    assert!(forged.err.contains("(INVALID_SKU)"), "{forged:?}");
    assert!(!forged.err.contains(['\u{1b}', '\u{202e}']), "{forged:?}");
    let unknown = ctl(&server, &["stock", "adjust", "nothing", "-1"]).await.ends(65);
    assert!(unknown.err.contains("SKU \"nothing\" does not exist") && unknown.err.contains("(SKU_NOT_FOUND)"));
    assert!(unknown.err.contains("sentinelctl -n sale stock list"), "{unknown:?}");
}

/// An operator who mistypes a number must not lose units.
#[tokio::test]
async fn units_on_hand_get_fewer_only_with_yes() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.hold("ps5", 30).await;
    let refused = ctl(&server, &["stock", "set", "ps5", "99"]).await.ends(77);
    assert!(refused.err.contains("from 100 to 99") && refused.err.contains("nothing was changed"), "{refused:?}");
    assert_eq!(shop.counts("ps5").await, (70, 30, 0));
    ctl(&server, &["stock", "set", "ps5", "100"]).await.ends(0);
    ctl(&server, &["stock", "set", "ps5", "110"]).await.ends(0);
    ctl(&server, &["stock", "set", "ps5", "50", "--yes"]).await.ends(0);
    assert_eq!(shop.counts("ps5").await, (20, 30, 0));
    let below = ctl(&server, &["stock", "set", "ps5", "29", "--yes"]).await.ends(65);
    assert!(below.err.contains("30 are held (STOCK_BELOW_HELD)"), "{below:?}");
    assert!(below.err.contains("next: leave at least 30 units"), "{below:?}");
}

#[tokio::test]
async fn conditions_and_identities_are_passed_on() {
    let server = SentinelProcess::start().await;
    ctl(&server, &["stock", "set", "ps5", "100", "--if-absent"]).await.ends(0);
    let exists = ctl(&server, &["stock", "set", "ps5", "5", "--if-absent"]).await.ends(65);
    assert!(exists.err.contains("(SKU_EXISTS)"), "{exists:?}");
    let stale = ctl(&server, &["stock", "set", "ps5", "200", "--if-version", "77"]).await.ends(65);
    assert!(stale.err.contains("is 1, not the expected one (VERSION_MISMATCH)"), "{stale:?}");
    let id = new_id();
    for _ in 0..2 {
        let adjusted = ctl(&server, &["stock", "adjust", "ps5", "7", "--request-id", &id]).await.ends(0);
        assert_eq!(adjusted.object()["available"], 107, "applied once");
    }
    let reused = ctl(&server, &["stock", "adjust", "ps5", "8", "--request-id", &id]).await.ends(65);
    assert!(reused.err.contains("(REQUEST_ID_REUSED)"), "{reused:?}");
}
