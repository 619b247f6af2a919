//! The refusals of each operation: the right reason with its details, and no byte written. Every reason of the
//! catalogue is provoked here or in the module of its subject.

use std::{pin::Pin, time::Duration};

use inventory_sentinel::{Reason, v1};
use inventory_sentinel_script::limits::{MAX_ID_BYTES, MAX_LINES, MAX_SKU_BYTES};
use sentinel_tests::{
    Redis, SentinelProcess, TestClient, assert_refused, eventually, id_born,
    model::{MAX_QUANTITY, MAX_STOCK},
    new_id, partition_keys, reserve_request,
};
use tonic::Status;

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + 'a>>;

/// A call that must be refused.
struct Case<'a>(Reason, Option<&'static str>, Call<'a>);

/// One case: a call whose answer does not matter, as it must be refused.
macro_rules! case {
    ($reason:ident, $field:expr, $call:expr) => {
        Case(Reason::$reason, $field, Box::pin(async move { $call.await.map(|_| ()) }))
    };
}

fn reserve_with(change: impl FnOnce(&mut v1::ReserveRequest)) -> v1::ReserveRequest {
    let mut request = reserve_request(&[("ps5", 1)]);
    change(&mut request);
    request
}

fn ttl(seconds: i64, nanos: i32) -> v1::ReserveRequest {
    reserve_with(|request| request.ttl = Some(prost_types::Duration { seconds, nanos }))
}

