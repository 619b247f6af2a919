//! Files of keys that are refused, each beside one that is accepted.

use inventory_sentinel_access::{PolicyError, Rules, limits};
use serde_json::{Value, json};

use crate::support::{ED, P256, P384, RSA, b64};

const POLICY: &str = r#"
issuer = [{ issuer = "i", audiences = ["a"], algorithms = ["ES256", "RS256", "EdDSA"], jwks_file = "keys.json" }]
"#;

fn load(text: &str) -> Result<Rules, PolicyError> {
    Rules::load(POLICY, |path| {
        assert_eq!(path, "keys.json");
        Ok(text.as_bytes().to_vec())
    })
}

fn load_keys(keys: &[Value]) -> Result<usize, Vec<String>> {
    let text = json!({ "keys": keys }).to_string();
    load(&text).map(|rules| rules.number_of_keys()).map_err(|error| error.problems)
}

/// A key that differs from one that is accepted is refused with a problem.
#[track_caller]
fn refused(key: &Value, changes: Value, problem: &str) {
    assert_eq!(load_keys(std::slice::from_ref(key)), Ok(1));
    let mut changed = key.clone();
    for (name, value) in changes.as_object().unwrap() {
        changed[name] = value.clone();
    }
    let problems = load_keys(&[changed]).unwrap_err();
    assert!(problems.iter().any(|text| text.contains(problem)), "{problems:?}");
    assert!(
        problems.iter().all(|text| text.starts_with(r#"issuer "i", keys file "keys.json": key 1"#)),
        "{problems:?}"
    );
}

#[test]
fn a_key_that_is_not_a_public_key_for_signatures_is_refused() {
    let (ec, rsa, ed) = (P256.jwk(), RSA.jwk(), ED.jwk());
    for secret in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        for key in [&ec, &rsa, &ed] {
            refused(key, json!({ secret: "AQAB" }), "a private key");
        }
    }
    refused(&rsa, json!({ "kty": "oct", "k": b64([1; 32]) }), "a shared secret");
    for usage in ["SIG", "", "tls"] {
        refused(&rsa, json!({ "use": usage }), "`use` is neither `sig` nor `enc`");
    }
    refused(&rsa, json!({ "use": 1 }), "`use` is no string");
    for operations in [json!([]), json!(["sign"]), json!("verify"), json!(["encrypt"])] {
        refused(&rsa, json!({ "key_ops": operations }), "`key_ops` is no list with `verify`");
    }
    for name in ["HS256", "none"] {
        refused(&rsa, json!({ "alg": name }), "never accepted");
    }
    refused(&rsa, json!({ "alg": "RSA-OAEP" }), "not supported");
    refused(&rsa, json!({ "alg": "ES256" }), "`alg` does not fit the key");
    refused(&ec, json!({ "alg": "ES384" }), "`alg` does not fit the key");
}

#[test]
fn a_weak_or_invalid_key_is_refused() {
    let (ec, rsa, ed) = (P256.jwk(), RSA.jwk(), ED.jwk());
    let modulus = |bytes: usize| json!({ "n": b64(vec![0xff; bytes]) });
    refused(&rsa, modulus(64), "an RSA key of 512 bits, 2048 at least");
    refused(&rsa, modulus(128), "an RSA key of 1024 bits, 2048 at least");
    refused(&rsa, modulus(255), "an RSA key of 2040 bits, 2048 at least");
    let zeros = [vec![0; 128], vec![0xff; 128]].concat();
    refused(&rsa, json!({ "n": b64(zeros) }), "an RSA key of 1024 bits");
    let short_by_a_bit = [vec![0x7f], vec![0xff; 255]].concat();
    refused(&rsa, json!({ "n": b64(short_by_a_bit) }), "an RSA key of 2047 bits");
    refused(&rsa, modulus(1025), "an RSA key of 8200 bits, 8192 at most");
    refused(&rsa, json!({ "n": b64(vec![0xfe; 256]) }), "no valid RSA key");
    for exponent in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
        refused(&rsa, json!({ "e": b64(exponent) }), "no valid RSA key");
    }
    refused(&rsa, json!({ "n": "AQAB=" }), "`n` is no base64url");
    refused(&rsa, json!({ "n": null }), "`n` is no string");
    refused(&ec, json!({ "crv": "P-384" }), "a coordinate has not 48 bytes");
    refused(&ec, json!({ "x": b64([1; 31]) }), "a coordinate has not 32 bytes");
    refused(&ec, json!({ "y": b64([1; 33]) }), "a coordinate has not 32 bytes");
    refused(&ec, json!({ "y": "" }), "a coordinate has not 32 bytes");
    refused(&ed, json!({ "x": b64([1; 33]) }), "`x` has not 32 bytes");
}

