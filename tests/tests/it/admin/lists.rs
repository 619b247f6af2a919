//! Lists in pages, and many SKUs in a call: imports that may be run again, protection of many.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use deadpool_redis::redis::cmd;
use inventory_sentinel::{
    Reason,
    v1::{self, ImportOutcome, ProtectionOutcome},
};
use inventory_sentinel_client::{Imported, ListStockError, Protection, State};
use sentinel_tests::{Redis, SentinelProcess, TestClient, assert_refused, eventually, new_id, reason, reserve_request};
use tonic::Status;

/// A store that keeps up to 512 elements in one piece may return a page that is longer by this number.
const ONE_PIECE: usize = 512;

fn row(sku: impl Into<String>, on_hand: i64) -> v1::ImportRow {
    v1::ImportRow { sku: sku.into(), on_hand }
}

/// Messages of up to 1,000 rows, all of one import.
fn import(shop: &TestClient, rows: &[v1::ImportRow], request_id: &str) -> Vec<v1::ImportStockRequest> {
    let message = |rows: &[v1::ImportRow]| v1::ImportStockRequest {
        namespace_id: shop.namespace.clone(),
        request_id: request_id.into(),
        rows: rows.to_vec(),
        overwrite: false,
        existing_namespace_only: false,
    };
    rows.chunks(1_000).map(message).collect()
}

/// The results of all rows, in order.
async fn send(shop: &TestClient, messages: Vec<v1::ImportStockRequest>) -> Result<Vec<v1::ImportRowResult>, Status> {
    let sizes: Vec<usize> = messages.iter().map(|message| message.rows.len()).collect();
    let mut answers = shop.admin.clone().import_stock(tokio_stream::iter(messages)).await?.into_inner();
    let mut results = Vec::new();
    for size in sizes {
        let answer = answers.message().await?.expect("an answer to each message");
        assert_eq!(answer.results.len(), size);
        results.extend(answer.results);
    }
    assert_eq!(answers.message().await?, None);
    Ok(results)
}

fn outcomes(results: &[v1::ImportRowResult]) -> HashMap<(ImportOutcome, &str), usize> {
    let mut outcomes = HashMap::new();
    for result in results {
        assert_eq!(result.reason.is_empty(), result.message.is_empty(), "{result:?}");
        *outcomes.entry((result.outcome(), result.reason.as_str())).or_default() += 1;
    }
    outcomes
}

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
    let add = |name: &[u8]| cmd("SADD").arg("is:namespaces").arg(name).to_owned();
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

#[tokio::test]
async fn an_import_run_again_in_the_middle_of_a_sale_resets_nothing() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let mut rows: Vec<_> = (0..10_000).map(|i| row(format!("sku-{i}"), 10)).collect();
    rows[17].on_hand = -1;
    rows[4_000].sku = "p\ns5".into();
    rows[9_998].sku = String::new();
    // The same again, and the same SKU with other units.
    rows[5_001] = rows[5_000].clone();
    rows[5_002] = row("sku-5000", 11);
    let results = send(&shop, import(&shop, &rows, "warm-up")).await.expect("an import");
    let failed = |reason| (ImportOutcome::Failed, reason);
    let bad = [(failed("INVALID_STOCK"), 1), (failed("INVALID_SKU"), 1), (failed("EMPTY_SKU"), 1)];
    let mut expected = HashMap::from(bad);
    expected.insert((ImportOutcome::Applied, ""), 9_995);
    expected.insert((ImportOutcome::AlreadyThere, ""), 1);
    expected.insert(failed("REQUEST_ID_REUSED"), 1);
    assert_eq!(outcomes(&results), expected);
    assert_eq!(results[17].reason, "INVALID_STOCK");
    assert_eq!(results[4_000].reason, "INVALID_SKU");

    shop.hold("sku-1", 4).await;
    let sold = shop.hold("sku-1", 1).await.reservation_id;
    shop.commit(&sold).await.expect("sold");
    // As a repeat after a lost answer, and as another day's run.
    let again = send(&shop, import(&shop, &rows, "warm-up")).await.expect("an import");
    assert_eq!(outcomes(&again)[&(ImportOutcome::AlreadyThere, "")], 9_996);
    let again = send(&shop, import(&shop, &rows, &new_id())).await.expect("an import");
    assert_eq!(outcomes(&again)[&(ImportOutcome::AlreadyThere, "")], 9_997);
    assert_eq!(shop.counts("sku-1").await, (5, 4, 1));
    assert_eq!(shop.counts("sku-5000").await, (10, 0, 0));

    // `overwrite` sets them, at least to what is held.
    let mut messages = import(&shop, &[row("sku-1", 3), row("sku-2", 7)], &new_id());
    messages[0].overwrite = true;
    let results = send(&shop, messages).await.expect("an import");
    assert_eq!((results[0].reason.as_str(), results[1].outcome()), ("STOCK_BELOW_HELD", ImportOutcome::Applied));
    assert_eq!(shop.counts("sku-2").await, (7, 0, 0));
    shop.audit().await;
}

