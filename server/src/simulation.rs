//! Tests of the lane, the resend policy and the sweeper on a simulated store: no Redis, and a clock that
//! the test moves. The same seed gives the same run.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Builder, task::JoinSet, time::Instant};

use crate::{
    config::Config,
    control::sweeper,
    domain::{BuyerId, Condition, Line, NamespaceName, OnHand, Operation, Outcome, Quantity, ReservationId, Sku, Ttl},
    lane::{Lane, LaneContext, LaneError, LaneLimits, PartitionRef},
    namespaces::{Namespace, Namespaces, NewNamespaces},
    random::Random,
    store::simulated::{FaultRates, SimulatedStore},
    tasks::Tasks,
    telemetry::metrics::Metrics,
    witness::Witnesses,
};

const SKU: &str = "ps5";
const STOCK: u64 = 100;
const CALLERS: u8 = 250;
const SECOND: Duration = Duration::from_secs(1);

/// A server's namespaces and lanes on a simulated store.
struct Simulation {
    store: Arc<SimulatedStore>,
    namespaces: Arc<Namespaces<SimulatedStore>>,
    namespace: Arc<Namespace>,
    witnesses: Arc<Witnesses>,
    metrics: Arc<Metrics>,
    random: Random,
    tasks: Tasks,
}

/// Runs a test on one thread with a paused clock.
fn simulate<T>(test: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime").block_on(test)
}

impl Simulation {
    async fn start(seed: u64, faults: FaultRates) -> Self {
        let (random, metrics, tasks) = (Random::seeded(seed), Arc::new(Metrics::new()), Tasks::alone());
        let store = Arc::new(SimulatedStore::new(random.clone(), faults));
        let limits = LaneLimits { queue: 1_000, batch: 64, in_flight: 2, resend_for: 30 * SECOND };
        let lanes = LaneContext {
            limits,
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
            random: random.clone(),
        };
        let witnesses = Arc::new(Witnesses::open(None, true, Arc::clone(&metrics)).expect("no file"));
        let new = NewNamespaces::from(&Config::default());
        let namespaces = Arc::new(Namespaces::new(Arc::clone(&store), lanes, new, Arc::clone(&witnesses)));
        let name = NamespaceName::parse("sale".into()).expect("a name");
        let namespace = namespaces.get_or_create(&name, false).await.expect("a namespace");
        let simulation = Self { store, namespaces, namespace, witnesses, metrics, random, tasks };
        simulation.run(set_stock(), 60 * SECOND).await.expect("an answer");
        simulation
    }

    async fn run(&self, operation: Operation, timeout: Duration) -> Result<Outcome, LaneError> {
        run(&self.namespace, operation, timeout).await
    }

    /// Each caller reserves one unit, and commits it or rolls it back. Returns the units that were
    /// committed.
    async fn sell(&self) -> u64 {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let namespace = Arc::clone(&self.namespace);
            callers.spawn(async move {
                let reserved = run(&namespace, reserve(caller, 60 * SECOND), 60 * SECOND).await.expect("an answer");
                let Outcome::Reservation { reservation, .. } = reserved else { return 0 };
                let is_bought = caller % 2 == 0;
                let resolve = match is_bought {
                    true => Operation::Commit { id: reservation.id, purchase: None },
                    false => Operation::Rollback(reservation.id),
                };
                run(&namespace, resolve, 60 * SECOND).await.expect("an answer");
                u64::from(is_bought)
            });
        }
        callers.join_all().await.into_iter().sum()
    }
}

async fn run(namespace: &Namespace, operation: Operation, timeout: Duration) -> Result<Outcome, LaneError> {
    let lane = namespace.lane(0).expect("a partition");
    let answer = lane.submit(operation, Instant::now() + timeout)?.wait().await?;
    Ok(answer.outcome.expect("no refusal"))
}

fn sku() -> Sku {
    Sku::parse(SKU.into(), "sku").expect("a SKU")
}

fn set_stock() -> Operation {
    let on_hand = OnHand::parse(STOCK as i64).expect("a number");
    Operation::SetStock { memo: [0; 16], sku: sku(), on_hand, condition: Condition::Always }
}

fn reserve(caller: u8, ttl: Duration) -> Operation {
    let line = Line { sku: sku(), quantity: Quantity::parse(1, "quantity").expect("a quantity") };
    Operation::Reserve {
        id: ReservationId { id: [caller; 16], partition: 0 },
        lines: vec![line],
        ttl: Some(Ttl::parse(ttl.as_secs() as i64, 0, 3_600 * SECOND).expect("a ttl")),
        buyer: BuyerId::default(),
        replaces: None,
        is_first_attempt: false,
    }
}

