//! Exit codes, configuration, the forms of the output, and completions of `sentinelctl`.

use std::{fs, net::TcpListener, process::Stdio};

use sentinel_tests::{Ctl, LossyProxy, Redis, SentinelProcess};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::ctl;

/// An address at which nobody listens.
fn nowhere() -> String {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("an address").to_string()
}

#[tokio::test]
async fn no_server_is_named_with_what_to_do() {
    let nowhere = nowhere();
    let ran = Ctl::new(["stock", "list"]).at(&nowhere).run().await.ends(69);
    assert!(
        ran.err.contains(&format!("no server responds at http://{nowhere}")) && ran.err.contains("--server"),
        "{ran:?}"
    );
    assert_eq!(ran.out, "");
    let server = SentinelProcess::start().await;
    server.stop();
    let silent = ctl(&server, &["stock", "list", "--timeout", "300ms"]).await.ends(69);
    assert!(silent.err.contains("next: "), "{silent:?}");
    server.cont();
}

#[tokio::test]
async fn bad_usage_says_what_is_wrong() {
    for arguments in [
        &["stock", "set", "ps5"][..],
        &["stock", "set", "ps5", "many"],
        &["stock", "list", "--json", "--table"],
        &["stock", "list", "--timeout", "0s"],
        &["stock", "list", "--timeout", "2h"],
        &["stock", "set", "ps5", "1", "--if-absent", "--if-version", "1"],
        &["reservations", "list", "--state", "lost"],
        &["watch", "--interval", "0s"],
        &["bogus"],
        &["stock"],
    ] {
        let ran = Ctl::new(arguments.iter().copied()).run().await;
        assert!(ran.code == 64 && ran.out.is_empty() && !ran.err.is_empty(), "{arguments:?}: {ran:?}");
    }
    let ran = Ctl::new(["stock", "list", "--server", "nowhere"]).run().await.ends(64);
    assert!(ran.err.contains("invalid uri"), "{ran:?}");
}

/// The change is applied, its answer is lost, and the operator can find out with what the command prints.
#[tokio::test]
async fn an_unknown_outcome_is_settled_by_a_repeat() {
    let redis = Redis::start().await;
    let proxy = LossyProxy::start(&redis).await;
    let server = SentinelProcess::launch().flags(&format!("--redis-url {}", proxy.url())).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    proxy.lose_a_reply_and_go_away();
    let unknown = ctl(&server, &["stock", "adjust", "ps5", "-7", "--timeout", "2s"]).await.ends(75);
    let id = unknown.err.split("--request-id ").nth(1).and_then(|rest| rest.split(' ').next());
    let id = id.unwrap_or_else(|| panic!("no identity in {unknown:?}")).to_owned();
    proxy.come_back();
    server.wait_until_ready().await;
    let settled = ctl(&server, &["stock", "adjust", "ps5", "-7", "--request-id", &id]).await.ends(0);
    assert_eq!(settled.object()["available"], 93, "applied once");
}

#[tokio::test]
async fn a_flag_goes_before_the_environment_before_the_file() {
    let server = SentinelProcess::start().await;
    for sku in ["file", "environment", "flag", "default"] {
        server.shop(sku).supply(sku, 1).await;
    }
    let folder = TempDir::with_prefix("sentinelctl-").expect("a folder");
    let file = folder.path().join("ctl.toml");
    fs::write(&file, format!("server = \"http://{}\"\nnamespace = \"file\"\ntimeout = \"9s\"\n", server.grpc()))
        .expect("a file");
    let sku = async |ctl: Ctl| ctl.run().await.ends(0).object()["stock"]["sku"].as_str().unwrap().to_owned();
    let list = |more: &[&str]| Ctl::new(["stock", "list"].iter().chain(more).copied());
    let of_file = |more: &[&str]| list(more).variable("SENTINEL_CONFIG", file.as_os_str());
    assert_eq!(sku(of_file(&[])).await, "file");
    assert_eq!(sku(list(&["--config", file.to_str().unwrap()])).await, "file");
    assert_eq!(sku(of_file(&[]).variable("SENTINEL_NAMESPACE", "")).await, "file", "an empty variable is an unset one");
    assert_eq!(sku(of_file(&[]).variable("SENTINEL_NAMESPACE", "environment")).await, "environment");
    assert_eq!(sku(of_file(&["-n", "flag"]).variable("SENTINEL_NAMESPACE", "environment")).await, "flag");
    assert_eq!(sku(list(&[]).at(server.grpc())).await, "default");
    of_file(&[]).at(nowhere()).run().await.ends(69);
    // The default place of the file.
    fs::create_dir(folder.path().join("sentinelctl")).expect("a folder");
    fs::copy(&file, folder.path().join("sentinelctl/config.toml")).expect("a copy");
    assert_eq!(sku(list(&[]).variable("XDG_CONFIG_HOME", folder.path())).await, "file");
}

