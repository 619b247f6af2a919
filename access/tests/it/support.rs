//! Issuers that sign tokens, and the policy that accepts them.

use std::{
    io,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use inventory_sentinel_access::{Denied, Rules};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use serde_json::{Value, json};

/// The time of every test.
pub(crate) const NOW: u64 = 1_800_000_000;
/// The leeway of every issuer, in seconds.
pub(crate) const LEEWAY: u64 = 30;

pub(crate) fn at(unix_seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds)
}

pub(crate) fn now() -> SystemTime {
    at(NOW)
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key that signs tokens.
pub(crate) struct Signer {
    pub(crate) key: KeyPair,
    encoding: EncodingKey,
    pub(crate) id: &'static str,
}

impl Signer {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm, id: &'static str) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let der = key.serialize_der();
        let encoding = match id.split('-').next() {
            // The RSAPrivateKey within the PKCS #8 document follows a header of 26 bytes.
            Some("rsa") => EncodingKey::from_rsa_der(&der[26..]),
            Some("ed") => EncodingKey::from_ed_der(&der),
            _ => EncodingKey::from_ec_der(&der),
        };
        Self { key, encoding, id }
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, message: &str) -> String {
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.encoding, algorithm).unwrap()
    }

    /// The modulus and the exponent of an RSA key.
    pub(crate) fn rsa(&self) -> (&[u8], &[u8]) {
        let der = self.key.der_bytes();
        (&der[9..265], &der[der.len() - 3..])
    }

    /// The public key in a file of keys.
    pub(crate) fn jwk(&self) -> Value {
        let public = self.key.der_bytes();
        match self.id.split('-').next().unwrap() {
            "rsa" => {
                let (n, e) = self.rsa();
                json!({ "kty": "RSA", "kid": self.id, "use": "sig", "n": b64(n), "e": b64(e) })
            }
            "ed" => json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": b64(public) }),
            curve => {
                let (x, y) = public[1..].split_at(public.len() / 2);
                let curve = if curve == "p256" { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "kid": self.id, "x": b64(x), "y": b64(y) })
            }
        }
    }
}

macro_rules! signers {
    ($($name:ident: $algorithm:ident, $id:literal;)*) => {
        $(pub(crate) static $name: LazyLock<Signer> = LazyLock::new(|| Signer::new(&$algorithm, $id));)*
    };
}

signers! {
    P256: PKCS_ECDSA_P256_SHA256, "p256-1";
    P384: PKCS_ECDSA_P384_SHA384, "p384-1";
    ED: PKCS_ED25519, "ed-1";
    RSA: PKCS_RSA_SHA256, "rsa-1";
    // The keys of an attacker, with the ids of keys of the issuer.
    FOREIGN_P256: PKCS_ECDSA_P256_SHA256, "p256-1";
    FOREIGN_RSA: PKCS_RSA_SHA256, "rsa-1";
}

/// The issuer with every algorithm and one key of each type.
pub(crate) const ALL: &str = "https://all.example.com";
/// The issuer with one key, for ES256.
pub(crate) const ONE: &str = "https://one.example.com";
/// The issuer that uses its RSA key for RS256 alone.
pub(crate) const RS256: &str = "https://rs256.example.com";

const POLICY: &str = r#"
[[issuer]]
issuer = "https://all.example.com"
audiences = ["inventory-sentinel", "inventory-sentinel-eu"]
algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
jwks_file = "all.json"

[[issuer]]
issuer = "https://one.example.com"
audiences = ["inventory-sentinel"]
algorithms = ["ES256"]
jwks_file = "one.json"

[[issuer]]
issuer = "https://rs256.example.com"
audiences = ["inventory-sentinel"]
algorithms = ["RS256"]
jwks_file = "rs256.json"

[[identity]]
name = "web"
subjects = [
    { issuer = "https://all.example.com", subject = "web" },
    { issuer = "https://one.example.com", subject = "web" },
    { issuer = "https://rs256.example.com", subject = "web" },
]
grants = [{ role = "checkout", namespaces = ["*"] }]

[[identity]]
name = "admin"
subjects = [{ issuer = "https://all.example.com", subject = "root" }]
grants = [{ role = "operator", namespaces = ["*"] }]
"#;

/// The rules of every test of tokens.
pub(crate) static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let keys = |keys: &[&Signer]| json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string();
    Rules::load(POLICY, |path| match path {
        "all.json" => Ok(keys(&[&P256, &P384, &ED, &RSA]).into_bytes()),
        "one.json" => Ok(keys(&[&P256]).into_bytes()),
        "rs256.json" => Ok(keys(&[&RSA]).into_bytes()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
    .unwrap()
});

/// The valid claims of an issuer.
pub(crate) fn claims(issuer: &str) -> Value {
    let (start, end) = (NOW - 60, NOW + 60);
    json!({ "iss": issuer, "sub": "web", "aud": "inventory-sentinel", "exp": end, "nbf": start, "iat": start })
}

/// A signed token of these texts, whatever they contain.
pub(crate) fn signed(signer: &Signer, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let signature = signer.sign(algorithm, &message);
    format!("{message}.{signature}")
}

/// A valid token of [`ALL`] for ES256.
pub(crate) fn valid() -> String {
    with_header(r#"{"alg":"ES256","kid":"p256-1"}"#)
}

/// A token of [`ALL`] with this header.
pub(crate) fn with_header(header: &str) -> String {
    signed(&P256, Algorithm::ES256, header, &claims(ALL).to_string())
}

/// A token of [`ALL`] with these claims.
pub(crate) fn with_claims(claims: &str) -> String {
    signed(&P256, Algorithm::ES256, r#"{"alg":"ES256","kid":"p256-1"}"#, claims)
}

/// A token of [`ALL`] with one more or another claim.
pub(crate) fn with_claim(name: &str, value: Value) -> String {
    let mut claims = claims(ALL);
    claims[name] = value;
    with_claims(&claims.to_string())
}

/// A token of [`ALL`] without a claim.
pub(crate) fn without_claim(name: &str) -> String {
    let mut claims = claims(ALL);
    claims.as_object_mut().unwrap().remove(name);
    with_claims(&claims.to_string())
}

/// The name of the identity of a token.
pub(crate) fn identify(token: impl AsRef<[u8]>) -> Result<String, Denied> {
    RULES.identify_bearer(token.as_ref(), now()).map(|identified| identified.identity.name.clone())
}

/// An attack is refused for its reason, and a token beside it that differs only in the attack is accepted.
#[track_caller]
pub(crate) fn refused(attack: &str, token: impl AsRef<[u8]>, denied: Denied, neighbor: impl AsRef<[u8]>) {
    assert_eq!(identify(neighbor), Ok("web".to_owned()), "the token beside: {attack}");
    assert_eq!(identify(token), Err(denied), "{attack}");
}
