//! [`Namespace`]: the checkout operations. Keeps no state.

use std::{sync::Arc, time::Duration};

use crate::{
    admin::Admin,
    operation_errors::{BatchGetStockError, GetReservationError, GetStockError, IsProtectedError},
    requests::{
        batch::Batch,
        reads,
        reserve::Reserve,
        resolve::{Commit, Extend, Rollback},
    },
    scope::Scope,
    transport::call::Core,
    types::{Line, Reservation, Snapshot, Stock},
    watch::{events::Events, protected::ProtectedSkus, stock::WatchStock},
};

/// One sale or tenant: the operations that checkout needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Namespace(Scope);

impl Namespace {
    pub(crate) fn new(core: Arc<Core>, name: String, deadline: Duration) -> Namespace {
        Namespace(Scope { core, name: name.into(), deadline })
    }

    /// The name of the namespace.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The same namespace with another deadline for its calls; see [`Builder::deadline`].
    ///
    /// [`Builder::deadline`]: crate::Builder::deadline
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Namespace {
        Namespace(Scope { deadline, ..self.0.clone() })
    }

    /// The operators' operations on the same namespace.
    pub fn admin(&self) -> Admin {
        Admin::new(self.0.clone())
    }

    /// Holds `quantity` units of `sku`, or none. Await it, or set parameters first:
    /// `sale.reserve("ps5", 1).ttl(Duration::from_secs(300)).buyer("7").await`.
    pub fn reserve(&self, sku: impl Into<String>, quantity: i32) -> Reserve {
        self.reserve_cart([Line::new(sku, quantity)])
    }

    /// Holds the units of all lines, or none of them.
    pub fn reserve_cart(&self, lines: impl IntoIterator<Item = Line>) -> Reserve {
        Reserve::new(self.0.clone(), lines)
    }

    /// Makes the sale of all held units final, or of some. Await it, or set parameters first:
    /// `sale.commit(&held.id).line("ps5", 1).keep_rest().await`. Idempotent. Refusals:
    /// [`CommitError`](crate::CommitError).
    pub fn commit(&self, reservation_id: &str) -> Commit {
        Commit::new(self.0.clone(), reservation_id)
    }

    /// Releases all held units, or some. Await it, or set parameters first:
    /// `sale.rollback(&held.id).line("ps5", 1).await`. Idempotent. After the deadline it returns `Ok` with the state
    /// [`State::Expired`]: the units were released already. Refusals: [`RollbackError`](crate::RollbackError).
    ///
    /// [`State::Expired`]: crate::State::Expired
    pub fn rollback(&self, reservation_id: &str) -> Rollback {
        Rollback::new(self.0.clone(), reservation_id)
    }

    /// Holds the units for `ttl` from now, or until their current deadline if that is later. Await it. Refusals:
    /// [`ExtendError`](crate::ExtendError).
    pub fn extend(&self, reservation_id: &str, ttl: Duration) -> Extend {
        Extend::new(self.0.clone(), reservation_id, ttl)
    }

    /// Up to 512 operations in one call, with one typed outcome each, in the order in which they were added. They are
    /// independent, as if called at the same moment: send an operation that depends on another's outcome in a later
    /// call. A larger batch is refused as a whole, see [`BatchError`](crate::BatchError). Retries repeat the whole
    /// call; an error of an operation is left to the caller.
    ///
    /// ```no_run
    /// use inventory_sentinel_client::{BatchOutcome, Namespace};
    ///
    /// # type Error = Box<dyn std::error::Error>;
    /// # async fn settle(sale: Namespace, paid: &[String], failed: &[String]) -> Result<(), Error> {
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
    ///         BatchOutcome::Rollback(Ok(released)) => println!("{} is released", released.id),
    ///         refused => println!("{refused:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Batch {
        Batch::new(self.0.clone())
    }

    /// Reads a reservation. A resolved one stays readable for the retention of the namespace.
    ///
    /// # Errors
    /// See [`GetReservationError`].
    pub async fn reservation(&self, reservation_id: &str) -> Result<Snapshot<Reservation>, GetReservationError> {
        reads::reservation(&self.0, reservation_id, "").await
    }

    /// Reads the reservation that the Reserve with this `request_id` created.
    ///
    /// # Errors
    /// See [`GetReservationError`].
    pub async fn reservation_of(&self, request_id: &str) -> Result<Snapshot<Reservation>, GetReservationError> {
        reads::reservation(&self.0, "", request_id).await
    }

    /// Reads the counters of a SKU, exact at the instant of the read.
    ///
    /// # Errors
    /// See [`GetStockError`].
    pub async fn stock(&self, sku: &str) -> Result<Snapshot<Stock>, GetStockError> {
        reads::stock(&self.0, sku).await
    }

    /// Reads the counters of many SKUs, in the order of `skus`; `None` for one that does not exist. Each is exact at
    /// the instant of its read. Sends 512 SKUs per message, each with the namespace's deadline.
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
        reads::stock_of(&self.0, skus.into_iter().map(Into::into).collect()).await
    }

    /// Caches the set of protected SKUs. [`ProtectedSkus::is_protected`] then needs no call while a server is
    /// reachable. Must be called in a Tokio runtime.
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
        ProtectedSkus::watch(self.0.clone())
    }

    /// The counters of these SKUs as they change, or of all SKUs if the list is empty; for pages that show the
    /// available units. Call [`WatchStock::next`] for each update.
    pub fn watch_stock<S: Into<String>>(&self, skus: impl IntoIterator<Item = S>) -> WatchStock {
        WatchStock::new(self.0.clone(), skus.into_iter().map(Into::into).collect())
    }

    /// Every change of this namespace, for callers that keep another system in sync.
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
        Events::new(self.0.clone())
    }

    /// Whether this service governs the units of a SKU (reserve them), or the shop's database does (use the ordinary
    /// path). A SKU that does not exist is not protected.
    ///
    /// # Errors
    /// See [`IsProtectedError`].
    pub async fn is_protected(&self, sku: &str) -> Result<bool, IsProtectedError> {
        reads::is_protected(&self.0, sku).await
    }
}
