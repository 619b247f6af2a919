//! The primitives of every format: a cursor over big-endian bytes, and the forms of Redis's replies. No I/O.

use deadpool_redis::redis::{Cmd, Value, cmd};

use crate::{
    domain::{Clock, Line, Quantity, Sku},
    keys::PartitionKeys,
};

/// A call of the script with the keys of a partition; the caller adds the arguments.
pub(crate) fn script_call(sha: &str, keys: &PartitionKeys) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(sha).arg(keys.all().len()).arg(keys.all());
    command
}

pub(crate) fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// Appends a number of a record, which has six bytes.
pub(crate) fn put_u48(out: &mut Vec<u8>, number: u64) {
    debug_assert!(number < 1 << 48, "a number of a record has six bytes");
    out.extend_from_slice(&number.to_be_bytes()[2..]);
}

/// A cursor over big-endian bytes; `None` at the end.
pub(crate) struct ByteReader<'a>(pub(crate) &'a [u8]);

impl<'a> ByteReader<'a> {
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

    /// The difference of a partition's clock from that of the store.
    pub(crate) fn clock(&mut self) -> Option<Clock> {
        Some(Clock { offset: self.i64()?, correction: self.i64()?, doubt: self.u48()? })
    }

    /// A length of one byte, then that number of bytes.
    pub(crate) fn take_u8_prefixed(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A length of two bytes, then that number of bytes.
    pub(crate) fn take_u16_prefixed(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// The lines of a line set.
    pub(crate) fn lines(&mut self) -> Option<Vec<Line>> {
        let _ttl = self.u48()?;
        (0..self.u8()?)
            .map(|_| {
                let quantity = Quantity::from_store(self.u32()?);
                Some(Line { quantity, sku: Sku::from_store(self.take_u8_prefixed()?)? })
            })
            .collect()
    }
}
