//! Background tasks that panic: the task is restarted, or the server stops, as each task declares.

use std::time::Duration;

use inventory_sentinel::Reason;
use sentinel_tests::{BOUND, HostedSentinel, Redis, assert_refused, eventually, reserve_request};
use tokio::time::timeout;

use crate::streams::events::{Feed, ended};

async fn panics(server: &HostedSentinel, task: &str) -> Option<f64> {
    server.metric(&format!("inventory_sentinel_task_panics_total{{task=\"{task}\"}}")).await
}

async fn restarts(server: &HostedSentinel, task: &str) -> Option<f64> {
    server.metric(&format!("inventory_sentinel_task_restarts_total{{task=\"{task}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_lasts_is_started_again() {
    let (redis, state) = (Redis::start().await, tempfile::tempdir().expect("a folder"));
    let server = HostedSentinel::on(&redis, &format!("--state-dir {}", state.path().display())).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    for task in ["sweeper", "store_probe", "witness_file", "admin_port"] {
        server.panic_in(task);
        eventually(&format!("the {task} is started again"), async || {
            (panics(&server, task).await? == 1.0 && restarts(&server, task).await? == 1.0).then_some(())
        })
        .await;
        shop.hold("ps5", 1).await;
    }
    // The sweeper works without a call.
    shop.hold_for("ps5", 1, Duration::from_millis(50)).await;
    eventually("the hold is given back", async || {
        (server.metric("inventory_sentinel_expired_total").await? >= 1.0).then_some(())
    })
    .await;
    server.stop().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_without_its_worker_answers_all_who_wait_and_is_opened_again() {
    let redis = Redis::start().await;
    let server = HostedSentinel::on(&redis, "").await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let batches = async || server.metric("inventory_sentinel_batch_operations_count").await;
    redis.stop();
    // The sweeper may have something under way, too.
    let before = batches().await.expect("metrics");
    let reserve = |shop: &sentinel_tests::TestClient| {
        let shop = shop.clone();
        tokio::spawn(async move { shop.reserve(reserve_request(&[("ps5", 1)])).await })
    };
    let mut calls = vec![reserve(&shop)];
    eventually("a batch is sent", async || (batches().await? > before).then_some(())).await;
    calls.extend((0..3).map(|_| reserve(&shop)));
    eventually("calls wait", async || {
        (server.metric("inventory_sentinel_lane_queue_operations").await? >= 3.0).then_some(())
    })
    .await;
    server.panic_in("lane_worker");
    let mut unknown = 0;
    for call in calls {
        let answer = timeout(BOUND, call).await.expect("an answer in time").expect("a call");
        let refused = answer.expect_err("redis is stopped");
        match sentinel_tests::reason(&refused) {
            Reason::OutcomeUnknown => unknown += 1,
            Reason::StoreUnavailable => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(unknown <= 1, "only what was sent may be applied: {unknown}");
    redis.cont();
    let answered =
        eventually("the namespace is opened again", async || shop.reserve(reserve_request(&[("ps5", 1)])).await.ok());
    answered.await;
    assert_eq!(panics(&server, "lane_worker").await, Some(1.0));
    eventually("no call waits", async || {
        (server.metric("inventory_sentinel_lane_queue_operations").await? == 0.0).then_some(())
    })
    .await;
    shop.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_reader_of_their_namespace_and_begin_with_a_new_one() {
    let redis = Redis::start().await;
    let server = HostedSentinel::on(&redis, "").await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let mut feed = Feed::open(&shop, "", false).await.expect("a stream");
    feed.catch_up().await;
    server.panic_in("feed_reader");
    assert_refused(Err::<(), _>(ended(&mut feed.stream).await), Reason::StoreUnavailable, None);
    let mut feed = Feed::open(&shop, &feed.token, false).await.expect("a stream");
    shop.hold("ps5", 1).await;
    while !feed.next().await.expect("a response") {}
    assert_eq!(feed.events.len(), 1);
    assert_eq!(panics(&server, "feed_reader").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_found_though_a_search_panics() {
    let redis = Redis::start().await;
    let (server, other) = (HostedSentinel::on(&redis, "").await, HostedSentinel::on(&redis, "").await);
    other.shop("sale").supply("ps5", 100).await;
    server.panic_in("namespace_search");
    let shop = server.shop("sale");
    eventually("the namespace is found", async || shop.reserve(reserve_request(&[("ps5", 1)])).await.ok()).await;
    assert_eq!(panics(&server, "namespace_search").await, Some(1.0));
    let unknown = server.shop("unknown");
    assert_refused(unknown.reserve(reserve_request(&[("ps5", 1)])).await, Reason::NamespaceNotFound, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stops_without_the_supervisor_of_its_redis() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = format!("--data-dir {} --drain-grace 1s", folder.path().join("data").display());
    let mut server = HostedSentinel::start(&flags).await;
    server.shop("sale").supply("ps5", 100).await;
    server.panic_in("embedded_redis");
    let error = server.ended().await.expect_err("it can't go on");
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("embedded_redis"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_handler_panics_is_answered() {
    let redis = Redis::start().await;
    let server = HostedSentinel::on(&redis, "").await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    server.panic_in("call");
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::Internal, None);
    shop.hold("ps5", 1).await;
    assert_eq!(panics(&server, "call").await, Some(1.0));
}

/// Other calls on the same connection continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_panics_ends_with_a_refusal_and_nothing_else_does() {
    let redis = Redis::start().await;
    let server = HostedSentinel::on(&redis, "").await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let mut feed = Feed::open(&shop, "", false).await.expect("a stream");
    let mut other = Feed::open(&shop, "", false).await.expect("a stream");
    feed.catch_up().await;
    other.catch_up().await;
    server.panic_in("stream");
    // Either of them may be the next to be polled.
    shop.hold("ps5", 1).await;
    let (first, second) = tokio::join!(feed.next(), other.next());
    let (refused, other) = if first.is_err() { (first, second) } else { (second, first) };
    assert_refused(refused, Reason::Internal, None);
    other.expect("the other stream continues");
    shop.hold("ps5", 1).await;
    assert_eq!(panics(&server, "stream").await, Some(1.0));
}

/// The next test runs this one as a child process and reads its standard error, which has the log of the whole process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a_panic_is_one_structured_line runs it as a child process"]
async fn a_process_with_a_panic() {
    let config = sentinel_server::config::Config::from_flags(["sentinel-server", "--log-format", "json"]);
    let _telemetry = sentinel_server::telemetry::init(&config.expect("flags")).expect("a log");
    let redis = Redis::start().await;
    let server = HostedSentinel::on(&redis, "").await;
    server.panic_in("sweeper");
    eventually("the sweeper is started again", async || (restarts(&server, "sweeper").await? == 1.0).then_some(()))
        .await;
    server.stop().await.expect("an orderly stop");
}

#[tokio::test]
async fn a_panic_is_one_structured_line() {
    let mut part = tokio::process::Command::new(std::env::current_exe().expect("a program"));
    part.args(["--exact", "faults::supervision::a_process_with_a_panic", "--ignored", "--nocapture"])
        .kill_on_drop(true);
    let output = timeout(2 * BOUND, part.output()).await.expect("it ends").expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let panics: Vec<_> = lines.filter(|line| line["message"] == "a task panicked").collect();
    assert_eq!(panics.len(), 1, "{text}");
    assert_eq!((&panics[0]["task"], &panics[0]["level"]), (&"sweeper".into(), &"ERROR".into()));
    assert_eq!(panics[0]["panic"], "a test ends this task");
    assert!(panics[0]["location"].as_str().is_some_and(|at| at.contains("tasks.rs:")), "{text}");
    assert!(!text.contains("thread '"), "{text}");
}
