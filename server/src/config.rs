//! What an operator can set: flags and `SENTINEL_*` variables, read once and validated whole.
//!
//! Reads the environment and resolves the names of hosts; opens nothing and starts nothing. Every default and limit of the server's
//! settings stands here and nowhere else.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::domain;

#[cfg(test)]
mod doc;
mod redis_url;

pub use redis_url::RedisUrl;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Bytes of a connection's window that each of its calls needs. The HTTP/2 library counts a small frame that nobody has read
/// yet as 256 bytes, and closes a connection on which these come to more than half of its window: so every call must find room
/// for its one frame.
const CALL_WINDOW: usize = 512;

/// Exit code of a process that was configured wrongly (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;

/// The settings of one server.
///
/// Read from the process by [`Config::from_process`]; tests make theirs with
/// [`Config::from_flags`], which does not look at the environment.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sentinel-server",
    version,
    about = "A gRPC service for flash-sale inventory on Redis",
    long_about = None,
    after_help = "Durations are written like 250ms, 10s or 1h 30m. Traces go out when OTEL_EXPORTER_OTLP_ENDPOINT is set;\n\
                  the other OTEL_* variables are honoured too.\n\
                  Exit codes: 0 stopped in order, 64 wrong configuration, 69 no Redis to start, 71 address not to be had, 74 state folder not to be used, 1 other."
)]
pub struct Config {
    /// Address of the gRPC server, as 127.0.0.1:50051 or localhost:50051; port 0 takes a free one, and the log says which
    #[arg(long, env = "SENTINEL_LISTEN", default_value = "127.0.0.1:50051", value_parser = address, value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Address of /metrics, /livez and /readyz; port 0 takes a free one, and the log says which
    #[arg(long, env = "SENTINEL_ADMIN_LISTEN", default_value = "127.0.0.1:9464", value_parser = address, value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,

    /// Redis or Valkey to use, as redis://user:password@host:port/db or unix:///path; without it one is started as a child
    #[arg(long, env = "SENTINEL_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<RedisUrl>,

    /// Folder of the Redis that is started without --redis-url: its data, socket, log and locks
    #[arg(long, env = "SENTINEL_DATA_DIR", default_value = "./sentinel-data", value_name = "FOLDER")]
    pub data_dir: PathBuf,

    /// Memory that the Redis of --data-dir may take, in bytes, 8,388,608 to 1 TiB; without it half of what the machine has, or the
    /// container. At it nothing new is held (STORE_FULL), and what is held can still be resolved
    #[arg(long, env = "SENTINEL_EMBEDDED_MAX_MEMORY", value_name = "BYTES")]
    pub embedded_max_memory: Option<u64>,

    /// What an answer OK promises: `fast` is applied in memory, `durable` is fsynced
    #[arg(long, env = "SENTINEL_DURABILITY", value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,

    /// Threads that serve, 1 to 1024; without it one for each processor, less one where Redis runs on the same machine
    #[arg(long, env = "SENTINEL_THREADS", value_name = "THREADS")]
    pub threads: Option<usize>,

    /// Connections to Redis for batches of operations, 1 to 1024
    #[arg(long, env = "SENTINEL_POOL_SIZE", default_value_t = 16, value_name = "CONNECTIONS")]
    pub pool_size: usize,

    /// Connections to Redis for lists and audits, which take none of the others, 1 to 1024
    #[arg(long, env = "SENTINEL_LIST_CONNECTIONS", default_value_t = 4, value_name = "CONNECTIONS")]
    pub list_connections: usize,

    /// Memory of an audit, about, 65,536 to 17,179,869,184 bytes; what does not fit is audited in several passes
    #[arg(long, env = "SENTINEL_AUDIT_MEMORY", default_value_t = 268_435_456, value_name = "BYTES")]
    pub audit_memory: usize,

    /// Longest wait for a free connection, 1ms to 1m
    #[arg(long, env = "SENTINEL_POOL_WAIT", default_value = "1s", value_parser = duration, value_name = "DURATION")]
    pub pool_wait: Duration,

