//! The rules of a SKU: sale window, limits on quantity, ttl and buyer; each decided with the reservation.

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{SentinelProcess, assert_refused, eventually, millis, new_id, reserve_request};

fn rules() -> v1::SkuRules {
    v1::SkuRules::default()
}

fn by(buyer: &str, sku: &str, quantity: i32) -> v1::ReserveRequest {
    v1::ReserveRequest { buyer_id: buyer.into(), ..reserve_request(&[(sku, quantity)]) }
}

fn instant(millis: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 })
}

/// Spans and instants between two milliseconds are rounded up, and a refusal for a limit is about the rounded value.
#[tokio::test]
async fn times_are_rounded_up_to_the_millisecond() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let span = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let reserve = |ttl| v1::ReserveRequest { ttl, ..reserve_request(&[("ps5", 1)]) };
    for (ttl, lasts) in
        [(span(1, 1_500_000), 1_002), (span(0, 1), 1), (span(2, 0), 2_000), (span(1, 999_999_999), 2_000)]
    {
        let held = shop.hold_order(reserve(ttl)).await;
        assert_eq!(millis(held.expires_at) - millis(held.created_at), lasts, "{ttl:?}");
    }
    // A repeat is the same request where the rounded times are the same.
    let request = reserve(span(1, 1_500_000));
    let held = shop.hold_order(request.clone()).await;
    let again = shop.hold_order(v1::ReserveRequest { ttl: span(1, 1_999_999), ..request }).await;
    assert_eq!(again.reservation_id, held.reservation_id);
    for ttl in [span(0, 0), span(3_600, 1), span(-1, 0), span(1, -1)] {
        assert_refused(shop.reserve(reserve(ttl)).await, Reason::InvalidTtl, Some("ttl"));
    }

    let opens_at = Some(prost_types::Timestamp { seconds: 4_102_444_800, nanos: 123_456_000 });
    let change = v1::SkuRules { opens_at, max_ttl: span(60, 1), ..rules() };
    let rules = shop.configure("ps5", change).await.expect("rules").rules.expect("rules");
    assert_eq!((rules.opens_at, rules.max_ttl), (instant(4_102_444_800_124), span(60, 1_000_000)));
}

#[tokio::test]
async fn a_buyer_has_no_more_than_he_may() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.configure("ps5", v1::SkuRules { buyer_limit: Some(2), ..rules() }).await.expect("a limit");
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::BuyerRequired, None);
    assert_refused(shop.reserve(by("amy", "ps5", 3)).await, Reason::BuyerLimit, None);
    let held = shop.hold_order(by("amy", "ps5", 1)).await.reservation_id;
    let sold = shop.hold_order(by("amy", "ps5", 1)).await.reservation_id;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    // The counts of two buyers are independent.
    shop.hold_order(by("bob", "ps5", 2)).await;

    // Bought units count permanently; returned units do not.
    shop.commit(&sold).await.expect("sold");
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    shop.rollback(&held).await.expect("given back");
    let short = v1::ReserveRequest {
        ttl: Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }),
        ..by("amy", "ps5", 1)
    };
    let due = shop.hold_order(short).await.reservation_id;
    shop.expired(&due).await;
    let last = shop.hold_order(by("amy", "ps5", 1)).await.reservation_id;
    // A replaced hold does not count against its replacement.
    let swap = v1::ReserveRequest { replaces_reservation_id: last, ..by("amy", "ps5", 1) };
    shop.hold_order(swap).await;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    // A late Commit respects the limit too.
    assert_refused(shop.commit_late(&due).await, Reason::BuyerLimit, None);
    shop.audit().await;
}

/// A late Commit makes a new purchase, for which a limit counts that was set since: it needs a buyer.
#[tokio::test]
async fn a_late_commit_without_a_buyer_is_refused_where_a_limit_was_set_since() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let due = shop.hold_for("ps5", 1, std::time::Duration::from_millis(1)).await.reservation_id;
    let in_time = shop.hold("ps5", 1).await.reservation_id;
    shop.expired(&due).await;
    shop.configure("ps5", v1::SkuRules { buyer_limit: Some(2), ..rules() }).await.expect("a limit");
    assert_refused(shop.commit_late(&due).await, Reason::BuyerRequired, None);
    shop.commit_late(&in_time).await.expect("it is a hold still");
    assert_eq!(shop.counts("ps5").await, (99, 0, 1));
    shop.configure("ps5", v1::SkuRules { buyer_limit: Some(0), ..rules() }).await.expect("no limit");
    shop.commit_late(&due).await.expect("bought");
    shop.audit().await;
}

