//! The error catalogue: every reason for which a call can be refused. Data only.
//!
//! A refused call is a `google.rpc.Status` whose `ErrorInfo.reason` is [`Reason::as_str`] and whose
//! `ErrorInfo.domain` is [`DOMAIN`]. `docs/reference/errors.md` is [`markdown`], and a test compares them.

use std::fmt::Write as _;

use tonic::Code;

/// The `ErrorInfo.domain` of every error of this service.
pub const DOMAIN: &str = "inventory-sentinel";

macro_rules! catalogue {
    ($($variant:ident $name:literal $code:ident $advice:ident $meaning:literal;)+) => {
        /// Why a call was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason { $(#[doc = $meaning] $variant,)+ }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)+];

            /// The name on the wire, `ErrorInfo.reason`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }

            /// Its gRPC code.
            pub const fn code(self) -> Code {
                match self { $(Reason::$variant => Code::$code,)+ }
            }

            /// The action of the caller.
            pub const fn advice(self) -> Advice {
                match self { $(Reason::$variant => Advice::$advice,)+ }
            }

            /// One sentence for humans.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => $meaning,)+ }
            }

            /// The reason with this name on the wire.
            pub fn from_name(name: &str) -> Option<Reason> {
                match name { $($name => Some(Reason::$variant),)+ _ => None }
            }
        }
    };
}

/// The action of a caller after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The call itself is wrong: correct it.
    Fix,
    /// The refusal is final while the state stays the same.
    Decide,
    /// Nothing was applied: retry after a pause.
    Retry,
    /// It may have been applied: repeat with the same identity.
    Repeat,
    /// Nothing was applied, and a retry fails until an operator acts.
    Operator,
}

impl Advice {
    /// One short phrase for the documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Advice::Fix => "correct the call",
            Advice::Decide => "final while the state stays the same",
            Advice::Retry => "nothing was applied: retry after a pause",
            Advice::Repeat => "may have been applied: repeat with the same identity",
            Advice::Operator => "nothing was applied: an operator must act first",
        }
    }
}