    /// Longest wait for a reply of Redis, 10ms to 1m
    #[arg(long, env = "SENTINEL_STORE_TIMEOUT", default_value = "2s", value_parser = duration, value_name = "DURATION")]
    pub store_timeout: Duration,

    /// Longest time to open a connection to Redis, 1ms to 1m
    #[arg(long, env = "SENTINEL_CONNECT_TIMEOUT", default_value = "1s", value_parser = duration, value_name = "DURATION")]
    pub connect_timeout: Duration,

    /// Operations that may wait in one lane before calls are shed, 1 to 10,000,000
    #[arg(long, env = "SENTINEL_QUEUE_LIMIT", default_value_t = 65_536, value_name = "OPERATIONS")]
    pub queue_limit: usize,

    /// Most operations of one batch, 1 to 512
    #[arg(long, env = "SENTINEL_BATCH_MAX_OPERATIONS", default_value_t = 512, value_name = "OPERATIONS")]
    pub batch_max_operations: usize,

    /// Batches that one lane may have under way at Redis, 1 to 64
    #[arg(long, env = "SENTINEL_BATCHES_IN_FLIGHT", default_value_t = 1, value_name = "BATCHES")]
    pub batches_in_flight: usize,

    /// How long a batch whose reply was lost is sent again before OUTCOME_UNKNOWN, 0s to 5m; half of the retention at most
    #[arg(long, env = "SENTINEL_RESEND_FOR", default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub resend_for: Duration,

    /// Pause between two sweeps of idle partitions for holds past their deadline, 10ms to 1m; above 2s a server that just started
    /// may not hear in time that the store's clock has made a step
    #[arg(long, env = "SENTINEL_SWEEP_INTERVAL", default_value = "250ms", value_parser = duration, value_name = "DURATION")]
    pub sweep_interval: Duration,

    /// Time between the moment that the health turns at a stop and the moment that no call is taken any more, 0s to 10m: as long as
    /// load balancers need to notice
    #[arg(long, env = "SENTINEL_DRAIN_DELAY", default_value = "0s", value_parser = duration, value_name = "DURATION")]
    pub drain_delay: Duration,

    /// How long calls under way may take to end once no call is taken any more, 0s to 10m; streams that only watch end at once
    #[arg(long, env = "SENTINEL_DRAIN_GRACE", default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub drain_grace: Duration,

    /// Client connections that are accepted in a second, 1 to 1,000,000; others wait in the backlog of the system
    #[arg(long, env = "SENTINEL_MAX_ACCEPTS", default_value_t = 2_000, value_name = "CONNECTIONS")]
    pub max_accepts: u32,

    /// Time of one processor, about, that strangers can take in a second, 1ms to 10s: connections that have had no answer yet, that give up
    /// many calls at once or send many control frames or incomplete requests. What is more waits
    #[arg(long, env = "SENTINEL_STRANGER_TIME", default_value = "300ms", value_parser = duration, value_name = "DURATION")]
    pub stranger_time: Duration,

    /// Client connections, 1 to 1,000,000; the one that has been longest without a call is closed for one more
    #[arg(long, env = "SENTINEL_MAX_CONNECTIONS", default_value_t = 1_024, value_name = "CONNECTIONS")]
    pub max_connections: usize,

    /// Calls that one client connection may have under way, 1 to 65,536
    #[arg(long, env = "SENTINEL_MAX_STREAMS", default_value_t = 256, value_name = "CALLS")]
    pub max_streams: u32,

    /// Bytes that a client connection may send before they are read, 65,535 to 1,073,741,824; at least 512 for each call
    #[arg(long, env = "SENTINEL_CONNECTION_WINDOW", default_value_t = 131_072, value_name = "BYTES")]
    pub connection_window: u32,

    /// Bytes that the windows of all client connections may come to, 1,048,576 to 1,099,511,627,776
    #[arg(long, env = "SENTINEL_RECEIVE_BUDGET", default_value_t = 134_217_728, value_name = "BYTES")]
    pub receive_budget: usize,

