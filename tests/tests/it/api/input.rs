//! Hostile strings in every field of every call. Each is refused with the name of the field or stored safely, and none
//! can add a line to the log.

use deadpool_redis::redis::Cmd;
use inventory_sentinel::{Reason, v1};
use inventory_sentinel_script::keys::{NAMESPACES, STORE_ID};
use sentinel_tests::{Redis, SentinelProcess, assert_refused, new_id, partition_keys, reserve_request};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Fit for no field. The last is nearly the largest message that is read at all.
fn hostile() -> Vec<String> {
    [
        "a\u{200b}b",
        "a\0b",
        "a\nb{\"level\":\"ERROR\"}",
        "\u{1b}[2J\u{1b}[31m",
        "\u{202e}cba",
        "\u{2028}",
        "a\r\nb",
        "\u{7f}",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["x".repeat((1 << 18) - 1_024)])
    .collect()
}

/// Fit for SKUs, request and buyer ids, but one with a space: printable, but the separators of keys.
const SEPARATORS: [&str; 6] = ["{}", "}{", "a:b", "{sale/0}:stock", "*", "\"; return 1 --"];

/// The field that the refusal names.
fn field<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    let status = result.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(!status.message().contains(char::is_control), "{status:?}");
    assert!(status.message().len() < 1_024, "{} bytes", status.message().len());
    status.get_details_bad_request().expect("it names the field").field_violations[0].field.clone()
}

/// The field in the refusal of one operation of a Batch, named as in the single call.
async fn field_in_a_batch(server: &SentinelProcess, text: &str) -> String {
    let reserve = v1::ReserveRequest { request_id: text.to_owned(), ..reserve_request(&[("ps5", 1)]) };
    let operation = Some(v1::batch_operation::Operation::Reserve(reserve));
    let request = v1::BatchRequest { operations: vec![v1::BatchOperation { operation, timeout: None }] };
    let mut results = server.checkout().batch(request).await.expect("a batch").into_inner().results;
    match results.remove(0).result {
        Some(v1::batch_result::Result::Failure(failure)) => {
            assert!(failure.message.len() < 1_024 && !failure.message.contains(char::is_control), "{failure:?}");
            failure.field
        }
        other => panic!("{other:?}"),
    }
}

/// Sends a text in every string field of every call. Each must be refused with the name of the field. Returns the
/// number of fields.
async fn in_every_field(server: &SentinelProcess, text: &str) -> usize {
    let (mut checkout, mut admin) = (server.checkout(), server.admin());
    let (sale, ps5, id) = (|| "sale".to_owned(), || "ps5".to_owned(), || "A".repeat(24));
    let mut fields = 0;
    macro_rules! refused {
        ($client:ident.$method:ident($good:expr): $($bad:ident)+) => {
            $(
                let mut request = $good;
                request.$bad = text.to_owned();
                assert_eq!(field($client.$method(request).await), stringify!($bad), stringify!($method));
                fields += 1;
            )+
        };
    }
    let order = || v1::ReserveRequest { namespace_id: sale(), ..reserve_request(&[("ps5", 1)]) };
    refused!(checkout.reserve(order()): namespace_id request_id buyer_id replaces_reservation_id);
    let good =
        || v1::CommitRequest { namespace_id: sale(), reservation_id: id(), request_id: sale(), ..Default::default() };
    refused!(checkout.commit(good()): namespace_id reservation_id request_id);
    let good =
        || v1::RollbackRequest { namespace_id: sale(), reservation_id: id(), request_id: sale(), ..Default::default() };
    refused!(checkout.rollback(good()): namespace_id reservation_id request_id);
    let good = || v1::GetReservationRequest { namespace_id: sale(), reservation_id: id(), ..Default::default() };
    refused!(checkout.get_reservation(good()): namespace_id reservation_id);
    let good = || v1::GetStockRequest { namespace_id: sale(), sku: ps5() };
    refused!(checkout.get_stock(good()): namespace_id sku);
    let good = || v1::IsProtectedRequest { namespace_id: sale(), sku: ps5() };
    refused!(checkout.is_protected(good()): namespace_id sku);
    let good = || v1::BatchGetStockRequest { namespace_id: sale(), skus: vec![ps5()] };
    refused!(checkout.batch_get_stock(good()): namespace_id);
    let good = v1::BatchGetStockRequest { namespace_id: sale(), skus: vec![ps5(), text.to_owned()] };
    assert_eq!(field(checkout.batch_get_stock(good).await), "skus[1]");
    assert_eq!(field_in_a_batch(server, text).await, "request_id");
    let good = || v1::SetStockRequest {
        namespace_id: sale(),
        sku: ps5(),
        on_hand: 1,
        request_id: sale(),
        ..Default::default()
    };
    refused!(admin.set_stock(good()): namespace_id sku request_id);
    let good = || v1::AdjustStockRequest {
        namespace_id: sale(),
        sku: ps5(),
        delta: 1,
        request_id: sale(),
        existing_namespace_only: false,
    };
    refused!(admin.adjust_stock(good()): namespace_id sku request_id);
    let rules = Some(v1::SkuRules { is_protected: Some(true), ..Default::default() });
    let good = || v1::ConfigureSkuRequest {
        namespace_id: sale(),
        sku: ps5(),
        rules,
        request_id: sale(),
        ..Default::default()
    };
    refused!(admin.configure_sku(good()): namespace_id sku request_id);
    let good = || v1::ExtendRequest {
        namespace_id: sale(),
        reservation_id: id(),
        ttl: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        request_id: sale(),
    };
    refused!(checkout.extend(good()): namespace_id reservation_id request_id);
    let good = || v1::GetSkuRequest { namespace_id: sale(), sku: ps5() };
    refused!(admin.get_sku(good()): namespace_id sku);
    let good = || v1::DeleteSkuRequest { namespace_id: sale(), sku: ps5(), request_id: sale() };
    refused!(admin.delete_sku(good()): namespace_id sku request_id);
    let good = || v1::ConfigureNamespaceRequest {
        namespace_id: sale(),
        config: Some(v1::NamespaceConfig { quota_skus: Some(1), ..Default::default() }),
        request_id: sale(),
        if_version: None,
    };
    refused!(admin.configure_namespace(good()): namespace_id request_id);
    let good = || v1::GetNamespaceRequest { namespace_id: sale() };
    refused!(admin.get_namespace(good()): namespace_id);
    let good = || v1::ListNamespacesRequest::default();
    refused!(admin.list_namespaces(good()): page_token);
    let good = || v1::ListStockRequest { namespace_id: sale(), ..Default::default() };
    refused!(admin.list_stock(good()): namespace_id page_token);
    let good = || v1::ListReservationsRequest { namespace_id: sale(), ..Default::default() };
    refused!(admin.list_reservations(good()): namespace_id page_token sku buyer_id);
    let good = || v1::SetProtectionRequest {
        namespace_id: sale(),
        skus: vec![ps5()],
        is_protected: Some(true),
        request_id: sale(),
    };
    refused!(admin.set_protection(good()): namespace_id request_id);
    let good = || v1::AuditRequest { namespace_id: sale() };
    refused!(admin.audit(good()): namespace_id);
    fields
}

