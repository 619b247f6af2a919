//! Many operations in one call: each decided separately, answered in order, and exactly as its single call.

use std::{collections::HashSet, time::Instant};

use inventory_sentinel::{
    Reason,
    v1::{
        self, ReservationState as State, batch_operation::Operation as Sent, batch_result::Result as Received,
        reserve_response::Result as Reserved,
    },
};
use inventory_sentinel_script::limits::MAX_OPERATIONS;
use sentinel_tests::{Event, History, Redis, SentinelProcess, TestClient, assert_refused, new_id, reserve_request};
use tonic::{Code, Status};

async fn try_batch(shop: &TestClient, operations: Vec<Sent>) -> Result<Vec<Received>, Status> {
    let operations =
        operations.into_iter().map(|operation| v1::BatchOperation { operation: Some(operation), timeout: None });
    let request = v1::BatchRequest { operations: operations.collect() };
    let results = shop.checkout.clone().batch(request).await?.into_inner().results;
    Ok(results.into_iter().map(|entry| entry.result.expect("every operation has a result")).collect())
}

async fn batch(shop: &TestClient, operations: Vec<Sent>) -> Vec<Received> {
    let count = operations.len();
    let results = try_batch(shop, operations).await.expect("a batch");
    assert_eq!(results.len(), count);
    results
}

fn reserve(shop: &TestClient, request: v1::ReserveRequest) -> Sent {
    Sent::Reserve(v1::ReserveRequest { namespace_id: shop.namespace.clone(), ..request })
}

fn commit(shop: &TestClient, id: &str) -> Sent {
    let (namespace_id, reservation_id) = (shop.namespace.clone(), id.to_owned());
    Sent::Commit(v1::CommitRequest { namespace_id, reservation_id, ..Default::default() })
}

fn rollback(shop: &TestClient, id: &str) -> Sent {
    let (namespace_id, reservation_id) = (shop.namespace.clone(), id.to_owned());
    Sent::Rollback(v1::RollbackRequest { namespace_id, reservation_id, ..Default::default() })
}

fn get_stock(shop: &TestClient, sku: &str) -> Sent {
    Sent::GetStock(v1::GetStockRequest { namespace_id: shop.namespace.clone(), sku: sku.into() })
}

/// The reservation, and whether it was replayed.
fn held(received: &Received) -> (v1::Reservation, bool) {
    match received {
        Received::Reserve(v1::ReserveResponse { result: Some(Reserved::Reservation(held)), replayed, .. }) => {
            (held.clone(), *replayed)
        }
        other => panic!("no reservation: {other:?}"),
    }
}

fn failure(received: &Received) -> (Reason, &v1::Failure) {
    match received {
        Received::Failure(failure) => (Reason::from_name(&failure.reason).expect("a reason of the catalogue"), failure),
        other => panic!("no failure: {other:?}"),
    }
}

