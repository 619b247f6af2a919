//! The health of this server, part of the control plane: named components, reported to the gRPC
//! health service and to `/readyz`, and the gate that keeps calls from an unusable store. Checks
//! the store, and touches nothing else.
//!
//! - this file: the components, the gate and the periodic check of the store;
//! - [`probe`]: one check of the store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

mod probe;

use self::probe::{probe, unchecked};
use crate::config::{Config, RedisUrl};
use crate::control::promises::LastPass;
use crate::store::embedded::Trouble;
use crate::store::fitness::{Before, Fit, Found, Unfit};
use crate::store::identity::Identity;
use crate::store::pool::{Limits, Pool};
use crate::telemetry::limit::RECORD;

/// The component of the store: whether it is usable.
const STORE: &str = "store";

/// The component of the drain: whether the server is stopping.
const DRAINING: &str = "draining";

/// Pause between two checks of a usable store.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// First and longest pause while it is not usable: recovery should be detected soon.
const PROBE_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The state of each component, and the status of the server.
#[derive(Clone)]
pub(crate) struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    reporter: HealthReporter,
    /// The services whose health is reported; the empty name is the whole server.
    services: Vec<String>,
    /// Locked during a report, which keeps the reports in order.
    components: Mutex<BTreeMap<&'static str, Result<(), String>>>,
}

impl Health {
    /// Reports the health of the whole server and of these services: NOT_SERVING until every
    /// component is well. The store is not, before its first check.
    pub(crate) async fn new(reporter: HealthReporter, services: impl IntoIterator<Item = String>) -> Health {
        let services = iter::once(String::new()).chain(services).collect();
        let components = BTreeMap::from([(STORE, Err("not checked yet".to_owned())), (DRAINING, Ok(()))]);
        let health = Health { inner: Arc::new(Inner { reporter, services, components: Mutex::new(components) }) };
        health.report(false).await;
        health
    }

    /// Sets the state of a component. A change is logged and reported once.
    pub(crate) async fn set(&self, component: &'static str, state: Result<(), String>) {
        let mut components = self.inner.components.lock().await;
        if components.get(component) == Some(&state) {
            return;
        }
        match &state {
            Ok(()) => tracing::info!(target: RECORD, component, "well"),
            Err(reason) => tracing::warn!(target: RECORD, component, reason, "not well"),
        }
        components.insert(component, state);
        self.report(components.values().all(Result::is_ok)).await;
    }

    /// Reports that the server is stopping and takes no new calls.
    pub(crate) async fn set_draining(&self) {
        self.set(DRAINING, Err("the server is stopping".to_owned())).await;
    }

    /// Whether every component is well, and a line for each.
    pub(crate) async fn ready(&self) -> (bool, String) {
        let components = self.inner.components.lock().await;
        let mut lines = String::new();
        for (component, state) in components.iter() {
            let state = state.as_ref().map_or_else(String::as_str, |()| "ok");
            // A String takes every write.
            let _ = writeln!(lines, "{component}: {state}");
        }
        (components.values().all(Result::is_ok), lines)
    }

    async fn report(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in &self.inner.services {
            self.inner.reporter.set_service_status(service, status).await;
        }
    }
}

/// Keeps calls from a store that must not be used: one that evicts, is not a primary, is not on
/// disk as promised, or does not permit the commands of the service. The gate ignores an
/// unreachable store: calls to it fail fast without the gate, and recover sooner than a check would detect.
/// Closed until the first successful check.
pub(crate) struct StoreGate {
    open: AtomicBool,
    shut: RwLock<Shut>,
}

/// Why the gate is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// The store must not be used: the reason, for people.
    Unusable(Arc<str>),
    /// The user of the service lacks permissions: the ACL rules that grant them.
    Denied(Arc<str>),
}

impl StoreGate {
    pub(crate) fn new() -> StoreGate {
        let shut = Shut::Unusable("the store was not checked yet".into());
        StoreGate { open: AtomicBool::new(false), shut: RwLock::new(shut) }
    }

