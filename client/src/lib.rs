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
//! # What it does for its caller
//! - **Identity.** Every change but a Commit or Rollback of a whole reservation, which is its own identity,
//!   gets a `request_id` (UUIDv7) unless the caller names one. Each retry of a call has the same one, so that a
//!   change is never applied twice. An id that a caller named is refused for another request
//!   (see [`Builder::identity_memory`]).
//! - **Deadline.** Each call has one (5 s unless told otherwise) for all of its attempts together;
//!   what is left of it travels as `grpc-timeout`.
//! - **Retries** on `UNAVAILABLE` only, as the [`RetryPolicy`] says. Everything else is for the caller.
//! - **Errors** by operation: what can go wrong with a commit is a [`CommitError`], and so on.
//!   [`RpcError`] is what they fall through to, and it can tell whether the
//!   [outcome is unknown](RpcError::outcome_unknown).
//! - **Batches.** Reserve, Commit and Rollback calls that are made at the same time share messages, see
//!   [`Builder::batching`]. Who has many at once can say so: [`Namespace::batch`].
//! - **Streams** that go on by themselves; with [`Namespace::watch_protected`] the question whether a SKU is
//!   protected needs no call.
//! - **Traces.** The W3C trace context of the current `tracing` span is sent along.
//!
//! Dropping a call's future gives up waiting; it does not take the call back.
//!
//! # Layout
//! - `connection`: [`Sentinel`] and its [`Builder`]: endpoints, keepalive, connections.
//! - `namespace`: [`Namespace`], the checkout operations; `reserve`, `resolve`: their requests, such as
//!   [`Reserve`] and [`Commit`]; `batch`: many of them in one call, and the stock of many SKUs.
//! - `admin`: [`Admin`], the operators' operations; `configure`: their requests, such as [`SetStock`];
//!   `lists`, `bulk`: what there is in pages, and many SKUs in a call.
//! - `call`: the way of every call: identity, deadline, attempts. Knows neither operation nor message.
//! - `identities`: the request that each id stands for that a caller named.
//! - `gather`: calls made at the same time in one message.
//! - `watch`: streams that go on by themselves: [`Events`], [`WatchStock`], [`ProtectedSkus`].
//! - `retry`: [`RetryPolicy`] and [`RetryBudget`]: pure decisions, no waiting.
//! - `trace`: the trace context as metadata.
//! - `types`, `rules`: the plain types; `convert`: the only place where they meet the generated ones.
//! - `rpc_error`: [`RpcError`], read from a gRPC status; `operation_errors`: the errors by operation.

mod admin;
mod batch;
mod bulk;
mod call;
mod channels;
mod configure;
mod connection;
mod convert;
mod gather;
mod identities;
mod lists;
mod namespace;
mod operation_errors;
mod reserve;
mod resolve;
mod retry;
mod rpc_error;
mod rules;
mod settle;
mod trace;
mod types;
mod watch;

#[cfg(test)]
mod tests;

pub use admin::Admin;
pub use batch::{Batch, BatchOutcome};
pub use bulk::ImportStock;
pub use configure::{ConfigureNamespace, ConfigureSku, SetStock};
pub use connection::{
    Builder, CALLS_PER_CONNECTION, ConnectError, DEFAULT_CONNECT_TIMEOUT, DEFAULT_DEADLINE, DEFAULT_IDENTITY_MEMORY,
    MAX_CONNECTIONS, MAX_DEADLINE, Sentinel,
};
pub use inventory_sentinel::Reason;
pub use lists::{ListNamespaces, ListReservations, ListStock};
pub use namespace::Namespace;
pub use operation_errors::{
    AdjustStockError, AuditError, BatchError, BatchGetStockError, CommitError, ConfigureNamespaceError,
    ConfigureSkuError, DeleteNamespaceError, DeleteSkuError, ExtendError, GetNamespaceError, GetReservationError,
    GetSkuError, GetStockError, ImportStockError, IsProtectedError, ListNamespacesError, ListReservationsError,
    ListStockError, ReserveError, RollbackError, SetProtectionError, SetStockError, SettlePartitionError, WatchError,
    WatchStockError,
};
pub use reserve::Reserve;
pub use resolve::{Commit, Extend, Rollback};
pub use retry::{RetryBudget, RetryPolicy};
pub use rpc_error::{FieldViolation, RpcError};
pub use rules::{NamespaceChange, NamespaceConfig, RulesChange, SkuConfiguration, SkuRules};
pub use settle::{FencedPartition, Promise, PromiseState, ServerInfo, SettlePartition, Settlement};
pub use tonic::Code;
pub use types::{
    Audit, Extended, Finding, FindingKind, Imported, Line, Page, Protection, Receipt, Reservation, ReservationLine,
    ShortLine, Snapshot, State, Stock,
};
pub use watch::{
    events::{Changes, Event, EventKind, Events, LostHistory},
    protected::{DEFAULT_MAX_AGE, ProtectedSkus},
    stock::{StockNews, WatchStock},
};
