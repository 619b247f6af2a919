//! The real service against a plain model of it, step by step: any calls in any order, repeats with
//! the same and with other arguments, deadlines that pass, crashes and restarts. A failure prints the
//! shortest sequence that still fails; `PROPTEST_CASES` sets how many are tried.

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use inventory_sentinel::{Reason, v1::AuditResponse};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};
use sentinel_tests::{
    SentinelProcess, eventually,
    model::{
        Answer, Counters, MAX_LINES, MAX_QUANTITY, MAX_STOCK, MAX_TTL, Model, Op,
        ask::{Told, may_repeat},
        history::{instant_of, new_id_of},
    },
    reason,
};
use tokio::sync::Mutex;

/// Sequences that are tried unless told otherwise: all of them in about a minute on two cores.
const CASES: u32 = 24;
/// Longest sequence.
const MAX_STEPS: usize = 60;
/// Longest search for a shorter sequence that fails, in milliseconds.
const SHRINK_LIMIT: u32 = 90_000;
/// The books are audited after so many steps, and at the end.
const AUDIT_EVERY: usize = 8;
/// No call is made so shortly before a deadline: what it should answer would be anybody's guess.
const MARGIN: Duration = Duration::from_millis(150);
/// The same around a crash, which takes its time.
const STORM_MARGIN: Duration = Duration::from_secs(3);
/// The life of a hold that some later step finds expired, and of one that the next step does.
const SOON: i64 = 400;
const AT_ONCE: i64 = 3;

const SKUS: [&str; 4] = ["a", "b", "c", "d"];

/// One step; what names an earlier call or reservation counts from the latest, and wraps.
#[derive(Clone, Debug)]
enum Step {
    SetStock(usize, i64),
    AdjustStock(usize, i64),
    Configure(usize, bool),
    Reserve(Vec<(usize, i32)>, Option<i64>, bool),
    Commit(usize),
    Rollback(usize),
    GetReservation(usize),
    IsProtected(usize),
    /// An earlier call again.
    Repeat(usize),
    /// The identity of an earlier call, with something else in one of its fields.
    Reuse(usize, usize),
    /// A call that refers to nothing, or has a field out of range.
    Bad(Op),
    /// Waits until the next hold has expired.
    PassDeadline,
    /// An earlier or a new call while this happens.
    During(Storm, Box<Step>),
}

/// What can happen to a server, after so many milliseconds of a call.
#[derive(Clone, Debug)]
enum Storm {
    RedisKilled(u64),
    ServerKilled(u64),
    ServerStopped(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => call(),
        1 => (storm(), call()).prop_map(|(storm, step)| Step::During(storm, Box::new(step))),
    ]
}

fn call() -> impl Strategy<Value = Step> {
    let sku = 0..SKUS.len();
    let ttl = select(vec![None, None, Some(MAX_TTL.as_millis() as i64), Some(SOON), Some(SOON), Some(AT_ONCE)]);
    let lines = proptest::sample::subsequence(vec![0, 1, 2, 3], 1..=4).prop_shuffle();
    let lines = (lines, vec(1..=4_i32, 4)).prop_map(|(skus, quantities)| skus.into_iter().zip(quantities).collect());
    prop_oneof![
        4 => (sku.clone(), prop_oneof![9 => 0..=12_i64, 1 => Just(MAX_STOCK)]).prop_map(|(sku, units)| Step::SetStock(sku, units)),
        3 => (sku.clone(), prop_oneof![9 => -6..=6_i64, 1 => Just(MAX_STOCK)]).prop_map(|(sku, units)| Step::AdjustStock(sku, units)),
        1 => (sku.clone(), prop::bool::weighted(0.7)).prop_map(|(sku, on)| Step::Configure(sku, on)),
        12 => (lines, ttl, any::<bool>()).prop_map(|(lines, ttl, buyer)| Step::Reserve(lines, ttl, buyer)),
        5 => (0..6_usize).prop_map(Step::Commit),
        4 => (0..6_usize).prop_map(Step::Rollback),
        1 => (0..6_usize).prop_map(Step::GetReservation),
        1 => sku.prop_map(Step::IsProtected),
        3 => (0..12_usize).prop_map(Step::Repeat),
        2 => (0..12_usize, 0..6_usize).prop_map(|(call, field)| Step::Reuse(call, field)),
        2 => select(bad_calls()).prop_map(Step::Bad),
        2 => Just(Step::PassDeadline),
    ]
}

