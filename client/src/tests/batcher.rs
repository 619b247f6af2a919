//! Concurrent calls that share messages, against the scripted server: it responds to batches, and not to single calls.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use inventory_sentinel::{
    Reason,
    v1::{self, batch_operation::Operation, batch_result::Result as OperationResult},
};
use tokio::{runtime::Builder, task::JoinHandle};
use tonic::{Code, Response, Status, transport::Endpoint};

use super::{Scripted, direct_sale, pending, quick, sale};
use crate::{
    Applied, Namespace, Reservation, ReserveError, RetryPolicy, RpcError,
    transport::{
        batcher::{Batcher, MAX_UNBATCHED},
        channels::Channels,
        retry::TokenBucket,
    },
};

/// Takes one of the script's refusals per operation; without one, a Reserve is made.
pub(super) fn answer(server: &Scripted, request: v1::BatchRequest) -> Result<Response<v1::BatchResponse>, Status> {
    server.batches.lock().unwrap().push(request.clone());
    if let Some(status) = server.refused_batches.lock().unwrap().pop_front() {
        return Err(status);
    }
    let results = request.operations.into_iter().map(|entry| {
        let result = match (server.answers.lock().unwrap().pop_front(), entry.operation) {
            (Some(status), _) => OperationResult::Failure(v1::Failure {
                code: status.code().into(),
                reason: reason(&status).as_str().into(),
                message: status.message().into(),
                field: "lines[0].sku".into(),
                metadata: [("held".to_owned(), "7".to_owned())].into(),
                retry_after: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
            }),
            (None, Some(Operation::Reserve(_))) => OperationResult::Reserve(v1::ReserveResponse {
                result: Some(v1::reserve_response::Result::Reservation(pending())),
                ..Default::default()
            }),
            // A result of another kind.
            (None, _) => OperationResult::GetStock(v1::GetStockResponse::default()),
        };
        v1::BatchResult { result: Some(result) }
    });
    Ok(Response::new(v1::BatchResponse { results: results.collect() }))
}

fn reason(status: &Status) -> Reason {
    RpcError::from_status(status).reason().unwrap()
}

type Call = JoinHandle<Result<Applied<Reservation>, ReserveError>>;

