//! Connecting: endpoints, keepalive, limits. The only place that opens connections.

use std::{sync::Arc, time::Duration};

use http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::{
    call::{Core, Settings},
    channels::Channels,
    lists::ListNamespaces,
    namespace::Namespace,
    retry::RetryPolicy,
};

/// How long connecting may take unless told otherwise: 5 s.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take, with all its attempts, unless told otherwise: 5 s.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest deadline of a call, 1 hour; a longer one is shortened to it.
pub const MAX_DEADLINE: Duration = Duration::from_secs(3600);
/// The most connections of one client; a larger number is lowered to it.
pub const MAX_CONNECTIONS: usize = 64;
/// Calls in flight on each connection from which on the client opens another one: below the 256 calls that a server lets a
/// connection have by default. Calls that share a message count as one; a stream counts for as long as it is open.
pub const CALLS_PER_CONNECTION: usize = 192;

/// Bytes of memory for the request_ids that callers named, unless set otherwise: 16 MiB, which is room for 131,072.
pub const DEFAULT_IDENTITY_MEMORY: usize = 16 * 1024 * 1024;

/// The largest answer that is read, in bytes: far above an audit's 1,000 findings.
pub(crate) const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The largest request that is sent, in bytes: a batch of 512 carts of 32 lines with the longest names fits.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of answers that may be under way on a connection before their callers have read them: the windows of the 256 calls
/// that a connection has at most, 64 KiB each. So a stream that nobody reads does not hold up the others. The HTTP/2 library
/// counts a small answer as 256 bytes, and closes a connection on which these come to more than half of its window: this is
/// room for 32,768 of them.
const CONNECTION_WINDOW: u32 = 256 * 64 * 1024;

/// How often a connection is pinged, also while idle, so that a dead peer is noticed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer to a ping may take before the connection is given up.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one Inventory Sentinel. Cheap to clone; clones share connections, retry budget and the memory of
/// request_ids.
#[derive(Clone, Debug)]
pub struct Sentinel {
    core: Arc<Core>,
    deadline: Duration,
}

impl Sentinel {
    /// Connects with the defaults. `uri` is like `http://127.0.0.1:50051`.
    ///
    /// # Errors
    /// If the URI is not one, or nobody answers within [`DEFAULT_CONNECT_TIMEOUT`].
    pub async fn connect(uri: impl Into<String>) -> Result<Sentinel, ConnectError> {
        Sentinel::builder(uri).connect().await
    }

    /// Everything that can be set before connecting.
    pub fn builder(uri: impl Into<String>) -> Builder {
        Builder {
            uri: uri.into(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            deadline: DEFAULT_DEADLINE,
            connections: 1,
            settings: Settings {
                retry: RetryPolicy::default(),
                batching: true,
                is_direct: false,
                identity_memory: DEFAULT_IDENTITY_MEMORY,
            },
        }
    }

    /// The operations on one namespace. No call is made.
    pub fn namespace(&self, name: impl Into<String>) -> Namespace {
        Namespace::new(Arc::clone(&self.core), name.into(), self.deadline)
    }

    /// A page of the namespaces there are, by name. Await it, or say more first:
    /// `sentinel.list_namespaces().size(1_000).after(next).await`. It can be refused as
    /// [`ListNamespacesError`](crate::ListNamespacesError) says.
    pub fn list_namespaces(&self) -> ListNamespaces {
        ListNamespaces::new(Arc::clone(&self.core), self.deadline)
    }
}

/// What can be set before connecting. Made by [`Sentinel::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is connected before connect() or connect_lazy()"]
pub struct Builder {
    uri: String,
    connect_timeout: Duration,
    deadline: Duration,
    connections: usize,
    settings: Settings,
}

impl Builder {
    /// How long connecting may take, each time. Default [`DEFAULT_CONNECT_TIMEOUT`].
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take, all its attempts together. Default [`DEFAULT_DEADLINE`], at most
    /// [`MAX_DEADLINE`]. [`Namespace::with_deadline`] sets it for some calls only.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How calls are repeated. Default [`RetryPolicy::default`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// How many HTTP/2 connections are opened at the start, 1 to [`MAX_CONNECTIONS`]. Calls take turns on them.
    /// Default 1; more help where one core of the client or server is the limit.
    ///
    /// While each has [`CALLS_PER_CONNECTION`] calls in flight, the client opens further ones in the background, up to
    /// [`MAX_CONNECTIONS`] in all. They stay open, and calls use them while the first ones have no room. A call never waits for
    /// a connection to open. Where another connection cannot be opened, calls share those that there are, and the client
    /// tries again after a pause.
    pub fn connections(mut self, number: usize) -> Self {
        self.connections = number;
        self
    }

