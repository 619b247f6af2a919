//! The lifecycle of a server: opens its state and its store, starts its tasks and its ports, and drains them at the
//! shutdown. Uses all modules below it.
//!
//! - this file: the order of start and stop;
//! - [`stores`]: the pools of connections to Redis;
//! - [`background`]: the tasks that run as long as the server;
//! - [`routes`]: the gRPC services and their descriptors.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower_layer::Layer as _;

mod background;
mod routes;
mod stores;

use self::{background::Background, stores::Stores};
use crate::{
    access::{
        reload::{Access, AccessFiles, TlsFiles, Watched},
        tls::ClientAuth,
    },
    config::{self, ClientCertificate, Config, Durability, RedisUrl, SecurityConfig},
    control::health::{Health, StoreGate},
    control::promises::{LastPass, Promises},
    service::ServiceContext,
    store::embedded::{Embedded, EmbeddedError, Trouble},
    tasks::{Faults, Tasks},
    telemetry::{grpc::TraceLayer, limit::RECORD, metrics::Metrics, transport::GRPC_ADMIN},
    transport::{self, TransportLimits},
    witness::{StateError, Witnesses},
};

/// Longest time for background tasks to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The embedded Redis did not start.
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
        /// The error of the system.
        error: io::Error,
    },
    /// The state folder can't be used.
    #[error("{0}")]
    State(String),
    /// The operator's port can't be served.
    #[error("cannot serve the operator's port: {0}")]
    AdminPort(io::Error),
    /// The files of certificates, keys or the policy can't be used.
    #[error("{0}")]
    Access(String),
    /// The descriptors of the API can't be served.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The descriptors of the API can't be read.
    #[error("cannot read the descriptors of the API: {0}")]
    Descriptors(#[from] prost::DecodeError),
    /// A task ended that the server needs.
    #[error("the task {0} ended")]
    Task(&'static str),
}

impl RunError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Embedded(EmbeddedError::NoProgram) => 69,
            RunError::Store(_) | RunError::Access(_) => config::EXIT_CONFIG,
            RunError::Listen { .. } => 71,
            RunError::State(_) => 74,
            _ => 1,
        }
    }
}

/// Serves on this listener until the shutdown, then drains within the configured grace.
///
/// # Errors
/// A [`RunError`]; none after a shutdown.
pub async fn run(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), RunError> {
    let admin = listen(config.admin_listen)?;
    run_with(config, listener, admin, shutdown, Faults::default()).await
}

/// Like [`run`], with a listener for the operator's port, and with faults that a test orders.
///
/// # Errors
/// A [`RunError`]; none after a shutdown.
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
    let access = open_access(&config, &metrics)?;
    let grpc_admin = config.security.grpc_admin_listen.map(listen).transpose()?;
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
    let listeners = Listeners { grpc: listener, grpc_admin, admin };
    let store = (url, embedded.as_ref().map(Embedded::trouble));
    let result =
        serve(Arc::new(config), store, listeners, (metrics, access), Arc::new(witnesses), &tasks, shutdown).await;
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
    (url, trouble): (RedisUrl, Option<Trouble>),
    listeners: Listeners,
    (metrics, (access, watched)): (Arc<Metrics>, (Access, Watched)),
    witnesses: Arc<Witnesses>,
    tasks: &Tasks,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let stores = Stores::open(&url, &config, &metrics, tasks)?;
    let namespaces = stores.namespaces(&config, &metrics, &witnesses, tasks);
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health::new(reporter, routes::service_names()?).await;
    let gate = Arc::new(StoreGate::new());
    let promises = Promises {
        pass: Arc::new(LastPass::new(config.durability)),
        witnesses: Arc::clone(&witnesses),
        namespaces: Arc::clone(&namespaces),
    };

    let background = Background {
        config: &config,
        tasks,
        metrics: &metrics,
        witnesses: &witnesses,
        health: &health,
        promises: &promises,
        access: &access,
    };
    background.reload(watched);
    background.probe_store(url, &gate, trouble);
    background.sweep(&namespaces, &stores.control);
    background.write_witness_file();
    log_address("admin", &listeners.admin);
    background.serve_admin_port(listeners.admin.into_std().map_err(RunError::AdminPort)?);

    let drain = Drain::new(&config, shutdown);
    let port_metrics = metrics.transport();
    let guard = Arc::clone(&access.guard);
    let context = ServiceContext::new(namespaces, gate, metrics, tasks.clone(), drain.refuse_calls.clone(), guard);
    let parts = routes::Parts {
        config: &config,
        context: &context,
        hub: &stores.hub,
        lists: &stores.lists,
        promises: &promises,
        tasks,
    };
    log_address("grpc", &listeners.grpc);
    let services = routes::services(&parts, health_service.clone(), listeners.grpc_admin.is_none())?;
    let limits = TransportLimits::from(&*config);
    let end = drain.end_connections.clone();
    let port = (access.clone(), port_metrics.clone());
    let server = transport::serve(listeners.grpc, services, limits, port, tasks, end.clone());
    let admin_services = routes::admin_services(&parts, health_service)?;
    let admin_server = async {
        if let Some(listener) = listeners.grpc_admin {
            log_address("grpc_admin", &listener);
            let port = (access, port_metrics.of_port(GRPC_ADMIN));
            transport::serve(listener, admin_services, limits, port, tasks, end.clone()).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(server, admin_server) } => {}
        () = drain.run(&config, &health, tasks) => {
            tracing::warn!(grace = ?config.drain_grace, "calls were still running at the end of the grace");
        }
    }
    if tokio::time::timeout(STOP_LIMIT, tasks.stop()).await.is_err() {
        tracing::warn!(limit = ?STOP_LIMIT, "background tasks did not end in time");
    }
    Ok(())
}

