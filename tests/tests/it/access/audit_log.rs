//! The audit log: one record for each call of an operator and for each refused call, whatever the level of the log and
//! the strings of the caller.

use std::time::{Duration, Instant};

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{
    Redis, SentinelProcess,
    credentials::{AccessFiles, Validity},
    eventually, new_id, reason,
};
use serde_json::Value;

use super::{
    CallerClients,
    any_rpc::{ADMIN, CHECKOUT, EVENTS, call},
    set_stock,
};

/// The target of the records in their lines.
const AUDIT: &str = "sentinel_server::audit";

/// The records in the lines of a log.
pub(super) fn records(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == AUDIT).collect()
}

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_else(|| panic!("no {field} in {record}"))
}

/// Call, outcome, identity and namespace of a record.
pub(super) fn summary(record: &Value) -> [&str; 4] {
    ["call", "outcome", "identity", "namespace"].map(|field| text(record, field))
}

fn get_sku(sku: &str) -> v1::GetSkuRequest {
    v1::GetSkuRequest { namespace_id: "sale".into(), sku: sku.into() }
}

fn import(namespace: &str, skus: &[&str]) -> v1::ImportStockRequest {
    let row = |sku: &&str| v1::ImportRow { sku: (*sku).to_owned(), on_hand: 1 };
    v1::ImportStockRequest {
        namespace_id: namespace.into(),
        request_id: new_id(),
        rows: skus.iter().map(row).collect(),
        ..Default::default()
    }
}

/// Sends all messages, and reads the responses until the end of the stream or a refusal.
async fn import_all(caller: &mut CallerClients, messages: Vec<v1::ImportStockRequest>) -> Result<(), tonic::Status> {
    let mut responses = caller.admin.import_stock(tokio_stream::iter(messages)).await?.into_inner();
    while responses.message().await?.is_some() {}
    Ok(())
}

/// The values of a change that a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Neither,
    After,
    Both,
}

