//! Unexpected stores: from before an upgrade, without their config or their id, full, or another store altogether.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value, cmd};
use inventory_sentinel::{Reason, v1};
use inventory_sentinel_script::{keys::STORE_ID, script::script_source};
use sentinel_tests::{
    Redis, SentinelProcess, TestClient, assert_refused, epoch, eventually, script_call, until_fenced,
};
use tokio::time::sleep;

use super::{retry_until_answered, sell, take_one};

async fn configure(
    shop: &TestClient,
    config: v1::NamespaceConfig,
) -> Result<v1::ConfigureNamespaceResponse, tonic::Status> {
    let namespace_id = shop.namespace.clone();
    let request = v1::ConfigureNamespaceRequest { namespace_id, config: Some(config), ..Default::default() };
    shop.admin.clone().configure_namespace(request).await.map(tonic::Response::into_inner)
}

async fn raise(shop: &TestClient) {
    configure(shop, v1::NamespaceConfig { format: Some(2), ..Default::default() }).await.expect("raised");
}

/// The copy is from before the format was raised. The server saw the namespace in format 2, with 40 more sales.
#[tokio::test]
async fn a_copy_of_before_the_raise_sells_nothing_twice() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--format 1").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    sell(&shop, "ps5", 30).await;
    let copy = redis.files().copy();
    raise(&shop).await;
    sell(&shop, "ps5", 40).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
}

/// A shop before its formats are raised: all of it, after an upgrade.
#[tokio::test]
async fn an_emptied_namespace_of_format_1_is_known_still() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--format 1").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    sell(&shop, "ps5", 10).await;
    redis.execute::<()>("FLUSHALL").await;
    let protected = retry_until_answered("an answer", async || shop.try_is_protected("ps5").await).await;
    let warmed = retry_until_answered("an answer", async || shop.warm_up("ps5", 10).await).await;
    assert!(protected.is_err() && warmed.is_err(), "{protected:?}, {warmed:?}");
}

/// A change of the namespace's rules is acknowledged, and the copy lacks it.
#[tokio::test]
async fn a_lost_configuration_is_not_lost_in_silence() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let copy = redis.files().copy();
    let retention = Some(prost_types::Duration { seconds: 90_000, nanos: 0 });
    configure(&shop, v1::NamespaceConfig { retention, ..Default::default() }).await.expect("configured");
    redis.restart_with_copy(&copy).await;
    let taken = retry_until_answered("an answer", async || take_one(&shop, "ps5").await).await;
    let request = v1::GetNamespaceRequest { namespace_id: "sale".into() };
    let now = shop.admin.clone().get_namespace(request).await.expect("a config").into_inner();
    let errors = server.log_lines().into_iter().filter(|line| line["level"] == "ERROR").count();
    let kept = now.config.expect("a config").retention == retention;
    assert!(taken.is_err() || kept || errors > 0, "the configuration is gone, and nothing reports it: {taken:?}");
}

/// A server is pointed at another store by mistake. The changes that it saw there prove nothing about its own store.
#[tokio::test]
async fn namespaces_of_another_store_are_not_taken_for_ours() {
    let (redis, elsewhere, state) =
        (Redis::start().await, Redis::start().await, tempfile::tempdir().expect("a folder"));
    let mut server = SentinelProcess::launch().on(&redis).state_dir(state.path()).start().await;
    server.shop("sale").supply("ps5", 10).await;
    server.terminate();
    assert!(server.exit().await.success());
    let mut owner = SentinelProcess::on(&elsewhere).await;
    owner.shop("mine").supply("ps5", 3).await;
    owner.shop("theirs").supply("ps5", 3).await;
    owner.kill9();

    let mut lost = SentinelProcess::launch().on(&elsewhere).state_dir(state.path()).start_unready().await;
    eventually("the reason is reported", async || lost.readyz().await.1.contains("another store").then_some(())).await;
    // It searches for namespaces at each tick, and has found some.
    for _ in 0..3 {
        assert_refused(lost.shop("mine").try_stock("ps5").await, Reason::StoreUnavailable, None);
        sleep(Duration::from_millis(300)).await;
    }
    lost.terminate();
    assert!(lost.exit().await.success());
    let file = std::fs::read_to_string(state.path().join("witness.json")).expect("a witness");
    assert!(file.contains("\"sale\"") && !file.contains("\"mine\""), "{file}");

    let other = SentinelProcess::on(&redis).await;
    let shop = other.shop("mine");
    shop.supply("ps5", 7).await;
    sell(&shop, "ps5", 1).await;
    server.restart().await;
    take_one(&server.shop("mine"), "ps5").await.expect("nothing is lost");
    take_one(&shop, "ps5").await.expect("nothing is lost");
    assert_eq!(server.info().await.fenced_partitions, []);
}

