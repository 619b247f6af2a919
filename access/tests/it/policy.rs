//! The policy file: what is accepted, and the problems of what is not.

use std::fmt::Write as _;

use inventory_sentinel_access::{Policy, Role, Rules, limits};

const VALID: &str = r#"
tokens_file = "tokens.toml"

[[issuer]]
issuer = "https://login.example.com"
audiences = ["inventory-sentinel"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
leeway_seconds = 30

[[identity]]
name = "web"
certificates = ["uri:spiffe://shop/web", "dns:web.shop.internal"]
subjects = [{ issuer = "https://login.example.com", subject = "web" }]
grants = [{ role = "checkout", namespaces = ["sale", "eu-*"] }, { role = "metrics" }]

[[identity]]
name = "nobody"
"#;

fn problems(text: &str) -> Vec<String> {
    Policy::parse(text).unwrap_err().problems
}

/// The valid policy with one change has exactly this problem.
#[track_caller]
fn refused(from: &str, to: &str, problem: &str) {
    assert_eq!(Policy::parse(VALID).err(), None);
    assert_eq!(VALID.matches(from).count(), 1, "{from}");
    assert_eq!(problems(&VALID.replace(from, to)), [problem], "{to}");
}

#[test]
fn the_problems_of_every_identity_are_listed_at_once() {
    let text = r#"
        tokens = "a"
        [[issuer]]
        issuer = "i"
        audiences = []
        algorithms = ["HS256", "none", "ES256", "ES256", "es256"]
        leeway_seconds = 301
        [[identity]]
        name = "web"
        certificates = ["web", 1]
        subjects = [{ issuer = "j", subject = "" }, { issuer = "j", subject = "a", role = "b" }]
        grants = [{ role = "root", namespaces = ["*"] }, { role = "checkout", namespaces = ["a*b", "ä", ""] }]
        [[identity]]
        name = "web"
        grants = [{ role = "metrics", namespaces = ["*"] }, { role = "events" }, { role = "operator", namespaces = [] }]
        [[identity]]
        nam = "x"
    "#;
    let expected = [
        r#"unknown key "tokens""#,
        r#"issuer "i": `audiences` has no entry"#,
        r#"issuer "i": algorithm "HS256": an algorithm with a shared secret is never accepted"#,
        r#"issuer "i": algorithm "none": a token without a signature is never accepted"#,
        r#"issuer "i": algorithm "ES256" is listed twice"#,
        concat!(
            r#"issuer "i": algorithm "es256": "#,
            "not supported; RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA are"
        ),
        r#"issuer "i": `jwks_file` is missing"#,
        r#"issuer "i": `leeway_seconds` is no whole number from 0 to 300"#,
        r#"identity "web": `certificates` 2 is no string"#,
        r#"identity "web": certificate "web": the name of a certificate begins with uri: or dns:"#,
        r#"identity "web", subject 1: `subject` is empty"#,
        r#"identity "web", subject 2: unknown key "role""#,
        r#"identity "web", grant 1: unknown role "root""#,
        r#"identity "web", grant 2: `namespaces` 3 is empty"#,
        r#"identity "web", grant 2: namespace "a*b": `*` is only allowed at the end"#,
        r#"identity "web", grant 2: namespace "ä": a namespace has only A-Z a-z 0-9 . _ -"#,
        r#"identity "web", grant 1: the role metrics has no namespaces"#,
        r#"identity "web", grant 2: `namespaces` is missing"#,
        r#"identity "web", grant 3: `namespaces` has no entry"#,
        r#"identity 3: `name` is missing"#,
        r#"identity 3: unknown key "nam""#,
        r#"identity "web": subject "a": unknown issuer "j""#,
        r#"identity "web": identity 1 has the same name"#,
    ];
    assert_eq!(problems(text), expected);
    let shown = Policy::parse(text).unwrap_err().to_string();
    assert!(shown.starts_with(r#"unknown key "tokens"; issuer "i""#) && shown.ends_with("; and 3 more problems"));
}

#[test]
fn a_policy_grants_what_it_states() {
    let policy = VALID.replace("tokens_file = \"tokens.toml\"", "");
    let without_issuer = policy.split("[[issuer]]").next().unwrap().to_owned()
        + &policy[policy.find("[[identity]]").unwrap()..].replace("subjects =", "# subjects =");
    let rules = Rules::load(&without_issuer, |_| unreachable!("the policy names no file")).unwrap();
    let web = rules.identities().next().unwrap();
    assert_eq!(rules.identities().map(|identity| identity.name.as_str()).collect::<Vec<_>>(), ["web", "nobody"]);
    assert!(web.has_in(Role::Checkout, "sale") && web.has_in(Role::Checkout, "eu-1") && web.has(Role::Metrics));
    assert!(!web.has_in(Role::Checkout, "sale2") && !web.has_in(Role::Checkout, "eu") && !web.has(Role::Operator));
    assert!(!web.has_everywhere(Role::Checkout));
    assert_eq!(web.grants[0].scope.patterns().collect::<Vec<_>>(), ["sale", "eu-*"]);
    assert!(rules.identities().nth(1).unwrap().grants.is_empty());
}

#[test]
fn an_empty_policy_identifies_nobody() {
    let rules = Rules::load("", |_| unreachable!("the policy names no file")).unwrap();
    assert_eq!(rules.identities().count() + rules.number_of_keys() + rules.number_of_tokens(), 0);
    assert_eq!(rules.identify_certificate(["dns:a"]), None);
}

#[test]
fn a_name_and_a_credential_belong_to_one_identity() {
    refused(
        "name = \"nobody\"",
        "name = \"nobody\"\ncertificates = [\"uri:spiffe://shop/web\"]",
        r#"identity "nobody": certificate "uri:spiffe://shop/web" is already used by identity 1"#,
    );
    refused(
        "name = \"nobody\"",
        "name = \"nobody\"\nsubjects = [{ issuer = \"https://login.example.com\", subject = \"web\" }]",
        r#"identity "nobody": subject "web" of "https://login.example.com" is already used by identity 1"#,
    );
    refused("name = \"nobody\"", "name = \"web\"", r#"identity "web": identity 1 has the same name"#);
    let second = "\n[[issuer]]\nissuer = \"https://login.example.com\"\naudiences = [\"a\"]\nalgorithms = [\"ES256\"]\n\
                  jwks_file = \"b\"\n";
    assert_eq!(
        problems(&format!("{VALID}{second}")),
        [r#"issuer "https://login.example.com": another issuer has the same name"#]
    );
    refused(
        "\"inventory-sentinel\"",
        "\"a\", \"a\"",
        r#"issuer "https://login.example.com": audience "a" is listed twice"#,
    );
}

#[test]
fn a_bad_value_is_refused() {
    for name in ["a b", "a/b", "a\\u0000", "ä", "a*"] {
        let shown: String = name.replace("\\u0000", "\\0");
        refused(
            "\"nobody\"",
            &format!("\"{name}\""),
            &format!("identity \"{shown}\": a name has 1 to 63 of A-Z a-z 0-9 . _ -"),
        );
    }
    refused("\"nobody\"", "\"\"", "identity 2: `name` is empty");
    refused("\"nobody\"", "7", "identity 2: `name` is no string");
    let longest = VALID.replace("nobody", &"a".repeat(63));
    assert!(Policy::parse(&longest).is_ok());
    assert_eq!(problems(&VALID.replace("nobody", &"a".repeat(64))).len(), 1);

    for (certificate, problem) in [
        ("uri:", "the URI has no scheme"),
        ("uri:spiffe", "the URI has no scheme"),
        ("uri:spiffe:// shop", "a URI has only visible ASCII characters"),
        ("dns:", "the DNS name is empty"),
        ("dns:*.shop.internal", "a DNS name has no wildcard"),
        ("dns:Web.shop", "a DNS name has only a-z 0-9 . - _"),
        ("DNS:web.shop", "the name of a certificate begins with uri: or dns:"),
        ("CN=web", "the name of a certificate begins with uri: or dns:"),
    ] {
        refused(
            "dns:web.shop.internal",
            certificate,
            &format!("identity \"web\": certificate \"{certificate}\": {problem}"),
        );
    }
    for (pattern, problem) in [
        ("**", "`*` is only allowed at the end"),
        ("*a", "`*` is only allowed at the end"),
        ("a b", "a namespace has only A-Z a-z 0-9 . _ -"),
        ("a/b*", "a namespace has only A-Z a-z 0-9 . _ -"),
    ] {
        refused(
            "\"eu-*\"",
            &format!("\"{pattern}\""),
            &format!("identity \"web\", grant 1: namespace \"{pattern}\": {problem}"),
        );
    }
    let long = |bytes: usize| VALID.replace("eu-*", &format!("{}*", "a".repeat(bytes)));
    assert!(Policy::parse(&long(63)).is_ok());
    assert!(problems(&long(64))[0].ends_with("the namespace is too long"));
    for role in ["Checkout", "admin", "*", "checkout "] {
        refused("\"checkout\"", &format!("\"{role}\""), &format!("identity \"web\", grant 1: unknown role \"{role}\""));
    }
    for leeway in ["-1", "301", "1.5", "\"30\"", "true"] {
        refused(
            "leeway_seconds = 30",
            &format!("leeway_seconds = {leeway}"),
            "issuer \"https://login.example.com\": `leeway_seconds` is no whole number from 0 to 300",
        );
    }
    for algorithm in ["HS256", "hs512", "None", "nonE", "ES512", "ES256K", "RS256 ", "rs256"] {
        let found = problems(&VALID.replace("\"ES256\"", &format!("\"{algorithm}\"")));
        assert_eq!(found.len(), 1, "{found:?}");
    }
    refused("[\"sale\", \"eu-*\"]", "\"*\"", "identity \"web\", grant 1: `namespaces` is no list of strings");
    refused("[\"sale\", \"eu-*\"]", "[\"\"]", "identity \"web\", grant 1: `namespaces` 1 is empty");
    refused("algorithms = [\"ES256\"]", "", "issuer \"https://login.example.com\": `algorithms` is missing");
}

#[test]
fn an_unknown_key_is_refused_everywhere() {
    refused("tokens_file", "token_file", r#"unknown key "token_file""#);
    refused("leeway_seconds", "leeway", r#"issuer "https://login.example.com": unknown key "leeway""#);
    refused("certificates", "certificate", r#"identity "web": unknown key "certificate""#);
    refused(
        "{ role = \"metrics\" }",
        "{ role = \"metrics\", scope = 1 }",
        r#"identity "web", grant 2: unknown key "scope""#,
    );
    refused("subject = \"web\" }", "subject = \"web\", sub = 1 }", r#"identity "web", subject 1: unknown key "sub""#);
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_position() {
    assert_eq!(problems("a = 1\nb = \"secret\n"), ["line 2, column 12: no valid TOML"]);
    assert_eq!(problems("a = 1\na = 2\n").len(), 1);
    assert_eq!(problems(&"[".repeat(100_000)).len(), 1);
    assert_eq!(problems(&format!("a = {}", "[".repeat(100_000))).len(), 1);
    assert_eq!(problems("identity = 1"), ["`identity` is no list of tables"]);
    assert_eq!(problems("identity = [1]"), ["`identity` 1 is no table"]);
    assert_eq!(problems("[identity]\nname = \"a\""), ["`identity` is no list of tables"]);
}

#[test]
fn the_limits_are_exact() {
    let identities = |count: usize| {
        (0..count).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "[[identity]]\nname = \"{number}\"");
            text
        })
    };
    assert!(Policy::parse(&identities(limits::MAX_IDENTITIES)).is_ok());
    assert_eq!(problems(&identities(limits::MAX_IDENTITIES + 1)), ["10001 entries of `identity`, 10000 at most"]);

    let grants =
        |count: usize| format!("[[identity]]\nname = \"a\"\ngrants = [{}]", "{role=\"metrics\"},".repeat(count));
    assert!(Policy::parse(&grants(limits::MAX_GRANTS)).is_ok());
    assert_eq!(problems(&grants(limits::MAX_GRANTS + 1)), [r#"identity "a": 65 entries of `grants`, 64 at most"#]);

    let issuers = |count: usize| {
        (0..count).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "[[issuer]]\nissuer = \"{number}\"\naudiences = [\"a\"]\nalgorithms = [\"ES256\"]");
            let _ = writeln!(text, "jwks_file = \"f\"");
            text
        })
    };
    assert!(Policy::parse(&issuers(limits::MAX_ISSUERS)).is_ok());
    assert_eq!(problems(&issuers(limits::MAX_ISSUERS + 1)), ["17 entries of `issuer`, 16 at most"]);

    let sized = |bytes: usize| format!("#{}", "a".repeat(bytes - 1));
    assert!(Policy::parse(&sized(limits::MAX_POLICY_BYTES)).is_ok());
    assert_eq!(problems(&sized(limits::MAX_POLICY_BYTES + 1)), ["the file has more than 1048576 bytes"]);
}

#[test]
fn a_token_in_the_wrong_place_is_refused_and_not_printed() {
    let token = inventory_sentinel_access::tokens::generate().text;
    for value in ["\"web\"\n", "\"eu-*\"", "\"checkout\"", "\"ES256\"", "\"uri:spiffe://shop/web\""] {
        assert!(VALID.contains(value), "{value}");
        for text in [format!("\"{token}\"\n"), format!("\"uri:{token}\"\n")] {
            let error = Policy::parse(&VALID.replacen(value, &text, 1)).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(&token[21..]), "{value}: {error}");
        }
    }
}