/// The listening sockets of the ports.
struct Listeners {
    grpc: TcpListener,
    grpc_admin: Option<TcpListener>,
    admin: TcpListener,
}

fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    transport::accept::bind(address).map_err(|error| RunError::Listen { address: address.to_string(), error })
}

/// Reads the files of access, and warns if the server serves without protection.
fn open_access(config: &Config, metrics: &Metrics) -> Result<(Access, Watched), RunError> {
    let metrics = metrics.access();
    let security = &config.security;
    let missing = security.missing_protection();
    metrics.set_unguarded(!missing.is_empty());
    if security.insecure && !missing.is_empty() {
        let missing = missing.join(" and ");
        tracing::warn!(target: RECORD, missing, "INSECURE: every machine that reaches a port can use it");
    }
    Access::load(access_files(security), security.max_failed_authentications, &metrics).map_err(RunError::Access)
}

fn access_files(security: &SecurityConfig) -> AccessFiles {
    let tls = security.tls_cert.clone().zip(security.tls_key.clone());
    let tls = tls.map(|(certificate, key)| TlsFiles {
        certificate,
        key,
        client_ca: security.client_ca.clone(),
        client_auth: match security.client_certificate {
            ClientCertificate::Required => ClientAuth::Required,
            ClientCertificate::Optional => ClientAuth::Optional,
        },
    });
    AccessFiles { tls, policy: security.policy.clone() }
}

/// The steps of a drain.
struct Drain {
    shutdown: CancellationToken,
    /// Refuses new calls.
    refuse_calls: CancellationToken,
    /// Ends connections and the streams that only watch. A watch of the health reports the change before that.
    end_connections: CancellationToken,
}

impl Drain {
    fn new(config: &Config, shutdown: CancellationToken) -> Self {
        // Without a delay, new calls are refused at the instant of the shutdown.
        let refuse_calls = if config.drain_delay.is_zero() { shutdown.clone() } else { CancellationToken::new() };
        Self { shutdown, refuse_calls, end_connections: CancellationToken::new() }
    }

    /// Waits for the shutdown, then drains. The health changes first, so that load balancers get time to react. Then
    /// new calls are refused, and the grace begins, which only calls that do work use.
    async fn run(self, config: &Config, health: &Health, tasks: &Tasks) {
        self.shutdown.cancelled().await;
        health.set_draining().await;
        if !self.refuse_calls.is_cancelled() && tasks.fatal().is_none() {
            tokio::time::sleep(config.drain_delay).await;
        }
        self.refuse_calls.cancel();
        self.end_connections.cancel();
        tokio::time::sleep(config.drain_grace).await;
    }
}

/// The runtime with the configured number of threads. A single thread runs tokio's `current_thread`: a connection is
/// polled after all tasks that have something to send on it, so their responses leave together. Public so that
/// benchmarks can run other handlers on the same runtime.
///
/// # Errors
/// The error of the operating system if it creates no thread.
pub fn runtime(config: &Config) -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match config.threads_on(processors) {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// Serves these services on the transport of this server, until the shutdown. Public so that benchmarks can run other
/// handlers on the same transport.
pub async fn serve_routes(config: &Config, listener: TcpListener, routes: Routes, shutdown: CancellationToken) {
    let services = TraceLayer.layer(routes.prepare());
    let metrics = Arc::new(Metrics::new());
    let tasks = Tasks::new(Arc::clone(&metrics), shutdown.clone(), Faults::default());
    let limits = TransportLimits::from(config);
    let port = (Access::open(metrics.access()), metrics.transport());
    transport::serve(listener, services, limits, port, &tasks, shutdown).await;
}

fn log_address(port: &'static str, listener: &TcpListener) {
    match listener.local_addr() {
        Ok(address) => tracing::info!(port, %address, "listening"),
        Err(error) => tracing::warn!(port, %error, "listening, but the address is unknown"),
    }
}