fn storm() -> impl Strategy<Value = Storm> {
    prop_oneof![
        (0..4_u64).prop_map(Storm::RedisKilled),
        (0..4_u64).prop_map(Storm::ServerKilled),
        (0..4_u64).prop_map(Storm::ServerStopped),
    ]
}

/// Calls that no state of the shop can accept.
fn bad_calls() -> Vec<Op> {
    let (fine, long, spaced, id) = ("fine".to_owned(), "x".repeat(129), "a b".to_owned(), "bad".to_owned());
    let reserve = |lines: Vec<(String, i32)>| Op::Reserve { request_id: id.clone(), lines, ttl_ms: None, buyer_id: String::new() };
    let lasting = |ttl_ms| Op::Reserve {
        request_id: id.clone(),
        lines: vec![("a".into(), 1)],
        ttl_ms: Some(ttl_ms),
        buyer_id: String::new(),
    };
    let mut bad = vec![
        Op::ConfigureSku { sku: fine.clone(), is_protected: None },
        Op::ConfigureSku { sku: fine.clone(), is_protected: Some(true) },
        Op::IsProtected { sku: String::new() },
        Op::Reserve { request_id: id.clone(), lines: vec![("a".into(), 1)], ttl_ms: None, buyer_id: spaced.clone() },
        reserve(vec![]),
        reserve((0..=MAX_LINES).map(|i| (format!("{i}"), 1)).collect()),
        reserve(vec![("a".into(), 1), ("b".into(), 1), ("a".into(), 2)]),
        reserve(vec![("a".into(), 1), (fine.clone(), 1)]),
        reserve(vec![("a".into(), 1), ("{}".into(), 1)]),
        lasting(0),
        lasting(-1),
        lasting(MAX_TTL.as_millis() as i64 + 1),
        lasting(i64::MAX),
    ];
    for quantity in [0, -1, MAX_QUANTITY + 1, i32::MIN, i32::MAX] {
        bad.push(reserve(vec![("b".into(), 1), ("a".into(), quantity)]));
    }
    for on_hand in [-1, MAX_STOCK + 1, i64::MIN, i64::MAX] {
        bad.push(Op::SetStock { sku: "a".into(), on_hand, request_id: id.clone() });
    }
    for delta in [0, -MAX_STOCK - 1, MAX_STOCK + 1, i64::MIN, i64::MAX] {
        bad.push(Op::AdjustStock { sku: "a".into(), delta, request_id: id.clone() });
    }
    for name in [String::new(), long, spaced] {
        bad.push(Op::GetStock { sku: name.clone() });
        bad.push(Op::AdjustStock { sku: "a".into(), delta: 1, request_id: name.clone() });
        bad.push(Op::SetStock { sku: name, on_hand: 1, request_id: id.clone() });
    }
    // The last two are well formed: an id that nobody has, and one of a partition that is not there.
    for reservation_id in [String::new(), "A".repeat(23), "!".repeat(24), "A".repeat(24), "_".repeat(24)] {
        bad.push(Op::Commit { reservation_id: reservation_id.clone() });
        bad.push(Op::Rollback { reservation_id: reservation_id.clone() });
        bad.push(Op::GetReservation { reservation_id });
    }
    bad
}

/// One sequence: the model, and what steps refer to.
struct Run<'a> {
    server: &'a mut SentinelProcess,
    namespace: String,
    model: Model,
    calls: Vec<Op>,
    reservations: Vec<String>,
    ids: usize,
    /// SKU -> version and counters as they were last told.
    versions: HashMap<String, (i64, Counters)>,
}

/// Why a sequence ended early.
enum End {
    /// The machine stood still while a deadline passed, so that nobody can say what is right.
    Stalled,
    Wrong(String),
}

impl From<String> for End {
    fn from(what: String) -> Self {
        End::Wrong(what)
    }
}

