//! Concurrent buyers that outlive their servers, and the check of what they were answered against the store. A
//! contradiction is reported with its server, its instant and the content of the store.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use inventory_sentinel::{
    Reason,
    v1::{Reservation, ReservationState as State},
};
use sentinel_tests::{
    BOUND, SentinelProcess, TestClient, eventually,
    model::{
        Answer, Op,
        execute::{Received, may_repeat},
        millis,
    },
    new_id, stored_history,
};
use tokio::{task::JoinSet, time::sleep};
use tonic::transport::Channel;

pub(super) const SKUS: [&str; 4] = ["a", "b", "c", "d"];
/// Units of each SKU: enough for most of the test, and too few at its end.
pub(super) const UNITS: i64 = 2_000;
/// The ttl of a hold that nobody resolves; longer than any outage here, so that other holds end first.
pub(super) const LONG: i64 = 3_600_000;
/// The ttl of a hold whose caller dies.
const SHORT: i64 = 1_000;
/// Concurrent callers.
const CALLERS: usize = 64;
/// Pause of a caller between two purchases, so that the checks at the end stay short.
const PAUSE: Duration = Duration::from_millis(3);
/// Pause between two tries of one call.
const RETRY: Duration = Duration::from_millis(20);
/// How late a hold may end after a restart: twice the longest doubt of a clock
/// (docs/decisions/0017-a-clock-per-partition.md), as the machine is busy.
const LONGEST_DOUBT: Duration = Duration::from_secs(10);
/// Contradictions that are reported in full.
const REPORTED: usize = 3;

/// A namespace that no other test has: a server of another test may get the port of a killed one.
pub(super) fn new_namespace() -> String {
    format!("crash-{}", new_id())
}

/// The current address of a server, for callers that outlive it.
#[derive(Clone)]
pub(super) struct Place {
    namespace: Arc<str>,
    current: Arc<RwLock<Current>>,
}

/// The server of a [`Place`].
#[derive(Clone)]
struct Current {
    channel: Channel,
    server: Arc<str>,
    /// Whether the test kills it: another process may get its port.
    is_killed: bool,
}

impl Current {
    fn of(server: &SentinelProcess) -> Self {
        Self { channel: server.channel(), server: server.to_string().into(), is_killed: false }
    }
}

/// The server that answered a call, and when.
#[derive(Clone, Debug)]
struct Origin {
    server: Arc<str>,
    at: SystemTime,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {} at {}", self.server, prost_types::Timestamp::from(self.at))
    }
}

impl Place {
    pub(super) fn of(server: &SentinelProcess, namespace: &str) -> Self {
        Self { namespace: namespace.into(), current: Arc::new(RwLock::new(Current::of(server))) }
    }

    /// Kills the server and starts the next one, which the callers use from then on.
    pub(super) async fn restart(&self, server: &mut SentinelProcess) {
        self.current.write().expect("no caller panics here").is_killed = true;
        server.restart().await;
        *self.current.write().expect("no caller panics here") = Current::of(server);
    }

    fn current(&self) -> Current {
        self.current.read().expect("no caller panics here").clone()
    }

    /// Makes the call once. `None`: there is no answer.
    async fn execute(&self, op: &Op, is_first: bool) -> Option<(Received, Origin)> {
        let Current { channel, server, is_killed } = self.current();
        match op.execute(&channel, &self.namespace, is_first).await {
            // The namespace exists before the first buyer, so another test's server has got the port.
            Ok(Received { answer: Answer::Refused(Reason::NamespaceNotFound, _), .. }) if is_killed => None,
            Ok(received) => Some((received, Origin { server, at: SystemTime::now() })),
            Err(status) if may_repeat(&status) => None,
            Err(status) => panic!("{op:?} at {server}: {status:?}"),
        }
    }

    async fn retry(&self, op: &Op) -> (Received, Origin) {
        let (start, mut is_first) = (Instant::now(), true);
        loop {
            if let Some(answered) = self.execute(op, std::mem::take(&mut is_first)).await {
                return answered;
            }
            assert!(start.elapsed() < BOUND, "{op:?}: no answer within {BOUND:?}");
            sleep(RETRY).await;
        }
    }

    /// Makes the call, and repeats it with the same identity until it is answered.
    pub(super) async fn retry_until_answered(&self, op: &Op) -> Received {
        self.retry(op).await.0
    }
}

/// The final answers of the callers, by reservation.
#[derive(Default)]
pub(super) struct Ledger {
    /// The last that was acknowledged.
    acknowledged: HashMap<String, (Reservation, Origin)>,
    /// Calls that were given up without an answer.
    pub(super) abandoned: usize,
    short: usize,
    /// Reservations whose answers contradict each other, with a description.
    contradictions: Vec<(String, String)>,
}

/// Buyers that work until a stop.
pub(super) struct Load {
    buyers: JoinSet<Ledger>,
    stop: Arc<AtomicBool>,
    bought: Arc<AtomicUsize>,
}