    /// Whether Reserve, Commit and Rollback calls that are made at the same time travel together. Default
    /// true. While few calls are under way each is sent at once and alone; further ones wait for one of
    /// those to end, 10 to 15 ms at most, and share a message then. They keep their own identity, deadline,
    /// retries and errors, but hear about 5 ms later that a deadline has passed; a shared message carries the
    /// trace context of the first of them. They are sent, and their deadlines kept, on the runtime on which the
    /// client was connected, which has to go on.
    pub fn batching(mut self, batching: bool) -> Self {
        self.settings.batching = batching;
        self
    }

    /// Declares that nothing between this client and the server repeats calls: no proxy, no service mesh with
    /// retries. The first attempt of a Reserve whose `request_id` this client makes then sets `first_attempt`, so
    /// that the store can answer a shortage without looking the id up. By default no call sets it. If a proxy
    /// repeats such a call nevertheless, the caller can be answered with a shortage while the first copy of the call
    /// has made a reservation, whose units come back at its deadline.
    pub fn direct(mut self) -> Self {
        self.settings.is_direct = true;
        self
    }

    /// Bytes of memory for the request_ids that callers named and the request that each stands for. Default
    /// [`DEFAULT_IDENTITY_MEMORY`]; an id takes 128 bytes at most. Beyond the limit the oldest are forgotten.
    ///
    /// One `request_id` has one effect in a namespace. The server compares a repeat with the first request only
    /// where both name SKUs of the same partition, so in a namespace of several partitions this client is what
    /// refuses the second use of an id for another request (`REQUEST_ID_REUSED`, nothing is sent). It knows the ids
    /// of its own process only. Ids of calls that had no effect, such as a shortage, are forgotten at once.
    pub fn identity_memory(mut self, bytes: usize) -> Self {
        self.settings.identity_memory = bytes;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// If the URI is not one, or nobody answers in time.
    pub async fn connect(self) -> Result<Sentinel, ConnectError> {
        let endpoint = self.endpoint()?;
        let mut channels = Vec::with_capacity(self.channels());
        for _ in 0..self.channels() {
            let channel = endpoint
                .connect()
                .await
                .map_err(|source| ConnectError::Unreachable { uri: self.uri.clone(), source })?;
            channels.push(channel);
        }
        Ok(self.sentinel(channels, endpoint))
    }

    /// Connects at the first call; until the server is there, calls fail with `UNAVAILABLE`. Needs a
    /// Tokio runtime around it.
    ///
    /// # Errors
    /// If the URI is not one.
    pub fn connect_lazy(self) -> Result<Sentinel, ConnectError> {
        let endpoint = self.endpoint()?;
        let channels = (0..self.channels()).map(|_| endpoint.connect_lazy()).collect();
        Ok(self.sentinel(channels, endpoint))
    }

    fn channels(&self) -> usize {
        self.connections.clamp(1, MAX_CONNECTIONS)
    }

    fn sentinel(self, channels: Vec<Channel>, endpoint: Endpoint) -> Sentinel {
        let core = Core::new(Channels::new(channels, Some(endpoint)), self.settings);
        Sentinel { core: Arc::new(core), deadline: self.deadline }
    }

    fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let invalid = |problem: &str| ConnectError::InvalidUri { uri: self.uri.clone(), problem: problem.to_owned() };
        let uri: Uri = self.uri.parse().map_err(|error: http::uri::InvalidUri| invalid(&error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(invalid("it must begin with http://"));
        }
        Ok(Endpoint::from(uri)
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URI is not one that this client can connect to.
    #[error("invalid uri {uri:?}: {problem}")]
    InvalidUri {
        /// What was given.
        uri: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answered at the URI in time.
    #[error("no connection to {uri}")]
    Unreachable {
        /// Where.
        uri: String,
        /// What happened.
        source: tonic::transport::Error,
    },
}