#[tokio::test]
async fn each_call_of_an_operator_has_one_record() {
    use Values::{After, Both, Neither};
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut owner = CallerClients::connect(&server, &files, &token).await;
    let namespace_id = || "sale".to_owned();
    let mut expected = Vec::new();
    let mut expect = |call: &'static str, outcome: &'static str, namespace: &'static str, values: Values| {
        expected.push(([call, outcome, "everything", namespace], values));
    };

    owner.admin.set_stock(set_stock("sale", "ps5", 10)).await.expect("set");
    expect("SetStock", "OK", "sale", After);
    let second = set_stock("sale", "ps5", 12);
    owner.admin.set_stock(second.clone()).await.expect("set");
    expect("SetStock", "OK", "sale", Both);
    assert!(owner.admin.set_stock(second).await.expect("a replay").into_inner().replayed);
    expect("SetStock", "OK", "sale", Neither);
    let absent = v1::SetStockRequest { if_absent: true, ..set_stock("sale", "ps5", 1) };
    owner.admin.set_stock(absent).await.expect_err("refused");
    expect("SetStock", "SKU_EXISTS", "sale", Neither);
    let version = v1::SetStockRequest { if_version: Some(1), ..set_stock("sale", "ps5", 1) };
    owner.admin.set_stock(version).await.expect_err("refused");
    expect("SetStock", "VERSION_MISMATCH", "sale", Neither);
    owner.admin.set_stock(set_stock("sale", "ps5", -1)).await.expect_err("invalid");
    expect("SetStock", "INVALID_STOCK", "", Neither);
    let adjust =
        v1::AdjustStockRequest { namespace_id: namespace_id(), sku: "ps5".into(), delta: 5, ..Default::default() };
    owner.admin.adjust_stock(adjust.clone()).await.expect_err("invalid");
    expect("AdjustStock", "REQUEST_ID_REQUIRED", "", Neither);
    let adjust = v1::AdjustStockRequest { request_id: new_id(), ..adjust };
    owner.admin.adjust_stock(adjust).await.expect("adjusted");
    expect("AdjustStock", "OK", "sale", Both);
    let rules = Some(v1::SkuRules { max_quantity: Some(2), ..Default::default() });
    let configure =
        v1::ConfigureSkuRequest { namespace_id: namespace_id(), sku: "ps5".into(), rules, ..Default::default() };
    owner.admin.configure_sku(configure).await.expect("configured");
    expect("ConfigureSku", "OK", "sale", Both);
    let config = Some(v1::NamespaceConfig { is_paused: Some(true), ..Default::default() });
    let configure = v1::ConfigureNamespaceRequest { namespace_id: namespace_id(), config, ..Default::default() };
    owner.admin.configure_namespace(configure).await.expect("configured");
    expect("ConfigureNamespace", "OK", "sale", Both);
    let protect = v1::SetProtectionRequest {
        namespace_id: namespace_id(),
        skus: vec!["ps5".into()],
        is_protected: Some(false),
        request_id: new_id(),
    };
    owner.admin.set_protection(protect).await.expect("changed");
    expect("SetProtection", "OK", "sale", After);

    owner.admin.get_sku(get_sku("ps5")).await.expect("found");
    expect("GetSku", "OK", "sale", Neither);
    owner.admin.get_sku(get_sku("vita")).await.expect_err("unknown");
    expect("GetSku", "SKU_NOT_FOUND", "sale", Neither);
    let get_namespace = |name: &str| v1::GetNamespaceRequest { namespace_id: name.into() };
    owner.admin.get_namespace(get_namespace("sale")).await.expect("found");
    expect("GetNamespace", "OK", "sale", Neither);
    owner.admin.get_namespace(get_namespace("ghost")).await.expect_err("unknown");
    expect("GetNamespace", "NAMESPACE_NOT_FOUND", "ghost", Neither);
    owner.admin.list_namespaces(v1::ListNamespacesRequest::default()).await.expect("a page");
    expect("ListNamespaces", "OK", "", Neither);
    let page = v1::ListNamespacesRequest { page_token: "AAAA".into(), ..Default::default() };
    owner.admin.list_namespaces(page).await.expect_err("invalid");
    expect("ListNamespaces", "INVALID_PAGE_TOKEN", "", Neither);
    let list = v1::ListStockRequest { namespace_id: namespace_id(), ..Default::default() };
    owner.admin.list_stock(list).await.expect("a page");
    expect("ListStock", "OK", "sale", Neither);
    let list = v1::ListReservationsRequest { namespace_id: namespace_id(), ..Default::default() };
    owner.admin.list_reservations(list).await.expect("a page");
    expect("ListReservations", "OK", "sale", Neither);
    owner.admin.audit(v1::AuditRequest { namespace_id: namespace_id() }).await.expect("a report");
    expect("Audit", "OK", "sale", Neither);
    owner.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("the server");
    expect("GetServerInfo", "OK", "", Neither);

    // Each message of an import has a record.
    let messages = vec![import("sale", &["a", "b"]), import("sale", &["ps5"]), import("bad name", &["c"])];
    import_all(&mut owner, messages).await.expect_err("the last message is invalid");
    expect("ImportStock", "OK", "sale", After);
    expect("ImportStock", "OK", "sale", Neither);
    expect("ImportStock", "INVALID_NAMESPACE", "", Neither);
    let settle =
        v1::SettlePartitionRequest { namespace_id: namespace_id(), request_id: new_id(), ..Default::default() };
    owner.admin.settle_partition(settle).await.expect_err("not fenced");
    expect("SettlePartition", "NOT_FENCED", "sale", Neither);
    let delete = v1::DeleteSkuRequest { namespace_id: namespace_id(), sku: "ps5".into(), ..Default::default() };
    owner.admin.delete_sku(delete).await.expect("deleted");
    expect("DeleteSku", "OK", "sale", Both);
    let delete = v1::DeleteNamespaceRequest { namespace_id: namespace_id(), request_id: new_id() };
    owner.admin.delete_namespace(delete.clone()).await.expect("deleted");
    expect("DeleteNamespace", "OK", "sale", Both);
    assert!(owner.admin.delete_namespace(delete).await.expect("a replay").into_inner().replayed);
    expect("DeleteNamespace", "OK", "sale", Neither);

    let log = eventually("the last record", async || {
        let log = server.log();
        (records(&log).len() >= expected.len()).then_some(log)
    })
    .await;
    let records = records(&log);
    let values = |record: &Value| match (text(record, "before"), text(record, "after")) {
        ("", "") => Neither,
        ("", _) => After,
        _ => Both,
    };
    let found: Vec<_> = records.iter().map(|record| (summary(record), values(record))).collect();
    assert_eq!(found, expected);
    for record in &records {
        assert!(text(record, "caller").starts_with("127.0.0.1:"), "{record}");
        assert!(text(record, "user_agent").contains("tonic"), "{record}");
    }
    assert!(text(&records[1], "before").starts_with("on_hand=10 "), "{}", records[1]);
    assert!(text(&records[1], "after").starts_with("on_hand=12 "), "{}", records[1]);
}

