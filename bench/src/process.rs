//! Processes under measurement, each in a separate temporary folder: this server, the no-op server, a Redis.
//! Starts and stops them, and reads what they have used.

use std::{
    fs,
    future::Future,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use deadpool_redis::redis;
use inventory_sentinel_client::{Builder, Sentinel};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::credentials::{Bearer, Credentials, Guard};
use crate::usage::{self, Usage};

/// Longest wait for a process to be ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two checks of one that starts or stops.
const POLL: Duration = Duration::from_millis(20);
/// Longest wait for it to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Pause until the next signal to stop.
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);
/// Most seconds by which Redis's own account of its CPU time and the operating system's may differ.
const ACCOUNTS_AGREE: f64 = 0.1;
/// Bytes of answers on a connection that callers have not read yet: room for any load of the benchmarks.
const WINDOW: u32 = 32 << 20;

/// A child process that is ended, in order if it will, when this is dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    stop: Signal,
}

impl Process {
    /// Starts it, its output going to a file of the folder. `stop` is what ends it and all that it has started.
    pub(crate) fn start(command: &mut Command, folder: &Path, stop: Signal) -> Result<Self> {
        let log = folder.join("process.log");
        let out = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, log, stop })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is ready; fails as soon as it has ended.
    pub(crate) async fn wait_until<F: Future<Output = bool>>(&mut self, is_ready: impl Fn() -> F) -> Result<()> {
        let give_up = Instant::now() + START_LIMIT;
        while !is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}:\n{}", fs::read_to_string(&self.log)?);
            }
            if Instant::now() > give_up {
                bail!("it was not ready in {START_LIMIT:?}:\n{}", fs::read_to_string(&self.log)?);
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let start = Instant::now();
        let mut signal_at = start;
        while start.elapsed() < STOP_LIMIT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            // Again and again: one that is just starting may have missed the first.
            if Instant::now() >= signal_at {
                let _ = kill_process(Pid::from_child(&self.child), self.stop);
                signal_at += SIGNAL_AGAIN;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gRPC server, and its Redis, if it is one of those.
pub(crate) struct Server {
    // In this order, so that the server ends first and its folder is removed last.
    process: Process,
    redis: Option<Redis>,
    address: SocketAddr,
    /// Of its metrics; `None` of one that only answers.
    admin: Option<SocketAddr>,
    guard: Guard,
    credentials: Option<Credentials>,
    _folder: TempDir,
}

impl Server {
    /// Starts our server with these flags, and a Redis for it alone, and waits until it serves.
    pub(crate) async fn start(binary: &Path, durability: Durability, flags: &[&str]) -> Result<Self> {
        Self::start_by(Command::new(binary), Redis::start(durability).await?, durability, flags).await
    }

    /// The same with this Redis. The command runs the binary: directly, or under a tool.
    pub(crate) async fn start_by(
        command: Command,
        redis: Redis,
        durability: Durability,
        flags: &[&str],
    ) -> Result<Self> {
        Self::start_guarded(command, redis, durability, flags, Guard::default()).await
    }

    /// The same, guarded in this way.
    pub(crate) async fn start_guarded(
        mut command: Command,
        redis: Redis,
        durability: Durability,
        flags: &[&str],
        guard: Guard,
    ) -> Result<Self> {
        let (folder, address, admin) = (tempfile::tempdir()?, free_address()?, free_address()?);
        let credentials = if guard == Guard::default() { None } else { Some(Credentials::new()?) };
        command.args(credentials.iter().flat_map(|credentials| credentials.flags(guard)));
        command.arg("--listen").arg(address.to_string());
        command.arg("--admin-listen").arg(admin.to_string());
        command.arg("--redis-url").arg(redis.uri()).args(["--durability", durability.name()]).args(flags);
        Self::wait(command, folder, address, Some((admin, redis)), (guard, credentials)).await
    }

    /// Starts the server whose handlers answer at once.
    ///
    /// `threads`: on which it serves; `None` means as many as our server takes here.
    pub(crate) async fn start_no_op(binary: &Path, threads: Option<usize>) -> Result<Self> {
        Self::start_no_op_by(Command::new(binary), threads).await
    }

    /// The same; the command runs the binary: directly, or under a tool.
    pub(crate) async fn start_no_op_by(mut command: Command, threads: Option<usize>) -> Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        command.arg(address.to_string()).args(threads.map(|threads| threads.to_string()));
        Self::wait(command, folder, address, None, (Guard::default(), None)).await
    }

    async fn wait(
        mut command: Command,
        folder: TempDir,
        address: SocketAddr,
        ours: Option<(SocketAddr, Redis)>,
        (guard, credentials): (Guard, Option<Credentials>),
    ) -> Result<Self> {
        let process = Process::start(&mut command, folder.path(), Signal::TERM)?;
        let (admin, redis) = ours.unzip();
        let mut server = Self { process, redis, address, admin, guard, credentials, _folder: folder };
        let endpoint = server.endpoint()?;
        let is_serving = || async {
            let Ok(channel) = endpoint.connect().await else { return false };
            let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
            let reply = health.check(tonic_health::pb::HealthCheckRequest::default()).await;
            reply.is_ok_and(|reply| reply.into_inner().status == 1)
        };
        server.process.wait_until(is_serving).await.context("the server")?;
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its Redis; `None` of one that only answers.
    pub(crate) fn redis(&self) -> Option<&Redis> {
        self.redis.as_ref()
    }

    fn uri(&self) -> String {
        format!("{}://{}", if self.guard.has_tls { "https" } else { "http" }, self.address)
    }

    /// The settings of the Rust client for it.
    pub(crate) fn client(&self) -> Builder {
        let mut client = Sentinel::builder(self.uri());
        if let Some(credentials) = &self.credentials {
            if self.guard.has_tls {
                client = client.tls_ca(credentials.ca.as_str());
            }
            if self.guard.has_policy {
                client = client.bearer_token(credentials.token.as_str());
            }
        }
        client
    }

    /// The settings of the generated clients for it.
    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        let endpoint = Endpoint::new(self.uri())?.tcp_nodelay(true).initial_connection_window_size(WINDOW);
        Ok(match &self.credentials {
            Some(credentials) if self.guard.has_tls => {
                let ca = Certificate::from_pem(&credentials.ca);
                endpoint.tls_config(ClientTlsConfig::new().ca_certificate(ca))?
            }
            _ => endpoint,
        })
    }

    /// The authority of its certificate in PEM, if it has TLS.
    pub(crate) fn ca(&self) -> Option<&str> {
        self.credentials.as_ref().filter(|_| self.guard.has_tls).map(|credentials| credentials.ca.as_str())
    }

    /// The header of the calls that it accepts: its token, if it has a policy.
    pub(crate) fn bearer(&self) -> Result<Bearer> {
        let credentials = self.credentials.as_ref().filter(|_| self.guard.has_policy);
        Bearer::new(credentials.map(|credentials| credentials.token.as_str()))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of its metrics; `None` of one that only answers.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// A separate connection.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        Ok(self.endpoint()?.connect().await?)
    }

    /// The CPU time of callers in this process, the server and its Redis so far.
    pub(crate) async fn usage(&self) -> Result<Usage> {
        let mut usage =
            Usage { client: usage::own_cpu()?, server: Some(usage::cpu_of(self.process.id())?), ..Usage::default() };
        if let Some(redis) = &self.redis {
            usage.store = Some(redis.cpu().await?);
        }
        // The metrics of a guarded server need TLS or a credential.
        if let (Some(admin), None) = (self.admin, &self.credentials) {
            usage.batches = usage::batches_of(admin).await?;
        }
        Ok(usage)
    }

    /// Bytes of memory that the server has.
    pub(crate) fn memory(&self) -> Result<u64> {
        usage::memory_of(self.process.id())
    }
}

/// When a Redis syncs what it writes to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Every second.
    Fast,
    /// Before each answer.
    Durable,
}

