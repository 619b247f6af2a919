//! The credentials of a guarded server under measurement: an authority, a certificate, a policy, a token, and an issuer
//! of JSON Web Tokens, in a temporary folder.

use std::fs;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use inventory_sentinel_access::tokens;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _,
};
use serde_json::json;
use tempfile::TempDir;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
};

/// The policy: one identity with every role, and an issuer.
const POLICY: &str = r#"
tokens_file = "tokens.toml"
[[issuer]]
issuer = "https://login.example.com"
audiences = ["inventory-sentinel"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
[[identity]]
name = "bench"
subjects = [{ issuer = "https://login.example.com", subject = "bench" }]
grants = [
    { role = "checkout", namespaces = ["*"] },
    { role = "events", namespaces = ["*"] },
    { role = "operator", namespaces = ["*"] },
    { role = "metrics" },
]
"#;

/// The id of the issuer's key.
const KEY_ID: &str = "key-1";

/// The names that the certificate has.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// The key set of an issuer with this key.
fn key_set(key: &KeyPair) -> serde_json::Value {
    // An uncompressed point: 4, x, y.
    let point = key.der_bytes();
    let [x, y] = [&point[1..33], &point[33..]].map(|number| URL_SAFE_NO_PAD.encode(number));
    json!({ "keys": [{ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y }] })
}

/// The head and the claims of a JSON Web Token of the issuer, without its signature. `padding`: bytes of a claim that
/// nobody reads.
pub(crate) fn unsigned_jwt(padding: usize) -> String {
    let head = json!({ "alg": "ES256", "typ": "JWT", "kid": KEY_ID });
    // The year 2100.
    let mut claims = json!({
        "iss": "https://login.example.com", "aud": "inventory-sentinel", "sub": "bench", "exp": 4_102_444_800_u64,
    });
    if padding > 0 {
        claims["pad"] = "x".repeat(padding).into();
    }
    format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The header of the calls to a server; none without a credential.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    pub(crate) fn new(credential: Option<&str>) -> Result<Self> {
        Ok(Self(credential.map(|credential| format!("Bearer {credential}").parse()).transpose()?))
    }

    /// A request with this header.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }
}

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
            ("jwks.json", key_set(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?).to_string()),
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
