//! The errors of the operations: one enum per operation, over `RpcError`. No I/O.
//!
//! Each reason that the proto lists for an operation has a variant; a test compares them. If the server adds details to
//! a reason, the variant has them as fields. If these are missing, as from a newer server, the error is `Rpc`. `Rpc`
//! also contains the reasons that any call can get, for example STORE_UNAVAILABLE.
//!
//! - `checkout`, `admin`, `watch`: the enums of the three services.
//! - `metadata`: decodes the details.

mod admin;
mod checkout;
mod metadata;
mod watch;

pub use self::{
    admin::{
        AdjustStockError, AuditError, ConfigureNamespaceError, ConfigureSkuError, DeleteNamespaceError, DeleteSkuError,
        GetNamespaceError, GetSkuError, ImportStockError, ListNamespacesError, ListReservationsError, ListStockError,
        SetProtectionError, SetStockError, SettlePartitionError,
    },
    checkout::{
        BatchError, BatchGetStockError, CommitError, ExtendError, GetReservationError, GetStockError, IsProtectedError,
        ReserveError, RollbackError,
    },
    watch::{WatchError, WatchStockError},
};

/// Defines an operation's error: the reasons without details, those `with` details (each field with its type and its
/// metadata key), `and` variants that are no errors on the wire.
macro_rules! operation_error {
    (
        $(#[$doc:meta])* $name:ident {
            $($reason:ident => $variant:ident,)*
        }
        $(with {
            $($detailed:ident => $detailed_variant:ident {
                $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal,)+
            },)+
        })?
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
            $($(
                #[doc = concat!("Refused for [`Reason::", stringify!($detailed), "`].")]
                #[error("{rpc}")]
                #[non_exhaustive]
                $detailed_variant {
                    $($(#[$field_doc])* $field: $type,)+
                    /// The error of the server.
                    rpc: RpcError,
                },
            )+)?
            /// Refused for [`Reason::InvalidNamespace`].
            #[error(transparent)]
            InvalidNamespace(RpcError),
            /// Shed before execution, [`Reason::Overloaded`]: retry after [`RpcError::retry_delay`].
            #[error(transparent)]
            Overloaded(RpcError),
            /// Any other error; see [`RpcError::reason`] and [`RpcError::code`].
            #[error(transparent)]
            Rpc(RpcError),
        }

        impl From<RpcError> for $name {
            fn from(rpc: RpcError) -> Self {
                match rpc.reason() {
                    $(Some(Reason::$reason) => $name::$variant(rpc),)*
                    $($(Some(Reason::$detailed) => {
                        let read = || Some(($(<$type as Datum>::read(&rpc, $key)?,)+));
                        match read() {
                            Some(($($field,)+)) => $name::$detailed_variant { $($field,)+ rpc },
                            None => $name::Rpc(rpc),
                        }
                    })+)?
                    Some(Reason::InvalidNamespace) => $name::InvalidNamespace(rpc),
                    Some(Reason::Overloaded) => $name::Overloaded(rpc),
                    _ => $name::Rpc(rpc),
                }
            }
        }

        impl $name {
            /// The error of the server; `None` only if the response was no error on the wire.
            #[allow(unreachable_patterns)]
            pub fn rpc(&self) -> Option<&RpcError> {
                match self {
                    $($name::$variant(rpc) => Some(rpc),)*
                    $($($name::$detailed_variant { rpc, .. } => Some(rpc),)+)?
                    $name::InvalidNamespace(rpc)
                    | $name::Overloaded(rpc)
                    | $name::Rpc(rpc) => Some(rpc),
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
use operation_error;

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        time::{Duration, UNIX_EPOCH},
    };

    use inventory_sentinel::{Reason, reason::DOMAIN};
    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;
    use crate::{rpc_error::RpcError, types::ShortLine};

    const PROTO: &str = concat!(
        include_str!("../../../proto/inventory_sentinel/v1/inventory_sentinel.proto"),
        include_str!("../../../proto/inventory_sentinel/v1/inventory_admin.proto"),
        include_str!("../../../proto/inventory_sentinel/v1/inventory_events.proto")
    );

    /// Every number that any reason has.
    const NUMBERS: &[(&str, &str)] = &[
        ("sku", "ps5"),
        ("limit", "3"),
        ("has", "2"),
        ("limit_ms", "1500"),
        ("opens_at_ms", "0"),
        ("closes_at_ms", "1001"),
        ("held", "4"),
        ("partition", "2"),
        ("left_ms", "250"),
        ("version", "17"),
        ("rules_version", "5"),
        ("available", "ps5: 0 of 1, pad~red: 3 of 4"),
    ];

    fn refusal_with(reason: Reason, metadata: &[(&str, &str)]) -> RpcError {
        let metadata: HashMap<_, _> = metadata.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let info = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
        RpcError::from_status(&Status::with_error_details(reason.code(), "refused", info))
    }

    fn refusal(reason: Reason) -> RpcError {
        refusal_with(reason, NUMBERS)
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
            "Extend" ExtendError,
            "GetReservation" GetReservationError,
            "GetStock" GetStockError,
            "BatchGetStock" BatchGetStockError,
            "Batch" BatchError,
            "IsProtected" IsProtectedError,
            "SetStock" SetStockError,
            "AdjustStock" AdjustStockError,
            "ConfigureSku" ConfigureSkuError,
            "GetSku" GetSkuError,
            "DeleteSku" DeleteSkuError,
            "ConfigureNamespace" ConfigureNamespaceError,
            "DeleteNamespace" DeleteNamespaceError,
            "GetNamespace" GetNamespaceError,
            "ListNamespaces" ListNamespacesError,
            "ListStock" ListStockError,
            "ListReservations" ListReservationsError,
            "ImportStock" ImportStockError,
            "SetProtection" SetProtectionError,
            "Audit" AuditError,
            "SettlePartition" SettlePartitionError,
            "Watch" WatchError,
            "WatchStock" WatchStockError,
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
    fn the_numbers_are_read() {
        use Reason as R;
        type Reserve = ReserveError;
        match Reserve::from(refusal(R::SaleNotOpen)) {
            Reserve::SaleNotOpen { sku, opens_at: None, closes_at: Some(at), .. } => {
                assert_eq!((sku.as_str(), at), ("ps5", UNIX_EPOCH + Duration::from_millis(1001)));
            }
            other => panic!("{other:?}"),
        }
        let error = Reserve::from(refusal(R::TtlLimit));
        assert!(matches!(error, Reserve::TtlLimit { limit, .. } if limit == Duration::from_millis(1500)));
        assert!(matches!(Reserve::from(refusal(R::QuantityLimit)), Reserve::QuantityLimit { limit: 3, .. }));
        assert!(matches!(Reserve::from(refusal(R::BuyerRequired)), Reserve::BuyerRequired { .. }));
        let error = Reserve::from(refusal(R::BuyerLimit));
        assert_eq!(error.to_string(), "BUYER_LIMIT: refused");
        assert!(matches!(error, Reserve::BuyerLimit { has: 2, limit: 3, .. }));
        let error = CommitError::from(refusal(R::LineNotHeld));
        assert!(matches!(error, CommitError::LineNotHeld { held: 4, .. }));
        let error = ExtendError::from(refusal(R::ExtendLimit));
        assert!(matches!(error, ExtendError::Limit { left, .. } if left == Duration::from_millis(250)));
        let error = DeleteSkuError::from(refusal(R::SkuHasHolds));
        assert!(matches!(error, DeleteSkuError::HasHolds { held: 4, .. }));
        let error = ConfigureSkuError::from(refusal(R::VersionMismatch));
        assert!(matches!(error, ConfigureSkuError::VersionMismatch { rules_version: 5, .. }));
        let error = ConfigureNamespaceError::from(refusal(R::VersionMismatch));
        assert!(matches!(error, ConfigureNamespaceError::VersionMismatch { version: 17, .. }));
    }

    #[test]
    fn a_sku_that_is_not_known_has_no_version() {
        let mismatch = |numbers: &[_]| SetStockError::from(refusal_with(Reason::VersionMismatch, numbers));
        assert!(matches!(mismatch(NUMBERS), SetStockError::VersionMismatch { version: Some(17), .. }));
        assert!(matches!(mismatch(&[]), SetStockError::VersionMismatch { version: None, .. }));
        assert!(matches!(mismatch(&[("version", "new")]), SetStockError::Rpc(_)));
    }

    #[test]
    fn a_late_commit_names_every_line_that_is_sold_out() {
        let late = |lines| CommitError::from(refusal_with(Reason::LateCommitSoldOut, &[("available", lines)]));
        let line = |sku: &str, available, requested| ShortLine { sku: sku.into(), requested, available };
        match late("ps5: 0 of 1, pad~red: 3 of 4") {
            CommitError::LateSoldOut { lines, .. } => {
                assert_eq!(lines, [line("ps5", 0, 1), line("pad~red", 3, 4)]);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(late(""), CommitError::LateSoldOut { lines, .. } if lines.is_empty()));
        assert!(matches!(late("ps5: few of 1"), CommitError::Rpc(_)));
    }

    #[test]
    fn a_refusal_without_its_numbers_keeps_its_reason() {
        let error = ReserveError::from(refusal_with(Reason::BuyerLimit, &[("sku", "ps5")]));
        assert!(matches!(error, ReserveError::Rpc(_)));
        assert_eq!(error.rpc().and_then(RpcError::reason), Some(Reason::BuyerLimit));
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