#[tokio::test]
async fn each_refused_call_has_one_record() {
    let files = AccessFiles::new();
    let (everything, checkout, operator) =
        (files.token("everything"), files.token("checkout"), files.token("operator"));
    let server = SentinelProcess::launch()
        .guarded_with_client_ca(&files, "optional")
        .flags("--max-failed-authentications 1000")
        .start()
        .await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    owner.admin.set_stock(set_stock("sale", "ps5", 10)).await.expect("set");
    let mut expected: Vec<[String; 4]> = Vec::new();
    let mut expect = |call: String, outcome: Reason, identity: &str, namespace: &str| {
        expected.push([call, outcome.as_str().to_owned(), identity.to_owned(), namespace.to_owned()]);
    };
    let get_stock = |namespace: &str| v1::GetStockRequest { namespace_id: namespace.into(), sku: "ps5".into() };

    let mut nobody = CallerClients::connect(&server, &files, "").await;
    nobody.checkout.get_stock(get_stock("sale")).await.expect_err("refused");
    expect(format!("{CHECKOUT}GetStock"), Reason::CredentialsMissing, "", "");
    let mut unknown = CallerClients::connect(&server, &files, "ist_0123456789abcdef_no").await;
    unknown.admin.set_stock(set_stock("sale", "ps5", 1)).await.expect_err("refused");
    expect(format!("{ADMIN}SetStock"), Reason::CredentialsMalformed, "", "");
    let signed = files.authority.client("uri:spiffe://shop/unknown", Validity::Now);
    let channel = server.connect(files.client_tls().identity(signed.identity())).await.expect("a connection");
    CallerClients::new(channel, "").checkout.get_stock(get_stock("sale")).await.expect_err("refused");
    expect(format!("{CHECKOUT}GetStock"), Reason::CredentialsUnknown, "", "");

    let mut shop = CallerClients::connect(&server, &files, &checkout).await;
    shop.admin.set_stock(set_stock("sale", "ps5", 1)).await.expect_err("refused");
    expect(format!("{ADMIN}SetStock"), Reason::RoleMissing, "checkout", "");
    import_all(&mut shop, vec![import("sale", &["a"])]).await.expect_err("refused");
    expect(format!("{ADMIN}ImportStock"), Reason::RoleMissing, "checkout", "");
    shop.events.watch(v1::WatchRequest::default()).await.expect_err("refused");
    expect(format!("{EVENTS}Watch"), Reason::RoleMissing, "checkout", "");
    shop.checkout.get_stock(get_stock("us")).await.expect_err("refused");
    expect(format!("{CHECKOUT}GetStock"), Reason::NamespaceForbidden, "checkout", "us");
    let watch = v1::WatchProtectedRequest { namespace_id: "us".into(), ..Default::default() };
    shop.checkout.watch_protected(watch).await.expect_err("refused");
    expect(format!("{CHECKOUT}WatchProtected"), Reason::NamespaceForbidden, "checkout", "us");
    let entry = |namespace| v1::BatchOperation {
        operation: Some(v1::batch_operation::Operation::GetStock(get_stock(namespace))),
        ..Default::default()
    };
    let operations = vec![entry("sale"), entry("us"), entry("sale"), entry("de")];
    shop.checkout.batch(v1::BatchRequest { operations }).await.expect("results");
    expect(format!("{CHECKOUT}Batch"), Reason::NamespaceForbidden, "checkout", "us");
    expect(format!("{CHECKOUT}Batch"), Reason::NamespaceForbidden, "checkout", "de");

    // A refused call of an operator has no second record.
    let mut scoped = CallerClients::connect(&server, &files, &operator).await;
    scoped.admin.set_stock(set_stock("us", "ps5", 1)).await.expect_err("refused");
    expect(format!("{ADMIN}SetStock"), Reason::NamespaceForbidden, "operator", "us");
    import_all(&mut scoped, vec![import("us", &["a"])]).await.expect_err("refused");
    expect(format!("{ADMIN}ImportStock"), Reason::NamespaceForbidden, "operator", "us");
    scoped.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect_err("refused");
    expect(format!("{ADMIN}GetServerInfo"), Reason::NamespaceForbidden, "operator", "");
    assert_eq!(server.get("/metrics", "").await.expect("a response").0, 401);
    expect("/metrics".into(), Reason::CredentialsMissing, "", "");
    assert_eq!(server.get("/metrics", &checkout).await.expect("a response").0, 403);
    expect("/metrics".into(), Reason::RoleMissing, "checkout", "");

    // The first record is that of the owner.
    let log = eventually("the last record", async || {
        let log = server.log();
        (records(&log).len() > expected.len()).then_some(log)
    })
    .await;
    let records = records(&log);
    let found: Vec<_> = records[1..].iter().map(|record| summary(record).map(str::to_owned)).collect();
    assert_eq!(found, expected);
    for record in &records[1..] {
        assert_eq!(record["message"], "a call was refused", "{record}");
        assert_eq!(record["unrecorded"], 0, "{record}");
        assert!(text(record, "caller").starts_with("127.0.0.1:"), "{record}");
    }
}

