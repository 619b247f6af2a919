//! Those who call: through the generated client, a call a message; through the Rust client, which gathers
//! calls into messages; straight to PostgreSQL. Each makes one call and checks its answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use inventory_sentinel::v1::{
    self, inventory_sentinel_client::InventorySentinelClient, reserve_response::Result as Outcome,
};
use inventory_sentinel_client::{Namespace, Sentinel};
use tonic::transport::Channel;

use crate::{load::Caller, process::Server};

/// Connections that callers share.
pub(crate) const CONNECTIONS: usize = 4;
/// Units that no run sells out.
const PLENTY: i64 = 1_000_000_000;
/// Holds outlive the lab: what expires would be work of another run.
pub(crate) const TTL: Duration = Duration::from_secs(3600);
/// Longest wait until a message of rows is on the shelves.
const OPENING_LIMIT: Duration = Duration::from_secs(60);

/// What there is to reserve.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) namespace: String,
    pub(crate) skus: Arc<[String]>,
    /// Whether a Reserve takes a unit, or gets none.
    pub(crate) is_full: bool,
}

impl Shop {
    /// A shop of so many SKUs.
    pub(crate) fn new(namespace: impl Into<String>, skus: usize, is_full: bool) -> Self {
        Self { namespace: namespace.into(), skus: (0..skus).map(|i| format!("sku-{i}")).collect(), is_full }
    }

    /// Puts the stock on the shelves.
    pub(crate) async fn open(&self, server: &Server) -> Result<()> {
        let client = Sentinel::builder(server.uri()).deadline(OPENING_LIMIT).connect().await?;
        let on_hand = if self.is_full { PLENTY } else { 0 };
        let rows = self.skus.iter().map(|sku| (sku, on_hand));
        client.namespace(&self.namespace).admin().import_stock(rows).await?;
        Ok(())
    }
}

/// Calls Reserve through the generated client, one message a call.
#[derive(Clone)]
pub(crate) struct Unary {
    client: InventorySentinelClient<Channel>,
    shop: Shop,
    next: usize,
}

impl Unary {
    /// So many callers, over a few connections.
    pub(crate) async fn callers(server: &Server, shop: &Shop, number: usize) -> Result<Vec<Self>> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS.min(number) {
            clients.push(InventorySentinelClient::new(server.connect().await?));
        }
        let caller = |i: usize| Self { client: clients[i % clients.len()].clone(), shop: shop.clone(), next: i };
        Ok((0..number).map(caller).collect())
    }
}

impl Caller for Unary {
    async fn call(&mut self) -> Result<()> {
        let sku = &self.shop.skus[self.next % self.shop.skus.len()];
        // A step that shares no factor with the numbers of SKUs in use.
        self.next += 7919;
        let request = v1::ReserveRequest {
            namespace_id: self.shop.namespace.clone(),
            request_id: unique(),
            lines: vec![v1::Line { sku: sku.clone(), quantity: 1 }],
            ttl: Some(prost_types::Duration { seconds: TTL.as_secs() as i64, nanos: 0 }),
            ..Default::default()
        };
        let response = self.client.reserve(request).await?.into_inner();
        let outcome = response.result.context("a response has a result")?;
        ensure!(matches!(outcome, Outcome::Reservation(_)) == self.shop.is_full, "unexpected answer: {outcome:?}");
        Ok(())
    }
}

/// Calls Reserve through the Rust client, and perhaps Commit after it.
#[derive(Clone)]
pub(crate) struct Gathered {
    namespace: Namespace,
    sku: String,
    sells: bool,
}

impl Gathered {
    /// So many callers, who share a client. `sells`: they commit what they have reserved.
    pub(crate) async fn callers(server: &Server, shop: &Shop, sells: bool, number: usize) -> Result<Vec<Self>> {
        let client = Sentinel::builder(server.uri()).connections(CONNECTIONS).connect().await?;
        let namespace = client.namespace(&shop.namespace);
        Ok(vec![Self { namespace, sku: shop.skus[0].clone(), sells }; number])
    }
}

impl Caller for Gathered {
    async fn call(&mut self) -> Result<()> {
        let held = self.namespace.reserve(&self.sku, 1).ttl(TTL).await?;
        if self.sells {
            self.namespace.commit(&held.id).await?;
        }
        Ok(())
    }
}

/// A request id that no other call of this machine has.
fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
