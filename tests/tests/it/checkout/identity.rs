//! Each change has an identity. A repeat has no further effect, from whichever caller and after whichever lost reply.

use std::time::Duration;

use inventory_sentinel::{
    Reason,
    v1::{
        BatchOperation, BatchRequest, ConfigureNamespaceRequest, GetReservationRequest, NamespaceConfig,
        ReservationState, ReserveRequest, ReserveResponse, RestPolicy, SkuRules, batch_operation::Operation,
        batch_result::Result as Received, reserve_response::Result as Reserved,
    },
};
use sentinel_tests::{
    LossyProxy, Redis, SentinelProcess, TestClient, assert_refused, eventually, millis, new_id, reason, reserve_request,
};
use tokio::task::JoinSet;
use tonic::Request;

fn id_of(result: Option<Reserved>) -> String {
    match result {
        Some(
            Reserved::Reservation(reservation)
            | Reserved::AlreadyPurchased(reservation)
            | Reserved::AlreadyReleased(reservation),
        ) => reservation.reservation_id,
        other => panic!("no reservation: {other:?}"),
    }
}

#[tokio::test]
async fn a_repeated_reserve_is_told_the_reservation_as_it_is_now() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let placed = ReserveRequest { buyer_id: "ada".into(), ..reserve_request(&[("ps5", 2)]) };
    let first = shop.reserve(placed.clone()).await.expect("held");
    assert!(!first.replayed);
    let again = shop.reserve(placed.clone()).await.expect("held");
    assert!(again.replayed);
    assert_eq!(again.result, first.result);
    assert_eq!(again.sequence, first.sequence, "a replay changes nothing");

    let id = id_of(first.result);
    assert!(!shop.commit(&id).await.expect("sold").replayed);
    let late = shop.reserve(placed).await.expect("an answer");
    let Some(Reserved::AlreadyPurchased(now)) = late.result else { panic!("{late:?}") };
    assert!(late.replayed);
    assert_eq!(now.state(), ReservationState::Committed);
    assert_eq!((now.lines[0].held, now.lines[0].sold, now.lines[0].released), (0, 2, 0));
    assert_eq!(shop.counts("ps5").await, (8, 0, 2));
}

/// "What became of order 4711?"
#[tokio::test]
async fn a_reservation_is_found_by_its_request_id_in_whatever_partition_it_lies() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--partitions 4").start().await;
    let shop = server.shop("sale");
    let find = async |request_id: &str| {
        let request_id = request_id.to_owned();
        let request = GetReservationRequest { namespace_id: "sale".into(), request_id, ..Default::default() };
        shop.checkout.clone().get_reservation(request).await.map(|found| found.into_inner().reservation.expect("one"))
    };
    assert_refused(find("order-1").await, Reason::NamespaceNotFound, None);
    let long = "an-order-with-a-name-of-more-than-17-bytes".to_owned();
    let ids = [new_id(), new_id(), "order-4711".into(), "order-4712-2".into(), long.clone()];
    let mut held = Vec::new();
    for (i, request_id) in ids.iter().enumerate() {
        let sku = format!("sku-{i}");
        shop.supply(&sku, 10).await;
        let placed = ReserveRequest { request_id: request_id.clone(), ..reserve_request(&[(&sku, 1)]) };
        held.push(shop.hold_order(placed).await);
    }
    shop.commit(&held[1].reservation_id).await.expect("sold");
    for (made, request_id) in held.iter().zip(&ids) {
        let found = find(request_id).await.expect("found");
        assert_eq!(found, shop.reservation(&made.reservation_id).await.expect("known"), "{request_id}");
        let shown = if *request_id == long { "" } else { request_id };
        assert_eq!((found.request_id.as_str(), made.request_id.as_str()), (shown, shown));
    }
    assert_refused(find("order-4713").await, Reason::ReservationNotFound, None);
    // A change that is no reservation has a request_id too.
    shop.extend(&held[0].reservation_id, Duration::from_secs(900), "extension-1").await.expect("extended");
    assert_refused(find("extension-1").await, Reason::ReservationNotFound, None);
    let both = GetReservationRequest {
        namespace_id: "sale".into(),
        request_id: ids[0].clone(),
        reservation_id: held[0].reservation_id.clone(),
    };
    assert_refused(shop.checkout.clone().get_reservation(both).await, Reason::InvalidRequestId, Some("request_id"));

    // One request_id for carts of two partitions: the last one is the answer, of a Batch too.
    let twice = |sku: &str| ReserveRequest { request_id: "order-9".into(), ..reserve_request(&[(sku, 1)]) };
    let mut made = vec![shop.hold_order(twice("sku-0")).await];
    for sku in ["sku-1", "sku-2", "sku-3", "sku-4"] {
        if let Ok(ReserveResponse { result: Some(Reserved::Reservation(held)), replayed: false, .. }) =
            shop.reserve(twice(sku)).await
        {
            made.push(held);
        }
    }
    assert!(made.len() > 1, "the SKUs lie in several partitions");
    let last = made.iter().map(|held| millis(held.created_at)).max().expect("one");
    let found = find("order-9").await.expect("found");
    assert_eq!(millis(found.created_at), last);
    let read =
        GetReservationRequest { namespace_id: "sale".into(), request_id: "order-9".into(), ..Default::default() };
    let operation = Some(Operation::GetReservation(read));
    let request = BatchRequest { operations: vec![BatchOperation { operation, timeout: None }] };
    let mut results = shop.checkout.clone().batch(request).await.expect("answers").into_inner().results;
    let Some(Received::GetReservation(again)) = results.remove(0).result else { panic!("no answer of a read") };
    assert_eq!(again.reservation, Some(found));
}

