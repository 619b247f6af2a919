//! Bearer tokens and the tokens file.

use std::{collections::HashSet, io, time::Duration};

use inventory_sentinel_access::{
    Denied, PolicyError, Rules, limits,
    tokens::{self, NewToken, TokenFile},
};

use crate::support::{NOW, at, now};

const POLICY: &str = "tokens_file = \"tokens.toml\"\nidentity = [{ name = \"web\" }, { name = \"admin\" }]";

fn load(tokens: &str) -> Result<Rules, PolicyError> {
    Rules::load(POLICY, |_| Ok(tokens.as_bytes().to_vec()))
}

fn name(rules: &Rules, token: impl AsRef<[u8]>) -> Result<String, Denied> {
    rules.identify_bearer(token.as_ref(), now()).map(|identified| identified.identity.name.clone())
}

fn problems(tokens: &str) -> Vec<String> {
    TokenFile::parse(tokens).unwrap_err().problems
}

#[test]
fn a_token_identifies_its_identity_alone() {
    let (web, admin) = (tokens::generate(), tokens::generate());
    let file = tokens::append("# The tokens.", &web, "web", None);
    let file = tokens::append(&file, &admin, "admin", Some(at(NOW + 60)));
    let rules = load(&file).unwrap();
    assert_eq!(rules.number_of_tokens(), 2);
    assert_eq!(name(&rules, &web.text), Ok("web".to_owned()));
    assert_eq!(name(&rules, &admin.text), Ok("admin".to_owned()));
    assert_eq!(rules.identify_token(web.text.as_bytes(), now()).unwrap().until, None);
    assert_eq!(rules.identify_token(admin.text.as_bytes(), now()).unwrap().until, Some(at(NOW + 60)));
    // A token is no JSON Web Token.
    assert_eq!(rules.identify_jwt(web.text.as_bytes(), now()), Err(Denied::Malformed));
}

#[test]
fn a_token_ends_exactly_when_it_expires() {
    let token = tokens::generate();
    let rules = load(&tokens::append("", &token, "web", Some(at(NOW)))).unwrap();
    let identify = |time| rules.identify_token(token.text.as_bytes(), time).map(|identified| identified.until);
    assert_eq!(identify(at(NOW) - Duration::from_nanos(1)), Ok(Some(at(NOW))));
    assert_eq!(identify(at(NOW)), Err(Denied::Expired));
    assert_eq!(identify(at(NOW + 1)), Err(Denied::Expired));
    // Whether a token has expired is only reported to its holder.
    let wrong = format!("ist_{}_{}", token.id, "A".repeat(24));
    assert_eq!(rules.identify_token(wrong.as_bytes(), at(NOW)), Err(Denied::Unknown));
}

#[test]
fn a_wrong_token_is_refused() {
    let (token, other) = (tokens::generate(), tokens::generate());
    let rules = load(&tokens::append("", &token, "web", None)).unwrap();
    let secret = &token.text[21..];
    let unknown = [
        other.text.clone(),
        format!("ist_{}_{secret}", other.id),
        format!("ist_{}_{}", token.id, &other.text[21..]),
        format!("ist_{}_{}", token.id, "A".repeat(24)),
        format!("ist_0000000000000000_{}", "A".repeat(24)),
        if secret.starts_with('A') {
            token.text.replacen("_A", "_B", 1)
        } else {
            format!("ist_{}_A{}", token.id, &secret[1..])
        },
    ];
    for text in unknown {
        assert_eq!(name(&rules, &text), Err(Denied::Unknown));
        assert_eq!(name(&rules, &token.text), Ok("web".to_owned()));
    }
    let malformed = [
        "ist_".to_owned(),
        format!("ist_{}", token.id),
        format!("ist_{}_", token.id),
        token.text[..44].to_owned(),
        format!("{}A", token.text),
        format!("{} ", token.text),
        format!("{}\0", token.text),
        format!("{}=", &token.text[..44]),
        format!("{}+", &token.text[..44]),
        format!("ist_{}_{secret}", token.id.replace(|_| true, "A")),
        format!("ist__{}{secret}", token.id),
        format!("ist_{}ä{}", &token.id[..15], secret),
        format!("ist_{}", "A".repeat(1 << 20)),
    ];
    for text in malformed {
        assert_eq!(name(&rules, &text), Err(Denied::Malformed));
    }
    assert_eq!(name(&rules, [b"ist_".as_slice(), &[0xff; 60]].concat()), Err(Denied::Malformed));
    for text in [format!(" {}", token.text), token.text.to_uppercase(), token.sha256.clone(), token.id.clone()] {
        assert!(!Rules::is_token(text.as_bytes()));
        assert_eq!(name(&rules, text), Err(Denied::Malformed));
    }
}

