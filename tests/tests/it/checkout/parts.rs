//! Commits and rollbacks in part, late commits, extension and replacement: every unit is resolved once.

use std::time::Duration;

use inventory_sentinel::{
    Reason,
    v1::{self, ReservationState as State, RestPolicy},
};
use sentinel_tests::{SentinelProcess, TestClient, assert_refused, eventually, millis, new_id, reserve_request};
use tonic_types::StatusExt as _;

const MINUTE: Duration = Duration::from_secs(60);

/// Held, sold and released units of each line.
fn shares(reservation: &Option<v1::Reservation>) -> Vec<(i32, i32, i32)> {
    let reservation = reservation.as_ref().expect("an answer has a reservation");
    reservation.lines.iter().map(|line| (line.held, line.sold, line.released)).collect()
}

async fn cart(shop: &TestClient) -> String {
    shop.supply("ps5", 10).await;
    shop.supply("cable", 10).await;
    shop.hold_order(reserve_request(&[("ps5", 2), ("cable", 3)])).await.reservation_id
}

#[tokio::test]
async fn a_part_is_committed_and_the_rest_given_back() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let id = cart(&shop).await;
    let request = new_id();
    let answer = shop.commit_lines(&id, &[("cable", 2)], RestPolicy::Release, &request).await.expect("a part");
    assert_eq!(shares(&answer.reservation), [(0, 0, 2), (0, 2, 1)]);
    assert_eq!(answer.reservation.as_ref().expect("one").state(), State::Committed);
    assert_eq!((shop.counts("ps5").await, shop.counts("cable").await), ((10, 0, 0), (8, 0, 2)));

    // Repeated as it was, it is a replay; with other lines, a mistake; by another request, too late.
    let again = shop.commit_lines(&id, &[("cable", 2)], RestPolicy::Release, &request).await.expect("a replay");
    assert!(again.replayed && again.reservation == answer.reservation);
    let other = shop.commit_lines(&id, &[("cable", 1)], RestPolicy::Release, &request).await;
    assert_refused(other, Reason::RequestIdReused, None);
    let late = shop.commit_lines(&id, &[("cable", 1)], RestPolicy::Release, &new_id()).await;
    assert_refused(late, Reason::ReservationAlreadyCommitted, None);
    // Whole commits and rollbacks repeat harmlessly, whatever the parts were.
    assert!(shop.commit(&id).await.expect("a replay").replayed);
    assert!(shop.rollback(&id).await.expect("some was given back").replayed);
    shop.audit().await;
}

#[tokio::test]
async fn a_part_is_kept_until_it_is_resolved_or_due() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let id = cart(&shop).await;
    let answer = shop.commit_lines(&id, &[("ps5", 1)], RestPolicy::Keep, &new_id()).await.expect("a part");
    assert_eq!(shares(&answer.reservation), [(1, 1, 0), (3, 0, 0)]);
    assert_eq!(answer.reservation.expect("one").state(), State::Pending);
    let answer = shop.rollback_lines(&id, &[("cable", 2), ("ps5", 1)], &new_id()).await.expect("a part");
    assert_eq!(shares(&answer.reservation), [(0, 1, 1), (1, 0, 2)]);
    let over = shop.rollback_lines(&id, &[("cable", 2)], &new_id()).await;
    assert_refused(over, Reason::LineNotHeld, None);
    let unknown = shop.commit_lines(&id, &[("vita", 1)], RestPolicy::Keep, &new_id()).await;
    assert_refused(unknown, Reason::LineNotHeld, None);
    shop.audit().await;
    let answer = shop.rollback(&id).await.expect("the rest");
    // Something was bought: that is what it is for good.
    assert_eq!(answer.reservation.as_ref().expect("one").state(), State::Committed);
    assert_eq!(shares(&answer.reservation), [(0, 1, 1), (0, 0, 3)]);
    assert!(shop.rollback(&id).await.expect("a replay").replayed);
    assert_eq!((shop.counts("ps5").await, shop.counts("cable").await), ((9, 0, 1), (10, 0, 0)));
    shop.audit().await;
}

