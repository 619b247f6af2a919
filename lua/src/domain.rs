//! The types that the protocol's bytes represent, parsed once, at the edge of the server. No I/O.
//!
//! - `invalid`: why a field of a request is refused;
//! - `namespace`: the name of a namespace, and a change of its settings;
//! - `request`: the identities that callers give;
//! - `sku`: SKUs, quantities and lines;
//! - `time`: instants, ttls, the clock of a partition beside that of the store;
//! - `stock`: counters and rules of a SKU;
//! - `reservation`: reservations and their ids;
//! - `operation`, `outcome`: the operations that a lane submits, and their outcomes;
//! - `event`: the changes that the event stream reports;
//! - `history`: terms, points in a partition's history, and lost changes;
//! - `audit`, `promise`: findings of an audit; what an OK depends on.

mod audit;
mod clock;
mod event;
mod history;
mod invalid;
mod namespace;
mod operation;
mod outcome;
mod promise;
mod request;
mod reservation;
mod sku;
mod stock;
mod time;

pub use self::{
    audit::{Finding, FindingKind, Report},
    clock::{Clock, ClockOffsets, Reading, TimeOfDay},
    event::Happened,
    history::{Fence, FenceId, HistoryPoint, Knowledge, Term, Verdict},
    invalid::Invalid,
    namespace::{NamespaceChange, NamespaceName},
    operation::{Condition, Operation},
    outcome::{Answer, Outcome, Refusal},
    promise::{Promise, PromiseState},
    request::{BuyerId, RequestId},
    reservation::{Id, Reservation, ReservationId, ReservedLine, State},
    sku::{Delta, Line, OnHand, Quantity, Sku},
    stock::{Configured, Rules, RulesChange, Stock},
    time::{StoreTime, Ttl, whole_millis},
};
pub use crate::limits::{
    FIRST_WITH_PAUSE, FORMATS, MAX_ID_BYTES, MAX_LIFE, MAX_LINES, MAX_NAMESPACE_BYTES, MAX_OPERATIONS, MAX_PARTITIONS,
    MAX_QUANTITY, MAX_QUOTA_RECORDS, MAX_QUOTA_SKUS, MAX_SKU_BYTES, MAX_STOCK, MAX_TTL, RETENTION,
};
