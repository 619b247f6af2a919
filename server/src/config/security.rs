//! The settings of access: TLS, the policy, and what is allowed without them. Reads nothing.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{address, duration};

/// The settings of access.
#[derive(Clone, Debug, Args)]
pub struct SecurityConfig {
    /// Address of a gRPC port for InventoryAdmin; if unset, --listen serves it too
    #[arg(long, env = "SENTINEL_GRPC_ADMIN_LISTEN", value_parser = address, value_name = "ADDRESS")]
    pub grpc_admin_listen: Option<SocketAddr>,

    /// Certificate chain of the server in PEM, for TLS on all ports; needs --tls-key
    #[arg(long, env = "SENTINEL_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert in PEM
    #[arg(long, env = "SENTINEL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Authorities of client certificates in PEM; needs --tls-cert and --policy
    #[arg(long, env = "SENTINEL_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,

    /// Whether a gRPC client needs a certificate of --client-ca; without one, `optional` lets it identify itself by a
    /// token
    #[arg(long, env = "SENTINEL_CLIENT_CERTIFICATE", value_enum, default_value_t = ClientCertificate::Required)]
    pub client_certificate: ClientCertificate,

    /// Policy file: the identities of callers, and their roles; with it every call but a health check needs an
    /// identity
    #[arg(long, env = "SENTINEL_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Interval at which certificates, keys, policy, tokens and key sets are checked for changes, 100ms to 5s
    #[arg(
        long,
        env = "SENTINEL_RELOAD_INTERVAL",
        default_value = "2s",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub reload_interval: Duration,

    /// Credentials of one client address that may fail per second, 1 to 1,000,000; twice as many in a burst. Beyond it
    /// no signature is verified for that address. As many of its refused calls are recorded, and the others are counted
    #[arg(long, env = "SENTINEL_MAX_FAILED_AUTHENTICATIONS", default_value_t = 10, value_name = "CREDENTIALS")]
    pub max_failed_authentications: u32,

    /// Whether server reflection is served; with a policy it needs an identity
    #[arg(long, env = "SENTINEL_REFLECTION", value_enum, default_value_t = Switch::On)]
    pub reflection: Switch,

    /// File to which the audit log is appended; if unset, it is on standard error
    #[arg(long, env = "SENTINEL_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// Serve without TLS or without a policy on an address that other machines reach
    #[arg(long, env = "SENTINEL_INSECURE")]
    pub insecure: bool,
}

/// Whether a gRPC client needs a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientCertificate {
    /// A client without one is refused.
    Required,
    /// A client without one identifies itself by a token.
    Optional,
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Served.
    On,
    /// Not served.
    Off,
}

impl SecurityConfig {
    /// The protection that is missing; empty: TLS and a policy are set.
    pub(crate) fn missing_protection(&self) -> Vec<&'static str> {
        let missing = [("TLS", self.tls_cert.is_none()), ("policy", self.policy.is_none())];
        missing.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name).collect()
    }
}
