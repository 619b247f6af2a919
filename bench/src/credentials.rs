//! The credentials of a guarded server under measurement: an authority, a certificate, a policy and a token, in a
//! temporary folder.

use std::fs;

use anyhow::{Context as _, Result};
use inventory_sentinel_access::tokens;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

/// The policy: one identity with every role.
const POLICY: &str = r#"
tokens_file = "tokens.toml"
[[identity]]
name = "bench"
grants = [
    { role = "checkout", namespaces = ["*"] },
    { role = "events", namespaces = ["*"] },
    { role = "operator", namespaces = ["*"] },
    { role = "metrics" },
]
"#;

/// The names that the certificate has.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// The files of one server.
pub(crate) struct Credentials {
    /// The certificate of the authority in PEM.
    pub(crate) ca: String,
    pub(crate) token: String,
    folder: TempDir,
}

/// How a server is guarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) has_tls: bool,
    pub(crate) has_policy: bool,
}

impl Credentials {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(HOSTS.map(str::to_owned).to_vec())?.signed_by(&key, &authority)?;
        let token = tokens::generate();
        for (name, text) in [
            ("server.pem", certificate.pem()),
            ("server-key.pem", key.serialize_pem()),
            ("policy.toml", POLICY.to_owned()),
            ("tokens.toml", tokens::append("", &token, "bench", None)),
        ] {
            fs::write(folder.path().join(name), text).with_context(|| format!("the file {name}"))?;
        }
        Ok(Self { ca: authority.pem(), token: token.text.clone(), folder })
    }

    /// The flags of a server that is guarded in this way.
    pub(crate) fn flags(&self, guard: Guard) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let mut flags = Vec::new();
        if guard.has_tls {
            flags.extend(["--tls-cert".to_owned(), path("server.pem"), "--tls-key".to_owned(), path("server-key.pem")]);
        }
        if guard.has_policy {
            flags.extend(["--policy".to_owned(), path("policy.toml")]);
        }
        flags
    }
}
