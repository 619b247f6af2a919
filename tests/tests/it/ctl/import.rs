//! `sentinelctl stock import`.

use std::fs;

use sentinel_tests::{Ctl, LossyProxy, Ran, Redis, SentinelProcess};
use tempfile::TempDir;

use super::ctl;

async fn import(server: &SentinelProcess, csv: &str, more: &[&str]) -> Ran {
    let arguments = ["-n", "sale", "stock", "import", "-"].iter().chain(more).copied();
    Ctl::new(arguments).at(server.grpc()).input(csv).run().await
}

#[tokio::test]
async fn an_import_can_be_repeated_and_resets_nothing() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let folder = TempDir::with_prefix("sentinelctl-").expect("a folder");
    let file = folder.path().join("a sale.csv");
    let rows: String = (0..2_500).map(|i| format!("\"sku, {i}\",{}\n", i + 1)).collect();
    fs::write(&file, format!("sku,on_hand\n{rows}")).expect("a file");
    let command = ["stock", "import", file.to_str().expect("a path")];
    let first = ctl(&server, &command).await.ends(0);
    assert_eq!(first.err, "note: namespace sale was created\n");
    let first = first.object();
    assert_eq!(
        [&first["rows"], &first["made"], &first["kept"], &first["failed"]].map(|n| n.as_i64().unwrap()),
        [2_500, 2_500, 0, 0]
    );
    shop.hold("sku, 2499", 9).await;
    let again = ctl(&server, &command).await.ends(0).object();
    assert_eq!((again["made"].as_i64(), again["kept"].as_i64()), (Some(0), Some(2_500)));
    assert_eq!(again["request_id"], first["request_id"], "the identity follows from the rows");
    assert_eq!(shop.counts("sku, 2499").await, (2_491, 9, 0));
}

#[tokio::test]
async fn rows_that_fail_are_named_and_the_others_are_made() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("known", 5).await;
    let csv = "ps5,10\n\nknown,7\n,3\npad,-1\nvita,2\n";
    let ran = import(&server, csv, &[]).await.ends(1);
    let lines = ran.objects();
    assert_eq!(lines.len(), 3, "{ran:?}");
    let failed = |i: usize| (lines[i]["row"].as_i64(), lines[i]["outcome"].as_str(), lines[i]["reason"].as_str());
    assert_eq!(failed(0), (Some(4), Some("FAILED"), Some("EMPTY_SKU")));
    assert_eq!(failed(1), (Some(5), Some("FAILED"), Some("INVALID_STOCK")));
    assert_eq!([&lines[2]["made"], &lines[2]["kept"], &lines[2]["failed"]].map(|n| n.as_i64().unwrap()), [2, 1, 2]);
    assert_eq!((shop.stock("ps5").await.available, shop.stock("known").await.available), (10, 5));
    let table = import(&server, csv, &["--table", "--rows"]).await.ends(1).out;
    assert!(table.contains("ROW  SKU    ON HAND  OUTCOME  REASON\n"), "{table}");
    assert!(table.contains("  4               3  FAILED   EMPTY_SKU: "), "{table}");
    assert!(table.contains("5 rows: 0 made, 3 kept, 2 failed (import-"), "{table}");
}

#[tokio::test]
async fn overwriting_needs_yes() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    import(&server, "ps5,10\n", &["--overwrite"]).await.ends(77);
    assert_eq!(shop.stock("ps5").await.available, 100);
    let done = import(&server, "ps5,10\n", &["--overwrite", "-y"]).await.ends(0).object();
    assert_eq!((done["made"].as_i64(), shop.stock("ps5").await.available), (Some(1), 10));
    // The same rows are the same change; another identity makes another one.
    shop.supply("ps5", 50).await;
    let same = import(&server, "ps5,10\n", &["--overwrite", "-y"]).await.ends(0).object();
    assert_eq!((same["kept"].as_i64(), shop.stock("ps5").await.available), (Some(1), 50));
    import(&server, "ps5,10\n", &["--overwrite", "-y", "--request-id", "evening"]).await.ends(0);
    assert_eq!(shop.stock("ps5").await.available, 10);
}

/// The store becomes unreachable during an import, and the answer to an applied message is lost.
#[tokio::test]
async fn an_import_that_broke_is_repeated_as_it_was() {
    let redis = Redis::start().await;
    let proxy = LossyProxy::start(&redis).await;
    let server = SentinelProcess::launch().flags(&format!("--redis-url {}", proxy.url())).start().await;
    let shop = server.shop("sale");
    shop.supply("known", 5).await;
    proxy.lose_a_reply_and_go_away();
    let csv = "ps5,10\npad,20\nvita,30\n";
    let broken = import(&server, csv, &["--timeout", "2s"]).await;
    assert!(matches!(broken.code, 1 | 75) && broken.err.contains("repeat the same command"), "{broken:?}");
    proxy.come_back();
    server.wait_until_ready().await;
    let done = import(&server, csv, &[]).await.ends(0).object();
    assert_eq!(done["made"].as_i64().unwrap() + done["kept"].as_i64().unwrap(), 3, "{done}");
    for (sku, units) in [("ps5", 10), ("pad", 20), ("vita", 30)] {
        assert_eq!(shop.counts(sku).await, (units, 0, 0));
    }
}

/// One malformed row must not leave half of a file applied.
#[tokio::test]
async fn a_malformed_file_changes_nothing() {
    let server = SentinelProcess::start().await;
    for (csv, expected) in [
        ("ps5,10\npad,many\n", "-, line 2: on_hand is \"many\""),
        ("ps5,10\npad\n", "line 2: 1 fields"),
        ("ps5,10\npad,1,2\n", "line 2: 3 fields"),
        ("ps5,10\nps5,11\n", "line 2: SKU \"ps5\" is in line 1 too"),
        ("sku,on_hand\n", "no row"),
        ("", "no row"),
    ] {
        let ran = import(&server, csv, &[]).await.ends(64);
        assert!(ran.err.contains(expected) && ran.err.contains("nothing was changed"), "{ran:?}");
    }
    let missing = ctl(&server, &["stock", "import", "/nowhere/file.csv"]).await.ends(64);
    assert!(missing.err.contains("/nowhere/file.csv"), "{missing:?}");
    assert_eq!(ctl(&server, &["namespace", "list"]).await.ends(0).out, "", "not even the namespace was made");
}

/// A repeat changes nothing, also with `--overwrite` and after other changes. The command prints this, and how to set
/// the rows again.
#[tokio::test]
async fn a_repeat_says_how_the_rows_are_set_again() {
    let server = SentinelProcess::start().await;
    let csv = "sku,on_hand\nps5,10\nvita,5\n";
    let overwrite = ["--overwrite", "--yes"];
    import(&server, csv, &overwrite).await.ends(0);
    ctl(&server, &["stock", "adjust", "ps5", "5"]).await.ends(0);
    let again = import(&server, csv, &overwrite).await.ends(0);
    assert!(again.err.starts_with("note: 2 rows were applied by this import before"), "{again:?}");
    assert_eq!(server.shop("sale").counts("ps5").await, (15, 0, 0));
    let second = import(&server, csv, &["--overwrite", "--yes", "--request-id", "second"]).await.ends(0);
    assert_eq!((second.err.as_str(), server.shop("sale").counts("ps5").await), ("", (10, 0, 0)));
    ctl(&server, &["sku", "delete", "vita", "--yes"]).await.ends(0);
    let deleted = import(&server, csv, &["--overwrite", "--yes", "--request-id", "second"]).await.ends(1);
    assert!(deleted.err.contains("this import has made 1 of the failed SKUs before"), "{deleted:?}");
}