/// Ids that were derived in another way stay what they are.
#[tokio::test]
async fn a_namespace_of_an_older_format_keeps_its_ids_when_it_is_raised() {
    let server = SentinelProcess::launch().flags("--format 4").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let placed = ReserveRequest { request_id: "order-4711".into(), ..reserve_request(&[("ps5", 1)]) };
    let held = shop.hold_order(placed.clone()).await;
    assert_eq!(held.request_id, "");
    let config = Some(NamespaceConfig { format: Some(5), ..Default::default() });
    let request = ConfigureNamespaceRequest { namespace_id: "sale".into(), config, ..Default::default() };
    shop.admin.clone().configure_namespace(request).await.expect("raised");
    let again = shop.reserve(placed).await.expect("an answer");
    assert!(again.replayed);
    assert_eq!(id_of(again.result), held.reservation_id);
    let request =
        GetReservationRequest { namespace_id: "sale".into(), request_id: "order-4711".into(), ..Default::default() };
    let found = shop.checkout.clone().get_reservation(request).await.expect("found").into_inner().reservation;
    assert_eq!(found.map(|found| found.reservation_id), Some(held.reservation_id));
}

/// The natural checkout charges where the answer has a `reservation`.
#[tokio::test]
async fn a_repeated_reserve_is_a_hold_only_while_units_are_held() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let again = async |placed: &ReserveRequest| {
        let single = shop.reserve(placed.clone()).await.expect("an answer");
        let placed = ReserveRequest { namespace_id: shop.namespace.clone(), ..placed.clone() };
        let operation = Some(Operation::Reserve(placed));
        let request = BatchRequest { operations: vec![BatchOperation { operation, timeout: None }] };
        let mut results = shop.checkout.clone().batch(request).await.expect("answers").into_inner().results;
        let Some(Received::Reserve(batched)) = results.remove(0).result else { panic!("no answer of a Reserve") };
        assert_eq!(batched, single, "a Batch returns the same");
        assert!(single.replayed);
        single.result
    };

    // A part is bought and the rest is held still.
    let placed = reserve_request(&[("ps5", 2)]);
    let id = id_of(shop.reserve(placed.clone()).await.expect("held").result);
    shop.commit_lines(&id, &[("ps5", 1)], RestPolicy::Keep, &new_id()).await.expect("sold in part");
    assert!(matches!(again(&placed).await, Some(Reserved::Reservation(held)) if held.lines[0].held == 1));
    // The rest is given back: something was bought.
    shop.rollback(&id).await.expect("given back");
    assert!(matches!(again(&placed).await, Some(Reserved::AlreadyPurchased(bought)) if bought.reservation_id == id));

    let declined = reserve_request(&[("ps5", 2)]);
    let id = id_of(shop.reserve(declined.clone()).await.expect("held").result);
    shop.rollback(&id).await.expect("given back");
    assert!(matches!(again(&declined).await, Some(Reserved::AlreadyReleased(over)) if over.reservation_id == id));

    // A hold that has expired, and that a late Commit buys then.
    let ttl = Some(Duration::from_millis(1).try_into().expect("a ttl"));
    let late = ReserveRequest { ttl, ..reserve_request(&[("ps5", 2)]) };
    let id = id_of(shop.reserve(late.clone()).await.expect("held").result);
    shop.expired(&id).await;
    assert!(matches!(again(&late).await, Some(Reserved::AlreadyReleased(over)) if over.reservation_id == id));
    shop.commit_late(&id).await.expect("bought");
    let Some(Reserved::AlreadyPurchased(bought)) = again(&late).await else { panic!("not seen as bought") };
    assert_eq!((bought.state(), bought.reservation_id), (ReservationState::Expired, id));
    assert!(!bought.purchase_reservation_id.is_empty());
    assert_eq!(shop.counts("ps5").await, (7, 0, 3));
}

