//! The memory, connections and time that an untrusted peer can take from the gRPC port. Each test runs an attacker
//! beside an honest caller.

use std::{
    fs,
    io::ErrorKind,
    time::{Duration, Instant},
};

use bytes::Bytes;
use inventory_sentinel::{
    Reason,
    v1::{
        self, batch_operation::Operation, batch_result::Result as Answered,
        inventory_admin_client::InventoryAdminClient,
    },
};
use inventory_sentinel_script::limits::{MAX_LINES, MAX_OPERATIONS, MAX_SKU_BYTES};
use prost::Message as _;
use sentinel_tests::{
    BOUND, Redis, SentinelProcess, TestClient, assert_refused, eventually, http_get, new_id, reserve_request,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Endpoint};

use super::raw_connection::{RawConnection, framed, prefix, refused};

const RESERVE: &str = "/inventory_sentinel.v1.InventorySentinel/Reserve";
const BATCH: &str = "/inventory_sentinel.v1.InventorySentinel/Batch";
const LIST_STOCK: &str = "/inventory_sentinel.v1.InventoryAdmin/ListStock";
const WATCH: &str = "/inventory_sentinel.v1.InventoryEvents/Watch";
/// The text with which an HTTP/2 connection begins, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Resident memory of a server, in bytes.
fn resident(server: &SentinelProcess) -> usize {
    let statm = fs::read_to_string(format!("/proc/{}/statm", server.pid())).expect("the server runs");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4_096
}