#[tokio::test]
async fn a_config_file_that_is_wrong_is_named_with_its_line() {
    let folder = TempDir::with_prefix("sentinelctl-").expect("a folder");
    let file = folder.path().join("ctl.toml");
    let run = async || Ctl::new(["stock", "list"]).variable("SENTINEL_CONFIG", file.as_os_str()).run().await.ends(64);
    assert!(run().await.err.contains("ctl.toml"), "missing");
    for (text, expected) in [("namespace = 'a'\nserved = 1\n", "ctl.toml, line 2: "), ("server = [", "line 1: ")] {
        fs::write(&file, text).expect("a file");
        let ran = run().await;
        assert!(ran.err.contains(expected), "{ran:?}");
    }
}

#[tokio::test]
async fn completions_are_scripts_of_their_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = Ctl::new(["completions", shell]).variable("SENTINEL_CONFIG", "/nowhere").run().await.ends(0);
        assert!(ran.out.contains("sentinelctl") && ran.out.contains("reservations"), "{shell}");
        if shell == "bash" {
            let mut bash = tokio::process::Command::new("bash");
            let mut bash = bash.arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash starts");
            let mut stdin = bash.stdin.take().expect("a pipe");
            stdin.write_all(ran.out.as_bytes()).await.expect("it reads");
            drop(stdin);
            let output = bash.wait_with_output().await.expect("its end");
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        }
    }
    assert_eq!(Ctl::new(["completions", "tcsh"]).run().await.code, 64);
}

/// At a terminal there are tables, and a question before units are lost.
#[tokio::test]
async fn a_terminal_gets_tables_and_a_question() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let at_terminal = |arguments: &[&str]| Ctl::new(["-n", "sale"].iter().chain(arguments).copied()).at(server.grpc());
    let table = at_terminal(&["stock", "list"]).run_at_terminal("").await;
    assert!(table.code == 0 && table.out.starts_with("SKU  AVAILABLE"), "{table:?}");
    let json = at_terminal(&["stock", "list", "--json"]).run_at_terminal("").await;
    assert!(json.code == 0 && json.out.starts_with('{'), "{json:?}");
    for answer in ["n\n", "\n", "perhaps\n"] {
        let no = at_terminal(&["stock", "set", "ps5", "50"]).run_at_terminal(answer).await;
        assert!(no.code == 77 && no.out.contains("from 100 to 50. Continue? [y/N]"), "{no:?}");
        assert!(no.out.contains("not confirmed"), "{no:?}");
        assert_eq!(shop.counts("ps5").await, (100, 0, 0));
    }
    let yes = at_terminal(&["stock", "set", "ps5", "50"]).run_at_terminal("y\n").await;
    assert_eq!((yes.code, shop.counts("ps5").await), (0, (50, 0, 0)));
    let watch = at_terminal(&["watch", "--for", "1s"]).run_at_terminal("").await;
    assert!(watch.code == 0 && watch.out.contains("\u{1b}[H") && watch.out.contains("ps5"), "{watch:?}");
}

#[tokio::test]
async fn the_help_names_every_exit_code() {
    let help = Ctl::new(["--help"]).run().await;
    for code in ["0", "1", "64", "65", "69", "75", "77"] {
        assert!(
            help.out.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))),
            "{code}: {}",
            help.out
        );
    }
}
