//! A store in memory, for tests of the lane and the sweeper without Redis. It loses and delays requests and replies at
//! random, reproducibly by its seed. Uses the store's traits and the domain.
//!
//! It has one partition without rules, and applies SetStock, Reserve, Commit, Rollback, GetStock and
//! Sweep. A test must not send any other operation.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::Rng as _;
use tokio::time::{Instant, sleep};

use super::{
    BatchCall, BatchStore, NamesPage, NamespaceStore,
    error::StoreError,
    identity::Identity,
    keys::PartitionKeys,
    wire::{
        Batch, ConfigMemo, Configured, DeletionStep, Found, NamespaceConfig, Opened, OperationResult, Presence, Reply,
        Stepped,
    },
};
use crate::{
    domain::{
        Answer, BuyerId, Clock, HistoryPoint, Id, Knowledge, Line, NamespaceName, Operation, Outcome, Refusal,
        Reservation, ReservationId, ReservedLine, Rules, State, Stock, StoreTime, Term,
    },
    random::Random,
};

/// Longest delay of a request, and of a reply.
const LONGEST_DELAY: Duration = Duration::from_millis(40);
/// How much later a late request arrives at most.
const LATEST: Duration = Duration::from_secs(1);
/// The epoch of the only partition.
const EPOCH: u64 = 7;

/// The probability of each fault of a call.
#[derive(Clone, Copy, Default)]
pub(crate) struct FaultRates {
    pub(crate) lost_request: f64,
    pub(crate) lost_reply: f64,
    /// The request is reported as lost, and reaches the store later.
    pub(crate) late_request: f64,
    /// An operation is not applied, and has to be sent again.
    pub(crate) again: f64,
}

pub(crate) struct SimulatedStore {
    random: Random,
    faults: FaultRates,
    started_at: Instant,
    state: Arc<Mutex<Partition>>,
}

#[derive(Default)]
struct Partition {
    config: Option<NamespaceConfig>,
    stock: BTreeMap<String, Stock>,
    reservations: BTreeMap<Id, Reservation>,
    sequence: u64,
    trace: String,
}

impl SimulatedStore {
    pub(crate) fn new(random: Random, faults: FaultRates) -> Self {
        Self { random, faults, started_at: Instant::now(), state: Arc::default() }
    }

    /// One line for each call that reached the store: the time, and the number of operations.
    pub(crate) fn trace(&self) -> String {
        self.partition().trace.clone()
    }

    /// The counters of a SKU.
    pub(crate) fn stock(&self, sku: &str) -> Option<Stock> {
        self.partition().stock.get(sku).copied()
    }

    /// Whether a Reserve with this id took effect.
    pub(crate) fn has_reservation(&self, id: &Id) -> bool {
        self.partition().reservations.contains_key(id)
    }

    fn now(&self) -> StoreTime {
        time_since(self.started_at)
    }

    fn partition(&self) -> MutexGuard<'_, Partition> {
        lock(&self.state)
    }

    /// Applies these operations after a while, as if a network had kept the request.
    fn apply_later(&self, operations: &[Operation]) {
        let delay = LATEST.mul_f64({ &self.random }.random());
        let (state, started_at, operations) = (Arc::clone(&self.state), self.started_at, operations.to_vec());
        tokio::spawn(async move {
            sleep(delay).await;
            lock(&state).apply(time_since(started_at), &operations, || false);
        });
    }

    async fn delay(&self) {
        let delay = LONGEST_DELAY.mul_f64({ &self.random }.random());
        sleep(delay).await;
    }

    fn happens(&self, rate: f64) -> bool {
        { &self.random }.random_bool(rate)
    }
}

fn lock(state: &Mutex<Partition>) -> MutexGuard<'_, Partition> {
    state.lock().expect("no test panics with the lock")
}

fn time_since(start: Instant) -> StoreTime {
    StoreTime(1_000 + start.elapsed().as_millis() as u64)
}

impl BatchStore for SimulatedStore {
    type Reply = Reply;

    async fn run_batch(&self, call: BatchCall<'_>) -> Result<(Reply, Instant), StoreError> {
        let sent_at = Instant::now();
        self.delay().await;
        if self.happens(self.faults.lost_request) {
            return Err(StoreError::unknown("the request was lost"));
        }
        if self.happens(self.faults.late_request) {
            self.apply_later(call.operations);
            return Err(StoreError::unknown("the request is late"));
        }
        let reply = self.partition().apply(self.now(), call.operations, || self.happens(self.faults.again));
        self.delay().await;
        if self.happens(self.faults.lost_reply) {
            return Err(StoreError::unknown("the reply was lost"));
        }
        Ok((reply, sent_at))
    }

