//! The stream of events: its contents, its continuation without gaps or duplicates, and the end of each kind of stream.

use std::{collections::BTreeMap, time::Duration};

use inventory_sentinel::{
    Reason,
    v1::{self, EventKind},
};
use sentinel_tests::{
    BOUND, Redis, SentinelProcess, TestClient, assert_refused, eventually, new_id, reason, reserve_request,
};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Status, Streaming};

use super::stock::{available, watch_protected, watch_stock};

pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let message = timeout(BOUND, stream.message()).await.expect("something in time");
    message.map(|message| message.expect("the server never ends a stream without a status"))
}

/// A stream of events, and the events received so far.
pub(crate) struct Feed {
    pub(crate) stream: Streaming<v1::WatchResponse>,
    pub(crate) token: String,
    pub(crate) events: Vec<v1::Event>,
}

impl Feed {
    pub(crate) async fn open(shop: &TestClient, resume_token: &str, from_oldest: bool) -> Result<Feed, Status> {
        let request =
            v1::WatchRequest { namespace_id: shop.namespace.clone(), resume_token: resume_token.into(), from_oldest };
        let stream = shop.events.clone().watch(request).await?.into_inner();
        Ok(Feed { stream, token: resume_token.into(), events: Vec::new() })
    }

    /// Receives one response; returns whether it had events.
    pub(crate) async fn next(&mut self) -> Result<bool, Status> {
        let response = next(&mut self.stream).await?;
        let has_events = !response.events.is_empty();
        self.token = response.resume_token;
        self.events.extend(response.events);
        Ok(has_events)
    }

    /// Reads until there is nothing new.
    pub(crate) async fn catch_up(&mut self) {
        while self.next().await.expect("a response") {}
    }
}

/// Reads to the end of the stream; returns its status.
pub(crate) async fn ended<T>(stream: &mut Streaming<T>) -> Status {
    let ended = async {
        loop {
            if let Err(status) = next(stream).await {
                return status;
            }
        }
    };
    timeout(BOUND, ended).await.expect("an end in time")
}

/// The counters that result from the events of a namespace: available, held, sold.
fn replayed(events: &[v1::Event]) -> BTreeMap<String, (i64, i64, i64)> {
    let mut stock: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
    for event in events {
        let (available, held, sold) = match event.kind() {
            EventKind::Reserved => (-1, 1, 0),
            EventKind::Committed => (0, -1, 1),
            EventKind::RolledBack | EventKind::Expired => (1, -1, 0),
            EventKind::Repurchased => (-1, 0, 1),
            _ => (0, 0, 0),
        };
        for line in &event.lines {
            let counters = stock.entry(line.sku.clone()).or_default();
            let units = i64::from(line.quantity);
            *counters = (counters.0 + available * units, counters.1 + held * units, counters.2 + sold * units);
        }
        if !event.sku.is_empty() {
            stock.entry(event.sku.clone()).or_default().0 += event.delta;
        }
    }
    stock
}

/// As [`assert_gapless`], but the number after `last` is `next`: those in between were lost.
pub(crate) fn assert_gapless_but(events: &[v1::Event], first: i64, (last, next): (i64, i64)) {
    let at = events.iter().position(|event| event.sequence > last).expect("some behind the gap");
    assert_gapless(&events[..at], first);
    assert_eq!(events[at - 1].sequence, last);
    assert_gapless(&events[at..], next);
}

