//! [`Sentinel`] and its [`Builder`]: endpoint, TLS, credentials, keepalive, windows, settings.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::{
    limits::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_DEADLINE, DEFAULT_IDENTITY_MEMORY, MAX_CONNECTIONS},
    namespace::Namespace,
    requests::lists::ListNamespaces,
    transport::{
        call::{Core, Settings},
        channels::Channels,
        credentials::{Credentials, TokenError, TokenSource},
        retry::RetryPolicy,
        tls::{ClientCertificate, TlsSettings, is_loopback},
    },
};

/// Bytes of unread responses that a connection may have in flight: the windows of its 256 calls, 64 KiB each. So a
/// stream that is not read does not block the others. The HTTP/2 library counts a small response as 256 bytes, and
/// closes a connection on which these exceed half of its window: this is room for 32,768 of them.
const CONNECTION_WINDOW: u32 = 256 * 64 * 1024;

/// Interval of pings, also on an idle connection, which detect a dead peer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long a ping may remain unanswered before the connection is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one Inventory Sentinel. Cheap to clone; clones share connections, retry budget and the memory of
/// request_ids.
#[derive(Clone, Debug)]
pub struct Sentinel {
    core: Arc<Core>,
    deadline: Duration,
}

impl Sentinel {
    /// Connects with the defaults. `uri` is like `http://127.0.0.1:50051`, or `https://sentinel.shop.internal:50051` for
    /// TLS with the roots of the system.
    ///
    /// # Errors
    /// If the URI is invalid, or no server accepts the connection within [`DEFAULT_CONNECT_TIMEOUT`].
    pub async fn connect(uri: impl Into<String>) -> Result<Sentinel, ConnectError> {
        Sentinel::builder(uri).connect().await
    }