#[tokio::test]
async fn what_is_kept_comes_back_at_the_deadline() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 5).await;
    let id = shop.hold_for("ps5", 3, Duration::from_millis(700)).await.reservation_id;
    shop.commit_lines(&id, &[("ps5", 1)], RestPolicy::Keep, &new_id()).await.expect("a part");
    eventually("the rest comes back", async || (shop.counts("ps5").await == (4, 0, 1)).then_some(())).await;
    let reservation = shop.reservation(&id).await.expect("it is known");
    assert_eq!(reservation.state(), State::Committed);
    assert_eq!(shares(&Some(reservation.clone())), [(0, 1, 2)]);
    assert_eq!(millis(reservation.resolved_at), millis(reservation.expires_at));
    shop.audit().await;
}

#[tokio::test]
async fn paid_late_it_is_bought_anew_or_refunded() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 3).await;
    let id = shop.hold_for("ps5", 2, Duration::from_millis(50)).await.reservation_id;
    shop.expired(&id).await;
    assert_refused(shop.commit(&id).await, Reason::ReservationExpired, None);
    let bought = shop.commit_late(&id).await.expect("repurchased");
    let purchase = bought.reservation.clone().expect("one");
    assert_eq!((purchase.state(), purchase.origin_reservation_id.as_str()), (State::Committed, id.as_str()));
    assert_ne!(purchase.reservation_id, id);
    assert_eq!(shop.counts("ps5").await, (1, 0, 2));
    let again = shop.commit_late(&id).await.expect("a replay");
    assert!(again.replayed && again.reservation == bought.reservation);
    assert_eq!(shop.reservation(&id).await.expect("known").state(), State::Expired, "expired stays final");

    let id = shop.hold_for("ps5", 1, Duration::from_millis(50)).await.reservation_id;
    shop.expired(&id).await;
    shop.hold("ps5", 1).await;
    assert_refused(shop.commit_late(&id).await, Reason::LateCommitSoldOut, None);
    // Units given back before the deadline are not repurchased.
    for sku in ["pad", "cable"] {
        shop.supply(sku, 5).await;
    }
    let ttl = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let cart = v1::ReserveRequest { ttl, ..reserve_request(&[("pad", 3), ("cable", 2)]) };
    let id = shop.hold_order(cart).await.reservation_id;
    shop.rollback_lines(&id, &[("pad", 1), ("cable", 2)], &new_id()).await.expect("given back in part");
    shop.expired(&id).await;
    let expired = shop.reservation(&id).await.expect("known");
    assert!(expired.lines.iter().all(|line| line.released == line.quantity && line.held + line.sold == 0));
    let left = shop.supply("pad", 1).await;
    assert_eq!(left.available, 1);
    let short = shop.commit_late(&id).await.expect_err("one is short");
    assert_eq!(short.get_error_details().error_info().expect("info").metadata["available"], "pad: 1 of 2");
    shop.supply("pad", 5).await;
    let purchase = shop.commit_late(&id).await.expect("repurchased").reservation.expect("one");
    let bought: Vec<_> = purchase.lines.iter().map(|line| (line.sku.as_str(), line.quantity, line.sold)).collect();
    assert_eq!(bought, [("pad", 2, 2)]);
    assert_eq!((shop.counts("pad").await, shop.counts("cable").await), ((3, 0, 2), (5, 0, 0)));
    // In time it is a plain commit.
    shop.supply("vita", 1).await;
    let id = shop.hold("vita", 1).await.reservation_id;
    let answer = shop.commit_late(&id).await.expect("in time");
    assert_eq!(answer.reservation.expect("one").reservation_id, id);
    shop.audit().await;
}

