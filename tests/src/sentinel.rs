//! The real server as a process: started with free ports, found by its log, killed when dropped
//! together with the Redis that it may have embedded.

use std::{
    fmt,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use inventory_sentinel::v1::{
    self, inventory_admin_client::InventoryAdminClient, inventory_sentinel_client::InventorySentinelClient,
};
use inventory_sentinel_client::Sentinel;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::{
    Redis, StoreFiles,
    credentials::AccessFiles,
    eventually, http_get, https_get,
    process::{self, Owned},
    test_client::TestClient,
};

/// Bytes of answers that may be buffered on a connection: room for the unread answers of 65,536 calls.
const ANSWERS_WINDOW: u32 = 32 * 1024 * 1024;

/// How a server is to be started.
#[derive(Clone, Debug, Default)]
pub struct ServerBuilder {
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    /// Descriptors that the server may have.
    descriptors: Option<u32>,
    keeps_files_of_a_failure: bool,
    /// The data of its embedded Redis, if they are not in its own folder.
    data: Option<PathBuf>,
    /// The authority of its certificate in PEM, if it serves with TLS.
    ca: Option<String>,
}

impl ServerBuilder {
    /// Adds flags as on the command line, separated by spaces.
    #[must_use]
    pub fn flags(mut self, flags: &str) -> Self {
        self.flags.extend(flags.split(' ').map(str::to_owned));
        self
    }

    /// Serves with TLS and the policy of these files.
    #[must_use]
    pub fn guarded(mut self, files: &AccessFiles) -> Self {
        self.ca = Some(files.authority.pem());
        self.flags(&files.flags())
    }

    /// The same, with client certificates: `required` or `optional`.
    #[must_use]
    pub fn guarded_with_client_ca(mut self, files: &AccessFiles, client_certificate: &str) -> Self {
        self.ca = Some(files.authority.pem());
        self.flags(&files.flags_with_client_ca(client_certificate))
    }

    /// Serves with TLS by flags or variables, with a certificate of this authority.
    #[must_use]
    pub fn trusting(self, ca: String) -> Self {
        Self { ca: Some(ca), ..self }
    }

    /// Uses this Redis instead of an embedded one.
    #[must_use]
    pub fn on(self, redis: &Redis) -> Self {
        self.flags(&format!("--redis-url {}", redis.url()))
    }

    /// The same, as this user of Redis, whose password is its name.
    #[must_use]
    pub fn on_as(self, redis: &Redis, user: &str) -> Self {
        self.variable("SENTINEL_REDIS_URL", &redis.url_as(user))
    }

    /// Stores its claims of the store's history in this folder.
    #[must_use]
    pub fn state_dir(self, folder: &Path) -> Self {
        self.flags(&format!("--state-dir {}", folder.display()))
    }

    /// Sets a variable of the environment, which is empty otherwise.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the data of its embedded Redis in this folder, instead of in its own.
    #[must_use]
    pub fn data_in(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self.flags(&format!("--data-dir {}", folder.display()))
    }

    /// Limits the open files and sockets of the server.
    #[must_use]
    pub fn descriptors(self, number: u32) -> Self {
        Self { descriptors: Some(number), ..self }
    }

    /// Keeps the folder with its log and its data if the test fails.
    #[must_use]
    pub fn keep_files_of_a_failure(self) -> Self {
        Self { keeps_files_of_a_failure: true, ..self }
    }

    /// Starts the server and waits until it is ready.
    pub async fn start(self) -> SentinelProcess {
        let server = self.start_unready().await;
        server.wait_until_ready().await;
        server
    }

    /// Starts the server and waits until it listens, whatever its store.
    pub async fn start_unready(self) -> SentinelProcess {
        let folder = TempDir::with_prefix("sentinel-").expect("a temporary folder");
        let child = self.spawn(&folder, 0);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (grpc, admin, channel) = (nowhere, nowhere, Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
        let mut server = SentinelProcess { child, grpc, admin, channel, launch: self, starts: 1, folder };
        server.wait_until_listening().await;
        server
    }

    /// Starts a server whose log has no addresses, on free ports, and waits until it is ready.
    pub async fn start_silent(self) -> SentinelProcess {
        let folder = TempDir::with_prefix("sentinel-").expect("a temporary folder");
        let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (grpc, admin) = (free(), free());
        let [grpc, admin] = [grpc, admin].map(|listener| listener.local_addr().expect("an address"));
        let launch = self.flags(&format!("--listen {grpc} --admin-listen {admin}"));
        let child = launch.spawn(&folder, 0);
        let channel = Endpoint::from_shared(format!("http://{grpc}")).expect("an address").connect_lazy();
        let server = SentinelProcess { child, grpc, admin, channel, launch, starts: 1, folder };
        server.wait_until_ready().await;
        server
    }

    /// Runs the server to its end, for a server that ends on startup: its exit code and its log.
    pub async fn run(self) -> (Option<i32>, String) {
        let folder = TempDir::with_prefix("sentinel-").expect("a temporary folder");
        let mut child = self.spawn(&folder, 0);
        let status = exit(&mut child).await;
        (status.code(), fs::read_to_string(folder.path().join("server-0.log")).expect("a log"))
    }

    fn spawn(&self, folder: &TempDir, start: usize) -> Owned {
        let log = File::create(folder.path().join(format!("server-{start}.log"))).expect("a log file");
        let server = process::built("sentinel-server");
        let mut command = match self.descriptors {
            None => Command::new(server),
            Some(number) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {number} && exec \"$0\" \"$@\"")]).arg(server);
                shell
            }
        };
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RUST_BACKTRACE", "1");
        if let Some(temporary) = std::env::var_os("TMPDIR") {
            command.env("TMPDIR", temporary);
        }
        let child = command
            // As variables of the environment, so that a flag overrides them.
            .env("SENTINEL_LISTEN", "127.0.0.1:0")
            .env("SENTINEL_ADMIN_LISTEN", "127.0.0.1:0")
            .env("SENTINEL_DATA_DIR", folder.path().join("data"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        Owned(child)
    }
}

