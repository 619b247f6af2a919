//! The error catalogue: every reason for which a call can be refused. Data only.
//!
//! A refused call is a `google.rpc.Status` whose `ErrorInfo.reason` is [`Reason::as_str`] and whose
//! `ErrorInfo.domain` is [`DOMAIN`]. `docs/reference/errors.md` is [`markdown`], and a test compares them.

use std::fmt::Write as _;

use tonic::Code;

/// The `ErrorInfo.domain` of every error of this service.
pub const DOMAIN: &str = "inventory-sentinel";

macro_rules! catalogue {
    ($($variant:ident $name:literal $code:ident $advice:ident $meaning:literal $action:literal;)+) => {
        /// Why a call was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason { $(#[doc = concat!($meaning, ": ", $action)] $variant,)+ }

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

            /// The kind of action that the caller takes.
            pub const fn advice(self) -> Advice {
                match self { $(Reason::$variant => Advice::$advice,)+ }
            }

            /// One sentence for humans: what happened.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => $meaning,)+ }
            }

            /// One phrase for humans: what the caller does next.
            pub const fn action(self) -> &'static str {
                match self { $(Reason::$variant => $action,)+ }
            }

            /// The reason with this name on the wire.
            pub fn from_name(name: &str) -> Option<Reason> {
                match name { $($name => Some(Reason::$variant),)+ _ => None }
            }
        }
    };
}

/// The kind of action that a caller takes after a refusal. [`Reason::action`] is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing was applied. The call itself is wrong: correct it.
    Fix,
    /// Nothing was applied. The refusal is final while the state stays the same.
    Decide,
    /// Nothing was applied: retry after a pause.
    Retry,
    /// The call may have been applied: repeat it with the same identity.
    Repeat,
    /// Nothing was applied, and a retry fails until an operator acts.
    Operator,
}

impl Advice {
    /// Whether the call was applied, as one word for the documentation.
    pub const fn applied(self) -> &'static str {
        match self {
            Advice::Fix | Advice::Decide | Advice::Retry | Advice::Operator => "no",
            Advice::Repeat => "unknown",
        }
    }

    /// One short phrase for the documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Advice::Fix => "correct the call",
            Advice::Decide => "final while the state stays the same",
            Advice::Retry => "retry after a pause",
            Advice::Repeat => "repeat with the same identity",
            Advice::Operator => "an operator must act first",
        }
    }
}

