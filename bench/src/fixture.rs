//! Shops: their SKUs, their stock, and holds that are there before callers come. Fills a server through the Rust
//! client, in messages of many operations.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use inventory_sentinel_client::{BatchOutcome, Namespace};
use inventory_sentinel_script::{domain::NamespaceName, keys::PartitionKeys, limits::MAX_OPERATIONS};
use tokio::task::JoinSet;

use crate::process::Server;

/// Holds outlive the lab: what expires would be work of another run.
pub(crate) const TTL: Duration = Duration::from_secs(3600);
/// Units that no run sells out.
const PLENTY: i64 = 1_000_000_000;
/// Units of each SKU that is sold out: all of them held.
const SOLD_OUT: i64 = 1_000;
/// Operations of one message.
const MESSAGE: usize = MAX_OPERATIONS;
/// Messages under way while a shop is filled.
const FILLERS: usize = 8;
/// Longest wait for one of them, and until a message of rows is on the shelves.
const LIMIT: Duration = Duration::from_secs(60);

/// The stock to reserve.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) namespace: String,
    pub(crate) skus: Arc<[String]>,
    /// Whether a Reserve takes a unit, or gets none.
    pub(crate) is_full: bool,
}

impl Shop {
    /// Its keys in Redis; a shop has one partition.
    pub(crate) fn keys(&self) -> PartitionKeys {
        PartitionKeys::new(&NamespaceName::parse(self.namespace.clone()).expect("a valid name"), 0)
    }

    /// The generation of records in which everything is that was made within the first retention.
    pub(crate) fn records(&self) -> String {
        self.keys().records()[0].to_owned()
    }

    /// A shop of so many SKUs.
    pub(crate) fn new(namespace: impl Into<String>, skus: usize, is_full: bool) -> Self {
        Self { namespace: namespace.into(), skus: (0..skus).map(|i| format!("sku-{i}")).collect(), is_full }
    }

    /// Puts the stock on the shelves; where Reserve shall get none, holds all of it.
    pub(crate) async fn open(&self, server: &Server) -> Result<()> {
        let client = server.client().deadline(LIMIT).connect().await?;
        let on_hand = if self.is_full { PLENTY } else { SOLD_OUT };
        let rows = self.skus.iter().map(|sku| (sku, on_hand));
        client.namespace(&self.namespace).admin().import_stock(rows).await?;
        if !self.is_full {
            for sku in self.skus.iter() {
                self.hold(server, sku, SOLD_OUT as usize, |_| TTL).await?;
            }
        }
        Ok(())
    }

    /// Reserves so many single units of a SKU, each message with the ttl of its start.
    pub(crate) async fn hold(
        &self,
        server: &Server,
        sku: &str,
        holds: usize,
        ttl: impl Fn(Instant) -> Duration + Send + Sync + 'static,
    ) -> Result<()> {
        let client = server.client().deadline(LIMIT).connect().await?;
        let namespace = client.namespace(&self.namespace);
        let ttl = Arc::new(ttl);
        let mut fillers = JoinSet::new();
        for filler in 0..FILLERS {
            let (namespace, sku, ttl) = (namespace.clone(), sku.to_owned(), Arc::clone(&ttl));
            let mine = holds / FILLERS + usize::from(filler < holds % FILLERS);
            fillers.spawn(async move {
                let mut left = mine;
                while left > 0 {
                    let now = left.min(MESSAGE);
                    send(&namespace, &sku, now, ttl(Instant::now())).await?;
                    left -= now;
                }
                anyhow::Ok(())
            });
        }
        while let Some(filled) = fillers.join_next().await {
            filled??;
        }
        Ok(())
    }
}

async fn send(namespace: &Namespace, sku: &str, holds: usize, ttl: Duration) -> Result<()> {
    let mut batch = namespace.batch();
    for _ in 0..holds {
        batch = batch.reserve(namespace.reserve(sku, 1).ttl(ttl));
    }
    for outcome in batch.await? {
        ensure!(matches!(outcome, BatchOutcome::Reserve(Ok(_))), "unexpected answer: {outcome:?}");
    }
    Ok(())
}
