//! When two requests with one request_id are the same: the order of lines is free, and an unset ttl equals the ttl that
//! was in force. An expired reservation that a late Commit repurchased names its purchase. Tested in each format of a
//! namespace, and in one that was raised afterwards.

use std::time::Duration;

use deadpool_redis::redis::Cmd;
use inventory_sentinel::{
    Reason,
    v1::{
        self, BatchOperation, BatchRequest, ConfigureNamespaceRequest, NamespaceConfig, Reservation,
        ReservationState as State, ReserveRequest, RestPolicy, SkuRules, batch_operation::Operation,
        batch_result::Result as Received, reserve_response::Result as Reserved,
    },
};
use sentinel_tests::{
    LossyProxy, Redis, SentinelProcess, TestClient, assert_refused, eventually, model::DEFAULT_TTL, new_id,
    partition_keys, reserve_request,
};

const MINUTE: Duration = Duration::from_secs(60);

fn lasting(placed: &ReserveRequest, ttl: Option<Duration>) -> ReserveRequest {
    ReserveRequest { ttl: ttl.map(|ttl| ttl.try_into().expect("a ttl")), ..placed.clone() }
}

fn backwards(placed: &ReserveRequest) -> ReserveRequest {
    ReserveRequest { lines: placed.lines.iter().rev().cloned().collect(), ..placed.clone() }
}

/// Checks the answer to a repeat of the request that created this reservation: the reservation as it is now.
async fn assert_replay(shop: &TestClient, placed: ReserveRequest, id: &str, what: &str) {
    let answer = shop.reserve(placed).await.unwrap_or_else(|status| panic!("{what}: {status:?}"));
    let Some(Reserved::Reservation(found) | Reserved::AlreadyPurchased(found) | Reserved::AlreadyReleased(found)) =
        answer.result.clone()
    else {
        panic!("{what}: {answer:?}")
    };
    assert!(answer.replayed, "{what}");
    assert_eq!(found, shop.reservation(id).await.expect("it is known"), "{what}");
}

async fn assert_reused(shop: &TestClient, placed: ReserveRequest, what: &str) {
    match shop.reserve(placed).await {
        Err(status) => assert_refused(Err::<(), _>(status), Reason::RequestIdReused, None),
        Ok(answer) => panic!("{what}: {answer:?}"),
    }
}

async fn set(shop: &TestClient, config: NamespaceConfig) {
    let request =
        ConfigureNamespaceRequest { namespace_id: shop.namespace.clone(), config: Some(config), ..Default::default() };
    shop.admin.clone().configure_namespace(request).await.expect("configured");
}

async fn raise(shop: &TestClient, format: i32) {
    set(shop, NamespaceConfig { format: Some(format), ..Default::default() }).await;
}

/// The outcomes of a reservation, and so each form of its record.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Named,
    Counted,
    InPart,
    Replacing,
    Committed,
    RolledBack,
    Expired,
    Bought,
}

const KINDS: [Kind; 9] = [
    Kind::Plain,
    Kind::Named,
    Kind::Counted,
    Kind::InPart,
    Kind::Replacing,
    Kind::Committed,
    Kind::RolledBack,
    Kind::Expired,
    Kind::Bought,
];

/// A reservation of that kind, and the request that made it.
async fn made(shop: &TestClient, kind: Kind, ttl: Option<Duration>) -> (ReserveRequest, String) {
    let mut placed = lasting(&reserve_request(&[("vita", 2), ("ps5", 1), ("cable", 3)]), ttl);
    match kind {
        Kind::Named => placed.buyer_id = "ada".into(),
        Kind::Counted => {
            placed.buyer_id = new_id();
            placed.lines[1].sku = "limited".into();
        }
        Kind::Replacing => placed.replaces_reservation_id = shop.hold("ps5", 1).await.reservation_id,
        _ => {}
    }
    let id = shop.hold_order(placed.clone()).await.reservation_id;
    match kind {
        Kind::InPart => {
            shop.commit_lines(&id, &[("vita", 1)], RestPolicy::Keep, &new_id()).await.expect("in part");
        }
        Kind::Committed => drop(shop.commit(&id).await.expect("sold")),
        Kind::RolledBack => drop(shop.rollback(&id).await.expect("given back")),
        Kind::Expired => shop.expired(&id).await,
        Kind::Bought => {
            shop.expired(&id).await;
            shop.commit_late(&id).await.expect("repurchased");
        }
        _ => {}
    }
    (placed, id)
}

