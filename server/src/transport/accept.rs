//! Listening sockets and their connections: the longest backlog that the system allows, and retries
//! while it has no descriptors. Opens sockets; independent of the protocol on a connection.

use std::{io, net::SocketAddr, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::telemetry::transport::TransportMetrics;

/// Connections that may wait to be accepted; the system lowers it to its own limit.
const BACKLOG: u32 = 65_535;
/// First and longest pause while the system has no descriptor for a connection.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Descriptors that are reserved for everything but client connections: Redis, files, the admin
/// port.
const RESERVED_DESCRIPTORS: u64 = 256;

/// Listens on this address.
///
/// # Errors
/// The error of the system.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Raises the descriptor limit of this process as far as possible. Returns the number of client
/// connections that it allows, at most `wanted`.
pub(super) fn connections_for_descriptors(wanted: usize, reserved: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum {
        // If the process may not raise it, the present limit applies.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return wanted };
    let reserved = (RESERVED_DESCRIPTORS + reserved as u64).min(descriptors * 3 / 4);
    let possible = usize::try_from(descriptors - reserved).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        tracing::warn!(
            descriptors,
            connections = possible,
            "the limit on descriptors (ulimit -n) allows fewer client connections than are configured"
        );
    }
    wanted.min(possible)
}

/// Accepts connections one at a time.
pub(crate) struct Accept {
    listener: TcpListener,
    metrics: TransportMetrics,
    /// Pause after the next failure; `None`: the last attempt succeeded.
    pause: Option<Duration>,
}

impl Accept {
    pub(crate) fn new(listener: TcpListener, metrics: TransportMetrics) -> Self {
        Self { listener, metrics, pause: None }
    }

    /// The next connection; `None`, after a pause, if the system failed to accept one.
    pub(crate) async fn next(&mut self) -> Option<TcpStream> {
        match self.listener.accept().await {
            Ok((stream, _)) => {
                if self.pause.take().is_some() {
                    tracing::info!(port = self.metrics.port(), "connections are accepted again");
                }
                // Otherwise a response can wait for the acknowledgement of the previous one.
                let _ = stream.set_nodelay(true);
                Some(stream)
            }
            Err(error) if is_of_one_connection(&error) => None,
            Err(error) => {
                self.metrics.inc_accept_failure();
                if self.pause.is_none() {
                    tracing::error!(port = self.metrics.port(), %error, "no connection can be accepted");
                }
                let pause = self.pause.unwrap_or(PAUSE.0);
                self.pause = Some((pause * 2).min(PAUSE.1));
                tokio::time::sleep(pause).await;
                None
            }
        }
    }
}

/// Whether an error concerns a connection that ended before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | WouldBlock)
}
