//! Inventory Sentinel: a gRPC service for flash-sale inventory on Redis.
//!
//! # Layout
//! From the top floor down; a room uses only rooms below it.
//! - `service`: proto to domain and back. A call enters and leaves here.
//! - `sweeper`, `health`, `admin_http`: give back what is due where nobody calls; tell whether this
//!   server is well; the operator's port.
//! - `promises`: what an OK depends on, and whether it holds.
//! - `watch`: streams of what happens in a namespace, from one reader of its events.
//! - `namespaces`: the namespaces that are open, and the lane of each partition.
//! - `lane`: the queue of one partition; commits operations in groups.
//! - `allocator`: returns unused memory to the system.
//! - `tasks`: background tasks, each with a name and a reaction to its end.
//! - `random`: the source of randomness.
//! - `resend`: how long a change whose reply was lost is sent again.
//! - `witness`: what this server knows of each partition's history, so that it notices a store that lost changes.
//! - `store`: Redis: keys, bytes, script, connections, the embedded child.
//! - `domain`: SKU, quantity, operation, outcome, refusal; parsed once, no I/O.
//! - `transport`: the gRPC port: connections, and what a stranger can take of the machine.
//! - `router_bypass`: routes checkout calls past the router; `catch_panic`: the response to a call whose handler
//!   panics.
//! - [`config`], [`telemetry`]: what an operator sets, and what he sees.
//!
//! The way of a request: `service` parses it into a `domain` operation, `namespaces` finds the lane,
//! the `lane` puts it into a batch, the `store` runs the batch as one script call, and `service`
//! answers. [`run`] wires the rooms and takes them down again.

// The layout of a handler's future is nested deeper than the compiler looks by default.
#![recursion_limit = "256"]

use std::{io, sync::Arc, time::Duration};

use inventory_sentinel::v1::{
    self, inventory_admin_server::InventoryAdminServer, inventory_events_server::InventoryEventsServer,
    inventory_sentinel_server::InventorySentinelServer,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower_layer::Layer as _;

mod admin_http;
mod allocator;
mod catch_panic;
pub mod config;
mod health;
mod lane;
mod namespaces;
mod promises;
mod random;
mod resend;
mod router_bypass;
mod service;
#[cfg(test)]
mod simulation;
mod store;
mod sweeper;
mod tasks;
pub mod telemetry;
mod transport;
mod watch;
mod witness;

pub(crate) use inventory_sentinel_script::domain;
pub use store::embedded::EmbeddedError;
#[doc(hidden)]
pub use store::permissions::least_acl;
#[doc(hidden)]
pub use tasks::Faults;
pub use transport::accept::bind;

use crate::{
    catch_panic::CatchPanicLayer,
    config::{Config, Durability},
    health::{Health, StoreGate},
    lane::{LaneContext, LaneLimits},
    namespaces::{Namespaces, NewNamespaces},
    promises::{LastPass, Promises},
    random::Random,
    router_bypass::RouterBypassLayer,
    service::{Admin, Checkout, Events, ServiceContext},
    store::{
        Store,
        embedded::{Embedded, Trouble},
        error::StoreError,
        pool::{Handout, Limits, Pool},
    },
    tasks::{Task, Tasks},
    telemetry::{grpc::TraceLayer, metrics::Metrics},
    transport::TransportLimits,
    watch::{Hub, WatchLimits},
    witness::{StateError, Witnesses},
};

/// Longest time that background tasks get to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The Redis of our own did not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The URL of the store can't be used.
    #[error("cannot use the store: {0}")]
    Store(String),
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The state folder can't be used.
    #[error("{0}")]
    State(String),
    /// The operator's port can't be served.
    #[error("cannot serve the operator's port: {0}")]
    AdminPort(io::Error),
    /// The descriptors of the API can't be served.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The descriptors of the API can't be read.
    #[error("cannot read the descriptors of the API: {0}")]
    Descriptors(#[from] prost::DecodeError),
    /// A task ended without which the server can't go on.
    #[error("the task {0} ended")]
    Task(&'static str),
}

impl RunError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Embedded(EmbeddedError::NoProgram) => 69,
            RunError::Store(_) => config::EXIT_CONFIG,
            RunError::Listen { .. } => 71,
            RunError::State(_) => 74,
            _ => 1,
        }
    }
}

/// Serves on this listener until it is told to stop, then drains within the configured grace.
///
/// # Errors
/// As [`RunError`] says; after an orderly stop there is none.
pub async fn run(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), RunError> {
    let admin = bind(config.admin_listen)
        .map_err(|error| RunError::Listen { address: config.admin_listen.to_string(), error })?;
    run_with(config, listener, admin, shutdown, Faults::default()).await
}

