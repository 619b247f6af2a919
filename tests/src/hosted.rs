//! The server as a library in the process of the test: for settings that only the library has, such as a task that panics.

use std::net::SocketAddr;

use sentinel_server::{Faults, RunError, config::Config};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::{Redis, eventually, http_get, test_client::TestClient};

/// One server; stopped when dropped.
#[derive(Debug)]
pub struct HostedSentinel {
    grpc: SocketAddr,
    admin: SocketAddr,
    faults: Faults,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

impl HostedSentinel {
    /// One on this Redis with these flags, separated by spaces, ready.
    pub async fn on(redis: &Redis, flags: &str) -> HostedSentinel {
        HostedSentinel::start(&format!("--redis-url {} {flags}", redis.url())).await
    }

    /// One with these flags, separated by spaces, ready.
    pub async fn start(flags: &str) -> HostedSentinel {
        let config = Config::from_flags(["sentinel-server"].into_iter().chain(flags.split_whitespace()));
        let (grpc, admin) = (listener().await, listener().await);
        let (faults, shutdown) = (Faults::new(), CancellationToken::new());
        let server = HostedSentinel {
            grpc: grpc.local_addr().expect("an address"),
            admin: admin.local_addr().expect("an address"),
            faults: faults.clone(),
            shutdown: shutdown.clone(),
            running: tokio::spawn(sentinel_server::run_with(config.expect("flags"), grpc, admin, shutdown, faults)),
        };
        eventually("the server is ready", async || {
            let ready = http_get(server.admin, "/readyz").await;
            ready.is_ok_and(|(status, _)| status == 200).then_some(())
        })
        .await;
        server
    }

    /// Makes one task with this name panic.
    pub fn panic_in(&self, task: &str) {
        self.faults.panic_in(task);
    }

    /// Makes the oldest task with this name go on no more.
    pub fn stall(&self, task: &str) {
        self.faults.stall(task);
    }

    /// All raw clients, for one namespace.
    pub fn shop(&self, namespace: &str) -> TestClient {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).expect("an address");
        TestClient::new(endpoint.connect_lazy(), namespace)
    }

    /// The value of one series, as it is in the text: `name{label="value"}`; `None` where the port is silent.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = http_get(self.admin, "/metrics").await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> Result<(), RunError> {
        tokio::time::timeout(crate::BOUND, &mut self.running).await.expect("it ends").expect("it does not panic")
    }

    /// Stops it, and waits until it has.
    pub async fn stop(mut self) -> Result<(), RunError> {
        self.shutdown.cancel();
        self.ended().await
    }
}

impl Drop for HostedSentinel {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}
