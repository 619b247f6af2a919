//! Attacks on the shape, the header and the claims of JSON Web Tokens. Beside each is a token that is accepted.

use inventory_sentinel_access::{Denied, limits};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::{
    ALL, FOREIGN_P256, LEEWAY, NOW, ONE, P256, b64, claims, identify, refused, signed, valid, with_claim, with_claims,
    with_header, without_claim,
};

const HEADER: &str = r#"{"alg":"ES256","kid":"p256-1"}"#;

fn message(header: &str) -> String {
    format!("{}.{}", b64(header), b64(claims(ALL).to_string()))
}

#[test]
fn a_token_without_a_signature_is_refused() {
    for name in ["none", "None", "NONE", "nOnE", "", " none", "none\\u0000", "null"] {
        let header = format!(r#"{{"alg":"{name}","kid":"p256-1"}}"#);
        for end in ["", "AA", &b64("none")] {
            refused(name, format!("{}.{end}", message(&header)), Denied::Malformed, valid());
        }
        refused(name, message(&header), Denied::Malformed, valid());
        // Even a valid signature does not make it acceptable.
        refused(name, with_header(&header), Denied::Malformed, with_header(HEADER));
    }
    for header in [
        r#"{"kid":"p256-1"}"#,
        r#"{"alg":null,"kid":"p256-1"}"#,
        r#"{"alg":["ES256"],"kid":"p256-1"}"#,
        r#"{"alg":256,"kid":"p256-1"}"#,
        r#"{"alg":"es256","kid":"p256-1"}"#,
        r#"{"alg":"ES256 ","kid":"p256-1"}"#,
        r#"{"alg":"ES256K","kid":"p256-1"}"#,
        r#"{"alg":"ES512","kid":"p256-1"}"#,
    ] {
        refused(header, with_header(header), Denied::Malformed, with_header(HEADER));
    }
    refused("empty signature", format!("{}.", message(HEADER)), Denied::Malformed, valid());
    refused("short signature", format!("{}.AA", message(HEADER)), Denied::Unknown, valid());
    refused("zeros (CVE-2022-21449)", format!("{}.{}", message(HEADER), b64([0; 64])), Denied::Unknown, valid());
}

#[test]
fn a_changed_token_is_refused() {
    let token = valid();
    let (signed_part, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed_part.split_once('.').unwrap();
    let mut root = claims(ALL);
    root["sub"] = "root".into();
    refused("other subject", format!("{header}.{}.{signature}", b64(root.to_string())), Denied::Unknown, &token);
    let spaced = format!(" {}", claims(ALL));
    refused("other claims", format!("{header}.{}.{signature}", b64(spaced)), Denied::Unknown, &token);
    let other_header = b64(r#"{"kid":"p256-1","alg":"ES256"}"#);
    refused("other header", token.replacen(header, &other_header, 1), Denied::Unknown, &token);
    let foreign = signed(&FOREIGN_P256, Algorithm::ES256, HEADER, &claims(ALL).to_string());
    refused("foreign key", foreign, Denied::Unknown, &token);
    // The last character has four unused bits. A second text for the same signature would be a second token.
    let last = token.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    refused("unused bits", format!("{}{next}", &token[..token.len() - 1]), Denied::Malformed, &token);
}

#[test]
fn a_token_of_another_form_is_refused() {
    let token = valid();
    let parts: Vec<&str> = token.split('.').collect();
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    let forms = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "not a token".to_owned(),
        header.to_owned(),
        format!("{header}.{body}"),
        format!("{header}..{signature}"),
        format!(".{body}.{signature}"),
        format!("{header}.{body}."),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{body}.{signature}.{signature}.{signature}"),
        format!("{}.{body}.{body}.{body}.{signature}", b64(r#"{"alg":"dir","enc":"A256GCM"}"#)),
        format!("{}..{body}.{body}.{signature}", b64(r#"{"alg":"RSA-OAEP","enc":"A128GCM","kid":"rsa-1"}"#)),
        format!("{token}=="),
        format!("{header}=.{body}.{signature}"),
        format!("{header}.{body}==.{signature}"),
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("{token}\0"),
        format!("\u{feff}{token}"),
        format!("{header} .{body}.{signature}"),
        format!("Bearer {token}"),
        format!("\"{token}\""),
        token.replace('.', "\u{3002}"),
        token.replace('.', "\u{ff0e}"),
        token.replace('.', "\u{2024}"),
        token.replace('.', "%2e"),
        token.replace('.', ".\u{200b}"),
        format!("{header}.{body}.{signature}+/"),
        json!({ "protected": header, "payload": body, "signature": signature }).to_string(),
        json!({ "payload": body, "signatures": [{ "protected": header, "signature": signature }] }).to_string(),
    ];
    for form in forms {
        refused(&form, &form, Denied::Malformed, &token);
    }
    refused("no UTF-8", [token.as_bytes(), &[0xff]].concat(), Denied::Malformed, &token);
    refused("no UTF-8", [0xff; 8], Denied::Malformed, &token);
}

#[test]
fn a_part_that_is_no_strict_json_object_is_refused() {
    let valid_claims = claims(ALL).to_string();
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    let texts = [
        "".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"web\"".to_owned(),
        "1".to_owned(),
        "{".to_owned(),
        "{}{}".to_owned(),
        format!("[{valid_claims}]"),
        format!("{valid_claims}x"),
        format!("{valid_claims}{valid_claims}"),
        format!("\u{feff}{valid_claims}"),
        valid_claims.replace('"', "'"),
        valid_claims.replacen('{', "{,", 1),
        valid_claims.replacen('{', "{/**/", 1),
        valid_claims.replacen('{', r#"{"a":NaN,"#, 1),
        valid_claims.replacen('{', r#"{"a":"\ud800","#, 1),
        valid_claims.replacen('{', &format!(r#"{{"a":{}1{},"#, "[".repeat(200), "]".repeat(200)), 1),
        deep("[", "]"),
        deep(r#"{"a":"#, "}"),
    ];
    for text in &texts {
        refused(text, with_claims(text), Denied::Malformed, with_claims(&valid_claims));
        refused(text, with_header(text), Denied::Malformed, with_header(HEADER));
    }
    let nested = valid_claims.replacen('{', &format!(r#"{{"a":{}1{},"#, "[".repeat(100), "]".repeat(100)), 1);
    assert_eq!(identify(with_claims(&nested)), Ok("web".to_owned()));
    assert_eq!(identify(with_claims(&format!(" {valid_claims}\n"))), Ok("web".to_owned()));
    let mut bytes = valid_claims.clone().into_bytes();
    bytes[10] = 0xff;
    let message = format!("{}.{}", b64(HEADER), b64(bytes));
    let token = format!("{message}.{}", P256.sign(Algorithm::ES256, &message));
    refused("no UTF-8", token, Denied::Malformed, valid());
}

#[test]
fn a_duplicated_field_is_refused() {
    let header = |more: &str| format!(r#"{{{more},"alg":"ES256","kid":"p256-1"}}"#);
    for more in [
        r#""alg":"ES256""#,
        r#""alg":"none""#,
        r#""\u0061lg":"ES256""#,
        r#""kid":"p256-1""#,
        r#""kid":"other""#,
        r#""a":1,"a":1"#,
        r#""a":{"b":1,"b":1}"#,
    ] {
        refused(more, with_header(&header(more)), Denied::Malformed, with_header(&header(r#""a":1"#)));
    }
    let valid_claims = claims(ALL).to_string();
    let with = |more: &str| with_claims(&valid_claims.replacen('{', &format!("{{{more},"), 1));
    for more in [
        r#""exp":1"#,
        r#""exp":9999999999"#,
        r#""aud":"inventory-sentinel""#,
        r#""aud":[]"#,
        r#""sub":"root""#,
        r#""sub":"web""#,
        r#""s\u0075b":"web""#,
        r#""iss":"https://all.example.com""#,
        r#""iss":"https://one.example.com""#,
        r#""nbf":0"#,
        r#""roles":1,"roles":2"#,
        r#""act":{"sub":"a","sub":"b"}"#,
        r#""list":[{"a":1,"a":1}]"#,
    ] {
        refused(more, with(more), Denied::Malformed, with(r#""act":{"sub":"a"},"Exp":1,"roles":[]"#));
    }
}

#[test]
fn a_token_that_is_too_long_is_refused() {
    let claims_of = |bytes: usize| {
        let mut claims = claims(ALL);
        claims["pad"] = "".into();
        let pad = bytes - claims.to_string().len();
        claims["pad"] = "a".repeat(pad).into();
        with_claims(&claims.to_string())
    };
    let bound = limits::MAX_JWT_CLAIMS_BYTES;
    refused("claims", claims_of(bound + 1), Denied::Malformed, claims_of(bound));

    let header_of = |bytes: usize| {
        let header = |pad: usize| format!(r#"{{"alg":"ES256","kid":"p256-1","pad":"{}"}}"#, "a".repeat(pad));
        with_header(&header(bytes - header(0).len()))
    };
    let bound = limits::MAX_JWT_HEADER_BYTES;
    refused("header", header_of(bound + 1), Denied::Malformed, header_of(bound));

    // The longest header and the longest claims fit into a credential; a signature of any length does not.
    let long = format!("{}.{}", message(HEADER), "A".repeat(limits::MAX_CREDENTIAL_BYTES - message(HEADER).len()));
    assert_eq!(long.len(), limits::MAX_CREDENTIAL_BYTES + 1);
    refused("credential", &long, Denied::Malformed, valid());
    refused("signature", &long[..long.len() - 4], Denied::Unknown, valid());
    refused("huge", "A".repeat(1 << 20), Denied::Malformed, valid());
    refused("dots", ".".repeat(1 << 20), Denied::Malformed, valid());
}

#[test]
fn the_kid_selects_only_a_loaded_key() {
    let with_kid = |kid: &str| with_header(&json!({ "alg": "ES256", "kid": kid }).to_string());
    for kid in [
        "",
        "p256-2",
        "P256-1",
        "p256-1 ",
        "p256-1\0",
        "p256-1\0.pem",
        "../../../../dev/null",
        "/etc/passwd",
        "file:///dev/null",
        "https://attacker.example/jwks.json",
        "x' UNION SELECT 'key' -- ",
        "p256-1' OR '1'='1",
        "p256-1; cat /etc/passwd",
        "$(id)",
        "*",
        "0",
        "\u{ff50}256-1",
        "{\"$ne\":null}",
        &"a".repeat(limits::MAX_KEY_ID_BYTES),
    ] {
        refused(kid, with_kid(kid), Denied::Unknown, with_kid("p256-1"));
    }
    refused("long", with_kid(&"a".repeat(limits::MAX_KEY_ID_BYTES + 1)), Denied::Malformed, with_kid("p256-1"));
    for kid in ["null", "1", "true", r#"["p256-1"]"#, r#"{"kid":"p256-1"}"#] {
        let header = format!(r#"{{"alg":"ES256","kid":{kid}}}"#);
        refused(kid, with_header(&header), Denied::Malformed, with_kid("p256-1"));
    }

    // Without an id only the key of an issuer with one key is selected.
    let of = |issuer: &str| signed(&P256, Algorithm::ES256, r#"{"alg":"ES256"}"#, &claims(issuer).to_string());
    refused("no kid, four keys", of(ALL), Denied::Unknown, of(ONE));
    let other_kid = signed(&P256, Algorithm::ES256, r#"{"alg":"ES256","kid":"b"}"#, &claims(ONE).to_string());
    refused("another kid, one key", other_kid, Denied::Unknown, of(ONE));
}

#[test]
fn a_key_in_the_header_is_never_used() {
    let key = FOREIGN_P256.jwk();
    let fields: [(&str, Value); 8] = [
        ("jwk", key.clone()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("jku", json!("https://all.example.com@attacker.example/jwks.json")),
        ("jku", json!("file:///etc/passwd")),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("x5c", json!([b64(FOREIGN_P256.key.public_key_pem())])),
        ("x5t#S256", json!(b64([1; 32]))),
        ("keys", json!([key])),
    ];
    for (name, value) in fields {
        let header = json!({ "alg": "ES256", "kid": "p256-1", name: value }).to_string();
        let forged = signed(&FOREIGN_P256, Algorithm::ES256, &header, &claims(ALL).to_string());
        refused(name, forged, Denied::Unknown, with_header(&header));
        let header = json!({ "alg": "ES256", name: value }).to_string();
        let forged = signed(&FOREIGN_P256, Algorithm::ES256, &header, &claims(ONE).to_string());
        let honest = signed(&P256, Algorithm::ES256, &header, &claims(ONE).to_string());
        refused(name, forged, Denied::Unknown, honest);
    }
}

#[test]
fn a_header_that_changes_the_processing_is_refused() {
    let with = |more: &str| with_header(&format!(r#"{{"alg":"ES256","kid":"p256-1",{more}}}"#));
    for more in [
        r#""crit":["exp"]"#,
        r#""crit":["b64"],"b64":false"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""crit":"exp""#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
        r#""cty":"JWT""#,
        r#""typ":"JWE""#,
        r#""typ":"logout+jwt""#,
        r#""typ":"secevent+jwt""#,
        r#""typ":"dpop+jwt""#,
        r#""typ":null"#,
        r#""typ":["JWT"]"#,
        r#""typ":"""#,
    ] {
        refused(more, with(more), Denied::Malformed, with(r#""typ":"JWT""#));
    }
    for accepted in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        assert_eq!(identify(with(&format!(r#""typ":"{accepted}""#))), Ok("web".to_owned()), "{accepted}");
    }
}

#[test]
fn a_claim_of_another_form_is_refused() {
    let in_claims = |name: &str, value: &str| {
        let text = claims(ALL).to_string();
        let old = format!(r#""{name}":{}"#, claims(ALL)[name]);
        assert!(text.contains(&old));
        with_claims(&text.replace(&old, &format!(r#""{name}":{value}"#)))
    };
    for value in [
        "null",
        "true",
        r#""1900000000""#,
        r#""never""#,
        "[]",
        "[1900000000]",
        "{}",
        "-1",
        "-0.5",
        "-1e400",
        "1e400",
        "1e300",
        "253402300800",
        "18446744073709551615",
        "18446744073709551616",
        "1e-",
        "0x7fffffff",
        "NaN",
        "Infinity",
        "+1900000000",
        "01900000000",
        "1900000000.",
        "1_900_000_000",
    ] {
        refused(value, in_claims("exp", value), Denied::Malformed, in_claims("exp", "1900000000"));
    }
    for value in ["null", r#""0""#, "-1", "1e400", "[0]", "{}", "253402300800"] {
        refused(value, in_claims("nbf", value), Denied::Malformed, in_claims("nbf", "0"));
        refused(value, in_claims("iat", value), Denied::Malformed, in_claims("iat", "0"));
    }
    for value in ["null", "1", "true", r#"["web"]"#, r#"{"web":1}"#, r#""""#] {
        refused(value, in_claims("sub", value), Denied::Malformed, in_claims("sub", r#""web""#));
    }
    for value in ["null", "1", "{}", r#"["inventory-sentinel",1]"#, r#"[["inventory-sentinel"]]"#] {
        refused(value, in_claims("aud", value), Denied::Malformed, in_claims("aud", r#"["inventory-sentinel"]"#));
    }
    for value in ["null", "1", "[]", r#"["https://all.example.com"]"#] {
        refused(value, in_claims("iss", value), Denied::Malformed, valid());
    }
    for name in ["iss", "sub", "exp"] {
        refused(name, without_claim(name), Denied::Malformed, valid());
    }
    refused("aud", without_claim("aud"), Denied::WrongAudience, valid());
}

#[test]
fn the_issuer_the_audience_and_the_subject_are_compared_exactly() {
    for issuer in [
        "",
        "https://all.example.com/",
        "https://ALL.example.com",
        "http://all.example.com",
        "https://all.example.com\0",
        "https://all.example.com.attacker.example",
        "all.example.com",
    ] {
        refused(issuer, with_claim("iss", issuer.into()), Denied::Unknown, valid());
    }
    let audiences = [
        json!("inventory-sentinel-other"),
        json!("inventory"),
        json!("Inventory-Sentinel"),
        json!("inventory-sentinel "),
        json!("*"),
        json!(""),
        json!([]),
        json!(["inventory-sentinel,other", "other"]),
        json!("other inventory-sentinel"),
    ];
    for audience in audiences {
        let accepted = with_claim("aud", json!(["other", "inventory-sentinel-eu"]));
        refused(&audience.to_string(), with_claim("aud", audience.clone()), Denied::WrongAudience, accepted);
    }
    for subject in ["Web", "web ", "web\0", "*", "we", "webs", "https://all.example.com", "__proto__"] {
        refused(subject, with_claim("sub", subject.into()), Denied::Unknown, valid());
    }
    // A subject of one issuer is nobody at another one, and a key of one issuer signs for no other.
    let root = |issuer: &str| {
        let mut claims = claims(issuer);
        claims["sub"] = "root".into();
        signed(&P256, Algorithm::ES256, HEADER, &claims.to_string())
    };
    assert_eq!(identify(root(ALL)), Ok("admin".to_owned()));
    assert_eq!(identify(root(ONE)), Err(Denied::Unknown));
}

#[test]
fn claims_are_not_judged_before_the_signature() {
    let mut bad = claims(ALL);
    bad["exp"] = (NOW - LEEWAY - 1).into();
    let forged = |claims: &Value| signed(&FOREIGN_P256, Algorithm::ES256, HEADER, &claims.to_string());
    refused("expired", with_claims(&bad.to_string()), Denied::Expired, valid());
    refused("expired, forged", forged(&bad), Denied::Unknown, valid());
    let mut bad = claims(ALL);
    bad["aud"] = "other".into();
    refused("audience", with_claims(&bad.to_string()), Denied::WrongAudience, valid());
    refused("audience, forged", forged(&bad), Denied::Unknown, valid());
    let mut bad = claims(ALL);
    bad["nbf"] = (NOW + LEEWAY + 1).into();
    refused("not yet", with_claims(&bad.to_string()), Denied::NotYetValid, valid());
    refused("not yet, forged", forged(&bad), Denied::Unknown, valid());
    let mut bad = claims(ALL);
    bad["exp"] = "never".into();
    refused("exp", with_claims(&bad.to_string()), Denied::Malformed, valid());
    refused("exp, forged", forged(&bad), Denied::Unknown, valid());
}
