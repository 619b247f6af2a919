//! Why each operation can fail: one enum per operation, over `RpcError`. No I/O.
//!
//! A variant stands for a reason that the proto names at that operation, and a test reads the proto
//! to see that none is missing. What any call can meet (store away, draining, outcome unknown) is in
//! the `Rpc` variant, with its reason.

use inventory_sentinel::Reason;

use crate::{rpc_error::RpcError, types::ShortLine};

macro_rules! operation_error {
    (
        $(#[$doc:meta])* $name:ident {
            $($reason:ident => $variant:ident,)*
        }
        $(and { $($own:tt)* })?
    ) => {
        $(#[$doc])*
        #[derive(Debug, thiserror::Error)]
        #[non_exhaustive]
        pub enum $name {
            $($($own)*)?
            $(
                #[doc = concat!("Refused for [`Reason::", stringify!($reason), "`].")]
                #[error(transparent)]
                $variant(RpcError),
            )*
            /// Refused for [`Reason::InvalidNamespace`].
            #[error(transparent)]
            InvalidNamespace(RpcError),
            /// Shed before execution, [`Reason::Overloaded`]: repeat after [`RpcError::retry_delay`].
            #[error(transparent)]
            Overloaded(RpcError),
            /// Anything else; [`RpcError::reason`] and [`RpcError::code`] tell what.
            #[error(transparent)]
            Rpc(RpcError),
        }

        impl From<RpcError> for $name {
            fn from(error: RpcError) -> Self {
                match error.reason() {
                    $(Some(Reason::$reason) => $name::$variant(error),)*
                    Some(Reason::InvalidNamespace) => $name::InvalidNamespace(error),
                    Some(Reason::Overloaded) => $name::Overloaded(error),
                    _ => $name::Rpc(error),
                }
            }
        }

        impl $name {
            /// What the server said; `None` only where the answer was no error on the wire.
            #[allow(unreachable_patterns)]
            pub fn rpc(&self) -> Option<&RpcError> {
                match self {
                    $($name::$variant(error) => Some(error),)*
                    $name::InvalidNamespace(error)
                    | $name::Overloaded(error)
                    | $name::Rpc(error) => Some(error),
                    _ => None,
                }
            }

            /// True if the change may have been applied; see [`RpcError::outcome_unknown`].
            pub fn outcome_unknown(&self) -> bool {
                self.rpc().is_some_and(RpcError::outcome_unknown)
            }
        }
    };
}

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
        RequestIdRequired => RequestIdRequired,
        InvalidRequestId => InvalidRequestId,
        RequestTooOld => RequestTooOld,
        RequestIdReused => RequestIdReused,
        SkuNotFound => SkuNotFound,
        SkuNotProtected => NotProtected,
        CrossPartitionCart => CrossPartitionCart,
        NamespaceQuota => NamespaceQuota,
        StoreFull => StoreFull,
    }
    and {
        /// The stock can't cover the lines; nothing was taken.
        #[error("insufficient stock: {}", shortage(lines))]
        InsufficientStock {
            /// Every line that fell short, in the order of the request.
            lines: Vec<ShortLine>,
        },
    }
}

operation_error! {
    /// Why a sale was not made final.
    CommitError {
        InvalidReservationId => InvalidReservationId,
        InvalidRequestId => InvalidRequestId,
        ReservationNotFound => NotFound,
        ReservationExpired => Expired,
        ReservationRolledBack => RolledBack,
    }
}

operation_error! {
    /// Why units were not given back.
    RollbackError {
        InvalidReservationId => InvalidReservationId,
        InvalidRequestId => InvalidRequestId,
        ReservationNotFound => NotFound,
        ReservationAlreadyCommitted => AlreadyCommitted,
    }
}

operation_error! {
    /// Why a reservation could not be read.
    GetReservationError {
        InvalidReservationId => InvalidReservationId,
        ReservationNotFound => NotFound,
    }
}

operation_error! {
    /// Why a SKU's counters could not be read.
    GetStockError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
        SkuNotFound => SkuNotFound,
    }
}

