//! The settings of a namespace: at its creation, changed while it is in use, compared before they are set.

use std::time::Duration;

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{Redis, SentinelProcess, assert_refused, eventually, millis};

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn change(config: v1::NamespaceConfig, if_version: Option<i64>) -> v1::ConfigureNamespaceRequest {
    v1::ConfigureNamespaceRequest {
        namespace_id: "sale".into(),
        config: Some(config),
        request_id: String::new(),
        if_version,
    }
}

fn none() -> v1::NamespaceConfig {
    v1::NamespaceConfig::default()
}

#[tokio::test]
async fn a_namespace_is_made_as_it_is_asked_for_and_changed_under_way() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let other = SentinelProcess::on(&redis).await;
    let mut admin = server.admin();
    let get = v1::GetNamespaceRequest { namespace_id: "sale".into() };
    assert_refused(admin.get_namespace(get.clone()).await, Reason::NamespaceNotFound, None);
    let config = v1::NamespaceConfig { partitions: Some(3), default_ttl: seconds(100), ..none() };
    let made = admin.configure_namespace(change(config, Some(0))).await.expect("made").into_inner();
    assert_eq!(made.version, 1);
    let whole = made.config.expect("a config");
    assert_eq!((whole.partitions, whole.default_ttl, whole.max_ttl), (Some(3), seconds(100), seconds(3_600)));

    let (shop, elsewhere) = (server.shop("sale"), other.shop("sale"));
    for sku in ["a", "b", "c", "d", "e", "f"] {
        shop.supply(sku, 10).await;
    }
    let ttl = |held: v1::Reservation| millis(held.expires_at) - millis(held.created_at);
    assert_eq!(ttl(elsewhere.hold("a", 1).await), 100_000);
    let changed =
        admin.configure_namespace(change(v1::NamespaceConfig { default_ttl: seconds(50), ..none() }, Some(1)));
    assert_eq!(changed.await.expect("changed").into_inner().version, 2);
    // In every partition, here at once and elsewhere soon.
    for sku in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(ttl(shop.hold(sku, 1).await), 50_000, "{sku}");
    }
    eventually("the other server uses it", async || {
        (ttl(elsewhere.hold_for("b", 1, Duration::from_millis(1)).await) == 1).then_some(())?;
        (ttl(elsewhere.hold("a", 1).await) == 50_000).then_some(())
    })
    .await;
    let read = admin.get_namespace(get).await.expect("the config").into_inner();
    assert_eq!((read.version, read.config.expect("a config").partitions), (2, Some(3)));
}

#[tokio::test]
async fn a_setting_that_can_not_be_is_refused_and_changes_nothing() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let mut admin = server.admin();
    let mut refused = async |config, if_version, reason, field| {
        assert_refused(admin.configure_namespace(change(config, if_version)).await, reason, field);
    };
    refused(none(), None, Reason::NoRules, Some("config")).await;
    let partitions = v1::NamespaceConfig { partitions: Some(2), ..none() };
    refused(partitions, None, Reason::PartitionsFixed, None).await;
    let stale = v1::NamespaceConfig { max_ttl: seconds(60), default_ttl: seconds(60), ..none() };
    refused(stale, Some(7), Reason::VersionMismatch, None).await;
    for (config, field) in [
        (v1::NamespaceConfig { max_ttl: seconds(60), ..none() }, "config.default_ttl"),
        (v1::NamespaceConfig { max_life: seconds(60), ..none() }, "config.max_life"),
        (v1::NamespaceConfig { retention: seconds(0), ..none() }, "config.retention"),
        (v1::NamespaceConfig { retention: seconds(-1), ..none() }, "config.retention"),
        (v1::NamespaceConfig { quota_skus: Some(0), ..none() }, "config.quota_skus"),
        (v1::NamespaceConfig { quota_records: Some(-1), ..none() }, "config.quota_records"),
        (v1::NamespaceConfig { quota_records: Some(i64::MAX), ..none() }, "config.quota_records"),
        (v1::NamespaceConfig { partitions: Some(-1), ..none() }, "config.partitions"),
    ] {
        refused(config, None, Reason::InvalidConfig, Some(field)).await;
    }
    let get = v1::GetNamespaceRequest { namespace_id: "sale".into() };
    assert_eq!(admin.get_namespace(get).await.expect("the config").into_inner().version, 1);
}
