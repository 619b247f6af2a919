//! The Rust client against the real server: its result types, and its safe retries.

use std::time::Duration;

use inventory_sentinel::v1::ReserveRequest;
use inventory_sentinel_client::{
    AdjustStockError, BatchError, BatchGetStockError, BatchOutcome, CALLS_PER_CONNECTION, CommitError,
    GetReservationError, Line, ReserveError, RetryPolicy, RollbackError, RulesChange, Sentinel, SetStockError, State,
};
use inventory_sentinel_script::limits::MAX_OPERATIONS;
use sentinel_tests::{LossyProxy, Redis, SentinelProcess, eventually, new_id, reserve_request};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_sale_in_the_words_of_the_client() {
    let server = SentinelProcess::start().await;
    let sale = server.client().await.namespace("sale");
    let stock = sale.admin().set_stock("ps5", 3).await.expect("set");
    assert_eq!((stock.value.available, stock.replayed), (3, false));

    let held = sale.reserve("ps5", 2).ttl(Duration::from_secs(60)).buyer("ada").await.expect("held");
    assert_eq!((held.state, held.buyer.as_deref()), (State::Pending, Some("ada")));
    assert_eq!(held.expires_at.duration_since(held.created_at).unwrap(), Duration::from_secs(60));
    match sale.reserve("ps5", 2).await {
        Err(ReserveError::InsufficientStock { lines }) => {
            assert_eq!((lines[0].sku.as_str(), lines[0].requested, lines[0].available), ("ps5", 2, 1));
        }
        other => panic!("{other:?}"),
    }
    let sold = sale.commit(&held.id).await.expect("sold");
    assert_eq!((sold.state, sold.replayed), (State::Committed, false));
    assert!(sale.commit(&held.id).await.expect("again").replayed);
    assert!(matches!(sale.rollback(&held.id).await, Err(RollbackError::AlreadyCommitted(_))));

    let other = sale.reserve("ps5", 1).await.expect("held");
    assert!(matches!(sale.admin().adjust_stock("ps5", -1).await, Err(AdjustStockError::BelowHeld(_))));
    sale.rollback(&other.id).await.expect("given back");
    assert!(matches!(sale.commit(&other.id).await, Err(CommitError::RolledBack(_))));
    let rules = RulesChange::new().protected(false);
    assert!(!sale.admin().configure_sku("ps5", rules).await.expect("a rule").stock.is_protected);
    assert!(!sale.is_protected("ps5").await.expect("an answer"));
    assert!(matches!(sale.reserve("ps5", 1).await, Err(ReserveError::NotProtected(_))));
    assert!(matches!(sale.reserve("vita", 1).await, Err(ReserveError::SkuNotFound(_))));
    assert!(matches!(sale.reservation("x").await, Err(GetReservationError::InvalidReservationId(_))));
    let audit = sale.admin().audit().await.expect("an audit");
    assert!(audit.clean && audit.sold == 2, "{audit:?}");
}

#[tokio::test]
async fn its_identity_is_the_callers_or_a_new_one() {
    let server = SentinelProcess::start().await;
    let sale = server.client().await.namespace("sale");
    for replayed in [false, true] {
        let answer = sale.admin().request_id("transfer-17").adjust_stock("ps5", 5).await.expect("adjusted");
        assert_eq!((answer.replayed, answer.value.available), (replayed, 5));
    }
    let other = server.client().await.namespace("sale");
    let refused = other.admin().request_id("transfer-17").set_stock("ps5", 5).await;
    assert!(matches!(refused, Err(SetStockError::RequestIdReused(_))), "{refused:?}");
    sale.admin().adjust_stock("ps5", 5).await.expect("another identity");
    assert_eq!(sale.stock("ps5").await.expect("the stock").available, 10);

    let id = new_id();
    let first = sale.reserve("ps5", 1).request_id(&id).await.expect("held");
    let again = sale.reserve("ps5", 1).request_id(&id).await.expect("held");
    assert!(again.replayed && first.id == again.id);
    sale.reserve("ps5", 1).await.expect("another identity");
    assert_eq!(sale.stock("ps5").await.expect("the stock").held, 2);
}

