//! A Redis for one test: one process in a temporary folder, on a unix socket, with faults on request.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use deadpool_redis::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, aio::MultiplexedConnection, cmd};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    BOUND, eventually,
    files::{StoreCopy, StoreFiles},
    process::{self, Owned},
    script::partition_keys,
};

/// The folder of what it has synced, in its own folder (tests/disk).
const SYNCED: &str = "synced";
/// The file of a separate clock, in its folder (tests/clock).
const CLOCK: &str = "clock";

/// One redis-server or valkey-server; killed when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Owned,
    options: Vec<String>,
    folder: TempDir,
}

impl Redis {
    /// One that suits the durable mode: it syncs to disk before each answer, and never evicts.
    pub async fn start() -> Redis {
        Redis::start_with(&["--appendonly yes", "--appendfsync always"]).await
    }

    /// As [`Redis::start`], with a time of day that [`Redis::step_clock`] changes.
    pub async fn start_with_clock() -> Redis {
        let folder = TempDir::with_prefix("sentinel-redis-").expect("a temporary folder");
        fs::write(folder.path().join(CLOCK), 0i64.to_ne_bytes()).expect("the file of the clock");
        Redis::start_in(folder, &["--appendonly yes", "--appendfsync always"]).await
    }

    /// As [`Redis::start`], for tests that call [`Redis::lose_power`].
    pub async fn start_with_disk() -> Redis {
        let folder = TempDir::with_prefix("sentinel-redis-").expect("a temporary folder");
        fs::create_dir(folder.path().join(SYNCED)).expect("the folder of what is synced");
        Redis::start_in(folder, &["--appendonly yes", "--appendfsync always"]).await
    }

    /// One without a disk, for the `fast` mode only.
    pub async fn start_in_memory() -> Redis {
        Redis::start_with(&["--appendonly no"]).await
    }

    /// One with these options, each as on the command line, on top of: no TCP, no snapshots.
    pub async fn start_with(options: &[&str]) -> Redis {
        Redis::start_in(TempDir::with_prefix("sentinel-redis-").expect("a temporary folder"), options).await
    }

    async fn start_in(folder: TempDir, options: &[&str]) -> Redis {
        let options: Vec<String> = options.iter().flat_map(|option| option.split(' ')).map(str::to_owned).collect();
        let child = spawn(&folder, &options);
        let redis = Redis { child, options, folder };
        redis.wait_until_up().await;
        redis
    }

