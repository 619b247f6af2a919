//! The caller of a server under count: one call, a Batch message, or a wave of calls at once, over one
//! connection of the generated client. Checks every answer.

use anyhow::{Context as _, Result, bail, ensure};
use inventory_sentinel::v1::{
    self, BatchOperation, batch_operation::Operation as Sent, batch_result::Result as Received,
    inventory_sentinel_client::InventorySentinelClient, reserve_response::Result as Outcome,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    credentials::Bearer,
    fixture::{Shop, TTL},
    process::Server,
};

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Reserve,
    /// A Reserve that gets nothing, and claims to be a first attempt.
    SoldOut,
    /// A Reserve that gets nothing, whose id the store reads.
    SoldOutUnclaimed,
    Commit,
    Rollback,
}

/// The caller. Its shops are there from the start.
pub(crate) struct Driver {
    client: InventorySentinelClient<Channel>,
    /// The header of each call of a wave.
    bearer: Bearer,
    full: Shop,
    empty: Shop,
    held: Vec<String>,
    requests: u64,
}

impl Driver {
    /// Connects, and opens its shops where there is stock.
    pub(crate) async fn new(server: &Server) -> Result<Self> {
        let (full, empty) = (Shop::new("full", 1, true), Shop::new("empty", 1, false));
        if server.redis().is_some() {
            full.open(server).await?;
            empty.open(server).await?;
        }
        let client = InventorySentinelClient::new(server.connect().await?);
        let bearer = server.bearer()?;
        Ok(Self { client, bearer, full, empty, held: Vec::new(), requests: 0 })
    }

    /// The key of its reservations.
    pub(crate) fn records(&self) -> String {
        self.full.records()
    }

    /// Holds what so many calls are going to resolve.
    pub(crate) async fn prepare(&mut self, work: Work, size: usize, calls: usize) -> Result<()> {
        while matches!(work, Work::Commit | Work::Rollback) && self.held.len() < size * calls {
            self.call(Work::Reserve, size).await?;
        }
        Ok(())
    }

    /// Makes so many calls, one after the other.
    pub(crate) async fn calls(&mut self, work: Work, size: usize, calls: usize) -> Result<()> {
        for _ in 0..calls {
            self.call(work, size).await?;
        }
        Ok(())
    }

    /// Does it so many times in one call: one of a single operation, or a Batch message.
    pub(crate) async fn call(&mut self, work: Work, size: usize) -> Result<()> {
        let operations: Vec<Sent> = (0..size).map(|_| self.operation(work)).collect::<Result<_>>()?;
        for received in self.send(operations).await? {
            self.check(work, received)?;
        }
        Ok(())
    }

    /// Sends so many Reserves at once, a call each.
    pub(crate) async fn wave(&mut self, size: usize) -> Result<()> {
        let mut calls = JoinSet::new();
        for _ in 0..size {
            let reserve = self.reserve(Work::Reserve);
            let (mut client, request) = (self.client.clone(), self.bearer.request(reserve));
            calls.spawn(async move { client.reserve(request).await });
        }
        while let Some(response) = calls.join_next().await {
            self.check(Work::Reserve, Received::Reserve(response??.into_inner()))?;
        }
        Ok(())
    }

    async fn send(&mut self, mut operations: Vec<Sent>) -> Result<Vec<Received>> {
        if operations.len() == 1 {
            return Ok(vec![match operations.remove(0) {
                Sent::Reserve(request) => Received::Reserve(self.client.reserve(request).await?.into_inner()),
                Sent::Commit(request) => Received::Commit(self.client.commit(request).await?.into_inner()),
                Sent::Rollback(request) => Received::Rollback(self.client.rollback(request).await?.into_inner()),
                other => bail!("no call is made of {other:?}"),
            }]);
        }
        let operations =
            operations.into_iter().map(|operation| BatchOperation { operation: Some(operation), timeout: None });
        let request = v1::BatchRequest { operations: operations.collect() };
        let response = self.client.batch(request).await?.into_inner();
        response.results.into_iter().map(|result| result.result.context("a result has a value")).collect()
    }

    fn operation(&mut self, work: Work) -> Result<Sent> {
        if matches!(work, Work::Reserve | Work::SoldOut | Work::SoldOutUnclaimed) {
            return Ok(Sent::Reserve(self.reserve(work)));
        }
        let reservation_id = self.held.pop().context("nothing is held")?;
        let namespace_id = self.full.namespace.clone();
        Ok(match work {
            Work::Commit => Sent::Commit(v1::CommitRequest { namespace_id, reservation_id, ..Default::default() }),
            _ => Sent::Rollback(v1::RollbackRequest { namespace_id, reservation_id, ..Default::default() }),
        })
    }

    fn reserve(&mut self, work: Work) -> v1::ReserveRequest {
        let shop = if work == Work::Reserve { &self.full } else { &self.empty };
        self.requests += 1;
        v1::ReserveRequest {
            namespace_id: shop.namespace.clone(),
            // Of one length: longer messages cost more.
            request_id: format!("count-{:010}", self.requests),
            lines: vec![v1::Line { sku: shop.skus[0].clone(), quantity: 1 }],
            ttl: Some(prost_types::Duration { seconds: TTL.as_secs() as i64, nanos: 0 }),
            first_attempt: work != Work::SoldOutUnclaimed,
            ..Default::default()
        }
    }

    /// Whether it was done; notes what is held now.
    fn check(&mut self, work: Work, received: Received) -> Result<()> {
        match (work, received) {
            (
                Work::Reserve,
                Received::Reserve(v1::ReserveResponse { result: Some(Outcome::Reservation(made)), .. }),
            ) => {
                self.held.push(made.reservation_id);
            }
            (
                Work::SoldOut | Work::SoldOutUnclaimed,
                Received::Reserve(v1::ReserveResponse { result: Some(Outcome::Shortage(_)), .. }),
            ) => {}
            (Work::Commit, Received::Commit(response)) => ensure!(response.reservation.is_some()),
            (Work::Rollback, Received::Rollback(response)) => ensure!(response.reservation.is_some()),
            (_, other) => bail!("unexpected answer to {work:?}: {other:?}"),
        }
        Ok(())
    }
}
