//! Connections to one Redis. Their number is bounded, and so is every wait. A connection that might receive a late
//! reply is not used again. Sends no command of the service, except those that open and check a connection.
//!
//! A server has several pools, so that one kind of work takes no connection from another: checkout, which only the
//! lanes use; the control of namespaces; lists and audits; watches; the health check.

use std::fmt::Display;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use deadpool::managed::{self, Metrics, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, Pipeline, ProtocolVersion, RedisError, Value, cmd,
};

use super::error::{self, StoreError};
use crate::{
    config::{Config, RedisUrl},
    domain::Term,
};

/// The limits of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most connections.
    pub(crate) size: usize,
    /// Longest wait for a free connection.
    pub(crate) wait: Duration,
    /// Longest time to open a connection.
    pub(crate) connect: Duration,
    /// Longest wait for a reply.
    pub(crate) reply: Duration,
}

/// Connections for the control of namespaces: to find, open, configure and delete them.
const CONTROL_CONNECTIONS: usize = 4;

impl Limits {
    /// The limits of the pool for the control of namespaces.
    pub(crate) fn control(self) -> Limits {
        Limits { size: CONTROL_CONNECTIONS, ..self }
    }

    /// The limits of the pool for lists and audits.
    pub(crate) fn lists(self, config: &Config) -> Limits {
        Limits { size: config.list_connections, ..self }
    }
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Limits {
        Limits {
            size: config.pool_size,
            wait: config.pool_wait,
            connect: config.connect_timeout,
            reply: config.store_timeout,
        }
    }
}

/// Whether an idle connection is checked before a pool returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handout {
    /// It is not checked. For batches, which are sent again with the same ids after a failure.
    Unchecked,
    /// Redis has just responded on it. For reads, which have no second attempt.
    Checked,
}

/// A pool of connections. Opens each connection on demand.
#[derive(Clone)]
pub(crate) struct Pool {
    inner: managed::Pool<Manager>,
    url: RedisUrl,
    peer: Peer,
}

/// The Redis process at the other end of the pools. Its number changes when a dead connection to it is found.
#[derive(Clone, Debug, Default)]
struct Peer(Arc<AtomicU64>);

impl Peer {
    fn number(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Records that the peer with this number is gone. Only the first connection that finds it changes the number.
    fn set_gone(&self, number: u64) {
        let _ = self.0.compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Pool {
    pub(crate) fn new(url: &RedisUrl, limits: Limits) -> Result<Pool, StoreError> {
        Pool::to(Peer::default(), url, limits, Handout::Unchecked)
    }

    /// Another pool for the same Redis. If one of the pools finds the peer dead, it is dead for all.
    pub(crate) fn sibling(&self, limits: Limits, handout: Handout) -> Result<Pool, StoreError> {
        Pool::to(self.peer.clone(), &self.url, limits, handout)
    }

    fn to(peer: Peer, url: &RedisUrl, limits: Limits, handout: Handout) -> Result<Pool, StoreError> {
        let info = connection_info(url)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limits.connect))
            .set_response_timeout(Some(limits.reply));
        let manager = deadpool_redis::Manager::new_with_config(info, config)
            .map_err(|error| StoreError::from_redis(&error, false))?;
        let inner = managed::Pool::builder(Manager { inner: manager, peer: peer.clone(), handout })
            .max_size(limits.size)
            .wait_timeout(Some(limits.wait))
            .create_timeout(Some(limits.connect + limits.reply))
            // The buffers of the connection used last are in the cache.
            .queue_mode(QueueMode::Lifo)
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::not_applied(error.to_string()))?;
        Ok(Pool { inner, url: url.clone(), peer })
    }

    /// An exclusive connection, until it is dropped.
    pub(crate) async fn get(&self) -> Result<Connection, StoreError> {
        match self.inner.get().await {
            Ok(object) => Ok(Connection { object: Some(object), clean: true, closes_on_drop: false }),
            // Redis has responded with an error.
            Err(PoolError::Backend(error)) if error.code().is_some() => Err(StoreError::from_redis(&error, false)),
            Err(PoolError::Backend(error)) => Err(self.cannot_connect(&error)),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(StoreError::Busy),
            Err(PoolError::Timeout(_)) => Err(self.cannot_connect(&"no answer in time")),
            Err(error) => Err(StoreError::not_applied(error.to_string())),
        }
    }

    fn cannot_connect(&self, why: &dyn Display) -> StoreError {
        let url = &self.url;
        StoreError::not_applied(format!(
            "cannot connect to {url} ({why}): check that Redis runs there and can be reached"
        ))
    }
}

/// One connection, for one command at a time. If it is dropped during a command, or after a command without a reply, it
/// is closed and does not return to the pool. So no other command receives the late reply.
pub(crate) struct Connection {
    /// `None` only during the drop.
    object: Option<managed::Object<Manager>>,
    /// Whether every command got its reply, from a node that can serve further commands.
    clean: bool,
    /// Whether a clean connection is closed too.
    closes_on_drop: bool,
}

