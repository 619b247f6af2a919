//! Processes that die under load, callers that never get an answer, and the last millisecond before a deadline. What
//! was acknowledged stays, nothing is sold twice, and every unit is accounted for.

use std::{
    collections::HashMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use inventory_sentinel::{
    Reason,
    v1::{Reservation, ReservationState as State, SkuRules},
};
use sentinel_tests::{
    BOUND, Redis, SentinelProcess, TestClient, eventually,
    model::{
        Answer, Condition, Model, Op,
        execute::{Received, may_repeat},
        history::{Call, replay},
        millis,
    },
    new_id,
};
use tokio::{task::JoinSet, time::sleep};
use tonic::transport::Channel;

const SALE: &str = "sale";
const SKUS: [&str; 4] = ["a", "b", "c", "d"];
/// Units of each SKU: enough for most of the test, and too few at its end.
const UNITS: i64 = 2_000;
/// Concurrent callers.
const CALLERS: usize = 64;
/// Pause of a caller between two purchases, so that the checks at the end stay short.
const PAUSE: Duration = Duration::from_millis(3);
/// The ttl of a hold that nobody resolves; longer than any outage here, so that other holds end first.
const LONG: i64 = 3_600_000;
/// The ttl of a hold whose caller dies.
const SHORT: i64 = 1_000;
/// Pause between two tries of one call.
const RETRY: Duration = Duration::from_millis(20);

/// The current address of a server, for callers that outlive it.
#[derive(Clone)]
struct Place(Arc<RwLock<Channel>>);

impl Place {
    fn of(server: &SentinelProcess) -> Self {
        Self(Arc::new(RwLock::new(server.channel())))
    }

    fn moved_to(&self, server: &SentinelProcess) {
        *self.0.write().expect("no caller panics here") = server.channel();
    }

    fn channel(&self) -> Channel {
        self.0.read().expect("no caller panics here").clone()
    }

    /// Makes the call, and repeats it with the same identity until it is answered.
    async fn retry_until_answered(&self, op: &Op) -> Received {
        let (start, mut is_first) = (Instant::now(), true);
        loop {
            match op.execute(&self.channel(), SALE, std::mem::take(&mut is_first)).await {
                Ok(received) => return received,
                Err(status) if may_repeat(&status) && start.elapsed() < BOUND => sleep(RETRY).await,
                Err(status) => panic!("{op:?}: {status:?}"),
            }
        }
    }
}

/// The final answers of the callers, by reservation.
#[derive(Default)]
struct Ledger {
    /// The last that was acknowledged.
    acknowledged: HashMap<String, Reservation>,
    /// Calls that were given up without an answer.
    abandoned: usize,
    short: usize,
}

/// Buyers that work until a stop.
struct Load {
    buyers: JoinSet<Ledger>,
    stop: Arc<AtomicBool>,
    bought: Arc<AtomicUsize>,
}

impl Load {
    /// Buyers use these places in turn.
    fn start(places: &[Place]) -> Self {
        let (stop, bought) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut buyers = JoinSet::new();
        for buyer in 0..CALLERS {
            let (place, stop, bought) = (places[buyer % places.len()].clone(), Arc::clone(&stop), Arc::clone(&bought));
            buyers.spawn(async move {
                let mut ledger = Ledger::default();
                for purchase in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    buy(&place, buyer + purchase, &mut ledger).await;
                    bought.fetch_add(1, Ordering::Relaxed);
                    sleep(PAUSE).await;
                }
                ledger
            });
        }
        Self { buyers, stop, bought }
    }

    /// Waits until this many more purchases have ended: the load has resumed.
    async fn wait_for_progress(&self, purchases: usize) {
        let before = self.bought.load(Ordering::Relaxed);
        let more = async || (self.bought.load(Ordering::Relaxed) >= before + purchases).then_some(());
        eventually("buyers go on", more).await;
    }

    async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        for ledger in self.buyers.join_all().await {
            let before = all.acknowledged.len() + ledger.acknowledged.len();
            all.acknowledged.extend(ledger.acknowledged);
            assert_eq!(all.acknowledged.len(), before, "two buyers were given one reservation");
            all.abandoned += ledger.abandoned;
            all.short += ledger.short;
        }
        all
    }
}

