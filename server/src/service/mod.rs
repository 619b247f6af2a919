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
//! - [`status`][]: failures as `Status`. The only module that uses gRPC codes.
//! - [`convert`][]: domain values to and from messages.
//! - [`token`][]: page tokens and resume tokens.
//! - [`change_log`][]: the log of the changes that operators make.

use inventory_sentinel::Reason;
use tonic::Status;

pub(crate) mod change_log;
mod context;
mod convert;
mod deadline;
mod dispatch;
mod rpc;
mod status;
mod token;

use self::status::Failure;
pub(crate) use self::{
    context::ServiceContext,
    rpc::{admin::Admin, checkout::Checkout, events::Events},
};

/// The refusal of a call that reaches no service.
pub(crate) fn refusal(reason: Reason) -> Status {
    Failure::new(reason).into()
}

/// The same, with a detail beyond the meaning of the reason.
pub(crate) fn refusal_because(reason: Reason, why: &str) -> Status {
    Failure::new(reason).because(why).into()
}

/// The refusal of a call that fails because of a defect of the server.
pub(crate) fn defect(why: &str) -> Status {
    Failure::new(Reason::Internal).because(why).into()
}
