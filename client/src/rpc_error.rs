//! A failed call, decoded from its gRPC status. It imports tonic's `Status`; no operation, no I/O.

use std::{collections::HashMap, error::Error as _, fmt, time::Duration};

use inventory_sentinel::{
    Reason,
    reason::{Advice, DOMAIN},
    v1,
};
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

/// A failed call: gRPC code, reason of the catalogue, and details of the server.
///
/// Cheap to move; every operation's error contains one.
pub struct RpcError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    reason: Option<Reason>,
    message: String,
    metadata: HashMap<String, String>,
    field_violations: Vec<FieldViolation>,
    retry_delay: Option<Duration>,
    outcome_unknown: bool,
    attempts: u32,
}

/// A field of the request that the server found malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The path of the field, for example `lines[0].quantity`.
    pub field: String,
    /// Why it is malformed.
    pub description: String,
}

impl RpcError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The reason of the catalogue; `None` if something other than the service failed the call, such as a proxy or this
    /// client, or if the service is newer than this client.
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason
    }

    /// One sentence for humans.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details of the reason, such as the SKU.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// The fields that were malformed, if that was the reason.
    pub fn field_violations(&self) -> &[FieldViolation] {
        &self.0.field_violations
    }

    /// How long the caller has to wait before a retry.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_delay
    }

    /// True if the change may have been applied. To find out, repeat the call with the same
    /// `request_id` (a whole Commit or Rollback needs none); a new one would be a second change.
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// Attempts to send the call; 0 if this client refused it.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    pub(crate) fn from_status(status: &Status) -> RpcError {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let reason = info.and_then(|info| Reason::from_name(&info.reason));
        let (code, outcome_unknown) = match reason {
            Some(reason) => (status.code(), reason.advice() == Advice::Repeat),
            None => without_reason(status),
        };
        RpcError(Box::new(Inner {
            code,
            reason,
            message: message(status),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            field_violations: details
                .bad_request()
                .map(|bad| bad.field_violations.as_slice())
                .unwrap_or_default()
                .iter()
                .map(|violation| FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect(),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            outcome_unknown,
            attempts: 1,
        }))
    }

    /// As `from_status`, for an operation of a Batch.
    pub(crate) fn from_failure(failure: v1::Failure) -> RpcError {
        let (code, reason) = (Code::from(failure.code), Reason::from_name(&failure.reason));
        let violation = FieldViolation { field: failure.field, description: failure.message.clone() };
        RpcError(Box::new(Inner {
            code,
            reason,
            message: failure.message,
            metadata: failure.metadata,
            field_violations: Some(violation).filter(|violation| !violation.field.is_empty()).into_iter().collect(),
            retry_delay: failure.retry_after.and_then(|pause| Duration::try_from(pause).ok()),
            outcome_unknown: reason.map_or(!is_refused_unapplied(code), |reason| reason.advice() == Advice::Repeat),
            attempts: 1,
        }))
    }

    /// This client refuses the call; nothing was sent.
    pub(crate) fn refused_here(reason: Reason, message: &str) -> RpcError {
        RpcError(Box::new(Inner {
            code: reason.code(),
            reason: Some(reason),
            message: message.into(),
            metadata: HashMap::new(),
            field_violations: Vec::new(),
            retry_delay: None,
            outcome_unknown: false,
            attempts: 0,
        }))
    }

    /// The task or stream of the call ended without a response.
    pub(crate) fn disconnected() -> RpcError {
        RpcError(Box::new(Inner {
            code: Code::Unavailable,
            reason: None,
            message: "the connection of the call was closed".into(),
            metadata: HashMap::new(),
            field_violations: Vec::new(),
            retry_delay: None,
            outcome_unknown: true,
            attempts: 1,
        }))
    }

    /// The same error, for a call that was certainly not sent.
    pub(crate) fn unsent(mut self) -> RpcError {
        self.0.outcome_unknown = false;
        self
    }

    /// The deadline of the call passed while this client awaited the response.
    pub(crate) fn deadline_exceeded() -> RpcError {
        RpcError(Box::new(Inner {
            code: Code::DeadlineExceeded,
            reason: None,
            message: "no response before the deadline of the call".into(),
            metadata: HashMap::new(),
            field_violations: Vec::new(),
            retry_delay: None,
            outcome_unknown: true,
            attempts: 1,
        }))
    }

    /// The response is OK but lacks a required part.
    pub(crate) fn malformed(what: &str) -> RpcError {
        RpcError(Box::new(Inner {
            code: Code::Internal,
            reason: None,
            message: format!("the server's response is malformed: {what}"),
            metadata: HashMap::new(),
            field_violations: Vec::new(),
            retry_delay: None,
            outcome_unknown: true,
            attempts: 1,
        }))
    }

    /// The error of the whole call. `earlier_unknown`: an earlier attempt may have been applied. A final refusal of a
    /// retry settles that, since the server does the lookup of the identity first. A transient error such as
    /// OVERLOADED settles nothing, nor does a reason of `is_refused_before_lookup`, nor a refusal of the credentials,
    /// which can expire between two attempts.
    pub(crate) fn after(mut self, attempts: u32, earlier_unknown: bool) -> RpcError {
        let settled = self.reason().is_some_and(|reason| {
            matches!(reason.advice(), Advice::Fix | Advice::Decide)
                && !is_refused_before_lookup(reason)
                && !matches!(self.code(), Code::Internal | Code::Unauthenticated | Code::PermissionDenied)
        });
        self.0.attempts = attempts;
        self.0.outcome_unknown |= earlier_unknown && !settled;
        self
    }

    /// A read changes nothing, so its outcome is not unknown.
    pub(crate) fn into_read(mut self) -> RpcError {
        self.0.outcome_unknown = false;
        self
    }
}

