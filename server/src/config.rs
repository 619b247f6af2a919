//! The settings of the server: flags and `SENTINEL_*` variables, with their defaults. Read once at
//! the start.
//!
//! Reads the environment and the file of the store's URL, and resolves host names; starts nothing. The ranges are in
//! `validate`.

use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

#[cfg(test)]
mod doc;
mod redis_url;
mod security;
#[cfg(test)]
mod tests;
mod validate;

pub use redis_url::RedisUrl;
pub use security::{ClientCertificate, SecurityConfig, Switch};

/// Exit code of a process with a wrong configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;

/// The settings of one server.
///
/// [`Config::from_process`] reads them from the process. Tests use [`Config::from_flags`], which ignores the
/// environment.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sentinel-server",
    version,
    about = "A gRPC service for flash-sale inventory on Redis",
    long_about = None,
    after_help = "Durations are written like 250ms, 10s or 1h 30m. Traces are exported if\n\
                  OTEL_EXPORTER_OTLP_ENDPOINT is set; the other OTEL_* variables apply too.\n\
                  Exit codes: 0 clean stop, 64 wrong configuration, 69 no Redis to start, 71 address not available,\n\
                  74 state folder not usable, 1 other."
)]
pub struct Config {
    /// Address of the gRPC server, like 127.0.0.1:50051 or localhost:50051; port 0 takes a free
    /// port, which is in the log
    #[arg(
        long,
        env = "SENTINEL_LISTEN",
        default_value = "127.0.0.1:50051",
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Address of /metrics, /livez and /readyz; port 0 takes a free port, which is in the log
    #[arg(
        long,
        env = "SENTINEL_ADMIN_LISTEN",
        default_value = "127.0.0.1:9464",
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    /// Redis or Valkey to use, like redis://host:port/db or unix:///path; a password
    /// (redis://user:password@host:port/db) is only accepted in the variable or in --redis-url-file; if unset, the
    /// server starts a Redis as a child process
    #[arg(long, env = "SENTINEL_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<RedisUrl>,

    /// File with the URL of --redis-url, for a URL with a password; read once at the start
    #[arg(long, env = "SENTINEL_REDIS_URL_FILE", value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,

    /// Folder of the Redis that is started without --redis-url: its data, socket, log and locks
    #[arg(long, env = "SENTINEL_DATA_DIR", default_value = "./sentinel-data", value_name = "FOLDER")]
    pub data_dir: PathBuf,

    /// Memory limit of the Redis of --data-dir, in bytes, 8,388,608 to 1 TiB; if unset, half of the
    /// memory of the machine or the container. At the limit new holds are refused (STORE_FULL), and
    /// existing holds can still be resolved
    #[arg(long, env = "SENTINEL_EMBEDDED_MAX_MEMORY", value_name = "BYTES")]
    pub embedded_max_memory: Option<u64>,

    /// The meaning of an OK: `fast` is applied in memory, `durable` is fsynced
    #[arg(long, env = "SENTINEL_DURABILITY", value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,

    /// Threads that serve, 1 to 1024; if unset, one for each processor, less one if Redis runs on
    /// the same machine
    #[arg(long, env = "SENTINEL_THREADS", value_name = "THREADS")]
    pub threads: Option<usize>,

    /// Connections to Redis for batches of operations, 1 to 1024
    #[arg(long, env = "SENTINEL_POOL_SIZE", default_value_t = 16, value_name = "CONNECTIONS")]
    pub pool_size: usize,

    /// Connections to Redis for lists and audits, apart from --pool-size, 1 to 1024
    #[arg(long, env = "SENTINEL_LIST_CONNECTIONS", default_value_t = 4, value_name = "CONNECTIONS")]
    pub list_connections: usize,

    /// Approximate memory of an audit, 65,536 to 17,179,869,184 bytes; an audit that needs more
    /// takes several passes
    #[arg(long, env = "SENTINEL_AUDIT_MEMORY", default_value_t = 268_435_456, value_name = "BYTES")]
    pub audit_memory: usize,