#[tokio::test]
async fn a_deadline_moves_away_but_not_for_ever() {
    let server = SentinelProcess::launch().flags("--max-ttl 1m --default-ttl 1m --max-life 2m").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000_000).await;
    let held = shop.hold_for("ps5", 1, Duration::from_millis(400)).await;
    let (id, request) = (held.reservation_id.clone(), new_id());
    let extended = shop.extend(&id, MINUTE, &request).await.expect("extended");
    let reservation = extended.reservation.clone().expect("one");
    let life = millis(reservation.expires_at) - millis(reservation.created_at);
    assert!((60_000..70_000).contains(&life), "{life}");
    let left = extended.extendable.expect("what is left");
    assert_eq!(left.seconds * 1_000 + i64::from(left.nanos) / 1_000_000, 120_000 - life);
    let again = shop.extend(&id, MINUTE, &request).await.expect("a replay");
    assert!(again.replayed && again.reservation == extended.reservation);
    // Never nearer.
    let same = shop.extend(&id, Duration::from_millis(1), &new_id()).await.expect("no nearer");
    assert_eq!(same.reservation.expect("one").expires_at, reservation.expires_at);
    // The first deadline passes and takes nothing with it.
    let first = millis(held.expires_at);
    eventually("the first deadline passes", async || {
        (millis(shop.hold("ps5", 1).await.created_at) > first).then_some(())
    })
    .await;
    assert_eq!(shop.reservation(&id).await.expect("known").state(), State::Pending);
    shop.audit().await;

    let capped = SentinelProcess::launch().flags("--max-ttl 1m --default-ttl 1m --max-life 1m").start().await;
    let shop = capped.shop("sale");
    shop.supply("ps5", 1).await;
    let id = shop.hold("ps5", 1).await.reservation_id;
    eventually("a moment passes", async || {
        shop.extend(&id, MINUTE, &new_id()).await.err().map(|status| {
            assert_refused(Err::<(), _>(status), Reason::ExtendLimit, None);
        })
    })
    .await;
    shop.commit(&id).await.expect("sold");
    assert_refused(shop.extend(&id, MINUTE, &new_id()).await, Reason::ReservationAlreadyCommitted, None);
}

#[tokio::test]
async fn a_hold_is_swapped_for_another_in_one_step() {
    let server = SentinelProcess::launch().flags("--partitions 4").start().await;
    let shop = server.shop("sale");
    shop.supply("concert~a", 2).await;
    shop.supply("concert~b", 1).await;
    let first = shop.hold("concert~a", 2).await.reservation_id;
    let swap = |sku: &str, quantity, replaced: &str| v1::ReserveRequest {
        replaces_reservation_id: replaced.into(),
        ..reserve_request(&[(sku, quantity)])
    };
    // The units of the first are there for the second, and only for it.
    let request = swap("concert~a", 2, &first);
    let answer = shop.reserve(request.clone()).await.expect("an answer");
    let Some(v1::reserve_response::Result::Reservation(second)) = answer.result else { panic!("{answer:?}") };
    assert_eq!(second.origin_reservation_id, first);
    assert_eq!(shop.reservation(&first).await.expect("known").state(), State::RolledBack);
    assert_eq!(shop.counts("concert~a").await, (0, 2, 0));
    assert!(shop.reserve(request).await.expect("a replay").replayed);
    // Short, it leaves the first as it is.
    let short = shop.reserve(swap("concert~b", 2, &second.reservation_id)).await.expect("an answer");
    assert!(matches!(short.result, Some(v1::reserve_response::Result::Shortage(_))), "{short:?}");
    assert_eq!(shop.counts("concert~a").await, (0, 2, 0));
    shop.commit(&second.reservation_id).await.expect("sold");
    let sold = shop.reserve(swap("concert~b", 1, &second.reservation_id)).await;
    assert_refused(sold, Reason::ReservationAlreadyCommitted, None);
    shop.audit().await;
}