catalogue! {
    EmptySku "EMPTY_SKU" InvalidArgument Fix
        "the SKU is empty"
        "name a SKU";
    InvalidSku "INVALID_SKU" InvalidArgument Fix
        "the SKU is longer than 128 bytes of UTF-8, or has a control character, a line break or an invisible character"
        "correct the SKU";
    InvalidNamespace "INVALID_NAMESPACE" InvalidArgument Fix
        "the namespace is longer than 63 bytes, or has a character outside `A-Z a-z 0-9 . _ -`"
        "correct the name of the namespace";
    InvalidQuantity "INVALID_QUANTITY" InvalidArgument Fix
        "the quantity is not between 1 and 1,000,000"
        "correct the quantity";
    InvalidTtl "INVALID_TTL" InvalidArgument Fix
        "the ttl is not between 1 ms and the longest ttl of the namespace"
        "set a shorter ttl, or none for the default of the namespace";
    NoLines "NO_LINES" InvalidArgument Fix
        "the request has no line"
        "name at least one line";
    TooManyLines "TOO_MANY_LINES" InvalidArgument Fix
        "the request has more than 32 lines"
        "divide the cart";
    DuplicateSku "DUPLICATE_SKU" InvalidArgument Fix
        "a SKU is named more than once"
        "name each SKU once";
    NoOperations "NO_OPERATIONS" InvalidArgument Fix
        "the batch is empty, or one of its entries has no operation that this server supports"
        "set one operation in each entry";
    TooManyOperations "TOO_MANY_OPERATIONS" InvalidArgument Fix
        "the request has more entries than the call allows: 512 operations or SKUs, or 1,000 watched SKUs"
        "send several requests";
    InvalidStock "INVALID_STOCK" InvalidArgument Fix
        "the units are not between 0 and 1,000,000,000"
        "correct the units";
    InvalidDelta "INVALID_DELTA" InvalidArgument Fix
        "the delta is 0, or not between -1,000,000,000 and 1,000,000,000"
        "correct the delta";
    InvalidRule "INVALID_RULE" InvalidArgument Fix
        "a rule is out of its range, or the sale would close before it opens"
        "correct the rule";
    InvalidPolicy "INVALID_POLICY" InvalidArgument Fix
        "the policy or the condition is unknown, or contradicts the rest of the request"
        "correct the policy or the condition";
    InvalidConfig "INVALID_CONFIG" InvalidArgument Fix
        "a setting of the namespace is out of its range, or contradicts another one"
        "correct the setting";
    NoRules "NO_RULES" InvalidArgument Fix
        "the request names nothing to change"
        "set at least one field";
    TooManyRows "TOO_MANY_ROWS" InvalidArgument Fix
        "the message has more than 1,000 rows or SKUs"
        "send several messages";
    InvalidPageSize "INVALID_PAGE_SIZE" InvalidArgument Fix
        "the page size is not between 0 and 1,000"
        "correct the page size, or set 0 for the default";
    InvalidPageToken "INVALID_PAGE_TOKEN" InvalidArgument Fix
        "the page token is not one of this list"
        "use the token of the previous page, or none for the first page";
    InvalidState "INVALID_STATE" InvalidArgument Fix
        "the state is not a reservation state"
        "correct the state";
    InvalidResumeToken "INVALID_RESUME_TOKEN" InvalidArgument Fix
        "the resume token is malformed"
        "use a token that this stream returned, or none to start over";
    InvalidInterval "INVALID_INTERVAL" InvalidArgument Fix
        "the interval is not between 10 ms and 1 hour"
        "correct the interval";
    RequestIdRequired "REQUEST_ID_REQUIRED" InvalidArgument Fix
        "the change is not idempotent without a request_id, and none is set"
        "set a request_id, and the same one in each repeat";
    InvalidRequestId "INVALID_REQUEST_ID" InvalidArgument Fix
        "the request_id is longer than 128 bytes, has a space or a character outside printable ASCII, or is a UUIDv7 \
         from the future"
        "correct the request_id, and check the clock of the caller";
    RequestTooOld "REQUEST_TOO_OLD" InvalidArgument Fix
        "the request_id is a UUIDv7 older than the retention, so the server cannot determine whether it was applied"
        "read the current state, and decide whether to send a new request_id";
    InvalidReservationId "INVALID_RESERVATION_ID" InvalidArgument Fix
        "the reservation id does not have the form of an id from Reserve"
        "use the id that Reserve returned";
    InvalidBuyerId "INVALID_BUYER_ID" InvalidArgument Fix
        "the buyer id is longer than 128 bytes of UTF-8, or has a control character, a line break or an invisible \
         character"
        "correct the buyer id";
    SkuNotFound "SKU_NOT_FOUND" NotFound Decide
        "the SKU does not exist in this namespace"
        "check the names of the SKU and of the namespace";
    ReservationNotFound "RESERVATION_NOT_FOUND" NotFound Decide
        "the reservation does not exist in this namespace, or was resolved longer ago than the retention"
        "check the id and the namespace";
    NamespaceNotFound "NAMESPACE_NOT_FOUND" NotFound Decide
        "the namespace does not exist"
        "check the name, or create the namespace";
    SkuNotProtected "SKU_NOT_PROTECTED" FailedPrecondition Decide
        "this service does not govern the units of the SKU"
        "use the shop's ordinary path for this SKU";
    ReservationExpired "RESERVATION_EXPIRED" FailedPrecondition Decide
        "the deadline has passed and the units were released"
        "do not take a payment; reserve again with a new request_id, or refund the buyer";
    ReservationRolledBack "RESERVATION_ROLLED_BACK" FailedPrecondition Decide
        "the units were released by a call"
        "do not take a payment; reserve again with a new request_id";
    ReservationAlreadyCommitted "RESERVATION_ALREADY_COMMITTED" FailedPrecondition Decide
        "the units were sold, and a sale is final"
        "keep the sale; return units with AdjustStock after a refund";
    SaleNotOpen "SALE_NOT_OPEN" FailedPrecondition Decide
        "the sale of the SKU has not opened yet"
        "try again after `opens_at_ms` of the metadata";
    SaleClosed "SALE_CLOSED" FailedPrecondition Decide
        "the sale of the SKU has closed"
        "report the end of the sale to the buyer";
    SalePaused "SALE_PAUSED" FailedPrecondition Decide
        "the sale of the SKU, or of its whole namespace, is paused"
        "try again later; held units can still be committed";
    QuantityLimit "QUANTITY_LIMIT" FailedPrecondition Fix
        "the line has more units than the SKU allows in one reservation"
        "reduce the quantity to `limit` of the metadata";
    TtlLimit "TTL_LIMIT" FailedPrecondition Fix
        "the ttl is longer than the SKU allows"
        "shorten the ttl to the limit of the metadata, or set none";
    BuyerRequired "BUYER_REQUIRED" FailedPrecondition Fix
        "the SKU has a buyer limit, and the request or the hold to repurchase has no buyer"
        "set a buyer_id; after a late Commit, refund the buyer";
    BuyerLimit "BUYER_LIMIT" FailedPrecondition Decide
        "the buyer would have more units of the SKU, held and bought, than the buyer limit allows"
        "report the limit to the buyer; after a late Commit, refund the buyer";
    TooManyChanges "TOO_MANY_CHANGES" FailedPrecondition Decide
        "the reservation was extended or partially changed 32 times"
        "commit or roll back the whole reservation";
    LineNotHeld "LINE_NOT_HELD" FailedPrecondition Decide
        "the line has more units than the reservation holds"
        "read the reservation, and name at most the units that it holds";
    LateCommitSoldOut "LATE_COMMIT_SOLD_OUT" FailedPrecondition Decide
        "the reservation has expired, and the available stock does not cover it"
        "refund the buyer";
    ExtendLimit "EXTEND_LIMIT" FailedPrecondition Decide
        "the reservation would live longer than its namespace allows"
        "extend by at most `left_ms` of the metadata";
    PartitionsFixed "PARTITIONS_FIXED" FailedPrecondition Decide
        "the namespace exists with another number of partitions, which never changes"
        "omit the number, or create another namespace";
    SkuExists "SKU_EXISTS" FailedPrecondition Decide
        "the SKU exists, and the request has the condition that it does not"
        "keep its stock, or send the request without the condition";
    SkuHasHolds "SKU_HAS_HOLDS" FailedPrecondition Decide
        "units of the SKU are held"
        "wait until the holds have ended, or roll them back";
    NamespaceHasHolds "NAMESPACE_HAS_HOLDS" FailedPrecondition Decide
        "reservations of the namespace are pending"
        "pause the namespace, and wait until its holds have ended, or roll them back";
    RequestIdReused "REQUEST_ID_REUSED" FailedPrecondition Fix
        "the request_id was used before with other arguments"
        "send a new request_id for a new request, and the same arguments in a repeat";
    StockBelowHeld "STOCK_BELOW_HELD" FailedPrecondition Decide
        "fewer units would be on hand than are held"
        "leave at least `held` units of the metadata";
    StockLimit "STOCK_LIMIT" FailedPrecondition Decide
        "more than 1,000,000,000 units would be on hand"
        "add fewer units";
    CrossPartitionCart "CROSS_PARTITION_CART" FailedPrecondition Decide
        "the lines, or the reservation to replace, are in different partitions"
        "give SKUs that are sold together one group, for example `group~sku`";
    VersionMismatch "VERSION_MISMATCH" Aborted Decide
        "the current version is not the expected one"
        "read the current version, and decide again";
    AuditOvertaken "AUDIT_OVERTAKEN" Aborted Retry
        "the event stream was trimmed past the start of the audit while it ran"
        "retry, if possible under less traffic";
    EventsCompacted "EVENTS_COMPACTED" OutOfRange Decide
        "changes after the resume token are no longer stored, or it is of another namespace"
        "compare the records with the lists, and start without a token";
    NamespaceQuota "NAMESPACE_QUOTA" ResourceExhausted Retry
        "the namespace has reached its quota of records or SKUs"
        "retry after reservations were resolved, or raise the quota";
    TooManyNamespaces "TOO_MANY_NAMESPACES" ResourceExhausted Operator
        "the number of namespaces has reached --max-namespaces"
        "delete a namespace, or raise --max-namespaces";
    StoreFull "STORE_FULL" ResourceExhausted Retry
        "the store is at its memory limit and accepts no new holds, SKUs or namespaces"
        "retry after holds have ended, or give the store more memory";
    RequestTooLarge "REQUEST_TOO_LARGE" ResourceExhausted Fix
        "the request has more bytes than its method allows (262,144, or --max-request-bytes for Batch and \
         ImportStock), or far more entries"
        "send several requests";
    RequestTooSlow "REQUEST_TOO_SLOW" ResourceExhausted Retry
        "the request did not arrive in full in time"
        "retry over a faster connection";
    MalformedRequest "MALFORMED_REQUEST" InvalidArgument Fix
        "the request is not one gRPC message"
        "send one gRPC message of the method";
    CredentialsMissing "CREDENTIALS_MISSING" Unauthenticated Fix
        "the call has no credential"
        "send a bearer token, or connect with a client certificate";
    CredentialsMalformed "CREDENTIALS_MALFORMED" Unauthenticated Fix
        "the credential has no accepted form"
        "send the metadata `authorization: Bearer` with a token of this service or a JSON Web Token of its issuers";
    CredentialsUnknown "CREDENTIALS_UNKNOWN" Unauthenticated Fix
        "no identity has this credential"
        "use a credential of the policy of this service";
    CredentialsExpired "CREDENTIALS_EXPIRED" Unauthenticated Fix
        "the credential has expired"
        "get a new credential";
    CredentialsNotYetValid "CREDENTIALS_NOT_YET_VALID" Unauthenticated Fix
        "the credential is not valid yet"
        "wait until it is valid, and compare the clocks of the issuer and the service";
    CredentialsWrongAudience "CREDENTIALS_WRONG_AUDIENCE" Unauthenticated Fix
        "the token was issued for another service"
        "request a token for an audience of this service";
    RoleMissing "ROLE_MISSING" PermissionDenied Operator
        "the caller lacks the role of this call"
        "grant the role in the policy";
    NamespaceForbidden "NAMESPACE_FORBIDDEN" PermissionDenied Operator
        "the caller may not use this namespace in this role"
        "grant the namespace in the policy";
    TooManyFailedAuthentications "TOO_MANY_FAILED_AUTHENTICATIONS" ResourceExhausted Retry
        "too many credentials from this address were refused"
        "retry after the pause of RetryInfo, with a valid credential";
    UnknownMethod "UNKNOWN_METHOD" Unimplemented Fix
        "the server has no such method"
        "compare the versions of client and server";
    UnknownEncoding "UNKNOWN_ENCODING" Unimplemented Fix
        "the compression of the request is unknown: the server accepts gzip, or no compression"
        "send the request without compression, or with gzip";
    UnknownService "UNKNOWN_SERVICE" NotFound Fix
        "the name in the request to the health service or to reflection is unknown"
        "correct the name";
    Overloaded "OVERLOADED" ResourceExhausted Retry
        "the server has too many queued calls and refused this one before it was executed"
        "retry after the pause of RetryInfo";
    TooManyWatches "TOO_MANY_WATCHES" ResourceExhausted Retry
        "this server has reached its limit of streams, watched namespaces or watched SKUs"
        "share a stream, or use another server";
    WatchTooSlow "WATCH_TOO_SLOW" ResourceExhausted Retry
        "the caller did not read the stream fast enough"
        "call again with the last resume token, and read faster";
    InvalidPartition "INVALID_PARTITION" InvalidArgument Fix
        "the namespace has no such partition, or the SKU is in another one"
        "use the partition of the metadata of STORE_FENCED";
    NotFenced "NOT_FENCED" FailedPrecondition Decide
        "the partition is not fenced"
        "there is nothing to settle";
    FenceChanged "FENCE_CHANGED" FailedPrecondition Decide
        "the partition is fenced for other losses than those of the figures"
        "compute the figures again, and send `fence` of the metadata";
    InvalidFence "INVALID_FENCE" InvalidArgument Fix
        "the fence is not 16 hexadecimal digits"
        "use the fence of the metadata of STORE_FENCED";
    SettlementSuperseded "SETTLEMENT_SUPERSEDED" Aborted Decide
        "another settlement of the partition began or ended, or another loss was detected"
        "read the fence with GetServerInfo; if there is one, settle it with new figures";
    StoreUnavailable "STORE_UNAVAILABLE" Unavailable Retry
        "the store is unavailable"
        "retry after the pause of RetryInfo";
    StoreFenced "STORE_FENCED" Unavailable Operator
        "the store lost changes of this partition, which takes and adds no units until an operator settles it"
        "settle the partition with SettlePartition";
    StoreNewer "STORE_NEWER" Unavailable Operator
        "the store contains a record that a newer release wrote"
        "send the call to a server of that release";
    StoreDenied "STORE_DENIED" FailedPrecondition Operator
        "the Redis user of the service lacks a permission"
        "grant `missing` of the metadata to that user";
    Draining "DRAINING" Unavailable Retry
        "the server is stopping"
        "retry with another server";
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded Retry
        "the caller's deadline passed before the call was sent to the store"
        "retry with a longer deadline";
    OutcomeUnknown "OUTCOME_UNKNOWN" Unavailable Repeat
        "the store did not confirm the change in time"
        "repeat the call with the same identity";
    StoreCorrupt "STORE_CORRUPT" Internal Decide
        "the store contains data that this service did not write"
        "report it to an operator: the message names the record";
    Internal "INTERNAL" Internal Repeat
        "the service has a defect"
        "repeat the call with the same identity, and report the defect";
}

