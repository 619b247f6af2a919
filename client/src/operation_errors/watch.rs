//! The errors of the streams. Data only.

use inventory_sentinel::Reason;

use super::operation_error;
use crate::rpc_error::RpcError;

operation_error! {
    /// Why a stream of events ended.
    WatchError {
        InvalidResumeToken => InvalidResumeToken,
        NamespaceNotFound => NamespaceNotFound,
        EventsCompacted => Compacted,
        TooManyWatches => TooManyWatches,
        WatchTooSlow => TooSlow,
    }
}

operation_error! {
    /// Why a stream of counters ended.
    WatchStockError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        TooManyOperations => TooManySkus,
        InvalidInterval => InvalidInterval,
        InvalidResumeToken => InvalidResumeToken,
        NamespaceNotFound => NamespaceNotFound,
        TooManyWatches => TooManyWatches,
    }
}