async fn closed(server: &SentinelProcess, reason: &str) -> f64 {
    let series = format!(r#"inventory_sentinel_connections_closed_total{{port="grpc",reason="{reason}"}}"#);
    server.metric(&series).await
}

async fn cut(server: &SentinelProcess, reason: &str) -> f64 {
    server.metric(&format!(r#"inventory_sentinel_calls_cut_total{{reason="{reason}"}}"#)).await
}

/// Reads until the peer closes.
async fn read_to_end(socket: &mut TcpStream) {
    let mut bytes = [0; 4_096];
    let end = async { while !matches!(socket.read(&mut bytes).await, Ok(0) | Err(_)) {} };
    timeout(BOUND, end).await.expect("the server closes the connection");
}

/// Each of 1,000 calls announces 1 MB and sends one byte of it.
#[tokio::test]
async fn a_promise_takes_no_memory() {
    const MIB: usize = 1 << 20;
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let calm = resident(&server);
    let mut attackers = Vec::new();
    for _ in 0..4 {
        let mut attacker = RawConnection::connect(&server).await;
        let mut calls = Vec::new();
        for _ in 0..250 {
            calls.push(attacker.call(BATCH, &[&prefix(1_048_000)[..], &[10]].concat(), false).await);
        }
        attackers.push((attacker, calls));
    }
    let waiting = r#"inventory_sentinel_waiting_bytes{direction="request"}"#;
    eventually("all of it is there", async || (server.metric(waiting).await == 6_000.0).then_some(())).await;
    let grown = resident(&server).saturating_sub(calm) / MIB;
    assert!(grown < 48, "{grown} MiB for 6,000 bytes");
    shop.hold("ps5", 1).await;
}

#[tokio::test]
async fn a_request_that_does_not_come_in_full_is_answered_in_time() {
    let server = SentinelProcess::launch().flags("--request-timeout 500ms").start().await;
    let mut attacker = RawConnection::connect(&server).await;
    let whole =
        framed(&v1::ReserveRequest { namespace_id: "sale".into(), ..reserve_request(&[("ps5", 1)]) }.encode_to_vec());
    let (begun, _sender) = attacker.call(RESERVE, &whole[..20], false).await;
    let (empty, _other) = attacker.call(RESERVE, &[], false).await;
    assert_refused(refused(begun).await, Reason::RequestTooSlow, None);
    assert_refused(refused(empty).await, Reason::RequestTooSlow, None);
    assert_eq!(cut(&server, "slow_request").await, 2.0);
    // The connection still works, also for a request that arrives in pieces.
    let (response, mut sender) = attacker.call(RESERVE, &whole[..20], false).await;
    for piece in whole[20..].chunks(7) {
        sender.send_data(Bytes::copy_from_slice(piece), false).expect("a piece");
        tokio::task::yield_now().await;
    }
    sender.send_data(Bytes::new(), true).expect("the end");
    assert_refused(refused(response).await, Reason::NamespaceNotFound, None);
}

#[tokio::test]
async fn what_is_too_large_or_no_message_is_refused_with_a_reason() {
    let server = SentinelProcess::launch().flags("--max-request-bytes 1000000").start().await;
    let mut attacker = RawConnection::connect(&server).await;
    for (path, limit) in [(RESERVE, 262_144), (BATCH, 1_000_000)] {
        let (response, _sender) = attacker.call(path, &prefix(limit + 1), false).await;
        assert_refused(refused(response).await, Reason::RequestTooLarge, None);
    }
    let many = framed(&[0x0A, 0].repeat(100_000));
    let (response, mut sender) = attacker.call(BATCH, &many[..1_000], false).await;
    for piece in many[1_000..].chunks(16_384) {
        sender.reserve_capacity(piece.len());
        sender.send_data(Bytes::copy_from_slice(piece), false).expect("a piece");
    }
    sender.send_data(Bytes::new(), true).expect("the end");
    assert_refused(refused(response).await, Reason::RequestTooLarge, None);
    for bytes in [&b""[..], b"\0\0", b"\0\0\0\0\x05ab", b"\x07\0\0\0\0", b"\0\0\0\0\0\0\0\0\0\0"] {
        let (response, _sender) = attacker.call(RESERVE, bytes, true).await;
        assert_refused(refused(response).await, Reason::MalformedRequest, None);
    }
}

/// As many Reserves as a batch may have, each with the most lines, and with the longest SKUs.
#[tokio::test]
async fn a_batch_as_large_as_its_counts_allow_is_taken() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let skus: Vec<String> = (0..MAX_LINES).map(|i| format!("{i:x>MAX_SKU_BYTES$}")).collect();
    for sku in &skus {
        shop.supply(sku, 1_000).await;
    }
    let lines: Vec<(&str, i32)> = skus.iter().map(|sku| (sku.as_str(), 1)).collect();
    let operations = (0..MAX_OPERATIONS).map(|_| v1::BatchOperation {
        operation: Some(Operation::Reserve(v1::ReserveRequest {
            namespace_id: "sale".into(),
            ..reserve_request(&lines)
        })),
        timeout: None,
    });
    let request = v1::BatchRequest { operations: operations.collect() };
    assert!(request.encoded_len() > 2_000_000);
    let mut checkout = server.checkout().max_decoding_message_size(16 << 20);
    let results = checkout.batch(request).await.expect("a batch").into_inner().results;
    assert_eq!(results.len(), MAX_OPERATIONS);
    assert!(results.iter().all(|result| matches!(result.result, Some(Answered::Reserve(_)))));
    assert_eq!(shop.counts(&skus[0]).await, (488, 512, 0));

    let sale = server.client().await.namespace("sale");
    let cart = || skus[1..].iter().fold(sale.reserve(&skus[0], 1), |cart, sku| cart.line(sku, 1));
    let outcomes = (0..400).fold(sale.batch(), |batch, _| batch.reserve(cart())).await.expect("a batch");
    assert_eq!(outcomes.len(), 400);
    assert_eq!(shop.counts(&skus[31]).await, (88, 912, 0));
}

#[tokio::test]
async fn a_flood_of_control_frames_closes_its_connection_only() {
    let server = SentinelProcess::launch().flags("--max-control-frames 1000").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xEA\x60";
    let ping = b"\0\0\x08\x06\0\0\0\0\0pingpong";
    let priority = b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x07";
    let update = b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01";
    for (floods, frame) in [&settings[..], ping, priority, update].into_iter().enumerate() {
        let mut socket = TcpStream::connect(server.grpc()).await.expect("a connection");
        socket.write_all(PREFACE).await.expect("a preface");
        // It may be closed before all is written.
        let _ = socket.write_all(&frame.repeat(20_000)).await;
        read_to_end(&mut socket).await;
        assert_eq!(closed(&server, "flood").await, floods as f64 + 1.0);
    }
    shop.hold("ps5", 1).await;
}

#[tokio::test]
async fn a_connection_that_was_only_refused_is_still_untrusted() {
    let server = SentinelProcess::launch().flags("--untrusted-cpu-time 3ms --request-timeout 300ms").start().await;
    let mut attacker = RawConnection::connect(&server).await;
    let (late, _sender) = attacker.call(RESERVE, &prefix(10), false).await;
    assert_refused(refused(late).await, Reason::RequestTooSlow, None);
    let pauses = || server.metric(r#"inventory_sentinel_pauses_total{reason="untrusted"}"#);
    let before = pauses().await;
    for _ in 0..20 {
        let (response, _sender) = attacker.call(RESERVE, &prefix(1 << 30), false).await;
        assert_refused(refused(response).await, Reason::RequestTooLarge, None);
    }
    let paused = pauses().await - before;
    assert!(paused >= 10.0, "{paused} pauses");
}

#[tokio::test]
async fn answers_earn_a_connection_further_calls_and_refusals_use_them_up() {
    let server = SentinelProcess::launch().flags("--untrusted-cpu-time 3ms").start().await;
    let mut attacker = RawConnection::connect(&server).await;
    let whole =
        framed(&v1::ReserveRequest { namespace_id: "sale".into(), ..reserve_request(&[("ps5", 1)]) }.encode_to_vec());
    let pauses = || server.metric(r#"inventory_sentinel_pauses_total{reason="untrusted"}"#);
    let mut paused = Vec::new();
    for (answered, refusals) in [(40, 200), (1, 40), (20, 40)] {
        for _ in 0..answered {
            let (response, _sender) = attacker.call(RESERVE, &whole, true).await;
            assert_refused(refused(response).await, Reason::NamespaceNotFound, None);
        }
        let before = pauses().await;
        for _ in 0..refusals {
            let (response, _sender) = attacker.call(RESERVE, &prefix(1 << 30), false).await;
            assert_refused(refused(response).await, Reason::RequestTooLarge, None);
        }
        paused.push(pauses().await - before);
    }
    let [many, most, few] = paused[..] else { unreachable!("three rounds") };
    assert!((20.0..180.0).contains(&many) && most > 25.0 && few < 10.0, "{paused:?} pauses");
}

#[tokio::test]
async fn a_connection_without_a_handshake_or_with_half_a_frame_is_closed() {
    let flags = "--handshake-timeout 300ms --request-timeout 300ms";
    let server = SentinelProcess::launch().flags(flags).start().await;
    for (bytes, why) in [
        (&b""[..], "handshake"),
        (&PREFACE[..10], "handshake"),
        (&PREFACE[..24], "handshake"),
        // The head of a HEADERS frame, and a block that does not end.
        (b"\0\0\x40\x01\x04\0\0\0\x01\x82", "slow_frame"),
        (b"\0\0\x01\x01\0\0\0\0\x01\x82", "slow_frame"),
    ] {
        let before = closed(&server, why).await;
        let mut socket = TcpStream::connect(server.grpc()).await.expect("a connection");
        if why == "slow_frame" {
            socket.write_all(PREFACE).await.expect("a preface");
        }
        socket.write_all(bytes).await.expect("bytes");
        read_to_end(&mut socket).await;
        eventually("it is counted", async || (closed(&server, why).await == before + 1.0).then_some(())).await;
    }
}

#[tokio::test]
async fn a_newcomer_gets_the_place_of_the_longest_idle() {
    let server = SentinelProcess::launch().flags("--max-connections 3").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(server.grpc()).await.expect("a connection"));
        // The honest caller is never the longest idle.
        shop.hold_for("ps5", 1, Duration::from_millis(1)).await;
    }
    read_to_end(&mut idle[0]).await;
    assert_eq!(server.metric(r#"inventory_sentinel_connections{port="grpc"}"#).await, 3.0);
    assert_eq!(closed(&server, "evicted").await, 18.0);
    shop.try_stock("ps5").await.expect("a newcomer took no place of a caller");
}

/// The deadlines of many calls pass while the server is suspended: all are reset at once.
#[tokio::test]
async fn callers_who_give_up_harm_nobody_on_their_connection() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let mut watch = crate::streams::stock::watch_stock(&shop, &[], Duration::from_millis(10), "").await;
    crate::streams::events::next(&mut watch).await.expect("the stock");
    server.stop();
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let shop = shop.clone();
        calls.spawn(async move {
            let mut request = tonic::Request::new(v1::ReserveRequest {
                namespace_id: "sale".into(),
                ..reserve_request(&[("ps5", 1)])
            });
            request.set_timeout(Duration::from_millis(100));
            let _ = shop.checkout.clone().reserve(request).await;
        });
    }
    let patient = {
        let shop = shop.clone();
        tokio::spawn(async move { shop.reserve(reserve_request(&[("ps5", 1)])).await })
    };
    calls.join_all().await;
    server.cont();
    patient.await.expect("it runs").expect("a call with time left succeeds");
    shop.adjust_stock("ps5", 1, &new_id()).await.expect("adjusted");
    crate::streams::events::next(&mut watch).await.expect("the stream continues");
    assert_eq!(closed(&server, "flood").await, 0.0);
}

/// An endpoint whose streams have a small flow-control window.
async fn narrow(server: &SentinelProcess) -> tonic::transport::Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc())).expect("an address");
    endpoint.initial_stream_window_size(65_535).connect().await.expect("a connection")
}