    /// Whether calls may pass, or why not.
    pub(crate) fn check(&self) -> Result<(), Shut> {
        if self.open.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.shut.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    fn close(&self, shut: Shut) {
        *self.shut.write().unwrap_or_else(PoisonError::into_inner) = shut;
        self.open.store(false, Ordering::Release);
    }

    /// A new reason for a gate that is closed already.
    fn explain(&self, reason: &str) {
        if !self.open.load(Ordering::Acquire) {
            self.close(Shut::Unusable(reason.into()));
        }
    }
}

/// Checks the store until the shutdown, and keeps its component and the gate up to date.
///
/// It has a separate connection: the wait for a shared one would measure the load, not the store.
pub(crate) async fn watch_store(
    url: RedisUrl,
    config: Arc<Config>,
    identity: Arc<Identity>,
    (health, gate): (Health, Arc<StoreGate>),
    pass: Arc<LastPass>,
    mut trouble: Option<Trouble>,
    shutdown: CancellationToken,
) {
    let limits = Limits { size: 1, ..Limits::from(&*config) };
    let watch = async {
        let pool = match Pool::new(&url, limits) {
            Ok(pool) => pool,
            Err(error) => {
                gate.close(Shut::Unusable(error.to_string().into()));
                health.set(STORE, Err(error.to_string())).await;
                pass.set(unchecked(&error.to_string(), config.durability));
                return;
            }
        };
        let mut seen = Seen::default();
        let mut retry = PROBE_RETRY.0;
        let mut before = Before::Unknown;
        let mut outage = Outage::default();
        loop {
            if let Some(trouble) = &mut trouble {
                let why = trouble.borrow_and_update().clone();
                if let Some(why) = why {
                    // The store is not checked meanwhile: it is down, or accepts no write.
                    gate.close(Shut::Unusable(Arc::clone(&why)));
                    health.set(STORE, Err(why.to_string())).await;
                    pass.set(unchecked(&why, config.durability));
                    retry = PROBE_RETRY.0;
                    changed(Some(trouble)).await;
                    continue;
                }
            }
            let Found { verdict: state, promises } = probe(&pool, config.durability, &identity, &before).await;
            outage.record(&state);
            match &state {
                Ok(fit) => before = Before::Fit(fit.run_id.clone()),
                Err(Unfit::Unavailable(_)) => {}
                Err(Unfit::Denied(_) | Unfit::Faults(_)) => before = Before::Unfit,
            }
            let pause = if state.is_ok() {
                retry = PROBE_RETRY.0;
                PROBE_INTERVAL
            } else {
                let pause = retry;
                retry = (retry * 2).min(PROBE_RETRY.1);
                pause
            };
            match state {
                Ok(fit) => {
                    seen.record(fit);
                    gate.open();
                    health.set(STORE, Ok(())).await;
                }
                Err(Unfit::Unavailable(error)) => {
                    gate.explain(&error.to_string());
                    health.set(STORE, Err(error.to_string())).await;
                }
                Err(Unfit::Denied(missing)) => {
                    gate.close(Shut::Denied(missing.join(" ").into()));
                    health.set(STORE, Err(Unfit::Denied(missing).to_string())).await;
                }
                Err(unfit @ Unfit::Faults(_)) => {
                    gate.close(Shut::Unusable(unfit.to_string().into()));
                    health.set(STORE, Err(unfit.to_string())).await;
                }
            }
            // After the component: a reader of the promises then finds the health at least as new.
            pass.set(promises);
            // Servers that lost the same store should not all reconnect at once.
            let share = rand::rng().random_range(0.75..1.0);
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(share)) => {}
                () = changed(trouble.as_mut()) => {}
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch => {}
    }
}

/// Waits for another trouble, or for the end of this one.
async fn changed(trouble: Option<&mut Trouble>) {
    let is_changed = match trouble {
        Some(trouble) => trouble.changed().await.is_ok(),
        None => false,
    };
    if !is_changed {
        // There is no supervisor, or it ends with the server.
        std::future::pending::<()>().await;
    }
}

/// An outage of the store: one line of the log at its start, and one at its end.
#[derive(Default)]
struct Outage(Option<Instant>);

impl Outage {
    fn record(&mut self, state: &Result<Fit, Unfit>) {
        match (state, self.0) {
            (Err(Unfit::Unavailable(error)), None) => {
                tracing::warn!(%error, "the store does not answer");
                self.0 = Some(Instant::now());
            }
            (Ok(_) | Err(Unfit::Denied(_) | Unfit::Faults(_)), Some(began)) => {
                tracing::info!(after_ms = began.elapsed().as_millis() as u64, "the store answers again");
                self.0 = None;
            }
            _ => {}
        }
    }
}

/// The last known store. A new one is logged once.
#[derive(Default)]
struct Seen(Option<Fit>);

impl Seen {
    fn record(&mut self, fit: Fit) {
        if self.0.as_ref() == Some(&fit) {
            return;
        }
        tracing::info!(version = fit.version, run_id = fit.run_id, "the store is fit");
        for note in &fit.notes {
            tracing::warn!(note, "the store could not be checked in full");
        }
        self.0 = Some(fit);
    }
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health as _;
    use tonic_health::server::HealthService;