/// One purchase. Most buyers pay, some give back, some do nothing more; and some die at the first failure.
async fn buy(place: &Place, turn: usize, ledger: &mut Ledger) {
    let dies = turn % 4 == 3;
    let line = |step: usize| (SKUS[(turn + step) % SKUS.len()].to_owned(), 1 + (turn / 4 % 2) as i32);
    let lines = if turn.is_multiple_of(3) { vec![line(0), line(1)] } else { vec![line(0)] };
    let ttl_ms = Some(if dies { SHORT } else { LONG });
    let reserve = Op::Reserve {
        request_id: new_id(),
        lines: lines.clone(),
        ttl_ms,
        buyer_id: format!("buyer-{turn}"),
        replaces: String::new(),
    };
    let received = if dies {
        match reserve.execute(&place.channel(), SALE, true).await {
            Ok(received) => received,
            Err(status) if may_repeat(&status) => {
                ledger.abandoned += 1;
                return;
            }
            Err(status) => panic!("{reserve:?}: {status:?}"),
        }
    } else {
        place.retry_until_answered(&reserve).await
    };
    let made = match received.answer {
        Answer::Reservation(made, _) => *made,
        Answer::Short(_) => {
            ledger.short += 1;
            return;
        }
        other => panic!("{reserve:?}: {other:?}"),
    };
    let reserved: Vec<_> = made.lines.iter().map(|line| (line.sku.clone(), line.quantity)).collect();
    // A late answer may contain a hold that has expired.
    let is_over = dies && made.state() == State::Expired;
    assert!(reserved == lines && (made.state() == State::Pending || is_over), "{reserve:?}: {made:?}");
    let id = made.reservation_id.clone();
    assert!(ledger.acknowledged.insert(id.clone(), made).is_none(), "{id} was made twice");
    let end = match turn % 5 {
        0 => return,
        1 => Op::Rollback { reservation_id: id.clone() },
        _ => Op::Commit { reservation_id: id.clone(), late: false },
    };
    match place.retry_until_answered(&end).await.answer {
        Answer::Reservation(ended, _) => {
            ledger.acknowledged.insert(id, *ended);
        }
        Answer::Refused(Reason::ReservationExpired, _) if dies => {}
        other => panic!("{end:?}: {other:?}"),
    }
}

async fn open(shop: &TestClient, units: i64) {
    for sku in SKUS {
        shop.supply(sku, units).await;
    }
}

