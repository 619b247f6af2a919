//! `sentinelctl reservations ...`.

use inventory_sentinel::v1;
use sentinel_tests::{SentinelProcess, TestClient, reserve_request};

use super::ctl;

async fn hold_for_buyer(shop: &TestClient, sku: &str, buyer: &str) -> String {
    let order = v1::ReserveRequest { buyer_id: buyer.into(), ..reserve_request(&[(sku, 1)]) };
    shop.hold_order(order).await.reservation_id
}

#[tokio::test]
async fn a_list_is_by_sku_buyer_and_state() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("pad", 10).await;
    let amy = hold_for_buyer(&shop, "ps5", "amy").await;
    let bob = hold_for_buyer(&shop, "pad", "bob \u{fc}").await;
    let sold = hold_for_buyer(&shop, "ps5", "amy").await;
    shop.commit(&sold).await.expect("sold");
    let ids = async |more: &[&str]| {
        let arguments: Vec<&str> = ["reservations", "list"].iter().chain(more).copied().collect();
        let listed = ctl(&server, &arguments).await.ends(0).objects();
        let mut ids: Vec<_> = listed.iter().map(|held| held["reservation_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|&id| id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&[]).await, sorted(&[&amy, &bob]));
    assert_eq!(ids(&["--sku", "ps5"]).await, sorted(&[&amy]));
    assert_eq!(ids(&["--buyer", "bob \u{fc}"]).await, sorted(&[&bob]));
    assert_eq!(ids(&["--state", "committed"]).await, sorted(&[&sold]));
    assert_eq!(ids(&["--state", "committed", "--state", "pending", "--buyer", "amy"]).await, sorted(&[&amy, &sold]));
    assert_eq!(ids(&["--state", "any"]).await, sorted(&[&amy, &bob, &sold]));
    assert_eq!(ids(&["--state", "any", "--limit", "2"]).await.len(), 2);
    let table = ctl(&server, &["reservations", "list", "--sku", "ps5", "--table"]).await.ends(0).out;
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with(&amy) && line.ends_with("1 x ps5")), "{table}");
    assert_eq!(ctl(&server, &["reservations", "list", "--buyer", "eve", "--table"]).await.ends(0).out, "none\n");
}

#[tokio::test]
async fn a_hold_is_shown_extended_and_rolled_back() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let id = hold_for_buyer(&shop, "ps5", "amy").await;
    let shown = ctl(&server, &["reservations", "show", &id]).await.ends(0).object();
    assert_eq!((&shown["state"], &shown["buyer_id"]), (&"PENDING".into(), &"amy".into()));
    assert_eq!(shown["lines"], serde_json::json!([{"sku": "ps5", "quantity": 1, "held": 1, "sold": 0, "released": 0}]));
    let extended = ctl(&server, &["reservations", "extend", &id, "--ttl", "45m"]).await.ends(0).object();
    assert!(extended["expires_at"].as_str() > shown["expires_at"].as_str(), "{extended} and {shown}");
    let limit = ctl(&server, &["reservations", "extend", &id, "--ttl", "30days"]).await.ends(65);
    assert!(limit.err.contains("(INVALID_TTL)"), "{limit:?}");
    let refused = ctl(&server, &["reservations", "rollback", &id]).await.ends(77);
    assert!(refused.err.contains("1 x ps5") && refused.err.contains("nothing was changed"), "{refused:?}");
    assert_eq!(shop.counts("ps5").await, (9, 1, 0));
    for _ in 0..2 {
        let back = ctl(&server, &["reservations", "rollback", &id, "--yes"]).await.ends(0).object();
        assert_eq!(back["state"], "ROLLED_BACK", "a repeat is harmless");
    }
    assert_eq!(shop.counts("ps5").await, (10, 0, 0));
    let table = ctl(&server, &["reservations", "show", &id, "--table"]).await.ends(0).out;
    assert!(table.contains("line         1 x ps5: 0 held, 0 sold, 1 released\n"), "{table}");
    let gone = ctl(&server, &["reservations", "extend", &id, "--ttl", "5m"]).await.ends(65);
    assert!(gone.err.contains("(RESERVATION_ROLLED_BACK)"), "{gone:?}");
    let unknown = ctl(&server, &["reservations", "show", "AAAAAAAAAAAAAAAAAAAAAAAA"]).await.ends(65);
    assert!(unknown.err.contains("_RESERVATION_ID)") || unknown.err.contains("(RESERVATION_NOT_FOUND)"), "{unknown:?}");
}

#[tokio::test]
async fn a_reservation_is_found_by_the_request_that_made_it() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let cart =
        |request_id: &str| v1::ReserveRequest { request_id: request_id.into(), ..reserve_request(&[("ps5", 1)]) };
    let id = shop.hold_order(cart("order-4711")).await.reservation_id;
    let dashed = shop.hold_order(cart("--order-1")).await.reservation_id;
    for (request_id, id) in [("order-4711", &id), ("--order-1", &dashed)] {
        let found = ctl(&server, &["reservations", "show", "--request-id", request_id]).await.ends(0).object();
        assert_eq!(
            (found["reservation_id"].as_str(), found["request_id"].as_str()),
            (Some(id.as_str()), Some(request_id))
        );
        assert_eq!(ctl(&server, &["reservations", "show", id]).await.ends(0).object(), found);
    }
    let table = ctl(&server, &["reservations", "show", &id, "--table"]).await.ends(0).out;
    assert!(table.contains("\nrequest id   order-4711\n"), "{table}");
    let table = ctl(&server, &["reservations", "list", "--table"]).await.ends(0).out;
    assert!(table.contains(&format!("{id}  order-4711  PENDING")), "{table}");
    let unknown = ctl(&server, &["reservations", "show", "--request-id", "order-4712"]).await.ends(65);
    assert!(unknown.err.contains("(RESERVATION_NOT_FOUND)"), "{unknown:?}");
    // It is one of both.
    assert_eq!(ctl(&server, &["reservations", "show"]).await.code, 64);
    assert_eq!(ctl(&server, &["reservations", "show", &id, "--request-id", "order-4711"]).await.code, 64);
}