/// As [`run`], with a listener for the operator's port, and with faults that a test orders.
///
/// # Errors
/// As [`RunError`] says; after an orderly stop there is none.
#[doc(hidden)]
pub async fn run_with(
    config: Config,
    listener: TcpListener,
    admin: TcpListener,
    shutdown: CancellationToken,
    faults: Faults,
) -> Result<(), RunError> {
    // A task can drain the server too.
    let shutdown = shutdown.child_token();
    let metrics = Arc::new(Metrics::new());
    let gates = config.durability == Durability::Durable;
    let witnesses = Witnesses::open(config.state_dir.as_deref(), gates, Arc::clone(&metrics))
        .map_err(|error: StateError| RunError::State(error.to_string()))?;
    let tasks = Tasks::new(Arc::clone(&metrics), shutdown.clone(), faults);
    let mut embedded = None;
    let url = match config.redis_url.clone() {
        Some(url) => url,
        None => {
            let child = tokio::select! {
                child = Embedded::start(&config, &tasks) => child?,
                () = shutdown.cancelled() => return Ok(()),
            };
            embedded.insert(child).url().clone()
        }
    };
    let listeners = (listener, admin);
    let store = (url, embedded.as_ref().map(Embedded::trouble));
    let result = serve(Arc::new(config), store, listeners, metrics, Arc::new(witnesses), &tasks, shutdown).await;
    if let Some(child) = embedded {
        child.stop().await;
    }
    match tasks.fatal() {
        Some(task) => result.and(Err(RunError::Task(task.label()))),
        None => result,
    }
}

async fn serve(
    config: Arc<Config>,
    (url, trouble): (config::RedisUrl, Option<Trouble>),
    (listener, admin): (TcpListener, TcpListener),
    metrics: Arc<Metrics>,
    witnesses: Arc<Witnesses>,
    tasks: &Tasks,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let unusable = |error: StoreError| RunError::Store(error.to_string());
    let limits = Limits::from(&*config);
    let pool = Pool::new(&url, limits).map_err(unusable)?;
    let store = |limits, handout| pool.beside(limits, handout).map(|pool| Arc::new(Store::new(pool))).map_err(unusable);
    let checkout = store(limits, Handout::Unchecked)?;
    let (control, listing) =
        (store(limits.control(), Handout::Checked)?, store(limits.lists(&config), Handout::Checked)?);
    let identity = Arc::clone(witnesses.identity());
    let hub = Arc::new(
        Hub::new(&pool, limits, WatchLimits::from(&*config), Arc::clone(&metrics), tasks.clone()).map_err(unusable)?,
    );
    let limits = LaneLimits {
        queue: config.queue_limit,
        batch: config.batch_max_operations,
        in_flight: config.batches_in_flight,
        resend_for: config.resend_for,
    };
    let random = Random::System;
    let lanes = LaneContext {
        limits,
        store: checkout,
        metrics: Arc::clone(&metrics),
        tasks: tasks.clone(),
        random: random.clone(),
    };
    let namespaces =
        Arc::new(Namespaces::new(Arc::clone(&control), lanes, NewNamespaces::from(&*config), Arc::clone(&witnesses)));
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health::new(reporter, served()?).await;
    let gate = Arc::new(StoreGate::new());
    let promises = Promises {
        pass: Arc::new(LastPass::new(config.durability)),
        witnesses: Arc::clone(&witnesses),
        namespaces: Arc::clone(&namespaces),
    };

    tasks.keep(Task::StoreProbe, {
        let (config, identity, stop) = (Arc::clone(&config), Arc::clone(&identity), tasks.stopping());
        let (health, gate, pass) = (health.clone(), Arc::clone(&gate), Arc::clone(&promises.pass));
        move || {
            let (config, identity) = (Arc::clone(&config), Arc::clone(&identity));
            let state = (health.clone(), Arc::clone(&gate));
            health::watch_store(url.clone(), config, identity, state, Arc::clone(&pass), trouble.clone(), stop.clone())
        }
    });
    tasks.keep(Task::Sweeper, {
        let (namespaces, metrics) = (Arc::clone(&namespaces), Arc::clone(&metrics));
        let (interval, stop) = (config.sweep_interval, tasks.stopping());
        move || {
            let (namespaces, store) = (Arc::clone(&namespaces), Arc::clone(&control));
            let random = random.clone();
            sweeper::run(namespaces, store, Arc::clone(&identity), Arc::clone(&metrics), random, interval, stop.clone())
        }
    });
    if witnesses.path().is_some() {
        let (witnesses, stop) = (Arc::clone(&witnesses), tasks.stopping());
        tasks.keep(Task::WitnessFile, move || Arc::clone(&witnesses).keep(stop.clone()));
    }
    log_address("admin", &admin);
    let admin = admin.into_std().map_err(RunError::AdminPort)?;
    tasks.keep(Task::AdminPort, {
        let (metrics, stop) = (Arc::clone(&metrics), tasks.stopping());
        let (health, promises) = (health.clone(), promises.clone());
        let list: admin_http::ListPromises = Arc::new(move || promises.list());
        move || {
            let readiness = (health.clone(), Arc::clone(&list));
            admin_http::serve_again(admin.try_clone(), Arc::clone(&metrics), readiness, stop.clone())
        }
    });

    let port_metrics = metrics.transport();
    // No call is taken any more: at the signal, unless there is a delay.
    let closing = if config.drain_delay.is_zero() { shutdown.clone() } else { CancellationToken::new() };
    // Connections end, and the watch of the health, which says before that it has turned.
    let ending = CancellationToken::new();
    let context = ServiceContext::new(namespaces, gate, metrics, tasks.clone(), closing.clone());
    log_address("grpc", &listener);
    let max_request = config.max_request_bytes;
    let checkout = InventorySentinelServer::new(Checkout { context: context.clone(), hub: Arc::clone(&hub) })
        .max_decoding_message_size(max_request);
    let routes = Routes::new(
        InventoryEventsServer::new(Events { context: context.clone(), hub }).max_decoding_message_size(max_request),
    )
    .add_service(
        InventoryAdminServer::new(Admin::new(context, listing, promises, &config))
            .max_decoding_message_size(max_request),
    )
    .add_service(health_service)
    .add_service(reflection().build_v1()?)
    .add_service(reflection().build_v1alpha()?)
    .prepare();
    let services = TraceLayer.layer(CatchPanicLayer(tasks.clone()).layer(RouterBypassLayer(checkout).layer(routes)));
    let limits = TransportLimits::from(&*config);
    let server = transport::serve(listener, services, limits, port_metrics, tasks, ending.clone());

    // Health turns first, and load balancers get time to notice. Then no call is taken any more, and the grace begins,
    // which only calls that do work use.
    let drained = async {
        shutdown.cancelled().await;
        health.set_draining().await;
        if !closing.is_cancelled() && tasks.fatal().is_none() {
            tokio::time::sleep(config.drain_delay).await;
        }
        closing.cancel();
        ending.cancel();
        tokio::time::sleep(config.drain_grace).await;
    };
    tokio::select! {
        () = server => {}
        () = drained => {
            tracing::warn!(grace = ?config.drain_grace, "calls were still under way when the grace was over");
        }
    }
    if tokio::time::timeout(STOP_LIMIT, tasks.stop()).await.is_err() {
        tracing::warn!(limit = ?STOP_LIMIT, "background tasks did not end in time");
    }
    Ok(())
}

