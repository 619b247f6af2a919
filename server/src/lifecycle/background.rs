//! The background tasks that run as long as the server. Starts them; a task that ends early is started again.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

use crate::{
    access::reload::{Access, Watched},
    config::{Config, RedisUrl},
    control::admin_http,
    control::health::{self, Health, StoreGate},
    control::promises::Promises,
    control::sweeper,
    namespaces::Namespaces,
    random::Random,
    store::{Store, embedded::Trouble},
    tasks::{Task, Tasks},
    telemetry::metrics::Metrics,
    witness::Witnesses,
};

/// The parts of a server that its background tasks use.
pub(super) struct Background<'a> {
    pub(super) config: &'a Arc<Config>,
    pub(super) tasks: &'a Tasks,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) witnesses: &'a Arc<Witnesses>,
    pub(super) health: &'a Health,
    pub(super) promises: &'a Promises,
    pub(super) access: &'a Access,
}

impl Background<'_> {
    /// Checks the store periodically.
    pub(super) fn probe_store(&self, url: RedisUrl, gate: &Arc<StoreGate>, trouble: Option<Trouble>) {
        let (config, identity) = (Arc::clone(self.config), Arc::clone(self.witnesses.identity()));
        let (health, gate, pass) = (self.health.clone(), Arc::clone(gate), Arc::clone(&self.promises.pass));
        let stop = self.tasks.stopping();
        self.tasks.keep(Task::StoreProbe, move || {
            let (config, identity) = (Arc::clone(&config), Arc::clone(&identity));
            let state = (health.clone(), Arc::clone(&gate));
            health::watch_store(url.clone(), config, identity, state, Arc::clone(&pass), trouble.clone(), stop.clone())
        });
    }

    /// Sweeps the partitions without traffic.
    pub(super) fn sweep(&self, namespaces: &Arc<Namespaces>, store: &Arc<Store>) {
        let (namespaces, store, metrics) = (Arc::clone(namespaces), Arc::clone(store), Arc::clone(self.metrics));
        let identity = Arc::clone(self.witnesses.identity());
        let (interval, stop) = (self.config.sweep_interval, self.tasks.stopping());
        self.tasks.keep(Task::Sweeper, move || {
            let (namespaces, store, metrics) = (Arc::clone(&namespaces), Arc::clone(&store), Arc::clone(&metrics));
            sweeper::run(namespaces, store, Arc::clone(&identity), metrics, Random::System, interval, stop.clone())
        });
    }

    /// Writes the witness file, if there is a state folder.
    pub(super) fn write_witness_file(&self) {
        if self.witnesses.path().is_none() {
            return;
        }
        let (witnesses, stop) = (Arc::clone(self.witnesses), self.tasks.stopping());
        self.tasks.keep(Task::WitnessFile, move || Arc::clone(&witnesses).keep(stop.clone()));
    }

    /// Serves the operator's port.
    pub(super) fn serve_admin_port(&self, listener: TcpListener) {
        let (metrics, stop) = (Arc::clone(self.metrics), self.tasks.stopping());
        let (health, promises, access) = (self.health.clone(), self.promises.clone(), self.access.clone());
        let list: admin_http::ListPromises = Arc::new(move || promises.list());
        self.tasks.keep(Task::AdminPort, move || {
            let readiness = (health.clone(), Arc::clone(&list));
            let access = access.clone();
            admin_http::serve_again(listener.try_clone(), Arc::clone(&metrics), readiness, access, stop.clone())
        });
    }

    /// Reads certificates, keys and policies again when they change.
    pub(super) fn reload(&self, watched: Watched) {
        let watched = Arc::new(Mutex::new(watched));
        let (interval, stop) = (self.config.security.reload_interval, self.tasks.stopping());
        let (access, metrics) = (self.access.clone(), self.metrics.access());
        self.tasks.keep(Task::Reload, move || {
            access.clone().watch(Arc::clone(&watched), interval, metrics.clone(), stop.clone())
        });
    }
}