/// The server searches for an identity in the partition of the first line only. The Rust client prevents the
/// consequence of this limit for the calls of its process.
#[tokio::test]
async fn one_identity_has_one_effect_over_several_partitions() {
    let server = SentinelProcess::launch().flags("--partitions 8").start().await;
    let (shop, sale) = (server.shop("sale"), server.client().await.namespace("sale"));
    let skus: Vec<String> = (0..8).map(|n| format!("sku-{n}")).collect();
    let mut partitions = Vec::new();
    for sku in &skus {
        shop.supply(sku, 10).await;
        let held = shop.hold(sku, 1).await.reservation_id;
        // The last character of an id is the partition's low six bits.
        partitions.push(held.chars().last());
        shop.rollback(&held).await.expect("given back");
    }
    let elsewhere = (1..skus.len()).find(|&n| partitions[n] != partitions[0]).expect("several partitions");
    let (here, there) = (&skus[0], &skus[elsewhere]);
    let counts = async || (shop.counts(here).await, shop.counts(there).await);

    // The limit, as a caller of the plain API sees it.
    let id = new_id();
    for sku in [here, there] {
        let order = ReserveRequest { request_id: id.clone(), ..reserve_request(&[(sku, 1)]) };
        let held = shop.hold_order(order).await;
        shop.rollback(&held.reservation_id).await.expect("given back");
    }
    assert_eq!(counts().await, ((10, 0, 0), (10, 0, 0)));

    let id = new_id();
    let other = server.client().await.namespace("sale");
    let first = sale.reserve(here, 1).request_id(&id).await.expect("held");
    let refused = sale.clone().reserve(there, 1).request_id(&id).await;
    assert!(matches!(refused, Err(ReserveError::RequestIdReused(_))), "{refused:?}");
    let cart = |skus: [&String; 2]| other.reserve_cart(skus.map(|sku| Line::new(sku.as_str(), 1)));
    let crossing = cart([here, there]).request_id(new_id()).await;
    assert!(matches!(crossing, Err(ReserveError::CrossPartitionCart(_))), "{crossing:?}");
    let again = sale.reserve(here, 1).request_id(&id).await.expect("held");
    assert!(again.replayed && again.id == first.id);
    let admin = sale.admin().request_id("delivery-1");
    admin.adjust_stock(here, 5).await.expect("adjusted");
    let refused = admin.adjust_stock(there, 5).await;
    assert!(matches!(refused, Err(AdjustStockError::RequestIdReused(_))), "{refused:?}");
    let refused = admin.set_stock(there, 5).await;
    assert!(matches!(refused, Err(SetStockError::RequestIdReused(_))), "{refused:?}");
    assert_eq!(counts().await, ((14, 1, 0), (10, 0, 0)));
    shop.audit().await;
}

/// The server gives up at once, so the client repeats calls that may have been applied.
#[tokio::test]
async fn its_retries_have_one_effect() {
    let redis = Redis::start().await;
    let proxy = LossyProxy::start(&redis).await;
    let flags = format!("--redis-url {} --resend-for 0s", proxy.url());
    let server = SentinelProcess::launch().flags(&flags).start().await;
    let uri = format!("http://{}", server.grpc());
    let careful = Sentinel::builder(&uri).deadline(Duration::from_secs(20)).connect().await.expect("a connection");
    let sale = careful.namespace("sale");
    sale.admin().set_stock("ps5", 10).await.expect("set");

    proxy.lose_replies(1);
    let held = sale.reserve("ps5", 1).await.expect("held");
    assert!(held.replayed, "the first attempt had made it");
    proxy.lose_replies(1);
    assert!(sale.commit(&held.id).await.expect("sold").replayed);
    proxy.lose_replies(1);
    assert_eq!(sale.admin().adjust_stock("ps5", 5).await.expect("adjusted").value.available, 14);
    assert_eq!(proxy.lost(), 3);

    // Without retries the caller gets an unknown outcome.
    let once = Sentinel::builder(&uri).retry(RetryPolicy::never()).connect().await.expect("a connection");
    proxy.lose_replies(1);
    let error = once.namespace("sale").reserve("ps5", 1).await.expect_err("the reply is lost");
    assert!(error.outcome_unknown(), "{error:?}");
    let audit = sale.admin().audit().await.expect("an audit");
    assert_eq!((audit.held, audit.sold, audit.clean), (1, 1, true));
}