    fn decode(&self, _: u16, _: &Batch, reply: Reply, _: Vec<Operation>) -> Result<Reply, StoreError> {
        Ok(reply)
    }
}

impl Partition {
    /// Applies a batch. `waits` chooses the operations that are not applied and have to be sent again.
    fn apply(&mut self, now: StoreTime, operations: &[Operation], mut waits: impl FnMut() -> bool) -> Reply {
        let expired = self.expire(now);
        let decide = |operation: &Operation| match waits() {
            true => OperationResult::Again(operation.clone()),
            false => self.apply_one(now, operation),
        };
        let results: Vec<_> = operations.iter().map(decide).collect();
        writeln!(self.trace, "{} {} {expired}", now.0, operations.len()).expect("a string grows");
        let pending = self.reservations.values().filter(|held| held.state == State::Pending);
        Reply {
            now,
            clock: Clock::default(),
            expired,
            next_due: pending.map(|held| held.expires_at).min(),
            config_revision: 1,
            sequence: self.sequence,
            term: Term::NONE,
            fence: None,
            verdicts: Vec::new(),
            results,
        }
    }

    fn expire(&mut self, now: StoreTime) -> u64 {
        let is_due = |held: &&Reservation| held.state == State::Pending && held.expires_at <= now;
        let due: Vec<_> = self.reservations.values().filter(is_due).map(|held| held.id.id).collect();
        due.iter().for_each(|id| self.resolve(now, id, State::Expired));
        due.len() as u64
    }

    /// Resolves a pending reservation.
    fn resolve(&mut self, now: StoreTime, id: &Id, state: State) {
        let held = self.reservations.get_mut(id).expect("a known reservation");
        (held.state, held.resolved_at) = (state, Some(now));
        self.sequence += 1;
        for line in &held.lines {
            let stock = self.stock.get_mut(line.sku.as_str()).expect("a known SKU");
            let units = u64::from(line.quantity.get());
            stock.held -= units;
            if state == State::Committed {
                stock.sold += units
            } else {
                stock.available += units
            }
            stock.version = self.sequence;
        }
    }

    fn apply_one(&mut self, now: StoreTime, operation: &Operation) -> OperationResult {
        let outcome = match operation {
            Operation::Sweep => Ok(Outcome::Swept),
            Operation::SetStock { sku, on_hand, .. } => {
                self.sequence += 1;
                let stock = self.stock.entry(sku.as_str().to_owned()).or_insert_with(no_stock);
                stock.available = on_hand.get() - stock.held;
                stock.supplied = on_hand.get() + stock.sold;
                stock.version = self.sequence;
                Ok(Outcome::Stock { sku: sku.clone(), stock: *stock, replayed: false })
            }
            Operation::GetStock { sku } => match self.stock.get(sku.as_str()) {
                Some(stock) => Ok(Outcome::Stock { sku: sku.clone(), stock: *stock, replayed: false }),
                None => Err(Refusal::SkuNotFound(sku.clone())),
            },
            Operation::Reserve { id, lines, ttl, buyer, .. } => {
                let ttl = ttl.expect("a ttl").as_millis();
                self.reserve(now, *id, lines, ttl, buyer)
            }
            Operation::Commit { id, purchase: None } => self.resolve_by_call(now, *id, State::Committed),
            Operation::Rollback(id) => self.resolve_by_call(now, *id, State::RolledBack),
            other => panic!("the simulated store does not apply {other:?}"),
        };
        OperationResult::Answered(Answer { outcome, sequence: self.sequence })
    }

