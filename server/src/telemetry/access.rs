//! The metrics of access: refused calls, reloads, the expiry of certificates, failed writes of the audit log. Touches
//! its series only.

use std::time::SystemTime;

use super::audit::FAILURES;
use inventory_sentinel::Reason;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The reasons of refusals.
const REASONS: [Reason; 9] = [
    Reason::CredentialsMissing,
    Reason::CredentialsMalformed,
    Reason::CredentialsUnknown,
    Reason::CredentialsExpired,
    Reason::CredentialsNotYetValid,
    Reason::CredentialsWrongAudience,
    Reason::RoleMissing,
    Reason::NamespaceForbidden,
    Reason::TooManyFailedAuthentications,
];

/// The metrics of access. Clones share their series.
#[derive(Clone, Debug)]
pub(crate) struct AccessMetrics {
    refused: IntCounterVec,
    reloads: IntCounterVec,
    not_after: IntGaugeVec,
    unguarded: IntGauge,
}

impl AccessMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            refused: IntCounterVec::new(
                Opts::new(
                    "inventory_sentinel_access_refused_total",
                    "Calls that were refused because of their credential, their role or their namespace, by reason.",
                ),
                &["reason"],
            )?,
            reloads: IntCounterVec::new(
                Opts::new(
                    "inventory_sentinel_reloads_total",
                    "Reloads of changed files: of certificates, keys and client CA (certificate), or of policy, tokens \
                     and key sets (policy). After a failure the previous files stay in use.",
                ),
                &["files", "result"],
            )?,
            not_after: IntGaugeVec::new(
                Opts::new(
                    "inventory_sentinel_certificate_not_after_timestamp_seconds",
                    "The end of the validity of the server's certificate (server), and of the first client CA to \
                     expire (client_ca), in seconds since 1970. Absent without TLS.",
                ),
                &["certificate"],
            )?,
            unguarded: IntGauge::new(
                "inventory_sentinel_unguarded",
                "1 if the server serves without TLS or without a policy, else 0.",
            )?,
        };
        for reason in REASONS {
            metrics.refused.with_label_values(&[reason.as_str()]);
        }
        for files in ["certificate", "policy"] {
            for result in ["success", "failure"] {
                metrics.reloads.with_label_values(&[files, result]);
            }
        }
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.not_after.clone()))?;
        registry.register(Box::new(metrics.unguarded.clone()))?;
        registry.register(Box::new(FAILURES.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn inc_refused(&self, reason: Reason) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn inc_reload(&self, files: &str, is_success: bool) {
        self.reloads.with_label_values(&[files, if is_success { "success" } else { "failure" }]).inc();
    }

    pub(crate) fn set_not_after(&self, certificate: &str, not_after: SystemTime) {
        let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.not_after.with_label_values(&[certificate]).set(seconds as i64);
    }

    pub(crate) fn set_unguarded(&self, is_unguarded: bool) {
        self.unguarded.set(is_unguarded.into());
    }
}
