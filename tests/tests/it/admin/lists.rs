//! Lists in pages: of SKUs, of reservations and of namespaces, with their tokens.

use std::collections::{HashMap, HashSet};

use deadpool_redis::redis::cmd;
use inventory_sentinel::{
    Reason,
    v1::{self, ImportOutcome},
};
use inventory_sentinel_script::keys::NAMESPACES;
use sentinel_tests::{Redis, SentinelProcess, TestClient, assert_refused, eventually, new_id, reason, reserve_request};

use super::imports::{import, outcomes, row, send};

/// A store that keeps up to 512 elements in one piece may return a page that is longer by this number.
const ONE_PIECE: usize = 512;

async fn partitions(shop: &TestClient, partitions: i32) {
    let request = v1::ConfigureNamespaceRequest {
        namespace_id: shop.namespace.clone(),
        config: Some(v1::NamespaceConfig { partitions: Some(partitions), ..Default::default() }),
        ..Default::default()
    };
    shop.admin.clone().configure_namespace(request).await.expect("made");
}

/// Every SKU of the namespace, and the pages it took.
async fn all_stock(shop: &TestClient, page_size: i32) -> (HashMap<String, v1::ListedSku>, usize) {
    let (mut found, mut pages) = (HashMap::new(), 0);
    let mut request =
        v1::ListStockRequest { namespace_id: shop.namespace.clone(), page_size, page_token: String::new() };
    loop {
        let page = shop.admin.clone().list_stock(request.clone()).await.expect("a page").into_inner();
        assert!(page.skus.len() <= page_size as usize + ONE_PIECE, "{}", page.skus.len());
        pages += 1;
        found.extend(page.skus.into_iter().map(|listed| {
            let sku = listed.stock.as_ref().expect("a stock").sku.clone();
            (sku, listed)
        }));
        if page.next_page_token.is_empty() {
            return (found, pages);
        }
        request.page_token = page.next_page_token;
    }
}

/// Every reservation that the request selects, by id.
async fn all_reservations(shop: &TestClient, request: v1::ListReservationsRequest) -> HashMap<String, v1::Reservation> {
    let mut request = v1::ListReservationsRequest { namespace_id: shop.namespace.clone(), ..request };
    let mut found = HashMap::new();
    loop {
        let page = shop.admin.clone().list_reservations(request.clone()).await.expect("a page").into_inner();
        found.extend(page.reservations.into_iter().map(|held| (held.reservation_id.clone(), held)));
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn every_sku_of_every_partition_is_listed() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    partitions(&shop, 3).await;
    let rows: Vec<_> = (0..2_500).map(|i| row(format!("sku-{i}"), i)).collect();
    let results = send(&shop, import(&shop, &rows, "warm-up")).await.expect("an import");
    assert_eq!(outcomes(&results), HashMap::from([((ImportOutcome::Applied, ""), 2_500)]));
    shop.configure("sku-7", v1::SkuRules { buyer_limit: Some(2), ..Default::default() }).await.expect("a rule");
    shop.hold_order(v1::ReserveRequest { buyer_id: "amy".into(), ..reserve_request(&[("sku-7", 2)]) }).await;

    for (page_size, least_pages) in [(10, 200), (100, 20), (1_000, 3)] {
        let (found, pages) = all_stock(&shop, page_size).await;
        assert_eq!(found.len(), 2_500);
        assert!((least_pages..=2_500).contains(&pages), "{pages} pages of {page_size}");
        for (sku, listed) in &found {
            let stock = listed.stock.as_ref().expect("a stock");
            assert_eq!(format!("sku-{}", stock.supplied), *sku);
        }
        let listed = &found["sku-7"];
        let stock = listed.stock.as_ref().expect("a stock");
        assert_eq!((stock.available, stock.held), (5, 2));
        assert_eq!((listed.rules.as_ref().expect("rules").buyer_limit, listed.rules_version), (Some(2), 1));
    }
}

#[tokio::test]
async fn what_stands_still_is_listed_beside_the_traffic() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let still: HashSet<String> = (0..600).map(|i| format!("still-{i}")).collect();
    let rows: Vec<_> = still.iter().map(|sku| row(sku, 1)).collect();
    send(&shop, import(&shop, &rows, "still")).await.expect("an import");
    let busy = {
        let shop = shop.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let rows: Vec<_> = (0..500).map(|i| row(format!("moving-{round}-{i}"), 1)).collect();
                send(&shop, import(&shop, &rows, &new_id())).await.expect("an import");
            }
        })
    };
    for _ in 0..3 {
        let (found, _) = all_stock(&shop, 50).await;
        assert!(still.iter().all(|sku| found.contains_key(sku)));
    }
    busy.await.expect("the imports");
}