    /// Bytes of requests that have not arrived in full, 1,048,576 to 1,099,511,627,776; beyond it the connection that holds most for longest is closed
    #[arg(long, env = "SENTINEL_REQUEST_BUDGET", default_value_t = 33_554_432, value_name = "BYTES")]
    pub request_budget: usize,

    /// Requests that have not arrived in full, 1 to 1,000,000; for one more the connection that holds most for longest is closed
    #[arg(long, env = "SENTINEL_MAX_UNFINISHED_REQUESTS", default_value_t = 4_096, value_name = "REQUESTS")]
    pub max_unfinished_requests: usize,

    /// Bytes of large or streamed responses that their callers have not read, 1,048,576 to 1,099,511,627,776; beyond it the
    /// connection that holds most for longest is closed
    #[arg(long, env = "SENTINEL_RESPONSE_BUDGET", default_value_t = 67_108_864, value_name = "BYTES")]
    pub response_budget: usize,

    /// Imports and reflection streams that are open, 1 to 1,000,000
    #[arg(long, env = "SENTINEL_MAX_REQUEST_STREAMS", default_value_t = 64, value_name = "STREAMS")]
    pub max_request_streams: usize,

    /// Unary calls of InventoryAdmin that run at once, 1 to 1,000,000
    #[arg(long, env = "SENTINEL_MAX_ADMIN_CALLS", default_value_t = 256, value_name = "CALLS")]
    pub max_admin_calls: usize,

    /// Longest pause of a client between two messages of an import, 100ms to 1h
    #[arg(long, env = "SENTINEL_STREAM_PAUSE", default_value = "1m", value_parser = duration, value_name = "DURATION")]
    pub stream_pause: Duration,

    /// Longest time for the HTTP/2 handshake of a client connection, 100ms to 10m
    #[arg(long, env = "SENTINEL_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub handshake_timeout: Duration,

    /// Longest time for a request, its headers or a frame to arrive in full, 100ms to 10m
    #[arg(long, env = "SENTINEL_REQUEST_TIMEOUT", default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub request_timeout: Duration,

    /// Longest time that a large or streamed response, or a connection, is not read although something is there, 100ms to 1h
    #[arg(long, env = "SENTINEL_RESPONSE_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub response_timeout: Duration,

    /// Calls that a client connection may give up in a second, 1 to 1,000,000; two seconds' worth at once
    #[arg(long, env = "SENTINEL_MAX_RESETS", default_value_t = 3_000, value_name = "RESETS")]
    pub max_resets: u32,

    /// Control frames that a client connection may send in a second, 100 to 10,000,000; two seconds' worth at once. A SETTINGS frame
    /// counts as 100, a PRIORITY, CONTINUATION, empty DATA or unknown frame as 10
    #[arg(long, env = "SENTINEL_MAX_CONTROL_FRAMES", default_value_t = 20_000, value_name = "FRAMES")]
    pub max_control_frames: u32,

    /// Streams that watch a namespace, 1 to 1,000,000
    #[arg(long, env = "SENTINEL_MAX_WATCHES", default_value_t = 10_000, value_name = "STREAMS")]
    pub max_watches: usize,

    /// Namespaces that are watched at the same time, each with a connection to the store, 1 to 1,024
    #[arg(long, env = "SENTINEL_MAX_WATCHED_NAMESPACES", default_value_t = 64, value_name = "NAMESPACES")]
    pub max_watched_namespaces: usize,

    /// SKUs of a namespace that WatchStock and WatchProtected can watch, which the server keeps in memory, 1 to 100,000,000
    #[arg(long, env = "SENTINEL_MAX_WATCHED_SKUS", default_value_t = 1_000_000, value_name = "SKUS")]
    pub max_watched_skus: usize,

    /// Longest Batch, and longest message of an import, 1,024 to 67,108,864 bytes; other requests have 262,144 bytes at most
    #[arg(long, env = "SENTINEL_MAX_REQUEST_BYTES", default_value_t = 4_194_304, value_name = "BYTES")]
    pub max_request_bytes: usize,

    /// Life of a hold that names none, in a new namespace; 1ms to --max-ttl
    #[arg(long, env = "SENTINEL_DEFAULT_TTL", default_value = "10m", value_parser = duration, value_name = "DURATION")]
    pub default_ttl: Duration,

