//! Certificates, the order of files, and the secrecy of all that is printed.

use std::{cell::RefCell, io};

use inventory_sentinel_access::{
    Denied, Policy, Rules,
    tokens::{self, TokenFile},
};
use serde_json::json;

use crate::support::{P256, RULES, now, valid, with_claim};

const POLICY: &str = r#"
tokens_file = "secrets/tokens.toml"
[[issuer]]
issuer = "i"
audiences = ["a"]
algorithms = ["ES256"]
jwks_file = "../keys.json"
[[identity]]
name = "web"
certificates = ["uri:spiffe://shop/web", "dns:web.shop.internal"]
subjects = [{ issuer = "i", subject = "subject-of-web" }]
[[identity]]
name = "admin"
certificates = ["dns:admin.shop.internal"]
"#;

fn read(path: &str) -> io::Result<Vec<u8>> {
    match path {
        "secrets/tokens.toml" => Ok(Vec::new()),
        "../keys.json" => Ok(json!({ "keys": [P256.jwk()] }).to_string().into_bytes()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

#[test]
fn the_first_name_that_an_identity_has_is_used() {
    let rules = Rules::load(POLICY, read).unwrap();
    let name = |names: &[&str]| rules.identify_certificate(names.iter().copied()).map(|found| found.name.clone());
    assert_eq!(name(&["uri:spiffe://shop/web"]).as_deref(), Some("web"));
    assert_eq!(name(&["dns:web.shop.internal"]).as_deref(), Some("web"));
    assert_eq!(name(&["dns:other", "dns:admin.shop.internal", "dns:web.shop.internal"]).as_deref(), Some("admin"));
    for other in [
        "",
        "dns:",
        "spiffe://shop/web",
        "dns:spiffe://shop/web",
        "uri:web.shop.internal",
        "uri:spiffe://shop/web/",
        "uri:spiffe://shop/webs",
        "dns:*.shop.internal",
        "dns:web.shop.internal.",
        "dns:a.web.shop.internal",
        "dns:web.shop.internal\0",
    ] {
        assert_eq!(name(&[other]), None, "{other}");
    }
    assert_eq!(name(&[]), None);
}

#[test]
fn each_file_is_read_once_by_the_path_of_the_policy() {
    let paths = RefCell::new(Vec::new());
    let rules = Rules::load(POLICY, |path| {
        paths.borrow_mut().push(path.to_owned());
        read(path)
    });
    assert_eq!(rules.unwrap().number_of_keys(), 1);
    assert_eq!(paths.into_inner(), ["secrets/tokens.toml", "../keys.json"]);
}

#[test]
fn the_problems_of_all_files_are_listed_at_once() {
    let error = Rules::load(POLICY, |path| match path {
        "../keys.json" => Ok(b"{}".to_vec()),
        _ => Ok(b"[[token]]".to_vec()),
    });
    let expected = [
        r#"tokens file "secrets/tokens.toml": token 1: `id` is missing"#,
        r#"tokens file "secrets/tokens.toml": token 1: `identity` is missing"#,
        r#"tokens file "secrets/tokens.toml": token 1: `sha256` is missing"#,
        r#"issuer "i", keys file "../keys.json": no JSON object with a list `keys`, or a key is duplicated"#,
    ];
    assert_eq!(error.unwrap_err().problems, expected);
}

#[test]
fn nothing_that_is_printed_contains_a_credential_a_hash_or_a_claim() {
    let token = tokens::generate();
    let file = tokens::append("", &token, "web", None);
    let rules = Rules::load(POLICY, |path| match path {
        "secrets/tokens.toml" => Ok(file.clone().into_bytes()),
        _ => read(path),
    })
    .unwrap();
    let jwt = valid();
    let mut printed = vec![
        format!("{rules:?} {rules:#?}"),
        format!("{token:?}"),
        format!("{:?}", TokenFile::parse(&file).unwrap()),
        format!("{:?}", Policy::parse(POLICY).unwrap()),
        format!("{:?}", rules.identify_token(token.text.as_bytes(), now()).unwrap()),
        format!("{:?}", RULES.identify_jwt(jwt.as_bytes(), now()).unwrap()),
    ];
    for refused in [&jwt[1..], &with_claim("sub", "a-secret-claim".into()), &format!("{}A", token.text)] {
        let denied: Denied = RULES.identify_bearer(refused.as_bytes(), now()).unwrap_err();
        printed.push(format!("{denied} {denied:?}"));
    }
    let bytes = format!("{:?}", &token.sha256.as_bytes()[..4]);
    for text in printed {
        for secret in [&token.text[21..], &token.sha256, &bytes, "subject-of-web", "a-secret-claim", &jwt[..20]] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
