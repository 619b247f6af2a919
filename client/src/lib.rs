//! The Rust client of Inventory Sentinel: typed calls, typed refusals, safe retries.
//!
//! ```no_run
//! use std::time::Duration;
//! use inventory_sentinel_client::{CommitError, ReserveError, Sentinel};
//!
//! # async fn buy() -> Result<(), Box<dyn std::error::Error>> {
//! let sentinel = Sentinel::connect("http://127.0.0.1:50051").await?;
//! let sale = sentinel.namespace("flash_sale");
//! sale.admin().set_stock("ps5", 100).await?;
//!
//! match sale.reserve("ps5", 1).ttl(Duration::from_secs(300)).await {
//!     Ok(held) => match sale.commit(&held.id).await {
//!         Ok(sold) => println!("sold, final at {:?}", sold.resolved_at),
//!         Err(CommitError::Expired(_)) => println!("paid too late: refund"),
//!         Err(error) => return Err(error.into()),
//!     },
//!     Err(ReserveError::InsufficientStock { .. }) => println!("sold out"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! - **Identity.** Every change gets a `request_id` (UUIDv7) unless the caller sets one, except a Commit or Rollback of
//!   a whole reservation, which is idempotent. All attempts of a call have the same id, so a change is never applied
//!   twice. An id that a caller set is refused for another request (see [`Builder::identity_memory`]).
//! - **Deadline.** Each call has one for all its attempts together (5 s by default). The remaining time is sent as
//!   `grpc-timeout`.
//! - **Retries** on `UNAVAILABLE` only, by the [`RetryPolicy`]. The caller handles all other errors.
//! - **Errors** by operation: a commit fails with a [`CommitError`], and so on. [`RpcError`] is their common part; it
//!   reports whether the [outcome is unknown](RpcError::outcome_unknown).
//! - **Batches.** Concurrent Reserve, Commit and Rollback calls share messages, see [`Builder::batching`]. Callers with
//!   many operations at hand use [`Namespace::batch`].
//! - **Streams** that resume after failures. [`Namespace::watch_protected`] caches which SKUs are protected.
//! - **Traces.** Calls propagate the W3C trace context of the current `tracing` span.
//! - **TLS** for `https://`, with the system's roots or [`Builder::tls_ca`], and a client certificate if the server needs
//!   one. A bearer token, see [`Builder::bearer_token_file`], is sent with every call.
//!
//! Dropping a call's future stops waiting; it does not revoke the call.
//!
//! # Layout
//! From top to bottom; a module imports only those below it.
//! - `connection`: [`Sentinel`] and its [`Builder`].
//! - `namespace`: [`Namespace`], the checkout operations; `admin`: [`Admin`], the operators' operations.
//! - `watch`: the streams [`Events`], [`WatchStock`], [`ProtectedSkus`].
//! - `requests`: the awaitable requests, for example [`Reserve`] and [`SetStock`].
//! - `scope`: the target of a request: shared state, namespace name, deadline.
//! - `transport`: deadline, retries, identities, batching, connections, TLS, credentials, traces.
//! - `convert`: the generated messages to the types and back.
//! - `operation_errors`: the errors by operation; `rpc_error`: [`RpcError`], decoded from a gRPC status.
//! - `types`, `rules`, `limits`: data.

mod admin;
mod connection;
mod convert;
mod limits;
mod namespace;
mod operation_errors;
mod requests;
mod rpc_error;
mod rules;
mod scope;
mod transport;
mod types;
mod watch;

#[cfg(test)]
mod tests;

pub use admin::Admin;
pub use connection::{Builder, ConnectError, Sentinel};
pub use inventory_sentinel::Reason;
pub use limits::{
    CALLS_PER_CONNECTION, DEFAULT_CONNECT_TIMEOUT, DEFAULT_DEADLINE, DEFAULT_IDENTITY_MEMORY, MAX_CONNECTIONS,
    MAX_DEADLINE,
};
pub use namespace::Namespace;
pub use operation_errors::{
    AdjustStockError, AuditError, BatchError, BatchGetStockError, CommitError, ConfigureNamespaceError,
    ConfigureSkuError, DeleteNamespaceError, DeleteSkuError, ExtendError, GetNamespaceError, GetReservationError,
    GetSkuError, GetStockError, ImportStockError, IsProtectedError, ListNamespacesError, ListReservationsError,
    ListStockError, ReserveError, RollbackError, SetProtectionError, SetStockError, SettlePartitionError, WatchError,
    WatchStockError,
};
pub use requests::{
    batch::{Batch, BatchOutcome},
    bulk::ImportStock,
    configure::{ConfigureNamespace, ConfigureSku, SetStock},
    lists::{ListNamespaces, ListReservations, ListStock},
    reserve::Reserve,
    resolve::{Commit, Extend, Rollback},
    settle::SettlePartition,
};
pub use rpc_error::{FieldViolation, RpcError};
pub use rules::{NamespaceChange, NamespaceConfig, RulesChange, SkuConfiguration, SkuRules};
pub use tonic::Code;
pub use transport::retry::{RetryBudget, RetryPolicy};
pub use types::{
    Applied, Audit, Extended, Finding, FindingKind, Imported, Line, Page, Protection, Reservation, ReservationLine,
    ShortLine, Snapshot, State, Stock,
    event::{Event, EventKind, LostHistory},
    server::{FencedPartition, Promise, PromiseState, ServerInfo, Settlement},
};
pub use watch::{
    events::{Changes, Events},
    protected::{DEFAULT_MAX_AGE, ProtectedSkus},
    stock::{StockUpdate, WatchStock},
};