#[tokio::test]
async fn a_stream_that_is_not_read_loses_its_place() {
    let redis = Redis::start().await;
    let flags = "--response-timeout 500ms --max-watches 1";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100_000).await;
    for _ in 0..4 {
        let operations = (0..MAX_OPERATIONS).map(|_| v1::BatchOperation {
            operation: Some(Operation::Reserve(v1::ReserveRequest {
                namespace_id: "sale".into(),
                ..reserve_request(&[("ps5", 1)])
            })),
            timeout: None,
        });
        server.checkout().batch(v1::BatchRequest { operations: operations.collect() }).await.expect("a batch");
    }
    let mut attacker = RawConnection::with_windows(&server, 65_535).await;
    let request = v1::WatchRequest { namespace_id: "sale".into(), from_oldest: true, ..Default::default() };
    let (response, _sender) = attacker.call(WATCH, &framed(&request.encode_to_vec()), true).await;
    let unread = timeout(BOUND, response).await.expect("in time").expect("a response");
    eventually("it is cut", async || (cut(&server, "slow_reader").await == 1.0).then_some(())).await;
    let honest =
        TestClient { events: v1::inventory_events_client::InventoryEventsClient::new(narrow(&server).await), ..shop };
    let mut feed = crate::streams::events::Feed::open(&honest, "", true).await.expect("its place is free");
    feed.catch_up().await;
    assert!(feed.events.len() > 2_000);
    // A peer that reads is not disconnected, however few changes there are.
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(2) {
        feed.next().await.expect("progress");
    }
    assert_eq!(cut(&server, "slow_reader").await, 1.0);
    drop(unread);
}