/// ConfigureNamespace between the change of the store and the next check of the probe.
#[tokio::test]
async fn a_configuration_does_not_fence_another_store() {
    let mut redis = Redis::start().await;
    let elsewhere = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let mut owner = SentinelProcess::on(&elsewhere).await;
    owner.shop("sale").supply("ps5", 100).await;
    owner.kill9();
    redis.restart_with_copy(&elsewhere.files().copy()).await;
    let config = v1::NamespaceConfig {
        retention: Some(prost_types::Duration { seconds: 90_000, nanos: 0 }),
        ..Default::default()
    };
    for _ in 0..40 {
        let answer = configure(&shop, config).await;
        if answer.is_ok() || server.readyz().await.1.contains("another store") {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    drop(server);
    let owner = SentinelProcess::on(&redis).await;
    let taken = take_one(&owner.shop("sale"), "ps5").await;
    assert!(taken.is_ok(), "the other store is fenced: {taken:?}");
}

/// The key of the store's id has other contents.
#[tokio::test]
async fn an_odd_id_of_the_store_is_not_believed() {
    let (redis, state) = (Redis::start().await, tempfile::tempdir().expect("a folder"));
    redis.query::<()>(cmd("SET").arg(STORE_ID).arg("x".repeat(1 << 20))).await;
    let server = SentinelProcess::launch().on(&redis).state_dir(state.path()).start_unready().await;
    eventually("the reason is reported", async || {
        server.readyz().await.1.contains("32 hexadecimal digits").then_some(())
    })
    .await;
    assert_refused(server.shop("sale").warm_up("ps5", 10).await, Reason::StoreUnavailable, None);
    assert_eq!(server.info().await.store_id, "");
    redis.query::<()>(&Cmd::del(STORE_ID)).await;
    server.wait_until_ready().await;
    server.shop("sale").supply("ps5", 10).await;
    eventually("the file is written", async || state.path().join("witness.json").exists().then_some(())).await;
}

/// An upgrade at the memory limit: the id of the store cannot be written, and nothing can be resolved.
#[tokio::test]
async fn a_full_store_without_an_id_still_resolves() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let held = shop.hold("ps5", 1).await.reservation_id;
    server.kill9();
    redis.query::<()>(&Cmd::del(STORE_ID)).await;
    redis.execute::<()>("CONFIG SET maxmemory 500000").await;
    let later = SentinelProcess::launch().on(&redis).start_unready().await;
    let shop = later.shop("sale");
    eventually("the hold is given back", async || shop.rollback(&held).await.ok()).await;
    assert_refused(take_one(&shop, "ps5").await, Reason::StoreFull, None);
}

/// A loss in `fast` is an event in the stream, however many there were before.
#[tokio::test]
async fn each_loss_in_fast_has_its_mark() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast --sweep-interval 1m").start().await;
    server.shop("sale").supply("ps5", 10).await;
    let script = script_source();
    let epoch = epoch(&redis).await;
    let mut marks = 0;
    for n in 0..70_u64 {
        let term = format!("{n:040x}").replace('0', "a");
        let term = format!("{}{}", &term[..38], &format!("{:02x}", n + 16)[..2]);
        let mut command = script_call(&script);
        let claim = [&b"n"[..], &epoch.to_be_bytes()[2..], term.as_bytes(), &(100_000 + n).to_be_bytes()[2..]].concat();
        redis.query::<Value>(command.arg(epoch).arg(claim)).await;
        let length: i64 = redis.events().await;
        marks = length - 1;
    }
    assert_eq!(marks, 70, "each of 70 losses");
}
