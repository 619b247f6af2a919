//! Inventory Sentinel: a gRPC service for flash-sale inventory on Redis.
//!
//! # Layout
//! From the top floor down; a room uses only rooms below it.
//! - `service`: proto to domain and back. A call enters and leaves here.
//! - `sweeper`, `health`, `admin_http`: give back what is due where nobody calls; tell whether this
//!   server is well; the operator's port.
//! - `watch`: streams of what happens in a namespace, from one reader of its events.
//! - `namespaces`: the namespaces that are open, and the lane of each partition.
//! - `lane`: the queue of one partition; commits operations in groups.
//! - `resend`: how long a change whose reply was lost is sent again.
//! - `witness`: what this server knows of each partition's history, so that it notices a store that lost changes.
//! - `store`: Redis: keys, bytes, script, connections, the embedded child.
//! - `domain`: SKU, quantity, operation, outcome, refusal; parsed once, no I/O.
//! - `transport`: the gRPC port: connections, and what a stranger can take of the machine.
//! - `direct`: the way of checkout calls past the router.
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
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tower_layer::Layer as _;

mod admin_http;
pub mod config;
mod direct;
mod domain;
mod health;
mod lane;
mod namespaces;
mod resend;
mod service;
mod store;
mod sweeper;
pub mod telemetry;
mod transport;
mod watch;
mod witness;

#[doc(hidden)]
pub use store::permissions::least_acl;
pub use store::{embedded::EmbeddedError, script::script_source};
pub use transport::accept::bind;

use crate::{
    config::{Config, Durability},
    direct::DirectLayer,
    health::{Health, StoreGate},
    lane::LaneLimits,
    namespaces::{Defaults, Namespaces},
    service::{Desk, admin::Admin, checkout::Checkout, watch::Events},
    store::{
        Store,
        embedded::Embedded,
        error::StoreError,
        pool::{Limits, Pool},
    },
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
    /// The descriptors of the API can't be served.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
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
    let metrics = Arc::new(Metrics::new());
    let gates = config.durability == Durability::Durable;
    let witnesses = Witnesses::open(config.state_dir.as_deref(), gates, Arc::clone(&metrics))
        .map_err(|error: StateError| RunError::State(error.to_string()))?;
    let mut embedded = None;
    let url = match config.redis_url.clone() {
        Some(url) => url,
        None => {
            let child = tokio::select! {
                child = Embedded::start(&config) => child?,
                () = shutdown.cancelled() => return Ok(()),
            };
            embedded.insert(child).url().clone()
        }
    };
    let result = serve(Arc::new(config), url, listener, admin, metrics, Arc::new(witnesses), shutdown).await;
    if let Some(child) = embedded {
        child.stop().await;
    }
    result
}

async fn serve(
    config: Arc<Config>,
    url: config::RedisUrl,
    listener: TcpListener,
    admin: TcpListener,
    metrics: Arc<Metrics>,
    witnesses: Arc<Witnesses>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let unusable = |error: StoreError| RunError::Store(error.to_string());
    let limits = Limits::from(&*config);
    let store = Arc::new(Store::new(Pool::new(&url, limits).map_err(unusable)?));
    let identity = Arc::clone(witnesses.identity());
    let hub = Arc::new(Hub::new(&url, limits, WatchLimits::from(&*config), Arc::clone(&metrics)).map_err(unusable)?);
    let limits = LaneLimits {
        queue: config.queue_limit,
        batch: config.batch_max_operations,
        in_flight: config.batches_in_flight,
        resend_for: config.resend_for,
    };
    let namespaces = Arc::new(Namespaces::new(
        Arc::clone(&store),
        Arc::clone(&metrics),
        limits,
        Defaults::from(&*config),
        Arc::clone(&witnesses),
    ));
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health::new(reporter).await;
    let gate = Arc::new(StoreGate::new());

    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(health::watch_store(
        url,
        Arc::clone(&config),
        Arc::clone(&identity),
        health.clone(),
        Arc::clone(&gate),
        stop.clone(),
    ));
    tasks.spawn(sweeper::run(
        Arc::clone(&namespaces),
        Arc::clone(&store),
        identity,
        Arc::clone(&metrics),
        config.sweep_interval,
        stop.clone(),
    ));
    tasks.spawn(Arc::clone(&witnesses).keep(stop.clone()));
    log_address("admin", &admin);
    tasks.spawn(admin_http::serve(admin, Arc::clone(&metrics), health.clone(), stop.clone()));

    let port_metrics = metrics.transport();
    let desk = Desk::new(namespaces, gate, metrics, shutdown.clone());
    log_address("grpc", &listener);
    let max_request = config.max_request_bytes;
    let checkout =
        InventorySentinelServer::new(Checkout(desk.clone(), Arc::clone(&hub))).max_decoding_message_size(max_request);
    let routes = Routes::new(
        InventoryEventsServer::new(Events { desk: desk.clone(), hub }).max_decoding_message_size(max_request),
    )
    .add_service(
        InventoryAdminServer::new(Admin::new(desk, store, witnesses, config.durability))
            .max_decoding_message_size(max_request),
    )
    .add_service(health_service)
    .add_service(reflection().build_v1()?)
    .add_service(reflection().build_v1alpha()?)
    .prepare();
    let services = TraceLayer.layer(DirectLayer(checkout).layer(routes));
    let limits = TransportLimits::from(&*config);
    let server = transport::serve(listener, services, limits, port_metrics, shutdown.clone());

    // Health turns first; then the grace begins, which an idle connection can't stretch.
    let drained = async {
        shutdown.cancelled().await;
        health.set_draining().await;
        tokio::time::sleep(config.drain_grace).await;
    };
    tokio::select! {
        () = server => {}
        () = drained => {
            tracing::warn!(grace = ?config.drain_grace, "calls were still under way when the grace was over");
        }
    }
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
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

/// Serves these services as this server serves its own, until the shutdown. Public so that other handlers can be measured on
/// the same transport.
pub async fn serve_routes(config: &Config, listener: TcpListener, routes: Routes, shutdown: CancellationToken) {
    let services = TraceLayer.layer(routes.prepare());
    let metrics = Metrics::new().transport();
    transport::serve(listener, services, TransportLimits::from(config), metrics, shutdown).await;
}

/// Describes our services, the health service, and the details of errors, so that grpcurl shows a
/// refusal's reason in words.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

fn log_address(port: &'static str, listener: &TcpListener) {
    match listener.local_addr() {
        Ok(address) => tracing::info!(port, %address, "listening"),
        Err(error) => tracing::warn!(port, %error, "listening on an unknown address"),
    }
}
