//! Callers: the generated client with one call per message, and the Rust client, which batches calls into messages.
//! Each makes one call and checks its answer.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use inventory_sentinel::v1::{
    self, inventory_sentinel_client::InventorySentinelClient, reserve_response::Result as Outcome,
};
use inventory_sentinel_client::{CALLS_PER_CONNECTION, Namespace};
use tonic::transport::Channel;

use crate::{
    credentials::Bearer,
    fixture::{Shop, TTL},
    load::Caller,
    process::Server,
};

/// Connections that callers share at least, if there are as many callers.
const CONNECTIONS: usize = 4;

/// Connections of so many callers of the generated client: none has more calls in flight than one of the Rust
/// client, whose rule this is. The same for each server that is measured, whatever it would let a connection have.
fn connections(callers: usize) -> usize {
    CONNECTIONS.max(callers.div_ceil(CALLS_PER_CONNECTION)).min(callers)
}

/// Calls Reserve through the generated client, one message a call.
#[derive(Clone)]
pub(crate) struct Unary {
    client: InventorySentinelClient<Channel>,
    /// The header of each call.
    bearer: Bearer,
    shop: Shop,
    first_attempt: bool,
    next: usize,
}

impl Unary {
    /// So many callers, over as many connections as they need. `first_attempt`: the claim of each call.
    pub(crate) async fn callers(server: &Server, shop: &Shop, number: usize, first_attempt: bool) -> Result<Vec<Self>> {
        let mut clients = Vec::new();
        for _ in 0..connections(number) {
            clients.push(InventorySentinelClient::new(server.connect().await?));
        }
        let bearer = server.bearer()?;
        let caller = |i: usize| Self {
            client: clients[i % clients.len()].clone(),
            bearer: bearer.clone(),
            shop: shop.clone(),
            first_attempt,
            next: i,
        };
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
            first_attempt: self.first_attempt,
            ..Default::default()
        };
        let response = self.client.reserve(self.bearer.request(request)).await?.into_inner();
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
        // There is no proxy between this machine's callers and its server.
        let client = server.client().direct().connections(CONNECTIONS).connect().await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_has_more_calls_than_one_of_the_rust_client() {
        assert_eq!([0, 1, 16, 512, 768, 769, 2_048].map(connections), [0, 1, 4, 4, 4, 5, 11]);
    }
}
