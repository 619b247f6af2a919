//! Steps of the store's clock: durations stay right whatever it shows, and the time of day ignores a step that is taken back.

use std::time::{Duration, Instant};

use inventory_sentinel::{
    Reason,
    v1::{ReservationState as State, ReserveRequest, SkuRules},
};
use sentinel_tests::{Redis, SentinelProcess, Shop, eventually, millis, new_id, order, reason};
use tokio::task::{AbortHandle, JoinSet, LocalSet};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// What a deadline may be off by (lua/clock.lua), and what this machine may be late by.
const BOUND: Duration = Duration::from_millis(1_000);
const SLACK: Duration = Duration::from_millis(1_500);
/// Cases that run at once: most of a case is waiting.
const AT_ONCE: usize = 12;

/// Who serves while the store's clock makes its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Servers {
    One,
    Two,
    /// The second does not run while the step is made, and goes on after it.
    OneSuspended,
    /// The second starts after the step and is called first.
    OneNew,
}

/// A step, and whether it is taken back.
#[derive(Clone, Copy, Debug)]
struct Case {
    step: i64,
    is_taken_back: bool,
    servers: Servers,
}

/// A hold, and when its deadline is by the clock of this process.
struct Hold {
    id: String,
    /// The call was made and answered then.
    made: (Instant, Instant),
    ttl: Duration,
}

async fn hold(shop: &Shop, ttl: Duration) -> Hold {
    let began = Instant::now();
    let id = shop.hold_for("ps5", 1, ttl).await.reservation_id;
    Hold { id, made: (began, Instant::now()), ttl }
}

/// Looks at a hold until it has ended. It must be pending until its deadline, and ended soon after.
async fn ends_in_time(shop: &Shop, hold: &Hold, what: &str) {
    let (earliest, latest) = (hold.made.0 + hold.ttl - BOUND, hold.made.1 + hold.ttl + BOUND + SLACK);
    let id = &hold.id;
    eventually("the hold ends", async || {
        let began = Instant::now();
        let state = shop.reservation(id).await.expect("the hold is known").state();
        let answered = Instant::now();
        match state {
            State::Pending => assert!(began < latest, "{what}: pending {:?} after its deadline", began - latest),
            State::Expired => assert!(answered > earliest, "{what}: ended {:?} early", earliest - answered),
            other => panic!("{other:?}"),
        }
        (state == State::Expired).then_some(())
    })
    .await;
}

/// The same of a hold that nobody looks at before it has ended, but once a good while before.
async fn ends_in_time_unseen(shop: &Shop, hold: &Hold, what: &str) {
    let deadline = hold.made.0 + hold.ttl;
    tokio::time::sleep_until((deadline - 2 * BOUND).into()).await;
    let state = shop.reservation(&hold.id).await.expect("the hold is known").state();
    if Instant::now() < deadline - BOUND {
        assert_eq!(state, State::Pending, "{what}");
    }
    tokio::time::sleep_until((hold.made.1 + hold.ttl + BOUND).into()).await;
    assert_eq!(shop.reservation(&hold.id).await.expect("the hold is known").state(), State::Expired, "{what}");
}

fn rules(opens_in: i64) -> SkuRules {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    SkuRules { opens_at: Some(prost_types::Timestamp { seconds: now + opens_in, nanos: 0 }), ..Default::default() }
}

