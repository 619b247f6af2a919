//! An expiry storm: 200,000 holds of one SKU fall due in the same second. Calls for other SKUs of the partition are
//! answered as before, whatever waits for the SKU of the storm.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use inventory_sentinel::{
    Reason,
    v1::{
        self, batch_operation::Operation as BatchCall, batch_result::Result as BatchAnswer,
        reserve_response::Result as Reserved,
    },
};
use inventory_sentinel_script::limits::MAX_OPERATIONS;
use sentinel_tests::{Redis, SentinelProcess, TestClient, assert_refused, new_id, reserve_request};
use tokio::task::JoinSet;

/// Holds that fall due together.
const HOLDS: usize = 200_000;
/// Batch calls under way while the holds are made.
const FILLERS: usize = 4;
/// Batch calls that measure how long the filling takes.
const TRIAL: usize = 20;
/// Callers that wait for the SKU of the storm: more than fit into a batch of the lane.
const WAITERS: usize = 2_000;
/// Connections that these share: a connection has a limit on its calls.
const CONNECTIONS: usize = 16;
/// How long calls are measured before the storm, and how long the storm may last.
const CALM: Duration = Duration::from_secs(4);
const STORM_LIMIT: Duration = Duration::from_secs(30);
/// The p99 during the storm may always reach `FLOOR`, even of a debug build on a busy machine, and this part of the
/// storm's length. A call that waits for the storm takes nearly all of its length.
const FLOOR: Duration = Duration::from_millis(50);
const MAX_PART: u32 = 8;
/// The ratio of both p99 that is allowed above that.
const MAX_RATIO: u32 = 2;
/// Holds that outlive the test.
const LONG: Duration = Duration::from_secs(3_600);

fn p99(latencies: &[Duration]) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}

/// Reserves so many single units of `storm` by Batch calls; each call names the ttl that `ttl` gives it.
async fn fill(shop: &TestClient, holds: usize, ttl: impl Fn() -> Duration + Send + Sync + 'static) {
    let (left, ttl) = (Arc::new(Mutex::new(holds)), Arc::new(ttl));
    let mut fillers = JoinSet::new();
    for _ in 0..FILLERS {
        let (shop, left, ttl) = (shop.clone(), Arc::clone(&left), Arc::clone(&ttl));
        fillers.spawn(async move {
            loop {
                let mine = {
                    let mut left = left.lock().expect("no filler panics");
                    let mine = MAX_OPERATIONS.min(*left);
                    *left -= mine;
                    mine
                };
                if mine == 0 {
                    return;
                }
                let ttl = Some(ttl().try_into().expect("a ttl"));
                let operations = (0..mine).map(|_| {
                    let namespace_id = shop.namespace.clone();
                    let reserve = v1::ReserveRequest { namespace_id, ttl, ..reserve_request(&[("storm", 1)]) };
                    v1::BatchOperation { operation: Some(BatchCall::Reserve(reserve)), timeout: None }
                });
                let request = v1::BatchRequest { operations: operations.collect() };
                let results = shop.checkout.clone().batch(request).await.expect("a batch").into_inner().results;
                for entry in results {
                    match entry.result {
                        Some(BatchAnswer::Reserve(v1::ReserveResponse {
                            result: Some(Reserved::Reservation(_)),
                            ..
                        })) => {}
                        other => panic!("no reservation: {other:?}"),
                    }
                }
            }
        });
    }
    fillers.join_all().await;
}

/// A call that was made and answered at these instants.
type Timed = (Instant, Duration);

/// Calls for other SKUs than that of the storm: one stream for each kind, each with one call at a time.
struct Streams {
    is_over: Arc<AtomicBool>,
    tasks: JoinSet<(&'static str, Vec<Timed>)>,
}

impl Streams {
    fn start(shop: &TestClient, lapsed: String) -> Self {
        let mut streams = Self { is_over: Arc::default(), tasks: JoinSet::new() };
        let shop = || shop.clone();
        streams.add("Reserve, given", shop(), async |shop| _ = hold(shop, "open", 1, LONG).await);
        streams.add("Reserve, short", shop(), async |shop| {
            let answer = shop.reserve(reserve_request(&[("sold-out", 1)])).await.expect("an answer").result;
            assert!(matches!(answer, Some(Reserved::Shortage(_))), "{answer:?}");
        });
        streams.add("GetStock", shop(), async |shop| assert_eq!(shop.counts("sold-out").await, (0, 10, 0)));
        streams.add("IsProtected", shop(), async |shop| assert!(shop.is_protected("sold-out").await));
        streams.add("Commit, late", shop(), move |shop| {
            let lapsed = lapsed.clone();
            async move { assert_refused(shop.commit_late(&lapsed).await, Reason::LateCommitSoldOut, None) }
        });
        streams.add("DeleteSku", shop(), async |shop| {
            assert_refused(shop.delete_sku("sold-out").await, Reason::SkuHasHolds, None);
        });
        streams.add("AdjustStock", shop(), async |shop| {
            assert_refused(shop.adjust_stock("sold-out", -1, &new_id()).await, Reason::StockBelowHeld, None);
        });
        streams
    }