    /// Longest life of a hold in a new namespace, 1ms to 30days
    #[arg(long, env = "SENTINEL_MAX_TTL", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub max_ttl: Duration,

    /// Longest life of a hold in a new namespace, however often it is extended, --max-ttl to 60days
    #[arg(long, env = "SENTINEL_MAX_LIFE", default_value = "2h", value_parser = duration, value_name = "DURATION")]
    pub max_life: Duration,

    /// How long resolved reservations and request ids are remembered in a new namespace, 1s to 30days
    #[arg(long, env = "SENTINEL_RETENTION", default_value = "24h", value_parser = duration, value_name = "DURATION")]
    pub retention: Duration,

    /// Partitions of a new namespace, 1 to 64
    #[arg(long, env = "SENTINEL_PARTITIONS", default_value_t = 1, value_name = "PARTITIONS")]
    pub partitions: u16,

    /// Records (reservations and remembered requests of buyers) that a new namespace may hold, 1 to 1,000,000,000
    #[arg(long, env = "SENTINEL_QUOTA_RECORDS", default_value_t = 10_000_000, value_name = "RECORDS")]
    pub quota_records: u64,

    /// SKUs that a new namespace may hold, 1 to 100,000,000
    #[arg(long, env = "SENTINEL_QUOTA_SKUS", default_value_t = 1_000_000, value_name = "SKUS")]
    pub quota_skus: u64,

    /// Namespaces that there may be, 1 to 1,000,000; one more is refused as TOO_MANY_NAMESPACES
    #[arg(long, env = "SENTINEL_MAX_NAMESPACES", default_value_t = 1_000, value_name = "NAMESPACES")]
    pub max_namespaces: usize,

    /// What makes a namespace: `on-first-stock` is also SetStock, AdjustStock and ImportStock, `explicit` is ConfigureNamespace alone
    #[arg(long, env = "SENTINEL_CREATE_NAMESPACES", value_enum, default_value_t = CreateNamespaces::OnFirstStock)]
    pub create_namespaces: CreateNamespaces,

    /// Format of a new namespace, 1 to 5; 1 while servers of a release before 0.2 use the same store
    #[arg(long, env = "SENTINEL_FORMAT", default_value_t = 5, value_name = "FORMAT")]
    pub format: u8,

    /// Folder in which this server keeps what it knows of the store's history, so that it notices after its own restart
    /// that the store came back older or empty; one folder a server, not in --data-dir; without it that is lost at the stop
    #[arg(long, env = "SENTINEL_STATE_DIR", value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,

    /// Form of the log on standard error; `auto` is human on a terminal and json elsewhere
    #[arg(long, env = "SENTINEL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,

    /// What is logged: a level (error, warn, info, debug, trace) or directives like info,sentinel_server=debug
    #[arg(long, env = "SENTINEL_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// What makes a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CreateNamespaces {
    /// ConfigureNamespace, and the first stock that is put in.
    OnFirstStock,
    /// ConfigureNamespace alone.
    Explicit,
}

/// What an answer OK promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Applied in memory: a crash of Redis may forget the last moments.
    Fast,
    /// Fsynced before the answer: survives a crash of the process or the machine.
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