    /// Longest wait for a free connection, 1ms to 1m
    #[arg(long, env = "SENTINEL_POOL_WAIT", default_value = "1s", value_parser = duration, value_name = "DURATION")]
    pub pool_wait: Duration,

    /// Longest wait for a reply from Redis, 10ms to 1m
    #[arg(long, env = "SENTINEL_STORE_TIMEOUT", default_value = "2s", value_parser = duration, value_name = "DURATION")]
    pub store_timeout: Duration,

    /// Longest time to open a connection to Redis, 1ms to 1m
    #[arg(
        long,
        env = "SENTINEL_CONNECT_TIMEOUT",
        default_value = "1s",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub connect_timeout: Duration,

    /// Operations that may wait in one lane before calls are refused as OVERLOADED, 1 to 10,000,000
    #[arg(long, env = "SENTINEL_QUEUE_LIMIT", default_value_t = 65_536, value_name = "OPERATIONS")]
    pub queue_limit: usize,

    /// Most operations of one batch, 1 to 512
    #[arg(long, env = "SENTINEL_BATCH_MAX_OPERATIONS", default_value_t = 512, value_name = "OPERATIONS")]
    pub batch_max_operations: usize,

    /// Batches of one lane that may be in flight at Redis, 1 to 64
    #[arg(long, env = "SENTINEL_BATCHES_IN_FLIGHT", default_value_t = 1, value_name = "BATCHES")]
    pub batches_in_flight: usize,

    /// How long a batch whose reply was lost is resent before OUTCOME_UNKNOWN, 0s to 5m; at most
    /// half of the retention
    #[arg(long, env = "SENTINEL_RESEND_FOR", default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub resend_for: Duration,

    /// Pause between two sweeps of idle partitions for expired holds, 10ms to 1m; above 2s a server
    /// that just started may detect a step of the store's clock too late
    #[arg(
        long,
        env = "SENTINEL_SWEEP_INTERVAL",
        default_value = "250ms",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub sweep_interval: Duration,

    /// Time at a stop between the change of the health status and the refusal of new calls, 0s to
    /// 10m: as long as load balancers need to react
    #[arg(long, env = "SENTINEL_DRAIN_DELAY", default_value = "0s", value_parser = duration, value_name = "DURATION")]
    pub drain_delay: Duration,

    /// How long running calls may take to end after new calls are refused, 0s to 10m; streams that
    /// only watch end at once
    #[arg(long, env = "SENTINEL_DRAIN_GRACE", default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub drain_grace: Duration,

    /// Client connections that are accepted per second, 1 to 1,000,000; others wait in the backlog
    /// of the system
    #[arg(long, env = "SENTINEL_MAX_ACCEPTS", default_value_t = 2_000, value_name = "CONNECTIONS")]
    pub max_accepts: u32,

    /// Approximate processor time per second for untrusted connections, 1ms to 10s: those without a
    /// response yet, and those that cancel many calls at once, or send many control frames or
    /// incomplete requests. Work beyond it waits
    #[arg(
        long,
        env = "SENTINEL_UNTRUSTED_CPU_TIME",
        default_value = "300ms",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub untrusted_cpu_time: Duration,

    /// Client connections, 1 to 1,000,000; one more closes the connection that has been longest
    /// without a call
    #[arg(long, env = "SENTINEL_MAX_CONNECTIONS", default_value_t = 1_024, value_name = "CONNECTIONS")]
    pub max_connections: usize,

    /// Calls that may run on one client connection, 1 to 65,536
    #[arg(long, env = "SENTINEL_MAX_STREAMS", default_value_t = 256, value_name = "CALLS")]
    pub max_streams: u32,