    /// The settings of a client, before it connects.
    pub fn builder(uri: impl Into<String>) -> Builder {
        Builder {
            uri: uri.into(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            deadline: DEFAULT_DEADLINE,
            connections: 1,
            tls: TlsSettings::default(),
            token: None,
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

    /// A page of the names of all namespaces. Pages, and the names in them, have no order. Await it, or set parameters
    /// first: `sentinel.list_namespaces().size(1_000).after(next).await`. Refusals:
    /// [`ListNamespacesError`](crate::ListNamespacesError).
    pub fn list_namespaces(&self) -> ListNamespaces {
        ListNamespaces::new(Arc::clone(&self.core), self.deadline)
    }

    /// A connection of this client, for services outside this crate, for example `grpc.health.v1.Health`. Calls on it
    /// have no deadline, no retries and no bearer token.
    pub fn channel(&self) -> Channel {
        self.core.lease().channel()
    }
}

/// The settings of a client; see [`Sentinel::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is connected before connect() or connect_lazy()"]
pub struct Builder {
    uri: String,
    connect_timeout: Duration,
    deadline: Duration,
    connections: usize,
    tls: TlsSettings,
    token: Option<TokenSource>,
    settings: Settings,
}

impl Builder {
    /// How long an attempt to connect may take. Default [`DEFAULT_CONNECT_TIMEOUT`].
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take, all its attempts together. Default [`DEFAULT_DEADLINE`], at most
    /// [`MAX_DEADLINE`](crate::MAX_DEADLINE). [`Namespace::with_deadline`] sets it for some calls only.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How calls are retried. Default [`RetryPolicy::default`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// How many HTTP/2 connections are opened at the start, 1 to [`MAX_CONNECTIONS`]. Calls take turns on them. Default
    /// 1; more help if one core of the client or server is the limit.
    ///
    /// While each has [`CALLS_PER_CONNECTION`](crate::CALLS_PER_CONNECTION) calls in flight, the client opens further
    /// ones in the background, up to [`MAX_CONNECTIONS`]. They stay open, and calls use them while the first ones have
    /// no room. A call never waits for a connection to open. If no further connection can be opened, calls share the
    /// open ones, and the client tries again after a pause.
    pub fn connections(mut self, number: usize) -> Self {
        self.connections = number;
        self
    }

    /// Whether concurrent Reserve, Commit and Rollback calls share messages. Default true. While few calls are in
    /// flight, each is sent at once and alone. Further ones wait until one of those ends, 10 to 15 ms at most, and then
    /// share a message. Each keeps its identity, deadline, retries and errors, but may report a passed deadline about 5
    /// ms late. A shared message has the trace context of its first call. The runtime on which the client was connected
    /// sends these messages and has to keep running.
    pub fn batching(mut self, batching: bool) -> Self {
        self.settings.batching = batching;
        self
    }

    /// Declares that nothing between this client and the server repeats calls: no proxy and no service mesh with
    /// retries. The first attempt of a Reserve whose `request_id` this client generates then sets `first_attempt`, and
    /// the store can report a shortage without a lookup of the id. By default no call sets it. If a proxy repeats such
    /// a call nevertheless, the caller can get a shortage although the first copy of the call created a reservation,
    /// whose units return at its deadline.
    pub fn direct(mut self) -> Self {
        self.settings.is_direct = true;
        self
    }

    /// Bytes of memory for the `request_id`s that callers set and their requests. Default
    /// [`DEFAULT_IDENTITY_MEMORY`]; an id takes 128 bytes at most. Beyond the limit the oldest are dropped.
    ///
    /// One `request_id` has one effect in a namespace. The server compares a repeat with the first request only if both
    /// name SKUs of the same partition. So in a namespace of several partitions this client refuses the second use of
    /// an id for another request (`REQUEST_ID_REUSED`, nothing is sent). It has only the ids of its process. Ids of
    /// calls without an effect, such as a shortage, are dropped at once.
    pub fn identity_memory(mut self, bytes: usize) -> Self {
        self.settings.identity_memory = bytes;
        self
    }

    /// The CAs that may have issued the server's certificate, in PEM. Default: the roots of the system. Needs an
    /// `https://` URI.
    pub fn tls_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.ca = Some(pem.into());
        self
    }

    /// The certificate that this client presents, followed by its intermediate ones, and its private key, in PEM. Needs
    /// an `https://` URI.
    pub fn client_certificate(mut self, certificate_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        self.tls.certificate = Some(ClientCertificate { chain: certificate_pem.into(), key: key_pem.into() });
        self
    }

    /// The token or JWT that is sent with every call, as `authorization: Bearer <token>`. It is refused for an `http://`
    /// URI, unless the host is `localhost` or a loopback address. Replaces an earlier [`Builder::bearer_token_file`].
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(TokenSource::Text(token.into()));
        self
    }

    /// As [`Builder::bearer_token`], for the token in a file, which can be replaced while the client runs. The file is
    /// read at the start, and by the first call after each second. If it can't be read any more, the client logs a
    /// warning and uses the last token.
    pub fn bearer_token_file(mut self, path: impl AsRef<Path>) -> Self {
        self.token = Some(TokenSource::File(path.as_ref().to_owned()));
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// If the URI, the certificates or the token are invalid or don't fit together, or no server accepts the connection
    /// in time.
    pub async fn connect(self) -> Result<Sentinel, ConnectError> {
        let (endpoint, credentials) = (self.endpoint()?, self.credentials()?);
        let mut channels = Vec::with_capacity(self.channels());
        for _ in 0..self.channels() {
            let channel = endpoint
                .connect()
                .await
                .map_err(|source| ConnectError::Unreachable { uri: self.uri.clone(), source })?;
            channels.push(channel);
        }
        Ok(self.sentinel(channels, endpoint, credentials))
    }

    /// Connects at the first call; until the server is reachable, calls fail with `UNAVAILABLE`. Must be called in a
    /// Tokio runtime.
    ///
    /// # Errors
    /// If the URI, the certificates or the token are invalid or don't fit together.
    pub fn connect_lazy(self) -> Result<Sentinel, ConnectError> {
        let (endpoint, credentials) = (self.endpoint()?, self.credentials()?);
        let channels = (0..self.channels()).map(|_| endpoint.connect_lazy()).collect();
        Ok(self.sentinel(channels, endpoint, credentials))
    }

    fn channels(&self) -> usize {
        self.connections.clamp(1, MAX_CONNECTIONS)
    }

    fn sentinel(self, channels: Vec<Channel>, endpoint: Endpoint, credentials: Credentials) -> Sentinel {
        let core = Core::new(Channels::new(channels, Some(endpoint)), credentials, self.settings);
        Sentinel { core: Arc::new(core), deadline: self.deadline }
    }

    fn credentials(&self) -> Result<Credentials, ConnectError> {
        Credentials::load(self.token.as_ref()).map_err(|error| match error {
            TokenError::Malformed(problem) => ConnectError::InvalidToken { problem: problem.to_owned() },
            TokenError::Unreadable(path, source) => ConnectError::TokenFile { path, source },
        })
    }

    fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let invalid = |problem: &str| ConnectError::InvalidUri { uri: self.uri.clone(), problem: problem.to_owned() };
        let uri: Uri = self.uri.parse().map_err(|error: http::uri::InvalidUri| invalid(&error.to_string()))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid("it must begin with http:// or https://")),
        };
        if !is_tls && !self.tls.is_default() {
            return Err(ConnectError::TlsWithoutHttps { uri: self.uri.clone() });
        }
        if !is_tls && self.token.is_some() && !is_loopback(&uri) {
            return Err(ConnectError::TokenWithoutTls { uri: self.uri.clone() });
        }
        let endpoint = Endpoint::from(uri.clone())
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        if !is_tls {
            return Ok(endpoint);
        }
        let configured = self.tls.apply(endpoint, &uri, self.connect_timeout);
        configured.map_err(|problem| ConnectError::InvalidTls { problem })
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This client cannot connect to such a URI.
    #[error("invalid uri {uri:?}: {problem}")]
    InvalidUri {
        /// The URI.
        uri: String,
        /// Why it is invalid.
        problem: String,
    },
    /// Certificates were set for an `http://` URI.
    #[error("{uri} has no TLS, but certificates are set: begin it with https://")]
    TlsWithoutHttps {
        /// The URI.
        uri: String,
    },
    /// A bearer token was set for an `http://` URI of another machine: the network could read it.
    #[error("{uri} has no TLS, so the bearer token is not sent: begin it with https://")]
    TokenWithoutTls {
        /// The URI.
        uri: String,
    },
    /// The certificates or the key can't be used, or the system has no roots.
    #[error("invalid certificates: {problem}")]
    InvalidTls {
        /// Why they are invalid.
        problem: String,
    },
    /// The bearer token is malformed.
    #[error("invalid bearer token: {problem}")]
    InvalidToken {
        /// Why it is malformed. Does not contain the token.
        problem: String,
    },
    /// The file of the bearer token can't be read, or its content is malformed.
    #[error("can't read the bearer token of {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The cause. Does not contain the token.
        source: io::Error,
    },
    /// No server accepted the connection in time.
    #[error("no connection to {uri}")]
    Unreachable {
        /// The URI.
        uri: String,
        /// The cause.
        source: tonic::transport::Error,
    },
}