#[tokio::test]
async fn answers_that_are_not_read_are_cut_for_those_that_are() {
    let server = SentinelProcess::launch().flags("--response-budget 1048576").start().await;
    let shop = server.shop("sale");
    let rows = (0..1_000).map(|i| v1::ImportRow { sku: format!("{i:x>128}"), on_hand: 1 });
    let rows = v1::ImportStockRequest {
        namespace_id: "sale".into(),
        request_id: new_id(),
        rows: rows.collect(),
        ..Default::default()
    };
    let mut answers = shop.admin.clone().import_stock(tokio_stream::once(rows)).await.expect("an import").into_inner();
    answers.message().await.expect("an answer");
    let request = v1::ListStockRequest { namespace_id: "sale".into(), page_size: 1_000, ..Default::default() };
    let calm = resident(&server);
    let mut attacker = RawConnection::with_windows(&server, 100).await;
    let mut unread = Vec::new();
    let message = framed(&request.encode_to_vec());
    for _ in 0..100 {
        // The server closes a connection with too many unread bytes.
        let Ok((response, sender)) = attacker.try_call(LIST_STOCK, &message, true).await else { break };
        let Ok(response) = timeout(BOUND, response).await.expect("in time") else { break };
        unread.push((response, sender));
    }
    assert!(unread.len() < 20, "{} answers of 180 KB", unread.len());
    eventually("it is counted", async || (closed(&server, "hoarding").await == 1.0).then_some(())).await;
    assert!(cut(&server, "too_much_unread").await >= 5.0, "{}", server.metrics().await);
    let page = shop.admin.clone().list_stock(request).await.expect("one that reads gets its page").into_inner();
    assert_eq!(page.skus.len(), 1_000);
    let waiting = server.metric(r#"inventory_sentinel_waiting_bytes{direction="response"}"#).await;
    assert!(waiting <= 1_048_576.0 * 1.2, "{waiting} bytes");
    let grown = resident(&server).saturating_sub(calm) >> 20;
    assert!(grown < 64, "{grown} MiB");
}

#[tokio::test]
async fn imports_are_bounded_in_number_and_in_their_pauses() {
    let server = SentinelProcess::launch().flags("--max-request-streams 1 --stream-pause 700ms").start().await;
    let shop = server.shop("sale");
    let message = |sku: &str| v1::ImportStockRequest {
        namespace_id: "sale".into(),
        request_id: new_id(),
        rows: vec![v1::ImportRow { sku: sku.into(), on_hand: 1 }],
        ..Default::default()
    };
    let import = async |mut admin: InventoryAdminClient<_>| {
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        let answers = admin.import_stock(ReceiverStream::new(requests)).await?.into_inner();
        Ok::<_, Status>((sender, answers))
    };
    let (sender, mut answers) = import(shop.admin.clone()).await.expect("an import");
    sender.send(message("ps5")).await.expect("a message");
    answers.message().await.expect("an answer");
    assert_refused(import(shop.admin.clone()).await.map(|_| ()), Reason::Overloaded, None);
    let paused = timeout(BOUND, answers.message()).await.expect("an end in time");
    assert_refused(paused, Reason::RequestTooSlow, None);
    let (sender, mut answers) = eventually("the place is free", async || import(shop.admin.clone()).await.ok()).await;
    for sku in ["a", "b", "c"] {
        sender.send(message(sku)).await.expect("a message");
        answers.message().await.expect("an answer").expect("one for each message");
    }
    drop(sender);
    assert!(answers.message().await.expect("an orderly end").is_none());
}

/// More connections than the process has descriptors.
#[tokio::test]
async fn without_descriptors_the_server_waits_and_says_so() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).descriptors(60).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let log = server.log();
    assert!(log.contains("ulimit -n"), "{log}");
    let mut sockets = Vec::new();
    for _ in 0..200 {
        match TcpStream::connect(server.grpc()).await {
            Ok(socket) => sockets.push(socket),
            Err(error) => assert_ne!(error.kind(), ErrorKind::ConnectionRefused),
        }
        shop.try_stock("ps5").await.expect("an honest caller is served");
    }
    shop.hold("ps5", 1).await;
    let lines = server.log().lines().filter(|line| line.contains("no connection can be accepted")).count();
    assert!(lines <= 3, "{lines} lines");
    drop(sockets);
}

#[tokio::test]
async fn the_admin_port_has_few_places_and_one_that_idles_takes_none() {
    let server = SentinelProcess::start().await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(server.admin_address()).await.expect("a connection"));
    }
    assert_eq!(http_get(server.admin_address(), "/livez").await.expect("an answer").0, 200);
    assert!(server.metric(r#"inventory_sentinel_connections{port="admin"}"#).await <= 64.0);
    // A flood of scrapes whose answers are never read.
    let mut socket = TcpStream::connect(server.admin_address()).await.expect("a connection");
    let scrape = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let _ = timeout(Duration::from_secs(1), socket.write_all(&scrape.repeat(20_000))).await;
    assert!(server.readyz().await.0);
}