#[tokio::test]
async fn each_has_its_own_result_in_order() {
    let server = SentinelProcess::start().await;
    let (shop, other) = (server.shop("sale"), server.shop("other"));
    shop.supply("ps5", 10).await;
    other.supply("pad", 1).await;
    let [a, b, c, d] = [(); 4].map(|()| reserve_request(&[("ps5", 1)]));
    let held_before = shop.hold_order(a.clone()).await;
    let (bought, given_back) = (shop.hold_order(b).await.reservation_id, shop.hold_order(c).await.reservation_id);
    let extend = Sent::Extend(v1::ExtendRequest {
        namespace_id: "sale".into(),
        reservation_id: held_before.reservation_id.clone(),
        ttl: Some(prost_types::Duration { seconds: 3_000, nanos: 0 }),
        request_id: new_id(),
    });
    let read =
        v1::GetReservationRequest { namespace_id: "sale".into(), reservation_id: bought.clone(), ..Default::default() };
    let received = batch(
        &shop,
        vec![
            reserve(&shop, a),
            reserve(&shop, d.clone()),
            reserve(&shop, reserve_request(&[("ps5", 11)])),
            reserve(&other, reserve_request(&[("pad", 1)])),
            commit(&shop, &bought),
            rollback(&shop, &given_back),
            extend,
            Sent::GetReservation(read),
            get_stock(&other, "pad"),
            reserve(&shop, reserve_request(&[("ps5", 0)])),
            commit(&shop, "AAAAAAAAAAAAAAAAAAAAAAAA"),
            get_stock(&shop, "vita"),
        ],
    )
    .await;
    let (again, replayed) = held(&received[0]);
    assert!(replayed && again.reservation_id == held_before.reservation_id, "known from its single call");
    let (new, replayed) = held(&received[1]);
    assert!(!replayed && new.state() == State::Pending);
    assert!(
        matches!(&received[2], Received::Reserve(v1::ReserveResponse { result: Some(Reserved::Shortage(_)), .. })),
        "{:?}",
        received[2]
    );
    assert_eq!(held(&received[3]).0.namespace_id, "other");
    let states = [&received[4], &received[5], &received[6], &received[7]].map(|received| match received {
        Received::Commit(v1::CommitResponse { reservation: Some(it), .. })
        | Received::Rollback(v1::RollbackResponse { reservation: Some(it), .. })
        | Received::Extend(v1::ExtendResponse { reservation: Some(it), .. })
        | Received::GetReservation(v1::GetReservationResponse { reservation: Some(it), .. }) => it.clone(),
        other => panic!("{other:?}"),
    });
    let ids = states.each_ref().map(|it| it.reservation_id.as_str());
    assert_eq!(ids, [&bought, &given_back, &held_before.reservation_id, &bought]);
    assert_eq!([states[0].state(), states[1].state()], [State::Committed, State::RolledBack]);
    assert!(states[2].expires_at.map(|at| at.seconds) > held_before.expires_at.map(|at| at.seconds));
    assert!(
        matches!(&received[8], Received::GetStock(read) if read.stock.as_ref().is_some_and(|stock| stock.sku == "pad"))
    );

    // A failure of one operation is reported as that of its single call, and affects no other.
    let (reason, received_9) = failure(&received[9]);
    assert_eq!((reason, received_9.field.as_str()), (Reason::InvalidQuantity, "lines[0].quantity"));
    assert_eq!((received_9.code, &received_9.retry_after), (Code::InvalidArgument.into(), &None));
    assert_eq!(failure(&received[10]).0, Reason::ReservationNotFound);
    let (reason, received_11) = failure(&received[11]);
    assert_eq!((reason, received_11.metadata["sku"].as_str()), (Reason::SkuNotFound, "vita"));

    // Repeated, an operation of a batch is the same as its single call.
    let single = shop.reserve(d).await.expect("an answer");
    assert!(single.replayed && matches!(single.result, Some(Reserved::Reservation(it)) if it == new));
    assert_eq!(shop.counts("ps5").await, (7, 2, 1));
    shop.audit().await;
    other.audit().await;

    // All are counted as single calls are, and the batch as one.
    assert_eq!(server.metric("inventory_sentinel_reserve_total{status=\"insufficient_stock\"}").await, 1.0);
    assert_eq!(server.metric("inventory_sentinel_reserve_total{status=\"invalid\"}").await, 1.0);
    assert_eq!(server.metric("inventory_sentinel_commit_total{status=\"refused\"}").await, 1.0);
    let calls = "inventory_sentinel_operation_duration_seconds_count{operation=\"batch\"}";
    assert_eq!(server.metric(calls).await, 1.0);
}

#[tokio::test]
async fn the_last_unit_goes_to_one_of_a_batch() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    let received = batch(&shop, (0..100).map(|_| reserve(&shop, reserve_request(&[("ps5", 1)]))).collect()).await;
    let winners = received.iter().filter(|received| match received {
        Received::Reserve(v1::ReserveResponse { result: Some(Reserved::Shortage(short)), .. }) => {
            assert_eq!(short.lines[0].available, 0);
            false
        }
        received => !held(received).1,
    });
    assert_eq!(winners.count(), 1);
    assert_eq!(shop.counts("ps5").await, (0, 1, 0));
    shop.audit().await;
}

#[tokio::test]
async fn the_same_request_twice_in_a_batch_has_one_effect() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let request = reserve_request(&[("ps5", 2)]);
    let received = batch(&shop, vec![reserve(&shop, request.clone()); 50]).await;
    let ids: HashSet<String> = received.iter().map(|received| held(received).0.reservation_id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(received.iter().filter(|received| !held(received).1).count(), 1, "one has made it");
    assert_eq!(shop.counts("ps5").await, (8, 2, 0));
    shop.audit().await;
}