#[tokio::test]
async fn what_is_given_back_in_part_is_given_back_to_the_buyer() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.configure("ps5", v1::SkuRules { buyer_limit: Some(3), ..rules() }).await.expect("a limit");
    let id = shop.hold_order(by("amy", "ps5", 3)).await.reservation_id;
    shop.rollback_lines(&id, &[("ps5", 1)], &new_id()).await.expect("one back");
    shop.hold_order(by("amy", "ps5", 1)).await;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    // One bought, the rest given back: one of three is left in use, and the other hold.
    shop.commit_lines(&id, &[("ps5", 1)], v1::RestPolicy::Release, &new_id()).await.expect("a part");
    shop.hold_order(by("amy", "ps5", 1)).await;
    assert_refused(shop.reserve(by("amy", "ps5", 1)).await, Reason::BuyerLimit, None);
    shop.audit().await;
}

#[tokio::test]
async fn one_limit_holds_against_a_hundred_calls_at_once() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    shop.configure("ps5", v1::SkuRules { buyer_limit: Some(2), ..rules() }).await.expect("a limit");
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let shop = shop.clone();
            tokio::spawn(async move { shop.reserve(by("amy", "ps5", 1)).await.is_ok() })
        })
        .collect();
    let mut held = 0;
    for call in calls {
        held += usize::from(call.await.expect("a call"));
    }
    assert_eq!((held, shop.counts("ps5").await), (2, (998, 2, 0)));
}

/// A pause stops new holds only, and the SKU stays protected.
#[tokio::test]
async fn a_paused_sale_takes_no_new_holds() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("vita", 10).await;
    let [sold, late, back] = [shop.hold("ps5", 1).await, shop.hold("ps5", 1).await, shop.hold("ps5", 1).await];
    let pause = |yes| v1::SkuRules { is_paused: Some(yes), ..rules() };
    let answer = shop.configure("ps5", pause(true)).await.expect("paused");
    assert_eq!(answer.rules.expect("rules").is_paused, Some(true));
    assert!(answer.stock.expect("counters").is_paused);
    assert!(shop.is_protected("ps5").await, "the shop must not sell it on its ordinary path");

    let status = shop.reserve(reserve_request(&[("vita", 1), ("ps5", 1)])).await.expect_err("paused");
    let info = tonic_types::StatusExt::get_details_error_info(&status).expect("an ErrorInfo");
    assert_eq!(info.metadata["sku"], "ps5");
    assert_refused(Err::<(), _>(status), Reason::SalePaused, None);
    shop.hold("vita", 1).await;
    shop.extend(&late.reservation_id, std::time::Duration::from_secs(700), &new_id()).await.expect("extended");
    shop.commit(&sold.reservation_id).await.expect("sold");
    shop.rollback(&back.reservation_id).await.expect("given back");
    // Other changes of the rules do not end the pause, and repeats change nothing.
    let limited = shop.configure("ps5", v1::SkuRules { max_quantity: Some(5), ..rules() }).await.expect("a limit");
    assert_eq!(limited.rules.expect("rules").is_paused, Some(true));
    shop.set_stock("ps5", 20, &new_id()).await.expect("more units");
    assert!(shop.stock("ps5").await.is_paused);
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::SalePaused, None);
    shop.configure("ps5", pause(false)).await.expect("resumed");
    shop.hold("ps5", 1).await;
    shop.audit().await;
}

#[tokio::test]
async fn a_namespace_is_paused_as_a_whole_on_every_server() {
    let redis = sentinel_tests::Redis::start().await;
    let (server, other) = (SentinelProcess::on(&redis).await, SentinelProcess::on(&redis).await);
    let (shop, elsewhere) = (server.shop("sale"), other.shop("sale"));
    let configure = async |config| {
        let request =
            v1::ConfigureNamespaceRequest { namespace_id: "sale".into(), config: Some(config), ..Default::default() };
        shop.admin.clone().configure_namespace(request).await.map(tonic::Response::into_inner)
    };
    configure(v1::NamespaceConfig { partitions: Some(3), ..Default::default() }).await.expect("made");
    let skus: Vec<String> = (0..12).map(|i| format!("sku-{i}")).collect();
    for sku in &skus {
        shop.supply(sku, 10).await;
    }
    let held = elsewhere.hold("sku-1", 1).await.reservation_id;
    let pause = |yes| v1::NamespaceConfig { is_paused: Some(yes), ..Default::default() };
    let paused = configure(pause(true)).await.expect("paused");
    assert_eq!(paused.config.expect("a config").is_paused, Some(true));
    for sku in &skus {
        for shop in [&shop, &elsewhere] {
            assert_refused(shop.reserve(reserve_request(&[(sku, 1)])).await, Reason::SalePaused, None);
        }
    }
    elsewhere.commit(&held).await.expect("sold");
    configure(pause(false)).await.expect("resumed");
    for sku in &skus {
        elsewhere.hold(sku, 1).await;
    }
}