#[tokio::test]
async fn a_call_without_an_end_and_a_stream_that_is_cut_off_have_one_record() {
    let files = AccessFiles::new();
    let (everything, revoked) = (files.token("everything"), files.token("everything"));
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().guarded(&files).on(&redis).start().await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    owner.admin.set_stock(set_stock("sale", "ps5", 10)).await.expect("set");
    let mut caller = CallerClients::connect(&server, &files, &revoked).await;
    let watch = v1::WatchRequest { namespace_id: "sale".into(), ..Default::default() };
    let mut stream = caller.events.watch(watch).await.expect("a stream").into_inner();
    files.revoke(&revoked);
    eventually("the stream ends", async || stream.message().await.err()).await;

    redis.stop();
    let mut lost = CallerClients::connect(&server, &files, &everything).await;
    let call = lost.admin.set_stock(set_stock("sale", "ps5", 11));
    tokio::time::timeout(Duration::from_millis(300), call).await.expect_err("no response without the store");
    drop(lost);
    let found = eventually("three records", async || {
        let found = records(&server.log());
        (found.len() >= 3).then_some(found)
    })
    .await;
    redis.cont();
    let watch = format!("{EVENTS}Watch");
    let summaries: Vec<_> = found.iter().map(summary).collect();
    assert_eq!(
        summaries,
        [
            ["SetStock", "OK", "everything", "sale"],
            [&watch, "CREDENTIALS_UNKNOWN", "everything", ""],
            // The change runs to its end without its caller; the store does not confirm it.
            ["SetStock", "OUTCOME_UNKNOWN", "everything", "sale"],
        ]
    );
}

/// Makes one change and one refused call.
async fn change_and_refusal(server: &SentinelProcess, files: &AccessFiles, token: &str) {
    let mut owner = CallerClients::connect(server, files, token).await;
    owner.admin.set_stock(set_stock("sale", "ps5", 10)).await.expect("set");
    let mut nobody = CallerClients::connect(server, files, "").await;
    nobody.admin.get_sku(get_sku("ps5")).await.expect_err("refused");
}

#[tokio::test]
async fn no_level_of_the_log_turns_the_records_off() {
    for level in ["error", "off", "off,sentinel_server::audit=off"] {
        let files = AccessFiles::new();
        let token = files.token("everything");
        let server = SentinelProcess::launch().guarded(&files).flags(&format!("--log {level}")).start_silent().await;
        change_and_refusal(&server, &files, &token).await;
        let log = eventually("two records", async || {
            let log = server.log();
            (records(&log).len() >= 2).then_some(log)
        })
        .await;
        assert_eq!(log.lines().count(), 2, "{level}: only the records: {log}");
    }
}

#[tokio::test]
async fn a_file_takes_the_records_from_standard_error() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let path = files.path("audit.log");
    let mut server = SentinelProcess::launch()
        .guarded(&files)
        .flags(&format!("--audit-log {} --log trace", path.display()))
        .start()
        .await;
    for start in 1..=2 {
        change_and_refusal(&server, &files, &token).await;
        let log = eventually("two more records", async || {
            let log = std::fs::read_to_string(&path).expect("the audit log");
            (records(&log).len() >= 2 * start).then_some(log)
        })
        .await;
        assert_eq!(log.lines().count(), 2 * start, "{log}");
        assert!(!server.log().contains(AUDIT), "{}", server.log());
        server.restart().await;
    }

    let missing = files.path("missing").join("audit.log");
    let flags = format!("--audit-log {}", missing.display());
    let (code, log) = SentinelProcess::launch().guarded(&files).flags(&flags).run().await;
    assert_ne!(code, Some(0), "a server without its audit log does not start");
    assert!(log.contains("the audit log"), "{log}");
}

