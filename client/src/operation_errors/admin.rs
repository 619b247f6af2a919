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
        StoreFull => StoreFull,
    }
    with {
        VersionMismatch => VersionMismatch {
            /// The version of the counters; `None` if the SKU is not known.
            version: Option<i64> = "version",
        },
    }
}

operation_error! {
    /// Why units were neither added nor taken away.
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
        SkuNotFound => SkuNotFound,
    }
}

operation_error! {
    /// Why a SKU was not forgotten.
    DeleteSkuError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        InvalidRequestId => InvalidRequestId,
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
        PartitionsFixed => PartitionsFixed,
    }
    with {
        VersionMismatch => VersionMismatch {
            /// The version of the settings, 0 if the namespace is not known.
            version: i64 = "version",
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
    /// Why the books could not be checked.
    AuditError {
        NamespaceNotFound => NamespaceNotFound,
        AuditOvertaken => Overtaken,
    }
}