impl Load {
    /// Buyers use these places in turn.
    pub(super) fn start(places: &[Place]) -> Self {
        let (stop, bought) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut buyers = JoinSet::new();
        for buyer in 0..CALLERS {
            let (place, stop, bought) = (places[buyer % places.len()].clone(), Arc::clone(&stop), Arc::clone(&bought));
            buyers.spawn(async move {
                let mut ledger = Ledger::default();
                for purchase in 0.. {
                    if stop.load(Ordering::Relaxed) || !ledger.contradictions.is_empty() {
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
    pub(super) async fn wait_for_progress(&self, purchases: usize) {
        let before = self.bought.load(Ordering::Relaxed);
        let more = async || (self.bought.load(Ordering::Relaxed) >= before + purchases).then_some(());
        eventually("buyers go on", more).await;
    }

    /// Waits for the end of all purchases. `store` is the URL of the Redis, for a report.
    pub(super) async fn stop(self, place: &Place, store: &str) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        for ledger in self.buyers.join_all().await {
            let before = all.acknowledged.len() + ledger.acknowledged.len();
            all.acknowledged.extend(ledger.acknowledged);
            assert_eq!(all.acknowledged.len(), before, "two buyers were given one reservation");
            all.abandoned += ledger.abandoned;
            all.short += ledger.short;
            all.contradictions.extend(ledger.contradictions);
        }
        report(place, store, &all.contradictions).await;
        all
    }
}

/// Panics if there is a contradiction, with the content of the store.
async fn report(place: &Place, store: &str, contradictions: &[(String, String)]) {
    if contradictions.is_empty() {
        return;
    }
    let mut text = format!("{} contradictions\n", contradictions.len());
    for (i, (id, what)) in contradictions.iter().enumerate() {
        text.push_str(&format!("- {what}\n"));
        if i < REPORTED {
            text.push_str(&stored_history(store, &place.namespace, id).await);
        }
    }
    panic!("{text}");
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
    let answered = if dies { place.execute(&reserve, true).await } else { Some(place.retry(&reserve).await) };
    let Some((received, origin)) = answered else {
        ledger.abandoned += 1;
        return;
    };
    let made = match received.answer {
        Answer::Reservation(made, _) => *made,
        Answer::Short(_) => {
            ledger.short += 1;
            return;
        }
        other => panic!("{reserve:?}: {other:?} {origin}"),
    };
    let reserved: Vec<_> = made.lines.iter().map(|line| (line.sku.clone(), line.quantity)).collect();
    // A late answer may contain a hold that has expired.
    let is_over = dies && made.state() == State::Expired;
    assert!(reserved == lines && (made.state() == State::Pending || is_over), "{reserve:?}: {made:?} {origin}");
    let id = made.reservation_id.clone();
    let before = ledger.acknowledged.insert(id.clone(), (made, origin.clone()));
    assert!(before.is_none(), "{id} was made twice");
    let end = match turn % 5 {
        0 => return,
        1 => Op::Rollback { reservation_id: id.clone() },
        _ => Op::Commit { reservation_id: id.clone(), late: false },
    };
    let sent_at = prost_types::Timestamp::from(SystemTime::now());
    let (received, ended_by) = place.retry(&end).await;
    match received.answer {
        Answer::Reservation(ended, _) => {
            ledger.acknowledged.insert(id, (*ended, ended_by));
        }
        Answer::Refused(Reason::ReservationExpired, _) if dies => {}
        other => {
            let what = format!(
                "{reserve:?} was acknowledged {origin}; {end:?}, first sent at {sent_at}, was answered {other:?} \
                 {ended_by}"
            );
            ledger.contradictions.push((id, what));
        }
    }
}

pub(super) async fn open(shop: &TestClient, units: i64) {
    for sku in SKUS {
        shop.supply(sku, units).await;
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Reads a reservation. One whose deadline has passed is read until it is no longer pending: while the partition's
/// clock is in doubt after a restart, a hold ends late.
async fn read(place: &Place, id: &str, has_ended: bool) -> (Answer, Origin) {
    let (op, start) = (Op::GetReservation { reservation_id: id.to_owned() }, Instant::now());
    loop {
        let (received, origin) = place.retry(&op).await;
        match &received.answer {
            Answer::Reservation(is, _) if has_ended && is.state() == State::Pending => {
                assert!(start.elapsed() < LONGEST_DOUBT, "after its deadline still {is:?} {origin}");
                sleep(RETRY).await;
            }
            _ => return (received.answer, origin),
        }
    }
}

/// Every reservation is as it was acknowledged, or as its deadline left it. The counters are exactly the sum of the
/// reservations. The holds of callers that died have expired.
pub(super) async fn check(place: &Place, shop: &TestClient, store: &str, ledger: Ledger) {
    sleep(Duration::from_millis(SHORT as u64 + 1)).await;
    assert!(ledger.short > 0, "no caller got a shortage, so overselling was not tested");
    let (mut sold, mut held) = (HashMap::new(), HashMap::new());
    let mut reads = JoinSet::new();
    let all: Vec<_> = ledger.acknowledged.into_values().collect();
    for part in all.chunks(all.len().div_ceil(16)) {
        let (part, place) = (part.to_vec(), place.clone());
        reads.spawn(async move {
            let (mut found, mut contradictions) = (Vec::new(), Vec::new());
            for (known, origin) in part {
                let id = known.reservation_id.clone();
                let has_ended = known.state() == State::Pending && millis(known.expires_at) <= now();
                match read(&place, &id, has_ended).await {
                    (Answer::Reservation(is, _), _) => found.push((known, *is, has_ended)),
                    (other, read_from) => {
                        let what = format!("{known:?} was acknowledged {origin}, and is {other:?} {read_from}");
                        contradictions.push((id, what));
                    }
                }
            }
            (found, contradictions)
        });
    }
    let (found, contradictions): (Vec<_>, Vec<_>) = reads.join_all().await.into_iter().unzip();
    report(place, store, &contradictions.concat()).await;
    for (known, is, has_ended) in found.into_iter().flatten() {
        if has_ended {
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