/// Checks every request that counts as the same, and close ones that do not.
async fn check(shop: &TestClient, placed: &ReserveRequest, id: &str, in_force: Duration, what: &str) {
    let before = shop.stock("ps5").await;
    let named = |ttl| lasting(placed, Some(ttl));
    for (same, how) in [
        (placed.clone(), "as it was"),
        (lasting(placed, None), "ttl unset"),
        (named(in_force), "ttl named"),
        (backwards(placed), "another order"),
        (backwards(&named(in_force)), "another order, ttl named"),
        (ReserveRequest { first_attempt: true, ..backwards(placed) }, "a mistaken first attempt"),
    ] {
        assert_replay(shop, same, id, &format!("{what}: {how}")).await;
    }
    let mut more = placed.clone();
    more.lines[0].quantity += 1;
    let mut swapped = placed.clone();
    swapped.lines[0].quantity = placed.lines[1].quantity;
    swapped.lines[1].quantity = placed.lines[0].quantity;
    let mut another = placed.clone();
    another.lines[2].sku = "pad".into();
    let fewer = ReserveRequest { lines: placed.lines[1..].to_vec(), ..placed.clone() };
    let replaced = match placed.replaces_reservation_id.as_str() {
        "" => shop.hold("pad", 1).await.reservation_id,
        _ => String::new(),
    };
    for (other, how) in [
        (named(in_force + Duration::from_millis(1)), "ttl longer"),
        (named(in_force - Duration::from_millis(1)), "ttl shorter"),
        (backwards(&more), "another quantity"),
        (swapped, "quantities swapped"),
        (another, "another SKU"),
        (fewer, "a line less"),
        (ReserveRequest { buyer_id: format!("{}x", placed.buyer_id), ..placed.clone() }, "another buyer"),
        (ReserveRequest { replaces_reservation_id: replaced.clone(), ..placed.clone() }, "another replaced"),
    ] {
        assert_reused(shop, other, &format!("{what}: {how}")).await;
    }
    assert_eq!(shop.stock("ps5").await, before, "{what}: nothing changed");
}

async fn open_shop(server: &SentinelProcess, namespace: &str) -> TestClient {
    let shop = server.shop(namespace);
    for sku in ["ps5", "vita", "cable", "pad", "limited"] {
        shop.supply(sku, 1_000).await;
    }
    shop.configure("limited", SkuRules { buyer_limit: Some(1), ..Default::default() }).await.expect("a limit");
    shop
}

fn ttl_of(kind: Kind, ttl: Option<Duration>) -> Option<Duration> {
    if matches!(kind, Kind::Expired | Kind::Bought) { Some(Duration::from_millis(50)) } else { ttl }
}

#[tokio::test]
async fn the_same_request_is_a_replay_in_whatever_words() {
    for format in 1..=3 {
        let server = SentinelProcess::launch().flags(&format!("--format {format} --sweep-interval 20ms")).start().await;
        let shop = open_shop(&server, "sale").await;
        let mut of_before = Vec::new();
        for kind in KINDS {
            for ttl in [None, Some(MINUTE)] {
                let (what, ttl) = (format!("format {format}, {kind:?}, {ttl:?}"), ttl_of(kind, ttl));
                let (placed, id) = made(&shop, kind, ttl).await;
                check(&shop, &placed, &id, ttl.unwrap_or(DEFAULT_TTL), &what).await;
                of_before.push((what, placed, id, ttl));
            }
        }
        shop.audit().await;
        if format == 2 {
            raise(&shop, 3).await;
            for (what, placed, id, ttl) in of_before {
                let what = format!("raised from {what}");
                check(&shop, &placed, &id, ttl.unwrap_or(DEFAULT_TTL), &what).await;
                // A record of before that changes now.
                if shop.reservation(&id).await.expect("known").state() == State::Pending {
                    shop.rollback_lines(&id, &[("cable", 1)], &new_id()).await.expect("in part");
                    check(&shop, &placed, &id, ttl.unwrap_or(DEFAULT_TTL), &format!("{what}, changed")).await;
                    shop.commit(&id).await.expect("the rest");
                    check(&shop, &placed, &id, ttl.unwrap_or(DEFAULT_TTL), &format!("{what}, resolved")).await;
                }
            }
            shop.audit().await;
        }
    }
}