/// A pause is a bit in the record that older releases do not understand.
#[tokio::test]
async fn an_older_format_has_no_pause() {
    let server = SentinelProcess::launch().flags("--format 4").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let pause = v1::SkuRules { is_paused: Some(true), ..rules() };
    assert_refused(shop.configure("ps5", pause).await, Reason::InvalidRule, Some("rules.is_paused"));
    let config = Some(v1::NamespaceConfig { is_paused: Some(true), ..Default::default() });
    let request = v1::ConfigureNamespaceRequest { namespace_id: "sale".into(), config, ..Default::default() };
    let answer = shop.admin.clone().configure_namespace(request.clone()).await;
    assert_refused(answer, Reason::InvalidConfig, Some("config.is_paused"));
    let config = Some(v1::NamespaceConfig { is_paused: Some(true), format: Some(5), ..Default::default() });
    shop.admin.clone().configure_namespace(v1::ConfigureNamespaceRequest { config, ..request }).await.expect("raised");
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::SalePaused, None);
    shop.configure("ps5", pause).await.expect("paused too");
}

/// The events alone are a complete audit trail of the rules.
#[tokio::test]
async fn an_event_has_the_rules_after_the_change() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let watch = v1::WatchRequest { namespace_id: "sale".into(), from_oldest: true, ..Default::default() };
    let mut events = shop.events.clone().watch(watch).await.expect("a stream").into_inner();
    let limited = v1::SkuRules { buyer_limit: Some(2), ..rules() };
    shop.configure("ps5", limited).await.expect("a limit");
    let last = shop.configure("ps5", v1::SkuRules { is_paused: Some(true), ..rules() }).await.expect("paused");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let news = events.message().await.expect("events").expect("more of them");
        seen.extend(news.events.into_iter().filter(|event| event.kind() == v1::EventKind::SkuConfigured));
    }
    assert_eq!((seen[0].rules_version, seen[1].rules_version), (1, 2));
    let first = seen[0].rules.expect("rules");
    assert_eq!((first.buyer_limit, first.is_paused, first.is_protected), (Some(2), Some(false), Some(true)));
    assert_eq!(seen[1].rules, last.rules);
}

#[tokio::test]
async fn a_sale_opens_and_closes() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let now = millis(shop.hold("ps5", 1).await.created_at);
    let window = |opens, closes| v1::SkuRules { opens_at: instant(opens), closes_at: instant(closes), ..rules() };
    shop.configure("ps5", window(now + 1_500, now + 3_600_000)).await.expect("a window");
    let status = shop.reserve(reserve_request(&[("ps5", 1)])).await.expect_err("it is closed");
    let info = tonic_types::StatusExt::get_details_error_info(&status).expect("an ErrorInfo");
    assert_eq!(info.metadata["opens_at_ms"], (now + 1_500).to_string());
    assert_refused(Err::<(), _>(status), Reason::SaleNotOpen, None);
    let id = eventually("the sale opens", async || {
        let answer = shop.reserve(reserve_request(&[("ps5", 1)])).await.ok()?;
        let Some(v1::reserve_response::Result::Reservation(held)) = answer.result else { panic!("{answer:?}") };
        assert!(millis(held.created_at) >= now + 1_500, "too early");
        Some(held.reservation_id)
    })
    .await;
    shop.configure("ps5", window(1, now + 1_500)).await.expect("closed again");
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::SaleClosed, None);
    shop.commit(&id).await.expect("what was held inside is sold after");
    assert_refused(shop.configure("ps5", window(5, 5)).await, Reason::InvalidRule, Some("rules.closes_at"));
    shop.configure("ps5", window(0, 0)).await.expect("always open");
    shop.hold("ps5", 1).await;
}

#[tokio::test]
async fn a_sku_has_limits_of_its_own() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let max_ttl = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    shop.configure("ps5", v1::SkuRules { max_quantity: Some(2), max_ttl, ..rules() }).await.expect("limits");
    assert_refused(shop.reserve(reserve_request(&[("ps5", 3)])).await, Reason::QuantityLimit, None);
    let long = v1::ReserveRequest {
        ttl: Some(prost_types::Duration { seconds: 11, nanos: 0 }),
        ..reserve_request(&[("ps5", 1)])
    };
    assert_refused(shop.reserve(long).await, Reason::TtlLimit, None);
    // A default ttl is shortened.
    let held = shop.hold("ps5", 2).await;
    assert_eq!(millis(held.expires_at) - millis(held.created_at), 10_000);
    shop.configure("ps5", v1::SkuRules { max_quantity: Some(0), ..rules() }).await.expect("no limit");
    shop.hold("ps5", 3).await;
    let bad = v1::SkuRules { max_quantity: Some(-1), ..rules() };
    assert_refused(shop.configure("ps5", bad).await, Reason::InvalidRule, Some("rules.max_quantity"));
}