#[tokio::test]
async fn a_hundred_identical_reserves_at_once_make_one_hold() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let placed = reserve_request(&[("ps5", 1)]);
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let (shop, placed) = (shop.clone(), placed.clone());
        calls.spawn(async move { shop.reserve(placed).await.expect("an answer") });
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    let ids: std::collections::HashSet<_> = answers.into_iter().map(|answer| id_of(answer.result)).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(shop.counts("ps5").await, (99, 1, 0));
}

#[tokio::test]
async fn of_two_carts_under_one_identity_at_once_one_is_refused_whole() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let request_id = new_id();
    let mut calls = JoinSet::new();
    for i in 0..100 {
        let (shop, request_id) = (shop.clone(), request_id.clone());
        let placed = ReserveRequest { request_id, ..reserve_request(&[("ps5", 1 + i % 2)]) };
        calls.spawn(async move { shop.reserve(placed).await });
    }
    let (held, refused): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((held.len(), refused.len()), (50, 50));
    for refusal in refused {
        assert_refused(refusal, Reason::RequestIdReused, None);
    }
    let (_, units, _) = shop.counts("ps5").await;
    assert!(units == 1 || units == 2, "one of the carts, once: {units}");
}

#[tokio::test]
async fn changes_of_stock_are_applied_once() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    assert!(!shop.set_stock("ps5", 10, "opening").await.expect("set").replayed);
    assert!(!shop.adjust_stock("ps5", 5, "delivery").await.expect("adjusted").replayed);
    // As it is now: 15, not the 10 of that time.
    let again = shop.set_stock("ps5", 10, "opening").await.expect("set");
    assert!(again.replayed);
    assert_eq!(again.stock.unwrap().available, 15);

    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let shop = shop.clone();
        calls.spawn(async move { shop.adjust_stock("ps5", 7, "second").await.expect("adjusted").replayed });
    }
    assert_eq!(calls.join_all().await.into_iter().filter(|replayed| !replayed).count(), 1);
    assert_eq!(shop.counts("ps5").await, (22, 0, 0));
}

