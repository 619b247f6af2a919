//! The keys of an issuer: a JSON Web Key Set (RFC 7517) with public keys only. Pure.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::{Map, Value};

use super::{algorithm, strict_json};
use crate::{
    PolicyError,
    limits::{MAX_KEY_ID_BYTES, MAX_KEYS, MAX_RSA_BITS, MIN_RSA_BITS},
    problems::{Problems, quoted},
};

/// The fields of a key that are secret.
const SECRET_FIELDS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key with the algorithms that it may be used with.
pub(super) struct Key {
    algorithms: Vec<Algorithm>,
    signature_bytes: usize,
    decoding: DecodingKey,
}

impl Key {
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether this key signed the message. The algorithm must fit the key. `signature` is the base64url of `bytes`.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str, bytes: &[u8]) -> bool {
        // The fixed length refuses ECDSA signatures in DER, which some libraries accept beside the form of JWS.
        bytes.len() == self.signature_bytes
            && jsonwebtoken::crypto::verify(signature, message, &self.decoding, algorithm).unwrap_or(false)
    }
}

/// The keys of a file, each with its id.
pub(super) fn parse(text: &str, pinned: &[Algorithm]) -> Result<HashMap<String, Key>, PolicyError> {
    let mut problems = Problems::default();
    let mut keys = HashMap::new();
    let set = strict_json::parse_object(text.as_bytes());
    match set.as_ref().and_then(|set| set.get("keys")).and_then(Value::as_array) {
        None => problems.add("", "no JSON object with a list `keys`, or a key is duplicated"),
        Some(list) if list.is_empty() => problems.add("", "no key"),
        Some(list) if list.len() > MAX_KEYS => {
            problems.add("", format_args!("{} keys, {MAX_KEYS} at most", list.len()));
        }
        Some(list) => {
            let mut ids = HashMap::new();
            for (number, value) in (1..).zip(list) {
                let id = value.get("kid").and_then(Value::as_str);
                let place = id.map_or_else(|| format!("key {number}"), |id| format!("key {number} ({})", quoted(id)));
                match check_id(value) {
                    Err(problem) => problems.add(&place, problem),
                    Ok(id) => {
                        if let Some(first) = ids.insert(id.to_owned(), number) {
                            problems.add(&place, format_args!("key {first} has the same `kid`"));
                        }
                    }
                }
                match parse_key(value) {
                    Err(problem) => problems.add(&place, problem),
                    Ok(key) => keys.extend(key.map(|key| (id.unwrap_or_default().to_owned(), key))),
                }
            }
            if problems.is_empty() && !keys.values().any(|key| pinned.iter().any(|&pinned| key.fits(pinned))) {
                problems.add("", "no key fits an algorithm of the issuer");
            }
        }
    }
    problems.or(keys)
}

fn check_id(value: &Value) -> Result<&str, &'static str> {
    match value.get("kid").map(Value::as_str) {
        None => Err("`kid` is missing"),
        Some(None) => Err("`kid` is no string"),
        Some(Some("")) => Err("`kid` is empty"),
        Some(Some(id)) if id.len() > MAX_KEY_ID_BYTES => Err("`kid` is too long"),
        Some(Some(id)) => Ok(id),
    }
}

/// The key, or `None` if it is for another purpose or of an unsupported kind: RFC 7517 (section 5) ignores such keys.
fn parse_key(value: &Value) -> Result<Option<Key>, String> {
    let fields = value.as_object().ok_or("no JSON object")?;
    let kind = text(fields, "kty")?.ok_or("`kty` is missing")?;
    if kind == "oct" {
        return Err("a shared secret (`oct`) is never accepted".into());
    }
    if SECRET_FIELDS.iter().any(|field| fields.contains_key(*field)) {
        return Err("a private key; the file may only contain public keys".into());
    }
    match text(fields, "use")? {
        None | Some("sig") => {}
        Some("enc") => return Ok(None),
        Some(_) => return Err("`use` is neither `sig` nor `enc`".into()),
    }
    if let Some(operations) = fields.get("key_ops")
        && !operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    {
        return Err("`key_ops` is no list with `verify`".into());
    }
    let key = match kind {
        "RSA" => Some(parse_rsa(fields)?),
        "EC" => parse_ec(fields)?,
        "OKP" => parse_okp(fields)?,
        _ => None,
    };
    let Some(mut key) = key else { return Ok(None) };
    if let Some(name) = text(fields, "alg")? {
        let only = algorithm::parse(name).map_err(|problem| format!("`alg`: {problem}"))?;
        if !key.fits(only) {
            return Err("`alg` does not fit the key".into());
        }
        key.algorithms = vec![only];
    }
    Ok(Some(key))
}

fn parse_rsa(fields: &Map<String, Value>) -> Result<Key, String> {
    let modulus = number(fields, "n")?;
    let exponent = number(fields, "e")?;
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < MIN_RSA_BITS {
        return Err(format!("an RSA key of {bits} bits, {MIN_RSA_BITS} at least"));
    }
    if bits > MAX_RSA_BITS {
        return Err(format!("an RSA key of {bits} bits, {MAX_RSA_BITS} at most"));
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    // The library refuses an exponent of more than 33 bits. None in use has more than 32.
    if !is_odd(&modulus) || !is_odd(&exponent) || exponent == [1] || exponent.len() > 4 {
        return Err("no valid RSA key".into());
    }
    Ok(Key {
        algorithms: algorithm::of_family(AlgorithmFamily::Rsa),
        signature_bytes: bits.div_ceil(8),
        decoding: DecodingKey::from_rsa_raw_components(&modulus, &exponent),
    })
}

fn parse_ec(fields: &Map<String, Value>) -> Result<Option<Key>, String> {
    let (algorithm, bytes) = match text(fields, "crv")? {
        Some("P-256") => (Algorithm::ES256, 32),
        Some("P-384") => (Algorithm::ES384, 48),
        Some(_) => return Ok(None),
        None => return Err("`crv` is missing".into()),
    };
    let (x, y) = (bytes_of(fields, "x")?, bytes_of(fields, "y")?);
    if x.len() != bytes || y.len() != bytes {
        return Err(format!("a coordinate has not {bytes} bytes"));
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    let decoding = DecodingKey::from_ec_der(&point);
    Ok(Some(Key { algorithms: vec![algorithm], signature_bytes: 2 * bytes, decoding }))
}

fn parse_okp(fields: &Map<String, Value>) -> Result<Option<Key>, String> {
    if text(fields, "crv")?.ok_or("`crv` is missing")? != "Ed25519" {
        return Ok(None);
    }
    let x = bytes_of(fields, "x")?;
    if x.len() != 32 {
        return Err("`x` has not 32 bytes".into());
    }
    let decoding = DecodingKey::from_ed_der(&x);
    Ok(Some(Key { algorithms: vec![Algorithm::EdDSA], signature_bytes: 64, decoding }))
}

/// A field that is a string or absent.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` is no string")),
    }
}

fn bytes_of(fields: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = text(fields, name)?.ok_or_else(|| format!("`{name}` is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("`{name}` is no base64url without padding"))
}

/// A number without leading zeros.
fn number(fields: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let bytes = bytes_of(fields, name)?;
    Ok(bytes.into_iter().skip_while(|&byte| byte == 0).collect())
}
