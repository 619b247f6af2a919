//! The server process as an operator sees it: exit codes, help, health, reflection, and an orderly stop.

use std::{net::TcpListener, time::Instant};

use inventory_sentinel::{
    Reason,
    v1::{ReserveRequest, ReserveResponse, reserve_response::Result as Reserved},
};
use sentinel_tests::{BOUND, Redis, SentinelProcess, assert_refused, eventually, http_get, reason, reserve_request};
use tokio::{net::TcpStream, sync::oneshot, task::JoinSet};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, codegen::http::uri::PathAndQuery};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// The status of the whole server, from the health service.
pub(crate) async fn health(server: &SentinelProcess) -> String {
    let mut client = HealthClient::new(server.channel());
    let answer = client.check(HealthCheckRequest::default()).await.expect("health").into_inner();
    format!("{:?}", answer.status())
}

/// Both versions of the protocol have separate messages with the same names.
macro_rules! services_by {
    ($server:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request =
            |message_request| ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
        let requests = tokio_stream::iter([
            request(MessageRequest::ListServices(String::new())),
            request(MessageRequest::FileContainingSymbol("inventory_sentinel.v1.ReserveRequest".into())),
            request(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".into())),
        ]);
        let answers = ServerReflectionClient::new($server.channel()).server_reflection_info(requests).await;
        let mut answers = answers.expect("reflection").into_inner();
        let Some(Ok(first)) = answers.next().await else { panic!("no answer") };
        let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else { panic!("{first:?}") };
        while let Some(answer) = answers.next().await {
            let answer = answer.expect("an answer").message_response;
            assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
        }
        list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
    }};
}

#[tokio::test]
async fn a_wrong_configuration_is_told_whole_and_ends_with_64() {
    let (code, log) = SentinelProcess::launch().flags("--no-such-flag").run().await;
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("--no-such-flag"), "{log}");

    let (code, log) = SentinelProcess::launch().flags("--redis-url http://:hunter2@nowhere:1").run().await;
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("--redis-url") && !log.contains("hunter2"), "{log}");

    let flags = "--pool-size 0 --retention 1ms --default-ttl 2h --log sentinel=loud";
    let (code, log) = SentinelProcess::launch().flags(flags).variable("SENTINEL_PARTITIONS", "65").run().await;
    assert_eq!(code, Some(64), "{log}");
    for problem in ["--pool-size is 0", "--retention is 1ms", "--default-ttl is 2h", "--log", "--partitions is 65"] {
        assert!(log.contains(problem), "no {problem} in {log}");
    }
    assert_eq!(log.lines().count(), 5, "one line for each: {log}");
}

#[tokio::test]
async fn what_else_can_go_wrong_at_the_start_has_its_own_code() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for flag in ["--listen", "--admin-listen"] {
        let launch = SentinelProcess::launch().flags(&format!("{flag} {address} --redis-url redis://127.0.0.1:1"));
        let (code, log) = launch.run().await;
        assert_eq!(code, Some(71), "{log}");
        assert!(log.contains(&address.to_string()), "{log}");
    }
    let (code, log) = SentinelProcess::launch().variable("PATH", "/nonexistent").run().await;
    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains("install one"), "{log}");
}

/// Empty variables, as containers and unit files set them.
#[tokio::test]
async fn an_empty_variable_is_an_unset_one() {
    let redis = Redis::start().await;
    let launch =
        SentinelProcess::launch().on(&redis).variable("SENTINEL_SWEEP_INTERVAL", "").variable("SENTINEL_LISTEN", "");
    let server = launch.variable("SENTINEL_STATE_DIR", "").variable("SENTINEL_LOG_FORMAT", "").start().await;
    assert!(server.readyz().await.0);
    let (code, log) = SentinelProcess::launch()
        .flags("--pool-size 0")
        .variable("SENTINEL_REDIS_URL", "")
        .variable("SENTINEL_THREADS", "")
        .run()
        .await;
    assert_eq!((code, log.lines().count()), (Some(64), 1), "{log}");
}

