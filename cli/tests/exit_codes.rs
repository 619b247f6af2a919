//! The exit codes of the built command, where no server is needed. Starts the binary; opens one socket.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;

fn sentinelctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sentinelctl")).args(args).env_clear().output().expect("the command starts")
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    assert!(!text.contains('\n'), "more than one line: {text}");
    text
}

#[test]
fn help_and_version_are_no_error() {
    for args in [&["--help"][..], &["--version"], &["demo", "--help"]] {
        let output = sentinelctl(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn bad_usage_is_64() {
    for args in [&[][..], &["bogus"], &["demo", "--units", "many"], &["demo", "--bogus"]] {
        assert_eq!(sentinelctl(args).status.code(), Some(USAGE), "{args:?}");
    }
    for (args, expected) in [
        (&["demo", "--units", "0"][..], "--units is 0"),
        (&["demo", "--attempts", "9"], "--attempts is 9"),
        (&["demo", "--scenario", "rules", "--products", "3"], "--products is 3"),
        (&["demo", "--server", "nowhere"], "invalid uri"),
    ] {
        let output = sentinelctl(args);
        assert_eq!(output.status.code(), Some(USAGE), "{args:?}");
        assert!(one_line(&output).contains(expected));
    }
}

#[test]
fn no_server_is_69() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let output = sentinelctl(&["--server", &server, "demo", "--json"]);
    assert_eq!(output.status.code(), Some(UNAVAILABLE));
    assert!(one_line(&output).contains(&server));
    assert!(output.stdout.is_empty());
}