#[tokio::test]
async fn a_message_that_is_refused_ends_the_import_and_what_was_answered_stays() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let good = import(&shop, &[row("ps5", 5)], "warm-up").remove(0);
    let refused = async |bad: v1::ImportStockRequest| {
        let messages = tokio_stream::iter([good.clone(), bad, good.clone()]);
        let mut answers = shop.admin.clone().import_stock(messages).await?.into_inner();
        assert_eq!(answers.message().await?.expect("the first is answered").results.len(), 1);
        answers.message().await
    };
    let rows = vec![row("ps5", 5); 1_001];
    let bad = v1::ImportStockRequest { rows, ..good.clone() };
    assert_refused(refused(bad).await, Reason::TooManyRows, Some("rows"));
    let bad = v1::ImportStockRequest { request_id: String::new(), ..good.clone() };
    assert_refused(refused(bad).await, Reason::RequestIdRequired, Some("request_id"));
    let bad = v1::ImportStockRequest { namespace_id: "a b".into(), ..good.clone() };
    assert_refused(refused(bad).await, Reason::InvalidNamespace, Some("namespace_id"));
    assert_eq!(shop.counts("ps5").await, (5, 0, 0));
}

#[tokio::test]
async fn an_import_that_waits_for_its_caller_does_not_hold_up_the_drain() {
    let mut server = SentinelProcess::launch().flags("--drain-grace 60s").start().await;
    let shop = server.shop("sale");
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    sender.send(import(&shop, &[row("ps5", 5)], "warm-up").remove(0)).await.expect("sent");
    let mut answers = shop.admin.clone().import_stock(messages).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("an answer").expect("one").results.len(), 1);
    server.terminate();
    assert_refused(answers.message().await, Reason::Draining, None);
    assert!(server.exit().await.success());
    drop(sender);
}

#[tokio::test]
async fn a_hundred_thousand_skus_are_imported_in_seconds() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let rows: Vec<_> = (0..100_000).map(|i| row(format!("sku-{i}"), 10)).collect();
    let messages = import(&shop, &rows, "warm-up");
    let start = Instant::now();
    let results = send(&shop, messages).await.expect("an import");
    let took = start.elapsed();
    println!("100,000 SKUs imported in {took:?}");
    assert_eq!(outcomes(&results), HashMap::from([((ImportOutcome::Applied, ""), 100_000)]));
    assert!(took.as_secs() < 20, "{took:?}");
}