#[tokio::test]
async fn a_named_ttl_is_held_against_the_one_that_was_in_force_then() {
    for format in 1..=3 {
        let server = SentinelProcess::launch().flags(&format!("--format {format}")).start().await;
        let shop = open_shop(&server, "sale").await;
        let placed = reserve_request(&[("ps5", 1), ("vita", 2), ("cable", 3)]);
        let id = shop.hold_order(placed.clone()).await.reservation_id;
        let short = SkuRules { max_ttl: Some(MINUTE.try_into().expect("a ttl")), ..Default::default() };
        shop.configure("cable", short).await.expect("a limit");
        let shortened = reserve_request(&[("ps5", 1), ("cable", 2)]);
        let short_id = shop.hold_order(shortened.clone()).await.reservation_id;

        set(
            &shop,
            NamespaceConfig {
                default_ttl: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
                ..Default::default()
            },
        )
        .await;
        check(&shop, &placed, &id, DEFAULT_TTL, "the default has changed").await;
        assert_replay(&shop, backwards(&shortened), &short_id, "the SKU's limit, unset").await;
        for (ttl, is_same) in [(MINUTE, true), (DEFAULT_TTL, false), (Duration::from_secs(300), false)] {
            let named = backwards(&lasting(&shortened, Some(ttl)));
            match is_same {
                true => assert_replay(&shop, named, &short_id, "the SKU's limit, named").await,
                false => assert_reused(&shop, named, "not what was in force").await,
            }
        }
        let none = SkuRules { max_ttl: Some(prost_types::Duration::default()), ..Default::default() };
        shop.configure("cable", none).await.expect("no limit");
        assert_replay(&shop, lasting(&shortened, Some(MINUTE)), &short_id, "the limit has gone, named").await;
        assert_replay(&shop, shortened.clone(), &short_id, "the limit has gone, unset").await;
        // The answer does not depend on a limit that became shorter than the named ttl.
        let tight = SkuRules { max_ttl: Some(MINUTE.try_into().expect("a ttl")), ..Default::default() };
        shop.configure("cable", tight).await.expect("a limit");
        assert_reused(&shop, lasting(&shortened, Some(2 * MINUTE)), "longer than the limit in force").await;

        // The ttl in force outlives a later deadline. A record of format 1 or 2 has only the deadline.
        shop.extend(&id, Duration::from_secs(3_000), &new_id()).await.expect("extended");
        assert_replay(&shop, backwards(&placed), &id, "extended, unset").await;
        match format {
            3 => assert_replay(&shop, lasting(&placed, Some(DEFAULT_TTL)), &id, "extended, named").await,
            _ => assert_reused(&shop, lasting(&placed, Some(DEFAULT_TTL)), "extended, named").await,
        }
        shop.audit().await;
    }
}

#[tokio::test]
async fn two_orders_of_the_lines_in_one_batch_are_one_request() {
    for format in [2, 3] {
        let server = SentinelProcess::launch().flags(&format!("--format {format}")).start().await;
        let shop = open_shop(&server, "sale").await;
        let plain = reserve_request(&[("vita", 2), ("ps5", 1)]);
        let counted = ReserveRequest { buyer_id: "ada".into(), ..reserve_request(&[("limited", 1), ("pad", 1)]) };
        for placed in [plain, counted] {
            let wordings = [
                placed.clone(),
                backwards(&placed),
                lasting(&placed, Some(DEFAULT_TTL)),
                backwards(&lasting(&placed, Some(DEFAULT_TTL))),
            ];
            let operations = wordings.into_iter().map(|placed| {
                let placed = ReserveRequest { namespace_id: shop.namespace.clone(), ..placed };
                BatchOperation { operation: Some(Operation::Reserve(placed)), timeout: None }
            });
            let request = BatchRequest { operations: operations.collect() };
            let results = shop.checkout.clone().batch(request).await.expect("answers").into_inner().results;
            let mut replayed = 0;
            let mut reservations: Vec<Reservation> = Vec::new();
            for result in results {
                let Some(Received::Reserve(answer)) = result.result else { panic!("{result:?}") };
                replayed += i32::from(answer.replayed);
                let Some(Reserved::Reservation(reservation)) = answer.result else { panic!("{answer:?}") };
                reservations.push(reservation);
            }
            assert_eq!(replayed, 3);
            assert!(reservations.iter().all(|reservation| *reservation == reservations[0]), "{reservations:?}");
            shop.commit(&reservations[0].reservation_id).await.expect("sold");
        }
        assert_eq!((shop.counts("ps5").await, shop.counts("vita").await), ((999, 0, 1), (998, 0, 2)));
        assert_eq!((shop.counts("limited").await, shop.counts("pad").await), ((999, 0, 1), (999, 0, 1)));
        shop.audit().await;
    }
}