/// Everything that is wrong with a [`Config`], one clear line each.
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
    /// The configuration of this process: its arguments and its environment. An empty variable counts as unset.
    ///
    /// # Errors
    /// What clap makes of them; that includes `--help` and `--version`.
    pub fn from_process() -> Result<Config, clap::Error> {
        let is_empty = |variable: &OsStr| std::env::var_os(variable).is_some_and(|value| value.is_empty());
        let command = Config::command().mut_args(|argument| match argument.get_env() {
            Some(variable) if is_empty(variable) => argument.env(Resettable::Reset),
            _ => argument,
        });
        Config::from_arg_matches(&command.try_get_matches()?)
    }

    /// The configuration from these arguments alone (the first is the name of the program).
    ///
    /// # Errors
    /// What clap makes of them.
    pub fn from_flags<I, A>(arguments: I) -> Result<Config, clap::Error>
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString> + Clone,
    {
        let command = Config::command().mut_args(|argument| argument.env(Resettable::Reset));
        Config::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// Threads that serve, on a machine with so many processors.
    ///
    /// A Redis on the same machine keeps one processor busy. A thread of ours for it too would only move
    /// calls to and fro, and take the time of the Redis that all of them wait for.
    pub(crate) fn threads_on(&self, processors: usize) -> usize {
        let is_redis_here = self.redis_url.as_ref().is_none_or(RedisUrl::is_on_this_machine);
        self.threads.unwrap_or(processors.saturating_sub(usize::from(is_redis_here)).max(1))
    }

    /// Whether the values make sense, each and together.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut check = Check::default();

        if let Some(threads) = self.threads {
            check.number("threads", threads, 1, 1_024);
        }
        if let Some(memory) = self.embedded_max_memory {
            check.number("embedded-max-memory", memory, 8_388_608, 1 << 40);
        }
        check.number("pool-size", self.pool_size, 1, 1_024);
        check.number("audit-memory", self.audit_memory, 65_536, 17_179_869_184);
        check.number("list-connections", self.list_connections, 1, 1_024);
        check.number("queue-limit", self.queue_limit, 1, 10_000_000);
        check.number("batch-max-operations", self.batch_max_operations, 1, 512);
        check.number("batches-in-flight", self.batches_in_flight, 1, 64);
        check.number("max-accepts", self.max_accepts, 1, 1_000_000);
        check.duration("stranger-time", self.stranger_time, MILLISECOND, 10_000 * MILLISECOND);
        check.number("max-connections", self.max_connections, 1, 1_000_000);
        check.number("max-streams", self.max_streams, 1, 65_536);
        check.number("connection-window", self.connection_window, 65_535, 1 << 30);
        check.number("receive-budget", self.receive_budget, 1 << 20, 1 << 40);
        check.number("request-budget", self.request_budget, 1 << 20, 1 << 40);
        check.number("max-unfinished-requests", self.max_unfinished_requests, 1, 1_000_000);
        check.number("response-budget", self.response_budget, 1 << 20, 1 << 40);
        check.number("max-request-streams", self.max_request_streams, 1, 1_000_000);
        check.number("max-admin-calls", self.max_admin_calls, 1, 1_000_000);
        check.number("max-resets", self.max_resets, 1, 1_000_000);
        check.number("max-control-frames", self.max_control_frames, 100, 10_000_000);
        check.number("max-watches", self.max_watches, 1, 1_000_000);
        check.number("max-watched-namespaces", self.max_watched_namespaces, 1, 1_024);
        check.number("max-watched-skus", self.max_watched_skus, 1, 100_000_000);
        check.number("max-request-bytes", self.max_request_bytes, 1_024, 67_108_864);
        check.number("partitions", self.partitions, 1, domain::MAX_PARTITIONS);
        check.number("quota-records", self.quota_records, 1, domain::MAX_QUOTA_RECORDS);
        check.number("max-namespaces", self.max_namespaces as u64, 1, 1_000_000);
        check.number("quota-skus", self.quota_skus, 1, domain::MAX_QUOTA_SKUS);
        check.number("format", self.format, domain::FORMATS.0, domain::FORMATS.1);

        check.duration("pool-wait", self.pool_wait, MILLISECOND, MINUTE);
        check.duration("store-timeout", self.store_timeout, 10 * MILLISECOND, MINUTE);
        check.duration("connect-timeout", self.connect_timeout, MILLISECOND, MINUTE);
        check.duration("resend-for", self.resend_for, Duration::ZERO, 5 * MINUTE);
        check.duration("sweep-interval", self.sweep_interval, 10 * MILLISECOND, MINUTE);
        check.duration("drain-delay", self.drain_delay, Duration::ZERO, 10 * MINUTE);
        check.duration("drain-grace", self.drain_grace, Duration::ZERO, 10 * MINUTE);
        check.duration("stream-pause", self.stream_pause, 100 * MILLISECOND, 60 * MINUTE);
        check.duration("handshake-timeout", self.handshake_timeout, 100 * MILLISECOND, 10 * MINUTE);
        check.duration("request-timeout", self.request_timeout, 100 * MILLISECOND, 10 * MINUTE);
        check.duration("response-timeout", self.response_timeout, 100 * MILLISECOND, 60 * MINUTE);
        check.duration("max-ttl", self.max_ttl, MILLISECOND, domain::MAX_TTL);
        check.duration("max-life", self.max_life, self.max_ttl, domain::MAX_LIFE);
        check.duration("default-ttl", self.default_ttl, MILLISECOND, self.max_ttl);
        check.duration("retention", self.retention, domain::RETENTION.0, domain::RETENTION.1);

        self.check_windows(&mut check);
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            check.problem(format!("--listen and --admin-listen are both {}: give them different ports", self.listen));
        }
        if let Some(state) = &self.state_dir
            && resolved(state).starts_with(resolved(&self.data_dir))
        {
            check.problem(format!(
                "--state-dir {} lies in --data-dir {}: a backup of the data would restore it with them",
                state.display(),
                self.data_dir.display()
            ));
        }
        match &self.redis_url {
            Some(url) => {
                if let Err(problem) = url.connection_info() {
                    check.problem(format!("--redis-url {url}: {problem}"));
                }
            }
            None if self.data_dir.as_os_str().is_empty() => {
                check.problem("--data-dir is empty: name a folder".to_owned());
            }
            None => {}
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log) {
            check.problem(format!("--log {:?}: {error}", self.log));
        }
        check.finish()
    }
}