/// Whether the server began this line. The audit log is JSON in each form of the log.
fn is_of_server(line: &str, format: &str) -> bool {
    if format == "human" && line.starts_with('2') {
        return true;
    }
    let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
    value.is_some_and(|value| format == "json" || value["target"] == "sentinel_server::audit")
}

async fn hostile_strings_do_no_harm(format: &str) {
    let redis = Redis::start().await;
    let flags = format!("--log info,sentinel_server=trace --log-format {format}");
    let server = SentinelProcess::launch().on(&redis).flags(&flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let before = redis.digest("").await;
    for text in hostile() {
        assert_eq!(in_every_field(&server, &text).await, 47);
        for (namespace, request, named) in [(&*text, "a", "namespace_id"), ("sale", &*text, "request_id")] {
            let (namespace_id, request_id) = (namespace.to_owned(), request.to_owned());
            let message = v1::ImportStockRequest { namespace_id, request_id, ..Default::default() };
            let mut answers = server.admin().import_stock(tokio_stream::iter([message])).await.expect("a stream");
            assert_eq!(field(answers.get_mut().message().await), named);
        }
        assert_eq!(field(shop.reserve(reserve_request(&[(&text, 1)])).await), "lines[0].sku");
    }
    for text in SEPARATORS {
        for namespace in [server.shop(text), server.shop("sale{}")] {
            assert_eq!(field(namespace.try_stock("ps5").await), "namespace_id");
        }
        assert_refused(shop.try_stock(text).await, Reason::SkuNotFound, None);
        assert_eq!(field(shop.commit(text).await), "reservation_id");
    }
    assert!(redis.digest("").await == before, "something was written");
    assert_eq!(redis.query::<Vec<String>>(&Cmd::smembers(NAMESPACES)).await, ["sale"]);

    let log = server.log();
    assert!(log.lines().count() > 24, "refusals are logged at debug: {log}");
    assert!(log.lines().count() < 1_000 && log.len() < 1 << 20, "{} bytes of log", log.len());
    let raw = log.chars().find(|&character| character.is_control() && character != '\n');
    assert_eq!(raw, None, "a control character in the log");
    for line in log.lines() {
        assert!(is_of_server(line, format), "not a line of the server: {line:?}");
    }
}

#[tokio::test]
async fn hostile_strings_do_no_harm_and_stay_in_their_line_of_the_json_log() {
    hostile_strings_do_no_harm("json").await;
}

#[tokio::test]
async fn hostile_strings_do_no_harm_and_stay_in_their_line_of_the_human_log() {
    hostile_strings_do_no_harm("human").await;
}

#[tokio::test]
async fn separators_in_ids_are_only_characters() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    // Every character that a SKU may have.
    let odd = "A-z.0_9/+#~@=";
    shop.supply(odd, 100).await;
    let mut ids = std::collections::HashSet::new();
    for text in SEPARATORS.map(|text| text.replace(' ', "")) {
        let request =
            v1::ReserveRequest { request_id: text.clone(), buyer_id: text.clone(), ..reserve_request(&[(odd, 1)]) };
        let held = shop.hold_order(request.clone()).await;
        assert_eq!(held.buyer_id, text);
        assert_eq!(shop.hold_order(request).await, held, "the same again");
        assert!(ids.insert(held.reservation_id), "{text} is another identity");
    }
    let keys: Vec<String> = redis.execute("KEYS *").await;
    let known = partition_keys("sale", 0);
    let is_known = |key: &String| [NAMESPACES, STORE_ID].contains(&key.as_str()) || known.all().contains(key);
    assert!(keys.iter().all(is_known), "{keys:?}");
    shop.audit().await;
}