/// Whether a retry can be refused for this reason although an earlier attempt was applied, because of a change or of
/// time that passed in between.
fn is_refused_before_lookup(reason: Reason) -> bool {
    matches!(
        reason,
        // The id, or the reservation, was forgotten between two attempts.
        Reason::RequestTooOld
            | Reason::ReservationNotFound
            // The longest ttl of the namespace was lowered between two attempts.
            | Reason::InvalidTtl
    )
}

/// Code and "may have been applied" of a status that the service did not write: a proxy, tonic's server, or this
/// process made it, the latter after a connection failure.
fn without_reason(status: &Status) -> (Code, bool) {
    if caused_by::<TimeoutExpired>(status) {
        // Tonic reports its own timeout as CANCELLED.
        return (Code::DeadlineExceeded, true);
    }
    if caused_by::<ConnectError>(status) {
        return (Code::Unavailable, false);
    }
    if status.source().is_some() {
        // A broken connection, which tonic reports as UNKNOWN, INTERNAL or CANCELLED.
        return (Code::Unavailable, true);
    }
    (status.code(), !is_refused_unapplied(status.code()))
}

/// Whether the code alone implies that nothing was applied.
fn is_refused_unapplied(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::ResourceExhausted
    )
}

fn caused_by<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The status's message; for a failed connection with the messages of its causes.
fn message(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let layer = error.to_string();
        if !text.contains(&layer) {
            text.push_str(": ");
            text.push_str(&layer);
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}: {}", reason.as_str(), self.message()),
            None => write!(f, "{:?}: {}", self.code(), self.message()),
        }
    }
}

impl fmt::Debug for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for RpcError {}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str, domain: &str) -> Status {
        let mut details =
            ErrorDetails::with_error_info(reason, domain, HashMap::from([("sku".to_owned(), "ps5".to_owned())]));
        details.add_bad_request_violation("lines[0].quantity", "is 0");
        details.set_retry_info(Some(Duration::from_millis(40)));
        Status::with_error_details(code, "what happened", details)
    }

    #[test]
    fn everything_the_server_says_is_read() {
        let error = RpcError::from_status(&status(Code::InvalidArgument, "INVALID_QUANTITY", DOMAIN));
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.reason(), Some(Reason::InvalidQuantity));
        assert_eq!(error.metadata()["sku"], "ps5");
        assert_eq!(error.field_violations()[0].field, "lines[0].quantity");
        assert_eq!(error.field_violations()[0].description, "is 0");
        assert_eq!(error.retry_delay(), Some(Duration::from_millis(40)));
        assert!(!error.outcome_unknown());
        assert_eq!(error.to_string(), "INVALID_QUANTITY: what happened");
    }

    #[test]
    fn another_domains_reason_is_not_ours() {
        let error = RpcError::from_status(&status(Code::NotFound, "SKU_NOT_FOUND", "elsewhere"));
        assert_eq!(error.reason(), None);
    }

    #[test]
    fn the_catalogue_decides_what_is_unknown() {
        for &reason in Reason::ALL {
            let error = RpcError::from_status(&status(reason.code(), reason.as_str(), DOMAIN));
            let expected = matches!(reason, Reason::OutcomeUnknown | Reason::Internal);
            assert_eq!(error.outcome_unknown(), expected, "{}", reason.as_str());
        }
    }

    #[test]
    fn without_a_reason_only_a_plain_refusal_is_known() {
        assert!(!RpcError::from_status(&Status::unauthenticated("no token")).outcome_unknown());
        assert!(RpcError::from_status(&Status::unavailable("proxy")).outcome_unknown());
        assert!(RpcError::from_status(&Status::unknown("?")).outcome_unknown());
    }

    #[test]
    fn a_local_failure_is_told_by_its_cause() {
        let timeout = Status::from_error(Box::new(TimeoutExpired(())));
        let timeout = RpcError::from_status(&timeout);
        assert_eq!(timeout.code(), Code::DeadlineExceeded);
        assert!(timeout.outcome_unknown());

        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let connect = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        let connect = RpcError::from_status(&connect);
        assert_eq!(connect.code(), Code::Unavailable);
        assert!(!connect.outcome_unknown());

        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let broken = RpcError::from_status(&Status::from_error(Box::new(broken)));
        assert_eq!(broken.code(), Code::Unavailable);
        assert!(broken.outcome_unknown());
    }

    #[test]
    fn only_a_final_refusal_settles_an_earlier_doubt() {
        let refusal =
            |reason: Reason| RpcError::from_status(&status(reason.code(), reason.as_str(), DOMAIN)).after(2, true);
        assert!(!refusal(Reason::SkuNotFound).outcome_unknown());
        assert!(refusal(Reason::Overloaded).outcome_unknown());
        assert!(refusal(Reason::StoreUnavailable).outcome_unknown());
        assert!(refusal(Reason::StoreCorrupt).outcome_unknown());
        assert!(!refusal(Reason::VersionMismatch).outcome_unknown());
        assert!(refusal(Reason::StoreDenied).outcome_unknown());
        assert_eq!(refusal(Reason::Draining).attempts(), 2);
    }
}