/// One sale in which a third of all requests and replies is lost: the units that were committed, those
/// that the store has as sold, the units that are left, and the trace.
fn sale(seed: u64) -> (u64, u64, u64, String) {
    simulate(async {
        let faults = FaultRates { lost_request: 0.3, lost_reply: 0.3, ..FaultRates::default() };
        let simulation = Simulation::start(seed, faults).await;
        let committed = simulation.sell().await;
        let stock = simulation.store.stock(SKU).expect("the SKU");
        assert_eq!((stock.held, stock.supplied), (0, STOCK));
        (committed, stock.sold, stock.available, simulation.store.trace())
    })
}

#[test]
fn a_lost_reply_sells_no_unit_twice_and_loses_none() {
    for seed in 0..50 {
        let (committed, sold, available, _) = sale(seed);
        assert_eq!((committed, sold + available), (sold, STOCK), "seed {seed}");
        assert!(sold > 0, "seed {seed}");
    }
}

#[test]
fn a_seed_repeats_its_run() {
    let traces: Vec<String> = (0..5).map(|seed| sale(seed).3).collect();
    for (seed, trace) in (0..).zip(&traces) {
        assert_eq!(sale(seed).3, *trace, "seed {seed}");
    }
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn a_deadline_that_passes_in_flight_leaves_the_outcome_unknown_and_the_operation_runs_on() {
    simulate(async {
        let simulation = Simulation::start(1, FaultRates::default()).await;
        // The reply is lost each time, so no answer arrives.
        let faults = FaultRates { lost_reply: 1.0, ..FaultRates::default() };
        let silent = Arc::new(SimulatedStore::new(Random::seeded(2), faults));
        let limits = LaneLimits { queue: 8, batch: 8, in_flight: 1, resend_for: 3 * SECOND };
        let context = LaneContext {
            limits,
            store: Arc::clone(&silent),
            metrics: Arc::clone(&simulation.metrics),
            tasks: simulation.tasks.clone(),
            random: simulation.random.clone(),
        };
        let Namespace { name, config, epochs, witnesses, .. } = &*simulation.namespace;
        let partition = PartitionRef::new(name, 0, epochs[0], config, Arc::clone(&witnesses[0]));
        let lane = Lane::start(&partition, Default::default(), Default::default(), &context);
        let start = Instant::now();
        let submit = |timeout| lane.submit(set_stock(), Instant::now() + timeout).expect("room");
        let (sent, queued) = (submit(SECOND), submit(60 * SECOND));
        assert!(matches!(sent.wait().await, Err(LaneError::OutcomeUnknown { .. })));
        assert!(start.elapsed() >= SECOND && start.elapsed() < SECOND * 11 / 10, "{:?}", start.elapsed());
        assert!(matches!(queued.wait().await, Err(LaneError::OutcomeUnknown { .. })));
        assert!(start.elapsed() > SECOND * 2 && start.elapsed() <= SECOND * 4, "resends end: {:?}", start.elapsed());
        assert_eq!(silent.stock(SKU).expect("it was applied").available, STOCK);
    });
}

#[test]
fn a_passed_deadline_is_reported_only_if_nothing_takes_effect() {
    let mut reported = 0;
    for seed in 0..40 {
        simulate(async {
            let faults = FaultRates { late_request: 0.3, again: 0.6, ..FaultRates::default() };
            let simulation = Simulation::start(seed, faults).await;
            let mut calls = JoinSet::new();
            for caller in 0..20 {
                let namespace = Arc::clone(&simulation.namespace);
                let timeout = Duration::from_millis(40 + 20 * u64::from(caller));
                calls.spawn(async move { (caller, run(&namespace, reserve(caller, 60 * SECOND), timeout).await) });
            }
            let results = calls.join_all().await;
            // The last copy has arrived.
            tokio::time::sleep(40 * SECOND).await;
            for (caller, result) in results {
                if result == Err(LaneError::DeadlinePassed) {
                    reported += 1;
                    assert!(!simulation.store.has_reservation(&[caller; 16]), "seed {seed}, caller {caller}");
                }
            }
        });
    }
    assert!(reported > 0, "no deadline passed before its operation was sent");
}

#[test]
fn a_hold_ends_at_its_deadline_without_traffic() {
    simulate(async {
        let faults = FaultRates { lost_request: 0.2, lost_reply: 0.2, ..FaultRates::default() };
        let simulation = Simulation::start(3, faults).await;
        let stop = simulation.tasks.stopping();
        tokio::spawn(sweeper::run(
            Arc::clone(&simulation.namespaces),
            Arc::clone(&simulation.store),
            Arc::clone(simulation.witnesses.identity()),
            Arc::clone(&simulation.metrics),
            simulation.random.clone(),
            Duration::from_millis(250),
            stop.clone(),
        ));
        let held = simulation.run(reserve(1, 20 * SECOND), 60 * SECOND).await;
        assert!(matches!(held, Ok(Outcome::Reservation { .. })));
        tokio::time::sleep(19 * SECOND - SECOND / 2).await;
        assert_eq!(simulation.store.stock(SKU).expect("the SKU").held, 1, "before the deadline");
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(simulation.store.stock(SKU).expect("the SKU").available, STOCK);
        stop.cancel();
    });
}
