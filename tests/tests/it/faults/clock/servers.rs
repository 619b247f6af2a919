//! Steps of the store's clock under one or two servers: deadlines, sale windows and reports.

use std::time::{Duration, Instant};

use inventory_sentinel::{
    Reason,
    v1::{ConfigureNamespaceRequest, NamespaceConfig, ReservationState as State, ReserveRequest, SkuRules},
};
use sentinel_tests::{Redis, SentinelProcess, TestClient, eventually, millis, new_id, reason, reserve_request};
use tokio::task::{AbortHandle, JoinSet, LocalSet};

use super::{DAY, HOUR, MINUTE};

/// The permitted error of a deadline (lua/scripts/load/clock.lua), and the possible delay of this machine.
const BOUND: Duration = Duration::from_millis(1_000);
const SLACK: Duration = Duration::from_millis(1_500);
/// Concurrent cases: a case mostly waits.
const AT_ONCE: usize = 12;

/// The servers while the store's clock makes its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Servers {
    One,
    Two,
    /// The second is suspended before the step and resumed after it.
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

/// A hold, and its deadline by the clock of this process.
struct Hold {
    id: String,
    /// Before the call and after its answer.
    made: (Instant, Instant),
    ttl: Duration,
}

async fn hold(shop: &TestClient, ttl: Duration) -> Hold {
    let began = Instant::now();
    let id = shop.hold_for("ps5", 1, ttl).await.reservation_id;
    Hold { id, made: (began, Instant::now()), ttl }
}