/// One server.
#[derive(Debug)]
pub struct SentinelProcess {
    child: Owned,
    grpc: SocketAddr,
    admin: SocketAddr,
    channel: Channel,
    launch: ServerBuilder,
    starts: usize,
    folder: TempDir,
}

impl SentinelProcess {
    /// The settings before the start.
    pub fn launch() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// One with an embedded Redis, ready.
    pub async fn start() -> SentinelProcess {
        ServerBuilder::default().start().await
    }

    /// One on this Redis, ready.
    pub async fn on(redis: &Redis) -> SentinelProcess {
        ServerBuilder::default().on(redis).start().await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The address of its gRPC port.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// The address of its gRPC port for operators.
    pub fn grpc_admin(&self) -> SocketAddr {
        let log = fs::read_to_string(self.log_path(self.starts - 1)).expect("a log");
        address(&log, "grpc_admin").expect("a server with such a port")
    }

    /// The address of its operator's port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// A connection to it, the same each time.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The raw client for checkout.
    pub fn checkout(&self) -> InventorySentinelClient<Channel> {
        InventorySentinelClient::new(self.channel())
    }

    /// The raw client for operators.
    pub fn admin(&self) -> InventoryAdminClient<Channel> {
        InventoryAdminClient::new(self.channel())
    }

    /// The client crate's client.
    pub async fn client(&self) -> Sentinel {
        Sentinel::connect(format!("http://{}", self.grpc)).await.expect("the server can be connected to")
    }

    /// All raw clients, for one namespace.
    pub fn shop(&self, namespace: &str) -> TestClient {
        TestClient::new(self.channel(), namespace)
    }

    /// All raw clients for one namespace, on a connection of their own.
    pub async fn shop_apart(&self, namespace: &str) -> TestClient {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).expect("an address");
        TestClient::new(endpoint.connect().await.expect("a connection"), namespace)
    }

    /// GetServerInfo.
    pub async fn info(&self) -> v1::GetServerInfoResponse {
        let answer = self.admin().get_server_info(v1::GetServerInfoRequest {}).await;
        answer.expect("the information of the server").into_inner()
    }

    /// Whether it reports that it is ready, and its report.
    pub async fn readyz(&self) -> (bool, String) {
        match self.get("/readyz", "").await {
            Ok((status, body)) => (status == 200, body),
            Err(error) => (false, error.to_string()),
        }
    }

    /// A page of its operator's port, with this bearer token if it is not empty.
    ///
    /// # Errors
    /// It does not respond.
    pub async fn get(&self, path: &str, bearer: &str) -> anyhow::Result<(u16, String)> {
        match &self.launch.ca {
            Some(ca) => https_get(self.admin, path, ca, bearer).await,
            None => http_get(self.admin, path).await,
        }
    }

    /// A new connection with these TLS settings.
    ///
    /// # Errors
    /// The handshake fails.
    pub async fn connect(&self, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
        self.endpoint(tls).connect().await
    }

    /// A new connection to its gRPC port for operators with these TLS settings.
    ///
    /// # Errors
    /// The handshake fails.
    pub async fn connect_to_grpc_admin(&self, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
        endpoint(self.grpc_admin(), tls).connect().await
    }

    /// The endpoint of its gRPC port with these TLS settings.
    pub fn endpoint(&self, tls: ClientTlsConfig) -> Endpoint {
        endpoint(self.grpc, tls)
    }

    /// Waits until it is ready.
    pub async fn wait_until_ready(&self) {
        eventually("the server is ready", async || self.readyz().await.0.then_some(())).await;
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        http_get(self.admin, "/metrics").await.expect("metrics").1
    }