#[test]
fn a_generated_token_has_its_form_and_is_never_repeated() {
    let tokens: Vec<NewToken> = (0..1_000).map(|_| tokens::generate()).collect();
    for token in &tokens {
        assert_eq!((token.text.len(), token.id.len(), token.sha256.len()), (45, 16, 64));
        assert!(token.text.starts_with(&format!("ist_{}_", token.id)));
    }
    assert_eq!(tokens.iter().map(|token| &token.id).collect::<HashSet<_>>().len(), 1_000);
    assert_eq!(tokens.iter().map(|token| &token.text[21..]).collect::<HashSet<_>>().len(), 1_000);
}

#[test]
fn the_problems_of_every_token_are_listed_without_a_secret() {
    let token = tokens::generate();
    let (id, text, sha256) = (&token.id, &token.text, &token.sha256);
    let file = format!(
        r#"
        {sha256} = 1
        token = [
            {{ id = "{text}", identity = "{text}", sha256 = "{text}" }},
            {{ id = "{id}", identity = "web", sha256 = "{sha256}" }},
            {{ id = "{id}", identity = "web", sha256 = "{sha256}", "{text}" = 1 }},
            {{ id = "0123456789ABCDEF", sha256 = "{}", expires_at = "{text}" }},
            {{ id = "0123456789abcdef", identity = "web", sha256 = "{}", expires_at = 2027-01-31T00:00:00 }},
            "{text}",
        ]
        "#,
        sha256.to_uppercase(),
        "0".repeat(64),
    );
    let found = problems(&file);
    let expected = [
        "`token` 6 is no table".to_owned(),
        "unknown key".to_owned(),
        "token 1: `id` has not 16 lower-case hexadecimal digits".to_owned(),
        "token 1: `identity` is no name of an identity".to_owned(),
        "token 1: `sha256` has not 64 lower-case hexadecimal digits".to_owned(),
        format!("token 3 (id {id}): token 2 has the same id"),
        format!("token 3 (id {id}): token 2 has the same `sha256`"),
        format!("token 3 (id {id}): unknown key"),
        "token 4: `identity` is missing".to_owned(),
        "token 4: `id` has not 16 lower-case hexadecimal digits".to_owned(),
        "token 4: `sha256` has not 64 lower-case hexadecimal digits".to_owned(),
        "token 4: `expires_at` is no date-time with an offset, from 1970 to 9999".to_owned(),
        "token 5 (id 0123456789abcdef): `expires_at` is no date-time with an offset, from 1970 to 9999".to_owned(),
    ];
    assert_eq!(found, expected);
    let error = TokenFile::parse(&file).unwrap_err();
    let invalid = TokenFile::parse(&format!("token = [\n{{ sha256 = {sha256} {text}")).unwrap_err();
    for shown in [error.to_string(), format!("{error:?}"), invalid.to_string(), format!("{invalid:?}")] {
        assert!(!shown.contains(&text[21..]) && !shown.to_lowercase().contains(sha256.as_str()));
    }
    assert!(TokenFile::parse("").is_ok());
}

