//! The errors of the checkout operations. Data only.

use std::time::{Duration, SystemTime};

use inventory_sentinel::Reason;

use super::{metadata::Datum, operation_error};
use crate::{
    rpc_error::RpcError,
    types::{Applied, Reservation, ShortLine},
};

operation_error! {
    /// Why nothing was reserved.
    ReserveError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        InvalidQuantity => InvalidQuantity,
        InvalidTtl => InvalidTtl,
        NoLines => NoLines,
        TooManyLines => TooManyLines,
        DuplicateSku => DuplicateSku,
        InvalidBuyerId => InvalidBuyer,
        InvalidReservationId => InvalidReservationId,
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        NamespaceNotFound => NamespaceNotFound,
        SkuNotFound => SkuNotFound,
        SkuNotProtected => NotProtected,
        SalePaused => SalePaused,
        ReservationNotFound => ReplacedNotFound,
        ReservationAlreadyCommitted => ReplacedAlreadyCommitted,
        CrossPartitionCart => CrossPartitionCart,
        NamespaceQuota => NamespaceQuota,
        StoreFull => StoreFull,
    }
    with {
        SaleNotOpen => SaleNotOpen {
            /// The SKU whose sale has not opened yet.
            sku: String = "sku",
            /// When its sale opens; `None`: always open.
            opens_at: Option<SystemTime> = "opens_at_ms",
            /// When its sale closes; `None`: never.
            closes_at: Option<SystemTime> = "closes_at_ms",
        },
        SaleClosed => SaleClosed {
            /// The SKU whose sale is over.
            sku: String = "sku",
            /// When it closed.
            closes_at: Option<SystemTime> = "closes_at_ms",
        },
        QuantityLimit => QuantityLimit {
            /// The SKU with too many units.
            sku: String = "sku",
            /// Most units of it in one reservation.
            limit: i64 = "limit",
        },
        TtlLimit => TtlLimit {
            /// The SKU that does not allow the ttl.
            sku: String = "sku",
            /// The longest ttl that it allows.
            limit: Duration = "limit_ms",
        },
        BuyerRequired => BuyerRequired {
            /// The SKU with a buyer limit.
            sku: String = "sku",
        },
        BuyerLimit => BuyerLimit {
            /// The SKU with the limit.
            sku: String = "sku",
            /// Units that the buyer holds and has bought.
            has: i64 = "has",
            /// Most units of one buyer.
            limit: i64 = "limit",
        },
    }
    and {
        /// The stock does not cover the lines; nothing was held.
        #[error("insufficient stock: {}", shortage(lines))]
        InsufficientStock {
            /// Every short line, in the order of the request.
            lines: Vec<ShortLine>,
        },
        /// An earlier call with this `request_id` created the reservation, and its units were bought. Do not charge the
        /// buyer again.
        #[error("the reservation {} of this request_id was bought already", reservation.id)]
        AlreadyPurchased {
            /// The reservation: committed, or expired and bought by a late commit ([`Reservation::purchase`]).
            reservation: Box<Applied<Reservation>>,
        },
        /// An earlier call with this `request_id` created the reservation. It holds nothing any more: it was rolled
        /// back or it expired. A new attempt needs another `request_id`.
        #[error("the reservation {} of this request_id was released already", reservation.id)]
        AlreadyReleased {
            /// The reservation as it is now.
            reservation: Box<Applied<Reservation>>,
        },
    }
}

operation_error! {
    /// Why a sale was not made final.
    CommitError {
        InvalidReservationId => InvalidReservationId,
        InvalidPolicy => InvalidPolicy,
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        InvalidQuantity => InvalidQuantity,
        TooManyLines => TooManyLines,
        DuplicateSku => DuplicateSku,
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        NamespaceNotFound => NamespaceNotFound,
        ReservationNotFound => NotFound,
        ReservationExpired => Expired,
        ReservationRolledBack => RolledBack,
        ReservationAlreadyCommitted => AlreadyCommitted,
        TooManyChanges => TooManyChanges,
        NamespaceQuota => NamespaceQuota,
    }
    with {
        LineNotHeld => LineNotHeld {
            /// The SKU with too many units.
            sku: String = "sku",
            /// Units of it that the reservation holds.
            held: i64 = "held",
        },
        LateCommitSoldOut => LateSoldOut {
            /// Every line that the stock does not cover any more: refund the buyer.
            lines: Vec<ShortLine> = "available",
        },
        BuyerRequired => BuyerRequired {
            /// The SKU whose buyer limit was set after the hold without a buyer was created.
            sku: String = "sku",
        },
        BuyerLimit => BuyerLimit {
            /// The SKU with the limit.
            sku: String = "sku",
            /// Units that the buyer holds and has bought.
            has: i64 = "has",
            /// Most units of one buyer.
            limit: i64 = "limit",
        },
    }
}

operation_error! {
    /// Why units were not released.
    RollbackError {
        InvalidReservationId => InvalidReservationId,
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        InvalidQuantity => InvalidQuantity,
        TooManyLines => TooManyLines,
        DuplicateSku => DuplicateSku,
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        NamespaceNotFound => NamespaceNotFound,
        ReservationNotFound => NotFound,
        ReservationExpired => Expired,
        ReservationRolledBack => RolledBack,
        ReservationAlreadyCommitted => AlreadyCommitted,
        TooManyChanges => TooManyChanges,
        NamespaceQuota => NamespaceQuota,
    }
    with {
        LineNotHeld => LineNotHeld {
            /// The SKU with too many units.
            sku: String = "sku",
            /// Units of it that the reservation holds.
            held: i64 = "held",
        },
    }
}

operation_error! {
    /// Why a deadline was not moved.
    ExtendError {
        InvalidReservationId => InvalidReservationId,
        InvalidTtl => InvalidTtl,
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        NamespaceNotFound => NamespaceNotFound,
        ReservationNotFound => NotFound,
        ReservationExpired => Expired,
        ReservationRolledBack => RolledBack,
        ReservationAlreadyCommitted => AlreadyCommitted,
        TooManyChanges => TooManyChanges,
        NamespaceQuota => NamespaceQuota,
    }
    with {
        ExtendLimit => Limit {
            /// How much further the deadline could be moved.
            left: Duration = "left_ms",
        },
    }
}

operation_error! {
    /// Why a reservation could not be read.
    GetReservationError {
        InvalidRequestId => InvalidRequestId,
        InvalidReservationId => InvalidReservationId,
        NamespaceNotFound => NamespaceNotFound,
        ReservationNotFound => NotFound,
    }
}

operation_error! {
    /// Why a SKU's counters could not be read.
    GetStockError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        NamespaceNotFound => NamespaceNotFound,
        SkuNotFound => SkuNotFound,
    }
}

operation_error! {
    /// Why the counters of many SKUs could not be read.
    BatchGetStockError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        NoOperations => NoSkus,
        NamespaceNotFound => NamespaceNotFound,
        TooManyOperations => TooManySkus,
    }
}

operation_error! {
    /// Why a batch was refused as a whole. Each operation has its own error.
    BatchError {
        NoOperations => NoOperations,
        TooManyOperations => TooManyOperations,
    }
}

operation_error! {
    /// Why the protection of a SKU could not be read.
    IsProtectedError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
    }
}

fn shortage(lines: &[ShortLine]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("{} requested and {} available of sku {}", line.requested, line.available, line.sku))
        .collect();
    lines.join(", ")
}