impl Config {
    /// Whether the windows of the connections fit together with their number and that of their calls.
    fn check_windows(&self, check: &mut Check) {
        let window = self.connection_window as usize;
        if self.max_connections.saturating_mul(window) > self.receive_budget {
            check.problem(format!(
                "--max-connections {} with a --connection-window of {window} bytes can take {} bytes of memory: that is more than \
                 --receive-budget {}",
                self.max_connections,
                self.max_connections.saturating_mul(window),
                self.receive_budget
            ));
        }
        if (self.max_streams as usize).saturating_mul(CALL_WINDOW) > window {
            check.problem(format!(
                "--connection-window is {window}: --max-streams {} needs {CALL_WINDOW} bytes for each call",
                self.max_streams
            ));
        }
    }
}

/// The folder without links and relative parts, as far as it exists.
fn resolved(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let mut rest = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        if let Ok(path) = existing.canonicalize() {
            return rest.iter().rev().fold(path, |path, name| path.join(name));
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else { return absolute };
        rest.push(name);
        existing = parent;
    }
}

/// Gathers problems, so that all are told at once.
#[derive(Default)]
struct Check {
    problems: Vec<String>,
}

impl Check {
    fn number<N: PartialOrd + fmt::Display>(&mut self, flag: &str, value: N, least: N, most: N) {
        if value < least || value > most {
            self.problem(format!("--{flag} is {value}: it must be between {least} and {most}"));
        }
    }

    fn duration(&mut self, flag: &str, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            let [value, least, most] = [value, least, most].map(humantime::format_duration);
            self.problem(format!("--{flag} is {value}: it must be between {least} and {most}"));
        }
    }

    fn problem(&mut self, line: String) {
        self.problems.push(line);
    }

    fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }
}

