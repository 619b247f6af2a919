//! The witness in `--state-dir`: what a server has seen survives its restart, so it notices a loss during its downtime.
//! And the rules of that folder.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use inventory_sentinel::Reason;
use sentinel_tests::{
    Redis, SentinelProcess, ServerBuilder, assert_fenced, assert_refused, eventually, figure, http_get, millis, new_id,
    reason, until_fenced,
};
use tempfile::TempDir;

use super::{reported_fence, sell, sell_out, take_one};

fn state_folder() -> TempDir {
    TempDir::with_prefix("sentinel-state-").expect("a temporary folder")
}

/// Starts with this state folder on this Redis.
fn remembering(redis: &Redis, state: &Path) -> ServerBuilder {
    SentinelProcess::launch().on(redis).state_dir(state)
}

/// The file of a state folder that is not its lock: the largest.
fn witness_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file"));
    files.max_by_key(|file| file.metadata().expect("a length").len()).expect("a witness file").path()
}

/// Stops the server in order: its witness is on disk.
async fn stop(server: &mut SentinelProcess) {
    server.terminate();
    assert!(server.exit().await.success(), "{}", server.log());
}

/// 30 units are sold, then the store is copied, then 40 more are sold.
async fn sold_70(redis: &Redis, server: &SentinelProcess) -> sentinel_tests::StoreCopy {
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    sell(&shop, "ps5", 30).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 40).await;
    copy
}

/// Sells 70 of 100 and starts the server again with its state folder, on the store that was emptied meanwhile.
async fn restarted_on_an_emptied_store() -> (Redis, TempDir, SentinelProcess) {
    let (mut redis, state) = (Redis::start().await, state_folder());
    let mut server = remembering(&redis, state.path()).start().await;
    sold_70(&redis, &server).await;
    stop(&mut server).await;
    redis.restart_empty().await;
    server.restart_unready().await;
    (redis, state, server)
}

/// The server was down while the operator restored a backup of the store. It used to start without a witness, and sold.
#[tokio::test]
async fn a_restarted_server_notices_an_older_copy() {
    let (mut redis, state) = (Redis::start().await, state_folder());
    let mut server = remembering(&redis, state.path()).start().await;
    let copy = sold_70(&redis, &server).await;
    stop(&mut server).await;
    redis.restart_with_copy(&copy).await;
    server.restart_unready().await;
    let shop = server.shop("sale");
    let fence = until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    assert_eq!((fence.seen.sequence, fence.kept_sequence), (141, 61));
    shop.settle(0, &[figure("ps5", 30)], &new_id()).await.expect("settled");
    assert_eq!(70 + sell_out(&shop, "ps5").await, 100);

    // The witness is replaced: another restart of the server fences nothing.
    stop(&mut server).await;
    server.restart().await;
    server.shop("sale").supply("ps5", 1).await;
    assert_eq!(server.info().await.fenced_partitions, []);
}

/// Server and store were down together, and the store came back empty: the sale could have started a second time.
#[tokio::test]
async fn a_restarted_server_notices_an_emptied_store() {
    let (_redis, _state, server) = restarted_on_an_emptied_store().await;
    // Nobody has called it yet.
    let fenced = reported_fence(&server, 0).await;
    assert_eq!((fenced.seen.map(|seen| seen.sequence), fenced.kept_sequence), (Some(141), 0));
    let shop = server.shop("sale");
    assert_fenced(shop.try_is_protected("ps5").await);
    assert_fenced(shop.warm_up("ps5", 100).await);
    assert_fenced(shop.try_stock("ps5").await);
    shop.settle(0, &[figure("ps5", 30)], &new_id()).await.expect("settled");
    assert_eq!(70 + sell_out(&shop, "ps5").await, 100);
}

/// The first call after the start is an attempt to warm up again, before any probe.
#[tokio::test]
async fn a_restarted_server_does_not_warm_up_an_emptied_store() {
    let (_redis, _state, server) = restarted_on_an_emptied_store().await;
    let shop = server.shop("sale");
    until_fenced("SetStock if_absent", async || shop.warm_up("ps5", 100).await).await;
}

/// After a crash the witness lacks the last second. It is still evidence.
#[tokio::test]
async fn a_server_that_was_killed_notices_an_older_copy() {
    let (mut redis, state) = (Redis::start().await, state_folder());
    let mut server = remembering(&redis, state.path()).start().await;
    let copy = sold_70(&redis, &server).await;
    let sold = redis.now().await;
    eventually("the witness file is younger than the last sale", async || {
        let info = server.info().await;
        assert!(info.state_error.is_empty(), "{info:?}");
        (millis(Some(info.state_written_at?)) > sold).then_some(())
    })
    .await;
    server.kill9();
    redis.restart_with_copy(&copy).await;
    server.restart_unready().await;
    let shop = server.shop("sale");
    let fence = until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    assert!((62..=141).contains(&fence.seen.sequence), "{fence:?}");
}