/// The threads that serve, as many as the configuration and the machine ask for. A single one runs tokio's
/// `current_thread`, which lets a connection have its turn behind all who have something to send on it, so that their
/// responses leave together. Public so that other handlers can be measured on the same.
///
/// # Errors
/// What the operating system says where it gives no thread.
pub fn runtime(config: &Config) -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match config.threads_on(processors) {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// Serves these services as this server serves its own, until the shutdown. Public so that other handlers can be
/// measured on the same transport.
pub async fn serve_routes(config: &Config, listener: TcpListener, routes: Routes, shutdown: CancellationToken) {
    let services = TraceLayer.layer(routes.prepare());
    let metrics = Arc::new(Metrics::new());
    let tasks = Tasks::new(Arc::clone(&metrics), shutdown.clone(), Faults::default());
    let limits = TransportLimits::from(config);
    transport::serve(listener, services, limits, metrics.transport(), &tasks, shutdown).await;
}

/// The descriptors of every service that is served.
const DESCRIPTORS: [&[u8]; 4] = [
    v1::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// The full names of the services that are served.
fn served() -> Result<Vec<String>, prost::DecodeError> {
    let mut names = Vec::new();
    for descriptors in DESCRIPTORS {
        for file in FileDescriptorSet::decode(descriptors)?.file {
            names.extend(file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())));
        }
    }
    Ok(names)
}

/// Describes the services that are served, and the details of errors, so that grpcurl shows a refusal's reason in
/// words.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    // The builder adds those of the reflection services.
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
    DESCRIPTORS[..2]
        .iter()
        .fold(builder, |builder, descriptors| builder.register_encoded_file_descriptor_set(descriptors))
}

fn log_address(port: &'static str, listener: &TcpListener) {
    match listener.local_addr() {
        Ok(address) => tracing::info!(port, %address, "listening"),
        Err(error) => tracing::warn!(port, %error, "listening on an unknown address"),
    }
}