    /// Bytes that a client connection may send before the server reads them, 65,535 to
    /// 1,073,741,824; at least 512 for each call
    #[arg(long, env = "SENTINEL_CONNECTION_WINDOW", default_value_t = 131_072, value_name = "BYTES")]
    pub connection_window: u32,

    /// Bytes of the windows of all client connections together, 1,048,576 to 1,099,511,627,776
    #[arg(long, env = "SENTINEL_RECEIVE_BUDGET", default_value_t = 134_217_728, value_name = "BYTES")]
    pub receive_budget: usize,

    /// Bytes of incomplete requests, 1,048,576 to 1,099,511,627,776; beyond it the connection with
    /// the most bytes for the longest time is closed
    #[arg(long, env = "SENTINEL_REQUEST_BUDGET", default_value_t = 33_554_432, value_name = "BYTES")]
    pub request_budget: usize,

    /// Incomplete requests, 1 to 1,000,000; one more closes the connection with the most of them
    /// for the longest time
    #[arg(long, env = "SENTINEL_MAX_UNFINISHED_REQUESTS", default_value_t = 4_096, value_name = "REQUESTS")]
    pub max_unfinished_requests: usize,

    /// Bytes of large or streamed responses that their callers have not read, 1,048,576 to
    /// 1,099,511,627,776; beyond it the connection with the most bytes for the longest time is
    /// closed
    #[arg(long, env = "SENTINEL_RESPONSE_BUDGET", default_value_t = 67_108_864, value_name = "BYTES")]
    pub response_budget: usize,

    /// Open imports and reflection streams, 1 to 1,000,000
    #[arg(long, env = "SENTINEL_MAX_REQUEST_STREAMS", default_value_t = 64, value_name = "STREAMS")]
    pub max_request_streams: usize,

    /// Unary calls of InventoryAdmin that may run at once, 1 to 1,000,000
    #[arg(long, env = "SENTINEL_MAX_ADMIN_CALLS", default_value_t = 256, value_name = "CALLS")]
    pub max_admin_calls: usize,

    /// Longest pause of a client between two messages of an import, 100ms to 1h
    #[arg(long, env = "SENTINEL_STREAM_PAUSE", default_value = "1m", value_parser = duration, value_name = "DURATION")]
    pub stream_pause: Duration,

    /// Longest time for the HTTP/2 handshake of a client connection, 100ms to 10m
    #[arg(
        long,
        env = "SENTINEL_HANDSHAKE_TIMEOUT",
        default_value = "5s",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub handshake_timeout: Duration,

    /// Longest time for a request, its headers or a frame to arrive in full, 100ms to 10m
    #[arg(
        long,
        env = "SENTINEL_REQUEST_TIMEOUT",
        default_value = "10s",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub request_timeout: Duration,

    /// Longest time that a client does not read its connection, or a large or streamed response,
    /// 100ms to 1h
    #[arg(
        long,
        env = "SENTINEL_RESPONSE_TIMEOUT",
        default_value = "30s",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub response_timeout: Duration,

    /// Calls that a client connection may cancel per second, 1 to 1,000,000; twice as many in a
    /// burst
    #[arg(long, env = "SENTINEL_MAX_RESETS", default_value_t = 3_000, value_name = "RESETS")]
    pub max_resets: u32,

    /// Control frames that a client connection may send per second, 100 to 10,000,000; twice as
    /// many in a burst. A SETTINGS frame counts as 100, a PRIORITY, CONTINUATION, empty DATA or
    /// unknown frame as 10
    #[arg(long, env = "SENTINEL_MAX_CONTROL_FRAMES", default_value_t = 20_000, value_name = "FRAMES")]
    pub max_control_frames: u32,

    /// Streams that watch a namespace, 1 to 1,000,000
    #[arg(long, env = "SENTINEL_MAX_WATCHES", default_value_t = 10_000, value_name = "STREAMS")]
    pub max_watches: usize,

