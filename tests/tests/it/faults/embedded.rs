//! The embedded Redis at its limits: with a full disk, and at its memory limit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{SentinelProcess, TestClient, assert_refused, eventually, new_id, reason, reserve_request};
use tempfile::TempDir;

/// A small disk for one test, in memory; unmounted when dropped.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None`, and a line of output, where this machine does not permit the mount.
    fn mount(mebibytes: u32) -> Option<Disk> {
        let folder = TempDir::with_prefix("sentinel-disk-").expect("a temporary folder");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Disk { folder });
        }
        eprintln!("SKIPPED: this machine mounts no tmpfs for the test of a full disk: {mounted:?}");
        None
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Fills the disk up to this many free bytes.
    fn fill(&self, rest: u64) {
        let free = free(self.folder.path());
        fs::write(self.ballast(), vec![0; free.saturating_sub(rest) as usize]).expect("there is so much space");
    }

    fn empty(&self) {
        fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).output();
    }
}

fn free(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).expect("a file system");
    found.f_bavail * found.f_frsize
}

/// The text that reports a full disk.
const FULL: &str = "the disk of the data folder is full";

/// Holds units until that is refused; returns how many were acknowledged.
async fn hold_until_refused(shop: &TestClient) -> i64 {
    let mut held = 0;
    eventually("a hold is refused", async || {
        for _ in 0..200 {
            match shop.reserve(reserve_request(&[("ps5", 1)])).await {
                Ok(_) => held += 1,
                Err(_) => return Some(()),
            }
        }
        None
    })
    .await;
    held
}

async fn a_full_disk(flags: &str) {
    let Some(disk) = Disk::mount(12) else { return };
    let server = SentinelProcess::launch().data_in(&disk.data()).flags(flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000_000).await;
    disk.fill(400 << 10);
    let held = hold_until_refused(&shop).await;
    eventually("the reason is reported", async || server.readyz().await.1.contains(FULL).then_some(())).await;

    // It stays full, and each call is refused quickly.
    let until = Instant::now() + Duration::from_secs(4);
    let mut longest = Duration::ZERO;
    while Instant::now() < until {
        let (is_ready, report) = server.readyz().await;
        assert!(!is_ready && report.contains(FULL), "{report}");
        assert_eq!(crate::operations::process::health(&server).await, "NotServing");
        let began = Instant::now();
        let status = shop.reserve(reserve_request(&[("ps5", 1)])).await.expect_err("nothing can be written");
        longest = longest.max(began.elapsed());
        assert_eq!(reason(&status), Reason::StoreUnavailable, "{status:?}");
        assert!(status.message().contains(FULL) && status.message().contains("MiB free"), "{status:?}");
        assert!(!status.message().contains("refused"), "{status:?}");
        assert_refused(Err::<(), _>(status), Reason::StoreUnavailable, None);
    }
    println!("the longest refusal took {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let starts = server.log().matches("redis started").count();
    assert!(starts <= 2, "{starts} starts on a full disk: {}", server.log());

    disk.empty();
    server.wait_until_ready().await;
    let now = shop.stock("ps5").await;
    // A hold that was not answered may have been applied.
    assert!(now.held >= held && now.held <= held + 1, "{held} were acknowledged: {now:?}");
    shop.hold("ps5", 1).await;
    shop.audit().await;

    // The disk is not busy any more: no Redis is left behind.
    drop((shop, server));
    let lock = fs::File::open(disk.data().join("redis.lock")).expect("the lock of the embedded Redis");
    eventually("its Redis has ended", async || lock.try_lock().ok()).await;
}

#[tokio::test]
async fn a_full_disk_is_named_and_left_by_itself() {
    a_full_disk("--durability durable").await;
}

#[tokio::test]
async fn a_full_disk_is_named_and_left_by_itself_in_the_fast_mode() {
    a_full_disk("--durability fast").await;
}

#[tokio::test]
async fn at_the_limit_of_its_memory_what_is_held_is_still_resolved() {
    let server = SentinelProcess::launch().flags("--embedded-max-memory 8388608 --durability fast").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let (one, other) = (shop.hold("ps5", 1).await.reservation_id, shop.hold("ps5", 1).await.reservation_id);
    let mut next = 0;
    eventually("the memory is full", async || {
        let row = |i: usize| v1::ImportRow { sku: format!("{i:0>120}"), on_hand: 1 };
        let rows = (next..next + 1_000).map(row).collect();
        next += 1_000;
        let message = v1::ImportStockRequest {
            namespace_id: "sale".into(),
            request_id: new_id(),
            rows,
            overwrite: false,
            existing_namespace_only: false,
        };
        let answers = shop.admin.clone().import_stock(tokio_stream::iter([message])).await.expect("a stream");
        let answer = answers.into_inner().message().await.expect("an answer").expect("an answer");
        answer.results.iter().any(|result| result.reason == "STORE_FULL").then_some(())
    })
    .await;
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::StoreFull, None);
    shop.commit(&one).await.expect("it is sold");
    shop.rollback(&other).await.expect("it is given back");
    assert_eq!(shop.counts("ps5").await, (999, 0, 1));
}

#[tokio::test]
async fn a_limit_on_memory_is_checked_and_has_a_default() {
    let (code, log) = SentinelProcess::launch().flags("--embedded-max-memory 1000").run().await;
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("--embedded-max-memory is 1000"), "{log}");
    let server = SentinelProcess::start().await;
    let url = format!("unix://{}", server.embedded_socket().display());
    let client = deadpool_redis::redis::Client::open(url).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let memory: Vec<String> = deadpool_redis::redis::cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory")
        .query_async(&mut connection)
        .await
        .expect("a limit");
    let limit: u64 = memory[1].parse().expect("a number");
    assert!(limit > 64 << 20, "{limit}");
}
