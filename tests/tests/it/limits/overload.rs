//! A suspended Redis. Queued, sent, late, cancelled and rejected calls get different reasons, and each of them is
//! bounded.

use std::time::{Duration, Instant};

use inventory_sentinel::{
    Reason,
    v1::{self, ReserveRequest, reserve_response::Result as Reserved},
};
use sentinel_tests::{Redis, SentinelProcess, TestClient, assert_refused, eventually, reason, reserve_request};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

const BATCHES: &str = "inventory_sentinel_batch_operations_count";
const QUEUED: &str = "inventory_sentinel_lane_queue_operations";

/// The reason of the refusal of a call with a deadline; `None` if the client's timer fired before the server answered.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Option<Reason> {
    let status = answer.expect_err("redis is suspended");
    if status.details().is_empty() {
        assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
        return None;
    }
    let reason = reason(&status);
    assert_refused(Err::<(), _>(status), reason, None);
    Some(reason)
}

async fn reserve_within(
    shop: TestClient,
    order: ReserveRequest,
    limit: Duration,
) -> Result<v1::ReserveResponse, Status> {
    let mut request = Request::new(ReserveRequest { namespace_id: shop.namespace.clone(), ..order });
    request.set_timeout(limit);
    shop.checkout.clone().reserve(request).await.map(tonic::Response::into_inner)
}

/// A server that sends one batch at a time, so that the test controls which call is sent and which waits.
async fn one_at_a_time(redis: &Redis) -> SentinelProcess {
    let flags = "--batches-in-flight 1 --store-timeout 10s --resend-for 10s --sweep-interval 1m";
    SentinelProcess::launch().on(redis).flags(flags).start().await
}