#[tokio::test]
async fn a_hostile_string_stays_inside_its_record() {
    let forged = format!(r#"x"}} {{"target":"{AUDIT}","outcome":"OK","identity":"everything"}}"#);
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).flags("--log debug").start().await;
    let endpoint = server.endpoint(files.client_tls()).user_agent(format!("{forged}\t")).expect("a user agent");
    let channel = endpoint.connect().await.expect("a connection");
    let mut owner = CallerClients::new(channel.clone(), &token);
    let with_line_break = format!("x\n{forged}\r\n\u{2028}");

    owner.admin.set_stock(set_stock("sale", &forged, 10)).await.expect("a SKU may have these characters");
    owner.admin.set_stock(set_stock("sale", &with_line_break, 10)).await.expect_err("invalid");
    owner.admin.set_stock(set_stock(&with_line_break, "ps5", 10)).await.expect_err("invalid");
    let request_id = forged.replace(' ', "");
    let id = v1::SetStockRequest { request_id: request_id.clone(), ..set_stock("sale", "ps5", 1) };
    owner.admin.set_stock(id).await.expect("an id may have these characters");
    import_all(&mut owner, vec![import("sale", &[&with_line_break, "vita"])]).await.expect("one row is valid");
    let long = "x".repeat(100_000);
    import_all(&mut owner, vec![import("sale", &[&long, "wii"])]).await.expect("one row is valid");
    let path = format!("{ADMIN}{}", r#"{"outcome":"OK"}"#);
    call(&channel, "", &path, bytes::Bytes::new()).await.expect_err("refused");

    let log = eventually("seven records", async || {
        let log = server.log();
        (records(&log).len() >= 7).then_some(log)
    })
    .await;
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object() && line.len() < 20_000, "{line}");
    }
    let records = records(&log);
    let outcomes: Vec<_> = records.iter().map(|record| text(record, "outcome")).collect();
    assert_eq!(
        outcomes,
        ["OK", "INVALID_SKU", "INVALID_NAMESPACE", "OK", "OK", "OK", Reason::CredentialsMissing.as_str()]
    );
    assert_eq!(text(&records[0], "sku"), forged);
    assert!(text(&records[0], "user_agent").contains(&forged), "{}", records[0]);
    assert_eq!(text(&records[3], "request_id"), request_id);
    assert!(text(&records[4], "after").contains(&with_line_break), "{}", records[4]);
    assert_eq!(text(&records[6], "call"), path);
}

#[tokio::test]
async fn a_flood_of_refused_calls_is_counted_and_not_recorded() {
    const CALLS: u64 = 1_000;
    let files = AccessFiles::new();
    let metrics = files.token("metrics");
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let channel = server.connect(files.client_tls()).await.expect("a connection");
    let since = Instant::now();
    let path = format!("{ADMIN}GetServerInfo");
    let credentials = ["", "Bearer ist_0123456789abcdef_no", "Bearer a.b.c", "Basic abc"];
    for authorization in credentials.into_iter().cycle().take(CALLS as usize) {
        call(&channel, authorization, &path, bytes::Bytes::new()).await.expect_err("refused");
    }
    let recorded = records(&server.log());
    // The burst of two seconds, and the rate since.
    let most = 20 + (since.elapsed().as_secs_f64() * 10.0).ceil() as usize;
    assert!(recorded.len() <= most, "{} records in {:?}", recorded.len(), since.elapsed());
    assert!(recorded.len() >= 20, "{}", recorded.len());

    // The next record has the count of the others.
    tokio::time::sleep(Duration::from_millis(300)).await;
    call(&channel, "", &path, bytes::Bytes::new()).await.expect_err("refused");
    let number = recorded.len();
    let recorded = eventually("the next record", async || {
        let recorded = records(&server.log());
        (recorded.len() > number).then_some(recorded)
    })
    .await;
    let unrecorded: u64 = recorded.iter().map(|record| record["unrecorded"].as_u64().expect("a number")).sum();
    assert_eq!(unrecorded + recorded.len() as u64, CALLS + 1);

    let (status, page) = server.get("/metrics", &metrics).await.expect("metrics");
    assert_eq!(status, 200);
    let series = "inventory_sentinel_access_refused_total{";
    let counts = page.lines().filter(|line| line.starts_with(series));
    let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count");
    assert_eq!(counts.map(count).sum::<u64>(), CALLS + 1, "{page}");
}

#[tokio::test]
async fn refusals_of_a_valid_identity_lock_out_no_other_caller_of_its_address() {
    let files = AccessFiles::new();
    let checkout = files.token("checkout");
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut shop = CallerClients::connect(&server, &files, &checkout).await;
    for _ in 0..200 {
        let request = v1::GetStockRequest { namespace_id: "us".into(), sku: "ps5".into() };
        let refused = shop.checkout.get_stock(request).await.expect_err("refused");
        assert_eq!(reason(&refused), Reason::NamespaceForbidden);
        shop.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect_err("refused");
    }
    let mut other = CallerClients::connect(&server, &files, &files.issuer.token("everything")).await;
    other.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("its credential is valid");
}