impl Connection {
    /// The replication id of the store when this connection was opened, if the store reported it.
    pub(crate) fn replid(&self) -> Option<Term> {
        self.object.as_ref().and_then(|link| link.replid)
    }

    /// Sends one command and waits for its reply. An error reply is returned as an error.
    pub(crate) async fn send(&mut self, command: &Cmd) -> Result<Value, StoreError> {
        let Some(object) = self.object.as_mut().filter(|_| self.clean) else {
            return Err(StoreError::not_applied("the connection to the store is broken"));
        };
        self.clean = false;
        let failure = match object.connection.send_packed_command(command).await {
            Ok(Value::ServerError(error)) => RedisError::from(error),
            Ok(value) => {
                self.clean = true;
                return Ok(value);
            }
            Err(error) => error,
        };
        Err(self.failed(&failure))
    }

    /// Sends all commands of a pipeline at once, and waits for their replies. An error reply is the error of its
    /// command.
    pub(crate) async fn send_all(&mut self, pipeline: &Pipeline) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let Some(object) = self.object.as_mut().filter(|_| self.clean) else {
            return Err(StoreError::not_applied("the connection to the store is broken"));
        };
        self.clean = false;
        let replies = object.connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let replies = replies.map_err(|error| self.failed(&error))?;
        self.clean = true;
        let mut checked = Vec::with_capacity(replies.len());
        for reply in replies {
            checked.push(match reply {
                Value::ServerError(error) => Err(self.failed(&RedisError::from(error))),
                value => Ok(value),
            });
        }
        Ok(checked)
    }

    /// Closes the connection when it is dropped. For one whose buffers have grown: they would keep their size.
    pub(super) fn close_on_drop(&mut self) {
        self.closes_on_drop = true;
    }

    /// Records whether this connection and the other idle ones can be used after this failure.
    fn failed(&mut self, failure: &RedisError) -> StoreError {
        self.clean = !error::ends_connection(failure);
        if error::ends_peer(failure)
            && let Some(object) = &self.object
        {
            // After a restart or a failover all idle connections are dead, in other pools too. Without this, each of
            // them would fail one batch.
            object.peer.set_gone(object.number);
            if let Some(pool) = managed::Object::pool(object) {
                pool.retain(|_, _| false);
            }
        }
        StoreError::from_redis(failure, true)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take().filter(|_| !self.clean || self.closes_on_drop) {
            drop(managed::Object::take(object));
        }
    }
}

/// Opens connections like `deadpool_redis`, but returns those for batches without its UNWATCH and PING, which cost a
/// round trip per batch and prove nothing about the next moment. A batch that fails on a dead connection is sent again
/// with the same ids.
struct Manager {
    inner: deadpool_redis::Manager,
    peer: Peer,
    handout: Handout,
}

impl managed::Manager for Manager {
    type Type = Link;
    type Error = RedisError;

    async fn create(&self) -> Result<Link, RedisError> {
        let (peer, number) = (self.peer.clone(), self.peer.number());
        let mut connection = managed::Manager::create(&self.inner).await?;
        let replid = match connection.send_packed_command(cmd("INFO").arg("replication")).await {
            Ok(Value::BulkString(info)) => replid_in(&info),
            // The store does not report it: the script reads it for each change.
            Ok(_) => None,
            Err(error) if error.code().is_some() => None,
            Err(error) => return Err(error),
        };
        Ok(Link { connection, replid, peer, number })
    }

    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<RedisError> {
        if link.number != self.peer.number() {
            return Err(RecycleError::message("the peer is gone"));
        }
        if self.handout == Handout::Unchecked {
            return Ok(());
        }
        // A command that the script needs too: PING may not be permitted.
        let failure = match link.connection.send_packed_command(&cmd("TIME")).await {
            Ok(Value::ServerError(error)) => RedisError::from(error),
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // An error reply, for example of a missing permission, is a reply. The next command gets the same error.
        if !error::ends_connection(&failure) {
            return Ok(());
        }
        if error::ends_peer(&failure) {
            link.peer.set_gone(link.number);
        }
        Err(RecycleError::Backend(failure))
    }
}

/// A connection with the replication id of the store when it was opened.
struct Link {
    connection: MultiplexedConnection,
    replid: Option<Term>,
    peer: Peer,
    /// The number of the peer when this was opened.
    number: u64,
}

fn replid_in(info: &[u8]) -> Option<Term> {
    let mut lines = info.split(|byte| *byte == b'\n');
    lines.find_map(|line| Term::parse(line.strip_prefix(b"master_replid:")?.trim_ascii_end()))
}

fn connection_info(url: &RedisUrl) -> Result<ConnectionInfo, StoreError> {
    let info = url.connection_info().map_err(StoreError::not_applied)?;
    // Always RESP2, even if the URL names another protocol: the decoders expect replies of RESP2.
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP2)
        .set_lib_name("inventory-sentinel", env!("CARGO_PKG_VERSION"));
    Ok(info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::Embedded;
    use crate::tasks::Tasks;

    const REPLY: Duration = Duration::from_millis(150);

    async fn start(size: usize) -> (tempfile::TempDir, Embedded, Pool) {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data_dir: folder.path().to_path_buf(), ..Config::default() };
        let embedded = Embedded::start(&config, &Tasks::alone()).await.unwrap();
        let limits = Limits { size, wait: REPLY, connect: Duration::from_secs(1), reply: REPLY };
        let pool = Pool::new(embedded.url(), limits).unwrap();
        (folder, embedded, pool)
    }