    /// Namespaces that may be watched at the same time, each with one connection to the store, 1 to
    /// 1,024
    #[arg(long, env = "SENTINEL_MAX_WATCHED_NAMESPACES", default_value_t = 64, value_name = "NAMESPACES")]
    pub max_watched_namespaces: usize,

    /// SKUs of a namespace that WatchStock and WatchProtected can watch, kept in memory, 1 to
    /// 100,000,000
    #[arg(long, env = "SENTINEL_MAX_WATCHED_SKUS", default_value_t = 1_000_000, value_name = "SKUS")]
    pub max_watched_skus: usize,

    /// Longest Batch, and longest message of an import, 1,024 to 67,108,864 bytes; other requests
    /// may have 262,144 bytes
    #[arg(long, env = "SENTINEL_MAX_REQUEST_BYTES", default_value_t = 4_194_304, value_name = "BYTES")]
    pub max_request_bytes: usize,

    /// Life of a hold without a ttl, in a new namespace; 1ms to --max-ttl
    #[arg(long, env = "SENTINEL_DEFAULT_TTL", default_value = "10m", value_parser = duration, value_name = "DURATION")]
    pub default_ttl: Duration,

    /// Longest life of a hold in a new namespace, 1ms to 30days
    #[arg(long, env = "SENTINEL_MAX_TTL", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub max_ttl: Duration,

    /// Longest life of a hold in a new namespace, however often it is extended, --max-ttl to 60days
    #[arg(long, env = "SENTINEL_MAX_LIFE", default_value = "2h", value_parser = duration, value_name = "DURATION")]
    pub max_life: Duration,

    /// How long resolved reservations and request ids are remembered in a new namespace, 1s to
    /// 30days
    #[arg(long, env = "SENTINEL_RETENTION", default_value = "24h", value_parser = duration, value_name = "DURATION")]
    pub retention: Duration,

    /// Partitions of a new namespace, 1 to 64
    #[arg(long, env = "SENTINEL_PARTITIONS", default_value_t = 1, value_name = "PARTITIONS")]
    pub partitions: u16,

    /// Records (reservations and remembered requests of buyers) that a new namespace may hold, 1 to
    /// 1,000,000,000
    #[arg(long, env = "SENTINEL_QUOTA_RECORDS", default_value_t = 10_000_000, value_name = "RECORDS")]
    pub quota_records: u64,

    /// SKUs that a new namespace may hold, 1 to 100,000,000
    #[arg(long, env = "SENTINEL_QUOTA_SKUS", default_value_t = 1_000_000, value_name = "SKUS")]
    pub quota_skus: u64,

    /// Namespaces of the store, 1 to 1,000,000; one more is refused as TOO_MANY_NAMESPACES
    #[arg(long, env = "SENTINEL_MAX_NAMESPACES", default_value_t = 1_000, value_name = "NAMESPACES")]
    pub max_namespaces: usize,

    /// Calls that create a namespace: `explicit` is ConfigureNamespace alone, `on-first-stock` also
    /// SetStock, AdjustStock and ImportStock
    #[arg(long, env = "SENTINEL_CREATE_NAMESPACES", value_enum, default_value_t = CreateNamespaces::OnFirstStock)]
    pub create_namespaces: CreateNamespaces,

    /// Format of a new namespace, 1 to 5; use 1 while servers of a release before 0.2 share the
    /// store
    #[arg(long, env = "SENTINEL_FORMAT", default_value_t = 5, value_name = "FORMAT")]
    pub format: u8,

    /// Folder for this server's record of the store's history, by which it detects after a restart
    /// that the store came back older or empty; one folder for each server, not in --data-dir; if
    /// unset, the record is lost at a stop
    #[arg(long, env = "SENTINEL_STATE_DIR", value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,

    /// Access: TLS, the policy, and what is allowed without them.
    #[command(flatten)]
    pub security: SecurityConfig,

    /// Form of the log on standard error; `auto` is human on a terminal and json elsewhere
    #[arg(long, env = "SENTINEL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,

