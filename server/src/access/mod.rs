//! Access: the identity of a caller, the permission of a call, and TLS. Reads the files of certificates, keys, policy
//! and tokens; independent of the services and of the store.
//!
//! - [`guard`][]: the current rules, and the judgement of each call;
//! - [`caller`][]: the identity of one call, which is judged again when the rules change;
//! - [`certificate`][]: names and dates of an X.509 certificate;
//! - [`failed_attempts`][]: the rates of failed authentications and of records of each address;
//! - [`tls`][]: the TLS configuration of the ports;
//! - [`reload`][]: the files, and their reload;
//! - [`audit`][]: the records of refused calls.

pub(crate) mod audit;
mod caller;
mod certificate;
mod failed_attempts;
mod guard;
pub(crate) mod reload;
pub(crate) mod tls;

pub(crate) use self::{
    caller::{Caller, ConnectionAccess},
    guard::{Guard, Requirement},
};