#[tokio::test]
async fn pending_reservations_are_listed_by_sku_and_by_buyer() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    partitions(&shop, 3).await;
    for sku in ["ps5", "vita", "cable"] {
        shop.supply(sku, 1_000).await;
    }
    let by = |buyer: &str, sku: &str| v1::ReserveRequest { buyer_id: buyer.into(), ..reserve_request(&[(sku, 1)]) };
    let mut amys = HashSet::new();
    for i in 0..600 {
        let (buyer, sku) = (if i % 100 == 0 { "amy" } else { "bob" }, ["ps5", "vita", "cable"][i % 3]);
        let id = shop.hold_order(by(buyer, sku)).await.reservation_id;
        if buyer == "amy" {
            amys.insert(id);
        }
    }
    let sold = shop.hold_order(by("amy", "ps5")).await.reservation_id;
    shop.commit(&sold).await.expect("sold");

    for page_size in [1, 100, 1_000] {
        let all = v1::ListReservationsRequest { page_size, ..Default::default() };
        assert_eq!(all_reservations(&shop, all.clone()).await.len(), 600);
        let by_sku = v1::ListReservationsRequest { sku: "vita".into(), ..all.clone() };
        let found = all_reservations(&shop, by_sku.clone()).await;
        assert_eq!(found.len(), 200);
        assert!(
            found.values().all(|held| held.lines[0].sku == "vita" && held.state() == v1::ReservationState::Pending)
        );
        let by_buyer = v1::ListReservationsRequest { buyer_id: "amy".into(), ..all };
        let found = all_reservations(&shop, by_buyer).await;
        assert_eq!(found.keys().cloned().collect::<HashSet<_>>(), amys);
        let both = v1::ListReservationsRequest { buyer_id: "amy".into(), ..by_sku };
        assert_eq!(all_reservations(&shop, both).await.len(), 2);
    }
}