#[tokio::test]
async fn a_first_attempt_is_spared_the_look_for_an_earlier_one_and_nothing_else() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    let placed = ReserveRequest { first_attempt: true, ..reserve_request(&[("ps5", 1)]) };
    let first = shop.reserve(placed.clone()).await.expect("held");
    assert!(!first.replayed);
    let another = shop.reserve(ReserveRequest { request_id: new_id(), ..placed.clone() }).await.expect("an answer");
    assert!(matches!(another.result, Some(Reserved::Shortage(_))), "{another:?}");

    // A proper repeat is recognized, whether the caller or a proxy marks it as one.
    let id = id_of(first.result);
    let repeated = ReserveRequest { first_attempt: false, ..placed.clone() };
    let again = shop.reserve(repeated).await.expect("held");
    assert_eq!((again.replayed, id_of(again.result)), (true, id.clone()));
    let named = ReserveRequest { namespace_id: shop.namespace.clone(), ..placed.clone() };
    for (header, value) in [("grpc-previous-rpc-attempts", "1"), ("x-envoy-attempt-count", "2")] {
        let mut call = Request::new(named.clone());
        call.metadata_mut().insert(header, value.parse().expect("a value"));
        let again = shop.checkout.clone().reserve(call).await.expect("held").into_inner();
        assert_eq!((again.replayed, id_of(again.result)), (true, id.clone()), "{header}");
    }
    let mut call = Request::new(named.clone());
    call.metadata_mut().insert("x-envoy-attempt-count", "1".parse().expect("a value"));
    let believed = shop.checkout.clone().reserve(call).await.expect("an answer").into_inner();
    assert!(matches!(believed.result, Some(Reserved::Shortage(_))), "the first of Envoy's: {believed:?}");
    let operation = Some(Operation::Reserve(named));
    let mut call = Request::new(BatchRequest { operations: vec![BatchOperation { operation, timeout: None }] });
    call.metadata_mut().insert("grpc-previous-rpc-attempts", "2".parse().expect("a value"));
    let results = shop.checkout.clone().batch(call).await.expect("answers").into_inner().results;
    let Some(Received::Reserve(again)) = results.into_iter().next().and_then(|entry| entry.result) else { panic!() };
    assert_eq!((again.replayed, id_of(again.result)), (true, id.clone()));

    // A wrong first_attempt can cost its caller an answer, and the shop nothing.
    let mistaken = shop.reserve(placed.clone()).await.expect("an answer");
    assert!(matches!(mistaken.result, Some(Reserved::Shortage(_))), "{mistaken:?}");
    assert_eq!(shop.counts("ps5").await, (0, 1, 0));
    shop.supply("ps5", 5).await;
    let mistaken = shop.reserve(placed.clone()).await.expect("held");
    assert_eq!((mistaken.replayed, id_of(mistaken.result)), (true, id));
    let other = ReserveRequest { lines: reserve_request(&[("ps5", 2)]).lines, ..placed };
    assert_refused(shop.reserve(other).await, Reason::RequestIdReused, None);
    assert_eq!(shop.counts("ps5").await, (4, 1, 0));

    // The same with a longer record, that of a hold which counts for its buyer.
    shop.supply("vita", 5).await;
    shop.configure("vita", SkuRules { buyer_limit: Some(1), ..Default::default() }).await.expect("a limit");
    let placed = ReserveRequest { first_attempt: true, buyer_id: "ada".into(), ..reserve_request(&[("vita", 1)]) };
    let id = id_of(shop.reserve(placed.clone()).await.expect("held").result);
    shop.configure("vita", SkuRules { buyer_limit: Some(0), ..Default::default() }).await.expect("no limit");
    let mistaken = shop.reserve(placed.clone()).await.expect("held");
    assert_eq!((mistaken.replayed, id_of(mistaken.result)), (true, id));
    assert_eq!(shop.counts("vita").await, (4, 1, 0));
    shop.audit().await;
}

#[tokio::test]
async fn first_attempts_and_repeats_at_once_hold_each_unit_once() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 50).await;
    let orders: Vec<_> =
        (0..100).map(|_| ReserveRequest { first_attempt: true, ..reserve_request(&[("ps5", 1)]) }).collect();
    let mut calls = JoinSet::new();
    for placed in &orders {
        let (shop, placed) = (shop.clone(), placed.clone());
        calls.spawn(async move {
            let first = shop.reserve(placed.clone()).await.expect("an answer");
            let again = shop.reserve(ReserveRequest { first_attempt: false, ..placed }).await.expect("an answer");
            match (first.result, again.result) {
                (Some(Reserved::Reservation(first)), Some(Reserved::Reservation(again))) => {
                    assert_eq!(first.reservation_id, again.reservation_id);
                    1
                }
                (Some(Reserved::Shortage(_)), Some(Reserved::Shortage(_))) => 0,
                other => panic!("{other:?}"),
            }
        });
    }
    assert_eq!(calls.join_all().await.into_iter().sum::<i32>(), 50);
    assert_eq!(shop.counts("ps5").await, (0, 50, 0));
    shop.audit().await;
}

#[tokio::test]
async fn a_shortage_and_a_refusal_are_not_remembered() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    let placed = reserve_request(&[("ps5", 2)]);
    let short = shop.reserve(placed.clone()).await.expect("an answer");
    assert!(matches!(short.result, Some(Reserved::Shortage(_))));
    shop.supply("ps5", 2).await;
    let answer = shop.reserve(placed).await.expect("an answer");
    assert!(!answer.replayed);
    id_of(answer.result);

    let early = reserve_request(&[("vita", 1)]);
    assert_eq!(reason(&shop.reserve(early.clone()).await.expect_err("unknown")), Reason::SkuNotFound);
    shop.supply("vita", 1).await;
    assert!(!shop.reserve(early).await.expect("an answer").replayed);
}