#[tokio::test]
async fn the_operations_of_a_batch_share_script_calls() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let calls = "inventory_sentinel_batch_operations_count";
    let before = server.metric(calls).await;
    let received =
        batch(&shop, (0..MAX_OPERATIONS).map(|_| reserve(&shop, reserve_request(&[("ps5", 1)]))).collect()).await;
    assert!(received.iter().all(|received| !held(received).1));
    let calls = server.metric(calls).await - before;
    // One, but for sweeps and a worker that was quick.
    assert!(calls <= 4.0, "{calls} script calls for {MAX_OPERATIONS} operations");
    assert_eq!(shop.counts("ps5").await, (488, 512, 0));
    shop.audit().await;
}

#[tokio::test]
async fn what_batches_answer_can_be_put_in_one_order() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    let supplied = shop.set_stock("ps5", 60, &new_id()).await.expect("the stock is set");
    let mut history = History::default();
    history.note(Instant::now(), supplied.sequence, Event::Supplied(60));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let shop = shop.clone();
            tokio::spawn(async move {
                let (mut seen, mut mine) = (Vec::new(), Vec::new());
                for _ in 0..10 {
                    let mut calls: Vec<Sent> = (0..6).map(|_| reserve(&shop, reserve_request(&[("ps5", 1)]))).collect();
                    let resolved: Vec<String> = std::mem::take(&mut mine);
                    for (i, id) in resolved.iter().enumerate() {
                        calls.push(if i % 3 == 0 { commit(&shop, id) } else { rollback(&shop, id) });
                    }
                    calls.push(get_stock(&shop, "ps5"));
                    let began = Instant::now();
                    let received = batch(&shop, calls).await;
                    let ended = Instant::now();
                    for received in received {
                        let (sequence, event) = event(received);
                        if let Event::Held(id, _) = &event {
                            mine.push(id.clone());
                        }
                        seen.push((began, ended, sequence, event));
                    }
                }
                seen
            })
        })
        .collect();
    for worker in workers {
        for (began, ended, sequence, event) in worker.await.expect("a worker") {
            history.note_ended(began, ended, sequence, event);
        }
    }
    history.check().expect("linearizable");
    shop.audit().await;
}

