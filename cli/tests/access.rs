//! `sentinelctl credentials`, `policy` and `token`, which use only files. Starts the binary.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use inventory_sentinel_access::{Denied, Role, Rules, tokens::TokenFile};
use tempfile::TempDir;

const USAGE: i32 = 64;

fn sentinelctl(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentinelctl"));
    command.args(args).env_clear().current_dir(folder).output().expect("the command starts")
}

fn succeeds(folder: &Path, args: &[&str]) -> String {
    let output = sentinelctl(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn fails(folder: &Path, args: &[&str], code: i32) -> String {
    let output = sentinelctl(folder, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn folder() -> TempDir {
    TempDir::with_prefix("sentinelctl-access-").expect("a folder")
}

fn rules(folder: &Path) -> Rules {
    let policy = fs::read_to_string(folder.join("policy.toml")).expect("a policy");
    Rules::load(&policy, |name| fs::read(folder.join(name))).expect("valid rules")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn a_new_folder_has_all_files_and_only_public_ones_are_readable() {
    let folder = folder();
    let guide = succeeds(folder.path(), &["credentials", "init", "made", "--host", "sentinel.shop.internal"]);
    let made = folder.path().join("made");
    let files: BTreeMap<String, u32> = fs::read_dir(&made)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.file_name().into_string().expect("a name"), mode(&entry.path())))
        .collect();
    let secret = ["ca-key.pem", "server-key.pem", "client-key.pem", "tokens.toml", "web.token", "operator.token"];
    let secret = secret.into_iter().chain(["metrics.token"]).map(|name| (name.to_owned(), 0o600));
    let public = ["ca.pem", "server.pem", "client.pem", "policy.toml"].map(|name| (name.to_owned(), 0o644));
    assert_eq!(files, secret.chain(public).collect());
    for words in ["--tls-cert made/server.pem", "--policy made/policy.toml", "SENTINEL_TLS_CA=made/ca.pem"] {
        assert!(guide.contains(words), "{guide}");
    }

    let rules = rules(&made);
    for (name, role) in [("web", Role::Checkout), ("operator", Role::Operator), ("metrics", Role::Metrics)] {
        let token = fs::read_to_string(made.join(format!("{name}.token"))).expect("a token");
        assert!(!guide.contains(token.trim()), "a token is printed");
        let identified = rules.identify_bearer(token.trim().as_bytes(), SystemTime::now()).expect("identified");
        assert!(identified.identity.name == name && identified.identity.has(role) && identified.until.is_none());
    }
    let of_certificate = rules.identify_certificate(["uri:spiffe://inventory-sentinel/web"]).expect("identified");
    assert_eq!(of_certificate.name, "web");
}

#[test]
fn a_folder_with_files_is_not_touched() {
    let folder = folder();
    fs::write(folder.path().join("own"), "text").expect("a file");
    assert!(fails(folder.path(), &["credentials", "init", "."], USAGE).contains("contains files"));
    let wrong = ["credentials", "init", "made", "--host", "https://h"];
    assert!(fails(folder.path(), &wrong, USAGE).contains("--host"));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

#[test]
fn a_token_is_valid_until_it_expires_or_is_revoked() {
    let folder = folder();
    succeeds(folder.path(), &["credentials", "init", "made"]);
    let made = folder.path().join("made");
    let create = |more: &[&str]| {
        let text = succeeds(&made, &[&["token", "new", "--identity", "web", "--tokens", "tokens.toml"], more].concat());
        assert!(
            !fs::read_to_string(made.join("tokens.toml")).expect("text").contains(text.trim()),
            "a token is stored"
        );
        text.trim().to_owned()
    };
    let identify =
        |token: &str, at| rules(&made).identify_bearer(token.as_bytes(), at).map(|found| found.identity.name.clone());
    let now = SystemTime::now();
    let (forever, hourly) = (create(&[]), create(&["--expires-in", "1h"]));
    assert_eq!(identify(&forever, now + Duration::from_secs(1_000_000)), Ok("web".to_owned()));
    assert_eq!(identify(&hourly, now), Ok("web".to_owned()));
    assert_eq!(identify(&hourly, now + Duration::from_secs(3_700)), Err(Denied::Expired));

    let id = forever.split('_').nth(1).expect("an id");
    succeeds(&made, &["token", "revoke", id, "--tokens", "tokens.toml"]);
    assert_eq!(identify(&forever, now), Err(Denied::Unknown));
    assert_eq!(identify(&hourly, now), Ok("web".to_owned()));
    let again = fails(&made, &["token", "revoke", &forever, "--tokens", "tokens.toml"], 1);
    assert!(again.contains("no token") && !again.contains(&forever), "{again}");
}

#[test]
fn tokens_of_many_processes_are_all_stored() {
    let folder = folder();
    let path = folder.path();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| succeeds(path, &["token", "new", "--identity", "web", "--tokens", "tokens.toml"]));
        }
    });
    let text = fs::read_to_string(path.join("tokens.toml")).expect("text");
    assert_eq!(TokenFile::parse(&text).expect("tokens").tokens.len(), 8);
    assert_eq!(mode(&path.join("tokens.toml")), 0o600);
}

#[test]
fn a_malformed_tokens_file_is_not_changed() {
    let folder = folder();
    let path = folder.path().join("tokens.toml");
    fs::write(&path, "[[token]]\nid = 'x'\n").expect("a file");
    for args in [["token", "new", "--identity", "web"].as_slice(), &["token", "revoke", "3f9a1c0b7d2e4a68"]] {
        let error = fails(folder.path(), &[args, &["--tokens", "tokens.toml"]].concat(), USAGE);
        assert!(error.contains("tokens.toml"), "{error}");
    }
    assert_eq!(fs::read_to_string(&path).expect("text"), "[[token]]\nid = 'x'\n");
    fs::remove_file(&path).expect("removed");
    let named = ["token", "new", "--identity", "a b", "--tokens", "tokens.toml"];
    assert!(fails(folder.path(), &named, USAGE).contains("--identity"));
    assert!(!path.exists());
}

#[test]
fn a_policy_is_printed_or_refused_with_its_problems() {
    let folder = folder();
    succeeds(folder.path(), &["credentials", "init", "made"]);
    let table = succeeds(folder.path(), &["policy", "check", "made/policy.toml", "--table"]);
    assert!(table.contains("operator") && table.contains("identities: 3, tokens: 3"), "{table}");
    let lines = succeeds(folder.path(), &["policy", "check", "made/policy.toml", "--json"]);
    assert_eq!(lines.lines().next(), Some(r#"{"identity":"web","role":"checkout","namespaces":["*"]}"#));

    fs::write(folder.path().join("bad.toml"), "[[identity]]\nname = 'a b'\ngrants = [{ role = 'king' }]\n")
        .expect("a file");
    let error = fails(folder.path(), &["policy", "check", "bad.toml"], USAGE);
    assert!(error.contains("name") && error.contains("king"), "{error}");
    assert!(fails(folder.path(), &["policy", "check", "missing.toml"], USAGE).contains("missing.toml"));
}
