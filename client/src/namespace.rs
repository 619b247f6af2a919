//! The checkout operations on one namespace. Makes messages and sends them by `call`; keeps no state.

use std::{sync::Arc, time::Duration};

use inventory_sentinel::v1::{self, inventory_sentinel_client::InventorySentinelClient};
use tonic::transport::Channel;

use crate::{
    admin::Admin,
    batch::{self, Batch},
    call::Core,
    connection::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES},
    operation_errors::{BatchGetStockError, GetReservationError, GetStockError, IsProtectedError},
    reserve::Reserve,
    resolve::{Commit, Extend, Rollback},
    rpc_error::RpcError,
    types::{Line, Reservation, Snapshot, Stock},
    watch::{events::Events, protected::ProtectedSkus, stock::WatchStock},
};

/// One sale or tenant: the operations that checkout needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(crate) core: Arc<Core>,
    pub(crate) name: Arc<str>,
    pub(crate) deadline: Duration,
}

impl Namespace {
    pub(crate) fn new(core: Arc<Core>, name: String, deadline: Duration) -> Namespace {
        Namespace { core, name: name.into(), deadline }
    }

    /// The name of the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same namespace with another deadline for its calls; see [`Builder::deadline`].
    ///
    /// [`Builder::deadline`]: crate::Builder::deadline
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Namespace {
        Namespace { deadline, ..self.clone() }
    }

    /// The operators' operations on the same namespace.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Holds `quantity` units of `sku`, or none. Await it, or say more first:
    /// `sale.reserve("ps5", 1).ttl(Duration::from_secs(300)).buyer("7").await`.
    pub fn reserve(&self, sku: impl Into<String>, quantity: i32) -> Reserve {
        self.reserve_cart([Line::new(sku, quantity)])
    }

    /// Holds the units of all lines, or none of them.
    pub fn reserve_cart(&self, lines: impl IntoIterator<Item = Line>) -> Reserve {
        Reserve::new(self.clone(), lines)
    }

    /// Makes the sale final, of all units that are held or of some: await it, or say more first:
    /// `sale.commit(&held.id).line("ps5", 1).keep_rest().await`. Repeats harmlessly. It can be refused
    /// as [`CommitError`](crate::CommitError) says.
    pub fn commit(&self, reservation_id: &str) -> Commit {
        Commit::new(self.clone(), reservation_id)
    }

    /// Gives back all units that are held or some: await it, or say more first:
    /// `sale.rollback(&held.id).line("ps5", 1).await`. Repeats harmlessly. After the deadline it is
    /// `Ok` with the state [`State::Expired`]: the units were given back already. It can be refused as
    /// [`RollbackError`](crate::RollbackError) says.
    ///
    /// [`State::Expired`]: crate::State::Expired
    pub fn rollback(&self, reservation_id: &str) -> Rollback {
        Rollback::new(self.clone(), reservation_id)
    }

    /// Holds the units for `ttl` from now, or as long as they are held already if that is longer. Await
    /// it. It can be refused as [`ExtendError`](crate::ExtendError) says.
    pub fn extend(&self, reservation_id: &str, ttl: Duration) -> Extend {
        Extend::new(self.clone(), reservation_id, ttl)
    }

    /// Many operations in one call, each with its own typed outcome, in the order in which they were added.
    /// Every one is decided on its own, as if all had been called at the same moment; one that depends on
    /// another's outcome belongs into a later call. Up to 512; more are refused as
    /// [`BatchError`](crate::BatchError) says, and none is done. Retries are of the whole call; an
    /// operation's own error is for the caller.
    ///
    /// ```no_run
    /// use inventory_sentinel_client::{BatchOutcome, Namespace};
    ///
    /// # async fn settle(sale: Namespace, paid: &[String], failed: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut batch = sale.batch().reserve(sale.reserve("ps5", 1).buyer("7"));
    /// for id in paid {
    ///     batch = batch.commit(sale.commit(id));
    /// }
    /// for id in failed {
    ///     batch = batch.rollback(sale.rollback(id));
    /// }
    /// for outcome in batch.await? {
    ///     match outcome {
    ///         BatchOutcome::Reserve(Ok(held)) => println!("held until {:?}", held.expires_at),
    ///         BatchOutcome::Commit(Ok(sold)) => println!("{} is sold", sold.id),
    ///         BatchOutcome::Rollback(Ok(back)) => println!("{} is given back", back.id),
    ///         refused => println!("{refused:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// Reads a reservation. A resolved one stays readable for the retention of the namespace.
    ///
    /// # Errors
    /// See [`GetReservationError`].
    pub async fn reservation(&self, reservation_id: &str) -> Result<Snapshot<Reservation>, GetReservationError> {
        self.read_reservation(reservation_id, "").await
    }