operation_error! {
    /// Why it could not be told whether a SKU is protected.
    IsProtectedError {
        EmptySku => EmptySku,
        InvalidSku => InvalidSku,
    }
}

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
        NamespaceQuota => NamespaceQuota,
        StoreFull => StoreFull,
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
        InvalidRequestId => InvalidRequestId,
        SkuNotFound => SkuNotFound,
    }
}

operation_error! {
    /// Why the books could not be checked.
    AuditError {
        NamespaceNotFound => NamespaceNotFound,
        AuditOvertaken => Overtaken,
    }
}

fn shortage(lines: &[ShortLine]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("{} requested and {} available of sku {}", line.requested, line.available, line.sku))
        .collect();
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use inventory_sentinel::reason::DOMAIN;
    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    const PROTO: &str = concat!(
        include_str!("../../proto/inventory_sentinel/v1/inventory_sentinel.proto"),
        include_str!("../../proto/inventory_sentinel/v1/inventory_admin.proto")
    );

    fn refusal(reason: Reason) -> RpcError {
        let info = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new());
        RpcError::from_status(&Status::with_error_details(reason.code(), "refused", info))
    }

    /// The reasons that the comment above an RPC names.
    fn named_in_proto(rpc: &str) -> Vec<Reason> {
        let before = PROTO.split(&format!("  rpc {rpc}(")).next().unwrap();
        let comment = before.rsplit("\n\n").next().unwrap();
        let refused = &comment[comment.find("Refused:").unwrap()..];
        refused.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter_map(Reason::from_name).collect()
    }

    #[test]
    fn every_reason_the_proto_names_has_its_variant() {
        macro_rules! check {
            ($($rpc:literal $error:ident,)+) => { $(
                let named = named_in_proto($rpc);
                assert!(!named.is_empty(), "{} names no reason", $rpc);
                for &reason in Reason::ALL {
                    let error = $error::from(refusal(reason));
                    let typed = !matches!(error, $error::Rpc(_));
                    let general = matches!(reason, Reason::InvalidNamespace | Reason::Overloaded);
                    let expected = named.contains(&reason) || general;
                    assert_eq!(typed, expected, "{} and {}", $rpc, reason.as_str());
                    assert_eq!(error.rpc().and_then(RpcError::reason), Some(reason));
                }
            )+ };
        }
        check! {
            "Reserve" ReserveError,
            "Commit" CommitError,
            "Rollback" RollbackError,
            "GetReservation" GetReservationError,
            "GetStock" GetStockError,
            "IsProtected" IsProtectedError,
            "SetStock" SetStockError,
            "AdjustStock" AdjustStockError,
            "ConfigureSku" ConfigureSkuError,
            "Audit" AuditError,
        }
    }

    #[test]
    fn variants_stand_for_what_they_are_called() {
        use Reason as R;
        type Reserve = ReserveError;
        assert!(matches!(Reserve::from(refusal(R::EmptySku)), Reserve::EmptySku(_)));
        assert!(matches!(Reserve::from(refusal(R::InvalidTtl)), Reserve::InvalidTtl(_)));
        let error = Reserve::from(refusal(R::InvalidQuantity));
        assert!(matches!(error, Reserve::InvalidQuantity(_)));
        let error = CommitError::from(refusal(R::ReservationNotFound));
        assert!(matches!(error, CommitError::NotFound(_)));
        let error = RollbackError::from(refusal(R::ReservationAlreadyCommitted));
        assert!(matches!(error, RollbackError::AlreadyCommitted(_)));
        assert!(CommitError::from(refusal(R::OutcomeUnknown)).outcome_unknown());
    }

    #[test]
    fn a_shortage_names_every_line() {
        let line = |sku: &str| ShortLine { sku: sku.into(), requested: 2, available: 1 };
        let error = ReserveError::InsufficientStock { lines: vec![line("a"), line("b")] };
        assert_eq!(
            error.to_string(),
            "insufficient stock: 2 requested and 1 available of sku a, \
             2 requested and 1 available of sku b"
        );
        assert!(error.rpc().is_none());
        assert!(!error.outcome_unknown());
    }
}
