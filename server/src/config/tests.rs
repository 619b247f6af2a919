//! Tests of the settings: defaults, ranges, combinations.

use std::path::Path;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn with(flags: &[&str]) -> Config {
    Config::from_flags(std::iter::once(&"sentinel-server").chain(flags)).unwrap()
}

#[test]
fn the_defaults_are_valid_and_as_documented() {
    let config = Config::default();
    config.validate().unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.durability, Durability::Durable);
    assert_eq!(config.resend_for, Duration::from_secs(5));
    assert_eq!(config.retention, DAY);
}

#[test]
fn a_redis_on_the_same_machine_has_a_processor() {
    let threads = |flags: &[&str]| [1, 2, 8].map(|processors| with(flags).threads_on(processors));
    assert_eq!(threads(&[]), [1, 1, 7]);
    assert_eq!(threads(&["--redis-url=redis://127.0.0.1:6379"]), [1, 1, 7]);
    assert_eq!(threads(&["--redis-url=redis://redis.shop:6379"]), [1, 2, 8]);
    assert_eq!(threads(&["--threads=3"]), [3, 3, 3]);
}

#[test]
fn every_flag_has_its_variable_and_a_line_of_help() {
    for argument in Config::command().get_arguments() {
        let expected = format!("SENTINEL_{}", argument.get_id().as_str().to_uppercase());
        assert_eq!(argument.get_env(), Some(expected.as_ref()));
        assert!(argument.get_help().is_some(), "{expected} has no help");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = with(&[
        "--threads=0",
        "--pool-size=0",
        "--batch-max-operations=513",
        "--store-timeout=0s",
        "--default-ttl=2h",
        "--retention=10ms",
        "--admin-listen=127.0.0.1:50051",
        "--redis-url=http://:secret@nowhere",
        "--log=sentinel=loud",
    ])
    .validate()
    .unwrap_err();
    assert_eq!(error.problems.len(), 9, "{error}");
    assert!(error.to_string().contains("--default-ttl is 2h: it must be between 1ms and 1h"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn windows_fit_into_the_budget_and_calls_into_the_window() {
    let problems = |flags: &[&str]| with(flags).validate().map_err(|error| error.problems);
    assert_eq!(problems(&["--max-connections=4096", "--receive-budget=536870912"]), Ok(()));
    let error = problems(&["--max-connections=4096"]).unwrap_err();
    assert!(error[0].contains("536870912") && error[0].contains("--receive-budget"), "{error:?}");
    let error = problems(&["--max-streams=1000"]).unwrap_err();
    assert!(error[0].contains("--connection-window is 131072"), "{error:?}");
    assert_eq!(problems(&["--max-streams=1000", "--connection-window=512000", "--max-connections=200"]), Ok(()));
}

#[test]
fn the_state_is_not_kept_with_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let (data, link) = (folder.path().join("data"), folder.path().join("link"));
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&data, &link).unwrap();
    let state_in = |state: &Path| {
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        with(&[&flag("data-dir", &data), &flag("state-dir", state)]).validate()
    };
    for inside in [data.clone(), data.join("state"), link.join("a/b")] {
        let error = state_in(&inside).expect_err("it is in the data folder").to_string();
        assert!(error.contains("--state-dir"), "{error}");
    }
    state_in(&folder.path().join("state")).unwrap();
    state_in(&folder.path().join("data-state")).unwrap();
}

#[test]
fn an_address_may_have_the_name_of_a_host() {
    let listen = |address: &str| with(&[&format!("--listen={address}")]).listen.to_string();
    assert_eq!(listen("localhost:50051"), "127.0.0.1:50051");
    assert_eq!((listen("[::1]:7"), listen("0.0.0.0:0")), ("[::1]:7".to_owned(), "0.0.0.0:0".to_owned()));
    for bad in ["", "50051", "localhost", "localhost:", "localhost:99999", ":50051", "no such host:1"] {
        let error = Config::from_flags(["sentinel-server", &format!("--listen={bad}")]).unwrap_err().to_string();
        assert!(error.contains("--listen") && error.contains("host:port"), "{bad}: {error}");
    }
}

#[test]
fn free_ports_may_look_alike() {
    with(&["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]).validate().unwrap();
}

#[test]
fn no_port_is_unprotected_by_accident() {
    let problems = |flags: &[&str]| with(flags).validate().map_err(|error| error.problems.join("\n"));
    let guard = ["--tls-cert=c", "--tls-key=k", "--policy=p"];
    for address in ["--listen=0.0.0.0:1", "--listen=[::]:1", "--admin-listen=0.0.0.0:1", "--grpc-admin-listen=[::]:1"] {
        for missing in 0..guard.len() {
            let flags: Vec<_> =
                guard.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, flag)| *flag).collect();
            problems(&[&[address][..], &flags].concat()).expect_err("something is missing");
        }
        let error = problems(&[address]).unwrap_err();
        assert!(error.contains("no TLS and no policy") && error.contains("--insecure"), "{error}");
        assert_eq!(problems(&[address, "--insecure"]), Ok(()));
        assert_eq!(problems(&[&[address][..], &guard].concat()), Ok(()));
    }
    for loopback in
        ["--listen=127.0.0.1:1", "--listen=[::1]:1", "--listen=[::ffff:127.0.0.1]:1", "--listen=127.8.0.1:1"]
    {
        assert_eq!(problems(&[loopback]), Ok(()));
    }
}

#[test]
fn the_files_of_access_belong_together() {
    let problems = |flags: &[&str]| with(flags).validate().map_err(|error| error.problems.join("\n"));
    for (flags, part) in [
        (&["--tls-cert=c"][..], "--tls-cert and --tls-key"),
        (&["--tls-key=k"], "--tls-cert and --tls-key"),
        (&["--client-ca=a", "--policy=p"], "--client-ca needs --tls-cert"),
        (&["--client-ca=a", "--tls-cert=c", "--tls-key=k"], "--client-ca needs --policy"),
        (&["--grpc-admin-listen=127.0.0.1:50051"], "--listen and --grpc-admin-listen are both"),
        (&["--grpc-admin-listen=127.0.0.1:9464"], "--admin-listen and --grpc-admin-listen are both"),
        (&["--reload-interval=0s"], "--reload-interval"),
        (&["--max-failed-authentications=0"], "--max-failed-authentications"),
    ] {
        let error = problems(flags).unwrap_err();
        assert!(error.contains(part), "{flags:?}: {error}");
    }
    assert_eq!(problems(&["--policy=p"]), Ok(()));
}

#[test]
fn a_password_is_never_shown() {
    let config = with(&["--redis-url=redis://shop:hunter2@127.0.0.1:6379/0"]);
    config.validate().unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_bad_duration_is_refused_by_its_flag() {
    let error = Config::from_flags(["sentinel-server", "--pool-wait=soon"]).unwrap_err().to_string();
    assert!(error.contains("--pool-wait"), "{error}");
}
