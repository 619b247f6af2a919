//! The stop of the server waits only for calls that do work. Streams and idle connections end at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use inventory_sentinel::{Reason, v1, v1::reserve_response::Result as Reserved};
use prost::Message as _;
use sentinel_tests::{Redis, SentinelProcess, assert_refused, eventually, http_get, new_id, reserve_request};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

/// A long grace, which no stop of these tests may use up.
const GRACE: &str = "--drain-grace 25s";
/// Longest time of a stop without work: it takes well under a second on an idle machine.
const SOON: Duration = Duration::from_secs(3);

/// Operations that were sent to the store.
const WORK: &str = "inventory_sentinel_batch_operations_sum";

/// Stops the server and measures how long it takes.
async fn stop(server: &mut SentinelProcess) -> Duration {
    let began = Instant::now();
    server.terminate();
    assert_eq!(server.exit().await.code(), Some(0), "{}", server.log());
    began.elapsed()
}

async fn assert_stops_soon(server: &mut SentinelProcess, beside: &str) {
    let took = stop(server).await;
    println!("beside {beside}: {took:?}");
    assert!(took < SOON, "beside {beside} the stop took {took:?}: {}", server.log());
    assert!(!server.log().contains("still under way"), "{}", server.log());
}

/// Reads the stream to its end; returns the final status.
async fn end_of<T>(stream: &mut Streaming<T>) -> Result<(), Status> {
    loop {
        match timeout(SOON, stream.message()).await.expect("the stream ends") {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(status) => return Err(status),
        }
    }
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_stop_back() {
    let mut server = SentinelProcess::launch().flags(GRACE).start().await;
    assert_stops_soon(&mut server, "nothing").await;

    server.restart().await;
    let silent = TcpStream::connect(server.grpc()).await.expect("a connection");
    let operator = TcpStream::connect(server.admin_address()).await.expect("a connection");
    let mut operators_half = TcpStream::connect(server.admin_address()).await.expect("a connection");
    operators_half.write_all(b"GET /metrics HTTP/1.1\r\nhost: x").await.expect("half a request");
    let mut halting = TcpStream::connect(server.grpc()).await.expect("a connection");
    halting.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0").await.expect("half a handshake");
    // Completes the handshake and then reads nothing: it does not answer a GOAWAY.
    let mut deaf = TcpStream::connect(server.grpc()).await.expect("a connection");
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("a handshake");
    let called = server.shop_apart("sale").await;
    called.supply("ps5", 1).await;
    assert_eq!(http_get(server.admin_address(), "/livez").await.expect("an answer").0, 200);
    assert_stops_soon(&mut server, "idle connections").await;
    drop((silent, operator, operators_half, halting, deaf, called));
}

#[tokio::test]
async fn streams_that_watch_end_as_draining_and_do_not_hold_the_stop_back() {
    let mut server = SentinelProcess::launch().flags(GRACE).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let namespace_id = "sale".to_owned();

    let mut health =
        HealthClient::new(server.channel()).watch(HealthCheckRequest::default()).await.expect("a watch").into_inner();
    assert_eq!(health.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let request = v1::WatchRequest { namespace_id: namespace_id.clone(), ..Default::default() };
    let mut events = shop.events.clone().watch(request).await.expect("a watch").into_inner();
    let request =
        v1::WatchStockRequest { namespace_id: namespace_id.clone(), skus: vec!["ps5".into()], ..Default::default() };
    let mut stock = shop.events.clone().watch_stock(request).await.expect("a watch").into_inner();
    let request = v1::WatchProtectedRequest { namespace_id, ..Default::default() };
    let mut protected = shop.checkout.clone().watch_protected(request).await.expect("a watch").into_inner();
    let (sender, requests) = mpsc::channel(1);
    let request = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    sender.send(request).await.expect("a request");
    let mut reflection = ServerReflectionClient::new(server.channel())
        .server_reflection_info(ReceiverStream::new(requests))
        .await
        .expect("reflection")
        .into_inner();
    reflection.next().await.expect("an answer").expect("an answer");

    let health = tokio::spawn(async move {
        let turned = timeout(SOON, health.message()).await.expect("the health turns").expect("a message");
        assert_eq!(turned.expect("before the end").status(), ServingStatus::NotServing);
        end_of(&mut health).await
    });
    let rest = tokio::spawn(async move {
        let ends = [end_of(&mut events).await, end_of(&mut stock).await, end_of(&mut protected).await];
        (ends, end_of(&mut reflection).await, sender)
    });
    assert_stops_soon(&mut server, "streams that watch").await;
    let (ends, reflection, _) = rest.await.expect("they end");
    for end in ends.into_iter().chain([reflection, health.await.expect("it ends")]) {
        assert_refused(end, Reason::Draining, None);
    }
}

/// One stream at a time, so that none can end because of another. No stream is read.
#[tokio::test]
async fn streams_that_nobody_reads_do_not_hold_the_stop_back() {
    let request = |namespace_id: &str| v1::WatchRequest { namespace_id: namespace_id.into(), ..Default::default() };
    let cases = [
        ("/grpc.health.v1.Health/Watch", Vec::new(), true),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Vec::new(), false),
        ("/inventory_sentinel.v1.InventoryEvents/Watch", request("sale").encode_to_vec(), true),
        ("/inventory_sentinel.v1.InventoryEvents/WatchStock", request("sale").encode_to_vec(), true),
        ("/inventory_sentinel.v1.InventorySentinel/WatchProtected", request("sale").encode_to_vec(), true),
    ];
    let redis = Redis::start().await;
    let mut server = SentinelProcess::launch().on(&redis).flags(GRACE).start().await;
    for (path, message, ends) in cases {
        server.restart().await;
        server.shop("sale").supply("ps5", 10).await;
        let socket = TcpStream::connect(server.grpc()).await.expect("a connection");
        // No byte of an answer may be sent: the stream is blocked.
        let mut builder = h2::client::Builder::new();
        let (calls, connection) = builder.initial_window_size(0).handshake::<_, Bytes>(socket).await.expect("hands");
        tokio::spawn(connection);
        let head = http::Request::post(format!("http://sentinel{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let mut calls = calls.ready().await.expect("an open connection");
        let (response, mut sender) = calls.send_request(head, false).expect("a call");
        let framed = [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat();
        sender.send_data(framed.into(), ends).expect("a message");
        let response = timeout(SOON, response).await.expect("the head in time").expect("a response");
        assert_stops_soon(&mut server, path).await;
        drop((response, sender, calls));
    }
}

/// A stream that waits for the store at its start does no work either.
#[tokio::test]
async fn a_watch_that_waits_for_the_store_is_refused_as_draining() {
    let redis = Redis::start().await;
    let flags = format!("{GRACE} --store-timeout 20s --connect-timeout 20s");
    let mut server = SentinelProcess::launch().on(&redis).flags(&flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    redis.stop();
    let mut events = shop.events.clone();
    let request = v1::WatchRequest { namespace_id: "sale".into(), ..Default::default() };
    let mut watching = Box::pin(events.watch(request));
    let early = timeout(Duration::from_millis(100), &mut watching).await;
    assert!(early.is_err(), "{early:?}");
    // On the same connection, after it.
    server.info().await;
    let watching = async { watching.await.map(drop) };
    let (refused, took) = tokio::join!(watching, stop(&mut server));
    redis.cont();
    assert!(took < SOON, "{took:?}");
    assert_refused(refused, Reason::Draining, None);
}

#[tokio::test]
async fn calls_that_do_work_hold_the_stop_back_and_are_answered() {
    let redis = Redis::start().await;
    let flags = format!("{GRACE} --store-timeout 20s --connect-timeout 20s");
    let mut server = SentinelProcess::launch().on(&redis).flags(&flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    // Beside an open stream, on the same connection.
    let request = v1::WatchRequest { namespace_id: "sale".into(), ..Default::default() };
    let mut watch = shop.events.clone().watch(request).await.expect("a watch").into_inner();
    redis.stop();
    let placed = tokio::spawn({
        let shop = shop.clone();
        async move { shop.reserve(reserve_request(&[("ps5", 1)])).await }
    });
    let rows = vec![v1::ImportRow { sku: "first".into(), on_hand: 5 }];
    let message = v1::ImportStockRequest {
        namespace_id: "sale".into(),
        request_id: new_id(),
        rows,
        overwrite: false,
        existing_namespace_only: false,
    };
    // The stream of requests stays open.
    let (rows, import) = mpsc::channel(1);
    rows.send(message).await.expect("rows");
    let imported = tokio::spawn({
        let mut admin = shop.admin.clone();
        async move {
            let mut answers = admin.import_stock(ReceiverStream::new(import)).await?.into_inner();
            let first = answers.message().await?;
            Ok::<_, Status>((first, end_of(&mut answers).await))
        }
    });
    let before = server.metric(WORK).await;
    eventually("both are under way", async || {
        let waiting = server.metric("inventory_sentinel_lane_queue_operations").await;
        (server.metric(WORK).await + waiting >= before + 2.0).then_some(())
    })
    .await;
    server.terminate();
    assert_refused(end_of(&mut watch).await, Reason::Draining, None);
    // Longer than an idle connection may take to close.
    let held = timeout(Duration::from_secs(2), server.exit()).await;
    assert!(held.is_err(), "{}", server.log());
    redis.cont();
    let answer = placed.await.expect("an answer").expect("it is answered");
    assert!(matches!(answer.result, Some(Reserved::Reservation(_))), "{answer:?}");
    let (first, end) = imported.await.expect("an answer").expect("it is answered");
    assert_eq!(first.expect("an answer").results.len(), 1);
    assert_refused(end, Reason::Draining, None);
    assert_eq!(server.exit().await.code(), Some(0), "{}", server.log());
    assert!(!server.log().contains("still under way"), "{}", server.log());
}
