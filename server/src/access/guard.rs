//! The guard of the ports: judges the credential and the role of each call by the current rules. Writes the audit
//! records of refused calls.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use http::Extensions;
use inventory_sentinel::Reason;
use inventory_sentinel_access::{Denied, Identified, Role, Rules};
use tokio::sync::watch;

use super::{
    audit,
    caller::Caller,
    certificate::ClientCertificate,
    failed_attempts::{FailedAttempts, Source},
};
use crate::{domain::NamespaceName, failure::Failure, telemetry::access::AccessMetrics};

/// The credential that a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// None: the health service.
    Nothing,
    /// That of any identity.
    AnyIdentity,
    /// That of an identity with this role, in at least one namespace.
    Role(Role),
}

/// Judges calls. Without rules every call is allowed.
#[derive(Debug)]
pub(crate) struct Guard {
    rules: Option<ArcSwap<Rules>>,
    /// Grows with each change of the rules. A caller that was identified under an older number is identified again.
    generation: AtomicU64,
    changes: watch::Sender<()>,
    failed_attempts: FailedAttempts,
    metrics: AccessMetrics,
}

impl Guard {
    /// The guard with these rules; `None`: every call is allowed.
    pub(crate) fn new(rules: Option<Rules>, max_failed_attempts: u32, metrics: AccessMetrics) -> Self {
        Self {
            rules: rules.map(ArcSwap::from_pointee),
            generation: AtomicU64::new(1),
            changes: watch::Sender::default(),
            failed_attempts: FailedAttempts::new(max_failed_attempts),
            metrics,
        }
    }

    /// Whether every call is allowed.
    pub(crate) fn is_open(&self) -> bool {
        self.rules.is_none()
    }

    /// Replaces the rules. Running streams are judged again.
    pub(super) fn replace(&self, rules: Rules) {
        if let Some(current) = &self.rules {
            current.store(Arc::new(rules));
            self.generation.fetch_add(1, Ordering::Release);
            self.changes.send_replace(());
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Identifies a credential: the bearer text of the call, or the certificate of the connection if there is none.
    /// `limited`: the address to which the rate limit of failed attempts applies.
    pub(super) fn identify(
        &self,
        bearer: Option<&[u8]>,
        certificate: Option<&ClientCertificate>,
        limited: Option<Option<IpAddr>>,
    ) -> Result<Identified, Reason> {
        // Without rules no call is identified.
        let Some(rules) = &self.rules else { return Err(Reason::CredentialsMissing) };
        let rules = rules.load();
        let now = SystemTime::now();
        let identified = match (bearer, certificate) {
            // The lookup of a token costs little; a signature is not verified for an address that keeps failing.
            (Some(bearer), _) if Rules::is_token(bearer) => rules.identify_token(bearer, now),
            (Some(_), _) if limited.is_some_and(|address| self.failed_attempts.are_too_many(address)) => {
                return Err(Reason::TooManyFailedAuthentications);
            }
            (Some(bearer), _) => rules.identify_jwt(bearer, now).inspect_err(|_| {
                if let Some(address) = limited {
                    self.failed_attempts.count_failure(address);
                }
            }),
            (None, Some(certificate)) if now > certificate.not_after => Err(Denied::Expired),
            (None, Some(certificate)) => rules
                .identify_certificate(certificate.names.iter().map(String::as_str))
                .map(|identity| Identified { identity, until: Some(certificate.not_after) })
                .ok_or(Denied::Unknown),
            (None, None) => Err(Denied::Missing),
        };
        identified.map_err(reason)
    }

    /// Whether the caller of these extensions may use this namespace.
    pub(crate) fn permit(&self, extensions: &Extensions, namespace: &NamespaceName) -> Result<(), Failure> {
        match self.caller(extensions)? {
            Some(caller) => caller.permit(namespace),
            None => Ok(()),
        }
    }

    /// The caller of these extensions; `None`: every call is allowed. A call that was not judged has no caller and is
    /// refused.
    pub(crate) fn caller<'a>(&self, extensions: &'a Extensions) -> Result<Option<&'a Caller>, Failure> {
        if self.is_open() {
            return Ok(None);
        }
        extensions.get::<Caller>().map(Some).ok_or_else(|| Failure::new(Reason::CredentialsMissing))
    }

    /// Counts and records a call that is refused because of its credential, its role or its namespace.
    pub(super) fn refuse(
        &self,
        reason: Reason,
        address: Option<SocketAddr>,
        identity: &str,
        (call, namespace): (&str, &str),
    ) -> Failure {
        self.metrics.inc_refused(reason);
        self.record_refusal(reason, address, identity, (call, namespace));
        Failure::new(reason)
    }

    /// Records a refused call, unless there are too many of its source.
    pub(super) fn record_refusal(
        &self,
        reason: Reason,
        address: Option<SocketAddr>,
        identity: &str,
        (call, namespace): (&str, &str),
    ) {
        let source = match identity {
            "" => Source::of_address(address.map(|address| address.ip())),
            name => Source::Identity(name.to_owned()),
        };
        if let Some(unrecorded) = self.failed_attempts.count_record(source) {
            audit::refused(reason, address, identity, (call, namespace), unrecorded);
        }
    }
}

fn reason(denied: Denied) -> Reason {
    match denied {
        Denied::Missing => Reason::CredentialsMissing,
        Denied::Malformed => Reason::CredentialsMalformed,
        Denied::Unknown => Reason::CredentialsUnknown,
        Denied::Expired => Reason::CredentialsExpired,
        Denied::NotYetValid => Reason::CredentialsNotYetValid,
        Denied::WrongAudience => Reason::CredentialsWrongAudience,
    }
}