/// The address with this host and port. Of a name with several addresses, the first of IPv4, else the first.
fn address(text: &str) -> Result<SocketAddr, String> {
    let form = "write host:port, as 127.0.0.1:50051, localhost:50051 or [::]:50051";
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

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn with(flags: &[&str]) -> Config {
        Config::from_flags(std::iter::once(&"sentinel-server").chain(flags)).unwrap()
    }

    #[test]
    fn the_defaults_are_valid_and_as_documented() {
        let config = Config::default();
        config.validate().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
        assert_eq!(config.durability, Durability::Durable);
        assert_eq!(config.resend_for, Duration::from_secs(5));
        assert_eq!(config.retention, DAY);
    }

    #[test]
    fn a_redis_on_the_same_machine_has_a_processor() {
        let threads = |flags: &[&str]| [1, 2, 8].map(|processors| with(flags).threads_on(processors));
        assert_eq!(threads(&[]), [1, 1, 7]);
        assert_eq!(threads(&["--redis-url=redis://127.0.0.1:6379"]), [1, 1, 7]);
        assert_eq!(threads(&["--redis-url=redis://redis.shop:6379"]), [1, 2, 8]);
        assert_eq!(threads(&["--threads=3"]), [3, 3, 3]);
    }

    #[test]
    fn every_flag_has_its_variable_and_a_line_of_help() {
        for argument in Config::command().get_arguments() {
            let expected = format!("SENTINEL_{}", argument.get_id().as_str().to_uppercase());
            assert_eq!(argument.get_env(), Some(expected.as_ref()));
            assert!(argument.get_help().is_some(), "{expected} says nothing");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let error = with(&[
            "--threads=0",
            "--pool-size=0",
            "--batch-max-operations=513",
            "--store-timeout=0s",
            "--default-ttl=2h",
            "--retention=10ms",
            "--admin-listen=127.0.0.1:50051",
            "--redis-url=http://:secret@nowhere",
            "--log=sentinel=loud",
        ])
        .validate()
        .unwrap_err();
        assert_eq!(error.problems.len(), 9, "{error}");
        assert!(error.to_string().contains("--default-ttl is 2h: it must be between 1ms and 1h"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn windows_fit_into_the_budget_and_calls_into_the_window() {
        let problems = |flags: &[&str]| with(flags).validate().map_err(|error| error.problems);
        assert_eq!(problems(&["--max-connections=4096", "--receive-budget=536870912"]), Ok(()));
        let error = problems(&["--max-connections=4096"]).unwrap_err();
        assert!(error[0].contains("536870912") && error[0].contains("--receive-budget"), "{error:?}");
        let error = problems(&["--max-streams=1000"]).unwrap_err();
        assert!(error[0].contains("--connection-window is 131072"), "{error:?}");
        assert_eq!(problems(&["--max-streams=1000", "--connection-window=512000", "--max-connections=200"]), Ok(()));
    }

    #[test]
    fn the_state_is_not_kept_with_the_data() {
        let folder = tempfile::tempdir().unwrap();
        let (data, link) = (folder.path().join("data"), folder.path().join("link"));
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let state_in = |state: &Path| {
            let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
            with(&[&flag("data-dir", &data), &flag("state-dir", state)]).validate()
        };
        for inside in [data.clone(), data.join("state"), link.join("a/b")] {
            let error = state_in(&inside).expect_err("it lies in the data folder").to_string();
            assert!(error.contains("--state-dir"), "{error}");
        }
        state_in(&folder.path().join("state")).unwrap();
        state_in(&folder.path().join("data-state")).unwrap();
    }

    #[test]
    fn an_address_may_have_the_name_of_a_host() {
        let listen = |address: &str| with(&[&format!("--listen={address}")]).listen.to_string();
        assert_eq!(listen("localhost:50051"), "127.0.0.1:50051");
        assert_eq!((listen("[::1]:7"), listen("0.0.0.0:0")), ("[::1]:7".to_owned(), "0.0.0.0:0".to_owned()));
        for bad in ["", "50051", "localhost", "localhost:", "localhost:99999", ":50051", "no such host:1"] {
            let error = Config::from_flags(["sentinel-server", &format!("--listen={bad}")]).unwrap_err().to_string();
            assert!(error.contains("--listen") && error.contains("host:port"), "{bad}: {error}");
        }
    }

    #[test]
    fn free_ports_may_look_alike() {
        with(&["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]).validate().unwrap();
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = with(&["--redis-url=redis://shop:hunter2@127.0.0.1:6379/0"]);
        config.validate().unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_bad_duration_is_refused_by_its_flag() {
        let error = Config::from_flags(["sentinel-server", "--pool-wait=soon"]).unwrap_err().to_string();
        assert!(error.contains("--pool-wait"), "{error}");
    }
}
