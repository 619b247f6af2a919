//! Credentials for guarded servers: authorities, certificates, tokens, JSON Web Tokens, and the files of one server.
//! All are generated for one test.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use inventory_sentinel_access::tokens;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The issuer and the audience of the JSON Web Tokens.
pub const ISSUER: &str = "https://login.example.com";
/// The audience that the server accepts.
pub const AUDIENCE: &str = "inventory-sentinel";
/// The id of the issuer's key.
const KEY_ID: &str = "key-1";
/// The policy of [`AccessFiles::new`].
const POLICY: &str = r#"
tokens_file = "tokens.toml"

[[issuer]]
issuer = "https://login.example.com"
audiences = ["inventory-sentinel"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
leeway_seconds = 0

[[identity]]
name = "everything"
certificates = ["uri:spiffe://shop/everything"]
subjects = [{ issuer = "https://login.example.com", subject = "everything" }]
grants = [
    { role = "checkout", namespaces = ["*"] },
    { role = "events", namespaces = ["*"] },
    { role = "operator", namespaces = ["*"] },
    { role = "metrics" },
]

[[identity]]
name = "checkout"
certificates = ["uri:spiffe://shop/checkout", "dns:checkout.shop.internal"]
subjects = [{ issuer = "https://login.example.com", subject = "checkout" }]
grants = [{ role = "checkout", namespaces = ["sale", "eu-*"] }]

[[identity]]
name = "events"
grants = [{ role = "events", namespaces = ["sale"] }]

[[identity]]
name = "operator"
grants = [{ role = "operator", namespaces = ["sale"] }]

[[identity]]
name = "elsewhere"
grants = [
    { role = "checkout", namespaces = ["elsewhere"] },
    { role = "events", namespaces = ["elsewhere"] },
    { role = "operator", namespaces = ["elsewhere"] },
]

[[identity]]
name = "metrics"
grants = [{ role = "metrics" }]
"#;

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From an hour ago for a day.
    Now,
    /// Until an hour ago.
    Expired,
    /// From an hour ago until this much later than now.
    For(Duration),
}

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key in PEM.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Signed {
    /// The identity of a tonic client.
    pub fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }
}

impl Authority {
    /// A new one with this name.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate of a server on this machine.
    pub fn server(&self) -> Signed {
        self.server_for(Validity::Now)
    }

    /// The same with this validity.
    pub fn server_for(&self, validity: Validity) -> Signed {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let params = CertificateParams::new(names).expect("names");
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// A certificate of a client with this name: `uri:…` or `dns:…`.
    pub fn client(&self, name: &str, validity: Validity) -> Signed {
        self.sign(named(name), ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    /// A certificate with the name of a client that may only be used by servers.
    pub fn not_for_clients(&self, name: &str) -> Signed {
        self.sign(named(name), ExtendedKeyUsagePurpose::ServerAuth, Validity::Now)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose, validity: Validity) -> Signed {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3_600);
        let (from, until) = match validity {
            Validity::Now => (now - hour, now + 24 * hour),
            Validity::Expired => (now - 2 * hour, now - hour),
            Validity::For(life) => (now - hour, now + life),
        };
        (params.not_before, params.not_after) = (from.into(), until.into());
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let (kind, name) = name.split_once(':').expect("uri:… or dns:…");
    let name = name.try_into().expect("an ASCII name");
    params.subject_alt_names = vec![if kind == "uri" { SanType::URI(name) } else { SanType::DnsName(name) }];
    params
}

/// The issuer of JSON Web Tokens.
pub struct TokenIssuer {
    key: KeyPair,
}

impl TokenIssuer {
    fn new() -> TokenIssuer {
        TokenIssuer { key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key") }
    }

    /// Its key set.
    pub fn key_set(&self) -> Value {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        // An uncompressed point: 4, x, y.
        let point = self.key.der_bytes();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y },
        ] })
    }

    /// A valid token of this subject.
    pub fn token(&self, subject: &str) -> String {
        self.sign(&self.claims(subject))
    }

    /// The claims of a valid token of this subject, which expires in an hour.
    pub fn claims(&self, subject: &str) -> Value {
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": seconds_from_now(3_600) })
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(self.key.serialized_der());
        jsonwebtoken::encode(&header, claims, &key).expect("a token")
    }
}

/// A time in seconds since 1970.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    now as i64 + seconds
}

/// The files of access of one server.
pub struct AccessFiles {
    /// The authority of the server and, unless it was rotated, of the clients.
    pub authority: Authority,
    /// The issuer of JSON Web Tokens.
    pub issuer: TokenIssuer,
    folder: TempDir,
}

impl AccessFiles {
    /// A certificate, a policy with the identities `everything`, `checkout`, `events`, `operator` (of the namespace
    /// `sale`), `elsewhere` and `metrics`, and no tokens yet.
    pub fn new() -> AccessFiles {
        let files = AccessFiles {
            authority: Authority::new("test authority"),
            issuer: TokenIssuer::new(),
            folder: TempDir::with_prefix("access-").expect("a temporary folder"),
        };
        files.set_server_certificate(&files.authority.server());
        files.write("client-ca.pem", &files.authority.pem());
        files.write("jwks.json", &files.issuer.key_set().to_string());
        files.write("tokens.toml", "");
        files.write("policy.toml", POLICY);
        files
    }

    /// The path of one file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in one step.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(&format!("{name}.new"));
        fs::write(&path, text).expect("the file is written");
        fs::rename(path, self.path(name)).expect("the file is renamed");
    }

    /// Changes a file.
    pub fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.path(name)).expect("the file");
        self.write(name, &change(text));
    }

    /// Replaces the certificate of the server.
    pub fn set_server_certificate(&self, signed: &Signed) {
        self.write("server.pem", &signed.certificate);
        self.write("server-key.pem", &signed.key);
    }

    /// Adds a token of this identity.
    pub fn token(&self, identity: &str) -> String {
        self.token_until(identity, None)
    }

    /// Adds a token of this identity that expires.
    pub fn token_until(&self, identity: &str, expires_at: Option<SystemTime>) -> String {
        let token = tokens::generate();
        self.edit("tokens.toml", |text| tokens::append(&text, &token, identity, expires_at));
        token.text.clone()
    }

    /// Removes a token.
    pub fn revoke(&self, token: &str) {
        let id = token.split('_').nth(1).expect("ist_ID_SECRET");
        self.edit("tokens.toml", |text| tokens::revoke(&text, id).expect("a known token"));
    }

    /// The flags of a server that uses TLS and the policy.
    pub fn flags(&self) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "--tls-cert {} --tls-key {} --policy {} --reload-interval 100ms",
            path("server.pem"),
            path("server-key.pem"),
            path("policy.toml")
        )
    }

    /// The flags of a server that also takes client certificates: `required` or `optional`.
    pub fn flags_with_client_ca(&self, client_certificate: &str) -> String {
        let client_ca = self.path("client-ca.pem");
        format!("{} --client-ca {} --client-certificate {client_certificate}", self.flags(), client_ca.display())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The TLS settings of a tonic client without a certificate.
    pub fn client_tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authority.pem())).domain_name("localhost")
    }
}

impl Default for AccessFiles {
    fn default() -> AccessFiles {
        AccessFiles::new()
    }
}
