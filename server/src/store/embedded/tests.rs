//! The embedded child with the real program, in temporary folders.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Instant as Clock;

use deadpool_redis::redis;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::*;
use crate::config::Durability;
use crate::store::fitness;
use crate::store::pool::{Limits, Pool};

/// Longest wait for a condition in a test.
const TIMEOUT: Duration = Duration::from_secs(20);

fn config(folder: &Path) -> Config {
    Config { data_dir: folder.to_path_buf(), ..Config::default() }
}

fn child_pid(folder: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(folder.join("redis.lock")).ok()?.trim().parse().ok()?)
}

fn alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let began = Clock::now();
    while !happened().await {
        assert!(began.elapsed() < TIMEOUT, "{what} did not happen");
        sleep(Duration::from_millis(20)).await;
    }
}

fn set(key: &str) -> redis::Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg("1");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_fit_comes_back_after_a_kill_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data with a space");
    let config = config(&data);
    let embedded = Embedded::start(&config, &Tasks::alone()).await.unwrap();
    assert_eq!(fs::metadata(&data).unwrap().permissions(), std::os::unix::fs::PermissionsExt::from_mode(0o40700));

    let pool = Pool::new(embedded.url(), Limits::from(&config)).unwrap();
    let mut connection = pool.get().await.unwrap();
    let fit = fitness::check(&mut connection, Durability::Durable, &fitness::Before::Unknown).await.verdict.unwrap();
    assert!(fit.notes.is_empty(), "{fit:?}");
    connection.send(&set("kept")).await.unwrap();

    let first = child_pid(&data).unwrap();
    kill_process(first, Signal::KILL).unwrap();
    let error = connection.send(&set("lost")).await.unwrap_err();
    assert!(matches!(error.kind(), "unknown" | "not_applied"), "{error}");
    drop(connection);
    until("the restart", async || {
        let Ok(mut connection) = pool.get().await else {
            return false;
        };
        fitness::check(&mut connection, Durability::Durable, &fitness::Before::Unknown)
            .await
            .verdict
            .is_ok_and(|now| now.run_id != fit.run_id)
    })
    .await;
    let mut connection = pool.get().await.unwrap();
    let kept = connection.send(redis::cmd("EXISTS").arg("kept")).await.unwrap();
    assert_eq!(kept, redis::Value::Int(1), "what was acknowledged survived the kill");

    let second = child_pid(&data).unwrap();
    assert!(alive(second) && second != first);
    embedded.stop().await;
    assert!(!alive(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_server() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Embedded::start(&config(folder.path()), &Tasks::alone()).await.unwrap();
    match Embedded::start(&config(folder.path()), &Tasks::alone()).await {
        Err(EmbeddedError::InUse { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
        other => panic!("{:?}", other.err()),
    }
    embedded.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_is_stopped_before_a_new_child_starts() {
    let folder = tempfile::tempdir().unwrap();
    // A killed server leaves its child, which holds redis.lock.
    let orphan = {
        let program = Program::find(Durability::Fast, None).unwrap();
        let opened = Folder::open(folder.path()).unwrap();
        let lock = opened.lock_redis(STOP_LIMIT).await.unwrap();
        let child = program.spawn(&opened, &lock).unwrap();
        opened.note_redis(&lock, child.id());
        child
    };
    let pid = child_pid(folder.path()).unwrap();
    let reaper = tokio::spawn(async move {
        let mut orphan = orphan;
        orphan.wait().await
    });
    until("the orphan's start", async || folder.path().join("redis.sock").exists()).await;

    let embedded = Embedded::start(&config(folder.path()), &Tasks::alone()).await.unwrap();
    assert_ne!(child_pid(folder.path()).unwrap(), pid);
    assert!(reaper.await.unwrap().unwrap().success(), "the orphan stopped in order");
    embedded.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_path_has_its_socket_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("x".repeat(120));
    let embedded = Embedded::start(&config(&data), &Tasks::alone()).await.unwrap();
    let shown = embedded.url().to_string();
    assert!(shown.contains("inventory-sentinel-"), "{shown}");
    embedded.stop().await;
    fs::remove_dir_all(Path::new(shown.trim_start_matches("unix://")).parent().unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let aof = folder.path().join("appendonlydir");
    fs::create_dir(&aof).unwrap();
    fs::write(aof.join("appendonly.aof.manifest"), "garbage\n").unwrap();
    let began = Clock::now();
    let error = Embedded::start(&config(folder.path()), &Tasks::alone()).await.err().unwrap().to_string();
    assert!(error.contains("manifest"), "{error}");
    assert!(began.elapsed() < TIMEOUT);
}

#[test]
fn no_program_no_child() {
    assert!(Program::find_in(OsStr::new("/nonexistent"), Durability::Fast, None).is_none());
    assert!(EmbeddedError::NoProgram.to_string().contains("apt install redis-server"));
}