    /// Reads the reservation that a Reserve with this `request_id` made, such as that of an order.
    ///
    /// # Errors
    /// See [`GetReservationError`].
    pub async fn reservation_of(&self, request_id: &str) -> Result<Snapshot<Reservation>, GetReservationError> {
        self.read_reservation("", request_id).await
    }

    async fn read_reservation(
        &self,
        reservation_id: &str,
        request_id: &str,
    ) -> Result<Snapshot<Reservation>, GetReservationError> {
        let message = v1::GetReservationRequest {
            namespace_id: self.name.to_string(),
            reservation_id: reservation_id.to_owned(),
            request_id: request_id.to_owned(),
        };
        let send = |channel, request| async { checkout(channel).get_reservation(request).await };
        let answer = self.core.call(self.deadline, message, send).await;
        Ok(answer.map_err(RpcError::of_read)?)
    }

    /// Reads the counters of a SKU, exact at the instant of the read.
    ///
    /// # Errors
    /// See [`GetStockError`].
    pub async fn stock(&self, sku: &str) -> Result<Snapshot<Stock>, GetStockError> {
        let message = v1::GetStockRequest { namespace_id: self.name.to_string(), sku: sku.to_owned() };
        let send = |channel, request| async { checkout(channel).get_stock(request).await };
        let answer = self.core.call(self.deadline, message, send).await;
        Ok(answer.map_err(RpcError::of_read)?)
    }

    /// Reads the counters of many SKUs, in the order of `skus`; `None` for one that is not known. Each is exact
    /// at the instant of its own read. Sent by 512, each with the namespace's deadline.
    ///
    /// ```no_run
    /// # async fn shelves(sale: inventory_sentinel_client::Namespace) -> Result<(), Box<dyn std::error::Error>> {
    /// let skus = ["ps5", "vita"];
    /// for (sku, stock) in skus.iter().zip(sale.stock_of(skus).await?) {
    ///     match stock {
    ///         Some(stock) => println!("{sku}: {} available", stock.available),
    ///         None => println!("{sku} is not sold here"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`BatchGetStockError`].
    pub async fn stock_of(
        &self,
        skus: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Option<Snapshot<Stock>>>, BatchGetStockError> {
        batch::stock_of(self, skus.into_iter().map(Into::into).collect()).await
    }

    /// Keeps the set of protected SKUs here, so that
    /// [`ProtectedSkus::is_protected`] needs no call while a server is there. Needs a Tokio runtime around it.
    ///
    /// ```no_run
    /// # async fn path(sale: inventory_sentinel_client::Namespace) -> Result<(), Box<dyn std::error::Error>> {
    /// let protected = sale.watch_protected();
    /// if protected.is_protected("ps5").await? {
    ///     sale.reserve("ps5", 1).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_protected(&self) -> ProtectedSkus {
        ProtectedSkus::watch(self.clone())
    }

    /// The counters of these SKUs as they change, or of all if none is named; for pages that show what is
    /// left. Call [`WatchStock::next`] for the first and each further answer.
    pub fn watch_stock<S: Into<String>>(&self, skus: impl IntoIterator<Item = S>) -> WatchStock {
        WatchStock::new(self.clone(), skus.into_iter().map(Into::into).collect())
    }

    /// Every change of this namespace, for whoever keeps another system in line.
    ///
    /// ```no_run
    /// # async fn follow(sale: inventory_sentinel_client::Namespace) -> Result<(), Box<dyn std::error::Error>> {
    /// # fn load() -> String { String::new() }
    /// # fn store(_: &[inventory_sentinel_client::Event], _: &str) {}
    /// let mut events = sale.events().after(load()).from_oldest();
    /// loop {
    ///     let changes = events.next().await?;
    ///     store(&changes.events, &changes.resume_token); // in one transaction
    /// }
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        Events::new(self.clone())
    }

    /// Whether the units of a SKU are governed here (reserve) or in the shop's own database (take
    /// the ordinary path). A SKU that is not known here is not protected.
    ///
    /// # Errors
    /// See [`IsProtectedError`].
    pub async fn is_protected(&self, sku: &str) -> Result<bool, IsProtectedError> {
        let message = v1::IsProtectedRequest { namespace_id: self.name.to_string(), sku: sku.to_owned() };
        let send = |channel, request| async { checkout(channel).is_protected(request).await };
        let answer = self.core.call(self.deadline, message, send).await;
        Ok(answer.map_err(RpcError::of_read)?)
    }
}

/// The generated client of the checkout service, within this client's limits.
pub(crate) fn checkout(channel: Channel) -> InventorySentinelClient<Channel> {
    InventorySentinelClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
}