catalogue! {
    EmptySku "EMPTY_SKU" InvalidArgument Fix "the SKU is empty";
    InvalidSku "INVALID_SKU" InvalidArgument Fix "the SKU is longer than 128 bytes of UTF-8, or has a control character, a line break or an invisible character";
    InvalidNamespace "INVALID_NAMESPACE" InvalidArgument Fix "the namespace is longer than 63 bytes or has a character outside `A-Z a-z 0-9 . _ -`";
    InvalidQuantity "INVALID_QUANTITY" InvalidArgument Fix "the quantity is not between 1 and 1,000,000";
    InvalidTtl "INVALID_TTL" InvalidArgument Fix "the ttl is not between 1 ms and the longest ttl of the namespace";
    NoLines "NO_LINES" InvalidArgument Fix "the request has no line";
    TooManyLines "TOO_MANY_LINES" InvalidArgument Fix "the request has more than 32 lines";
    DuplicateSku "DUPLICATE_SKU" InvalidArgument Fix "a SKU is in more than one line";
    NoOperations "NO_OPERATIONS" InvalidArgument Fix "the batch is empty, or one of its entries has no operation";
    TooManyOperations "TOO_MANY_OPERATIONS" InvalidArgument Fix "the batch has more than 512 entries";
    InvalidStock "INVALID_STOCK" InvalidArgument Fix "the units on hand are not between 0 and 1,000,000,000";
    InvalidDelta "INVALID_DELTA" InvalidArgument Fix "the delta is 0 or not between -1,000,000,000 and 1,000,000,000";
    InvalidRule "INVALID_RULE" InvalidArgument Fix "a rule is out of its range, or the sale would close before it opens";
    InvalidPolicy "INVALID_POLICY" InvalidArgument Fix "the policy is unknown, or cannot be combined with the rest of the request";
    InvalidConfig "INVALID_CONFIG" InvalidArgument Fix "a setting of the namespace is out of its range, or contradicts another one";
    NoRules "NO_RULES" InvalidArgument Fix "the request changes nothing";
    TooManyRows "TOO_MANY_ROWS" InvalidArgument Fix "the message has more than 1,000 rows or SKUs";
    InvalidPageSize "INVALID_PAGE_SIZE" InvalidArgument Fix "the page size is not between 0 and 1,000";
    InvalidPageToken "INVALID_PAGE_TOKEN" InvalidArgument Fix "the page token is not one of this list";
    InvalidState "INVALID_STATE" InvalidArgument Fix "the state is not a reservation state";
    InvalidResumeToken "INVALID_RESUME_TOKEN" InvalidArgument Fix "the resume token is not one of a stream";
    InvalidInterval "INVALID_INTERVAL" InvalidArgument Fix "the interval is not between 10 ms and 1 hour";
    RequestIdRequired "REQUEST_ID_REQUIRED" InvalidArgument Fix "a change that is not idempotent needs a request_id";
    InvalidRequestId "INVALID_REQUEST_ID" InvalidArgument Fix "the request_id is longer than 128 bytes, has a space or a character outside printable ASCII, or is a UUIDv7 from the future";
    RequestTooOld "REQUEST_TOO_OLD" InvalidArgument Fix "the request_id is a UUIDv7 older than the retention, so the server cannot determine whether it was applied";
    InvalidReservationId "INVALID_RESERVATION_ID" InvalidArgument Fix "the reservation id does not have the form of those that Reserve returns";
    InvalidBuyerId "INVALID_BUYER_ID" InvalidArgument Fix "the buyer id is longer than 128 bytes of UTF-8, or has a control character, a line break or an invisible character";
    SkuNotFound "SKU_NOT_FOUND" NotFound Decide "the SKU does not exist in this namespace";
    ReservationNotFound "RESERVATION_NOT_FOUND" NotFound Decide "the reservation does not exist in this namespace, or was resolved longer ago than the retention";
    NamespaceNotFound "NAMESPACE_NOT_FOUND" NotFound Decide "the namespace does not exist";
    SkuNotProtected "SKU_NOT_PROTECTED" FailedPrecondition Decide "this service does not govern the SKU's units: use the shop's ordinary path";
    ReservationExpired "RESERVATION_EXPIRED" FailedPrecondition Decide "the deadline has passed and the units were released";
    ReservationRolledBack "RESERVATION_ROLLED_BACK" FailedPrecondition Decide "the units were released by a call";
    ReservationAlreadyCommitted "RESERVATION_ALREADY_COMMITTED" FailedPrecondition Decide "the sale is final";
    SaleNotOpen "SALE_NOT_OPEN" FailedPrecondition Decide "the sale of the SKU has not opened yet";
    SaleClosed "SALE_CLOSED" FailedPrecondition Decide "the sale of the SKU is over";
    SalePaused "SALE_PAUSED" FailedPrecondition Decide "the sale of the SKU, or of its whole namespace, is paused: held units can still be committed";
    QuantityLimit "QUANTITY_LIMIT" FailedPrecondition Fix "the line has the line has more units than the SKU allows in one reservation";
    TtlLimit "TTL_LIMIT" FailedPrecondition Fix "the ttl is longer than the SKU allows";
    BuyerRequired "BUYER_REQUIRED" FailedPrecondition Fix "the SKU has a buyer limit, and the request, or the hold that a late Commit would repurchase, has no buyer";
    BuyerLimit "BUYER_LIMIT" FailedPrecondition Decide "the buyer would hold and have bought more units of the SKU than its buyer limit";
    TooManyChanges "TOO_MANY_CHANGES" FailedPrecondition Decide "the reservation was extended, or partially changed, 32 times";
    LineNotHeld "LINE_NOT_HELD" FailedPrecondition Decide "the line has more units than the reservation holds";
    LateCommitSoldOut "LATE_COMMIT_SOLD_OUT" FailedPrecondition Decide "the reservation has expired, and the stock does not cover it any more: refund the buyer";
    ExtendLimit "EXTEND_LIMIT" FailedPrecondition Decide "the reservation would live longer than its namespace allows";
    PartitionsFixed "PARTITIONS_FIXED" FailedPrecondition Decide "the number of partitions is fixed when a namespace is created";
    SkuExists "SKU_EXISTS" FailedPrecondition Decide "the SKU exists, and the change has the condition that it does not";
    SkuHasHolds "SKU_HAS_HOLDS" FailedPrecondition Decide "units of the SKU are held";
    NamespaceHasHolds "NAMESPACE_HAS_HOLDS" FailedPrecondition Decide "reservations of the namespace are pending";
    RequestIdReused "REQUEST_ID_REUSED" FailedPrecondition Fix "the request_id was used before with other arguments";
    StockBelowHeld "STOCK_BELOW_HELD" FailedPrecondition Decide "fewer units would be on hand than are held";
    StockLimit "STOCK_LIMIT" FailedPrecondition Decide "more than 1,000,000,000 units would be on hand";
    CrossPartitionCart "CROSS_PARTITION_CART" FailedPrecondition Decide "the lines, or the reservation to replace, are in different partitions: give SKUs that are sold together one group, as in `group~sku`";
    VersionMismatch "VERSION_MISMATCH" Aborted Decide "the current version is not the expected one";
    AuditOvertaken "AUDIT_OVERTAKEN" Aborted Retry "the event stream was trimmed past the start of the audit while it ran";
    EventsCompacted "EVENTS_COMPACTED" OutOfRange Decide "changes after the resume token are no longer stored, or it is of another namespace: compare with the lists and start without a token";
    NamespaceQuota "NAMESPACE_QUOTA" ResourceExhausted Retry "the namespace has reached its quota of records or SKUs";
    TooManyNamespaces "TOO_MANY_NAMESPACES" ResourceExhausted Operator "the number of namespaces has reached --max-namespaces";
    StoreFull "STORE_FULL" ResourceExhausted Retry "the store is at its memory limit: it accepts no new holds, SKUs or namespaces";
    RequestTooLarge "REQUEST_TOO_LARGE" ResourceExhausted Fix "the request has more bytes than its method allows: 262,144, or --max-request-bytes for Batch and ImportStock; or far more entries";
    RequestTooSlow "REQUEST_TOO_SLOW" ResourceExhausted Retry "the request did not arrive in full in time";
    MalformedRequest "MALFORMED_REQUEST" InvalidArgument Fix "the request is not one gRPC message";
    UnknownMethod "UNKNOWN_METHOD" Unimplemented Fix "the server has no such method";
    UnknownEncoding "UNKNOWN_ENCODING" Unimplemented Fix "the compression of the request is unknown: the server accepts gzip, or no compression";
    UnknownService "UNKNOWN_SERVICE" NotFound Fix "the name in the request to the health service or to reflection is unknown";
    Overloaded "OVERLOADED" ResourceExhausted Retry "shed before execution: too many calls are queued";
    TooManyWatches "TOO_MANY_WATCHES" ResourceExhausted Retry "this server has reached its limit of streams, watched namespaces or watched SKUs";
    WatchTooSlow "WATCH_TOO_SLOW" ResourceExhausted Retry "the stream was not read fast enough: call again with the last resume token";
    InvalidPartition "INVALID_PARTITION" InvalidArgument Fix "the namespace has no such partition, or the SKU is in another one";
    NotFenced "NOT_FENCED" FailedPrecondition Decide "the partition is not fenced, so there is nothing to settle";
    FenceChanged "FENCE_CHANGED" FailedPrecondition Decide "the partition is fenced for other losses than those of the figures: inspect it and compute them again";
    InvalidFence "INVALID_FENCE" InvalidArgument Fix "the fence does not have the form of those that a server returns";
    SettlementSuperseded "SETTLEMENT_SUPERSEDED" Aborted Decide "another settlement of the partition began or ended, or another loss was detected";
    StoreUnavailable "STORE_UNAVAILABLE" Unavailable Retry "the store is unavailable";
    StoreFenced "STORE_FENCED" Unavailable Operator "the store lost changes of this partition, which refuses to reserve and to add units until an operator settles it";
    StoreNewer "STORE_NEWER" Unavailable Operator "the store contains a record of a newer release than this server; nothing was changed";
    StoreDenied "STORE_DENIED" FailedPrecondition Operator "the Redis user of the service lacks a permission; nothing was changed";
    Draining "DRAINING" Unavailable Retry "the server is stopping";
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded Retry "the caller's deadline passed before the call was sent to the store";
    OutcomeUnknown "OUTCOME_UNKNOWN" Unavailable Repeat "the store did not respond in time";
    StoreCorrupt "STORE_CORRUPT" Internal Decide "the store contains data that this service did not write; nothing was changed";
    Internal "INTERNAL" Internal Repeat "a defect of this service: please report it";
}

