//! The ranges of the settings, and the combinations that are refused. Reads the file system only to
//! resolve links.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use inventory_sentinel_script::limits::MAX_OPERATIONS;

use super::{Config, ConfigError};
use crate::domain;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Bytes of a connection's window that each of its calls needs. The HTTP/2 library counts a small
/// unread frame as 256 bytes. It closes a connection if these fill more than half of its window, so
/// every call needs room for its one frame.
const CALL_WINDOW: usize = 512;

impl Config {
    /// Checks the values, each and together.
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
        check.number("batch-max-operations", self.batch_max_operations, 1, MAX_OPERATIONS);
        check.number("batches-in-flight", self.batches_in_flight, 1, 64);
        check.number("max-accepts", self.max_accepts, 1, 1_000_000);
        check.duration("untrusted-cpu-time", self.untrusted_cpu_time, MILLISECOND, 10_000 * MILLISECOND);
        check.number("max-connections", self.max_connections, 1, 1_000_000);
        check.number("max-streams", self.max_streams, 1, 65_536);
        check.number("connection-window", self.connection_window, 65_535, 1 << 30);
        check.number("receive-budget", self.receive_budget, 1 << 20, 1 << 40);
        check.number("request-budget", self.request_budget, 1 << 20, 1 << 40);
        check.number("max-unfinished-requests", self.max_unfinished_requests, 1, 1_000_000);
        check.number("response-budget", self.response_budget, 1 << 20, 1 << 40);
        check.number("max-request-streams", self.max_request_streams, 1, 1_000_000);
        check.number("max-admin-calls", self.max_admin_calls, 1, 1_000_000);
        let security = &self.security;
        check.number("max-failed-authentications", security.max_failed_authentications, 1, 1_000_000);
        check.duration("reload-interval", security.reload_interval, 100 * MILLISECOND, 5_000 * MILLISECOND);
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
        self.check_access(&mut check);
        if let Some(state) = &self.state_dir
            && resolved(state).starts_with(resolved(&self.data_dir))
        {
            check.problem(format!(
                "--state-dir {} is in --data-dir {}: a backup of the data would restore it with them",
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

    /// Checks the addresses, and that no port is unprotected by accident.
    fn check_access(&self, check: &mut Check) {
        let security = &self.security;
        let grpc_admin = security.grpc_admin_listen.map(|address| ("grpc-admin-listen", address));
        let ports: Vec<_> =
            [("listen", self.listen), ("admin-listen", self.admin_listen)].into_iter().chain(grpc_admin).collect();
        for (i, (flag, address)) in ports.iter().enumerate() {
            for (other, _) in ports[i + 1..].iter().filter(|(_, other)| other == address && address.port() != 0) {
                check.problem(format!("--{flag} and --{other} are both {address}: give them different ports"));
            }
            let missing = security.missing_protection();
            if !address.ip().to_canonical().is_loopback() && !missing.is_empty() && !security.insecure {
                check.problem(format!(
                    "--{flag} {address} is not a loopback address, and the server has no {}: set --tls-cert, \
                     --tls-key and --policy (`sentinelctl credentials init` creates the files), or accept that every \
                     machine that reaches the port can read and change everything with --insecure",
                    missing.join(" and no ")
                ));
            }
        }
        let files = [
            ("tls-cert", &security.tls_cert),
            ("tls-key", &security.tls_key),
            ("client-ca", &security.client_ca),
            ("policy", &security.policy),
            ("audit-log", &security.audit_log),
        ];
        for (flag, path) in files {
            if path.as_deref().is_some_and(is_content) {
                // It can be a key, so it is not printed.
                check.problem(format!("--{flag} is the content of a file: set its path"));
            }
        }
        if security.tls_cert.is_some() != security.tls_key.is_some() {
            check.problem("--tls-cert and --tls-key belong together: set both".to_owned());
        }
        if security.client_ca.is_some() && security.tls_cert.is_none() {
            check.problem("--client-ca needs --tls-cert and --tls-key".to_owned());
        }
        if security.client_ca.is_some() && security.policy.is_none() {
            check.problem("--client-ca needs --policy, which names the certificates and their roles".to_owned());
        }
    }

    /// Checks the windows against the number of connections and of their calls.
    fn check_windows(&self, check: &mut Check) {
        let window = self.connection_window as usize;
        if self.max_connections.saturating_mul(window) > self.receive_budget {
            check.problem(format!(
                "--max-connections {} with a --connection-window of {window} bytes can take {} bytes of memory: this \
                 is more than --receive-budget {}",
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

/// The folder without links and relative parts. Parts that do not exist stay as they are.
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

/// Whether a path is the content of a file by mistake.
fn is_content(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains(['\n', '\r']) || text.contains("-----BEGIN")
}

/// Collects all problems.
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