#[tokio::test]
async fn a_part_that_is_named_in_another_order_is_the_same_part() {
    for format in 1..=3 {
        let server = SentinelProcess::launch().flags(&format!("--format {format}")).start().await;
        let shop = open_shop(&server, "sale").await;
        let id = shop.hold_order(reserve_request(&[("vita", 4), ("ps5", 4), ("cable", 4)])).await.reservation_id;
        let (sold, given_back) = (new_id(), new_id());
        let commit = async |lines: &[(&str, i32)], rest| shop.commit_lines(&id, lines, rest, &sold).await;
        let rollback = async |lines: &[(&str, i32)]| shop.rollback_lines(&id, lines, &given_back).await;
        commit(&[("vita", 1), ("ps5", 2)], RestPolicy::Keep).await.expect("sold");
        rollback(&[("cable", 1), ("ps5", 1)]).await.expect("given back");
        if format == 2 {
            raise(&shop, 3).await;
        }
        let now = shop.reservation(&id).await.expect("known");
        let again = commit(&[("ps5", 2), ("vita", 1)], RestPolicy::Keep).await.expect("a replay");
        assert!(again.replayed && again.reservation.as_ref() == Some(&now), "{again:?}");
        let again = rollback(&[("ps5", 1), ("cable", 1)]).await.expect("a replay");
        assert!(again.replayed && again.reservation.as_ref() == Some(&now), "{again:?}");

        let reused = |answer: Result<(), tonic::Status>| assert_refused(answer, Reason::RequestIdReused, None);
        reused(commit(&[("ps5", 2), ("vita", 1)], RestPolicy::Release).await.map(drop));
        reused(commit(&[("ps5", 1), ("vita", 2)], RestPolicy::Keep).await.map(drop));
        reused(commit(&[("ps5", 2)], RestPolicy::Keep).await.map(drop));
        reused(rollback(&[("ps5", 1), ("cable", 2)]).await.map(drop));
        reused(rollback(&[("ps5", 2), ("cable", 1)]).await.map(drop));
        reused(shop.rollback_lines(&id, &[("ps5", 2), ("vita", 1)], &sold).await.map(drop));
        reused(shop.commit_lines(&id, &[("ps5", 1), ("cable", 1)], RestPolicy::Keep, &given_back).await.map(drop));
        let other = shop.hold_order(reserve_request(&[("vita", 4), ("ps5", 4)])).await.reservation_id;
        reused(shop.commit_lines(&other, &[("ps5", 2), ("vita", 1)], RestPolicy::Keep, &sold).await.map(drop));
        assert_eq!(shop.counts("ps5").await, (993, 5, 2));
        shop.audit().await;
    }
}