#[tokio::test]
async fn every_namespace_is_listed() {
    let server = SentinelProcess::start().await;
    let names: HashSet<String> = (0..30).map(|i| format!("sale-{i}")).collect();
    for name in &names {
        server.shop(name).supply("ps5", 1).await;
    }
    let mut found = HashSet::new();
    let mut request = v1::ListNamespacesRequest { page_size: 7, page_token: String::new() };
    loop {
        let page = server.admin().list_namespaces(request.clone()).await.expect("a page").into_inner();
        found.extend(page.namespaces.into_iter().map(|listed| listed.namespace_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found, names);
}

#[tokio::test]
async fn a_page_that_can_not_be_is_refused() {
    let server = SentinelProcess::start().await;
    let (shop, ghost) = (server.shop("sale"), server.shop("ghost"));
    partitions(&shop, 3).await;
    let rows: Vec<_> = (0..3_000).map(|i| row(format!("sku-{i}"), 1)).collect();
    send(&shop, import(&shop, &rows, "warm-up")).await.expect("an import");
    let mut admin = shop.admin.clone();
    let stock = |shop: &TestClient, page_size, page_token: &str| v1::ListStockRequest {
        namespace_id: shop.namespace.clone(),
        page_size,
        page_token: page_token.into(),
    };
    assert_refused(admin.list_stock(stock(&ghost, 0, "")).await, Reason::NamespaceNotFound, None);
    for size in [-1, 1_001, i32::MIN] {
        let refused = admin.list_stock(stock(&shop, size, "")).await;
        assert_refused(refused, Reason::InvalidPageSize, Some("page_size"));
    }
    let token = admin.list_stock(stock(&shop, 0, "")).await.expect("a page").into_inner().next_page_token;
    assert!(!token.is_empty());
    // Of another list, of no list, and of a partition that there is not.
    let elsewhere = v1::ListNamespacesRequest { page_size: 0, page_token: token.clone() };
    let refused = admin.list_namespaces(elsewhere).await;
    assert_refused(refused, Reason::InvalidPageToken, Some("page_token"));
    for bad in ["x", "ä\n", &token[1..], "cwD__gAAAAAAAAAA"] {
        let refused = admin.list_stock(stock(&shop, 0, bad)).await;
        assert_refused(refused, Reason::InvalidPageToken, Some("page_token"));
    }
    let list = |sku: &str, buyer: &str| v1::ListReservationsRequest {
        namespace_id: "sale".into(),
        sku: sku.into(),
        buyer_id: buyer.into(),
        ..Default::default()
    };
    assert_refused(admin.list_reservations(list("p\ns", "")).await, Reason::InvalidSku, Some("sku"));
    assert_refused(admin.list_reservations(list("", "a\tb")).await, Reason::InvalidBuyerId, Some("buyer_id"));
    for wrong in [0, 5, -1] {
        let unknown = v1::ListReservationsRequest { states: vec![1, wrong], ..list("", "") };
        assert_refused(admin.list_reservations(unknown).await, Reason::InvalidState, Some("states[1]"));
    }
    // A token is bound to its filter.
    for _ in 0..2 {
        let id = shop.hold("sku-0", 1).await.reservation_id;
        shop.rollback(&id).await.expect("given back");
    }
    let resolved = v1::ListReservationsRequest { states: vec![3], page_size: 1, ..list("", "") };
    let page_token = admin.list_reservations(resolved.clone()).await.expect("a page").into_inner().next_page_token;
    assert!(!page_token.is_empty());
    for others in [list("", ""), list("sku-0", ""), list("", "amy")] {
        let refused =
            admin.list_reservations(v1::ListReservationsRequest { page_token: page_token.clone(), ..others }).await;
        assert_refused(refused, Reason::InvalidPageToken, Some("page_token"));
    }
    let next = v1::ListReservationsRequest { page_token, page_size: 9, ..resolved };
    admin.list_reservations(next).await.expect("the next page");
}

/// A token is refused for another namespace, and so is one with a flipped bit. It survives a restart.
#[tokio::test]
async fn a_token_of_another_namespace_or_a_damaged_one_is_refused() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let stock = |namespace: &str, page_token: &str| v1::ListStockRequest {
        namespace_id: namespace.into(),
        page_size: 1,
        page_token: page_token.into(),
    };
    for name in ["one", "two"] {
        let shop = server.shop(name);
        let rows: Vec<_> = (0..2_000).map(|i| row(format!("sku-{i}"), 1)).collect();
        send(&shop, import(&shop, &rows, "warm-up")).await.expect("an import");
    }
    let mut admin = server.admin();
    let token = admin.list_stock(stock("one", "")).await.expect("a page").into_inner().next_page_token;
    let refused = admin.list_stock(stock("two", &token)).await;
    assert_refused(refused, Reason::InvalidPageToken, Some("page_token"));
    let letters: Vec<char> = token.chars().collect();
    for (i, letter) in letters.iter().enumerate() {
        let mut damaged = letters.clone();
        damaged[i] = if *letter == 'A' { 'B' } else { 'A' };
        let refused = admin.list_stock(stock("one", &String::from_iter(damaged))).await;
        assert_refused(refused, Reason::InvalidPageToken, Some("page_token"));
    }
    server.kill9();
    server.restart().await;
    server.admin().list_stock(stock("one", &token)).await.expect("the next page");
}

/// An entry of the list of namespaces that this service did not write is left out, counted, and logged once.
#[tokio::test]
async fn a_bad_entry_of_the_list_of_namespaces_is_left_out() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    server.shop("sale").supply("ps5", 1).await;
    let add = |name: &[u8]| cmd("SADD").arg(NAMESPACES).arg(name).to_owned();
    for bad in [&b"a b"[..], b"", b"\xff\x00\n", &[b'x'; 1_000]] {
        redis.query::<i64>(&add(bad)).await;
    }
    let request = v1::ListNamespacesRequest::default();
    let listed = server.admin().list_namespaces(request).await.expect("a page").into_inner().namespaces;
    assert_eq!(listed.into_iter().map(|listed| listed.namespace_id).collect::<Vec<_>>(), ["sale"]);
    let metric = "inventory_sentinel_bad_namespace_names";
    eventually("they are counted", async || (server.metric(metric).await == 4.0).then_some(())).await;
    let logged = || server.log().matches("entries that this service did not write").count();
    assert_eq!(logged(), 1, "{}", server.log());
}