    use super::*;
    use crate::config::Durability;
    use crate::store::embedded::Embedded;
    use crate::tasks::Tasks;

    async fn serving(service: &HealthService) -> Vec<bool> {
        let mut serving = Vec::new();
        for name in ["", "shop.Checkout", "shop.Events"] {
            let request = tonic::Request::new(HealthCheckRequest { service: name.to_owned() });
            let status = service.check(request).await.unwrap().into_inner().status;
            serving.push(status == tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
        }
        serving
    }

    #[tokio::test]
    async fn it_serves_only_while_every_component_is_well() {
        let reporter = HealthReporter::new();
        let service = HealthService::from_health_reporter(reporter.clone());
        let health = Health::new(reporter, ["shop.Checkout", "shop.Events"].map(String::from)).await;
        assert_eq!(serving(&service).await, [false; 3]);
        assert_eq!(health.ready().await, (false, "draining: ok\nstore: not checked yet\n".to_owned()));

        health.set(STORE, Ok(())).await;
        assert_eq!(serving(&service).await, [true; 3]);
        assert_eq!(health.ready().await, (true, "draining: ok\nstore: ok\n".to_owned()));

        health.set_draining().await;
        health.set(STORE, Ok(())).await;
        assert_eq!(serving(&service).await, [false; 3]);
    }

    #[test]
    fn the_gate_opens_for_a_fit_store_and_stays_open_while_it_is_away() {
        let gate = StoreGate::new();
        assert!(gate.check().is_err());
        gate.explain("refused");
        assert_eq!(gate.check(), Err(Shut::Unusable("refused".into())));
        gate.open();
        gate.explain("away");
        assert_eq!(gate.check(), Ok(()));
        gate.close(Shut::Denied("+zrem".into()));
        assert_eq!(gate.check(), Err(Shut::Denied("+zrem".into())));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_store_is_watched_through_faults_and_outages() {
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(Config { data_dir: folder.path().to_path_buf(), ..Config::default() });
        let embedded = Embedded::start(&config, &Tasks::alone()).await.unwrap();
        let pool = Pool::new(embedded.url(), Limits::from(&*config)).unwrap();
        let (gate, shutdown) = (Arc::new(StoreGate::new()), CancellationToken::new());
        let health = Health::new(HealthReporter::new(), []).await;
        let watch = watch_store(
            embedded.url().clone(),
            config,
            Arc::default(),
            (health.clone(), gate.clone()),
            Arc::new(LastPass::new(Durability::Durable)),
            None,
            shutdown.clone(),
        );
        let watch = tokio::spawn(watch);
        let until = async |ready: bool, open: bool, line: &str| {
            let wait = async {
                loop {
                    let (is_ready, lines) = health.ready().await;
                    if is_ready == ready && gate.check().is_ok() == open && lines.contains(line) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "{line:?} never appeared");
        };
        let configure = async |policy: &str| {
            let mut command = deadpool_redis::redis::cmd("CONFIG");
            command.arg("SET").arg("maxmemory-policy").arg(policy);
            pool.get().await.unwrap().send(&command).await.unwrap();
        };

        until(true, true, "store: ok").await;
        configure("allkeys-lru").await;
        until(false, false, "allkeys-lru").await;
        assert!(matches!(gate.check(), Err(Shut::Unusable(why)) if why.contains("noeviction")));
        configure("noeviction").await;
        until(true, true, "store: ok").await;
        embedded.stop().await;
        until(false, true, "store: the store").await;
        shutdown.cancel();
        watch.await.unwrap();
    }
}
