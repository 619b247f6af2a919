//! Serves one connection until it ends, with or without TLS. Uses the limits and the counters of its port.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::{
    TransportLimits,
    entry::{Entrance, Services, Shared},
    meter::Metered,
    pace::Pace,
    peer::Peer,
    rates,
    slots::Slot,
};
use crate::{
    access::{
        ConnectionAccess, Guard,
        tls::{ClientTls, Tls},
    },
    telemetry::transport::{Closed, TransportMetrics},
};

/// A connection that is idle this long is pinged...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// ... and closed if it does not respond within this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Unsent bytes of a stream in the HTTP/2 library.
const SEND_BUFFER: usize = 16 * 1_024;
/// Bytes of the headers of a call, decoded.
const MAX_HEADER_LIST: u32 = 16 * 1_024;
/// Longest time of a connection after a GOAWAY, unless it has a call that does work.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Work of a TLS handshake, in microseconds: its signature and its key exchange.
const HANDSHAKE_WORK: u64 = 500;

/// One connection, before it is served.
pub(super) struct Connection<S> {
    pub(super) limits: TransportLimits,
    pub(super) services: S,
    pub(super) guard: Arc<Guard>,
    /// The address of the client, if the system reports it.
    pub(super) address: Option<SocketAddr>,
    pub(super) shared: Arc<Shared>,
    pub(super) pace: Arc<Pace>,
    pub(super) metrics: TransportMetrics,
    pub(super) shutdown: CancellationToken,
    pub(super) slot: Slot,
}

impl<S: Services> Connection<S> {
    /// Serves after a TLS handshake, which has the time limit of the HTTP/2 handshake.
    pub(super) async fn serve_tls(self, stream: TcpStream, tls: Arc<Tls>) {
        let peer = self.slot.peer();
        let handshake = async {
            // A silent connection causes no work.
            stream.readable().await?;
            if let Some(turn) = self.pace.take(HANDSHAKE_WORK) {
                tokio::time::sleep_until(turn).await;
            }
            tls.accept_grpc(stream).await
        };
        let encrypted = tokio::select! {
            biased;
            closed = peer.until_closed() => return self.metrics.inc_closed(closed),
            () = self.shutdown.cancelled() => return,
            encrypted = handshake => encrypted,
        };
        let encrypted = encrypted.and_then(|stream| Ok((Tls::client_certificate(&stream)?, stream)));
        self.metrics.inc_handshake(encrypted.is_ok());
        match encrypted {
            Ok((certificate, stream)) => {
                Box::pin(self.serve(stream, Some(ClientTls { tls, certificate }))).await;
            }
            Err(error) => tracing::debug!(%error, address = ?self.address, "a TLS handshake failed"),
        }
    }

    /// Serves until the connection ends, must be closed, or the server stops.
    pub(super) async fn serve<IO>(self, stream: IO, client: Option<ClientTls>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { limits, services, guard, address, shared, pace, metrics, shutdown, slot } = self;
        let peer = slot.peer();
        let (tls, certificate) = client.map(|ClientTls { tls, certificate }| (tls, certificate)).unzip();
        let access = ConnectionAccess::new(guard, address, certificate.flatten());
        let socket = TokioIo::new(Metered::new(stream, Arc::clone(&peer), limits.rates, pace));
        let entrance = Entrance::new(services, Arc::clone(&access), Arc::clone(&peer), shared);
        let mut connection = std::pin::pin!(builder(&limits, Arc::clone(&peer)).serve_connection(socket, entrance));
        let revoked = async {
            match &tls {
                Some(tls) => tls.until_invalid(access.certificate()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = connection.as_mut() => {}
            closed = peer.until_closed() => {
                // A well-behaved client gets a GOAWAY first.
                if closed == Closed::Evicted && peer.has_called() {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.as_mut()).await;
                }
            }
            () = revoked => {
                peer.close(Closed::Revoked);
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.as_mut()).await;
            }
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                loop {
                    match tokio::time::timeout(CLOSE_TIMEOUT, connection.as_mut()).await {
                        Err(_) if peer.has_work() && peer.closed().is_none() => {}
                        _ => break,
                    }
                }
            }
        }
        if let Some(closed) = peer.closed() {
            metrics.inc_closed(closed);
            tracing::debug!(reason = closed.label(), "a client connection was closed");
        }
    }
}

fn builder(limits: &TransportLimits, peer: Arc<Peer>) -> http2::Builder<Tasks> {
    let resets = usize::try_from(limits.rates.resets).unwrap_or(usize::MAX);
    let mut builder = http2::Builder::new(Tasks(peer));
    builder
        .timer(TokioTimer::new())
        .initial_connection_window_size(limits.window)
        .initial_stream_window_size(limits.window)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        // The library counts resets that it has not reported yet. Their rate decides how many are
        // too many, so this limit is off.
        .max_pending_accept_reset_streams(resets.saturating_mul(rates::BURST_SECONDS as usize))
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

/// Spawns the tasks of one connection's calls, and counts the running ones.
#[derive(Clone, Debug)]
struct Tasks(Arc<Peer>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.begin_call();
        let task = tokio::spawn(Counted { call, _count: Count(Arc::clone(&self.0)) });
        self.0.start_task(&task.abort_handle());
    }
}

pin_project! {
    /// A call that is counted until its task ends.
    struct Counted<F> {
        #[pin]
        call: F,
        _count: Count,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().call.poll(cx)
    }
}

struct Count(Arc<Peer>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.end_call();
    }
}