fn malformed<'a>(shop: &'a TestClient, ghost: &'a TestClient, misnamed: &'a TestClient) -> Vec<Case<'a>> {
    let with_id = |id: String| reserve_with(|request| request.request_id = id);
    let many: Vec<String> = (0..=MAX_LINES).map(|i| format!("sku-{i}")).collect();
    let many: Vec<(&str, i32)> = many.iter().map(|sku| (sku.as_str(), 1)).collect();
    let many = reserve_request(&many);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    vec![
        case!(InvalidNamespace, Some("namespace_id"), misnamed.reserve(reserve_request(&[("ps5", 1)]))),
        case!(InvalidNamespace, Some("namespace_id"), misnamed.set_stock("ps5", 1, "a")),
        case!(InvalidNamespace, Some("namespace_id"), misnamed.try_audit()),
        case!(NoLines, Some("lines"), shop.reserve(reserve_request(&[]))),
        case!(TooManyLines, Some("lines"), shop.reserve(many.clone())),
        case!(DuplicateSku, Some("lines[1].sku"), shop.reserve(reserve_request(&[("ps5", 1), ("ps5", 1)]))),
        case!(EmptySku, Some("lines[1].sku"), shop.reserve(reserve_request(&[("ps5", 1), ("", 1)]))),
        case!(InvalidSku, Some("lines[0].sku"), shop.reserve(reserve_request(&[("p\ns", 1)]))),
        case!(InvalidQuantity, Some("lines[0].quantity"), shop.reserve(reserve_request(&[("ps5", 0)]))),
        case!(InvalidQuantity, Some("lines[0].quantity"), shop.reserve(reserve_request(&[("ps5", -100)]))),
        case!(InvalidQuantity, Some("lines[0].quantity"), shop.reserve(reserve_request(&[("ps5", MAX_QUANTITY + 1)]))),
        case!(InvalidQuantity, Some("lines[0].quantity"), shop.reserve(reserve_request(&[("ps5", i32::MAX)]))),
        case!(InvalidQuantity, Some("lines[0].quantity"), shop.reserve(reserve_request(&[("ps5", i32::MIN)]))),
        case!(InvalidTtl, Some("ttl"), shop.reserve(ttl(0, 0))),
        case!(InvalidTtl, Some("ttl"), shop.reserve(ttl(-1, 0))),
        case!(InvalidTtl, Some("ttl"), shop.reserve(ttl(1, -1_000_000))),
        case!(InvalidTtl, Some("ttl"), shop.reserve(ttl(3_600, 1))),
        case!(InvalidTtl, Some("ttl"), shop.reserve(ttl(0, 1_000_000_000))),
        case!(InvalidTtl, Some("ttl"), shop.reserve(ttl(3_600, 1_000_000))),
        case!(InvalidTtl, Some("ttl"), shop.reserve(ttl(i64::MAX, 999_000_000))),
        case!(InvalidTtl, Some("ttl"), ghost.reserve(ttl(i64::MAX, 0))),
        case!(RequestIdRequired, Some("request_id"), shop.reserve(with_id(String::new()))),
        case!(InvalidRequestId, Some("request_id"), shop.reserve(with_id("x".repeat(MAX_ID_BYTES + 1)))),
        case!(InvalidRequestId, Some("request_id"), shop.reserve(with_id("with space".into()))),
        case!(
            InvalidRequestId,
            Some("request_id"),
            shop.reserve(with_id("f0000000-0000-7000-8000-000000000000".into()))
        ),
        case!(RequestTooOld, Some("request_id"), shop.reserve(with_id(id_born(DAY)))),
        case!(InvalidBuyerId, Some("buyer_id"), shop.reserve(reserve_with(|r| r.buyer_id = "j\u{200b}".into()))),
        case!(EmptySku, Some("sku"), shop.set_stock("", 1, "a")),
        case!(InvalidSku, Some("sku"), shop.set_stock(&"s".repeat(MAX_SKU_BYTES + 1), 1, "a")),
        case!(InvalidStock, Some("on_hand"), shop.set_stock("ps5", -1, "a")),
        case!(InvalidStock, Some("on_hand"), shop.set_stock("ps5", MAX_STOCK + 1, "a")),
        case!(InvalidStock, Some("on_hand"), shop.set_stock("ps5", i64::MIN, "a")),
        case!(RequestIdRequired, Some("request_id"), shop.set_stock("ps5", 1, "")),
        case!(RequestTooOld, Some("request_id"), shop.set_stock("ps5", 1, &id_born(DAY))),
        case!(InvalidDelta, Some("delta"), shop.adjust_stock("ps5", 0, "a")),
        case!(InvalidDelta, Some("delta"), shop.adjust_stock("ps5", MAX_STOCK + 1, "a")),
        case!(InvalidDelta, Some("delta"), shop.adjust_stock("ps5", i64::MIN, "a")),
        case!(RequestIdRequired, Some("request_id"), shop.adjust_stock("ps5", 1, "")),
        case!(EmptySku, Some("sku"), shop.adjust_stock("", 1, "a")),
        case!(EmptySku, Some("sku"), shop.protect("", true)),
        case!(EmptySku, Some("sku"), shop.try_stock("")),
        case!(InvalidReservationId, Some("reservation_id"), shop.commit("")),
        case!(InvalidReservationId, Some("reservation_id"), shop.rollback("AAAA")),
        case!(InvalidReservationId, Some("reservation_id"), shop.reservation(&"A".repeat(25))),
        case!(NoRules, Some("rules"), async move {
            let request = v1::ConfigureSkuRequest {
                namespace_id: shop.namespace.clone(),
                sku: "ps5".into(),
                rules: Some(v1::SkuRules::default()),
                ..Default::default()
            };
            shop.admin.clone().configure_sku(request).await
        }),
    ]
}

