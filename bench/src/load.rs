//! The load: callers that reserve one unit after another, each as soon as the last is answered
//! (a closed loop). Calls the API through the generated client and nothing else.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use inventory_sentinel::v1::{
    self, inventory_admin_client::InventoryAdminClient, inventory_sentinel_client::InventorySentinelClient,
    reserve_response::Result as Outcome,
};
use tonic::transport::Channel;

use crate::process::Server;

/// Connections that the callers share.
const CONNECTIONS: usize = 4;
/// Units that no run sells out.
const PLENTY: i64 = 1_000_000_000;

/// What one run saw.
pub(crate) struct Run {
    /// Answers per second.
    pub(crate) rate: f64,
    /// Latency of each call, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// CPU microseconds per answer: the server's, and its Redis's.
    pub(crate) server_cpu: f64,
    pub(crate) redis_cpu: f64,
}

/// What is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// Every Reserve takes a unit.
    Full,
    /// No Reserve gets one.
    Empty,
}

/// Puts stock on the shelf.
pub(crate) async fn prepare(server: &Server, sku: &str, shelf: Shelf) -> Result<()> {
    let mut admin = InventoryAdminClient::new(server.connect().await?);
    let request = v1::SetStockRequest {
        sku: sku.into(),
        on_hand: if shelf == Shelf::Full { PLENTY } else { 0 },
        request_id: unique(),
        ..Default::default()
    };
    admin.set_stock(request).await?;
    Ok(())
}

/// So many callers at once, for so long.
pub(crate) async fn reserve(
    server: &Server,
    sku: &'static str,
    shelf: Shelf,
    callers: usize,
    duration: Duration,
) -> Result<Run> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS.min(callers) {
        channels.push(server.connect().await?);
    }
    let (server_before, redis_before) = server.cpu()?;
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|i| tokio::spawn(caller(channels[i % channels.len()].clone(), sku, shelf, start + duration)))
        .collect();
    let mut latency = Histogram::new(3)?;
    for task in tasks {
        latency.add(task.await??)?;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let (server_after, redis_after) = server.cpu()?;
    let answers = latency.len() as f64;
    Ok(Run {
        rate: answers / elapsed,
        latency,
        server_cpu: (server_after - server_before) * 1e6 / answers,
        redis_cpu: (redis_after - redis_before) * 1e6 / answers,
    })
}

async fn caller(channel: Channel, sku: &'static str, shelf: Shelf, end: Instant) -> Result<Histogram<u64>> {
    let mut client = InventorySentinelClient::new(channel);
    let mut latency = Histogram::new(3)?;
    while Instant::now() < end {
        let request = v1::ReserveRequest {
            request_id: unique(),
            lines: vec![v1::Line { sku: sku.into(), quantity: 1 }],
            ..Default::default()
        };
        let start = Instant::now();
        let response = client.reserve(request).await?.into_inner();
        latency.record(start.elapsed().as_micros() as u64)?;
        let outcome = response.result.context("a response has a result")?;
        anyhow::ensure!(matches!(outcome, Outcome::Reservation(_)) == (shelf == Shelf::Full), "unexpected answer");
    }
    Ok(latency)
}

/// A request id that no other call of this machine has.
fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