fn event(received: Received) -> (i64, Event) {
    match received {
        Received::Reserve(v1::ReserveResponse { result: Some(Reserved::Reservation(it)), sequence, .. }) => {
            (sequence, Event::Held(it.reservation_id, 1))
        }
        Received::Reserve(v1::ReserveResponse { result: Some(Reserved::Shortage(short)), sequence, .. }) => {
            (sequence, Event::Short(1, short.lines[0].available))
        }
        Received::Commit(v1::CommitResponse { reservation: Some(it), sequence, .. }) => {
            (sequence, Event::Committed(it.reservation_id))
        }
        Received::Rollback(v1::RollbackResponse { reservation: Some(it), sequence, .. }) => {
            (sequence, Event::RolledBack(it.reservation_id))
        }
        Received::GetStock(v1::GetStockResponse { stock: Some(it), sequence }) => {
            (sequence, Event::Read(it.available, it.held, it.sold))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_too_large_or_empty_is_refused_whole() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let many = (0..=MAX_OPERATIONS).map(|_| reserve(&shop, reserve_request(&[("ps5", 1)]))).collect();
    assert_refused(try_batch(&shop, many).await, Reason::TooManyOperations, Some("operations"));
    assert_refused(try_batch(&shop, Vec::new()).await, Reason::NoOperations, Some("operations"));
    assert_eq!(shop.counts("ps5").await, (1_000, 0, 0));

    // An entry without an operation is only its own mistake.
    let operation = Some(reserve(&shop, reserve_request(&[("ps5", 1)])));
    let no_time = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let operations = vec![
        v1::BatchOperation::default(),
        v1::BatchOperation { operation: operation.clone(), timeout: None },
        v1::BatchOperation { operation, timeout: no_time },
    ];
    let received = shop.checkout.clone().batch(v1::BatchRequest { operations }).await.expect("a batch").into_inner();
    let received: Vec<Received> = received.results.into_iter().map(|entry| entry.result.expect("a result")).collect();
    let (reason, received_0) = failure(&received[0]);
    assert_eq!((reason, received_0.field.as_str()), (Reason::NoOperations, "operation"));
    held(&received[1]);
    // Nor is one whose own time is over before it was sent.
    assert_eq!(failure(&received[2]).0, Reason::DeadlineExceeded);
    assert_eq!(shop.counts("ps5").await, (999, 1, 0));
}

#[tokio::test]
async fn many_stocks_are_read_in_one_call() {
    let server = SentinelProcess::launch().flags("--partitions 4").start().await;
    let (shop, ghost) = (server.shop("sale"), server.shop("ghost"));
    let read = async |shop: &TestClient, skus: &[&str]| {
        let skus = skus.iter().map(|&sku| sku.to_owned()).collect();
        let request = v1::BatchGetStockRequest { namespace_id: shop.namespace.clone(), skus };
        shop.checkout.clone().batch_get_stock(request).await.map(tonic::Response::into_inner)
    };
    for (sku, units) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        shop.supply(sku, units).await;
    }
    shop.hold("c", 2).await;
    let answer = read(&shop, &["d", "x", "c", "a", "y", "d"]).await.expect("an answer");
    assert_eq!(answer.unknown_skus, ["x", "y"]);
    let found: Vec<_> = answer.found.iter().map(|read| read.stock.clone().expect("a stock")).collect();
    let found: Vec<_> = found.iter().map(|stock| (stock.sku.as_str(), stock.available, stock.held)).collect();
    assert_eq!(found, [("d", 4, 0), ("c", 1, 2), ("a", 1, 0), ("d", 4, 0)]);
    for (read, sku) in answer.found.iter().zip(["d", "c", "a", "d"]) {
        assert_eq!(read, &shop.try_stock(sku).await.expect("the stock"));
    }
    assert_refused(read(&ghost, &["a"]).await, Reason::NamespaceNotFound, None);

    assert_refused(read(&shop, &[]).await, Reason::NoOperations, Some("skus"));
    assert_refused(read(&shop, &["a"; MAX_OPERATIONS + 1]).await, Reason::TooManyOperations, Some("skus"));
    assert_eq!(read(&shop, &["a"; MAX_OPERATIONS]).await.expect("an answer").found.len(), MAX_OPERATIONS);
    assert_refused(read(&shop, &["a", ""]).await, Reason::EmptySku, Some("skus[1]"));
    assert_refused(read(&shop, &["a", "b", "p\ns"]).await, Reason::InvalidSku, Some("skus[2]"));
    assert_refused(read(&server.shop("n n"), &["a"]).await, Reason::InvalidNamespace, Some("namespace_id"));
}

/// One read of the store for all of them. The health check and the sweeper read beside it.
#[tokio::test]
async fn a_batch_that_names_many_unknown_namespaces_costs_one_read_of_the_store() {
    const READS: i64 = 64;
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let reads = async || {
        let stats: String = redis.execute("INFO stats").await;
        let reads = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        reads.expect("a number").trim().parse::<i64>().expect("a number")
    };
    let operations = (0..512).map(|i| v1::BatchOperation {
        operation: Some(Sent::GetStock(v1::GetStockRequest { namespace_id: format!("ghost-{i}"), sku: "ps5".into() })),
        ..Default::default()
    });
    let request = v1::BatchRequest { operations: operations.collect() };
    let before = reads().await;
    let began = std::time::Instant::now();
    let results = server.checkout().batch(request.clone()).await.expect("a batch").into_inner().results;
    let (took, cost) = (began.elapsed(), reads().await - before);
    assert_eq!(results.len(), 512);
    for result in results {
        let Some(Received::Failure(failure)) = result.result else { panic!("no failure") };
        assert_eq!(failure.reason, "NAMESPACE_NOT_FOUND");
    }
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    assert!(cost < READS, "{cost} reads");

    // Another server makes some of them: that is seen at once.
    let other = SentinelProcess::on(&redis).await;
    for i in [0, 7, 511] {
        other.shop(&format!("ghost-{i}")).supply("ps5", 1).await;
    }
    let results = server.checkout().batch(request).await.expect("a batch").into_inner().results;
    let found: Vec<_> = (0..512).filter(|i| matches!(results[*i].result, Some(Received::GetStock(_)))).collect();
    assert_eq!(found, [0, 7, 511]);
}