#[tokio::test]
async fn reservations_are_listed_by_state_from_both_generations() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--retention 3s --default-ttl 1m").start().await;
    let shop = server.shop("sale");
    partitions(&shop, 2).await;
    for sku in ["ps5", "vita", "cable"] {
        shop.supply(sku, 1_000).await;
    }
    use v1::ReservationState::{Committed, Expired, Pending, RolledBack};
    let mut ids = HashMap::new();
    let mut resolve = async |i: usize| {
        let (sku, buyer) = (["ps5", "vita", "cable"][i % 3], if i.is_multiple_of(2) { "amy" } else { "bob" });
        let ttl = (i % 4 == 3).then_some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
        let held =
            shop.hold_order(v1::ReserveRequest { ttl, buyer_id: buyer.into(), ..reserve_request(&[(sku, 1)]) }).await;
        let id = held.reservation_id;
        match i % 4 {
            0 => drop(shop.commit(&id).await.expect("sold")),
            1 => drop(shop.rollback(&id).await.expect("given back")),
            2 => {}
            _ => shop.expired(&id).await,
        }
        ids.insert(id, ([Committed, RolledBack, Pending, Expired][i % 4], sku, buyer));
        ids.clone()
    };
    let mut i = 0;
    let mut ids = eventually("both generations have records", async || {
        let ids = resolve(i).await;
        i += 1;
        (redis.records().await.iter().all(|&records| records > 1) && i > 40).then_some(ids)
    })
    .await;
    // Forgotten reservations cannot be listed; all others must be.
    let mut known = HashMap::new();
    for (id, about) in ids.drain() {
        if shop.reservation(&id).await.is_ok() {
            known.insert(id, about);
        }
    }
    for page_size in [1, 1_000] {
        for states in [vec![Committed], vec![RolledBack], vec![Expired], vec![Pending], vec![Pending, Committed]] {
            for (sku, buyer) in [("", ""), ("vita", ""), ("", "bob"), ("ps5", "amy")] {
                let request = v1::ListReservationsRequest {
                    page_size,
                    states: states.iter().map(|&state| state.into()).collect(),
                    sku: sku.into(),
                    buyer_id: buyer.into(),
                    ..Default::default()
                };
                let listed = all_reservations(&shop, request).await;
                for (id, (state, of_sku, of_buyer)) in &known {
                    let selected = states.contains(state)
                        && (sku.is_empty() || sku == *of_sku)
                        && (buyer.is_empty() || buyer == *of_buyer);
                    // Its time may be over by now.
                    if listed.contains_key(id) != selected {
                        assert!(selected && shop.reservation(id).await.is_err(), "{id} of {known:?} in {listed:?}");
                    }
                }
                assert!(listed.values().all(|held| states.contains(&held.state())));
            }
        }
    }
}

/// Lists and audits have separate connections: their waiting callers take none from a buyer.
#[tokio::test(flavor = "multi_thread")]
async fn lists_take_no_connection_from_checkout() {
    let redis = Redis::start_in_memory().await;
    let flags = "--durability fast --pool-size 1 --pool-wait 20ms --batches-in-flight 1";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    let rows: Vec<_> = (0..5_000).map(|i| row(format!("sku-{i}"), 1_000)).collect();
    send(&shop, import(&shop, &rows, "warm-up")).await.expect("an import");
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for i in 0..64 {
        let (shop, done) = (shop.clone(), done.clone());
        readers.spawn(async move {
            let (mut pages, mut refused) = (0, 0);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let request =
                    v1::ListStockRequest { namespace_id: "sale".into(), page_size: 1_000, ..Default::default() };
                let listed = match i {
                    0 => shop.try_audit().await.map(drop),
                    _ => shop.admin.clone().list_stock(request).await.map(drop),
                };
                match listed {
                    Ok(()) => pages += 1,
                    Err(status) => {
                        assert_eq!(reason(&status), Reason::Overloaded, "{status:?}");
                        refused += 1;
                    }
                }
            }
            (pages, refused)
        });
    }
    for i in 0..200 {
        shop.hold(&format!("sku-{i}"), 1).await;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut pages, mut refused) = (0, 0);
    while let Some(reader) = readers.join_next().await {
        let (its_pages, its_refused) = reader.expect("a reader is answered or refused");
        (pages, refused) = (pages + its_pages, refused + its_refused);
    }
    assert!(pages > 0 && refused > 0, "{pages} pages, {refused} refused");
}