/// An operator must see whether a restart of the server forgets, and whether the file is written at all.
#[tokio::test]
async fn a_server_says_where_it_keeps_what_it_knows() {
    let (redis, state) = (Redis::start().await, state_folder());
    let (memory, file) = (SentinelProcess::on(&redis).await, remembering(&redis, state.path()).start().await);
    let forgets = memory.info().await;
    assert_eq!((forgets.state.as_str(), forgets.state_written_at), ("memory only", None));
    assert_eq!((forgets.durability.as_str(), forgets.version.as_str()), ("durable", env!("CARGO_PKG_VERSION")));
    assert!(forgets.store_version.contains(' ') && !forgets.store_id.is_empty(), "{forgets:?}");
    file.shop("sale").supply("ps5", 1).await;
    let keeps = eventually("the file is written", async || {
        let info = file.info().await;
        info.state_written_at.is_some().then_some(info)
    })
    .await;
    assert!(keeps.state.contains(&state.path().display().to_string()), "{keeps:?}");
    assert_eq!((keeps.store_id, keeps.state_error.as_str()), (forgets.store_id, ""));

    // The server also reports a file that cannot be written: here its folder is a file.
    fs::remove_dir_all(state.path()).expect("removed");
    fs::write(state.path(), "").expect("a file");
    file.shop("sale").supply("ps5", 2).await;
    eventually("the failure is reported", async || (!file.info().await.state_error.is_empty()).then_some(())).await;
    take_one(&file.shop("sale"), "ps5").await.expect("the sale still works");
    fs::remove_file(state.path()).expect("removed");
}