/// An issuer can publish keys for encryption, and keys that this service does not support.
#[test]
fn a_key_of_another_purpose_or_kind_is_ignored() {
    let ignored = |key: &Value, change: Value| {
        let mut changed = key.clone();
        for (name, value) in change.as_object().unwrap() {
            changed[name] = value.clone();
        }
        let problems = load_keys(std::slice::from_ref(&changed)).unwrap_err();
        assert!(problems[0].ends_with("no key fits an algorithm of the issuer"), "{problems:?}");
        let other = if changed["kid"] == RSA.jwk()["kid"] { P256.jwk() } else { RSA.jwk() };
        assert_eq!(load_keys(&[changed, other]), Ok(1));
    };
    ignored(&RSA.jwk(), json!({ "use": "enc", "alg": "RSA-OAEP" }));
    for kind in ["rsa", "AKP", ""] {
        ignored(&RSA.jwk(), json!({ "kty": kind }));
    }
    for curve in ["P-521", "secp256k1", "P-224", "p-256"] {
        ignored(&P256.jwk(), json!({ "crv": curve }));
    }
    for curve in ["X25519", "Ed448", "P-256"] {
        ignored(&ED.jwk(), json!({ "crv": curve }));
    }
}

#[test]
fn each_key_has_a_unique_id() {
    let ec = P256.jwk();
    refused(&ec, json!({ "kid": "" }), "`kid` is empty");
    refused(&ec, json!({ "kid": 1 }), "`kid` is no string");
    refused(&ec, json!({ "kid": null }), "`kid` is no string");
    refused(&ec, json!({ "kid": "a".repeat(limits::MAX_KEY_ID_BYTES + 1) }), "`kid` is too long");
    let mut without = ec.clone();
    without.as_object_mut().unwrap().remove("kid");
    assert!(load_keys(&[without]).unwrap_err()[0].ends_with("key 1: `kid` is missing"));
    let mut same = RSA.jwk();
    same["kid"] = ec["kid"].clone();
    let problems = load_keys(&[ec.clone(), same]).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].ends_with(r#"key 2 ("p256-1"): key 1 has the same `kid`"#));
    assert_eq!(load_keys(&[ec, RSA.jwk()]), Ok(2));
}

#[test]
fn a_file_of_another_form_is_refused() {
    let key = P256.jwk().to_string();
    assert!(load(&format!(r#"{{"keys":[{key}],"more":1}}"#)).is_ok());
    let texts = [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        key.clone(),
        format!("[{key}]"),
        format!(r#"{{"keys":{key}}}"#),
        format!(r#"{{"keys":[{key}]}}x"#),
        format!(r#"{{"keys":[{key}],"keys":[]}}"#),
        format!(r#"{{"keys":[{}]}}"#, key.replacen('{', r#"{"kty":"EC","#, 1)),
        r#"{"keys":[]}"#.to_owned(),
        r#"{"keys":[1]}"#.to_owned(),
        RSA.key.public_key_pem(),
    ];
    for text in texts {
        assert!(load(&text).is_err(), "{text}");
    }
    let many = |count: usize| -> Vec<Value> {
        (0..count)
            .map(|number| {
                let mut key = P256.jwk();
                key["kid"] = number.to_string().into();
                key
            })
            .collect()
    };
    assert_eq!(load_keys(&many(limits::MAX_KEYS)), Ok(limits::MAX_KEYS));
    assert!(load_keys(&many(limits::MAX_KEYS + 1)).unwrap_err()[0].ends_with("65 keys, 64 at most"));
}

#[test]
fn the_keys_fit_the_algorithms_of_their_issuer() {
    let problems = load_keys(&[P384.jwk()]).unwrap_err();
    assert!(problems[0].ends_with("no key fits an algorithm of the issuer"), "{problems:?}");
    // Other keys may be in the file.
    assert_eq!(load_keys(&[P384.jwk(), P256.jwk()]), Ok(2));
    let mut only = RSA.jwk();
    only["alg"] = "PS256".into();
    assert!(load_keys(&[only.clone()]).unwrap_err()[0].ends_with("no key fits an algorithm of the issuer"));
    only["alg"] = "RS256".into();
    assert_eq!(load_keys(&[only]), Ok(1));
}

#[test]
fn every_key_with_a_problem_is_listed() {
    let mut private = P256.jwk();
    private["d"] = "c2VjcmV0".into();
    let mut odd = RSA.jwk();
    odd["use"] = "tls".into();
    let problems = load_keys(&[private, json!({ "kty": "oct", "kid": "h", "k": "c2VjcmV0" }), odd]).unwrap_err();
    assert_eq!(problems.len(), 3);
    assert!(problems.iter().all(|problem| !problem.contains("c2VjcmV0")));
}