impl Run<'_> {
    async fn steps(&mut self, steps: &[Step]) -> Result<(), End> {
        for (i, step) in steps.iter().enumerate() {
            self.step(step).await?;
            self.look_at_stock().await?;
            if (i + 1) % AUDIT_EVERY == 0 {
                self.audit().await?;
            }
        }
        self.audit().await
    }

    async fn step(&mut self, step: &Step) -> Result<(), End> {
        match step {
            Step::PassDeadline => {
                if let Some(deadline) = self.model.next_deadline().filter(|deadline| *deadline <= now() + 2 * SOON) {
                    wait_until_after(deadline).await;
                }
                Ok(())
            }
            Step::During(storm, step) => match self.op(step) {
                Some(op) => self.ask_during(storm, op).await,
                None => Ok(()),
            },
            step => match self.op(step) {
                Some(op) => self.ask(op).await,
                None => Ok(()),
            },
        }
    }

    /// The step as a call; `None` if it refers to something that is not there.
    fn op(&mut self, step: &Step) -> Option<Op> {
        let sku = |sku: &usize| SKUS[*sku].to_owned();
        let back = |back: usize, length: usize| (length > 0).then(|| length - 1 - back % length);
        let reservation = |at: &usize| {
            back(*at, self.reservations.len()).map_or("A".repeat(24), |at| self.reservations[at].clone())
        };
        let earlier = |at: &usize| back(*at, self.calls.len()).map(|at| self.calls[at].clone());
        let request_id = format!("request-{}", self.ids);
        self.ids += 1;
        Some(match step {
            Step::SetStock(of, on_hand) => Op::SetStock { sku: sku(of), on_hand: *on_hand, request_id },
            // 0 is not a change, which is for the bad calls to try.
            Step::AdjustStock(of, delta) => Op::AdjustStock { sku: sku(of), delta: if *delta == 0 { 1 } else { *delta }, request_id },
            Step::Configure(of, on) => Op::ConfigureSku { sku: sku(of), is_protected: Some(*on) },
            Step::Reserve(lines, ttl_ms, has_buyer) => Op::Reserve {
                request_id,
                lines: lines.iter().map(|(of, quantity)| (sku(of), *quantity)).collect(),
                ttl_ms: *ttl_ms,
                buyer_id: if *has_buyer { "buyer".into() } else { String::new() },
            },
            Step::Commit(at) => Op::Commit { reservation_id: reservation(at) },
            Step::Rollback(at) => Op::Rollback { reservation_id: reservation(at) },
            Step::GetReservation(at) => Op::GetReservation { reservation_id: reservation(at) },
            Step::IsProtected(of) => Op::IsProtected { sku: sku(of) },
            Step::Repeat(at) => earlier(at)?,
            Step::Reuse(at, field) => reused(earlier(at)?, *field),
            Step::Bad(op) => op.clone(),
            Step::PassDeadline | Step::During(..) => return None,
        })
    }

    async fn ask(&mut self, op: Op) -> Result<(), End> {
        self.keep_away_from_deadlines(MARGIN).await;
        let before = now();
        let told = op.ask(&self.server.channel(), &self.namespace).await;
        let told = told.map_err(|status| format!("no answer to {op:?}: {status:?}"))?;
        self.compare(op, told, before)
    }

    /// Asks until there is an answer. The call and its repeats count as one, so the answer may say
    /// that it is a replay, whether the first or a later attempt was the one that counted.
    async fn ask_during(&mut self, storm: &Storm, op: Op) -> Result<(), End> {
        self.keep_away_from_deadlines(STORM_MARGIN).await;
        let before = now();
        let channel = self.server.channel();
        let (first, ()) = tokio::join!(op.ask(&channel, &self.namespace), rage(self.server, storm));
        let mut told = match first {
            Ok(told) => told,
            Err(_) => persist(self.server, &self.namespace, &op).await?,
        };
        persist(self.server, &self.namespace, &Op::GetStock { sku: SKUS[0].into() }).await?;
        if let Answer::Reservation(_, replayed) | Answer::Stock(_, replayed) = &mut told.answer {
            let mut as_new = self.model.clone();
            as_new.advance(before);
            // A replay to the model too if it was answered before the storm.
            *replayed = is_replay(&as_new, &op);
        }
        self.compare(op, told, before)
    }

    /// Holds the answer against the model's; both go on from there.
    fn compare(&mut self, op: Op, told: Told, before: i64) -> Result<(), End> {
        let after = now();
        let at = instant_of(&op, &told.answer);
        if at.is_some_and(|at| !(before..=after).contains(&at)) {
            return Err(format!("{op:?} was answered at {before} to {after}, and says {told:?}").into());
        }
        self.model.advance(before);
        let expected = self.model.expect(&op, at.unwrap_or(before), new_id_of(&op, &told.answer));
        // Also short of it, as the store's deadlines have no margin.
        if self.model.next_deadline().is_some_and(|deadline| deadline <= after + 1) {
            return Err(End::Stalled);
        }
        if expected != told.answer {
            return Err(format!("{op:?} was answered {:?}, expected {expected:?}", told.answer).into());
        }
        if told.sequence.is_some_and(|sequence| sequence != self.model.sequence()) {
            return Err(format!("{op:?} was answered {told:?}, expected number {}", self.model.sequence()).into());
        }
        if let Answer::Reservation(reservation, _) = &told.answer
            && !self.reservations.contains(&reservation.reservation_id)
        {
            self.reservations.push(reservation.reservation_id.clone());
        }
        self.check_version(&op, &told)?;
        if !matches!(op, Op::GetStock { .. }) {
            self.calls.push(op);
        }
        Ok(())
    }

    /// A version grows with every change of its SKU, and stands for nothing else.
    fn check_version(&mut self, op: &Op, told: &Told) -> Result<(), End> {
        let (Op::SetStock { sku, .. } | Op::AdjustStock { sku, .. } | Op::ConfigureSku { sku, .. } | Op::GetStock { sku }) = op
        else {
            return Ok(());
        };
        let (Some(version), Answer::Stock(counters, _)) = (told.version, &told.answer) else { return Ok(()) };
        let seen = (version, counters.clone());
        let is_fine = match self.versions.get(sku) {
            Some(last) if last.1 != seen.1 => version > last.0,
            Some(last) => version >= last.0,
            None => version > 0,
        };
        if !is_fine || told.sequence.is_some_and(|sequence| version > sequence) {
            return Err(format!("{sku} had {:?} and now, in {told:?}, {seen:?}", self.versions.get(sku)).into());
        }
        self.versions.insert(sku.clone(), seen);
        Ok(())
    }

    /// The counters of every SKU, against the model and against the invariants.
    async fn look_at_stock(&mut self) -> Result<(), End> {
        for sku in SKUS {
            self.ask(Op::GetStock { sku: sku.into() }).await?;
        }
        for (sku, counters) in self.model.stock() {
            if !counters.are_conserved() || counters.held != self.model.held(sku) {
                return Err(format!("{sku} is not conserved, or not held by whom it should be: {counters:?}").into());
            }
        }
        Ok(())
    }

    async fn audit(&mut self) -> Result<(), End> {
        self.look_at_stock().await?;
        let shop = self.server.shop(&self.namespace);
        let audit = match shop.try_audit().await {
            Ok(audit) => audit,
            Err(status) if reason(&status) == Reason::NamespaceNotFound && self.model.stock().next().is_none() => return Ok(()),
            Err(status) => return Err(format!("no audit: {status:?}").into()),
        };
        // What is due and not given back yet is held, to an audit.
        if self.model.next_deadline().is_some_and(|deadline| deadline <= now()) {
            return if audit.clean { Ok(()) } else { Err(format!("{audit:?}").into()) };
        }
        let sum = |of: fn(&Counters) -> i64| self.model.stock().map(|(_, counters)| of(counters)).sum();
        let expected = AuditResponse {
            clean: true,
            findings: vec![],
            skus: self.model.stock().count() as i64,
            pending_reservations: self.model.pending().count() as i64,
            available: sum(|of| of.available),
            held: sum(|of| of.held),
            sold: sum(|of| of.sold),
            supplied: sum(|of| of.supplied),
        };
        if audit == expected { Ok(()) } else { Err(format!("{audit:?}, expected {expected:?}").into()) }
    }

    /// Waits for the deadlines that are so near.
    async fn keep_away_from_deadlines(&mut self, margin: Duration) {
        let margin = margin.as_millis() as i64;
        while let Some(deadline) = self.model.next_deadline().filter(|deadline| *deadline <= now() + margin) {
            wait_until_after(deadline).await;
            self.model.advance(now());
        }
    }
}