#[tokio::test]
async fn a_deadline_says_whether_the_call_was_sent() {
    let redis = Redis::start().await;
    let server = one_at_a_time(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    eventually("the server answers both", async || {
        let (sent, waiting) = refusals_while_suspended(&redis, &server).await;
        assert!(matches!(sent, None | Some(Reason::OutcomeUnknown)), "{sent:?}");
        assert!(matches!(waiting, None | Some(Reason::DeadlineExceeded)), "{waiting:?}");
        sent.and(waiting)
    })
    .await;
    shop.audit().await;
}

/// Suspends Redis while one call is sent, one is cancelled and one waits, until their deadlines pass. Returns the
/// reasons for the sent and the waiting one. The sent one was applied; the others were not.
async fn refusals_while_suspended(redis: &Redis, server: &SentinelProcess) -> (Option<Reason>, Option<Reason>) {
    let shop = server.shop("sale");
    let held = shop.stock("ps5").await.held;
    let batches = server.metric(BATCHES).await;
    let (sent, waiting, cancelled) =
        (reserve_request(&[("ps5", 1)]), reserve_request(&[("ps5", 2)]), reserve_request(&[("ps5", 4)]));
    redis.stop();
    let first = tokio::spawn(reserve_within(shop.clone(), sent.clone(), Duration::from_secs(1)));
    eventually("the first is sent", async || (server.metric(BATCHES).await > batches).then_some(())).await;
    let given_up = {
        let (shop, cancelled) = (shop.clone(), cancelled.clone());
        tokio::spawn(async move { shop.reserve(cancelled).await })
    };
    eventually("it waits", async || (server.metric(QUEUED).await == 1.0).then_some(())).await;
    given_up.abort();
    let began = Instant::now();
    let late = reserve_within(shop.clone(), waiting.clone(), Duration::from_millis(500)).await;
    let first = first.await.expect("a call");
    assert!(began.elapsed() < Duration::from_secs(8), "a deadline is a bound: {:?}", began.elapsed());
    redis.cont();

    eventually("the first is done", async || (shop.stock("ps5").await.held == held + 1).then_some(())).await;
    assert!(shop.reserve(sent).await.expect("an answer").replayed);
    for (never_sent, units) in [(waiting, 3), (cancelled, 7)] {
        assert!(!shop.reserve(never_sent).await.expect("an answer").replayed);
        assert_eq!(shop.stock("ps5").await.held, held + units);
    }
    (refusal(first), refusal(late))
}

#[tokio::test]
async fn a_read_that_is_late_leaves_no_doubt() {
    let redis = Redis::start().await;
    let server = one_at_a_time(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    redis.stop();
    let reason = eventually("the server answers", async || {
        let mut request = Request::new(v1::GetStockRequest { namespace_id: "sale".into(), sku: "ps5".into() });
        request.set_timeout(Duration::from_millis(300));
        refusal(shop.checkout.clone().get_stock(request).await)
    })
    .await;
    assert_eq!(reason, Reason::DeadlineExceeded);
    redis.cont();
}

#[tokio::test]
async fn too_many_callers_are_shed_at_once_and_the_rest_is_served() {
    let redis = Redis::start().await;
    let flags = "--queue-limit 8 --store-timeout 20s --resend-for 20s --sweep-interval 1m";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    redis.stop();
    let mut buyers = JoinSet::new();
    for _ in 0..500 {
        let shop = shop.clone();
        buyers.spawn(async move { shop.reserve(reserve_request(&[("ps5", 1)])).await });
    }
    // At most two batches of eight are sent, and eight calls wait. All others are refused while Redis is suspended.
    for _ in 0..500 - 3 * 8 {
        let answer = tokio::time::timeout(Duration::from_secs(10), buyers.join_next()).await.expect("shed at once");
        let status = answer.unwrap().unwrap().expect_err("redis is suspended");
        let pushback = status.metadata().get("grpc-retry-pushback-ms").expect("gRPC clients must wait");
        assert!(pushback.to_str().unwrap().parse::<u32>().unwrap() > 0);
        assert_refused(Err::<(), _>(status), Reason::Overloaded, None);
    }
    assert!(server.metric("inventory_sentinel_shed_total").await >= 476.0);
    redis.cont();
    let mut held = 0;
    for answer in buyers.join_all().await {
        match answer {
            Ok(answer) => {
                assert!(matches!(answer.result, Some(Reserved::Reservation(_))));
                held += 1;
            }
            Err(status) => assert_eq!(reason(&status), Reason::Overloaded),
        }
    }
    assert!(held > 0);
    assert_eq!(shop.counts("ps5").await, (1_000 - held, held, 0));
    assert_eq!(server.metric(QUEUED).await, 0.0);
    shop.audit().await;
}

/// Calls of disconnected callers stayed in the queue until their deadlines, and live calls were shed.
#[tokio::test]
async fn callers_who_have_gone_keep_no_place_in_the_queue() {
    const LIMIT: usize = 64;
    let redis = Redis::start().await;
    let flags =
        format!("--queue-limit {LIMIT} --batches-in-flight 1 --store-timeout 20s --resend-for 20s --sweep-interval 1m");
    let server = SentinelProcess::launch().on(&redis).flags(&flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let batches = server.metric(BATCHES).await;
    redis.stop();
    let buy = || {
        let shop = shop.clone();
        tokio::spawn(async move { reserve_within(shop, reserve_request(&[("ps5", 1)]), Duration::from_secs(20)).await })
    };
    let first = buy();
    eventually("the first is sent", async || (server.metric(BATCHES).await > batches).then_some(())).await;
    let gone: Vec<_> = (0..LIMIT).map(|_| buy()).collect();
    eventually("the queue is full", async || (server.metric(QUEUED).await == LIMIT as f64).then_some(())).await;
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("they have left", async || (server.metric(QUEUED).await <= LIMIT as f64 / 2.0).then_some(())).await;
    let shed = server.metric("inventory_sentinel_shed_total").await;
    let live: Vec<_> = (0..LIMIT / 2).map(|_| buy()).collect();
    eventually("they wait", async || (server.metric(QUEUED).await >= LIMIT as f64 / 2.0).then_some(())).await;
    redis.cont();
    for call in [first].into_iter().chain(live) {
        let answer = call.await.expect("a call").expect("not shed");
        assert!(matches!(answer.result, Some(Reserved::Reservation(_))), "{answer:?}");
    }
    assert_eq!(server.metric("inventory_sentinel_shed_total").await, shed);
    assert_eq!(shop.counts("ps5").await, (967, 33, 0));
}

/// A sale opens at a server that has not seen its namespace: one lookup serves all buyers.
#[tokio::test]
async fn a_crowd_at_a_server_that_does_not_know_the_sale_yet_is_served() {
    let redis = Redis::start().await;
    let flags = "--pool-size 4 --pool-wait 10ms --store-timeout 20s --batches-in-flight 1";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let other = SentinelProcess::on(&redis).await;
    other.shop("sale").supply("ps5", 10).await;
    redis.stop();
    let mut buyers = JoinSet::new();
    for _ in 0..1_000 {
        let shop = server.shop("sale");
        buyers.spawn(async move { shop.reserve(reserve_request(&[("ps5", 1)])).await.expect("an answer") });
    }
    // This call uses the same connection and needs no store: its answer shows that all earlier calls have arrived.
    assert_refused(server.shop("sale").reserve(reserve_request(&[])).await, Reason::NoLines, Some("lines"));
    redis.cont();
    let answers = buyers.join_all().await;
    let held = answers.iter().filter(|answer| matches!(answer.result, Some(Reserved::Reservation(_)))).count();
    assert_eq!(held, 10);
    // Each call searches for a missing namespace; its absence is not cached.
    let ghost = server.shop("ghost");
    assert_eq!(reason(&ghost.try_stock("ps5").await.expect_err("unknown")), Reason::NamespaceNotFound);
    other.shop("ghost").supply("ps5", 1).await;
    assert_eq!(ghost.counts("ps5").await, (1, 0, 0));
}

#[tokio::test]
async fn a_deadline_holds_where_the_namespace_is_not_known_yet() {
    let redis = Redis::start().await;
    let server = one_at_a_time(&redis).await;
    redis.stop();
    for attempt in ["reading", "making"] {
        let reason = eventually("the server answers", async || {
            let mut request = Request::new(v1::SetStockRequest { sku: "ps5".into(), on_hand: 1, ..Default::default() });
            request.get_mut().request_id = attempt.to_owned();
            request.set_timeout(Duration::from_millis(300));
            if attempt == "making" {
                return refusal(server.admin().set_stock(request).await);
            }
            refusal(
                reserve_within(server.shop("sale"), reserve_request(&[("ps5", 1)]), Duration::from_millis(300)).await,
            )
        })
        .await;
        assert_eq!(reason, Reason::DeadlineExceeded);
    }
    redis.cont();
    eventually("it works again", async || server.shop("sale").set_stock("ps5", 1, "opening").await.ok()).await;
}

/// Thousands of requests arrive on one connection before the server has read the first of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_rush_on_one_connection_is_answered_whole() {
    const BUYERS: i64 = 20_000;
    let redis = Redis::start_in_memory().await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", BUYERS).await;
    let mut buyers = JoinSet::new();
    for _ in 0..BUYERS {
        let shop = shop.clone();
        buyers.spawn(async move { shop.hold("ps5", 1).await });
    }
    assert_eq!(buyers.join_all().await.len() as i64, BUYERS);
    assert_eq!(shop.counts("ps5").await, (0, BUYERS, 0));
}
