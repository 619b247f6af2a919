//! Decodes the metadata of a reason into typed values; no I/O.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{rpc_error::RpcError, types::ShortLine};

/// A value in the metadata of a reason.
pub(super) trait Datum: Sized {
    /// The value under `key`; `None` if it is missing or malformed.
    fn read(error: &RpcError, key: &str) -> Option<Self>;
}

impl Datum for String {
    fn read(error: &RpcError, key: &str) -> Option<String> {
        error.metadata().get(key).cloned()
    }
}

impl Datum for i64 {
    fn read(error: &RpcError, key: &str) -> Option<i64> {
        error.metadata().get(key)?.parse().ok()
    }
}

/// A number that the server omits if there is none.
impl Datum for Option<i64> {
    fn read(error: &RpcError, key: &str) -> Option<Option<i64>> {
        match error.metadata().get(key) {
            Some(number) => number.parse().ok().map(Some),
            None => Some(None),
        }
    }
}

/// In milliseconds.
impl Datum for Duration {
    fn read(error: &RpcError, key: &str) -> Option<Duration> {
        error.metadata().get(key)?.parse().ok().map(Duration::from_millis)
    }
}

/// In milliseconds since 1970; 0 where no instant is set.
impl Datum for Option<SystemTime> {
    fn read(error: &RpcError, key: &str) -> Option<Option<SystemTime>> {
        match Duration::read(error, key)? {
            Duration::ZERO => Some(None),
            since => UNIX_EPOCH.checked_add(since).map(Some),
        }
    }
}

/// As `ps5: 0 of 1, ps5-pad: 3 of 4`: available and requested units. A SKU cannot contain these separators.
impl Datum for Vec<ShortLine> {
    fn read(error: &RpcError, key: &str) -> Option<Vec<ShortLine>> {
        let text = error.metadata().get(key)?;
        text.split(", ").filter(|line| !line.is_empty()).map(short_line).collect()
    }
}

fn short_line(text: &str) -> Option<ShortLine> {
    let (sku, numbers) = text.split_once(": ")?;
    let (available, requested) = numbers.split_once(" of ")?;
    Some(ShortLine { sku: sku.to_owned(), requested: requested.parse().ok()?, available: available.parse().ok()? })
}