/// Whether this call changes nothing because it was applied before.
fn is_replay(model: &Model, op: &Op) -> bool {
    let mut model = model.clone();
    let spare = "spare";
    matches!(model.expect(op, 0, spare), Answer::Reservation(_, true) | Answer::Stock(_, true))
}

/// The same identity, with something else in a field.
fn reused(op: Op, field: usize) -> Op {
    match (op, field) {
        (Op::SetStock { sku, on_hand, request_id }, 0) => Op::AdjustStock { sku, delta: on_hand.max(1), request_id },
        (Op::SetStock { sku, on_hand, request_id }, 1..=3) => Op::SetStock { sku, on_hand: (on_hand + 1).min(9), request_id },
        (Op::SetStock { on_hand, request_id, .. }, _) => Op::SetStock { sku: "d".into(), on_hand, request_id },
        (Op::AdjustStock { sku, delta, request_id }, 0..=3) => Op::AdjustStock { sku, delta: if delta == 1 { 2 } else { 1 }, request_id },
        (Op::AdjustStock { sku, request_id, .. }, _) => {
            Op::Reserve { request_id, lines: vec![(sku, 1)], ttl_ms: None, buyer_id: String::new() }
        }
        (Op::Reserve { request_id, mut lines, mut ttl_ms, mut buyer_id }, field) => {
            match field {
                0 => lines.iter_mut().for_each(|line| line.1 = if line.1 == 1 { 2 } else { 1 }),
                1 => lines.reverse(),
                2 => lines.truncate(1),
                3 => ttl_ms = Some(ttl_ms.map_or(600_000, |ttl| ttl.saturating_sub(1).max(1))),
                4 => buyer_id.push('x'),
                _ => return Op::SetStock { sku: "a".into(), on_hand: 5, request_id },
            }
            Op::Reserve { request_id, lines, ttl_ms, buyer_id }
        }
        // The others have no identity to use again.
        (op, _) => op,
    }
}