/// Checks that these are all changes from this sequence on.
pub(crate) fn assert_gapless(events: &[v1::Event], first: i64) {
    let numbers: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (first..first + numbers.len() as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_event_tells_what_happened() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
    let cart = v1::ReserveRequest { buyer_id: "mo".into(), ..reserve_request(&[("ps5", 3)]) };
    let held = shop.hold_order(cart).await;
    shop.commit_lines(&held.reservation_id, &[("ps5", 1)], v1::RestPolicy::Keep, &new_id())
        .await
        .expect("sold in part");
    shop.extend(&held.reservation_id, Duration::from_secs(900), &new_id()).await.expect("held for longer");
    shop.rollback(&held.reservation_id).await.expect("given back");
    let short = shop.hold_for("ps5", 2, Duration::from_millis(30)).await;
    shop.expired(&short.reservation_id).await;
    shop.adjust_stock("ps5", -4, &new_id()).await.expect("fewer");
    shop.protect("ps5", false).await.expect("not protected");
    let late = shop.commit_late(&short.reservation_id).await.expect("repurchased").reservation.expect("a reservation");
    shop.supply("vita", 1).await;
    shop.delete_sku("vita").await.expect("deleted");

    let all = async {
        while feed.events.len() < 12 {
            feed.next().await.expect("a response");
        }
    };
    timeout(BOUND, all).await.expect("all that happened");
    assert_gapless(&feed.events, 1);
    let kinds: Vec<_> = feed.events.iter().map(v1::Event::kind).collect();
    use EventKind::*;
    assert_eq!(
        kinds,
        [
            StockSet,
            Reserved,
            Committed,
            Extended,
            RolledBack,
            Reserved,
            Expired,
            StockAdjusted,
            SkuConfigured,
            Repurchased,
            StockSet,
            SkuDeleted
        ]
    );
    let fields = |i: usize| {
        let event = &feed.events[i];
        let lines: Vec<_> = event.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
        (event.reservation_id.as_str(), event.buyer_id.as_str(), lines, event.state(), event.expires_at)
    };
    let (id, pending) = (held.reservation_id.as_str(), v1::ReservationState::Pending);
    assert_eq!(fields(1), (id, "mo", vec![("ps5", 3)], pending, held.expires_at));
    assert_eq!(fields(2), (id, "mo", vec![("ps5", 1)], pending, held.expires_at));
    assert_eq!(fields(4), (id, "mo", vec![("ps5", 2)], v1::ReservationState::Committed, None));
    assert_eq!(fields(6).3, v1::ReservationState::Expired);
    assert_eq!(fields(9).0, late.reservation_id);
    assert_eq!((feed.events[7].sku.as_str(), feed.events[7].delta), ("ps5", -4));
    assert_eq!(replayed(&feed.events)["ps5"], shop.counts("ps5").await);
}

/// Callers of all kinds while servers restart: the events alone give the counters of the store.
#[tokio::test(flavor = "multi_thread")]
async fn events_go_on_over_restarts_without_a_gap_or_a_double() {
    let redis = Redis::start().await;
    let worker = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms --partitions 1").start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let shop = worker.shop("sale");
    for sku in ["a", "b", "c"] {
        shop.supply(sku, 300).await;
    }
    let mut work = JoinSet::new();
    for caller in 0..24 {
        let shop = shop.clone();
        work.spawn(async move {
            for i in 0..40 {
                let sku = ["a", "b", "c"][(caller + i) % 3];
                let ttl = Some(prost_types::Duration { seconds: 0, nanos: 30_000_000 });
                let expires = i % 7 == 0;
                let order = v1::ReserveRequest { ttl: ttl.filter(|_| expires), ..reserve_request(&[(sku, 1)]) };
                let answer = shop.reserve(order).await.expect("an answer");
                if let Some(v1::reserve_response::Result::Reservation(held)) = answer.result
                    && !expires
                {
                    match i % 3 {
                        0 => drop(shop.commit(&held.reservation_id).await.expect("sold")),
                        1 => drop(shop.rollback(&held.reservation_id).await.expect("given back")),
                        _ => {}
                    }
                }
            }
        });
    }
    let (mut events, mut token, mut restarts) = (Vec::new(), String::new(), 0);
    while !work.is_empty() || restarts < 3 {
        let mut feed = Feed::open(&server.shop("sale"), &token, token.is_empty()).await.expect("a stream");
        for _ in 0..20 {
            feed.next().await.expect("a response");
        }
        (token, restarts) = (feed.token, restarts + 1);
        events.extend(feed.events);
        server.restart().await;
        while work.try_join_next().is_some() {}
    }
    let mut feed = Feed::open(&server.shop("sale"), &token, false).await.expect("a stream");
    eventually("all events are delivered", async || {
        feed.catch_up().await;
        let all = [&events[..], &feed.events].concat();
        assert_gapless(&all, 1);
        let stock = replayed(&all);
        for sku in ["a", "b", "c"] {
            if stock[sku] != shop.counts(sku).await {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_place_that_is_not_kept_is_refused() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let (shop, other) = (server.shop("sale"), server.shop("other"));
    other.supply("ps5", 1).await;
    shop.supply("ps5", 100).await;
    let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    let token = feed.token;
    for _ in 0..5 {
        shop.hold("ps5", 1).await;
    }
    let compacted = async |shop: &TestClient, token: &str| match Feed::open(shop, token, false).await {
        Ok(mut feed) => feed.next().await.map(|_| ()),
        Err(status) => Err(status),
    };
    assert!(compacted(&shop, &token).await.is_ok(), "it is kept");
    redis.trim_events(2).await;
    assert_refused(compacted(&shop, &token).await, Reason::EventsCompacted, None);
    assert_refused(compacted(&other, &token).await, Reason::EventsCompacted, None);
    let mut oldest = Feed::open(&shop, "", true).await.expect("a stream");
    oldest.catch_up().await;
    assert_gapless(&oldest.events, 5);
    redis.trim_events(0).await;
    let mut none = Feed::open(&shop, "", true).await.expect("a stream");
    none.catch_up().await;
    shop.hold("ps5", 1).await;
    while !none.next().await.expect("a response") {}
    assert_gapless(&none.events, 7);

    for malformed in ["x", "AQ", &token[1..], &format!("{token}AA")] {
        assert_refused(compacted(&shop, malformed).await, Reason::InvalidResumeToken, Some("resume_token"));
    }
    let nowhere = server.shop("nowhere");
    assert_refused(compacted(&nowhere, "").await, Reason::NamespaceNotFound, None);
    assert_refused(compacted(&server.shop("no where"), "").await, Reason::InvalidNamespace, Some("namespace_id"));
}

/// One script call makes more changes than fit into one response. The token contains the position in the middle.
#[tokio::test]
async fn a_large_batch_is_told_in_parts_and_gone_on_with_in_the_middle() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    let mut feed = Feed::open(&shop, "", false).await.expect("a stream");
    feed.catch_up().await;
    let rows = (0..500).map(|i| v1::ImportRow { sku: format!("sku-{i}"), on_hand: 1 }).collect();
    let message = v1::ImportStockRequest {
        namespace_id: "sale".into(),
        request_id: new_id(),
        rows,
        overwrite: false,
        existing_namespace_only: false,
    };
    let mut import =
        shop.admin.clone().import_stock(tokio_stream::iter([message])).await.expect("a stream").into_inner();
    assert_eq!(next(&mut import).await.expect("an answer").results.len(), 500);
    while !feed.next().await.expect("a response") {}
    let first = feed.events.len();
    assert!((1..500).contains(&first), "{first}");
    let mut rest = Feed::open(&shop, &feed.token, false).await.expect("a stream");
    rest.catch_up().await;
    let all = [feed.events, rest.events].concat();
    assert_gapless(&all, 2);
    assert_eq!(all.len(), 500);
    assert_eq!(replayed(&all).len(), 500);
}

/// A connection with a small window, and a consumer that reads nothing while the server buffers more than its limit.
#[tokio::test]
async fn a_slow_reader_is_told_so_and_goes_on_from_his_token() {
    let redis = Redis::start_in_memory().await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let mut shop = server.shop("sale");
    let names: Vec<String> = (0..20).map(|i| format!("{i:0>128}")).collect();
    for name in &names {
        shop.supply(name, 1_000_000).await;
    }
    let narrow = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc())).expect("an address");
    let narrow = narrow.initial_stream_window_size(65_535).connect().await.expect("a connection");
    shop.events = v1::inventory_events_client::InventoryEventsClient::new(narrow);
    let mut feed = Feed::open(&shop, "", false).await.expect("a stream");
    feed.catch_up().await;
    let lines: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    const HOLDS: usize = 2_500;
    for _ in 0..HOLDS {
        shop.hold_order(reserve_request(&lines)).await;
    }
    let ended = loop {
        if let Err(status) = feed.next().await {
            break status;
        }
    };
    assert_refused(Err::<(), _>(ended), Reason::WatchTooSlow, None);
    assert_eq!(server.metric("inventory_sentinel_watches_cut_off_total").await, 1.0);
    let before = feed.events;
    assert!(before.len() < HOLDS, "{}", before.len());
    let mut feed = Feed::open(&shop, &feed.token, false).await.expect("a stream");
    feed.catch_up().await;
    let all = [before, feed.events].concat();
    assert_gapless(&all, names.len() as i64 + 1);
    assert_eq!(all.len(), HOLDS);
}

#[tokio::test]
async fn streams_end_with_the_server_and_have_a_token() {
    let mut server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let mut feed = Feed::open(&shop, "", false).await.expect("a stream");
    feed.next().await.expect("where it begins");
    let mut stock = watch_stock(&shop, &[], Duration::from_secs(3_600), "").await;
    let mut protected = watch_protected(&shop, "").await;
    let token = next(&mut protected).await.expect("a snapshot").resume_token;
    assert!(!token.is_empty() && !feed.token.is_empty());
    server.terminate();
    let drained = |status: Status| assert_eq!(reason(&status), Reason::Draining, "{status:?}");
    drained(ended(&mut feed.stream).await);
    drained(ended(&mut stock).await);
    drained(ended(&mut protected).await);
    let began = std::time::Instant::now();
    assert!(server.exit().await.success());
    assert!(began.elapsed() < Duration::from_secs(8), "streams don't hold up the end: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_stream_outlives_a_restart_of_redis() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let mut feed = Feed::open(&shop, "", false).await.expect("a stream");
    let mut stock = watch_stock(&shop, &["ps5"], Duration::from_millis(10), "").await;
    feed.next().await.expect("where it begins");
    redis.restart().await;
    server.wait_until_ready().await;
    eventually("the store can be used", async || shop.try_stock("ps5").await.ok()).await;
    shop.hold("ps5", 4).await;
    while !feed.next().await.expect("the stream continues") {}
    assert_eq!(feed.events[0].kind(), EventKind::Reserved);
    loop {
        let response = next(&mut stock).await.expect("the stream continues");
        if available(&response).get("ps5") == Some(&Some(6)) {
            break;
        }
    }
}

#[tokio::test]
async fn there_are_no_more_streams_than_allowed() {
    let redis = Redis::start().await;
    let flags = "--max-watches 3 --max-watched-namespaces 1";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let (shop, other) = (server.shop("sale"), server.shop("other"));
    shop.supply("ps5", 1).await;
    other.supply("ps5", 1).await;
    let first = Feed::open(&shop, "", false).await.expect("a stream");
    assert_refused(Feed::open(&other, "", false).await.map(drop), Reason::TooManyWatches, None);
    let more = [Feed::open(&shop, "", false).await, Feed::open(&shop, "", false).await];
    assert_refused(Feed::open(&shop, "", false).await.map(drop), Reason::TooManyWatches, None);
    drop((first, more));
    eventually("there is room for another namespace", async || Feed::open(&other, "", false).await.ok()).await;
}

/// Eight streams with much to read, as many as may read the store at a time. After a while none of them is read.
#[tokio::test]
async fn streams_that_are_not_read_hold_no_other_back() {
    let redis = Redis::start_in_memory().await;
    let server = SentinelProcess::launch().on(&redis).flags("--durability fast").start().await;
    let (shop, other) = (server.shop("sale"), server.shop("other"));
    // One read of the store returns less than a stream may buffer, so each stream is soon in the middle of its next
    // read.
    let name = format!("{:0>128}", 1);
    shop.supply(&name, 1_000_000).await;
    for _ in 0..1_500 {
        shop.hold(&name, 1).await;
    }
    other.supply("ps5", 100).await;
    for _ in 1..20 {
        other.hold("ps5", 1).await;
    }
    let mut unread = Vec::new();
    for _ in 0..8 {
        let narrow = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc())).expect("an address");
        let narrow = narrow.initial_stream_window_size(65_535).connect().await.expect("a connection");
        let mut shop = shop.clone();
        shop.events = v1::inventory_events_client::InventoryEventsClient::new(narrow);
        let mut feed = Feed::open(&shop, "", true).await.expect("a stream");
        feed.next().await.expect("a response");
        unread.push(feed);
    }
    for _ in 0..5 {
        let all = async {
            let mut feed = Feed::open(&other, "", true).await.expect("a stream");
            while feed.events.len() < 20 {
                feed.next().await.expect("a response");
            }
            assert_gapless(&feed.events, 1);
        };
        timeout(BOUND, all).await.expect("all events of the other namespace");
    }
    drop(unread);
}
