//! Restarts that lose nothing acknowledged: they begin a term and pass without a gate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use inventory_sentinel::v1;
use sentinel_tests::{
    BOUND, Redis, SentinelProcess, TestClient, assert_point, eventually, model::execute::may_repeat, new_id,
    reserve_request,
};
use tokio::task::JoinSet;
use tonic::Status;

use super::take_one;
use crate::streams::events::{Feed, assert_gapless};

const BUYERS: usize = 8;
/// Pause between two purchases, and between two tries of one call.
const PAUSE: Duration = Duration::from_millis(5);

/// Makes the call until it is answered. Every refusal that is not worth repeating fails the test: STORE_FENCED too.
async fn retry_until_answered<T, F: Future<Output = Result<T, Status>>>(mut call: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        match call().await {
            Err(status) if may_repeat(&status) && start.elapsed() < BOUND => tokio::time::sleep(PAUSE).await,
            answer => return answer.expect("nothing acknowledged is lost"),
        }
    }
}

/// A few buyers who buy one unit after another until they are stopped.
struct Buyers {
    work: JoinSet<()>,
    stop: Arc<AtomicBool>,
    sold: Arc<AtomicUsize>,
}

impl Buyers {
    fn start(shop: &TestClient) -> Buyers {
        let (stop, sold) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let mut work = JoinSet::new();
        for _ in 0..BUYERS {
            let (shop, stop, sold) = (shop.clone(), Arc::clone(&stop), Arc::clone(&sold));
            work.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let placed = v1::ReserveRequest { request_id: new_id(), ..reserve_request(&[("ps5", 1)]) };
                    let answer = retry_until_answered(|| shop.reserve(placed.clone())).await;
                    let Some(v1::reserve_response::Result::Reservation(held)) = answer.result else {
                        panic!("there is enough for everybody: {answer:?}");
                    };
                    retry_until_answered(|| shop.commit(&held.reservation_id)).await;
                    sold.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Buyers { work, stop, sold }
    }

    /// Waits until so many more units are sold.
    async fn go_on(&self, units: usize) {
        let before = self.sold.load(Ordering::Relaxed);
        let more = async || (self.sold.load(Ordering::Relaxed) >= before + units).then_some(());
        eventually("buyers go on", more).await;
    }

    async fn stop(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.work.join_all().await;
        self.sold.load(Ordering::Relaxed) as i64
    }
}

/// Checks that the whole history is there, with so many terms one after the other and one epoch.
async fn assert_terms(shop: &TestClient, terms: usize) {
    let mut feed = Feed::open(shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    assert_gapless(&feed.events, 1);
    let (mut names, epoch) = (Vec::new(), feed.events[0].epoch);
    for event in &feed.events {
        assert_point(&v1::HistoryPoint { epoch: event.epoch, term: event.term.clone(), sequence: event.sequence });
        assert_eq!(event.epoch, epoch);
        assert!(event.lost.is_none() && event.withdrawn.is_empty(), "{event:?}");
        if names.last() != Some(&event.term) {
            assert!(!names.contains(&event.term), "a term does not come back: {}", event.term);
            names.push(event.term.clone());
        }
    }
    assert_eq!(names.len(), terms, "{names:?}");
}

/// A gate that closes after each crash of the store stops every sale that it protects.
#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_again_and_again_is_never_fenced() {
    let mut redis = Redis::start().await;
    let (server, other) = (SentinelProcess::on(&redis).await, SentinelProcess::on(&redis).await);
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000_000).await;
    let (buyers, more) = (Buyers::start(&shop), Buyers::start(&other.shop("sale")));
    for _ in 0..3 {
        buyers.go_on(50).await;
        more.go_on(50).await;
        redis.restart().await;
    }
    buyers.go_on(50).await;
    let sold = buyers.stop().await + more.stop().await;
    assert_eq!(shop.counts("ps5").await, (1_000_000 - sold, 0, sold));
    for server in [&server, &other] {
        assert_eq!(server.info().await.fenced_partitions, []);
    }
    shop.audit().await;
    assert_terms(&shop, 4).await;
}

/// The same with the Redis that the server supervises.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_redis_killed_again_and_again_is_never_fenced() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000_000).await;
    let buyers = Buyers::start(&shop);
    for _ in 0..3 {
        buyers.go_on(50).await;
        let killed = server.embedded_redis().expect("an embedded redis");
        server.kill9_redis();
        let is_new = async || server.embedded_redis().filter(|pid| *pid != killed);
        eventually("the supervisor starts redis again", is_new).await;
    }
    buyers.go_on(50).await;
    let sold = buyers.stop().await;
    assert_eq!(shop.counts("ps5").await, (1_000_000 - sold, 0, sold));
    assert_eq!(server.info().await.fenced_partitions, []);
    assert_terms(&shop, 4).await;
}

/// Restarts without changes in between leave no trace: the list of terms has room for 64.
#[tokio::test]
async fn many_idle_restarts_are_one_term() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    for _ in 0..70 {
        redis.restart().await;
        retry_until_answered(|| shop.try_stock("ps5")).await;
    }
    retry_until_answered(|| take_one(&shop, "ps5")).await;
    assert_terms(&shop, 2).await;
}

/// A server was away while many terms began, and has seen only the first of them. Its witness is too old to prove or to
/// fence anything.
#[tokio::test]
async fn a_witness_of_a_term_that_is_not_listed_any_more_fences_nothing() {
    let mut redis = Redis::start().await;
    let state = tempfile::TempDir::with_prefix("sentinel-state-").expect("a temporary folder");
    let mut away = SentinelProcess::launch().on(&redis).state_dir(state.path()).start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let away_shop = away.shop("sale");
    retry_until_answered(|| take_one(&away_shop, "ps5")).await;
    away.terminate();
    assert!(away.exit().await.success(), "{}", away.log());
    for _ in 0..70 {
        redis.restart().await;
        retry_until_answered(|| take_one(&shop, "ps5")).await;
    }
    away.restart().await;
    let away_shop = away.shop("sale");
    retry_until_answered(|| take_one(&away_shop, "ps5")).await;
    assert_eq!(away.info().await.fenced_partitions, []);
    assert_eq!(server.info().await.fenced_partitions, []);
}

/// The server restarts too, with and without its witness.
#[tokio::test]
async fn server_and_redis_restarted_together_are_never_fenced() {
    let mut redis = Redis::start().await;
    let state = tempfile::TempDir::with_prefix("sentinel-state-").expect("a temporary folder");
    let mut servers =
        [SentinelProcess::launch().on(&redis).state_dir(state.path()).start().await, SentinelProcess::on(&redis).await];
    servers[0].shop("sale").supply("ps5", 1_000).await;
    for round in 0..3 {
        for server in &servers {
            let shop = server.shop("sale");
            retry_until_answered(|| take_one(&shop, "ps5")).await;
        }
        redis.kill9();
        for server in &mut servers {
            server.kill9();
        }
        redis.restart().await;
        for server in &mut servers {
            server.restart().await;
            let shop = server.shop("sale");
            retry_until_answered(|| take_one(&shop, "ps5")).await;
            assert_eq!(server.info().await.fenced_partitions, [], "round {round}");
        }
    }
    servers[0].shop("sale").audit().await;
}
