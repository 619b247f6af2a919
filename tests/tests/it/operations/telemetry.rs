//! Observability: traces, received by a collector in this process, and the values of `/metrics`.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use inventory_sentinel::v1;
use opentelemetry_proto::tonic::trace::v1::Span;
use sentinel_tests::{Collector, SentinelProcess, eventually, new_id, reserve_request};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::Request;

async fn traced(endpoint: &str) -> SentinelProcess {
    SentinelProcess::launch()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .variable("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start()
        .await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_call_is_followed_from_its_caller_to_redis() {
    let collector = Collector::start().await;
    let server = traced(&collector.endpoint()).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;

    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let mut request = Request::new(reserve_request(&[("ps5", 1)]));
    request.get_mut().namespace_id = "sale".into();
    request.metadata_mut().insert("traceparent", format!("00-{trace}-{parent}-01").parse().expect("a header"));
    shop.checkout.clone().reserve(request).await.expect("held");

    let call =
        eventually("the call's span", async || collector.spans().into_iter().find(|span| hex(&span.trace_id) == trace))
            .await;
    assert_eq!(hex(&call.parent_span_id), parent);
    assert_eq!(call.name, "inventory_sentinel.v1.InventorySentinel/Reserve");
    let links_to =
        |span: &Span, id: &[u8]| span.links.iter().any(|link| link.span_id == id && hex(&link.trace_id) == trace);
    let batch = eventually("the batch that contained it", async || {
        collector.spans().into_iter().find(|span| links_to(span, &call.span_id))
    })
    .await;
    assert_eq!(batch.name, "batch");
    assert_ne!(batch.trace_id, call.trace_id, "many calls share it");
    let redis = eventually("redis under the batch", async || {
        collector.spans().into_iter().find(|span| span.parent_span_id == batch.span_id)
    })
    .await;
    assert_eq!((redis.name.as_str(), &redis.trace_id), ("EVALSHA", &batch.trace_id));
    assert!(call.start_time_unix_nano <= batch.start_time_unix_nano);
    assert!(batch.start_time_unix_nano <= redis.start_time_unix_nano);
    assert!(redis.end_time_unix_nano <= batch.end_time_unix_nano);
}

/// The span of a stream lasts as long as the stream.
#[tokio::test]
async fn a_stream_is_seen_whole() {
    let collector = Collector::start().await;
    let server = traced(&collector.endpoint()).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let (trace, parent) = ("1af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let mut request = Request::new(v1::WatchRequest { namespace_id: "sale".into(), ..Default::default() });
    request.metadata_mut().insert("traceparent", format!("00-{trace}-{parent}-01").parse().expect("a header"));
    let mut stream = shop.events.clone().watch(request).await.expect("a stream").into_inner();
    let began = std::time::Instant::now();
    for _ in 0..2 {
        stream.message().await.expect("a response");
    }
    let open = began.elapsed();
    let span_of = || collector.spans().into_iter().find(|span| hex(&span.trace_id) == trace);
    assert!(span_of().is_none(), "it is still open");
    drop(stream);
    let span = eventually("the stream's span", async || span_of()).await;
    assert_eq!(span.name, "inventory_sentinel.v1.InventoryEvents/Watch");
    let lasted = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
    assert!(lasted >= open.saturating_sub(Duration::from_millis(100)), "{lasted:?} of {open:?}");
}

#[tokio::test]
async fn every_call_is_linked_from_the_batch_that_carried_it() {
    let collector = Collector::start().await;
    let server = traced(&collector.endpoint()).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let mut buyers = JoinSet::new();
    // Fewer than the links that a span may have.
    for _ in 0..100 {
        let shop = shop.clone();
        buyers.spawn(async move { shop.hold("ps5", 1).await });
    }
    buyers.join_all().await;
    // Each call is linked from exactly one batch.
    let (calls, links) = eventually("all spans", async || {
        let spans = collector.spans();
        let calls: HashSet<_> =
            spans.iter().filter(|span| span.name.ends_with("/Reserve")).map(|span| span.span_id.clone()).collect();
        let links: Vec<_> = spans
            .iter()
            .filter(|span| span.name == "batch")
            .flat_map(|span| &span.links)
            .map(|link| link.span_id.clone())
            .filter(|id| calls.contains(id))
            .collect();
        (calls.len() == 100 && links.len() == 100).then_some((calls, links))
    })
    .await;
    assert_eq!(links.into_iter().collect::<HashSet<_>>(), calls);
}

/// A collector that accepts and never answers, and one that does not exist.
#[tokio::test]
async fn a_dead_collector_is_in_nobodys_way() {
    let black_hole = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let dead = format!("http://{}", black_hole.local_addr().expect("an address"));
    for endpoint in [dead.as_str(), "http://127.0.0.1:1"] {
        let mut server = traced(endpoint).await;
        let shop = server.shop("sale");
        shop.supply("ps5", 10_000).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let mut buyers = JoinSet::new();
            for _ in 0..200 {
                let shop = shop.clone();
                buyers.spawn(async move {
                    let began = Instant::now();
                    shop.hold("ps5", 1).await;
                    began.elapsed()
                });
            }
            slowest = slowest.max(buyers.join_all().await.into_iter().max().unwrap());
        }
        assert!(slowest < Duration::from_secs(5), "a call took {slowest:?} with {endpoint}");
        let began = Instant::now();
        server.terminate();
        assert_eq!(server.exit().await.code(), Some(0), "{}", server.log());
        assert!(began.elapsed() < Duration::from_secs(20), "it left after {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn calls_are_counted_by_how_they_ended() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 5).await;
    let held = shop.hold("ps5", 1).await.reservation_id;
    let other = shop.hold("ps5", 1).await.reservation_id;
    shop.reserve(reserve_request(&[("ps5", 9)])).await.expect("a shortage");
    shop.reserve(reserve_request(&[("ps5", 9)])).await.expect("a shortage");
    shop.reserve(reserve_request(&[("ps5", 0)])).await.expect_err("invalid");
    shop.reserve(reserve_request(&[("vita", 1)])).await.expect_err("refused");
    shop.commit(&held).await.expect("sold");
    shop.commit(&held).await.expect("a replay");
    shop.commit("x").await.expect_err("invalid");
    shop.rollback(&held).await.expect_err("refused");
    shop.rollback(&other).await.expect("given back");
    shop.set_stock("ps5", -1, &new_id()).await.expect_err("invalid");

    for (operation, counts) in
        [("reserve", [2, 2, 1, 1, 0]), ("commit", [2, 0, 1, 0, 0]), ("rollback", [1, 0, 0, 1, 0])]
    {
        let statuses = ["success", "insufficient_stock", "invalid", "refused", "unavailable"];
        for (status, count) in statuses.into_iter().zip(counts) {
            let series = format!("inventory_sentinel_{operation}_total{{status=\"{status}\"}}");
            assert_eq!(server.metric(&series).await, f64::from(count), "{series}");
        }
        let series = format!("inventory_sentinel_operation_duration_seconds_count{{operation=\"{operation}\"}}");
        assert_eq!(server.metric(&series).await, f64::from(counts.iter().sum::<i32>()), "{series}");
    }
    let series = "inventory_sentinel_operation_duration_seconds_count{operation=\"set_stock\"}";
    assert_eq!(server.metric(series).await, 2.0);
    // No name that a caller chose is a label.
    let metrics = server.metrics().await;
    assert!(!metrics.contains("ps5") && !metrics.contains("sale"), "{metrics}");
    assert!(metrics.contains("le=\"0.00005\""), "buckets from 50 us: {metrics}");
}

/// "Who closed the sale at 05:02?"
#[tokio::test]
async fn each_change_of_an_operator_is_one_line_of_the_log() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.set_stock("ps5", 10, "stock-1").await.expect("set");
    shop.set_stock("ps5", 10, "stock-1").await.expect("a replay has no line");
    shop.adjust_stock("ps5", 5, "stock-2").await.expect("adjusted");
    let closed = v1::SkuRules {
        closes_at: Some(prost_types::Timestamp { seconds: 1_577_836_800, nanos: 0 }),
        ..Default::default()
    };
    shop.configure("ps5", closed).await.expect("closed");
    shop.configure("ps5", closed).await.expect("closed already, which has no line");
    shop.set_stock("ps5", -1, "bad").await.expect_err("a refusal has no line");
    let config = Some(v1::NamespaceConfig { is_paused: Some(true), ..Default::default() });
    let request_id = "pause-1".to_owned();
    let request = v1::ConfigureNamespaceRequest { namespace_id: "sale".into(), config, request_id, if_version: None };
    shop.admin.clone().configure_namespace(request).await.expect("paused");
    shop.delete_sku("ps5").await.expect("deleted");

    let lines = eventually("five lines of the trail", async || {
        let is_trail = |line: &serde_json::Value| line["message"] == "an operator changed something";
        let lines: Vec<_> = server.log_lines().into_iter().filter(is_trail).collect();
        (lines.len() >= 5).then_some(lines)
    })
    .await;
    let field = |at: usize, name: &str| lines[at][name].as_str().unwrap_or_default().to_owned();
    let calls: Vec<_> = (0..lines.len()).map(|at| field(at, "call")).collect();
    assert_eq!(calls, ["SetStock", "AdjustStock", "ConfigureSku", "ConfigureNamespace", "DeleteSku"]);
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(field(at, "namespace"), "sale");
        assert!(field(at, "caller").starts_with("127.0.0.1:"), "{line}");
        assert!(field(at, "user_agent").contains("tonic"), "{line}");
    }
    assert_eq!(
        (field(0, "sku"), field(0, "request_id"), field(0, "before")),
        ("ps5".into(), "stock-1".into(), String::new())
    );
    assert!(field(0, "after").starts_with("on_hand=10 "), "{}", lines[0]);
    assert!(
        field(1, "before").starts_with("on_hand=10 ") && field(1, "after").starts_with("on_hand=15 "),
        "{}",
        lines[1]
    );
    assert!(!field(2, "before").contains("closes_at_ms"), "{}", lines[2]);
    assert!(field(2, "after").contains("closes_at_ms=1577836800000"), "{}", lines[2]);
    assert!(
        field(3, "before").contains("is_paused=false") && field(3, "after").contains("is_paused=true"),
        "{}",
        lines[3]
    );
    assert_eq!(field(4, "after"), "deleted");
}
