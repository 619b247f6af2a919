//! `sentinelctl demo` against a real server: its output is true, and its exit code matches it.

use std::process::Output;

use sentinel_tests::{SentinelProcess, sentinelctl};
use serde_json::Value;

/// The names under which the demo counts refusals by each rule.
const RULES: [&str; 11] = [
    "BUYER_LIMIT",
    "BUYER_REQUIRED",
    "EXTEND_LIMIT",
    "LATE_COMMIT_SOLD_OUT",
    "LINE_NOT_HELD",
    "QUANTITY_LIMIT",
    "RESERVATION_EXPIRED",
    "SALE_CLOSED",
    "SALE_NOT_OPEN",
    "SKU_NOT_PROTECTED",
    "TTL_LIMIT",
];

/// The object of the last line, of a demo that found itself exact.
fn summary(output: &Output) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{:?}\n{}", output.status, text(&output.stderr));
    let out = text(&output.stdout);
    serde_json::from_str(out.lines().last().expect("a last line")).expect("an object")
}

fn number(summary: &Value, key: &str) -> i64 {
    summary[key].as_i64().unwrap_or_else(|| panic!("no {key} in {summary}"))
}

/// Checks the summary of a sale against itself and against the server's audit. Returns the sold units.
async fn check_summary(server: &SentinelProcess, summary: &Value) -> i64 {
    let n = |key| number(summary, key);
    assert_eq!(n("reserved"), n("committed") + n("rolled_back") + n("expired"), "{summary}");
    assert_eq!(n("attempts"), n("reserved") - n("repurchased") + n("sold_out") + n("refused_attempts"), "{summary}");
    assert_eq!((n("oversold"), n("lost"), n("problems")), (0, 0, 0), "{summary}");
    assert_eq!((summary["audit_clean"].as_bool(), summary["exact"].as_bool()), (Some(true), Some(true)));
    assert!(0 < n("p50_us") && n("p50_us") <= n("p99_us"), "{summary}");
    assert!(n("reservations_per_second") > 0, "{summary}");

    let client = server.client().await;
    let audit =
        client.namespace(summary["namespace"].as_str().expect("a name")).admin().audit().await.expect("an audit");
    assert!(audit.clean, "{audit:?}");
    assert_eq!((audit.supplied, audit.held, audit.pending_reservations), (n("units"), 0, 0), "{summary}");
    audit.sold
}

#[tokio::test]
async fn the_plain_sale_sells_every_unit() {
    let server = SentinelProcess::start().await;
    let output = sentinelctl(server.grpc(), "demo --json --units 500 --buyers 500 --attempts 4000").await;
    let summary = summary(&output);
    assert_eq!(check_summary(&server, &summary).await, 500);
    assert_eq!(number(&summary, "committed"), 500);
    assert_eq!((&summary["scenario"], &summary["refused"]), (&"plain".into(), &serde_json::json!({})));
}

#[tokio::test]
async fn the_sale_by_the_rules_meets_every_rule() {
    let server = SentinelProcess::start().await;
    let sizes = "--units 500 --buyers 1000 --attempts 5000 --in-flight 128 --seed 7";
    let output = sentinelctl(server.grpc(), &format!("demo --scenario rules --json {sizes}")).await;
    let summary = summary(&output);
    // The sale is over: each unit is sold or available.
    let sold = check_summary(&server, &summary).await;
    assert!(0 < sold && sold < number(&summary, "units"), "{sold} sold: {summary}");
    let refused = summary["refused"].as_object().expect("refusals by reason");
    assert_eq!(refused.keys().collect::<Vec<_>>(), RULES);
    assert!(refused.values().all(|count| count.as_u64() > Some(0)), "{summary}");
    let played = summary["played"].as_object().expect("what was played");
    assert!(!played.is_empty() && played.values().all(|count| count.as_u64() > Some(0)), "{summary}");

    // The table is for people, beside the object.
    let table = String::from_utf8_lossy(&output.stderr);
    assert!(table.contains("BUYER_LIMIT") && table.contains("verdict  exact: every rule held"), "{table}");
}