    /// The value of one series, as it is in the text: `name{label="value"}`.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {series} in {text}"))
    }

    /// All that it has logged, over all its starts.
    pub fn log(&self) -> String {
        (0..self.starts).map(|start| fs::read_to_string(self.log_path(start)).expect("a log")).collect()
    }

    /// The lines of its log that are JSON, as they should all be.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Kills it, as a crash would; an embedded Redis lives on.
    pub fn kill9(&mut self) {
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
    }

    /// Suspends it: it does nothing until [`SentinelProcess::cont`]. An embedded Redis continues.
    pub fn stop(&self) {
        self.child.signal(Signal::STOP);
    }

    /// Resumes it.
    pub fn cont(&self) {
        self.child.signal(Signal::CONT);
    }

    /// The data of its embedded Redis.
    fn data(&self) -> PathBuf {
        self.launch.data.clone().unwrap_or_else(|| self.folder.path().join("data"))
    }

    /// Where its embedded Redis listens, unless the path of the folder is long.
    pub fn embedded_socket(&self) -> PathBuf {
        self.data().join("redis.sock")
    }

    /// The URL of its embedded Redis, unless the path of the folder is long.
    pub fn embedded_url(&self) -> String {
        format!("unix://{}", self.embedded_socket().display())
    }

    /// The data files of its embedded Redis.
    pub fn embedded_files(&self) -> StoreFiles {
        StoreFiles::of(&self.data())
    }

    /// Sends one signal to stop.
    pub fn terminate(&self) {
        self.child.signal(Signal::TERM);
    }

    /// Waits until it has ended.
    pub async fn exit(&mut self) -> ExitStatus {
        exit(&mut self.child).await
    }

    /// Kills it, if it still runs, and starts it again with the same flags and the same data.
    pub async fn restart(&mut self) {
        self.restart_unready().await;
        self.wait_until_ready().await;
    }

    /// As [`SentinelProcess::restart`], but does not wait for the store.
    pub async fn restart_unready(&mut self) {
        self.kill9();
        self.child = self.launch.spawn(&self.folder, self.starts);
        self.starts += 1;
        self.wait_until_listening().await;
    }

    /// The process of its embedded Redis, if it has one that runs.
    pub fn embedded_redis(&self) -> Option<u32> {
        // Its lock is held for as long as the child lives, and names it.
        let path = self.data().join("redis.lock");
        let lock = File::open(&path).ok()?;
        lock.try_lock().is_err().then(|| fs::read_to_string(path).ok()?.trim().parse().ok())?
    }

    /// Kills its embedded Redis, as a crash would.
    pub fn kill9_redis(&self) {
        if let Some(pid) = self.embedded_redis().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    fn log_path(&self, start: usize) -> PathBuf {
        self.folder.path().join(format!("server-{start}.log"))
    }

    async fn wait_until_listening(&mut self) {
        let (log, child) = (self.log_path(self.starts - 1), &mut self.child);
        let (grpc, admin) = eventually("the server listens", async || {
            let text = fs::read_to_string(&log).expect("a log");
            assert!(child.is_running(), "the server ended: {text}");
            Some((address(&text, "grpc")?, address(&text, "admin")?))
        })
        .await;
        (self.grpc, self.admin) = (grpc, admin);
        // Room for all answers of a rush of calls before the test reads them.
        let endpoint = Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
        self.channel = endpoint.initial_connection_window_size(ANSWERS_WINDOW).connect_lazy();
    }
}

/// Names this start of the server in a report.
impl fmt::Display for SentinelProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "start {} at {} (process {})", self.starts - 1, self.grpc, self.pid())
    }
}

impl Drop for SentinelProcess {
    fn drop(&mut self) {
        self.kill9();
        self.kill9_redis();
        if std::thread::panicking() {
            eprintln!("--- log of the server at {} ---\n{}", self.grpc, self.log());
            if self.launch.keeps_files_of_a_failure {
                self.folder.disable_cleanup(true);
                eprintln!("--- its files are in {} ---", self.folder.path().display());
            }
        }
    }
}

fn endpoint(address: SocketAddr, tls: ClientTlsConfig) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    endpoint.tls_config(tls).expect("TLS settings")
}

async fn exit(child: &mut Owned) -> ExitStatus {
    eventually("the server ends", async || child.0.try_wait().expect("a child of this process")).await
}

/// The address of a port in the log, in either of its forms.
fn address(log: &str, port: &str) -> Option<SocketAddr> {
    let is_it = |line: &&str| {
        line.contains("listening")
            && (line.contains(&format!(r#""port":"{port}""#)) || line.contains(&format!(r#"port="{port}""#)))
    };
    let (_, rest) = log.lines().find(is_it)?.split_once("address")?;
    let start = rest.find(|character: char| character.is_ascii_digit())?;
    let end = rest[start..].find(['"', ' ', ',']).map_or(rest.len(), |end| start + end);
    rest[start..end].parse().ok()
}
