//! The real service against a plain model of it: any calls in any order, repeats with the same and with other
//! arguments, deadlines that pass, crashes and restarts. A failure prints the shortest sequence that still fails;
//! `PROPTEST_CASES` sets the number of sequences.

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use inventory_sentinel::{
    Reason,
    v1::{AuditResponse, ConfigureNamespaceRequest, NamespaceConfig, ReservationState, SkuRules},
};
use proptest::{
    arbitrary::any,
    collection::vec,
    test_runner::{Config, TestCaseError, TestRunner},
};
use sentinel_tests::{
    BOUND, SentinelProcess, eventually, follows_store_clock,
    model::{
        Answer, Condition, Counters, MAX_TTL, Model, Op,
        execute::{Received, may_repeat},
        history::{instant_of, new_id_of},
        millis,
    },
    reason,
};
use tokio::sync::Mutex;

mod calls;
mod steps;

use steps::{Fault, If, SKUS, SOON, Step, steps};

/// Sequences that are tried by default: half a minute to a minute on two cores.
const CASES: u32 = 80;
/// Longest sequence.
const MAX_STEPS: usize = 60;
/// Units of each SKU, in half of the sequences from the start.
const STOCK: i64 = 8;
/// Longest search for a shorter sequence that fails, in milliseconds.
const SHRINK_LIMIT: u32 = 90_000;
/// The counters are audited after this many steps, and at the end.
const AUDIT_EVERY: usize = 8;
/// No call is made this shortly before a deadline: its answer could be either of two.
const MARGIN: Duration = Duration::from_millis(150);
/// The same around a crash, which takes longer.
const STORM_MARGIN: Duration = Duration::from_secs(3);
/// Pause between two reads of a clock in doubt.
const DOUBT_POLL: Duration = Duration::from_millis(50);

/// One sequence: the model, and the objects that steps refer to.
struct Run<'a> {
    server: &'a mut SentinelProcess,
    namespace: String,
    model: Model,
    calls: Vec<Op>,
    reservations: Vec<String>,
    ids: usize,
    /// SKU -> version and counters as they were last received.
    versions: HashMap<String, (i64, Counters)>,
}