#[tokio::test]
async fn rules_are_read_back_and_compared_before_they_are_set() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let set = |limit, if_version| v1::ConfigureSkuRequest {
        namespace_id: "sale".into(),
        sku: "ps5".into(),
        rules: Some(v1::SkuRules { buyer_limit: Some(limit), ..rules() }),
        if_version,
        ..Default::default()
    };
    let mut admin = shop.admin.clone();
    let first = admin.configure_sku(set(4, Some(0))).await.expect("the first").into_inner();
    assert_eq!(first.rules_version, 1);
    assert_refused(admin.configure_sku(set(5, Some(0))).await, Reason::VersionMismatch, None);
    let again = admin.configure_sku(set(4, None)).await.expect("the same again").into_inner();
    assert_eq!((again.rules_version, again.sequence), (1, first.sequence), "nothing changed");
    let request = v1::GetSkuRequest { namespace_id: "sale".into(), sku: "ps5".into() };
    let read = admin.get_sku(request).await.expect("the rules").into_inner();
    assert_eq!((&read.rules, read.rules_version), (&first.rules, 1));
    assert_eq!(read.rules.expect("rules").is_protected, Some(true), "protection is as it was");
}

#[tokio::test]
async fn a_warm_up_can_be_run_again_in_the_middle_of_a_sale() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let warm_up = |if_absent, if_version| v1::SetStockRequest {
        namespace_id: "sale".into(),
        sku: "ps5".into(),
        on_hand: 10,
        request_id: new_id(),
        if_absent,
        if_version,
        existing_namespace_only: false,
    };
    let mut admin = shop.admin.clone();
    let made = admin.set_stock(warm_up(true, None)).await.expect("made").into_inner().stock.expect("a stock");
    shop.hold("ps5", 3).await;
    assert_refused(admin.set_stock(warm_up(true, None)).await, Reason::SkuExists, None);
    assert_refused(admin.set_stock(warm_up(false, Some(made.version))).await, Reason::VersionMismatch, None);
    assert_eq!(shop.counts("ps5").await, (7, 3, 0));
    let version = shop.stock("ps5").await.version;
    admin.set_stock(warm_up(false, Some(version))).await.expect("as it was seen");
    let both = admin.set_stock(warm_up(true, Some(1))).await;
    assert_refused(both, Reason::InvalidPolicy, Some("if_version"));
}

#[tokio::test]
async fn a_sku_is_deleted_when_nobody_holds_it_and_its_versions_go_on() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let id = shop.hold("ps5", 1).await.reservation_id;
    assert_refused(shop.delete_sku("ps5").await, Reason::SkuHasHolds, None);
    shop.rollback(&id).await.expect("given back");
    let last = shop.delete_sku("ps5").await.expect("deleted").stock.expect("as it was");
    assert_eq!(last.available, 10);
    assert_eq!(shop.delete_sku("ps5").await.expect("again").stock, None);
    assert_refused(shop.try_stock("ps5").await, Reason::SkuNotFound, None);
    assert!(!shop.is_protected("ps5").await);
    shop.audit().await;
    let again = shop.supply("ps5", 5).await;
    assert!(again.version > last.version);
    assert_eq!((again.supplied, again.sold), (5, 0));
    assert_eq!(shop.reservation(&id).await.expect("what was is known still").reservation_id, id);
    shop.audit().await;
}

#[tokio::test]
async fn a_policy_that_does_not_fit_is_refused() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let id = shop.hold("ps5", 2).await.reservation_id;
    let good = v1::CommitRequest { namespace_id: "sale".into(), reservation_id: id, ..Default::default() };
    let lines = reserve_request(&[("ps5", 1)]).lines;
    let mut checkout = shop.checkout.clone();
    let request = v1::CommitRequest { rest_policy: v1::RestPolicy::Keep.into(), ..good.clone() };
    assert_refused(checkout.commit(request).await, Reason::InvalidPolicy, Some("rest_policy"));
    let request = v1::CommitRequest { late_policy: 77, ..good.clone() };
    assert_refused(checkout.commit(request).await, Reason::InvalidPolicy, Some("late_policy"));
    let late_policy = v1::LatePolicy::Repurchase.into();
    let request = v1::CommitRequest { late_policy, lines: lines.clone(), request_id: new_id(), ..good.clone() };
    assert_refused(checkout.commit(request).await, Reason::InvalidPolicy, Some("late_policy"));
    let request = v1::CommitRequest { lines, ..good };
    assert_refused(checkout.commit(request).await, Reason::RequestIdRequired, Some("request_id"));
    assert_eq!(shop.counts("ps5").await, (8, 2, 0));
}