    fn add<F: Future<Output = ()> + Send>(
        &mut self,
        kind: &'static str,
        shop: TestClient,
        call: impl Fn(TestClient) -> F + Send + 'static,
    ) {
        let is_over = Arc::clone(&self.is_over);
        self.tasks.spawn(async move {
            let mut calls = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                let start = Instant::now();
                call(shop.clone()).await;
                calls.push((start, start.elapsed()));
            }
            (kind, calls)
        });
    }

    async fn end(self) -> Vec<(&'static str, Vec<Timed>)> {
        self.is_over.store(true, Ordering::Release);
        self.tasks.join_all().await
    }
}

async fn hold(shop: TestClient, sku: &str, quantity: i32, ttl: Duration) -> String {
    shop.hold_for(sku, quantity, ttl).await.reservation_id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_one_sku_delays_no_call_for_another() {
    let redis = Redis::start_in_memory().await;
    // A sweep does nothing that a call does not do.
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast --sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    // Every unit of it is held.
    shop.supply("storm", (HOLDS + TRIAL * MAX_OPERATIONS) as i64).await;
    shop.supply("open", 1_000_000_000).await;
    shop.supply("sold-out", 10).await;
    shop.supply("late", 1).await;
    let lapsed = hold(shop.clone(), "late", 1, Duration::from_millis(1)).await;
    shop.expired(&lapsed).await;
    hold(shop.clone(), "late", 1, LONG).await;
    hold(shop.clone(), "sold-out", 10, LONG).await;

    // How long the filling takes, with a margin, decides when all that it makes falls due.
    let start = Instant::now();
    fill(&shop, TRIAL * MAX_OPERATIONS, || LONG).await;
    let needed = 2 * start.elapsed() * (HOLDS / (TRIAL * MAX_OPERATIONS)) as u32;
    let all_due = Instant::now() + needed + CALM;
    let until_due = move || Duration::from_millis(all_due.saturating_duration_since(Instant::now()).as_millis() as u64);
    fill(&shop, HOLDS, until_due).await;
    let filled = Instant::now();
    assert!(filled + CALM / 2 < all_due, "this machine is too slow for this test");
    let first_due = redis.now().await + (all_due - filled).as_millis() as i64;
    println!("filled in {:?}, due in {:?}", filled - start, all_due - filled);

    let mut apart = Vec::new();
    for _ in 0..CONNECTIONS {
        apart.push(server.shop_apart("sale").await);
    }
    let streams = Streams::start(&shop, lapsed);
    // Deadlines differ from that instant by the duration of one to `FILLERS` Batch calls.
    let first_are_due = async {
        while redis.now().await <= first_due {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let until_due = all_due.saturating_duration_since(Instant::now());
    tokio::time::timeout(until_due + STORM_LIMIT, first_are_due).await.expect("the first are due");
    let storm = Instant::now();
    let whole = (HOLDS as i64, (TRIAL * MAX_OPERATIONS) as i64, 0);
    let mut waiters = JoinSet::new();
    for i in 0..WAITERS {
        let shop = apart[i % CONNECTIONS].clone();
        waiters.spawn(async move { while shop.counts("storm").await != whole {} });
    }
    tokio::time::timeout(STORM_LIMIT, waiters.join_all()).await.expect("all are given back");
    let length = storm.elapsed();
    let measured = streams.end().await;

    assert_eq!(server.metric("inventory_sentinel_expired_total").await, HOLDS as f64 + 1.0);
    println!("the SKU of the storm waited for {length:?}");
    let mut slow = Vec::new();
    for (kind, calls) in measured {
        let during = |from: Instant, to: Instant| -> Vec<Duration> {
            calls.iter().filter(|(at, _)| (from..to).contains(at)).map(|&(_, latency)| latency).collect()
        };
        let (calm, stormy) = (during(filled, storm), during(storm, storm + length));
        assert!(calm.len() > 10 && !stormy.is_empty(), "{kind}: {} and {} calls", calm.len(), stormy.len());
        let (before, after) = (p99(&calm), p99(&stormy));
        println!("{kind}: p99 {before:?} of {}, in the storm {after:?} of {}", calm.len(), stormy.len());
        if after > FLOOR.max(MAX_RATIO * before).max(length / MAX_PART) {
            slow.push(kind);
        }
    }
    assert!(slow.is_empty(), "slower in the storm: {slow:?}");
    shop.audit().await;
}
