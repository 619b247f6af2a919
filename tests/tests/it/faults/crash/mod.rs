//! Processes that die under load, callers that never get an answer, and the last millisecond before a deadline. What
//! was acknowledged stays, nothing is sold twice, and every unit is accounted for.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use inventory_sentinel::{
    Reason,
    v1::{ReservationState as State, SkuRules},
};
use sentinel_tests::{
    Redis, SentinelProcess, eventually,
    model::{
        Answer, Condition, Model, Op,
        history::{Call, replay},
        millis,
    },
    new_id,
};
use tokio::{task::JoinSet, time::sleep};
use tonic::transport::Channel;

mod load;

use load::{LONG, Load, Place, SKUS, UNITS, check, new_namespace, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_under_load_loses_nothing_acknowledged() {
    let server = SentinelProcess::launch().keep_files_of_a_failure().start().await;
    let sale = new_namespace();
    let place = Place::of(&server, &sale);
    open(&server.shop(&sale), UNITS).await;
    let load = Load::start(std::slice::from_ref(&place));
    for _ in 0..5 {
        load.wait_for_progress(1_000).await;
        let killed = server.embedded_redis().expect("an embedded redis");
        server.kill9_redis();
        let is_new = async || server.embedded_redis().filter(|pid| *pid != killed);
        eventually("the supervisor starts redis again", is_new).await;
    }
    load.wait_for_progress(1_000).await;
    server.wait_until_ready().await;
    let ledger = load.stop(&place, &server.embedded_url()).await;
    check(&place, &server.shop(&sale), &server.embedded_url(), ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_load_comes_back_to_its_books() {
    let mut server = SentinelProcess::launch().keep_files_of_a_failure().start().await;
    let sale = new_namespace();
    let place = Place::of(&server, &sale);
    open(&server.shop(&sale), UNITS).await;
    let load = Load::start(std::slice::from_ref(&place));
    for _ in 0..5 {
        load.wait_for_progress(1_000).await;
        // Its Redis survives, and the next server stops it before it starts another.
        place.restart(&mut server).await;
    }
    load.wait_for_progress(1_000).await;
    let ledger = load.stop(&place, &server.embedded_url()).await;
    assert!(ledger.abandoned > 0, "nobody died");
    check(&place, &server.shop(&sale), &server.embedded_url(), ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_on_one_redis_one_dies_again_and_again() {
    let redis = Redis::start().await;
    let (steady, mut dying) = (SentinelProcess::on(&redis).await, SentinelProcess::on(&redis).await);
    let sale = new_namespace();
    let places = [Place::of(&steady, &sale), Place::of(&dying, &sale)];
    open(&steady.shop(&sale), UNITS).await;
    let load = Load::start(&places);
    for _ in 0..8 {
        load.wait_for_progress(600).await;
        // Exact while others buy.
        steady.shop(&sale).audit().await;
        places[1].restart(&mut dying).await;
    }
    load.wait_for_progress(600).await;
    let ledger = load.stop(&places[0], &redis.url()).await;
    check(&places[0], &steady.shop(&sale), &redis.url(), ledger).await;
    for sku in SKUS {
        assert_eq!(dying.shop(&sale).counts(sku).await, steady.shop(&sale).counts(sku).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_commit_and_deadline_exactly_one_wins() {
    const RACERS: usize = 128;
    const RACES: usize = 48;
    /// The shortest ttl, and the same in calls that fit into it.
    const TTL: (i64, i64) = (60, 4);
    let server = SentinelProcess::start().await;
    let sale = new_namespace();
    let (place, shop) = (Place::of(&server, &sale), server.shop(&sale));
    open(&shop, (RACERS * RACES) as i64).await;
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let place = place.clone();
        racers.spawn(async move {
            let (mut won, mut lost) = (0, 0);
            // How long a call of this racer takes; it is longer on a busy machine.
            let mut usual = Duration::from_millis(6);
            for race in 0..RACES {
                let reserve = Op::Reserve {
                    request_id: new_id(),
                    lines: vec![(SKUS[racer % SKUS.len()].into(), 1)],
                    ttl_ms: Some(TTL.0.max(TTL.1 * usual.as_millis() as i64)),
                    buyer_id: String::new(),
                    replaces: String::new(),
                };
                let Answer::Reservation(made, _) = place.retry_until_answered(&reserve).await.answer else {
                    panic!("there is enough for everybody");
                };
                // From one call before the deadline to half a call after it, in ten steps.
                let deadline = UNIX_EPOCH + Duration::from_millis(millis(made.expires_at) as u64);
                let start = deadline + usual * ((racer + race) % 10) as u32 / 6 - usual;
                sleep(start.duration_since(SystemTime::now()).unwrap_or_default()).await;
                let id = made.reservation_id.clone();
                let commit = Op::Commit { reservation_id: id.clone(), late: false };
                let sent = Instant::now();
                let (first, second) =
                    tokio::join!(place.retry_until_answered(&commit), place.retry_until_answered(&commit));
                usual = (usual + sent.elapsed()) / 2;
                let Answer::Reservation(is, _) =
                    place.retry_until_answered(&Op::GetReservation { reservation_id: id }).await.answer
                else {
                    panic!("{made:?} is gone");
                };
                let answers = [first.answer, second.answer];
                match is.state() {
                    State::Committed => {
                        assert!(millis(is.resolved_at) < millis(is.expires_at), "{is:?}");
                        let expected = |replayed| Answer::Reservation(is.clone(), replayed);
                        let in_order = answers == [expected(false), expected(true)];
                        assert!(
                            in_order || answers == [expected(true), expected(false)],
                            "{answers:?}, and it is {is:?}"
                        );
                        won += 1;
                    }
                    State::Expired => {
                        assert_eq!(is.resolved_at, is.expires_at);
                        let expected = Answer::Refused(Reason::ReservationExpired, String::new());
                        assert_eq!(answers, [expected.clone(), expected]);
                        lost += 1;
                    }
                    other => panic!("{other:?}: {answers:?}"),
                }
            }
            (won, lost)
        });
    }
    let (won, lost) = racers.join_all().await.into_iter().fold((0, 0), |sum, racer| (sum.0 + racer.0, sum.1 + racer.1));
    assert_eq!((won + lost) as usize, RACERS * RACES);
    assert!(won > 50 && lost > 50, "no race: {won} won and {lost} lost");
    let mut sold = 0;
    for sku in SKUS {
        let counts = shop.counts(sku).await;
        assert_eq!((counts.0 + counts.2, counts.1), ((RACERS * RACES) as i64, 0), "{sku}");
        sold += counts.2;
    }
    assert_eq!(sold, won);
    shop.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_explains_all_answers_of_a_concurrent_sale() {
    const CLIENTS: usize = 64;
    const CALLS: usize = 120;
    let redis = Redis::start().await;
    let servers = [SentinelProcess::on(&redis).await, SentinelProcess::on(&redis).await];
    let sale: Arc<str> = new_namespace().into();
    let mut calls = Vec::new();
    for sku in SKUS {
        let opening = Op::SetStock {
            sku: sku.into(),
            on_hand: 30,
            condition: Condition::Always,
            request_id: format!("open-{sku}"),
        };
        calls.push(record(&servers[0].channel(), &sale, opening).await);
    }
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (channel, sale) = (servers[client % servers.len()].channel(), Arc::clone(&sale));
        clients.spawn(async move {
            let (mut calls, mut mine): (Vec<Call>, Vec<String>) = (Vec::new(), Vec::new());
            for turn in 0..CALLS {
                let op = concurrent_op(client, turn, &mine, &calls);
                let call = record(&channel, &sale, op).await;
                if let (Op::Reserve { .. }, Answer::Reservation(made, false)) = (&call.op, &call.received.answer) {
                    mine.push(made.reservation_id.clone());
                }
                calls.push(call);
            }
            calls
        });
    }
    calls.extend(clients.join_all().await.into_iter().flatten());
    let model = replay(Model::new(&*sale), &calls).unwrap_or_else(|why| panic!("no order explains this: {why}"));
    let shop = servers[1].shop(&sale);
    for (sku, expected) in model.stock() {
        assert_eq!(shop.counts(sku).await, (expected.available, expected.held, expected.sold));
    }
    let count = |is: fn(&Answer) -> bool| calls.iter().filter(|call| is(&call.received.answer)).count();
    let kinds = [
        count(|answer| matches!(answer, Answer::Reservation(_, false))),
        count(|answer| matches!(answer, Answer::Reservation(_, true))),
        count(|answer| matches!(answer, Answer::Short(_))),
        count(|answer| matches!(answer, Answer::Refused(..))),
    ];
    assert!(kinds.iter().all(|kind| *kind > 50), "too quiet to prove much: {kinds:?}");
    shop.audit().await;
}

/// The next call of this client: a purchase, its end, a repeat, and sometimes a change of stock.
fn concurrent_op(client: usize, turn: usize, mine: &[String], calls: &[Call]) -> Op {
    let sku = |step: usize| SKUS[(client + turn + step) % SKUS.len()].to_owned();
    let request_id = format!("{client}-{turn}");
    let latest = mine.last().cloned().unwrap_or_else(|| "A".repeat(24));
    let mix = (client * 31 + turn * 17) % 20;
    match mix {
        0..=7 => {
            let lines = (0..=mix % 3).map(|step| (sku(step), 1 + (mix % 2) as i32)).collect();
            Op::Reserve {
                request_id,
                lines,
                ttl_ms: Some(LONG),
                buyer_id: format!("buyer-{client}"),
                replaces: String::new(),
            }
        }
        8..=9 => Op::Rollback { reservation_id: latest },
        10 => Op::Commit { reservation_id: latest, late: false },
        11 => Op::GetReservation { reservation_id: latest },
        12 => Op::GetStock { sku: sku(0) },
        13 => Op::AdjustStock { sku: sku(0), delta: if turn.is_multiple_of(2) { 2 } else { -2 }, request_id },
        14 => Op::SetStock { sku: sku(0), on_hand: 20 + (turn % 20) as i64, condition: Condition::Always, request_id },
        15 if client.is_multiple_of(8) => {
            let rules = SkuRules { is_protected: Some(!turn.is_multiple_of(5)), ..Default::default() };
            Op::ConfigureSku { sku: sku(0), rules, if_version: None, request_id }
        }
        16 => Op::IsProtected { sku: sku(0) },
        _ => {
            let made = |call: &&Call| matches!(call.received.answer, Answer::Reservation(..) | Answer::Stock(..));
            calls.iter().rev().find(made).map_or(Op::GetStock { sku: sku(0) }, |call| call.op.clone())
        }
    }
}

async fn record(channel: &Channel, namespace: &str, op: Op) -> Call {
    let start = Instant::now();
    let received = op.execute(channel, namespace, false).await.unwrap_or_else(|status| panic!("{op:?}: {status:?}"));
    Call { op, start, end: Instant::now(), received }
}