#[test]
fn an_unknown_identity_or_an_unreadable_file_is_a_problem() {
    let token = tokens::generate();
    let problem = load(&tokens::append("", &token, "nobody", None)).unwrap_err().problems;
    let expected = format!(r#"tokens file "tokens.toml": token {}: no identity has the name "nobody""#, token.id);
    assert_eq!(problem, [expected]);
    let missing = Rules::load(POLICY, |_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
    assert_eq!(missing.problems, [r#"tokens file "tokens.toml": can't be read: entity not found"#]);
    let binary = Rules::load(POLICY, |_| Ok(vec![0xff])).unwrap_err();
    assert_eq!(binary.problems, [r#"tokens file "tokens.toml": no valid UTF-8"#]);
    let large = Rules::load(POLICY, |_| Ok(vec![b' '; limits::MAX_TOKENS_FILE_BYTES + 1])).unwrap_err();
    assert_eq!(large.problems, [r#"tokens file "tokens.toml": more than 33554432 bytes"#]);
}

#[test]
fn the_number_of_tokens_is_limited() {
    use std::fmt::Write as _;
    let file = |count: usize| {
        (0..count).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "[[token]]\nid = \"{number:016x}\"\nidentity = \"web\"\nsha256 = \"{number:064x}\"");
            text
        })
    };
    assert_eq!(load(&file(limits::MAX_TOKENS)).unwrap().number_of_tokens(), limits::MAX_TOKENS);
    assert_eq!(problems(&file(limits::MAX_TOKENS + 1)), ["100001 entries of `token`, 100000 at most"]);
}

#[test]
fn a_revoked_token_is_removed_and_the_rest_stays() {
    let (a, b, c) = (tokens::generate(), tokens::generate(), tokens::generate());
    let start = "# Tokens of the shop.\n\n# The web shop, until it uses certificates.\n";
    let first = tokens::append("", &a, "web", None);
    let with_a = format!("{start}{first}");
    let with_b = tokens::append(&with_a, &b, "admin", Some(at(NOW)));
    let all = tokens::append(&with_b, &c, "web", None);
    assert_eq!(tokens::revoke(&all, &c.id).as_ref(), Some(&with_b));
    assert_eq!(tokens::revoke(&with_b, &b.id).as_ref(), Some(&with_a));
    assert_eq!(tokens::revoke(&with_a, &a.id).as_deref(), Some("# Tokens of the shop.\n"));
    assert_eq!(tokens::revoke(&all, &b.id), Some(tokens::append(&with_a, &c, "web", None)));
    assert_eq!(tokens::revoke(&first, &a.id).as_deref(), Some(""));
    let rules = load(&tokens::revoke(&all, &a.id).unwrap()).unwrap();
    assert_eq!(name(&rules, &a.text), Err(Denied::Unknown));
    assert_eq!(name(&rules, &b.text), Err(Denied::Expired));
    assert_eq!(name(&rules, &c.text), Ok("web".to_owned()));

    assert_eq!(tokens::revoke(&all, "0000000000000000"), None);
    assert_eq!(tokens::revoke(&all, ""), None);
    assert_eq!(tokens::revoke("", &a.id), None);
    assert_eq!(tokens::revoke("no TOML", &a.id), None);
}

#[test]
fn a_token_is_also_revoked_in_another_form_of_the_file() {
    let (a, b) = (tokens::generate(), tokens::generate());
    let entry = |token: &NewToken| {
        format!(
            "{{ id = '{}', identity = 'web', sha256 = '{}', expires_at = 2027-01-31T01:00:00+01:00 }}",
            token.id, token.sha256
        )
    };
    let file = format!("token = [ {}, {} ]\n", entry(&a), entry(&b));
    let rest = tokens::revoke(&file, &a.id).unwrap();
    let rest = TokenFile::parse(&rest).unwrap().tokens;
    let [token] = rest.as_slice() else { panic!("one token is left") };
    assert_eq!((&token.id, token.identity.as_str(), token.expires_at), (&b.id, "web", Some(at(1_801_353_600))));
}

#[test]
fn an_appended_entry_is_valid_whatever_the_name_is() {
    let token = tokens::generate();
    let file = tokens::append("", &token, "a\"\n[[token]]\n\\", None);
    assert_eq!(problems(&file), [format!("token 1 (id {}): `identity` is no name of an identity", token.id)]);
}