/// SKUs and buyers with the names that shops use: sold, listed and watched by these names. They never become part of a
/// key, a label or another line of the log.
#[tokio::test]
async fn names_of_shops_are_taken_as_they_are() {
    for format in ["json", "human"] {
        let redis = Redis::start().await;
        let flags = format!("--log info,sentinel_server=trace --log-format {format}");
        let server = SentinelProcess::launch().on(&redis).flags(&flags).start().await;
        let shop = server.shop("sale");
        let names = [
            "Größe M / blau",
            "A&B",
            "a,b",
            "x:y",
            "東京 限定",
            "e\u{301}clair",
            "👟",
            "\"; return 1 --",
            "{sale/0}:stock",
            "*",
            " ",
            "%0A\\n",
        ];
        for name in names {
            shop.supply(name, 10).await;
            let rules = v1::SkuRules { buyer_limit: Some(2), ..Default::default() };
            shop.configure(name, rules).await.expect("a limit");
            let held =
                shop.hold_order(v1::ReserveRequest { buyer_id: name.into(), ..reserve_request(&[(name, 1)]) }).await;
            assert_eq!((held.lines[0].sku.as_str(), held.buyer_id.as_str()), (name, name));
            let request = v1::ListReservationsRequest {
                namespace_id: "sale".into(),
                sku: name.into(),
                buyer_id: name.into(),
                ..Default::default()
            };
            let listed = server.admin().list_reservations(request).await.expect("a page").into_inner();
            assert_eq!(listed.reservations, std::slice::from_ref(&held));
            shop.commit(&held.reservation_id).await.expect("sold");
            assert_eq!(shop.counts(name).await, (9, 0, 1));
            let more = v1::ReserveRequest { buyer_id: name.into(), ..reserve_request(&[(name, 2)]) };
            assert_refused(shop.reserve(more).await, Reason::BuyerLimit, None);
            assert_eq!(field(shop.set_stock(name, 1, "a b").await), "request_id");
        }
        let request = v1::ListStockRequest { namespace_id: "sale".into(), page_size: 1_000, ..Default::default() };
        let listed = server.admin().list_stock(request).await.expect("a page").into_inner().skus;
        let listed: std::collections::HashSet<_> =
            listed.into_iter().map(|sku| sku.stock.expect("a stock").sku).collect();
        assert_eq!(listed, names.map(str::to_owned).into());
        let keys: Vec<String> = redis.execute("KEYS *").await;
        assert!(keys.iter().all(|key| key.starts_with("is:")), "{keys:?}");
        let metrics = server.metrics().await;
        assert!(!names[..8].iter().any(|name| metrics.contains(name)), "a name is in a label");
        for line in server.log().lines() {
            assert!(is_of_server(line, format), "a name has begun a line: {line:?}");
        }
        shop.audit().await;
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_server_goes_on() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    let huge = v1::ReserveRequest { buyer_id: "x".repeat(1 << 20), ..reserve_request(&[("ps5", 1)]) };
    let status = shop.reserve(huge).await.expect_err("refused");
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    shop.hold("ps5", 1).await;
}

#[tokio::test]
async fn ids_made_by_hand_find_nothing() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.set_stock("ps5", 5, &new_id()).await.expect("the stock is set");
    let mut id = shop.hold("ps5", 1).await.reservation_id;
    // One bit off.
    let last = if id.starts_with('A') { "B" } else { "A" };
    id.replace_range(..1, last);
    for status in [
        shop.commit(&id).await.map(drop).expect_err("unknown"),
        shop.rollback(&id).await.map(drop).expect_err("unknown"),
        shop.reservation(&id).await.map(drop).expect_err("unknown"),
    ] {
        assert_eq!(status.code(), Code::NotFound);
    }
    assert_eq!(shop.counts("ps5").await, (4, 1, 0));
}