/// Why a sequence ended early.
enum End {
    /// The machine paused while a deadline passed, so the right answer is unknown.
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
            // The next call must handle due holds, so nothing is read while there are any.
            if !self.has_due(MARGIN) {
                self.check_stock().await?;
            }
            if (i + 1) % AUDIT_EVERY == 0 {
                self.audit().await?;
            }
        }
        self.audit().await
    }

    /// A namespace whose longest life of a hold is its longest first ttl.
    async fn make_namespace(&self) -> Result<(), End> {
        let max_life = Some(MAX_TTL.try_into().map_err(|error| format!("{error}"))?);
        let request = ConfigureNamespaceRequest {
            namespace_id: self.namespace.clone(),
            config: Some(NamespaceConfig { max_life, ..Default::default() }),
            ..Default::default()
        };
        let made = self.server.shop(&self.namespace).admin.configure_namespace(request).await;
        made.map(|_| ()).map_err(|status| format!("no namespace: {status:?}").into())
    }

    async fn step(&mut self, step: &Step) -> Result<(), End> {
        match step {
            Step::PassDeadline => {
                if let Some(deadline) = self.model.next_deadline().filter(|deadline| *deadline <= now() + 2 * SOON) {
                    wait_until_after(deadline).await;
                }
                Ok(())
            }
            Step::Idle(fault) => {
                inject(self.server, fault).await;
                self.wait_for_the_store().await
            }
            Step::During(fault, step) => match self.op(step) {
                Some(op) => self.retry_during(fault, op).await,
                None => Ok(()),
            },
            step => match self.op(step) {
                Some(op) => self.execute(op).await,
                None => Ok(()),
            },
        }
    }

    /// Waits until no hold falls due soon, and until the model has the version that the answer depends on.
    async fn prepare(&mut self, op: &Op, margin: Duration) -> Result<(), End> {
        self.wait_for_near_deadlines(margin).await;
        match op {
            Op::SetStock { sku, condition: Condition::IfVersion(_), .. }
            | Op::ConfigureSku { sku, if_version: Some(_), .. }
                if self.model.counters(sku).is_some() && self.model.version(sku).is_none() =>
            {
                let (op, before) = (Op::GetStock { sku: sku.clone() }, now());
                let received = retry_until_answered(self.server, &self.namespace, &op).await?;
                self.compare(op, received, before)
            }
            // In the millisecond of the Reserve the longest life cannot be exceeded yet.
            Op::Extend { .. } => {
                wait_until_after(now()).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn execute(&mut self, op: Op) -> Result<(), End> {
        self.prepare(&op, MARGIN).await?;
        let before = now();
        let received = op.execute(&self.server.channel(), &self.namespace, self.is_first_attempt(&op)).await;
        let received = received.map_err(|status| format!("no answer to {op:?}: {status:?}"))?;
        self.compare(op, received, before)
    }

    /// The `first_attempt` of a call: about half of the new identities.
    fn is_first_attempt(&self, op: &Op) -> bool {
        op.request_id().is_some_and(|id| self.calls.iter().all(|call| call.request_id() != Some(id)))
            && self.calls.len().is_multiple_of(2)
    }

    /// Repeats a call until it is answered. The call and its repeats count as one, so the answer may be marked as a
    /// replay, whichever attempt was applied.
    async fn retry_during(&mut self, fault: &Fault, op: Op) -> Result<(), End> {
        match &op {
            // A repeat would get another answer.
            Op::Extend { ttl_ms, .. } if *ttl_ms < STORM_MARGIN.as_millis() as i64 => return self.execute(op).await,
            _ => self.prepare(&op, STORM_MARGIN).await?,
        }
        let mut before = now();
        let channel = self.server.channel();
        let attempt = op.execute(&channel, &self.namespace, self.is_first_attempt(&op));
        let (first, ()) = tokio::join!(attempt, inject(self.server, fault));
        let mut received = match first {
            Ok(received) => received,
            Err(_) => {
                self.wait_for_the_store().await?;
                retry_until_answered(self.server, &self.namespace, &op).await?
            }
        };
        self.wait_for_the_store().await?;
        if let (Op::Reserve { .. }, Answer::Reservation(made, _)) = (&op, &received.answer)
            && made.state() == ReservationState::Expired
            && !is_replay(&self.model, &op)
        {
            // The lost answer had the pending hold; this one has the expired one.
            let lost = Answer::Reservation(made.clone(), false);
            self.model.expect(&op, millis(made.created_at), new_id_of(&op, &lost));
            before = now();
        }
        match (&op, &mut received.answer) {
            (
                _,
                Answer::Reservation(_, replayed)
                | Answer::Stock(_, replayed)
                | Answer::Extended(_, _, replayed)
                | Answer::Sku(.., replayed),
            ) => *replayed = is_replay(&self.model, &op),
            (Op::DeleteSku { sku, .. }, Answer::Deleted(last, replayed)) => {
                *last = self.model.counters(sku).cloned();
                *replayed = is_replay(&self.model, &op);
            }
            _ => {}
        }
        self.compare(op, received, before)
    }

    /// Waits until the store answers again, whatever the answer is, and until the partition's clock is certain. A clock
    /// in doubt is behind, so the instants of answers would differ from the model's.
    async fn wait_for_the_store(&mut self) -> Result<(), End> {
        let (op, start) = (Op::GetStock { sku: SKUS[0].into() }, Instant::now());
        loop {
            retry_until_answered(self.server, &self.namespace, &op).await?;
            if follows_store_clock(&self.server.embedded_url(), &self.namespace).await {
                return Ok(());
            }
            if start.elapsed() > BOUND {
                return Err(format!("the clock of {} is in doubt for longer than {BOUND:?}", self.namespace).into());
            }
            tokio::time::sleep(DOUBT_POLL).await;
        }
    }

    /// Compares the answer with that of the model; both then have the same state.
    fn compare(&mut self, op: Op, received: Received, before: i64) -> Result<(), End> {
        let after = now();
        // An Extend that found a later deadline does not return its instant.
        let at = instant_of(&op, &received.answer).filter(|at| !matches!(op, Op::Extend { .. }) || *at <= after);
        if at.is_some_and(|at| !(before..=after).contains(&at)) {
            return Err(format!("{op:?} was answered at {before} to {after}, and returned {received:?}").into());
        }
        self.model.advance(before);
        // One millisecond early, as the store's deadlines have no margin.
        if self.model.next_deadline().is_some_and(|deadline| deadline <= after + 1) {
            return Err(End::Stalled);
        }
        let expected = self.model.expect(&op, at.unwrap_or(before), new_id_of(&op, &received.answer));
        if expected != received.answer {
            return Err(format!("{op:?} was answered {:?}, expected {expected:?}", received.answer).into());
        }
        if received.sequence.is_some_and(|sequence| sequence != self.model.sequence()) {
            return Err(format!("{op:?} was answered {received:?}, expected number {}", self.model.sequence()).into());
        }
        if let Answer::Reservation(reservation, _) = &received.answer
            && !self.reservations.contains(&reservation.reservation_id)
        {
            self.reservations.push(reservation.reservation_id.clone());
        }
        self.check_version(&op, &received)?;
        if !matches!(op, Op::GetStock { .. }) {
            self.calls.push(op);
        }
        Ok(())
    }

    /// A version grows with every change of its SKU, and does not change otherwise.
    fn check_version(&mut self, op: &Op, received: &Received) -> Result<(), End> {
        let (Op::SetStock { sku, .. }
        | Op::AdjustStock { sku, .. }
        | Op::ConfigureSku { sku, .. }
        | Op::GetSku { sku }
        | Op::GetStock { sku }) = op
        else {
            return Ok(());
        };
        let (Some(version), Answer::Stock(counters, _) | Answer::Sku(counters, ..)) =
            (received.version, &received.answer)
        else {
            return Ok(());
        };
        if self.model.version(sku).is_some_and(|known| known != version) {
            return Err(format!("{sku} is at {:?}, and {received:?}", self.model.version(sku)).into());
        }
        self.model.learn_version(sku, version);
        let seen = (version, counters.clone());
        let is_fine = match self.versions.get(sku) {
            Some(last) if last.1 != seen.1 => version > last.0,
            Some(last) => version >= last.0,
            None => version > 0,
        };
        if !is_fine || received.sequence.is_some_and(|sequence| version > sequence) {
            return Err(format!("{sku} had {:?} and now, in {received:?}, {seen:?}", self.versions.get(sku)).into());
        }
        self.versions.insert(sku.clone(), seen);
        Ok(())
    }

    /// The counters of every SKU, against the model and against the invariants.
    async fn check_stock(&mut self) -> Result<(), End> {
        for sku in SKUS {
            self.execute(Op::GetStock { sku: sku.into() }).await?;
        }
        for (sku, counters) in self.model.stock() {
            if !counters.are_conserved() || counters.held != self.model.held(sku) {
                return Err(format!("{sku} is not conserved, or not held by whom it should be: {counters:?}").into());
            }
        }
        Ok(())
    }

    async fn audit(&mut self) -> Result<(), End> {
        self.check_stock().await?;
        let shop = self.server.shop(&self.namespace);
        let audit = match shop.try_audit().await {
            Ok(audit) => audit,
            Err(status) if reason(&status) == Reason::NamespaceNotFound && !self.model.is_made() => {
                return Ok(());
            }
            Err(status) => return Err(format!("no audit: {status:?}").into()),
        };
        // For an audit, due holds are held until a call expires them.
        if self.has_due(Duration::ZERO) {
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

    /// Whether a hold of the model falls due within this time.
    fn has_due(&self, margin: Duration) -> bool {
        self.model.next_deadline().is_some_and(|deadline| deadline <= now() + margin.as_millis() as i64)
    }

    /// Waits until no deadline is this near.
    async fn wait_for_near_deadlines(&mut self, margin: Duration) {
        while let Some(deadline) = self.model.next_deadline().filter(|_| self.has_due(margin)) {
            wait_until_after(deadline).await;
            self.model.advance(now());
        }
    }
}

/// Whether this call changes nothing because it was applied before.
fn is_replay(model: &Model, op: &Op) -> bool {
    let mut model = model.clone();
    let spare = "spare";
    matches!(
        model.expect(op, 0, spare),
        Answer::Reservation(_, true)
            | Answer::Stock(_, true)
            | Answer::Extended(_, _, true)
            | Answer::Sku(.., true)
            | Answer::Deleted(_, true)
    )
}

async fn inject(server: &mut SentinelProcess, fault: &Fault) {
    let (Fault::RedisKilled(after) | Fault::ServerKilled(after) | Fault::ServerStopped(after)) = fault;
    tokio::time::sleep(Duration::from_millis(*after)).await;
    match fault {
        Fault::RedisKilled(_) => {
            let killed = server.embedded_redis();
            server.kill9_redis();
            let is_new = async || server.embedded_redis().filter(|_| server.embedded_redis() != killed);
            eventually("the supervisor starts redis again", is_new).await;
        }
        Fault::ServerKilled(_) => server.restart().await,
        Fault::ServerStopped(_) => {
            server.terminate();
            assert!(server.exit().await.success(), "the server stops in order");
            server.restart().await;
        }
    }
}

/// Makes the same call until it is answered.
async fn retry_until_answered(server: &SentinelProcess, namespace: &str, op: &Op) -> Result<Received, End> {
    let answered =
        eventually("an answer after the fault", async || match op.execute(&server.channel(), namespace, false).await {
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
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let server = Mutex::new(runtime.block_on(SentinelProcess::start()));
    let (cases, stalled) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut config = Config { max_shrink_time: SHRINK_LIMIT, failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let result = TestRunner::new(config).run(&(any::<bool>(), vec(steps(), 1..=MAX_STEPS)), |(is_made, steps)| {
        let steps = steps.concat();
        cases.set(cases.get() + 1);
        let namespace = format!("case-{}", cases.get());
        let ended = runtime.block_on(async {
            let mut run = Run {
                server: &mut *server.lock().await,
                model: if is_made { Model::made(&namespace, MAX_TTL) } else { Model::new(&namespace) },
                namespace,
                calls: Vec::new(),
                reservations: Vec::new(),
                ids: 0,
                versions: HashMap::new(),
            };
            if is_made {
                run.make_namespace().await?;
                // Most calls need stock to have an effect.
                let stock = (0..SKUS.len()).map(|sku| Step::SetStock(sku, STOCK, If::Always)).collect::<Vec<_>>();
                run.steps(&stock).await?;
                // The return of units to a buyer's count shows only near the limit.
                let rules = SkuRules { buyer_limit: Some(4), ..SkuRules::default() };
                run.steps(&[Step::Configure(0, rules, None), Step::Configure(1, rules, None)]).await?;
            }
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
    assert!(stalled * 4 <= cases, "the machine paused in {stalled} of {cases} sequences: nothing is proven");
}
