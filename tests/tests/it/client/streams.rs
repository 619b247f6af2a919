//! The streams of the Rust client, against the real server. They resume automatically, and the local set of protected
//! SKUs never answers when it is too old.

use std::time::{Duration, Instant};

use inventory_sentinel_client::{EventKind, RulesChange, Sentinel, WatchError, WatchStockError};
use sentinel_tests::{Redis, SentinelProcess, TcpForwarder, eventually};

const CALLS: &str = "inventory_sentinel_operation_duration_seconds_count{operation=\"is_protected\"}";

#[tokio::test]
async fn the_protected_set_answers_without_a_call_and_never_when_it_is_too_old() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let door = TcpForwarder::open(server.grpc()).await;
    let sale = Sentinel::connect(door.uri()).await.expect("a connection").namespace("sale");
    sale.admin().set_stock("ps5", 1).await.expect("set");
    sale.admin().set_stock("vita", 1).await.expect("set");
    let protected = sale.watch_protected();
    eventually("the set is known", async || protected.known("ps5")).await;
    assert_eq!((protected.known("ps5"), protected.known("none")), (Some(true), Some(false)));
    sale.admin().configure_sku("ps5", RulesChange::new().protected(false)).await.expect("not protected");
    eventually("the change arrives", async || (protected.known("ps5") == Some(false)).then_some(())).await;
    for _ in 0..100 {
        assert!(protected.is_protected("vita").await.expect("an answer"));
    }
    assert_eq!(server.metric(CALLS).await, 0.0);
    assert_eq!(protected.skus().expect("a set"), ["vita"]);

    // The set is older than this caller permits, so the client makes a call.
    let strict = protected.max_age(Duration::ZERO);
    assert_eq!(strict.known("vita"), None);
    assert!(strict.is_protected("vita").await.expect("an answer"));
    assert_eq!(server.metric(CALLS).await, 1.0);

    // Without a server the set stays valid until its maximum age.
    let short = protected.max_age(Duration::from_secs(2));
    let gone = Instant::now();
    server.kill9();
    while short.known("vita").is_some() {
        assert!(gone.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let impatient = sale.with_deadline(Duration::from_millis(200));
    assert!(impatient.is_protected("vita").await.is_err());

    server.restart().await;
    door.lead_to(server.grpc());
    let back = eventually("the set is kept again", async || short.known("vita")).await;
    assert!(back);
    sale.admin().configure_sku("ps5", RulesChange::new().protected(true)).await.expect("protected");
    eventually("changes arrive again", async || (short.known("ps5") == Some(true)).then_some(())).await;
}

#[tokio::test]
async fn events_go_on_over_another_server() {
    let redis = Redis::start().await;
    let (mut one, other) = (SentinelProcess::on(&redis).await, SentinelProcess::on(&redis).await);
    let door = TcpForwarder::open(one.grpc()).await;
    let sale = Sentinel::connect(door.uri()).await.expect("a connection").namespace("sale");
    sale.admin().set_stock("ps5", 10).await.expect("set");
    let mut events = sale.events().from_oldest();
    let mut received = Vec::new();
    let mut token = String::new();
    let mut read_to = async |received: &mut Vec<_>, last: i64| {
        while received.last().is_none_or(|event: &inventory_sentinel_client::Event| event.sequence < last) {
            let changes = events.next().await.expect("the stream resumes");
            token = changes.resume_token;
            received.extend(changes.events);
        }
        token.clone()
    };
    let held = sale.reserve("ps5", 2).buyer("mo").await.expect("held");
    read_to(&mut received, 2).await;
    door.lead_to(other.grpc());
    one.terminate();
    let other_sale = Sentinel::connect(door.uri()).await.expect("a connection").namespace("sale");
    other_sale.commit(&held.id).await.expect("sold");
    let token = read_to(&mut received, 3).await;
    assert!(one.exit().await.success());
    let kinds: Vec<_> = received.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::StockSet, EventKind::Reserved, EventKind::Committed]);
    assert_eq!((received[1].reservation_id.as_str(), received[1].buyer.as_deref()), (held.id.as_str(), Some("mo")));
    assert_eq!((received[0].delta, received[0].state, received[2].lines[0].quantity), (10, None, 2));

    other_sale.reserve("ps5", 1).await.expect("held");
    redis.trim_events(0).await;
    let compacted = other_sale.events().after(token).next().await;
    assert!(matches!(compacted, Err(WatchError::Compacted(_))), "{compacted:?}");
    let malformed = other_sale.events().after("x").next().await;
    assert!(matches!(malformed, Err(WatchError::InvalidResumeToken(_))), "{malformed:?}");
}

#[tokio::test]
async fn stock_is_watched() {
    let server = SentinelProcess::start().await;
    let sale = server.client().await.namespace("sale");
    let nowhere = sale.watch_stock(["ps5"]).next().await;
    assert!(matches!(nowhere, Err(WatchStockError::NamespaceNotFound(_))), "{nowhere:?}");
    sale.admin().set_stock("ps5", 10).await.expect("set");
    let mut numbers = sale.watch_stock(["ps5", "none"]).interval(Duration::from_millis(10));
    let first = numbers.next().await.expect("all of them");
    assert!(first.is_snapshot);
    let left = |news: &[(String, Option<inventory_sentinel_client::Stock>)]| -> Vec<_> {
        news.iter().map(|(sku, stock)| (sku.clone(), stock.as_ref().map(|stock| stock.available))).collect()
    };
    assert_eq!(left(&first.skus), [("ps5".into(), Some(10)), ("none".into(), None)]);
    sale.reserve("ps5", 3).await.expect("held");
    let news = loop {
        let news = numbers.next().await.expect("news");
        if !news.skus.is_empty() {
            break news;
        }
    };
    assert_eq!((left(&news.skus), news.is_snapshot), (vec![("ps5".into(), Some(7))], false));
    let invalid = sale.watch_stock(["ps5"]).interval(Duration::ZERO).next().await;
    assert!(matches!(invalid, Err(WatchStockError::InvalidInterval(_))), "{invalid:?}");
}