/// The answers about an expired reservation that was repurchased, in each RPC that has one.
async fn assert_names_its_purchase(shop: &TestClient, placed: &ReserveRequest, id: &str, purchase: &str) {
    let expired = shop.reservation(id).await.expect("known");
    assert_eq!((expired.state(), expired.purchase_reservation_id.as_str()), (State::Expired, purchase));
    let rolled_back = shop.rollback(id).await.expect("it was given back");
    assert!(rolled_back.replayed);
    assert_eq!(rolled_back.reservation.as_ref(), Some(&expired));
    assert_replay(shop, backwards(placed), id, "Reserve").await;
    let listed = list(shop).await;
    assert!(listed.contains(&expired), "{listed:?}");
    let late = shop.commit_late(id).await.expect("a replay");
    let bought = shop.reservation(purchase).await.expect("known");
    assert!(late.replayed && late.reservation.as_ref() == Some(&bought), "{late:?}");
    assert_eq!((bought.state(), bought.origin_reservation_id.as_str()), (State::Committed, id));
    assert_eq!(bought.purchase_reservation_id, "");
    assert!(listed.contains(&bought), "{listed:?}");
    assert_refused(shop.rollback(purchase).await, Reason::ReservationAlreadyCommitted, None);
    assert_refused(shop.commit(id).await, Reason::ReservationExpired, None);
}

async fn list(shop: &TestClient) -> Vec<Reservation> {
    let states = vec![State::Expired.into(), State::Committed.into()];
    let mut request =
        v1::ListReservationsRequest { namespace_id: shop.namespace.clone(), states, ..Default::default() };
    let mut listed = Vec::new();
    loop {
        let page = shop.admin.clone().list_reservations(request.clone()).await.expect("a page").into_inner();
        listed.extend(page.reservations);
        if page.next_page_token.is_empty() {
            return listed;
        }
        request.page_token = page.next_page_token;
    }
}

/// The reply to a late Commit is lost, and the caller gives back what seems to be a hold.
#[tokio::test]
async fn an_expired_reservation_names_what_was_bought_of_it() {
    let redis = Redis::start().await;
    let proxy = LossyProxy::start(&redis).await;
    let flags = format!("--redis-url {} --sweep-interval 20ms --store-timeout 500ms --resend-for 500ms", proxy.url());
    let server = SentinelProcess::launch().flags(&flags).start().await;
    let shop = open_shop(&server, "sale").await;
    for kind in [Kind::Plain, Kind::Counted, Kind::Replacing] {
        let (placed, id) = made(&shop, kind, Some(Duration::from_millis(200))).await;
        shop.expired(&id).await;
        assert_eq!(shop.reservation(&id).await.expect("known").purchase_reservation_id, "");
        let (_, _, sold) = shop.counts("vita").await;
        proxy.lose_replies(usize::MAX);
        let lost = shop.commit_late(&id).await;
        proxy.lose_replies(0);
        assert_refused(lost, Reason::OutcomeUnknown, None);

        let rolled_back = shop.rollback(&id).await.expect("it was given back").reservation.expect("one");
        assert_eq!(rolled_back.state(), State::Expired, "{kind:?}");
        let purchase = rolled_back.purchase_reservation_id;
        assert_ne!(purchase, "", "{kind:?}: two units are sold, and the answer names no purchase");
        assert_names_its_purchase(&shop, &placed, &id, &purchase).await;
        assert_eq!(shop.counts("vita").await.2, sold + 2, "{kind:?}");

        // The same answer whatever the settings are now.
        let config =
            NamespaceConfig { default_ttl: Some(prost_types::Duration { seconds: 7, nanos: 0 }), ..Default::default() };
        set(&shop, config).await;
        let rules =
            SkuRules { is_protected: Some(false), buyer_limit: Some(1), max_quantity: Some(1), ..Default::default() };
        shop.configure("vita", rules).await.expect("rules");
        assert_names_its_purchase(&shop, &placed, &id, &purchase).await;
        let rules =
            SkuRules { is_protected: Some(true), buyer_limit: Some(0), max_quantity: Some(0), ..Default::default() };
        shop.configure("vita", rules).await.expect("rules");

        // It holds nothing, so it may be replaced; what was bought of it stays sold.
        let after = ReserveRequest { replaces_reservation_id: id.clone(), ..reserve_request(&[("pad", 1)]) };
        assert_eq!(shop.hold_order(after).await.origin_reservation_id, id);
        assert_names_its_purchase(&shop, &placed, &id, &purchase).await;
    }
    // Of one that was resolved in part before its deadline, the rest.
    let ttl = Some(Duration::from_millis(700));
    let placed = lasting(&reserve_request(&[("ps5", 3), ("vita", 2)]), ttl);
    let id = shop.hold_order(placed.clone()).await.reservation_id;
    shop.rollback_lines(&id, &[("ps5", 1), ("vita", 2)], &new_id()).await.expect("given back");
    shop.expired(&id).await;
    let bought = shop.commit_late(&id).await.expect("repurchased").reservation.expect("one");
    assert_eq!((bought.lines.len(), bought.lines[0].sold), (1, 2));
    assert_names_its_purchase(&shop, &placed, &id, &bought.reservation_id).await;
    // A hold that replaces it and expires too has a separate purchase.
    let next = ReserveRequest { replaces_reservation_id: id.clone(), ..lasting(&reserve_request(&[("pad", 1)]), ttl) };
    let second = shop.hold_order(next.clone()).await.reservation_id;
    shop.expired(&second).await;
    let again = shop.commit_late(&second).await.expect("repurchased").reservation.expect("one").reservation_id;
    assert_names_its_purchase(&shop, &next, &second, &again).await;
    shop.audit().await;
}