/// What depends on the time of day, which a step that is not older than five minutes does not change.
async fn time_of_day_is_right(shop: &Shop, what: &str) {
    let result = shop.reserve(order(&[("later", 1)])).await;
    assert_eq!(result.map_err(|status| reason(&status)).err(), Some(Reason::SaleNotOpen), "{what}");
    shop.reserve(ReserveRequest { request_id: new_id(), ..order(&[("open", 1)]) }).await.expect("the sale is open");
    let before = now();
    let held = shop.hold("ps5", 1).await;
    let created = millis(held.created_at);
    let (earliest, latest) = (before - 1_500, now() + 1_500);
    assert!((earliest..=latest).contains(&created), "{what}: made {} ms late", created - before);
    shop.rollback(&held.reservation_id).await.expect("given back");
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Calls that come all the time.
fn traffic(shop: &Shop) -> AbortHandle {
    let shop = shop.clone();
    tokio::spawn(async move {
        loop {
            let held = shop.hold("ps5", 1).await;
            shop.rollback(&held.reservation_id).await.expect("given back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .abort_handle()
}

async fn play(case: Case) {
    let redis = Redis::start_with_clock().await;
    let launch = || SentinelProcess::launch().on(&redis).flags("--sweep-interval 50ms");
    let first = launch().start().await;
    // The sale of `busy` goes on while the step is made; nobody calls `quiet`.
    let (busy, quiet) = (first.shop("busy"), first.shop("quiet"));
    for shop in [&busy, &quiet] {
        shop.supply("ps5", 1_000).await;
        shop.supply("later", 10).await;
        shop.supply("open", 10).await;
        shop.configure("later", rules(600)).await.expect("configured");
        shop.configure("open", rules(-600)).await.expect("configured");
    }
    let mut second = match case.servers {
        Servers::Two | Servers::OneSuspended => Some(launch().start().await),
        Servers::One | Servers::OneNew => None,
    };
    if let Some(second) = &second {
        second.shop("busy").counts("ps5").await;
        second.shop("quiet").counts("ps5").await;
    }
    let calls = traffic(&busy);
    let before = [hold(&busy, Duration::from_secs(9)).await, hold(&quiet, Duration::from_secs(9)).await];
    // So long that the time since the last write is no bound for the step.
    tokio::time::sleep(Duration::from_millis(1_500)).await;

    if let (Servers::OneSuspended, Some(second)) = (case.servers, &second) {
        second.stop();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    redis.step_clock(case.step);
    if case.servers == Servers::OneNew {
        second = Some(launch().start().await);
    }
    let called = second.as_ref().filter(|_| case.servers == Servers::OneNew).unwrap_or(&first);
    let during = [
        hold(&called.shop("busy"), Duration::from_secs(7)).await,
        hold(&called.shop("quiet"), Duration::from_secs(7)).await,
    ];
    if let (Servers::OneSuspended, Some(second)) = (case.servers, &second) {
        second.cont();
    }
    for shop in [&busy, &quiet] {
        time_of_day_is_right(shop, &format!("{case:?} {} after the step", shop.namespace)).await;
    }
    if case.is_taken_back {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        redis.step_clock(0);
    }
    let after = [hold(&busy, Duration::from_secs(6)).await, hold(&quiet, Duration::from_secs(6)).await];

    for (which, holds) in [("before", &before), ("during", &during), ("after", &after)] {
        let what = |shop: &Shop| format!("{case:?} {} {which}", shop.namespace);
        let (what_busy, what_quiet) = (what(&busy), what(&quiet));
        tokio::join!(ends_in_time(&busy, &holds[0], &what_busy), ends_in_time_unseen(&quiet, &holds[1], &what_quiet));
    }
    calls.abort();
    for shop in [&busy, &quiet] {
        time_of_day_is_right(shop, &format!("{case:?} {} at the end", shop.namespace)).await;
        shop.audit().await;
    }
}

/// A hold ended seconds after it was made, or stayed for days; a sale opened early; fresh request ids were refused.
#[tokio::test]
async fn no_step_of_the_clock_moves_a_deadline_or_a_sale() {
    let mut left: Vec<Case> = Vec::new();
    for step in [20_000, 58 * MINUTE, HOUR, 2 * DAY].into_iter().flat_map(|step| [step, -step]) {
        for is_taken_back in [true, false] {
            for servers in [Servers::One, Servers::Two, Servers::OneSuspended, Servers::OneNew] {
                left.push(Case { step, is_taken_back, servers });
            }
        }
    }
    // All, so that one failure shows whether it stands alone.
    let failed = LocalSet::new()
        .run_until(async move {
            let (mut cases, mut failed) = (JoinSet::new(), 0);
            loop {
                while let Some(case) = left.pop_if(|_| cases.len() < AT_ONCE) {
                    cases.spawn_local(play(case));
                }
                let Some(case) = cases.join_next().await else { return failed };
                failed += usize::from(case.is_err());
            }
        })
        .await;
    assert_eq!(failed, 0, "cases failed");
}