/// The catalogue as the Markdown of `docs/reference/errors.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "<!-- Every reason for which a call can be refused. Generated by `make docs` from src/reason.rs; do not edit. -->\n\
         # Errors\n\n\
         A refused call is a `google.rpc.Status` with a `google.rpc.ErrorInfo`: `domain` is `inventory-sentinel`, `reason` is one of\n\
         the names below, `metadata` contains the details. A malformed field adds `google.rpc.BadRequest`; a refusal that permits a retry adds\n\
         `google.rpc.RetryInfo`. Too little stock is not an error: see `ReserveResponse.shortage`.\n\n\
         **An error without an `ErrorInfo` of this domain is an unknown outcome.** Client libraries make such errors, for example\n\
         `DEADLINE_EXCEEDED` after the deadline of the call, or `UNAVAILABLE` after a broken connection. The call may have been applied:\n\
         repeat it with the same identity. This page applies to errors of this service only. Headers of more than 16,384\n\
         bytes are refused with HTTP status 431 and without an `ErrorInfo`; such a call was not applied.\n\n\
         | reason | gRPC code | meaning | what to do |\n|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        writeln!(
            out,
            "| `{}` | `{}` | {} | {} |",
            reason.as_str(),
            code_name(reason.code()),
            reason.meaning(),
            reason.advice().as_str()
        )
        .expect("writing to a String never fails");
    }
    out
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Unimplemented => "UNIMPLEMENTED",
        _ => "INTERNAL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_unique() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::from_name("NO_SUCH_REASON"), None);
    }

    #[test]
    fn the_documentation_is_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/errors.md");
        let expected = markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &expected).expect("docs/reference/errors.md is writable");
        }
        let written = std::fs::read_to_string(path).expect("docs/reference/errors.md exists");
        assert_eq!(written, expected, "run `make docs`");
    }
}
