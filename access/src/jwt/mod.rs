//! JSON Web Tokens (RFC 7519), with the rules of RFC 8725. Pure.
//!
//! - A token selects nothing but one of the loaded keys. Keys and addresses in its header are never used.
//! - The issuer's policy pins the algorithms, and each key fits only those of its type.
//! - Before the signature is verified, only the shape, `alg`, `kid` and `iss` are read.

pub(crate) mod algorithm;
mod claims;
mod keys;
mod strict_json;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use self::{claims::Claims, keys::Key};
use crate::{
    Denied, Identified, Identity, PolicyError,
    limits::{MAX_CREDENTIAL_BYTES, MAX_JWT_CLAIMS_BYTES, MAX_JWT_HEADER_BYTES, MAX_KEY_ID_BYTES},
    policy,
};

/// Fields of a header that change how a token must be processed. None is supported.
const REFUSED_HEADERS: [&str; 4] = ["crit", "b64", "zip", "cty"];

/// An issuer with its keys and the identities of its subjects.
pub(crate) struct Issuer {
    audiences: HashSet<String>,
    algorithms: Vec<Algorithm>,
    leeway: Duration,
    keys: HashMap<String, Key>,
    subjects: HashMap<String, Arc<Identity>>,
}

impl Issuer {
    /// The issuer of the policy with the keys of its file.
    pub(crate) fn new(
        issuer: policy::Issuer,
        subjects: HashMap<String, Arc<Identity>>,
        jwks: &str,
    ) -> Result<Self, PolicyError> {
        let policy::Issuer { name: _, audiences, algorithms, jwks_file: _, leeway } = issuer;
        let keys = keys::parse(jwks, &algorithms)?;
        Ok(Self { audiences, algorithms, leeway, keys, subjects })
    }

    pub(crate) fn number_of_keys(&self) -> usize {
        self.keys.len()
    }

    /// The key with this id. A token without an id selects the only key.
    fn key(&self, id: Option<&str>) -> Option<&Key> {
        match id {
            Some(id) => self.keys.get(id),
            None => self.keys.values().next().filter(|_| self.keys.len() == 1),
        }
    }
}

/// The identity of a token.
pub(crate) fn identify(
    issuers: &HashMap<String, Issuer>,
    credential: &[u8],
    now: SystemTime,
) -> Result<Identified, Denied> {
    let parts = Parts::split(credential)?;
    let header = Header::parse(&parts.header)?;
    let claims = strict_json::parse_object(&parts.claims).ok_or(Denied::Malformed)?;
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(Denied::Malformed)?;
    let issuer = issuers.get(issuer).ok_or(Denied::Unknown)?;
    if !issuer.algorithms.contains(&header.algorithm) {
        return Err(Denied::Malformed);
    }
    let key = issuer.key(header.key_id.as_deref()).ok_or(Denied::Unknown)?;
    if !key.fits(header.algorithm) {
        return Err(Denied::Malformed);
    }
    if !key.verifies(header.algorithm, parts.message, parts.signature_text, &parts.signature) {
        return Err(Denied::Unknown);
    }
    // From here on the issuer has signed the claims.
    let claims = Claims::parse(&claims)?;
    let until = claims.check(&issuer.audiences, issuer.leeway, now)?;
    let identity = issuer.subjects.get(claims.subject).ok_or(Denied::Unknown)?.clone();
    Ok(Identified { identity, until: Some(until) })
}

/// The three parts of a token (RFC 7515, compact serialization).
struct Parts<'a> {
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
    signature_text: &'a str,
    /// The signed bytes.
    message: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(credential: &'a [u8]) -> Result<Self, Denied> {
        if credential.len() > MAX_CREDENTIAL_BYTES {
            return Err(Denied::Malformed);
        }
        let text = std::str::from_utf8(credential).map_err(|_| Denied::Malformed)?;
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Denied::Malformed);
        };
        let message = &credential[..header.len() + 1 + claims.len()];
        Ok(Self {
            header: decode(header, MAX_JWT_HEADER_BYTES)?,
            claims: decode(claims, MAX_JWT_CLAIMS_BYTES)?,
            signature: decode(signature, MAX_CREDENTIAL_BYTES)?,
            signature_text: signature,
            message,
        })
    }
}

/// Decodes a part. It is not empty, has no padding and no bits after its last byte.
fn decode(part: &str, max_bytes: usize) -> Result<Vec<u8>, Denied> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed)?;
    if bytes.is_empty() || bytes.len() > max_bytes { Err(Denied::Malformed) } else { Ok(bytes) }
}

/// The fields of a header that are used.
struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Denied> {
        let fields = strict_json::parse_object(bytes).ok_or(Denied::Malformed)?;
        if REFUSED_HEADERS.iter().any(|name| fields.contains_key(*name)) || !is_access_token(&fields) {
            return Err(Denied::Malformed);
        }
        let name = fields.get("alg").and_then(Value::as_str).ok_or(Denied::Malformed)?;
        let algorithm = algorithm::parse(name).map_err(|_| Denied::Malformed)?;
        let key_id = match fields.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= MAX_KEY_ID_BYTES => Some(id.clone()),
            Some(_) => return Err(Denied::Malformed),
        };
        Ok(Self { algorithm, key_id })
    }
}

/// Whether the type is absent or that of a token for access. An issuer signs other types with the same keys.
fn is_access_token(header: &Map<String, Value>) -> bool {
    let Some(kind) = header.get("typ") else { return true };
    let Some(kind) = kind.as_str().map(str::to_ascii_lowercase) else { return false };
    matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
}
