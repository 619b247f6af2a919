//! The gRPC services: decode a request, run it, encode its response. The script in the store decides.
//!
//! One RPC is one file, in the folder of its service:
//!
//! - [`rpc::checkout`][]: `InventorySentinel`. The data plane: calls are operations for
//!   lanes.
//! - [`rpc::admin`][]: `InventoryAdmin`. The control plane: stock, rules, lists, imports, the
//!   audit.
//! - [`rpc::events`][]: `InventoryEvents`. The control plane: streams over the watch hub.
//!
//! All RPCs share these modules:
//!
//! - [`dispatch`][]: the traits of an RPC, and the path of every unary call.
//! - [`context`][]: the state that all services share: admission, namespaces, counters.
//! - [`deadline`][]: the headers of a call for its timeout and for retries.
//! - [`failures`][]: the refusals of the other modules as a `Failure`.
//! - [`convert`][]: domain values to and from messages.
//! - [`token`][]: page tokens and resume tokens.
//! - [`audit_record`][]: the log of the changes that operators make.

mod audit_record;
mod context;
mod convert;
mod deadline;
mod dispatch;
mod failures;
mod rpc;
mod token;

pub(crate) use self::{
    context::ServiceContext,
    rpc::{admin::Admin, checkout::Checkout, events::Events},
};
