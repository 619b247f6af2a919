//! Operations and answers as bytes. The same formats are in `lua/contract.lua` and `lua/records.lua`.
//! Pure functions, no I/O.
//!
//! - [`config`]: what is fixed for a namespace, and the calls that open and configure it;
//! - [`deletion`]: whether a namespace is there, is being deleted, or was;
//! - [`request`]: operations, grouped, as the arguments of the script;
//! - [`reply`]: the script's reply as answers;
//! - [`records`]: reservations and stock as they lie in Redis;
//! - [`history`]: what is known of a partition's history, and its state.

use deadpool_redis::redis::{Cmd, Value, cmd};

mod config;
mod deletion;
mod history;
mod records;
mod reply;
mod request;

pub(crate) use config::{
    ConfigMemo, Configured, NamespaceConfig, Opened, configure_command, decode_config, decode_configured,
    decode_opened, encode_change, open_command,
};
pub(crate) use deletion::{
    DeletionStep, FIELDS as FOUND_FIELDS, Found, Presence, Stepped, decode_deleted, decode_found, decode_step,
    deletion_command,
};
pub(crate) use history::{PartitionState, state_from};
pub(crate) use records::{configured_from, is_memo, reservation_from, stock_from};
pub(crate) use reply::{OperationResult, RawReply, Reply};
pub(crate) use request::Batch;

use super::keys::PartitionKeys;
use crate::domain::{Clock, Line, Quantity, Sku};

fn script_call(sha: &str, keys: &PartitionKeys) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(sha).arg(keys.all().len()).arg(keys.all());
    command
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// The numbers of records have six bytes.
fn put_u48(out: &mut Vec<u8>, number: u64) {
    debug_assert!(number < 1 << 48, "a number of a record has six bytes");
    out.extend_from_slice(&number.to_be_bytes()[2..]);
}

/// A cursor over big-endian bytes; `None` at the end.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u48(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(self.take(6)?);
        Some(u64::from_be_bytes(bytes))
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// The clock of a partition beside that of the store.
    pub(crate) fn clock(&mut self) -> Option<Clock> {
        Some(Clock { offset: self.i64()?, correction: self.i64()?, doubt: self.u48()? })
    }

    /// A length of one byte, and so many bytes.
    pub(crate) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A length of two bytes, and so many bytes.
    pub(crate) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// The lines of a shape.
    pub(crate) fn lines(&mut self) -> Option<Vec<Line>> {
        let _ttl = self.u48()?;
        (0..self.u8()?)
            .map(|_| {
                let quantity = Quantity::from_store(self.u32()?);
                Some(Line { quantity, sku: Sku::from_store(self.short()?)? })
            })
            .collect()
    }
}
