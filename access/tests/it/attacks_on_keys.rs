//! Attacks that use a key with an algorithm or in a form for which it is not meant.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use inventory_sentinel_access::Denied;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::PublicKeyData;

use crate::support::{
    ALL, ED, FOREIGN_RSA, P256, P384, RS256, RSA, Signer, b64, claims, identify, refused, signed, valid,
};

/// A token of an issuer whose header names an algorithm and a key.
fn token(signer: &Signer, algorithm: Algorithm, named: &str, kid: &str, issuer: &str) -> String {
    signed(signer, algorithm, &format!(r#"{{"alg":"{named}","kid":"{kid}"}}"#), &claims(issuer).to_string())
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let hmacs = [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)];
    for (signer, honest) in [(&*RSA, Algorithm::RS256), (&*P256, Algorithm::ES256), (&*ED, Algorithm::EdDSA)] {
        let pem = signer.key.public_key_pem();
        let raw = signer.key.der_bytes();
        let spki = signer.key.subject_public_key_info();
        let secrets: Vec<Vec<u8>> = vec![
            pem.clone().into_bytes(),
            pem.trim_end().into(),
            pem.replace('\r', "").into_bytes(),
            pem.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes(),
            pem.lines().filter(|line| !line.starts_with('-')).collect::<String>().into_bytes(),
            spki.clone(),
            STANDARD.encode(&spki).into_bytes(),
            b64(&spki).into_bytes(),
            raw.to_vec(),
            b64(raw).into_bytes(),
            raw[1..].to_vec(),
            signer.jwk().to_string().into_bytes(),
            signer.jwk()["n"].as_str().or(signer.jwk()["x"].as_str()).unwrap().into(),
            vec![0],
            signer.id.into(),
        ];
        for (name, algorithm) in hmacs {
            for secret in &secrets {
                let message = format!(
                    "{}.{}",
                    b64(format!(r#"{{"alg":"{name}","kid":"{}"}}"#, signer.id)),
                    b64(claims(ALL).to_string())
                );
                let key = EncodingKey::from_secret(secret);
                let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
                let honest = token(signer, honest, &format!("{honest:?}"), signer.id, ALL);
                refused(name, format!("{message}.{signature}"), Denied::Malformed, &honest);
                // With the name of the right algorithm, the HMAC is only a wrong signature.
                let (header, _) = honest.split_once('.').unwrap();
                let (_, body) = message.split_once('.').unwrap();
                let message = format!("{header}.{body}");
                let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
                refused(name, format!("{message}.{signature}"), Denied::Unknown, &honest);
            }
        }
    }
}

const RSA_ALGORITHMS: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

#[test]
fn each_algorithm_is_accepted_with_a_key_of_its_type_and_its_signature_alone() {
    let mut signers: Vec<(&Signer, Algorithm)> =
        vec![(&P256, Algorithm::ES256), (&P384, Algorithm::ES384), (&ED, Algorithm::EdDSA)];
    signers.extend(RSA_ALGORITHMS.map(|algorithm| (&*RSA, algorithm)));
    for &(signer, algorithm) in &signers {
        let honest = token(signer, algorithm, &format!("{algorithm:?}"), signer.id, ALL);
        for &(other, named) in &signers {
            let name = format!("{named:?}");
            let attack = format!("signed with {algorithm:?} by {}, named {name}", signer.id);
            if named != algorithm {
                // The key does not fit the algorithm, or the signature is of another one.
                let denied = if other.id == signer.id { Denied::Unknown } else { Denied::Malformed };
                refused(&attack, token(signer, algorithm, &name, signer.id, ALL), denied, &honest);
            }
            if other.id != signer.id {
                // The signature is of another key than the header names.
                refused(&attack, token(signer, algorithm, &name, other.id, ALL), Denied::Unknown, &honest);
            }
        }
    }
}

#[test]
fn an_algorithm_outside_of_the_pinned_ones_is_refused() {
    let honest = token(&RSA, Algorithm::RS256, "RS256", "rsa-1", RS256);
    for algorithm in &RSA_ALGORITHMS[1..] {
        let name = format!("{algorithm:?}");
        refused(&name, token(&RSA, *algorithm, &name, "rsa-1", RS256), Denied::Malformed, &honest);
        assert_eq!(identify(token(&RSA, *algorithm, &name, "rsa-1", ALL)), Ok("web".to_owned()));
    }
    refused("ES256", token(&P256, Algorithm::ES256, "ES256", "p256-1", RS256), Denied::Malformed, &honest);
    refused("foreign", token(&FOREIGN_RSA, Algorithm::RS256, "RS256", "rsa-1", RS256), Denied::Unknown, &honest);
}

/// A DER integer.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let mut number: Vec<u8> = bytes.iter().copied().skip_while(|&byte| byte == 0).collect();
    if number.first().is_none_or(|&byte| byte >= 0x80) {
        number.insert(0, 0);
    }
    [&[0x02, u8::try_from(number.len()).unwrap()], number.as_slice()].concat()
}

#[test]
fn a_signature_has_one_encoding() {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let honest = valid();
    let (message, signature) = honest.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = raw.split_at(32);
    let body = [integer(r), integer(s)].concat();
    let der = [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat();
    let padded = [&[0; 1][..], r, &[0; 1], s].concat();
    let signatures: [(&str, Vec<u8>); 8] = [
        ("DER", der),
        ("swapped", [s, r].concat()),
        ("padded", padded),
        ("truncated", raw[..63].to_vec()),
        ("longer", [raw.as_slice(), &[0]].concat()),
        ("twice", raw.repeat(2)),
        ("zeros", vec![0; 64]),
        ("ones", vec![0xff; 64]),
    ];
    for (name, signature) in signatures {
        refused(name, format!("{message}.{}", b64(signature)), Denied::Unknown, &honest);
    }
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    refused("hexadecimal", format!("{message}.{hex}"), Denied::Unknown, &honest);

    let honest = token(&RSA, Algorithm::RS256, "RS256", "rsa-1", ALL);
    let (message, signature) = honest.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for (name, signature) in [
        ("truncated", raw[..255].to_vec()),
        ("longer", [&[0], raw.as_slice()].concat()),
        ("zeros", vec![0; 256]),
        ("one", [vec![0; 255], vec![1]].concat()),
        ("the modulus", RSA.rsa().0.to_vec()),
    ] {
        refused(name, format!("{message}.{}", b64(signature)), Denied::Unknown, &honest);
    }
}
