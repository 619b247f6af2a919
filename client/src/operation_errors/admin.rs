//! The errors of the operators' operations. Data only.

use inventory_sentinel::Reason;

use super::{metadata::Datum, operation_error};
use crate::rpc_error::RpcError;

operation_error! {
    /// Why the units on hand were not set.
    SetStockError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        InvalidStock => InvalidStock,
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        StockBelowHeld => BelowHeld,
        StockLimit => StockLimit,
        SkuExists => SkuExists,
        InvalidPolicy => InvalidPolicy,
        NamespaceQuota => NamespaceQuota,
        NamespaceNotFound => NamespaceNotFound,
        TooManyNamespaces => TooManyNamespaces,
        StoreFull => StoreFull,
    }
    with {
        VersionMismatch => VersionMismatch {
            /// The version of the counters; `None` if the SKU does not exist.
            version: Option<i64> = "version",
        },
    }
}

operation_error! {
    /// Why units were neither added nor removed.
    AdjustStockError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        InvalidDelta => InvalidDelta,
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        SkuNotFound => SkuNotFound,
        StockBelowHeld => BelowHeld,
        StockLimit => StockLimit,
        NamespaceQuota => NamespaceQuota,
        NamespaceNotFound => NamespaceNotFound,
        TooManyNamespaces => TooManyNamespaces,
        StoreFull => StoreFull,
    }
}

operation_error! {
    /// Why a SKU's rules were not changed.
    ConfigureSkuError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        NoRules => NoRules,
        InvalidRule => InvalidRule,
        InvalidPolicy => InvalidPolicy,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        NamespaceNotFound => NamespaceNotFound,
        SkuNotFound => SkuNotFound,
    }
    with {
        VersionMismatch => VersionMismatch {
            /// The version of the rules.
            rules_version: i64 = "rules_version",
        },
    }
}

operation_error! {
    /// Why a SKU's rules could not be read.
    GetSkuError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        NamespaceNotFound => NamespaceNotFound,
        SkuNotFound => SkuNotFound,
    }
}

operation_error! {
    /// Why a SKU was not deleted.
    DeleteSkuError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
    }
    with {
        SkuHasHolds => HasHolds {
            /// Units that are held.
            held: i64 = "held",
        },
    }
}

operation_error! {
    /// Why the settings of a namespace were not changed.
    ConfigureNamespaceError {
        NoRules => NoSettings,
        InvalidConfig => InvalidConfig,
        InvalidPolicy => InvalidPolicy,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        TooManyNamespaces => TooManyNamespaces,
        StoreFull => StoreFull,
        PartitionsFixed => PartitionsFixed,
    }
    with {
        VersionMismatch => VersionMismatch {
            /// The version of the settings, 0 if the namespace does not exist.
            version: i64 = "version",
        },
    }
}

operation_error! {
    /// Why a namespace was not deleted.
    DeleteNamespaceError {
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        NamespaceNotFound => NamespaceNotFound,
    }
    with {
        NamespaceHasHolds => HasHolds {
            /// Pending reservations of the partition.
            held: i64 = "held",
            /// The first partition that has some.
            partition: i64 = "partition",
        },
    }
}

operation_error! {
    /// Why the settings of a namespace could not be read.
    GetNamespaceError {
        NamespaceNotFound => NamespaceNotFound,
    }
}

operation_error! {
    /// Why the namespaces were not listed.
    ListNamespacesError {
        InvalidPageSize => InvalidPageSize,
        InvalidPageToken => InvalidPageToken,
    }
}

operation_error! {
    /// Why the SKUs were not listed.
    ListStockError {
        InvalidPageSize => InvalidPageSize,
        InvalidPageToken => InvalidPageToken,
        NamespaceNotFound => NamespaceNotFound,
    }
}

operation_error! {
    /// Why the reservations were not listed.
    ListReservationsError {
        InvalidPageSize => InvalidPageSize,
        InvalidPageToken => InvalidPageToken,
        InvalidSku => InvalidSku,
        InvalidBuyerId => InvalidBuyerId,
        NamespaceNotFound => NamespaceNotFound,
        InvalidState => InvalidState,
    }
}

operation_error! {
    /// Why an import ended before its last row. Some rows may have been applied: run the import again. The failure of a
    /// single row is in its outcome.
    ImportStockError {
        TooManyRows => TooManyRows,
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        NamespaceNotFound => NamespaceNotFound,
        TooManyNamespaces => TooManyNamespaces,
    }
}

operation_error! {
    /// Why the protection of many SKUs was not set. Some may have been changed: repeat the call.
    SetProtectionError {
        NoRules => NoRules,
        TooManyRows => TooManyRows,
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        NamespaceNotFound => NamespaceNotFound,
    }
}

operation_error! {
    /// Why a partition was not settled. It stays fenced: repeat the call unchanged.
    SettlePartitionError {
        InvalidPartition => InvalidPartition,
        TooManyRows => TooManySkus,
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        DuplicateSku => DuplicateSku,
        InvalidStock => InvalidStock,
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        NamespaceNotFound => NamespaceNotFound,
        InvalidFence => InvalidFence,
        NotFenced => NotFenced,
        FenceChanged => FenceChanged,
        SettlementSuperseded => Superseded,
    }
}

operation_error! {
    /// Why the audit failed.
    AuditError {
        NamespaceNotFound => NamespaceNotFound,
        AuditOvertaken => Overtaken,
    }
}