    /// For `--redis-url`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The same, as this user of Redis, whose password is its name.
    pub fn url_as(&self, user: &str) -> String {
        format!("{}?user={user}&pass={user}", self.url())
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// A raw connection.
    pub async fn connection(&self) -> MultiplexedConnection {
        patient(&self.url()).await
    }

    /// A raw connection as this user, whose password is its name.
    pub async fn connection_as(&self, user: &str) -> MultiplexedConnection {
        patient(&self.url_as(user)).await
    }

    async fn try_connection(&self) -> Result<MultiplexedConnection, deadpool_redis::redis::RedisError> {
        Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// Gives a user of Redis these ACL rules, on top of those that it has. Its password is its name.
    pub async fn permit(&self, user: &str, rules: &str) {
        self.execute::<()>(&format!("ACL SETUSER {user} on >{user} {rules}")).await;
    }

    /// Sends one command, its words separated by spaces.
    pub async fn execute<T: FromRedisValue>(&self, command: &str) -> T {
        self.query(&words(command)).await
    }

    /// Fields of both generations of records of the first partition of `sale`; each has one that is no record.
    pub async fn records(&self) -> [i64; 2] {
        let keys = partition_keys("sale", 0);
        let [a, b] = keys.records().map(Cmd::hlen);
        [self.query(&a).await, self.query(&b).await]
    }

    /// The number of events in the first partition of `sale`.
    pub async fn events(&self) -> i64 {
        self.query(cmd("XLEN").arg(partition_keys("sale", 0).events())).await
    }

    /// Deletes all but the newest events of the first partition of `sale`.
    pub async fn trim_events(&self, kept: usize) {
        self.query::<i64>(cmd("XTRIM").arg(partition_keys("sale", 0).events()).arg("MAXLEN").arg(kept)).await;
    }

    /// The number of counts of buyers in the first partition of `sale`.
    pub async fn buyer_counts(&self) -> i64 {
        self.query(&Cmd::hlen(partition_keys("sale", 0).buyers())).await
    }

    /// Sends one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query_async(&mut self.connection().await).await.expect("redis obeys")
    }

    /// Everything under keys that contain this text, each as a digest of its value. Digests ignore the order in which
    /// Redis stores the elements.
    pub async fn digest(&self, part: &str) -> Vec<(String, String)> {
        let mut connection = self.connection().await;
        let mut keys: Vec<String> = words("KEYS *").query_async(&mut connection).await.expect("the keys");
        keys.retain(|key| key.contains(part));
        keys.sort();
        let mut digest = words("DEBUG DIGEST-VALUE");
        digest.arg(&keys);
        let digests: Vec<String> = digest.query_async(&mut connection).await.expect("a digest of each");
        keys.into_iter().zip(digests).collect()
    }

    /// Its clock, in milliseconds since 1970.
    pub async fn now(&self) -> i64 {
        let (seconds, micros): (i64, i64) = self.execute("TIME").await;
        seconds * 1_000 + micros / 1_000
    }

    /// Sets its time of day so many milliseconds ahead of this machine's, or behind it. Only for one
    /// that was started with a separate clock.
    pub fn step_clock(&self, milliseconds: i64) {
        let file = self.folder.path().join(CLOCK);
        let mut file = fs::OpenOptions::new().write(true).open(file).expect("a Redis with a separate clock");
        // One write, so that no half of it is read.
        std::io::Write::write_all(&mut file, &milliseconds.to_ne_bytes()).expect("a step");
    }

    /// Kills it, as a crash would.
    pub fn kill9(&mut self) {
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
    }

    /// Kills it together with its machine: of its append-only files only what was synced to disk is left. Only for
    /// one that was started with a disk.
    pub fn lose_power(&mut self) {
        self.kill9();
        self.files().keep_synced(&self.folder.path().join(SYNCED));
    }

    /// Suspends it: connections stay open, and nothing is answered.
    pub fn stop(&self) {
        self.child.signal(Signal::STOP);
    }

    /// Resumes it.
    pub fn cont(&self) {
        self.child.signal(Signal::CONT);
    }

    /// Kills it, if it still runs, and starts it again on the same files and the same socket.
    pub async fn restart(&mut self) {
        self.kill9();
        self.child = spawn(&self.folder, &self.options);
        self.wait_until_up().await;
    }

    /// Its data files.
    pub fn files(&self) -> StoreFiles {
        StoreFiles::of(self.folder.path())
    }

    /// Kills it, puts an older copy in the place of its files and starts it again.
    pub async fn restart_with_copy(&mut self, copy: &StoreCopy) {
        self.kill9();
        self.files().put_back(copy);
        self.restart().await;
    }

    /// Kills it, removes its files and starts it again.
    pub async fn restart_empty(&mut self) {
        self.kill9();
        self.files().remove();
        self.restart().await;
    }

    async fn wait_until_up(&self) {
        eventually("redis answers", async || {
            let mut connection = self.try_connection().await.ok()?;
            words("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
    }
}

/// A connection that waits for each reply as long as a test does.
pub(crate) async fn patient(url: &str) -> MultiplexedConnection {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(BOUND));
    let client = Client::open(url).expect("a URL");
    client.get_multiplexed_async_connection_with_config(&config).await.expect("redis answers")
}

fn spawn(folder: &TempDir, options: &[String]) -> Owned {
    let program = process::find(&["valkey-server", "redis-server"]);
    let socket = folder.path().join("redis.sock");
    let _ = std::fs::remove_file(&socket);
    let mut command = Command::new(program);
    let clock = folder.path().join(CLOCK);
    if clock.exists() {
        command.env("LD_PRELOAD", process::built("libsentinel_test_clock.so")).env("SENTINEL_TEST_CLOCK", clock);
    }
    let synced = folder.path().join(SYNCED);
    if synced.exists() {
        command.env("LD_PRELOAD", process::built("libsentinel_test_disk.so")).env("SENTINEL_TEST_SYNCED", synced);
    }
    let child = command
        .args(["--port", "0", "--save", "", "--daemonize", "no", "--enable-debug-command", "yes", "--dir"])
        .arg(folder.path())
        .arg("--unixsocket")
        .arg(socket)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis starts");
    Owned(child)
}

fn words(command: &str) -> Cmd {
    let mut cmd = Cmd::new();
    for word in command.split(' ') {
        cmd.arg(word);
    }
    cmd
}
