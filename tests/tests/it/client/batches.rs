//! The batches of the Rust client, against the real server. Concurrent calls share messages, and each is answered,
//! retried and timed as a single call.

use std::time::{Duration, Instant};

use inventory_sentinel_client::{
    CommitError, Namespace, ReserveError, RetryBudget, RetryPolicy, RollbackError, Sentinel, State,
};
use sentinel_tests::{LossyProxy, Redis, SentinelProcess};
use tokio::task::JoinSet;

const BATCHES: &str = "inventory_sentinel_operation_duration_seconds_count{operation=\"batch\"}";
const RESERVES: &str = "inventory_sentinel_operation_duration_seconds_count{operation=\"reserve\"}";

/// Units held after this many concurrent Reserves; the others must be short.
async fn rush(sale: &Namespace, buyers: usize) -> Vec<String> {
    let mut calls = JoinSet::new();
    for _ in 0..buyers {
        calls.spawn(sale.reserve("ps5", 1).into_future());
    }
    let mut held = Vec::new();
    for answer in calls.join_all().await {
        match answer {
            Ok(reservation) => held.push(reservation.id.clone()),
            Err(ReserveError::InsufficientStock { lines }) => assert_eq!(lines[0].available, 0),
            Err(error) => panic!("{error}"),
        }
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rush_shares_messages_and_everyone_has_his_own_answer() {
    let server = SentinelProcess::start().await;
    let sale = server.client().await.namespace("sale");
    sale.admin().set_stock("ps5", 100).await.expect("set");
    let held = rush(&sale, 500).await;
    assert_eq!(held.len(), 100);
    let batches = server.metric(BATCHES).await;
    assert!((1.0..250.0).contains(&batches), "{batches} batches");
    assert_eq!(server.metric(RESERVES).await, 500.0, "each is counted as a call");

    // The outcome of each is that of a single call, whatever else is in its batch.
    let mut calls = JoinSet::new();
    for (i, id) in held.into_iter().enumerate() {
        let sale = sale.clone();
        calls.spawn(async move {
            match i % 3 {
                0 => assert_eq!(sale.commit(&id).await.expect("sold").state, State::Committed),
                1 => assert_eq!(sale.rollback(&id).await.expect("given back").state, State::RolledBack),
                _ => {
                    let unknown = sale.commit("AAAAAAAAAAAAAAAAAAAAAAAA").await;
                    assert!(matches!(unknown, Err(CommitError::NotFound(_))), "{unknown:?}");
                    let malformed = sale.rollback("x").await;
                    assert!(matches!(malformed, Err(RollbackError::InvalidReservationId(_))), "{malformed:?}");
                }
            }
        });
    }
    calls.join_all().await;
    let audit = sale.admin().audit().await.expect("an audit");
    assert_eq!((audit.available, audit.held, audit.sold, audit.clean), (33, 33, 34, true));
}

#[tokio::test]
async fn a_lone_caller_and_one_who_wants_none_send_no_batch() {
    let server = SentinelProcess::start().await;
    let sale = server.client().await.namespace("sale");
    sale.admin().set_stock("ps5", 1_000).await.expect("set");
    for _ in 0..20 {
        let held = sale.reserve("ps5", 1).await.expect("held");
        sale.commit(&held.id).await.expect("sold");
    }
    let uri = format!("http://{}", server.grpc());
    let single = Sentinel::builder(uri).batching(false).connect().await.expect("a connection");
    assert_eq!(rush(&single.namespace("sale"), 200).await.len(), 200);
    assert_eq!(server.metric(BATCHES).await, 0.0);
}

/// The server gives up at once, so the client repeats calls that may have been applied: more calls than its budget has
/// tokens, in few messages.
#[tokio::test(flavor = "multi_thread")]
async fn retries_of_gathered_calls_have_one_effect() {
    let redis = Redis::start().await;
    let proxy = LossyProxy::start(&redis).await;
    let flags = format!("--redis-url {} --resend-for 0s", proxy.url());
    let server = SentinelProcess::launch().flags(&flags).start().await;
    let careful = Sentinel::builder(format!("http://{}", server.grpc()))
        .deadline(Duration::from_secs(20))
        .retry(RetryPolicy {
            max_attempts: 20,
            budget: RetryBudget { tokens: 200, refund: 0.0 },
            ..RetryPolicy::default()
        })
        .connect()
        .await
        .expect("a connection");
    let sale = careful.namespace("sale");
    sale.admin().set_stock("ps5", 3_000).await.expect("set");
    proxy.lose_replies(10);
    assert_eq!(rush(&sale, 2_000).await.len(), 2_000);
    assert_eq!(proxy.lost(), 10);
    let audit = sale.admin().audit().await.expect("an audit");
    assert_eq!((audit.available, audit.held, audit.clean), (1_000, 2_000, true));
}

#[tokio::test]
async fn each_keeps_his_own_deadline() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let sale = server.client().await.namespace("sale");
    sale.admin().set_stock("ps5", 1_000).await.expect("set");
    redis.execute::<String>("CLIENT PAUSE 1500 WRITE").await;
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for i in 0..80 {
        let short = i % 2 == 0;
        let sale = sale.with_deadline(Duration::from_millis(if short { 300 } else { 10_000 }));
        calls.spawn(async move {
            let answer = sale.reserve("ps5", 1).await;
            assert_eq!(answer.is_err(), short, "{answer:?}");
            if short {
                assert!(begun.elapsed() < Duration::from_millis(1_200), "{:?}", begun.elapsed());
            }
        });
    }
    calls.join_all().await;
}
