//! The operator's port: `/metrics`, `/livez`, `/readyz`. Plain HTTP, read-only; it knows the
//! metrics and the health of the server and nothing of its calls.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::telemetry::metrics::Metrics;

/// Longest wait for requests under way once the server stops.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Serves until it is told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: Health,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(write_metrics))
        .with_state(metrics)
        // Alive is whoever answers: it is not the store's health, or its outage would restart servers.
        .route("/livez", get(async || "ok\n"))
        .merge(Router::new().route("/readyz", get(readiness)).with_state(health));
    let stop_hard = async {
        shutdown.cancelled().await;
        tokio::time::sleep(STOP_LIMIT).await;
    };
    let serve = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        result = serve => result,
        () = stop_hard => Ok(()),
    }
}

async fn write_metrics(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], metrics.encode())
}

async fn readiness(State(health): State<Health>) -> impl IntoResponse {
    let (ready, lines) = health.ready().await;
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
        let health = Health::new(HealthReporter::new()).await;
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Arc::new(Metrics::new()), health.clone(), shutdown.clone()));

        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let unready = get(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("store: not looked at yet\n"), "{unready}");
        health.set("store", Ok(())).await;
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = get(address, "/metrics").await;
        assert!(
            metrics.contains("text/plain")
                && metrics.contains("inventory_sentinel_reserve_total{status=\"success\"} 0")
        );
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));

        let _idle = TcpStream::connect(address).await.unwrap();
        shutdown.cancel();
        tokio::time::timeout(3 * STOP_LIMIT, server).await.unwrap().unwrap().unwrap();
    }
}