/// Reads a hold until it has ended. It must be pending until its deadline, and expired soon after.
async fn ends_in_time(shop: &TestClient, hold: &Hold, what: &str) {
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

/// The same for a hold that is read only once well before its deadline, and once after it.
async fn ends_in_time_unseen(shop: &TestClient, hold: &Hold, what: &str) {
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

/// Checks everything that depends on the time of day. A step of less than five minutes ago must not affect it.
async fn time_of_day_is_right(shop: &TestClient, what: &str) {
    let result = shop.reserve(reserve_request(&[("later", 1)])).await;
    assert_eq!(result.map_err(|status| reason(&status)).err(), Some(Reason::SaleNotOpen), "{what}");
    shop.reserve(ReserveRequest { request_id: new_id(), ..reserve_request(&[("open", 1)]) })
        .await
        .expect("the sale is open");
    let before = now();
    let held = shop.hold("ps5", 1).await;
    let (earliest, latest) = (before - 1_500, now() + 1_500);
    // The reading of a new server may be corrected later.
    eventually(what, async || {
        let held = shop.reservation(&held.reservation_id).await.expect("it is known");
        (earliest..=latest).contains(&millis(held.created_at)).then_some(())
    })
    .await;
    shop.rollback(&held.reservation_id).await.expect("given back");
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Continuous calls.
fn traffic(shop: &TestClient) -> AbortHandle {
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
    // `busy` has traffic during the step. `quiet` has a hold and no calls, `idle` neither.
    let (busy, quiet, idle) = (first.shop("busy"), first.shop("quiet"), first.shop("idle"));
    for shop in [&busy, &quiet, &idle] {
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
    // Long enough that the time since the last write does not limit the step.
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
    for shop in [&busy, &quiet, &called.shop("idle")] {
        time_of_day_is_right(shop, &format!("{case:?} {} after the step", shop.namespace)).await;
    }
    if case.is_taken_back {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        redis.step_clock(0);
    }
    let after = [hold(&busy, Duration::from_secs(6)).await, hold(&quiet, Duration::from_secs(6)).await];

    for (which, holds) in [("before", &before), ("during", &during), ("after", &after)] {
        let what = |shop: &TestClient| format!("{case:?} {} {which}", shop.namespace);
        let (what_busy, what_quiet) = (what(&busy), what(&quiet));
        tokio::join!(ends_in_time(&busy, &holds[0], &what_busy), ends_in_time_unseen(&quiet, &holds[1], &what_quiet));
    }
    calls.abort();
    for shop in [&busy, &quiet] {
        time_of_day_is_right(shop, &format!("{case:?} {} at the end", shop.namespace)).await;
        shop.audit().await;
    }
}

/// A hold used to end seconds after its creation, or to stay for days; a sale opened early; new request ids were
/// refused.
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
    // All cases run, so that one failure shows whether others fail too.
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

/// The only server was away: the time that has passed is believed after a while, and no deadline moves meanwhile.
#[tokio::test]
async fn a_server_that_was_away_moves_no_deadline() {
    let redis = Redis::start_with_clock().await;
    let mut server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 50ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 3).await;
    let long = hold(&shop, Duration::from_secs(14)).await;
    let short = hold(&shop, Duration::from_secs(2)).await;
    server.kill9();
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.restart().await;
    let shop = server.shop("sale");
    let last = hold(&shop, Duration::from_secs(7)).await;
    // All units are held, one of them longer than it should be: no buyer gets a shortage while that is in doubt.
    let next = hold(&shop, Duration::from_secs(5)).await;
    assert_eq!(shop.reservation(&short.id).await.expect("the hold is known").state(), State::Expired);
    for (what, hold) in [("made while away is in doubt", &last), ("made after that", &next), ("of before", &long)] {
        ends_in_time(&shop, hold, what).await;
    }
    shop.audit().await;
}

/// Both differences are reported, and the first need not end.
#[tokio::test]
async fn a_step_is_shown_and_logged_once() {
    let redis = Redis::start_with_clock().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 50ms").start().await;
    for name in ["sale", "other"] {
        server.shop(name).supply("ps5", 10).await;
        server.shop(name).hold("ps5", 1).await;
    }
    let shop = server.shop("sale");
    let gauges = async || {
        let gauge = async |name: &str| server.metric(&format!("inventory_sentinel_{name}_offset_seconds")).await;
        (gauge("clock").await.round() as i64, gauge("time_of_day").await.round() as i64)
    };
    assert_eq!(gauges().await, (0, 0));
    redis.step_clock(HOUR);
    for name in ["sale", "other"] {
        server.shop(name).hold("ps5", 1).await;
    }
    eventually("the gauges show it", async || (gauges().await == (-3_600, -3_600)).then_some(())).await;
    let info = server.info().await;
    let seconds = |offset: Option<prost_types::Duration>| offset.map(|offset| offset.seconds);
    assert!(matches!(seconds(info.clock_offset), Some(-3_600 | -3_599)), "{info:?}");
    assert!(matches!(seconds(info.time_of_day_offset), Some(-3_600 | -3_599)), "{info:?}");
    assert_eq!(server.metric("inventory_sentinel_clock_steps_total").await, 2.0);
    redis.step_clock(0);
    shop.hold("ps5", 1).await;
    server.shop("other").hold("ps5", 1).await;
    eventually("the gauges show that it has ended", async || (gauges().await == (0, 0)).then_some(())).await;
    let lines = server.log_lines();
    let logged = lines.iter().filter(|line| line["message"].as_str().is_some_and(|message| message.contains("clock")));
    assert_eq!(logged.count(), 2, "one line for each change");
}

/// The settings of a namespace change in the middle of a step, before any other call.
#[tokio::test]
async fn a_change_of_settings_during_a_step_moves_no_deadline() {
    let redis = Redis::start_with_clock().await;
    let mut servers = Vec::new();
    for _ in 0..2 {
        // A server that makes no calls without a caller.
        servers.push(SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await);
        if servers.len() == 1 {
            servers[0].shop("sale").supply("ps5", 10).await;
        }
    }
    // The first has opened the partition; the second has not called it.
    for (server, step) in [(0, HOUR), (1, -HOUR), (1, DAY)] {
        let shop = servers[0].shop("sale");
        let held = hold(&shop, Duration::from_secs(6)).await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        redis.step_clock(step);
        let other = servers[server].shop("sale");
        let config = NamespaceConfig { quota_skus: Some(1_000 + step.abs() / 1_000), ..Default::default() };
        let request =
            ConfigureNamespaceRequest { namespace_id: "sale".into(), config: Some(config), ..Default::default() };
        other.admin.clone().configure_namespace(request).await.expect("configured");
        ends_in_time(&shop, &held, &format!("{step} by {server}")).await;
        redis.step_clock(0);
        hold(&shop, Duration::from_millis(10)).await;
    }
    servers[0].shop("sale").audit().await;
}

/// Time has passed since the last write, and the store's clock has made a step: a new server can measure neither.
#[tokio::test]
async fn holds_of_a_new_server_end_in_time_after_an_idle_spell() {
    let play = async |step: i64, is_held: bool, idle: u64| {
        let redis = Redis::start_with_clock().await;
        let launch = || SentinelProcess::launch().on(&redis).flags("--sweep-interval 50ms");
        let first = launch().start().await;
        let shop = first.shop("sale");
        shop.supply("ps5", 100).await;
        if is_held {
            shop.hold_for("ps5", 1, Duration::from_secs(3_000)).await;
        }
        // Holds are shorter than the longer pause: by the time since the last write they would be due at once.
        tokio::time::sleep(Duration::from_millis(idle)).await;
        redis.step_clock(step);
        let second = launch().start().await;
        let held = hold(&second.shop("sale"), Duration::from_secs(6)).await;
        ends_in_time(&shop, &held, &format!("step {step}, another hold {is_held}, idle for {idle} ms")).await;
        shop.audit().await;
    };
    tokio::join!(
        play(-60_000, true, 6_000),
        play(-60_000, false, 6_000),
        play(-60_000, true, 8_000),
        play(-60_000, false, 8_000),
        play(-4_000, true, 6_000),
        play(8_000, true, 6_000),
        play(8_000, false, 8_000)
    );
}

/// In format 2 the time of day is that of the store, so it must not change when the namespace is raised.
#[tokio::test]
async fn a_raised_namespace_keeps_its_time_of_day() {
    let redis = Redis::start_with_clock().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 50ms --format 2").start().await;
    let shop = server.shop("sale");
    redis.step_clock(-HOUR);
    for sku in ["open", "later", "ps5"] {
        shop.set_stock(sku, 100, &format!("stock-{sku}")).await.expect("set");
    }
    shop.configure("open", rules(-600)).await.expect("configured");
    shop.configure("later", rules(600)).await.expect("configured");
    redis.step_clock(0);
    // The server reads the clock.
    shop.counts("ps5").await;
    time_of_day_is_right(&shop, "format 2").await;
    let config = NamespaceConfig { format: Some(3), ..Default::default() };
    let request = ConfigureNamespaceRequest { namespace_id: "sale".into(), config: Some(config), ..Default::default() };
    shop.admin.clone().configure_namespace(request).await.expect("raised");
    time_of_day_is_right(&shop, "format 3").await;
    assert_eq!(server.metric("inventory_sentinel_time_of_day_offset_seconds").await.round(), 0.0);
}