/// Every reservation is as it was acknowledged, or as its deadline left it. The counters are exactly the sum of the
/// reservations. The holds of callers that died have expired.
async fn check(place: &Place, shop: &TestClient, ledger: Ledger) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    sleep(Duration::from_millis(SHORT as u64 + 1)).await;
    assert!(ledger.short > 0, "no caller got a shortage, so overselling was not tested");
    let (mut sold, mut held) = (HashMap::new(), HashMap::new());
    let mut reads = JoinSet::new();
    let all: Vec<_> = ledger.acknowledged.into_values().collect();
    for part in all.chunks(all.len().div_ceil(16)) {
        let (part, place) = (part.to_vec(), place.clone());
        reads.spawn(async move {
            let mut found = Vec::new();
            for known in part {
                let read = Op::GetReservation { reservation_id: known.reservation_id.clone() };
                match place.retry_until_answered(&read).await.answer {
                    Answer::Reservation(is, _) => found.push((known, *is)),
                    other => panic!("{known:?} was acknowledged and is {other:?}"),
                }
            }
            found
        });
    }
    for (known, is) in reads.join_all().await.into_iter().flatten() {
        let has_expired = known.state() == State::Pending && millis(known.expires_at) <= now();
        if has_expired {
            assert_eq!(is.state(), State::Expired, "{known:?}");
            assert_eq!(is.resolved_at, known.expires_at, "{known:?}");
        } else {
            assert_eq!(is, known);
        }
        for line in is.lines {
            assert_eq!(line.quantity, line.held + line.sold + line.released);
            *sold.entry(line.sku.clone()).or_insert(0) += i64::from(line.sold);
            *held.entry(line.sku).or_insert(0) += i64::from(line.held);
        }
    }
    for sku in SKUS {
        let of = |units: &HashMap<String, i64>| units.get(sku).copied().unwrap_or(0);
        let expected = (UNITS - of(&held) - of(&sold), of(&held), of(&sold));
        assert_eq!(shop.counts(sku).await, expected, "{sku}: available, held, sold");
    }
    shop.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_under_load_loses_nothing_acknowledged() {
    let server = SentinelProcess::start().await;
    let place = Place::of(&server);
    open(&server.shop(SALE), UNITS).await;
    let load = Load::start(std::slice::from_ref(&place));
    for _ in 0..5 {
        load.wait_for_progress(1_000).await;
        let killed = server.embedded_redis().expect("an embedded redis");
        server.kill9_redis();
        let is_new = async || server.embedded_redis().filter(|pid| *pid != killed);
        eventually("the supervisor starts redis again", is_new).await;
    }
    load.wait_for_progress(1_000).await;
    let ledger = load.stop().await;
    server.wait_until_ready().await;
    check(&place, &server.shop(SALE), ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_load_comes_back_to_its_books() {
    let mut server = SentinelProcess::start().await;
    let place = Place::of(&server);
    open(&server.shop(SALE), UNITS).await;
    let load = Load::start(std::slice::from_ref(&place));
    for _ in 0..5 {
        load.wait_for_progress(1_000).await;
        // Its Redis survives, and the next server stops it before it starts another.
        server.restart().await;
        place.moved_to(&server);
    }
    load.wait_for_progress(1_000).await;
    let ledger = load.stop().await;
    assert!(ledger.abandoned > 0, "nobody died");
    check(&place, &server.shop(SALE), ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_on_one_redis_one_dies_again_and_again() {
    let redis = Redis::start().await;
    let (steady, mut dying) = (SentinelProcess::on(&redis).await, SentinelProcess::on(&redis).await);
    let places = [Place::of(&steady), Place::of(&dying)];
    open(&steady.shop(SALE), UNITS).await;
    let load = Load::start(&places);
    for _ in 0..8 {
        load.wait_for_progress(600).await;
        // Exact while others buy.
        steady.shop(SALE).audit().await;
        dying.restart().await;
        places[1].moved_to(&dying);
    }
    load.wait_for_progress(600).await;
    let ledger = load.stop().await;
    check(&places[0], &steady.shop(SALE), ledger).await;
    for sku in SKUS {
        assert_eq!(dying.shop(SALE).counts(sku).await, steady.shop(SALE).counts(sku).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_commit_and_deadline_exactly_one_wins() {
    const RACERS: usize = 128;
    const RACES: usize = 48;
    const TTL: i64 = 60;
    let server = SentinelProcess::start().await;
    let (place, shop) = (Place::of(&server), server.shop(SALE));
    open(&shop, (RACERS * RACES) as i64).await;
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let place = place.clone();
        racers.spawn(async move {
            let (mut won, mut lost) = (0, 0);
            for race in 0..RACES {
                let reserve = Op::Reserve {
                    request_id: new_id(),
                    lines: vec![(SKUS[racer % SKUS.len()].into(), 1)],
                    ttl_ms: Some(TTL),
                    buyer_id: String::new(),
                    replaces: String::new(),
                };
                let Answer::Reservation(made, _) = place.retry_until_answered(&reserve).await.answer else {
                    panic!("there is enough for everybody");
                };
                // From 6 ms before the deadline to 3 ms after it: a call takes about as long.
                let (deadline, offset) = (millis(made.expires_at), ((racer + race) % 10) as u64);
                let deadline = UNIX_EPOCH + Duration::from_millis(deadline as u64);
                let start = deadline + Duration::from_millis(offset) - Duration::from_millis(6);
                sleep(start.duration_since(SystemTime::now()).unwrap_or_default()).await;
                let id = made.reservation_id.clone();
                let commit = Op::Commit { reservation_id: id.clone(), late: false };
                let (first, second) =
                    tokio::join!(place.retry_until_answered(&commit), place.retry_until_answered(&commit));
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
    let mut calls = Vec::new();
    for sku in SKUS {
        let opening = Op::SetStock {
            sku: sku.into(),
            on_hand: 30,
            condition: Condition::Always,
            request_id: format!("open-{sku}"),
        };
        calls.push(record(&servers[0].channel(), opening).await);
    }
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let channel = servers[client % servers.len()].channel();
        clients.spawn(async move {
            let (mut calls, mut mine): (Vec<Call>, Vec<String>) = (Vec::new(), Vec::new());
            for turn in 0..CALLS {
                let op = concurrent_op(client, turn, &mine, &calls);
                let call = record(&channel, op).await;
                if let (Op::Reserve { .. }, Answer::Reservation(made, false)) = (&call.op, &call.received.answer) {
                    mine.push(made.reservation_id.clone());
                }
                calls.push(call);
            }
            calls
        });
    }
    calls.extend(clients.join_all().await.into_iter().flatten());
    let model = replay(Model::new(SALE), &calls).unwrap_or_else(|why| panic!("no order explains this: {why}"));
    let shop = servers[1].shop(SALE);
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

async fn record(channel: &Channel, op: Op) -> Call {
    let start = Instant::now();
    let received = op.execute(channel, SALE, false).await.unwrap_or_else(|status| panic!("{op:?}: {status:?}"));
    Call { op, start, end: Instant::now(), received }
}