#[tokio::test]
async fn help_names_every_flag_with_its_variable_and_the_exit_codes() {
    let (code, help) = SentinelProcess::launch().flags("--help").run().await;
    assert_eq!(code, Some(0));
    for flag in ["listen", "redis-url", "data-dir", "durability", "queue-limit", "retention", "partitions", "log"] {
        let variable = format!("SENTINEL_{}", flag.replace('-', "_").to_uppercase());
        assert!(help.contains(&format!("--{flag}")) && help.contains(&variable), "no {flag} in {help}");
    }
    assert!(help.contains("64 wrong configuration"), "{help}");
    let (code, version) = SentinelProcess::launch().flags("--version").run().await;
    assert_eq!((code, version.trim()), (Some(0), concat!("sentinel-server ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn a_password_is_not_logged() {
    let launch = SentinelProcess::launch().variable("SENTINEL_REDIS_URL", "redis://shop:hunter2@127.0.0.1:1/0");
    let server = launch.start_unready().await;
    eventually("it has tried", async || server.log().contains("not well").then_some(())).await;
    assert!(!server.log().contains("hunter2"), "{}", server.log());
}

#[tokio::test]
async fn a_password_on_the_command_line_is_refused_and_one_in_a_file_is_used() {
    let url = "redis://shop:hunter2@127.0.0.1:1/0";
    let (code, text) = SentinelProcess::launch().flags(&format!("--redis-url {url}")).run().await;
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("--redis-url-file") && !text.contains("hunter2"), "{text}");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("url");
    let flag = format!("--redis-url-file {}", path.display());
    let (code, text) = SentinelProcess::launch().flags(&flag).run().await;
    assert!(code == Some(64) && text.contains("cannot read --redis-url-file"), "{code:?} {text}");
    std::fs::write(&path, format!("{url}\n")).expect("written");
    let server = SentinelProcess::launch().flags(&flag).start_unready().await;
    eventually("it has tried", async || server.log().contains("not well").then_some(())).await;
    assert!(server.log().contains("redis://***@127.0.0.1:1") && !server.log().contains("hunter2"), "{}", server.log());
}

#[tokio::test]
async fn the_operators_port_answers() {
    let server = SentinelProcess::start().await;
    assert_eq!(http_get(server.admin_address(), "/livez").await.unwrap().0, 200);
    let (ready, body) = server.readyz().await;
    assert!(ready && body.contains("store: ok"), "{body}");
    assert_eq!(http_get(server.admin_address(), "/nothing").await.unwrap().0, 404);
}

#[tokio::test]
async fn health_is_told_for_each_service_and_watched() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let mut client = HealthClient::new(server.channel());
    let check = |service: &str| HealthCheckRequest { service: service.into() };
    let mut services = services_by!(server, v1);
    services.extend(services_by!(server, v1alpha));
    assert!(services.iter().any(|name| name == "inventory_sentinel.v1.InventoryEvents"), "{services:?}");
    for service in services.iter().map(String::as_str).chain([""]) {
        let answer = client.check(check(service)).await.expect("health").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = client.check(check("nothing")).await.expect_err("no such service");
    assert_eq!(unknown.code(), Code::NotFound);

    let mut watch = client.watch(check("")).await.expect("a watch").into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    redis.execute::<()>("CONFIG SET maxmemory-policy allkeys-lru").await;
    let next = tokio::time::timeout(BOUND, watch.next()).await.expect("a change in time");
    assert_eq!(next.unwrap().unwrap().status(), ServingStatus::NotServing);
    redis.execute::<()>("CONFIG SET maxmemory-policy noeviction").await;
    let next = tokio::time::timeout(BOUND, watch.next()).await.expect("a change in time");
    assert_eq!(next.unwrap().unwrap().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let server = SentinelProcess::start().await;
    for services in [services_by!(server, v1), services_by!(server, v1alpha)] {
        for service in
            ["inventory_sentinel.v1.InventorySentinel", "inventory_sentinel.v1.InventoryAdmin", "grpc.health.v1.Health"]
        {
            assert!(services.iter().any(|name| name == service), "no {service} in {services:?}");
        }
    }
}

#[tokio::test]
async fn told_to_stop_it_turns_its_health_finishes_its_calls_and_leaves() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::launch().on(&redis).flags("--store-timeout 20s").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let watching = HealthClient::new(server.channel()).watch(HealthCheckRequest::default()).await;
    let mut watch = watching.expect("a watch").into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);

    // Redis is suspended, so the calls are under way when the signal arrives.
    redis.stop();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let shop = shop.clone();
        calls.spawn(async move { shop.reserve(reserve_request(&[("ps5", 1)])).await });
    }
    let arrived = "inventory_sentinel_batch_operations_sum";
    eventually("they are under way", async || {
        let waiting = server.metric("inventory_sentinel_lane_queue_operations").await;
        (server.metric(arrived).await + waiting >= 21.0).then_some(())
    })
    .await;
    server.terminate();
    let turned = tokio::time::timeout(BOUND, watch.next()).await.expect("health turns first");
    assert_eq!(turned.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(!server.readyz().await.0);
    redis.cont();
    for answer in calls.join_all().await {
        assert!(matches!(answer.expect("it finishes").result, Some(Reserved::Reservation(_))));
    }
    drop(watch);
    let status = server.exit().await;
    assert_eq!(status.code(), Some(0), "{}", server.log());

    server.restart().await;
    assert_eq!(server.shop("sale").counts("ps5").await, (80, 20, 0));
}

/// Load balancers react with a delay. Calls are served meanwhile, also on new connections.
#[tokio::test]
async fn calls_are_served_between_the_turn_of_the_health_and_the_end_of_the_delay() {
    let mut server = SentinelProcess::launch().flags("--drain-delay 3s").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    server.terminate();
    eventually("the health turns", async || (!server.readyz().await.0).then_some(())).await;
    assert_eq!(health(&server).await, "NotServing");
    let begin = Instant::now();
    let late = server.shop_apart("sale").await;
    late.hold("ps5", 1).await;
    shop.hold("ps5", 1).await;
    assert!(begin.elapsed() < std::time::Duration::from_secs(2), "the machine is too slow for this test");
    let status = server.exit().await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(TcpStream::connect(server.grpc()).await.is_err(), "it listens no more");
}

/// The head of the call is there before the signal, and its message comes after it.
#[tokio::test]
async fn a_call_that_comes_after_the_signal_is_refused_as_draining() {
    let mut server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    let (release, released) = oneshot::channel::<()>();
    let (head_sent, sent) = oneshot::channel::<()>();
    let placed = ReserveRequest { namespace_id: "sale".into(), ..reserve_request(&[("ps5", 1)]) };
    let message = held_back(placed, head_sent, released);
    let channel = server.channel();
    let late = tokio::spawn(async move {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.expect("a connection");
        let path = PathAndQuery::from_static("/inventory_sentinel.v1.InventorySentinel/Reserve");
        let codec = tonic_prost::ProstCodec::<ReserveRequest, ReserveResponse>::default();
        client.client_streaming(Request::new(message), path, codec).await
    });
    sent.await.expect("the head is sent");
    // This call is on the same connection: its answer shows that the head has arrived.
    shop.stock("ps5").await;
    server.terminate();
    eventually("it is not ready", async || (!server.readyz().await.0).then_some(())).await;
    release.send(()).expect("the call waits");
    assert_refused(late.await.unwrap(), Reason::Draining, None);
    assert_eq!(server.exit().await.code(), Some(0), "{}", server.log());
    server.restart().await;
    assert_eq!(server.shop("sale").counts("ps5").await, (1, 0, 0));
}

/// A stream of one message. It signals when it is polled, and yields the message after it is released.
fn held_back<T>(message: T, polled: oneshot::Sender<()>, released: oneshot::Receiver<()>) -> impl Stream<Item = T> {
    let mut gate = Some((polled, released));
    tokio_stream::once(message).then(move |message| {
        let gate = gate.take();
        async move {
            if let Some((polled, released)) = gate {
                let _ = polled.send(());
                let _ = released.await;
            }
            message
        }
    })
}

/// One thread runs another scheduler than several do; which of them other tests run depends on the machine.
#[tokio::test]
async fn one_thread_and_several_serve_and_stop_alike() {
    for threads in [1, 2] {
        let redis = Redis::start().await;
        let mut server = SentinelProcess::launch().on(&redis).flags(&format!("--threads {threads}")).start().await;
        let shop = server.shop("sale");
        shop.supply("ps5", 100).await;
        let mut buyers = JoinSet::new();
        for _ in 0..300 {
            let shop = shop.clone();
            buyers.spawn(async move { shop.reserve(reserve_request(&[("ps5", 1)])).await.expect("an answer").result });
        }
        let held = |result: &Option<_>| matches!(result, Some(Reserved::Reservation(_)));
        assert_eq!(buyers.join_all().await.iter().filter(|result| held(result)).count(), 100, "{threads} threads");
        shop.audit().await;
        server.terminate();
        assert_eq!(server.exit().await.code(), Some(0), "{}", server.log());
    }
}

#[tokio::test]
async fn a_stop_under_load_loses_nothing_that_was_answered() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::launch().on(&redis).flags("--drain-grace 3s").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000_000).await;
    let mut buyers = JoinSet::new();
    for _ in 0..100 {
        let shop = shop.clone();
        buyers.spawn(async move {
            let mut held = 0;
            loop {
                match shop.reserve(reserve_request(&[("ps5", 1)])).await {
                    Ok(_) => held += 1,
                    // Either the reason is DRAINING, or the connection is gone. For that the transport has several
                    // codes, without details.
                    Err(status) => {
                        let codes = [Code::Unavailable, Code::Cancelled, Code::Unknown, Code::Internal];
                        assert!(codes.contains(&status.code()), "{status:?}");
                        if !status.details().is_empty() {
                            assert_eq!(reason(&status), Reason::Draining);
                        }
                        return held;
                    }
                }
            }
        });
    }
    eventually("they buy", async || (shop.stock("ps5").await.held > 500).then_some(())).await;
    // A connection that does nothing does not hold it up.
    let idle = tokio::net::TcpStream::connect(server.grpc()).await.expect("a connection");
    let began = Instant::now();
    server.terminate();
    let status = server.exit().await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    drop(idle);
    let held: i64 = buyers.join_all().await.into_iter().sum();
    server.restart().await;
    assert_eq!(server.shop("sale").stock("ps5").await.held, held);
    server.shop("sale").audit().await;
}
