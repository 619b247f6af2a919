//! Many SKUs in a call: imports that may be repeated, and protection.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use inventory_sentinel::{
    Reason,
    v1::{self, ImportOutcome, ProtectionOutcome},
};
use inventory_sentinel_client::{Imported, ListStockError, Protection, State};
use sentinel_tests::{SentinelProcess, TestClient, assert_refused, new_id, reserve_request};
use tonic::Status;

pub(super) fn row(sku: impl Into<String>, on_hand: i64) -> v1::ImportRow {
    v1::ImportRow { sku: sku.into(), on_hand }
}

/// Messages of up to 1,000 rows, all of one import.
pub(super) fn import(shop: &TestClient, rows: &[v1::ImportRow], request_id: &str) -> Vec<v1::ImportStockRequest> {
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
pub(super) async fn send(
    shop: &TestClient,
    messages: Vec<v1::ImportStockRequest>,
) -> Result<Vec<v1::ImportRowResult>, Status> {
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

pub(super) fn outcomes(results: &[v1::ImportRowResult]) -> HashMap<(ImportOutcome, &str), usize> {
    let mut outcomes = HashMap::new();
    for result in results {
        assert_eq!(result.reason.is_empty(), result.message.is_empty(), "{result:?}");
        *outcomes.entry((result.outcome(), result.reason.as_str())).or_default() += 1;
    }
    outcomes
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
    // A debug build on a busy machine.
    assert!(took.as_secs() < 60, "{took:?}");
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