fn refused_by_a_rule<'a>(shop: &'a TestClient, ghost: &'a TestClient, ids: &'a Ids) -> Vec<Case<'a>> {
    let reused = move |change: fn(&mut v1::ReserveRequest)| {
        let mut request = ids.order.clone();
        change(&mut request);
        request
    };
    const MADE_UP: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";
    vec![
        case!(SkuNotFound, None, shop.reserve(reserve_request(&[("nothing", 1)]))),
        case!(SkuNotFound, None, shop.reserve(reserve_request(&[("ps5", 1), ("nothing", 1)]))),
        case!(SkuNotFound, None, shop.adjust_stock("nothing", -1, "a")),
        case!(SkuNotFound, None, shop.protect("nothing", true)),
        case!(SkuNotFound, None, shop.try_stock("nothing")),
        case!(NamespaceNotFound, None, ghost.reserve(reserve_request(&[("ps5", 1)]))),
        case!(NamespaceNotFound, None, ghost.adjust_stock("ps5", -1, "a")),
        case!(NamespaceNotFound, None, ghost.protect("ps5", true)),
        case!(NamespaceNotFound, None, ghost.try_stock("ps5")),
        case!(NamespaceNotFound, None, ghost.try_audit()),
        case!(NamespaceNotFound, None, ghost.commit(&ids.held)),
        case!(ReservationNotFound, None, shop.commit(MADE_UP)),
        case!(ReservationNotFound, None, shop.rollback(MADE_UP)),
        case!(ReservationNotFound, None, shop.reservation(MADE_UP)),
        // In a partition that there is not.
        case!(ReservationNotFound, None, shop.commit("AAAAAAAAAAAAAAAAAAAAA__8")),
        case!(SkuNotProtected, None, shop.reserve(reserve_request(&[("free", 1)]))),
        case!(SkuNotProtected, None, shop.reserve(reserve_request(&[("ps5", 1), ("free", 1)]))),
        case!(ReservationRolledBack, None, shop.commit(&ids.rolled_back)),
        case!(ReservationAlreadyCommitted, None, shop.rollback(&ids.committed)),
        case!(ReservationExpired, None, shop.commit(&ids.expired)),
        case!(RequestIdReused, None, shop.reserve(reused(|request| request.lines[0].quantity = 2))),
        case!(RequestIdReused, None, shop.reserve(reused(|request| request.lines[0].sku = "free".into()))),
        case!(RequestIdReused, None, shop.reserve(reused(|request| request.buyer_id = "eve".into()))),
        case!(RequestIdReused, None, shop.reserve(reused(|request| request.ttl = ttl(60, 0).ttl))),
        case!(RequestIdReused, None, shop.set_stock("ps5", 100, &ids.order.request_id)),
        case!(RequestIdReused, None, shop.set_stock("ps5", 99, "opening")),
        case!(RequestIdReused, None, shop.set_stock("other", 100, "opening")),
        case!(RequestIdReused, None, shop.adjust_stock("ps5", 100, "opening")),
        case!(StockBelowHeld, None, shop.set_stock("ps5", 0, "a")),
        case!(StockBelowHeld, None, shop.adjust_stock("ps5", -100, "a")),
        case!(StockLimit, None, shop.adjust_stock("ps5", MAX_STOCK, "a")),
    ]
}

/// The subject of a refusal by a rule.
struct Ids {
    order: v1::ReserveRequest,
    held: String,
    committed: String,
    rolled_back: String,
    expired: String,
}

#[tokio::test]
async fn every_refusal_says_why_and_writes_nothing() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let (shop, ghost, misnamed) = (server.shop("sale"), server.shop("ghost"), server.shop(&"n".repeat(64)));
    shop.set_stock("ps5", 100, "opening").await.expect("the stock is set");
    shop.supply("free", 10).await;
    shop.protect("free", false).await.expect("a rule");
    let placed = reserve_request(&[("ps5", 1)]);
    let held = shop.hold_order(placed.clone()).await.reservation_id;
    let committed = shop.hold("ps5", 1).await.reservation_id;
    shop.commit(&committed).await.expect("a sale");
    let rolled_back = shop.hold("ps5", 1).await.reservation_id;
    shop.rollback(&rolled_back).await.expect("given back");
    let expired = shop.hold_for("ps5", 1, Duration::from_millis(1)).await.reservation_id;
    eventually("the hold expires", async || {
        let state = shop.reservation(&expired).await.expect("it is known").state();
        (state == v1::ReservationState::Expired).then_some(())
    })
    .await;
    let ids = Ids { order: placed, held, committed, rolled_back, expired };

    let before = redis.digest("").await;
    for (i, Case(reason, field, call)) in
        malformed(&shop, &ghost, &misnamed).into_iter().chain(refused_by_a_rule(&shop, &ghost, &ids)).enumerate()
    {
        assert_refused(call.await, reason, field);
        assert!(redis.digest("").await == before, "case {i}, {reason:?}, wrote something");
    }
    shop.audit().await;
}