    async fn echo(pool: &Pool, text: &str) -> Result<Value, StoreError> {
        pool.get().await?.send(cmd("ECHO").arg(text)).await
    }

    fn open_and_idle(pool: &Pool) -> (usize, usize) {
        let status = pool.inner.status();
        (status.size, status.available)
    }

    fn bulk(text: &str) -> Result<Value, StoreError> {
        Ok(Value::BulkString(text.into()))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_late_reply_reaches_nobody() {
        let (_folder, embedded, pool) = start(1).await;
        assert_eq!(echo(&pool, "first").await, bulk("first"));
        assert_eq!(open_and_idle(&pool), (1, 1));

        // Not answered in time.
        pool.get().await.unwrap().send(cmd("CLIENT").arg("PAUSE").arg(400)).await.unwrap();
        let mut connection = pool.get().await.unwrap();
        assert_eq!(connection.send(cmd("ECHO").arg("late")).await.unwrap_err().kind(), "unknown");
        assert_eq!(connection.send(cmd("ECHO").arg("next")).await.unwrap_err().kind(), "not_applied");
        drop(connection);
        assert_eq!(open_and_idle(&pool), (0, 0));

        // Not waited for.
        tokio::time::sleep(Duration::from_millis(500)).await;
        pool.get().await.unwrap().send(cmd("CLIENT").arg("PAUSE").arg(100)).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(20), echo(&pool, "given up"));
        assert!(given_up.await.is_err());
        assert_eq!(open_and_idle(&pool), (0, 0));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(echo(&pool, "own").await, bulk("own"));
        embedded.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_reply_keeps_the_connection_and_a_full_pool_is_not_waited_for_long() {
        let (_folder, embedded, pool) = start(1).await;
        let mut connection = pool.get().await.unwrap();
        let unknown = connection.send(cmd("EVALSHA").arg("0".repeat(40)).arg(0)).await;
        assert_eq!(unknown, Err(StoreError::NoScript));
        assert_eq!(connection.send(cmd("ECHO").arg("on")).await, bulk("on"));

        let began = std::time::Instant::now();
        assert_eq!(pool.get().await.err(), Some(StoreError::Busy));
        assert!(began.elapsed() < 4 * REPLY);
        drop(connection);
        assert_eq!(open_and_idle(&pool), (1, 1));
        embedded.stop().await;
        assert_eq!(echo(&pool, "gone").await.unwrap_err().kind(), "unknown");
        assert_eq!(echo(&pool, "gone").await.unwrap_err().kind(), "not_applied");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_that_one_pool_finds_dead_is_dead_for_all() {
        let (folder, embedded, pool) = start(2).await;
        let sibling =
            pool.sibling(Limits { size: 2, wait: REPLY, connect: REPLY, reply: REPLY }, Handout::Unchecked).unwrap();
        assert_eq!(echo(&pool, "one").await, bulk("one"));
        assert_eq!(echo(&sibling, "other").await, bulk("other"));
        embedded.stop().await;
        let config = Config { data_dir: folder.path().to_path_buf(), ..Config::default() };
        let embedded = Embedded::start(&config, &Tasks::alone()).await.unwrap();
        assert_eq!(echo(&pool, "gone").await.unwrap_err().kind(), "unknown");
        assert_eq!(echo(&sibling, "again").await, bulk("again"));
        assert_eq!(echo(&pool, "again").await, bulk("again"));
        embedded.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_checked_pool_hands_out_no_dead_connection() {
        let (folder, embedded, pool) = start(2).await;
        let limits = Limits { size: 2, wait: REPLY, connect: REPLY, reply: REPLY };
        let checked = pool.sibling(limits, Handout::Checked).unwrap();
        assert_eq!(echo(&checked, "one").await, bulk("one"));
        embedded.stop().await;
        let config = Config { data_dir: folder.path().to_path_buf(), ..Config::default() };
        let embedded = Embedded::start(&config, &Tasks::alone()).await.unwrap();
        assert_eq!(echo(&checked, "again").await, bulk("again"));
        embedded.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_dead_connection_tells_of_all() {
        let (_folder, embedded, pool) = start(3).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(pool.get().await.unwrap());
        }
        drop(open);
        assert_eq!(open_and_idle(&pool), (3, 3));
        embedded.stop().await;
        assert_eq!(echo(&pool, "gone").await.unwrap_err().kind(), "unknown");
        assert_eq!(open_and_idle(&pool), (0, 0));
    }
}
