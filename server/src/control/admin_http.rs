//! The operator's port, part of the control plane: `/metrics`, `/livez`, `/readyz`. HTTP/1.1, with
//! TLS if the server has it; read-only. With a policy, `/metrics` needs the role `metrics`, and
//! `/readyz` leaves the promises out for a caller without it. Uses the metrics, the health and the
//! promises of the server; independent of its calls.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use inventory_sentinel_access::Role;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

use crate::access::reload::Access;
use crate::access::tls::Tls;
use crate::access::{ConnectionAccess, Requirement};
use crate::control::health::Health;
use crate::domain::Promise;
use crate::failure::Failure;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::transport::{ADMIN, Closed, TransportMetrics};
use crate::transport::accept::Accept;
use crate::transport::pace::Pace;
use crate::transport::slots::{Slot, Slots};

/// The most open connections. One more closes the oldest.
const MAX_ADMIN_CONNECTIONS: usize = 64;
/// Longest life of a connection. A scraper opens another one.
const LONGEST_LIFE: Duration = Duration::from_secs(60);
/// Longest time for the head of a request to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1_024;
/// Scrapes per second, and the length of the burst after an idle time. A scrape takes processor
/// time from calls.
const SCRAPES: u64 = 50;
const SCRAPES_BURST: Duration = Duration::from_secs(1);
/// TLS handshakes per second, and the length of the burst after an idle time.
const HANDSHAKES: u64 = 50;
const HANDSHAKES_BURST: Duration = Duration::from_secs(1);
/// Longest wait for running requests at a stop, or at the end of a connection's life.
const STOP_LIMIT: Duration = Duration::from_millis(300);

/// Lists the current promises.
pub(crate) type ListPromises = Arc<dyn Fn() -> Vec<Promise> + Send + Sync>;
/// The content of `/readyz`: the components, which decide, and the promises.
type Readiness = (Health, ListPromises);

/// Serves on a copy of the listener, which allows a restart.
pub(crate) async fn serve_again(
    listener: io::Result<std::net::TcpListener>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    access: Access,
    shutdown: CancellationToken,
) {
    match listener.and_then(TcpListener::from_std) {
        Ok(listener) => serve(listener, metrics, readiness, access, shutdown).await,
        Err(error) => tracing::error!(%error, "the operator's port can't be served"),
    }
}

/// Serves until the shutdown.
async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    state: Readiness,
    access: Access,
    shutdown: CancellationToken,
) {
    let port = metrics.transport().of_port(ADMIN);
    let router = Router::new()
        .route("/metrics", get(write_metrics))
        .with_state(Arc::new(Scrapes { pace: Pace::new(SCRAPES, SCRAPES_BURST, port.pauses("scrape")), metrics }))
        // A server that responds is alive. The health of the store does not count here: its outage
        // would restart servers.
        .route("/livez", get(async || "ok\n"))
        .merge(Router::new().route("/readyz", get(readiness)).with_state(state));
    let handshakes = Arc::new(Pace::new(HANDSHAKES, HANDSHAKES_BURST, port.pauses("admin_handshake")));
    let slots = Arc::new(Slots::new(MAX_ADMIN_CONNECTIONS, port.clone()));
    let mut accept = Accept::new(listener, port.clone());
    let tracker = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            stream = accept.next() => stream,
        };
        let Some(stream) = stream else {
            slots.close_idle();
            continue;
        };
        if let Some(slot) = slots.take() {
            let served = Served {
                router: router.clone(),
                metrics: port.clone(),
                handshakes: Arc::clone(&handshakes),
                shutdown: shutdown.clone(),
            };
            tracker.spawn(served.connection(stream, slot, access.clone()));
        }
    }
    tracker.close();
    tracker.wait().await;
}

/// The parts of the port that a connection uses.
struct Served {
    router: Router,
    metrics: TransportMetrics,
    handshakes: Arc<Pace>,
    shutdown: CancellationToken,
}

