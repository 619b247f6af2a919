//! The refusal of a call, and its conversion to a `google.rpc.Status`: the only module of the server that uses gRPC
//! codes. The code of each reason is in the catalogue, `inventory_sentinel::Reason`. Uses the domain. No I/O.

use std::{collections::HashMap, time::Duration};

use inventory_sentinel::{
    Reason,
    reason::{Advice, DOMAIN},
    v1,
};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    domain::{Invalid, NamespaceName, Sku},
    telemetry::metrics::CallStatus,
};

/// The recommended pause before a retry.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The trailer that delays the automatic retries of gRPC clients.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Why a call is refused, with details for its caller.
#[derive(Debug)]
pub(crate) struct Failure {
    reason: Reason,
    message: String,
    field: Option<String>,
    metadata: Vec<(&'static str, String)>,
}

impl Failure {
    pub(crate) fn new(reason: Reason) -> Self {
        Self { reason, message: reason.meaning().to_owned(), field: None, metadata: Vec::new() }
    }

    /// Adds a detail to the reason's meaning.
    pub(crate) fn because(mut self, why: &str) -> Self {
        self.message = format!("{}: {why}", self.message);
        self
    }

    /// Adds the namespace to a not-found failure: a mistyped name is a common cause.
    pub(crate) fn within(self, name: &NamespaceName) -> Self {
        match self.reason {
            Reason::NamespaceNotFound | Reason::SkuNotFound | Reason::ReservationNotFound => {
                let failure = self.with("namespace", name);
                Self { message: format!("{} (namespace {name})", failure.message), ..failure }
            }
            _ => self,
        }
    }

    /// Adds a number or a name for programs.
    pub(crate) fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// A refusal that concerns a SKU, with a detail.
    pub(crate) fn of_sku(reason: Reason, sku: &Sku, what: &str) -> Self {
        Self::new(reason).because(&format!("{}{what}", sku.as_str())).with("sku", sku.as_str())
    }

    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    /// For people: the malformed field, if there is one, and the error.
    pub(crate) fn message(&self) -> String {
        match &self.field {
            Some(field) => format!("{field}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// The pause before a retry, if a retry can help.
    fn retry_after(&self) -> Option<Duration> {
        matches!(self.reason.advice(), Advice::Retry | Advice::Repeat).then_some(RETRY_AFTER)
    }

    /// The label of this failure in the metrics.
    pub(crate) fn call_status(&self) -> CallStatus {
        match self.reason.code() {
            Code::InvalidArgument => CallStatus::Invalid,
            // Its code is that of a refused call, but the operator has to act.
            _ if self.reason == Reason::StoreDenied => CallStatus::Unavailable,
            Code::NotFound | Code::FailedPrecondition => CallStatus::Refused,
            _ if matches!(
                self.reason,
                Reason::NamespaceQuota | Reason::TooManyNamespaces | Reason::VersionMismatch
            ) =>
            {
                CallStatus::Refused
            }
            _ => CallStatus::Unavailable,
        }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        let Invalid { reason, field, detail } = invalid;
        let failure = Self::new(reason);
        let failure = if detail.is_empty() { failure } else { failure.because(&detail) };
        Self { field: Some(field), ..failure }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let retry_after = failure.retry_after();
        let whole = failure.message();
        let Failure { reason, message, field, metadata } = failure;
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.as_str(), DOMAIN, named(metadata));
        if let Some(field) = field {
            details.add_bad_request_violation(field, message);
        }
        let mut trailers = MetadataMap::new();
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        if reason == Reason::Overloaded {
            trailers.insert(PUSHBACK, (RETRY_AFTER.as_millis() as u64).into());
        }
        Status::with_error_details_and_metadata(reason.code(), whole, details, trailers)
    }
}

/// The failure of one entry of a Batch, which has no separate status.
impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        let retry_after = failure.retry_after().and_then(|pause| pause.try_into().ok());
        let whole = failure.message();
        let Failure { reason, field, metadata, .. } = failure;
        Self {
            code: reason.code().into(),
            reason: reason.as_str().to_owned(),
            message: whole,
            field: field.unwrap_or_default(),
            metadata: named(metadata),
            retry_after,
        }
    }
}

fn named(metadata: Vec<(&'static str, String)>) -> HashMap<String, String> {
    metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The refusal of a call that reaches no service.
pub(crate) fn refusal(reason: Reason) -> Status {
    Failure::new(reason).into()
}

/// The same, with a detail beyond the meaning of the reason.
pub(crate) fn refusal_because(reason: Reason, why: &str) -> Status {
    Failure::new(reason).because(why).into()
}

/// The refusal of a call that encounters a defect.
pub(crate) fn defect(why: &str) -> Status {
    Failure::new(Reason::Internal).because(why).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_way_to_the_caller() {
        for &reason in Reason::ALL {
            let status = Status::from(Failure::new(reason).with("held", 7));
            assert_eq!(status.code(), reason.code());
            let info = status.get_details_error_info().expect("every error has an ErrorInfo");
            assert_eq!(Reason::from_name(&info.reason), Some(reason));
            assert_eq!(info.domain, DOMAIN);
            assert_eq!(info.metadata.get("held").map(String::as_str), Some("7"));
        }
    }

    #[test]
    fn within_a_batch_a_failure_says_what_its_status_would() {
        for &reason in Reason::ALL {
            let failure = || Failure { field: Some("sku".into()), ..Failure::new(reason).with("held", 7) };
            let (status, message) = (Status::from(failure()), v1::Failure::from(failure()));
            assert_eq!((message.code, message.message.as_str()), (status.code().into(), status.message()));
            let details = status.get_error_details();
            let info = details.error_info().expect("every error has an ErrorInfo");
            assert_eq!((&message.reason, &message.metadata), (&info.reason, &info.metadata));
            let bad = details.bad_request().expect("it has a BadRequest");
            assert_eq!(message.field, bad.field_violations[0].field);
            let pause = message.retry_after.map(|pause| Duration::try_from(pause).expect("a pause"));
            assert_eq!(pause, details.retry_info().and_then(|info| info.retry_delay));
        }
    }

    #[test]
    fn a_malformed_field_is_named() {
        let status = Status::from(Failure::from(Invalid::new(Reason::InvalidQuantity, "lines[2].quantity")));
        let request = status.get_details_bad_request().expect("it has a BadRequest");
        assert_eq!(request.field_violations[0].field, "lines[2].quantity");
    }
}