#[tokio::test]
async fn numbers_go_with_the_refusals_that_have_them() {
    use tonic_types::StatusExt as _;

    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.hold("ps5", 7).await;
    let status = shop.set_stock("ps5", 6, &new_id()).await.expect_err("below what is held");
    assert_eq!(status.get_details_error_info().unwrap().metadata["held"], "7");
    let status = shop.try_stock("vita").await.expect_err("unknown");
    assert_eq!(status.get_details_error_info().unwrap().metadata["sku"], "vita");

    // The shortage names all lines that are short, and no others.
    shop.supply("vita", 1).await;
    shop.supply("cable", 9).await;
    let answer = shop.reserve(reserve_request(&[("vita", 2), ("cable", 9), ("ps5", 4)])).await.expect("an answer");
    let Some(v1::reserve_response::Result::Shortage(shortage)) = answer.result else { panic!("{answer:?}") };
    let short = |sku: &str, requested, available| v1::ShortLine { sku: sku.into(), requested, available };
    assert_eq!(shortage.lines, [short("vita", 2, 1), short("ps5", 4, 3)]);
    assert_eq!(shop.counts("cable").await, (9, 0, 0));
}

/// The message of a refusal is enough for a person to correct the call.
#[tokio::test]
async fn a_refusal_names_its_cause_and_its_numbers() {
    let server = SentinelProcess::start().await;
    let (shop, ghost) = (server.shop("sale"), server.shop("sael"));
    shop.supply("ps5", 10).await;
    shop.supply("vita", 10).await;
    let held = shop.hold("ps5", 7).await.reservation_id;
    let window = |opens, closes| v1::SkuRules {
        opens_at: Some(prost_types::Timestamp { seconds: opens, nanos: 0 }),
        closes_at: Some(prost_types::Timestamp { seconds: closes, nanos: 0 }),
        ..Default::default()
    };
    let configure = async |rules| shop.configure("vita", rules).await.map(drop);
    let reserve = async |order: v1::ReserveRequest| shop.reserve(order).await.map(drop);
    let vita = |quantity| reserve_request(&[("vita", quantity)]);

    let assert_names = async |what: Result<(), tonic::Status>, parts: &[&str]| {
        let status = what.expect_err("refused");
        assert!(
            parts.iter().all(|part| status.message().contains(part)),
            "{} lacks one of {parts:?}",
            status.message()
        );
    };
    assert_names(ghost.reserve(vita(1)).await.map(drop), &["namespace sael", "does not exist"]).await;
    assert_names(ghost.commit(&held).await.map(drop), &["namespace sael"]).await;
    assert_names(ghost.try_stock("ps5").await.map(drop), &["namespace sael"]).await;
    assert_names(reserve(reserve_request(&[("ps6", 1)])).await, &["ps6", "namespace sale"]).await;
    assert_names(reserve(ttl(3_601, 0)).await, &["ttl: ", "1h"]).await;
    assert_names(shop.set_stock("ps5", 6, &new_id()).await.map(drop), &["7 are held"]).await;
    assert_names(shop.delete_sku("ps5").await.map(drop), &["7 are held"]).await;
    assert_names(configure(window(20, 10)).await, &["rules.closes_at: ", "opens_at"]).await;
    let negative = v1::SkuRules { max_quantity: Some(-1), ..Default::default() };
    assert_names(configure(negative).await, &["rules.max_quantity: "]).await;
    configure(window(4_102_444_800, 4_102_444_900)).await.expect("a window");
    assert_names(reserve(vita(1)).await, &["vita", "2100-01-01T00:00:00.000Z", "not opened"]).await;
    configure(window(1, 1_577_836_800)).await.expect("a window");
    assert_names(reserve(vita(1)).await, &["vita", "2020-01-01T00:00:00.000Z", "closed"]).await;
    configure(v1::SkuRules { max_quantity: Some(3), buyer_limit: Some(2), ..window(0, 0) }).await.expect("limits");
    assert_names(reserve(vita(4)).await, &["vita", "allows 3"]).await;
    assert_names(reserve(vita(1)).await, &["vita", "buyer"]).await;
    let by = |quantity| v1::ReserveRequest { buyer_id: "amy".into(), ..vita(quantity) };
    reserve(by(1)).await.expect("held");
    assert_names(reserve(by(2)).await, &["vita", "1 of at most 2"]).await;
    let day = Duration::from_secs(3_600);
    assert_names(shop.extend(&held, day * 3, &new_id()).await.map(drop), &["ttl: ", "1h"]).await;
}