#[tokio::test]
async fn commit_and_rollback_repeat_harmlessly() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let (sold, given_back) = (shop.hold("ps5", 3).await.reservation_id, shop.hold("ps5", 4).await.reservation_id);
    let first = shop.commit(&sold).await.expect("sold");
    for _ in 0..3 {
        let again = shop.commit(&sold).await.expect("sold");
        assert!(again.replayed && !first.replayed);
        assert_eq!(again.reservation, first.reservation);
    }
    let first = shop.rollback(&given_back).await.expect("given back");
    for _ in 0..3 {
        let again = shop.rollback(&given_back).await.expect("given back");
        assert!(again.replayed && !first.replayed);
        assert_eq!(again.reservation, first.reservation);
    }
    assert_eq!(shop.counts("ps5").await, (7, 0, 3));
    // A concurrent Commit and Rollback: one of them decides, and the other is refused with that result.
    let id = shop.hold("ps5", 1).await.reservation_id;
    let (commit, rollback) = tokio::join!(shop.commit(&id), shop.rollback(&id));
    match (commit, rollback) {
        (Ok(_), refused) => assert_refused(refused, Reason::ReservationAlreadyCommitted, None),
        (refused, Ok(_)) => assert_refused(refused, Reason::ReservationRolledBack, None),
        other => panic!("{other:?}"),
    }
    shop.audit().await;
}

/// Each kind of change. The server repeats it automatically when the reply is lost.
#[tokio::test]
async fn a_reply_cut_off_after_the_change_leaves_one_effect() {
    let redis = Redis::start().await;
    let proxy = LossyProxy::start(&redis).await;
    let server = SentinelProcess::launch().flags(&format!("--redis-url {}", proxy.url())).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let held = shop.hold("ps5", 1).await.reservation_id;
    let other = shop.hold("ps5", 1).await.reservation_id;

    let mut lost = 0;
    let mut lose = || {
        assert_eq!(proxy.lost(), lost);
        lost += 2;
        proxy.lose_replies(2);
    };
    lose();
    shop.set_stock("vita", 5, &new_id()).await.expect("set");
    lose();
    shop.adjust_stock("vita", 5, &new_id()).await.expect("adjusted");
    lose();
    shop.hold("vita", 3).await;
    lose();
    shop.commit(&held).await.expect("sold");
    lose();
    shop.rollback(&other).await.expect("given back");
    lose();
    shop.protect("vita", false).await.expect("a rule");
    shop.supply("cable", 1).await;
    lose();
    shop.delete_sku("cable").await.expect("deleted");
    // The last unit: what the server sends again is no first attempt any more.
    shop.supply("last", 1).await;
    lose();
    shop.hold_order(ReserveRequest { first_attempt: true, ..reserve_request(&[("last", 1)]) }).await;
    assert_eq!(proxy.lost(), 16, "each reply was lost twice");
    assert_eq!(shop.counts("last").await, (0, 1, 0));
    assert_eq!(shop.counts("vita").await, (7, 3, 0));
    assert_eq!(shop.counts("ps5").await, (9, 0, 1));
    assert!(!shop.is_protected("vita").await);
    shop.audit().await;
}

/// Stops Redis, makes a call whose outcome its caller can't know, and lets Redis go on.
async fn lose_by_stopping<T>(redis: &Redis, call: impl Future<Output = Result<T, tonic::Status>>) {
    redis.stop();
    let refused = call.await.map(|_| ());
    redis.cont();
    assert_refused(refused, Reason::OutcomeUnknown, None);
}

#[tokio::test]
async fn after_an_unknown_outcome_the_same_identity_has_one_effect() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--store-timeout 200ms --resend-for 300ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;

    let placed = reserve_request(&[("ps5", 2)]);
    lose_by_stopping(&redis, shop.reserve(placed.clone())).await;
    let id = id_of(repeat(&shop, async || shop.reserve(placed.clone()).await).await.result);
    assert_eq!(shop.counts("ps5").await, (8, 2, 0));

    lose_by_stopping(&redis, shop.adjust_stock("ps5", 5, "delivery")).await;
    repeat(&shop, async || shop.adjust_stock("ps5", 5, "delivery").await).await;
    assert_eq!(shop.counts("ps5").await, (13, 2, 0));

    lose_by_stopping(&redis, shop.commit(&id)).await;
    repeat(&shop, async || shop.commit(&id).await).await;
    assert_eq!(shop.counts("ps5").await, (13, 0, 2));
    shop.audit().await;
}

/// Repeats a call as its caller should: as long as it is refused as worth repeating.
async fn repeat<T>(shop: &TestClient, call: impl AsyncFn() -> Result<T, tonic::Status>) -> T {
    eventually(&format!("an answer in {}", shop.namespace), async || match call().await {
        Ok(answer) => Some(answer),
        Err(status) => {
            let reason = reason(&status);
            assert!(matches!(reason, Reason::OutcomeUnknown | Reason::StoreUnavailable), "{status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    })
    .await
}