    /// Log filter: a level (error, warn, info, debug, trace) or directives like
    /// info,sentinel_server=debug
    #[arg(long, env = "SENTINEL_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// The calls that create a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CreateNamespaces {
    /// ConfigureNamespace, and calls that add the first stock.
    OnFirstStock,
    /// ConfigureNamespace alone.
    Explicit,
}

/// The meaning of an OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Applied in memory: a crash of Redis may lose the last moments.
    Fast,
    /// Fsynced before the response: survives a crash of the process or the machine.
    Durable,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// One readable line per event.
    Human,
    /// One JSON object per line.
    Json,
}

/// The problems of a [`Config`], one line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    /// The problems; never empty.
    pub problems: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config::from_flags(["sentinel-server"]).expect("the defaults parse")
    }
}

impl Config {
    /// The configuration of this process: its arguments and its environment. An empty variable
    /// counts as unset.
    ///
    /// # Errors
    /// An error of clap; `--help` and `--version` are errors too.
    pub fn from_process() -> Result<Config, clap::Error> {
        let is_empty = |variable: &OsStr| std::env::var_os(variable).is_some_and(|value| value.is_empty());
        let command = Config::command().mut_args(|argument| match argument.get_env() {
            Some(variable) if is_empty(variable) => argument.env(Resettable::Reset),
            _ => argument,
        });
        let mut usage = command.clone();
        let matches = command.try_get_matches()?;
        let is_flag = matches.value_source("redis_url") == Some(ValueSource::CommandLine);
        let mut config = Config::from_arg_matches(&matches)?;
        config.load_redis_url(is_flag).map_err(|problem| usage.error(ErrorKind::ValueValidation, problem))?;
        Ok(config)
    }

    /// Reads the file of the store's URL, and refuses a password on the command line.
    fn load_redis_url(&mut self, is_flag: bool) -> Result<(), String> {
        if is_flag && self.redis_url.as_ref().is_some_and(RedisUrl::has_password) {
            let problem = "--redis-url has a password, which every user of this machine can read";
            return Err(format!("{problem}: set SENTINEL_REDIS_URL or --redis-url-file instead"));
        }
        let Some(path) = &self.redis_url_file else { return Ok(()) };
        if self.redis_url.is_some() {
            return Err("--redis-url and --redis-url-file exclude each other".to_owned());
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read --redis-url-file {}: {error}", path.display()))?;
        let Ok(url) = text.trim().parse();
        self.redis_url = Some(url);
        Ok(())
    }

    /// The configuration from these arguments alone (the first is the name of the program).
    ///
    /// # Errors
    /// An error of clap.
    pub fn from_flags<I, A>(arguments: I) -> Result<Config, clap::Error>
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString> + Clone,
    {
        let command = Config::command().mut_args(|argument| argument.env(Resettable::Reset));
        Config::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// The number of threads that serve, on a machine with this many processors.
    ///
    /// A Redis on the same machine keeps one processor busy. Another thread would compete with it
    /// for that processor, and all calls wait for Redis.
    pub(crate) fn threads_on(&self, processors: usize) -> usize {
        let is_redis_here = self.redis_url.as_ref().is_none_or(RedisUrl::is_on_this_machine);
        self.threads.unwrap_or(processors.saturating_sub(usize::from(is_redis_here)).max(1))
    }
}

/// The address of this host and port. For a name with several addresses, the first IPv4 address,
/// else the first.
fn address(text: &str) -> Result<SocketAddr, String> {
    let form = "write host:port, like 127.0.0.1:50051, localhost:50051 or [::]:50051";
    if !text.contains(':') {
        return Err(format!("it has no port: {form}"));
    }
    let addresses: Vec<_> = text.to_socket_addrs().map_err(|error| format!("{error}: {form}"))?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| format!("the host has no address: {form}"))
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::Duration::from_str(text).map(Into::into)
}