async fn rage(server: &mut SentinelProcess, storm: &Storm) {
    let (Storm::RedisKilled(after) | Storm::ServerKilled(after) | Storm::ServerStopped(after)) = storm;
    tokio::time::sleep(Duration::from_millis(*after)).await;
    match storm {
        Storm::RedisKilled(_) => {
            let killed = server.embedded_redis();
            server.kill9_redis();
            let is_new = async || server.embedded_redis().filter(|_| server.embedded_redis() != killed);
            eventually("the supervisor starts redis again", is_new).await;
        }
        Storm::ServerKilled(_) => server.restart().await,
        Storm::ServerStopped(_) => {
            server.terminate();
            assert!(server.exit().await.success(), "the server stops in order");
            server.restart().await;
        }
    }
}

/// Makes the same call until it is answered.
async fn persist(server: &SentinelProcess, namespace: &str, op: &Op) -> Result<Told, End> {
    let answered = eventually("an answer after the storm", async || match op.ask(&server.channel(), namespace).await {
        Err(status) if may_repeat(&status) => None,
        other => Some(other),
    });
    Ok(answered.await.map_err(|status| format!("no answer to {op:?}: {status:?}"))?)
}

/// The store's clock: Redis runs on this machine.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

async fn wait_until_after(deadline: i64) {
    while now() <= deadline {
        tokio::time::sleep(Duration::from_millis((deadline + 1 - now()).max(1) as u64)).await;
    }
}

#[test]
fn the_service_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let server = Mutex::new(runtime.block_on(SentinelProcess::start()));
    let (cases, stalled) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut config = Config { max_shrink_time: SHRINK_LIMIT, failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let result = TestRunner::new(config).run(&vec(step(), 1..=MAX_STEPS), |steps| {
        cases.set(cases.get() + 1);
        let namespace = format!("case-{}", cases.get());
        let ended = runtime.block_on(async {
            let mut run = Run {
                server: &mut *server.lock().await,
                model: Model::new(&namespace),
                namespace,
                calls: Vec::new(),
                reservations: Vec::new(),
                ids: 0,
                versions: HashMap::new(),
            };
            run.steps(&steps).await
        });
        match ended {
            Ok(()) => Ok(()),
            Err(End::Stalled) => {
                stalled.set(stalled.get() + 1);
                Ok(())
            }
            Err(End::Wrong(what)) => Err(TestCaseError::fail(what)),
        }
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (cases, stalled) = (cases.get(), stalled.get());
    assert!(stalled * 4 <= cases, "{stalled} of {cases} sequences met a machine that stood still: nothing is proven");
}