/// Changes are recorded in the reservation, so neither a quota nor other requests can prevent them.
#[tokio::test]
async fn a_reservation_remembers_its_changes_up_to_a_limit() {
    let server = SentinelProcess::launch().flags("--quota-records 3").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 200).await;
    let placed = v1::ReserveRequest { request_id: "order-1".into(), ..reserve_request(&[("ps5", 100)]) };
    let [one, other] = [shop.hold_order(placed).await.reservation_id, shop.hold("ps5", 2).await.reservation_id];
    let third = shop.hold_for("ps5", 1, Duration::from_millis(1)).await.reservation_id;
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::NamespaceQuota, None);

    // At the quota, everything that resolves or prolongs a hold still works, also a late Commit. An identity belongs to
    // its reservation: the same one for another reservation, or for its Reserve, is another request.
    shop.expired(&third).await;
    shop.commit_late(&third).await.expect("bought late");
    let first = shop.extend(&one, MINUTE * 20, "order-1").await.expect("extended");
    shop.extend(&other, MINUTE * 21, "order-1").await.expect("extended");
    for i in 1..31 {
        let id = format!("part-{i}");
        let made = if i % 2 == 0 {
            shop.commit_lines(&one, &[("ps5", 1)], v1::RestPolicy::Keep, &id).await.expect("sold").replayed
        } else {
            shop.rollback_lines(&one, &[("ps5", 1)], &id).await.expect("given back").replayed
        };
        assert!(!made, "{id}");
    }
    let last = shop.extend(&one, MINUTE * 30, "extend-2").await.expect("the 32nd change");
    assert_refused(shop.extend(&one, MINUTE * 40, "extend-3").await, Reason::TooManyChanges, None);
    assert_refused(shop.rollback_lines(&one, &[("ps5", 1)], "part-31").await, Reason::TooManyChanges, None);
    let too_many = shop.commit_lines(&one, &[("ps5", 1)], v1::RestPolicy::Release, "part-32").await;
    assert_refused(too_many, Reason::TooManyChanges, None);
    assert_eq!(shop.counts("ps5").await, (200 - 100 - 2 - 1 + 15, 70 + 2, 15 + 1));

    // Each repeat is one, also after the reservation is resolved; the same identity for another change is refused.
    for is_resolved in [false, true] {
        if is_resolved {
            shop.commit(&one).await.expect("sold");
        }
        let again = shop.extend(&one, MINUTE * 20, "order-1").await.expect("a replay");
        assert!(again.replayed && again.sequence >= first.sequence && last.sequence <= again.sequence);
        assert!(shop.rollback_lines(&one, &[("ps5", 1)], "part-1").await.expect("a replay").replayed);
        assert!(shop.commit_lines(&one, &[("ps5", 1)], v1::RestPolicy::Keep, "part-2").await.expect("again").replayed);
        assert_refused(shop.extend(&one, MINUTE * 19, "order-1").await, Reason::RequestIdReused, None);
        assert_refused(shop.rollback_lines(&one, &[("ps5", 2)], "part-1").await, Reason::RequestIdReused, None);
        let other_rest = shop.commit_lines(&one, &[("ps5", 1)], v1::RestPolicy::Release, "part-2").await;
        assert_refused(other_rest, Reason::RequestIdReused, None);
        assert_refused(shop.extend(&one, MINUTE, "part-1").await, Reason::RequestIdReused, None);
    }
    assert_eq!(shop.counts("ps5").await, (112, 2, 86));
    assert_eq!(shop.reservation(&one).await.expect("known").lines[0].sold, 85);
    // The request id of its Reserve is a different identity.
    let again = v1::ReserveRequest { request_id: "order-1".into(), ..reserve_request(&[("ps5", 100)]) };
    let answer = shop.reserve(again).await.expect("a replay");
    assert!(matches!(answer.result, Some(v1::reserve_response::Result::AlreadyPurchased(_))) && answer.replayed);
    shop.audit().await;
}

/// Older formats record changes apart from the reservation. They are still found after the format is raised.
#[tokio::test]
async fn a_raised_namespace_remembers_the_changes_of_before() {
    let server = SentinelProcess::launch().flags("--format 4").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let id = shop.hold("ps5", 4).await.reservation_id;
    shop.rollback_lines(&id, &[("ps5", 1)], "part-1").await.expect("given back");
    shop.extend(&id, MINUTE * 20, "extend-1").await.expect("extended");
    let config = Some(v1::NamespaceConfig { format: Some(5), ..Default::default() });
    let request = v1::ConfigureNamespaceRequest { namespace_id: "sale".into(), config, ..Default::default() };
    shop.admin.clone().configure_namespace(request).await.expect("raised");
    assert!(shop.rollback_lines(&id, &[("ps5", 1)], "part-1").await.expect("a replay").replayed);
    assert!(shop.extend(&id, MINUTE * 20, "extend-1").await.expect("a replay").replayed);
    assert_refused(shop.extend(&id, MINUTE * 21, "extend-1").await, Reason::RequestIdReused, None);
    assert!(!shop.rollback_lines(&id, &[("ps5", 1)], "part-2").await.expect("given back").replayed);
    assert!(!shop.extend(&id, MINUTE * 22, "extend-2").await.expect("extended").replayed);
    assert_eq!(shop.counts("ps5").await, (8, 2, 0));
    shop.commit(&id).await.expect("sold");
    shop.audit().await;
}