#[tokio::test]
async fn a_batch_does_what_its_operations_would_have_done_alone() {
    let server = SentinelProcess::start().await;
    let sale = server.client().await.namespace("sale");
    sale.admin().set_stock("ps5", 6).await.expect("set");
    let [paid, failed] = [sale.reserve("ps5", 2).await.expect("held"), sale.reserve("ps5", 1).await.expect("held")];

    let batch = sale
        .batch()
        .commit(sale.commit(&paid.id).line("ps5", 1).keep_rest())
        .reserve(sale.reserve("ps5", 1).buyer("ada"))
        .rollback(sale.rollback(&failed.id))
        .reserve(sale.reserve("ps5", 9))
        .reserve(sale.reserve("vita", 1))
        .commit(sale.commit("x"));
    for replayed in [false, true] {
        let outcomes = batch.clone().await.expect("an answer");
        assert_eq!(outcomes.len(), 6);
        let BatchOutcome::Commit(Ok(part)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!((part.id.as_str(), part.state, part.replayed), (paid.id.as_str(), State::Pending, replayed));
        assert_eq!((part.lines[0].sold, part.lines[0].held), (1, 1));
        let BatchOutcome::Reserve(Ok(held)) = &outcomes[1] else { panic!("{outcomes:?}") };
        assert_eq!((held.buyer.as_deref(), held.replayed), (Some("ada"), replayed));
        let BatchOutcome::Rollback(Ok(back)) = &outcomes[2] else { panic!("{outcomes:?}") };
        assert_eq!((back.state, back.replayed), (State::RolledBack, replayed));
        let BatchOutcome::Reserve(Err(ReserveError::InsufficientStock { lines })) = &outcomes[3] else {
            panic!("{outcomes:?}")
        };
        assert_eq!(lines[0].requested, 9);
        assert!(matches!(&outcomes[4], BatchOutcome::Reserve(Err(ReserveError::SkuNotFound(_)))), "{outcomes:?}");
        let invalid = |error: &CommitError| matches!(error, CommitError::InvalidReservationId(_));
        assert!(matches!(&outcomes[5], BatchOutcome::Commit(Err(error)) if invalid(error)), "{outcomes:?}");
    }
    let stock = sale.stock("ps5").await.expect("the stock");
    assert_eq!((stock.available, stock.held, stock.sold), (3, 2, 1));

    let many = (0..=MAX_OPERATIONS).fold(sale.batch(), |batch, _| batch.reserve(sale.reserve("ps5", 1)));
    assert!(matches!(many.await, Err(BatchError::TooManyOperations(_))));
    assert!(matches!(sale.batch().await, Err(BatchError::NoOperations(_))));
    assert_eq!(sale.stock("ps5").await.expect("the stock").held, 2, "none of them was done");
}

/// Established TCP connections of this server.
fn connections(server: &SentinelProcess) -> usize {
    let port = format!(":{:04X}", server.grpc().port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the connections of this machine");
    // The local address, the remote one, and the state; 01 is ESTABLISHED.
    let is_of_server = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("01")
    };
    table.lines().filter(is_of_server).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_open_more_connections() {
    let server = SentinelProcess::start().await;
    let before = connections(&server);
    let uri = format!("http://{}", server.grpc());
    let client = Sentinel::builder(uri).batching(false).deadline(Duration::from_secs(30)).connect().await;
    let sale = client.expect("a connection").namespace("sale");
    sale.admin().set_stock("ps5", 7).await.expect("set");
    let read = async |calls: usize| {
        let mut reads = JoinSet::new();
        for _ in 0..calls {
            let sale = sale.clone();
            reads.spawn(async move { sale.stock("ps5").await.expect("the stock").available });
        }
        assert!(reads.join_all().await.into_iter().all(|available| available == 7));
        connections(&server) - before
    };
    assert_eq!(read(CALLS_PER_CONNECTION).await, 1, "one connection has room for so many");
    let mut most = 0;
    eventually("further connections", async || {
        most = read(1_000).await;
        (most > 1).then_some(())
    })
    .await;
    // There are at most as many connections as groups of calls.
    assert!(most <= 1_000_usize.div_ceil(CALLS_PER_CONNECTION), "{most} connections");
}

#[tokio::test]
async fn the_stock_of_many_skus_is_read_in_their_order() {
    let server = SentinelProcess::start().await;
    let sale = server.client().await.namespace("sale");
    // More SKUs than fit into one message; every second one exists.
    let skus: Vec<String> = (0..1_030).map(|n| format!("sku-{n}")).collect();
    let known = (0..1_030).filter(|n| n % 2 == 0).map(|n| (format!("sku-{n}"), n + 1));
    sale.admin().import_stock(known).await.expect("imported");
    let stocks = sale.stock_of(&skus).await.expect("the stock");
    assert_eq!(stocks.len(), skus.len());
    for (n, stock) in (0..).zip(stocks) {
        let stock = stock.map(|stock| (stock.value.sku, stock.value.available));
        assert_eq!(stock, (n % 2 == 0).then(|| (format!("sku-{n}"), n + 1)));
    }
    let twice = sale.stock_of(["sku-0", "nothing", "sku-0"]).await.expect("the stock");
    assert_eq!(twice.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(sale.stock_of([""; 0]).await.expect("nothing").len(), 0);
    assert!(matches!(sale.stock_of(["ps5", ""]).await, Err(BatchGetStockError::EmptySku(_))));
    let elsewhere = server.client().await.namespace("elsewhere");
    let unknown = elsewhere.stock_of(["ps5"]).await;
    assert!(matches!(unknown, Err(BatchGetStockError::NamespaceNotFound(_))), "{unknown:?}");
}