/// So many Reserves that never get an answer, under way.
async fn stuck(server: &Scripted, sale: &Namespace) -> Vec<Call> {
    let calls = (0..MAX_UNBATCHED).map(|_| tokio::spawn(sale.reserve("ps5", 1).into_future())).collect();
    while server.calls() < MAX_UNBATCHED {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    calls
}

fn silent(answers: impl IntoIterator<Item = Status>) -> Scripted {
    Scripted { silent: true, ..Scripted::refusing(answers) }
}

#[tokio::test]
async fn what_waits_goes_together_and_is_not_held_up_by_who_is_stuck() {
    let server = silent([]);
    let sale = sale(&server, quick()).await;
    let stuck = stuck(&server, &sale).await;
    assert!(server.batches.lock().unwrap().is_empty(), "few calls go alone");
    let begun = Instant::now();
    let calls: Vec<Call> = (0..600).map(|_| tokio::spawn(sale.reserve("ps5", 1).into_future())).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
    let batches = server.batches.lock().unwrap();
    let sizes: Vec<_> = batches.iter().map(|batch| batch.operations.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 600);
    let mut operations = batches.iter().flat_map(|batch| &batch.operations);
    let claims_first =
        |operation: &Operation| matches!(operation, Operation::Reserve(request) if request.first_attempt);
    assert!(!operations.any(|entry| entry.operation.as_ref().is_some_and(claims_first)), "no caller called direct()");
    assert!(sizes.len() < 60 && sizes.iter().all(|&size| size <= 512), "{sizes:?}");
    stuck.iter().for_each(|call| call.abort());
}

#[tokio::test]
async fn a_gathered_call_is_retried_as_itself() {
    let server = silent([Reason::StoreUnavailable, Reason::OutcomeUnknown].map(super::refusal));
    let sale = direct_sale(&server).await;
    let stuck = stuck(&server, &sale).await;
    sale.reserve("ps5", 1).await.unwrap();
    sale.reserve("ps5", 1).request_id("mine").await.unwrap();
    let batches = server.batches.lock().unwrap();
    let ids: Vec<_> = batches
        .iter()
        .flat_map(|batch| &batch.operations)
        .map(|entry| match &entry.operation {
            Some(Operation::Reserve(request)) => (request.request_id.clone(), request.first_attempt),
            other => panic!("{other:?}"),
        })
        .collect();
    let id = || ids[0].0.clone();
    assert_eq!(ids, [(id(), true), (id(), false), (id(), false), ("mine".to_owned(), false)]);
    let timeouts: Vec<_> = batches.iter().map(|batch| batch.operations[0].timeout.unwrap()).collect();
    let spans: Vec<_> = timeouts.iter().map(|timeout| Duration::try_from(*timeout).unwrap()).collect();
    assert!(spans[0] <= crate::DEFAULT_DEADLINE && spans[0] > spans[1] && spans[1] > spans[2]);
    stuck.iter().for_each(|call| call.abort());
}

#[tokio::test]
async fn a_gathered_call_has_the_errors_of_a_single_one() {
    let server = silent([Reason::InvalidSku, Reason::Internal, Reason::LineNotHeld].map(super::refusal));
    let sale = sale(&server, quick()).await;
    let stuck = stuck(&server, &sale).await;
    match sale.reserve("p s", 1).await {
        Err(ReserveError::InvalidSku(rpc)) => {
            assert_eq!((rpc.code(), rpc.message(), rpc.attempts()), (Code::InvalidArgument, "scripted", 1));
            assert_eq!(rpc.field_violations()[0].field, "lines[0].sku");
            assert_eq!(rpc.metadata()["held"], "7");
            assert_eq!(rpc.retry_delay(), Some(Duration::from_millis(1)));
            assert!(!rpc.outcome_unknown());
        }
        other => panic!("{other:?}"),
    }
    assert!(sale.reserve("ps5", 1).await.unwrap_err().outcome_unknown());
    assert!(!sale.commit("r1").await.unwrap_err().outcome_unknown());
    // The script is at its end: what comes is no answer to a Rollback.
    let error = sale.rollback("r1").await.unwrap_err();
    assert_eq!(error.rpc().map(RpcError::code), Some(Code::Internal));
    assert!(error.outcome_unknown());
    stuck.iter().for_each(|call| call.abort());
}

#[tokio::test]
async fn a_caller_who_has_gone_is_not_sent() {
    let server = silent([]);
    let sale = sale(&server, quick()).await;
    let stuck = stuck(&server, &sale).await;
    let gone = tokio::time::timeout(Duration::ZERO, sale.reserve("gone", 1).into_future()).await;
    assert!(gone.is_err(), "the caller is gone before the call is sent");
    sale.reserve("ps5", 1).await.unwrap();
    let batches = server.batches.lock().unwrap();
    assert_eq!((batches.len(), batches[0].operations.len()), (1, 1));
    stuck.iter().for_each(|call| call.abort());
}

#[tokio::test]
async fn each_call_of_a_message_that_is_not_answered_has_its_own_deadline() {
    let server = Scripted { silent_batches: true, ..silent([]) };
    let sale = sale(&server, quick()).await;
    let stuck = stuck(&server, &sale).await;
    let deadlines = [500, 3_000].map(Duration::from_millis);
    let calls = deadlines.map(|deadline| {
        let call = sale.with_deadline(deadline).reserve("ps5", 1).into_future();
        let begun = Instant::now();
        let waited = async move { (call.await.unwrap_err(), begun.elapsed()) };
        tokio::spawn(waited)
    });
    let mut times = Vec::new();
    for call in calls {
        let (error, waited) = call.await.unwrap();
        assert_eq!(error.rpc().map(RpcError::code), Some(Code::DeadlineExceeded));
        assert!(error.outcome_unknown());
        times.push(waited);
    }
    let [first, last] = deadlines;
    assert!(times[0] >= first && times[0] < last && times[1] >= last, "{times:?}");
    let batches = server.batches.lock().unwrap();
    assert_eq!((batches.len(), batches[0].operations.len()), (1, 2));
    stuck.iter().for_each(|call| call.abort());
}

#[tokio::test]
async fn who_has_less_time_than_it_takes_to_be_sent_hears_so_and_is_not_sent() {
    let server = silent([]);
    let sale = sale(&server, quick()).await;
    let stuck = stuck(&server, &sale).await;
    let error = sale.with_deadline(Duration::from_millis(1)).reserve("ps5", 1).await.unwrap_err();
    assert_eq!(error.rpc().map(RpcError::code), Some(Code::DeadlineExceeded));
    assert!(!error.outcome_unknown());
    sale.reserve("ps5", 1).await.unwrap();
    let batches = server.batches.lock().unwrap();
    assert_eq!((batches.len(), batches[0].operations.len()), (1, 1));
    stuck.iter().for_each(|call| call.abort());
}

#[test]
fn who_waits_is_cut_off_where_the_runtime_of_the_connections_ends() {
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let channel = first.block_on(async { Endpoint::from_static("http://127.0.0.1:1").connect_lazy() });
    let batcher = {
        let _first = first.enter();
        let channels = Arc::new(Channels::new(vec![channel], None));
        let budget = Arc::new(TokenBucket::new(RetryPolicy::default().budget));
        Arc::new(Batcher::new(channels, Arc::default(), budget))
    };
    let _passes: Vec<_> = (0..MAX_UNBATCHED).map(|_| batcher.try_acquire().unwrap()).collect();
    let far = tokio::time::Instant::now() + Duration::from_secs(600);
    let mut call = pin!(batcher.submit(v1::RollbackRequest::default(), far));
    second.block_on(poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        Poll::Ready(())
    }));
    drop(first);
    let late = batcher.submit(v1::RollbackRequest::default(), far);
    for call in [call, pin!(late)] {
        let result = second.block_on(async { tokio::time::timeout(Duration::from_secs(60), call).await });
        let error = result.expect("an error in time").unwrap_err().error;
        assert_eq!((error.code(), error.outcome_unknown()), (Code::Unavailable, false));
    }
}