impl Durability {
    /// As the server's flag has it, and the reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Durable => "durable",
        }
    }

    fn appendfsync(self) -> &'static str {
        match self {
            Self::Fast => "everysec",
            Self::Durable => "always",
        }
    }
}

/// A Redis as the server's own would be, but on TCP: that is how services reach one in production, and all the
/// candidates shall reach it alike.
pub(crate) struct Redis {
    process: Process,
    address: SocketAddr,
    connection: redis::aio::MultiplexedConnection,
    _folder: TempDir,
}

impl Redis {
    pub(crate) async fn start(durability: Durability) -> Result<Self> {
        Self::start_by(Command::new(Self::program()?), durability).await
    }

    /// Which program it is.
    pub(crate) fn program() -> Result<&'static str> {
        let runs = |program: &&str| Command::new(program).arg("--version").output().is_ok();
        let program = ["valkey-server", "redis-server"].into_iter().find(runs);
        program.context("neither valkey-server nor redis-server is in PATH")
    }

    /// The same; the command runs the program: directly, or under a tool.
    pub(crate) async fn start_by(mut command: Command, durability: Durability) -> Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        command.args(["--bind", "127.0.0.1", "--port"]).arg(address.port().to_string());
        command.args(["--appendonly", "yes", "--appendfsync", durability.appendfsync(), "--save", ""]);
        command.args(["--maxmemory-policy", "noeviction", "--daemonize", "no"]);
        // A rewrite of the log takes a core for seconds, and would meet some rows by chance and others not.
        command.args(["--auto-aof-rewrite-percentage", "0"]);
        command.arg("--dir").arg(folder.path());
        let mut process = Process::start(&mut command, folder.path(), Signal::TERM)?;
        let uri = uri_of(address);
        process.wait_until(|| async { connect_redis(&uri).await.is_ok() }).await.context("redis")?;
        Ok(Self { process, address, connection: connect_redis(&uri).await?, _folder: folder })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn uri(&self) -> String {
        uri_of(self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection for its setup and its queries.
    pub(crate) fn connection(&self) -> redis::aio::MultiplexedConnection {
        self.connection.clone()
    }

    /// CPU seconds that it has used so far, by its own account, which is finer than the operating system's and has
    /// to agree with it.
    pub(crate) async fn cpu(&self) -> Result<f64> {
        let info: String = redis::cmd("INFO").arg("cpu").query_async(&mut self.connection()).await?;
        let reported = usage::cpu_of_info(&info).with_context(|| format!("unexpected: {info}"))?;
        let counted = usage::cpu_of(self.process.id())?;
        ensure!(
            (reported - counted).abs() < ACCOUNTS_AGREE,
            "INFO reports {reported} CPU seconds, and /proc {counted}"
        );
        Ok(reported)
    }
}

fn uri_of(redis: SocketAddr) -> String {
    format!("redis://{redis}")
}

async fn connect_redis(uri: &str) -> Result<redis::aio::MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(START_LIMIT));
    let client = redis::Client::open(uri)?;
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