#[tokio::test]
async fn an_audit_whose_events_are_trimmed_away_says_so() {
    let redis = Redis::start_in_memory().await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000_000).await;
    let busy = {
        let shop = shop.clone();
        tokio::spawn(async move {
            loop {
                shop.hold("ps5", 1).await;
            }
        })
    };
    let trimmer = {
        let mut connection = redis.connection().await;
        tokio::spawn(async move {
            let mut trim = deadpool_redis::redis::cmd("XTRIM");
            trim.arg(partition_keys("sale", 0).events()).arg("MAXLEN").arg(0);
            while trim.query_async::<i64>(&mut connection).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
    };
    let refused = eventually("an audit is overtaken", async || shop.try_audit().await.err()).await;
    assert_refused(Err::<(), _>(refused), Reason::AuditOvertaken, None);
    busy.abort();
    trimmer.abort();
}

/// Not walked, and why.
const NOT_WALKED: &[Reason] = &[];

#[test]
fn every_reason_of_the_catalogue_is_walked() {
    let sources = concat!(
        include_str!("refusals.rs"),
        include_str!("../limits/records.rs"),
        include_str!("../faults/store.rs"),
        include_str!("../limits/overload.rs"),
        include_str!("../access/identities.rs"),
        include_str!("../admin/namespaces.rs"),
        include_str!("../operations/process.rs"),
        include_str!("../checkout/rules.rs"),
        include_str!("../checkout/parts.rs"),
        include_str!("../admin/settings.rs"),
        include_str!("../limits/untrusted_peers.rs"),
        include_str!("../checkout/batch.rs"),
        include_str!("../faults/permissions/half_done.rs"),
        include_str!("../faults/permissions/script.rs"),
        include_str!("../faults/permissions/server.rs"),
        include_str!("../admin/deletion.rs"),
        include_str!("../admin/imports.rs"),
        include_str!("../admin/lists.rs"),
        include_str!("../streams/events.rs"),
        include_str!("../streams/stock.rs"),
        include_str!("wire.rs"),
        include_str!("../fencing/settling.rs"),
        include_str!("../fencing/interrupted.rs"),
        include_str!("../fencing/versions.rs"),
        include_str!("../../../src/fence.rs"),
    );
    let is_walked = |reason: &Reason| {
        let forms = [
            format!("case!({reason:?}, "),
            format!(", Reason::{reason:?}, None)"),
            format!(", Reason::{reason:?}, Some("),
            format!("Some(Reason::{reason:?})"),
            format!(", Reason::{reason:?}),"),
        ];
        forms.iter().any(|form| sources.contains(form))
    };
    let missing: Vec<_> =
        Reason::ALL.iter().filter(|&reason| is_walked(reason) == NOT_WALKED.contains(reason)).collect();
    assert!(missing.is_empty(), "walked by no test, or walked and listed as not: {missing:?}");
}
