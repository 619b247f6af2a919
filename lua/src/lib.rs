//! The protocol between the server and its store: the Lua script, and everything that is sent between the two as bytes.
//! Pure functions and data, no I/O.
//!
//! - [`script`]: the scripts and their names in Redis, assembled from the files of `scripts/`;
//! - [`codes`]: the one-byte alphabets and the kinds of operations;
//! - [`limits`]: the limits that the server and the script share;
//! - [`keys`]: the name of every key;
//! - [`domain`]: the types that the bytes represent;
//! - [`Batch`]: operations as the arguments of the script, and its reply as answers;
//! - [`NamespaceConfig`], [`Found`], [`PartitionState`], [`events`]: the records that the server reads.

mod assemble;
mod bytes;
pub mod codes;
mod config;
mod decode;
mod deletion;
pub mod domain;
mod encode;
mod error;
pub mod events;
mod history;
pub mod keys;
pub mod limits;
mod prelude;
mod records;
pub mod script;

pub use config::{
    ConfigMemo, Configured, NamespaceConfig, Opened, configure_command, decode_config, decode_configured,
    decode_opened, encode_change, open_command,
};
pub use decode::{OperationResult, RawReply, Reply};
pub use deletion::{
    Deleted, Deleting, DeletionStep, FIELDS as FOUND_FIELDS, Found, Presence, Stepped, decode_deleted, decode_found,
    decode_step, deletion_command,
};
pub use encode::Batch;
pub use error::DecodeError;
pub use history::{PartitionState, state_from};
pub use records::{is_memo, reservation_from, stock_from};