    fn reserve(
        &mut self,
        now: StoreTime,
        id: ReservationId,
        lines: &[Line],
        ttl: u64,
        buyer: &BuyerId,
    ) -> Result<Outcome, Refusal> {
        if let Some(known) = self.reservations.get(&id.id) {
            return Ok(Outcome::Reservation { reservation: known.clone(), replayed: true });
        }
        let mut available = Vec::new();
        for line in lines {
            let stock = self.stock.get(line.sku.as_str()).ok_or_else(|| Refusal::SkuNotFound(line.sku.clone()))?;
            available.push((line.clone(), stock.available));
        }
        if available.iter().any(|(line, available)| u64::from(line.quantity.get()) > *available) {
            return Ok(Outcome::Shortage(available));
        }
        self.sequence += 1;
        for line in lines {
            let stock = self.stock.get_mut(line.sku.as_str()).expect("it was found");
            stock.available -= u64::from(line.quantity.get());
            stock.held += u64::from(line.quantity.get());
            stock.version = self.sequence;
        }
        let reserved =
            |line: &Line| ReservedLine { sku: line.sku.clone(), quantity: line.quantity, sold: 0, released: 0 };
        let reservation = Reservation {
            id,
            state: State::Pending,
            lines: lines.iter().map(reserved).collect(),
            buyer: buyer.clone(),
            created_at: now,
            expires_at: StoreTime(now.0 + ttl),
            resolved_at: None,
            origin: None,
            purchase: None,
        };
        self.reservations.insert(id.id, reservation.clone());
        Ok(Outcome::Reservation { reservation, replayed: false })
    }

    fn resolve_by_call(&mut self, now: StoreTime, id: ReservationId, state: State) -> Result<Outcome, Refusal> {
        let known = self.reservations.get(&id.id).ok_or(Refusal::ReservationNotFound)?;
        let replayed = known.state != State::Pending;
        if !replayed {
            self.resolve(now, &id.id, state);
        }
        let reservation = self.reservations[&id.id].clone();
        assert!(!replayed || reservation.state == state, "a test resolves each reservation in one way");
        Ok(Outcome::Reservation { reservation, replayed })
    }
}

fn no_stock() -> Stock {
    Stock {
        available: 0,
        held: 0,
        sold: 0,
        supplied: 0,
        withdrawn: 0,
        version: 0,
        is_protected: true,
        is_paused: false,
        rules: Rules::default(),
    }
}

impl NamespaceStore for SimulatedStore {
    async fn find(&self, _: &NamespaceName) -> Result<Found, StoreError> {
        let presence = self.partition().config.clone().map_or(Presence::Absent, Presence::Live);
        Ok(Found { presence, deleted: Vec::new() })
    }

    async fn find_all(&self, namespaces: &[NamespaceName]) -> Result<Vec<Result<Found, StoreError>>, StoreError> {
        self.delay().await;
        let mut all = Vec::new();
        for namespace in namespaces {
            all.push(self.find(namespace).await);
        }
        Ok(all)
    }

    async fn register(&self, _: &NamespaceName, _: usize) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn unregister(&self, _: &NamespaceName) -> Result<(), StoreError> {
        Ok(())
    }

    async fn last_change(&self, _: &PartitionKeys) -> Result<Option<HistoryPoint>, StoreError> {
        Ok(Some(HistoryPoint { epoch: EPOCH, term: Term::NONE, sequence: self.partition().sequence }))
    }

    async fn deletions(&self, _: &PartitionKeys) -> Result<Vec<HistoryPoint>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &PartitionKeys, _: &Identity, _: DeletionStep, _: &Id) -> Result<Stepped, StoreError> {
        unreachable!("no test deletes")
    }

    async fn namespaces(&self, _: u64) -> Result<NamesPage, StoreError> {
        Ok(NamesPage { names: Vec::new(), bad: Vec::new(), next: 0 })
    }

    async fn open(
        &self,
        _: &PartitionKeys,
        _: &Knowledge,
        _: &Identity,
        proposal: &NamespaceConfig,
        _: u64,
        _: Option<&ConfigMemo>,
    ) -> Result<Opened, StoreError> {
        self.delay().await;
        let now = self.now();
        let config = self.partition().config.get_or_insert_with(|| proposal.clone()).clone();
        Ok(Opened { now, clock: Clock::default(), config, epoch: EPOCH })
    }

    async fn configure(
        &self,
        _: &PartitionKeys,
        _: &Knowledge,
        _: &Identity,
        _: u64,
        _: Option<&NamespaceConfig>,
        _: Option<&ConfigMemo>,
    ) -> Result<(Configured, NamespaceConfig), StoreError> {
        unreachable!("no test configures")
    }

    async fn has_all(&self, _: &[PartitionKeys]) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn verify(&self, _: &Identity) -> Result<(), StoreError> {
        Ok(())
    }
}