/// The file has the secret of each namespace, with which ids and tokens are made.
#[tokio::test]
async fn the_witness_file_is_for_its_owner_alone() {
    let (redis, state) = (Redis::start().await, state_folder());
    let folder = state.path().join("made/by/the/server");
    let mut server = remembering(&redis, &folder).start().await;
    server.shop("sale").supply("ps5", 1).await;
    stop(&mut server).await;
    let files: Vec<_> = fs::read_dir(&folder).expect("a folder").map(|file| file.expect("a file")).collect();
    assert!(!files.is_empty());
    for file in files {
        let mode = file.metadata().expect("a mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
    }
}

/// Two servers with one file overwrite each other's witness.
#[tokio::test]
async fn a_state_folder_is_for_one_server() {
    let (redis, state) = (Redis::start().await, state_folder());
    let mut first = remembering(&redis, state.path()).start().await;
    let (code, log) = remembering(&redis, state.path()).run().await;
    assert!(code.is_some_and(|code| code != 0 && code != 101), "{code:?}: {log}");
    let path = state.path().display().to_string();
    assert!(log.contains(&path) && log.contains("another"), "the log has the folder and the reason: {log}");
    first.shop("sale").supply("ps5", 1).await;
    // The lock dies with its owner, however it dies.
    first.kill9();
    remembering(&redis, state.path()).start().await.shop("sale").hold("ps5", 1).await;
}

/// A restored data folder must not contain the witness.
#[tokio::test]
async fn a_state_folder_does_not_lie_in_the_data_folder() {
    let (redis, data) = (Redis::start().await, state_folder());
    let name = data.path().file_name().expect("a name").to_string_lossy().into_owned();
    let link = state_folder();
    std::os::unix::fs::symlink(data.path(), link.path().join("link")).expect("a link");
    for inside in [
        data.path().to_owned(),
        data.path().join("state"),
        data.path().join("deep/er/state"),
        data.path().join("..").join(&name).join("state"),
        link.path().join("link/state"),
    ] {
        let flags = format!("--data-dir {} --state-dir {}", data.path().display(), inside.display());
        for launch in [SentinelProcess::launch(), SentinelProcess::launch().on(&redis)] {
            let (code, log) = launch.flags(&flags).run().await;
            assert_eq!(code, Some(64), "{}: {log}", inside.display());
            assert!(log.contains("--state-dir") && log.contains("--data-dir"), "{log}");
        }
    }
    // A folder beside it is allowed, also if one name begins with the other.
    let beside = format!("{}-state", data.path().display());
    let flags = format!("--data-dir {} --state-dir {beside}", data.path().display());
    SentinelProcess::launch().on(&redis).flags(&flags).start().await.shop("sale").supply("ps5", 1).await;
    fs::remove_dir_all(beside).expect("removed");
}

/// A start without the damaged witness would hide a loss.
#[tokio::test]
async fn a_damaged_witness_file_is_not_taken_for_none() {
    let (redis, state) = (Redis::start().await, state_folder());
    let mut server = remembering(&redis, state.path()).start().await;
    server.shop("sale").supply("ps5", 1).await;
    stop(&mut server).await;
    let file = witness_file(state.path());
    let good = fs::read(&file).expect("a witness");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for damaged in [b"garbage\n".to_vec(), good[..good.len() / 2].to_vec(), flipped] {
        fs::write(&file, &damaged).expect("damaged");
        let (code, log) = remembering(&redis, state.path()).run().await;
        assert!(code.is_some_and(|code| code != 0 && code != 101), "{code:?}: {log}");
        assert!(log.contains(&state.path().display().to_string()), "it names the file: {log}");
        assert_eq!(fs::read(&file).expect("a file"), damaged, "it is kept for the operator");
    }
    fs::write(&file, good).expect("repaired");
    remembering(&redis, state.path()).start().await.shop("sale").hold("ps5", 1).await;
}

/// The address of the store changed, or the file was copied to a server of another shop. The file describes another
/// store, so it is neither believed, nor does it fence this one.
#[tokio::test]
async fn a_witness_of_another_store_serves_nothing_and_fences_nothing() {
    let (redis, elsewhere, state) = (Redis::start().await, Redis::start().await, state_folder());
    let mut server = remembering(&redis, state.path()).start().await;
    sold_70(&redis, &server).await;
    let known = server.info().await.store_id;
    stop(&mut server).await;
    let mut owner = SentinelProcess::on(&elsewhere).await;
    owner.shop("sale").supply("ps5", 3).await;
    owner.shop("mine").supply("ps5", 3).await;
    let id = owner.info().await.store_id;
    assert_ne!(id, known);
    owner.kill9();

    let before = elsewhere.digest("").await;
    let lost = remembering(&elsewhere, state.path()).start_unready().await;
    eventually("the reason is reported", async || lost.readyz().await.1.contains("another store").then_some(())).await;
    assert_eq!(http_get(lost.admin_address(), "/readyz").await.expect("an answer").0, 503);
    assert_eq!(crate::operations::process::health(&lost).await, "NotServing");
    for namespace in ["sale", "mine", "new"] {
        let shop = lost.shop(namespace);
        assert_refused(take_one(&shop, "ps5").await, Reason::StoreUnavailable, None);
        assert_refused(shop.try_stock("ps5").await, Reason::StoreUnavailable, None);
        assert_refused(shop.try_is_protected("ps5").await, Reason::StoreUnavailable, None);
        assert_refused(shop.warm_up("ps5", 1).await, Reason::StoreUnavailable, None);
        assert_refused(shop.settle(0, &[], &new_id()).await, Reason::StoreUnavailable, None);
    }
    assert!(elsewhere.digest("").await == before, "the other store was changed");
    drop(lost);
    let owner = SentinelProcess::on(&elsewhere).await;
    sell(&owner.shop("sale"), "ps5", 3).await;
    // And the file is still valid for its store.
    server.restart().await;
    sell(&server.shop("sale"), "ps5", 30).await;
    assert_eq!(server.info().await.fenced_partitions, []);
}

/// The same in a running server: another store answers at the same address.
#[tokio::test]
async fn another_store_at_the_same_address_is_not_served() {
    let mut redis = Redis::start().await;
    let elsewhere = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    sold_70(&redis, &server).await;
    let mut owner = SentinelProcess::on(&elsewhere).await;
    owner.shop("sale").supply("ps5", 100).await;
    owner.kill9();
    redis.restart_with_copy(&elsewhere.files().copy()).await;
    let before = elsewhere.digest("").await;
    let shop = server.shop("sale");
    eventually("the reason is reported", async || {
        // The outcome of a call during the disconnection is unknown.
        let status = take_one(&shop, "ps5").await.expect_err("another store");
        assert!(matches!(reason(&status), Reason::StoreUnavailable | Reason::OutcomeUnknown), "{status:?}");
        server.readyz().await.1.contains("another store").then_some(())
    })
    .await;
    assert!(!server.readyz().await.0);
    assert_refused(take_one(&shop, "ps5").await, Reason::StoreUnavailable, None);
    assert!(redis.digest("").await == before, "the other store was changed");
}