/// The catalogue as the Markdown of `docs/reference/errors.md`.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for reason in Reason::ALL {
        writeln!(
            out,
            "| `{}` | `{}` | {} | {} | {}: {} |",
            reason.as_str(),
            code_name(reason.code()),
            reason.meaning(),
            reason.advice().applied(),
            reason.advice().as_str(),
            reason.action(),
        )
        .expect("writing to a String never fails");
    }
    out
}

const INTRODUCTION: &str = "\
<!-- Every reason for which a call can be refused. Generated by `make docs` from src/reason.rs; do not edit. -->
# Errors

A refused call is a `google.rpc.Status` with a `google.rpc.ErrorInfo`: its `domain` is `inventory-sentinel`, its
`reason` is one of the names below, and its `metadata` contains the details. A malformed field adds
`google.rpc.BadRequest`. A refusal that permits a retry adds `google.rpc.RetryInfo`. Too little stock is not an error:
see `ReserveResponse.shortage`.

**An error without an `ErrorInfo` of this domain is an unknown outcome.** Client libraries create such errors, for
example `DEADLINE_EXCEEDED` after the deadline of the call, or `UNAVAILABLE` after a broken connection. The call may
have been applied: repeat it with the same identity. Headers of more than 16,384 bytes are refused with HTTP status 431
and without an `ErrorInfo`; such a call was not applied.

The column \"applied\" states whether the refused call may have changed anything. ImportStock and SetProtection change
each SKU independently: there, it concerns the SKU that was refused, and other SKUs may have been changed.

| reason | gRPC code | what happened | applied | what to do |
|---|---|---|---|---|
";

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
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::PermissionDenied => "PERMISSION_DENIED",
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