#[tokio::test]
async fn many_skus_are_protected_in_a_call() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let rows: Vec<_> = (0..999).map(|i| row(format!("sku-{i}"), 10)).collect();
    send(&shop, import(&shop, &rows, "warm-up")).await.expect("an import");
    let held = shop.hold("sku-5", 1).await.reservation_id;
    let mut skus: Vec<String> = rows.iter().map(|row| row.sku.clone()).collect();
    skus.insert(3, "nothing".into());
    let set = |skus: &[String], is_protected| v1::SetProtectionRequest {
        namespace_id: "sale".into(),
        skus: skus.to_vec(),
        is_protected,
        request_id: String::new(),
    };
    let mut admin = shop.admin.clone();
    for (is_protected, known) in [
        (true, ProtectionOutcome::Unchanged),
        (false, ProtectionOutcome::Changed),
        (false, ProtectionOutcome::Unchanged),
        (true, ProtectionOutcome::Changed),
    ] {
        let answer = admin.set_protection(set(&skus, Some(is_protected))).await.expect("an answer").into_inner();
        let mut expected = vec![known; 999];
        expected.insert(3, ProtectionOutcome::SkuNotFound);
        assert_eq!(answer.outcomes().collect::<Vec<_>>(), expected);
        assert_eq!(shop.is_protected("sku-998").await, is_protected);
        if !is_protected {
            assert_refused(shop.reserve(reserve_request(&[("sku-5", 1)])).await, Reason::SkuNotProtected, None);
        }
    }
    shop.commit(&held).await.expect("what was out is sold");

    assert_refused(admin.set_protection(set(&[], Some(true))).await, Reason::NoRules, Some("skus"));
    assert_refused(admin.set_protection(set(&skus, None)).await, Reason::NoRules, Some("is_protected"));
    let one_bad = ["sku-1".to_owned(), "p\ns".to_owned()];
    assert_refused(admin.set_protection(set(&one_bad, Some(false))).await, Reason::InvalidSku, Some("skus[1]"));
    assert!(shop.is_protected("sku-1").await, "a call that is wrong changes nothing");
    skus.push("sku-999".into());
    assert_refused(admin.set_protection(set(&skus, Some(true))).await, Reason::TooManyRows, Some("skus"));
    let elsewhere = v1::SetProtectionRequest { namespace_id: "ghost".into(), ..set(&one_bad[..1], Some(true)) };
    assert_refused(admin.set_protection(elsewhere).await, Reason::NamespaceNotFound, None);
    shop.audit().await;
}

#[tokio::test]
async fn the_client_lists_imports_and_protects() {
    let server = SentinelProcess::start().await;
    let sentinel = server.client().await;
    let sale = sentinel.namespace("sale");
    let admin = sale.admin();
    assert!(matches!(admin.list_stock().await, Err(ListStockError::NamespaceNotFound(_))));
    let mut rows: Vec<_> = (0..1_500).map(|i| (format!("sku-{i}"), 5)).collect();
    rows[1_200].1 = -1;
    let outcomes = admin.import_stock(rows.clone()).await.expect("an import");
    assert_eq!(outcomes.len(), 1_500);
    assert!(matches!(outcomes[1_200], Imported::Failed { reason: Some(Reason::InvalidStock), .. }));
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Imported::Applied).count(), 1_499);
    let again = admin.import_stock(rows.clone()).await.expect("an import");
    assert_eq!(again.iter().filter(|outcome| **outcome == Imported::AlreadyThere).count(), 1_499);
    let set = admin.import_stock([("sku-1", 7)]).overwrite().await.expect("an import");
    assert_eq!((&set[..], sale.stock("sku-1").await.expect("it").available), (&[Imported::Applied][..], 7));

    let outcomes = admin.set_protection(rows.iter().map(|(sku, _)| sku.as_str()), false).await.expect("an answer");
    let changed = outcomes.iter().filter(|outcome| **outcome == Protection::Changed).count();
    assert_eq!((outcomes.len(), changed, outcomes[1_200]), (1_500, 1_499, Protection::SkuNotFound));

    let mut skus = HashSet::new();
    let mut page = admin.list_stock().size(200).await.expect("a page");
    loop {
        assert!(page.items.iter().all(|sku| !sku.rules.is_protected));
        skus.extend(page.items.into_iter().map(|sku| sku.stock.sku));
        let Some(next) = page.next else { break };
        page = admin.list_stock().size(200).after(next).await.expect("a page");
    }
    assert_eq!(skus.len(), 1_499);
    admin.set_protection(["sku-2"], true).await.expect("an answer");
    let held = sale.reserve("sku-2", 1).buyer("amy").await.expect("held");
    let mine = admin.list_reservations().sku("sku-2").buyer("amy").await.expect("a page");
    assert_eq!((mine.items, mine.next), (vec![held.value.clone()], None));
    let sold = sale.commit(&held.id).await.expect("sold");
    let resolved = admin.list_reservations().state(State::Committed).state(State::Expired).await.expect("a page");
    assert_eq!(resolved.items, [sold.value]);
    assert_eq!(sentinel.list_namespaces().size(10).await.expect("a page").items, ["sale"]);
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