impl Served {
    /// Serves one connection, after a TLS handshake if the server has TLS.
    async fn connection(self, stream: TcpStream, slot: Slot, access: Access) {
        let address = stream.peer_addr().ok();
        let Access { guard, tls } = access;
        let Some(tls) = tls else {
            return self.serve(stream, slot, ConnectionAccess::new(guard, address, None), None).await;
        };
        let peer = slot.peer();
        let handshake = async {
            stream.readable().await?;
            if let Some(turn) = self.handshakes.take(1) {
                tokio::time::sleep_until(turn).await;
            }
            let stream = tls.accept_http(stream).await?;
            Ok::<_, io::Error>((Tls::client_certificate(&stream)?, stream))
        };
        let encrypted = tokio::select! {
            closed = peer.until_closed() => return self.metrics.inc_closed(closed),
            () = self.shutdown.cancelled() => return,
            () = tokio::time::sleep(HEADER_TIMEOUT) => return self.metrics.inc_closed(Closed::Handshake),
            encrypted = handshake => encrypted,
        };
        self.metrics.inc_handshake(encrypted.is_ok());
        match encrypted {
            Ok((certificate, stream)) => {
                let access = ConnectionAccess::new(guard, address, certificate);
                self.serve(stream, slot, access, Some(tls)).await;
            }
            Err(error) => tracing::debug!(%error, ?address, "a TLS handshake failed"),
        }
    }

    /// Serves until the connection ends, or its life ends.
    async fn serve<IO>(self, stream: IO, slot: Slot, access: Arc<ConnectionAccess>, tls: Option<Arc<Tls>>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, metrics, shutdown, .. } = self;
        let revoked = async {
            match &tls {
                Some(tls) => tls.until_invalid(access.certificate()).await,
                None => std::future::pending().await,
            }
        };
        let peer = slot.peer();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(router.layer(Extension(Arc::clone(&access)))),
            );
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            closed = peer.until_closed() => return metrics.inc_closed(closed),
            () = revoked => return metrics.inc_closed(Closed::Revoked),
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(LONGEST_LIFE) => metrics.inc_closed(Closed::Aged),
        }
        connection.as_mut().graceful_shutdown();
        // A client that does not read would keep it open.
        let _ = tokio::time::timeout(STOP_LIMIT, connection).await;
    }
}

/// The response to a request whose caller lacks the role `metrics`.
fn refusal(failure: &Failure) -> Response {
    let status = match failure.reason().code() {
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::UNAUTHORIZED,
    };
    let text = format!("{}: {}\n", failure.reason().as_str(), failure.message());
    (status, [(header::WWW_AUTHENTICATE, "Bearer")], text).into_response()
}

/// The metrics, and the rate limit of scrapes.
struct Scrapes {
    metrics: Arc<Metrics>,
    pace: Pace,
}

async fn write_metrics(
    State(scrapes): State<Arc<Scrapes>>,
    Extension(access): Extension<Arc<ConnectionAccess>>,
    uri: Uri,
    mut headers: HeaderMap,
) -> Response {
    if let Err(failure) = access.admit(Requirement::Role(Role::Metrics), &mut headers, uri.path_and_query()) {
        return refusal(&failure);
    }
    if let Some(turn) = scrapes.pace.take(1) {
        tokio::time::sleep_until(turn).await;
    }
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], scrapes.metrics.encode()).into_response()
}

/// The components decide the status. A broken promise that keeps no call from the store changes no
/// status.
async fn readiness(
    State((health, promises)): State<Readiness>,
    Extension(access): Extension<Arc<ConnectionAccess>>,
    mut headers: HeaderMap,
) -> impl IntoResponse {
    let (ready, mut lines) = health.ready().await;
    // A promise can name a namespace.
    if access.has(Role::Metrics, &mut headers, "/readyz") {
        for promise in promises() {
            // A String takes every write.
            let _ = writeln!(lines, "{promise}");
        }
    }
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tonic_health::server::HealthReporter;

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn it_tells_life_readiness_and_metrics_and_stops_beside_an_idle_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::new(HealthReporter::new(), []).await;
        let shutdown = CancellationToken::new();
        let promises: ListPromises =
            Arc::new(|| vec![Promise::broken("partitions", "sale/0"), Promise::kept("terms", "x")]);
        let readiness = (health.clone(), promises);
        let metrics = Arc::new(Metrics::new());
        let access = Access::open(metrics.access());
        let server = tokio::spawn(serve(listener, metrics, readiness, access, shutdown.clone()));

        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let unready = get(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("store: not checked yet\n"), "{unready}");
        health.set("store", Ok(())).await;
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 200"), "a broken promise alone keeps no call away: {ready}");
        let body = "draining: ok\nstore: ok\npartitions: broken: sale/0\nterms: kept: x\n";
        assert!(ready.ends_with(body), "{ready}");
        let metrics = get(address, "/metrics").await;
        assert!(
            metrics.contains("text/plain")
                && metrics.contains("inventory_sentinel_reserve_total{status=\"success\"} 0")
        );
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));

        let _idle = TcpStream::connect(address).await.unwrap();
        shutdown.cancel();
        tokio::time::timeout(3 * STOP_LIMIT, server).await.unwrap().unwrap();
    }
}