/// Older scripts read the records of older formats.
#[tokio::test]
async fn an_older_format_names_no_purchase_until_it_is_raised() {
    let server = SentinelProcess::launch().flags("--format 2 --sweep-interval 20ms").start().await;
    let shop = open_shop(&server, "sale").await;
    let ttl = Some(Duration::from_millis(50));
    let (_, bought) = made(&shop, Kind::Bought, ttl).await;
    let mut expired = Vec::new();
    for kind in [Kind::Plain, Kind::Counted, Kind::Replacing] {
        let (placed, id) = made(&shop, kind, ttl).await;
        shop.expired(&id).await;
        expired.push((placed, id));
    }
    raise(&shop, 3).await;
    assert!(shop.commit_late(&bought).await.expect("a replay").replayed);
    assert_eq!(shop.reservation(&bought).await.expect("known").purchase_reservation_id, "");
    for (placed, id) in expired {
        let purchase = shop.commit_late(&id).await.expect("repurchased").reservation.expect("one").reservation_id;
        assert_names_its_purchase(&shop, &placed, &id, &purchase).await;
    }
    shop.audit().await;
}

/// The one is in the older generation of records, the other in the current one; they are forgotten together.
#[tokio::test]
async fn a_reservation_of_the_older_generation_names_its_purchase() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms").start().await;
    let shop = open_shop(&server, "sale").await;
    let retention = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    set(&shop, NamespaceConfig { retention, ..Default::default() }).await;
    let keys = partition_keys("sale", 0);
    // The generations that have a record of this buyer.
    let generations_of = async |buyer: &str| {
        let mut found = Vec::new();
        for key in keys.records() {
            let records: Vec<Vec<u8>> = redis.query(&Cmd::hvals(key)).await;
            if records.iter().any(|record| record.windows(buyer.len()).any(|part| part == buyer.as_bytes())) {
                found.push(key);
            }
        }
        found
    };
    let sell = async || {
        let buyer = new_id();
        let sold = shop.hold_order(ReserveRequest { buyer_id: buyer.clone(), ..reserve_request(&[("pad", 1)]) }).await;
        shop.commit(&sold.reservation_id).await.expect("sold");
        buyer
    };
    let (buyer, id) = eventually("a record is in the older generation", async || {
        let buyer = new_id();
        let placed = ReserveRequest { buyer_id: buyer.clone(), ..reserve_request(&[("ps5", 1), ("vita", 2)]) };
        let id = shop.hold_order(lasting(&placed, Some(Duration::from_millis(1)))).await.reservation_id;
        let is_older = eventually("the generations change", async || {
            let (now, then) = (generations_of(&sell().await).await, generations_of(&buyer).await);
            (now != then).then_some(!then.is_empty())
        });
        is_older.await.then_some((buyer, id))
    })
    .await;
    let bought = shop.commit_late(&id).await.expect("repurchased").reservation.expect("one").reservation_id;
    assert_eq!(generations_of(&buyer).await.len(), 2);
    let expired = shop.reservation(&id).await.expect("known");
    assert_eq!((expired.state(), expired.purchase_reservation_id), (State::Expired, bought.clone()));
    shop.audit().await;
    eventually("it is forgotten", async || {
        sell().await;
        shop.reservation(&bought).await.expect("what names it is forgotten first");
        shop.reservation(&id).await.err()
    })
    .await;
    shop.audit().await;
}
