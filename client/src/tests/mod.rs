//! Calls against a scripted server of this process on a real socket. `requests`: the message of each request;
//! `batcher`: calls that share messages; `batch`: batches of the caller; `secure`: TLS and credentials.

mod batch;
mod batcher;
mod requests;
mod secure;

use std::{
    any::Any,
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use inventory_sentinel::{
    Reason,
    reason::DOMAIN,
    v1::{
        self,
        inventory_sentinel_server::{InventorySentinel, InventorySentinelServer},
    },
};
use opentelemetry::{
    SpanId, TraceId,
    trace::{FutureExt as _, SpanContext, TraceContextExt as _, TraceFlags, TraceState},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{CommitError, ConnectError, Namespace, ReserveError, RetryBudget, RetryPolicy, Sentinel, State};

/// Responds to changes of a reservation from a script, and records the calls. After the script it responds with OK.
#[derive(Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Status>>>,
    received: Arc<Mutex<Vec<ReceivedCall>>>,
    silent: bool,
    silent_batches: bool,
    short: bool,
    batches: Arc<Mutex<Vec<v1::BatchRequest>>>,
    /// Refusals of whole batches.
    refused_batches: Arc<Mutex<VecDeque<Status>>>,
}

struct ReceivedCall {
    request_id: String,
    /// Of a Reserve.
    first_attempt: bool,
    timeout: Duration,
    trace_parent: Option<String>,
    from: Option<SocketAddr>,
}

impl Scripted {
    fn refusing(answers: impl IntoIterator<Item = Status>) -> Self {
        Scripted { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Scripted::default() }
    }

    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(InventorySentinelServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        uri
    }

    async fn answer<T: Any>(&self, request_id: &str, request: &Request<T>) -> Result<(), Status> {
        let timeout = request.metadata().get("grpc-timeout").unwrap();
        let micros = timeout.to_str().unwrap().strip_suffix('u').unwrap().parse().unwrap();
        let trace_parent = request.metadata().get("traceparent");
        let reserve = (request.get_ref() as &dyn Any).downcast_ref::<v1::ReserveRequest>();
        self.received.lock().unwrap().push(ReceivedCall {
            request_id: request_id.to_owned(),
            first_attempt: reserve.is_some_and(|reserve| reserve.first_attempt),
            timeout: Duration::from_micros(micros),
            trace_parent: trace_parent.map(|value| value.to_str().unwrap().to_owned()),
            from: request.remote_addr(),
        });
        if self.silent {
            std::future::pending::<()>().await;
        }
        let next = self.answers.lock().unwrap().pop_front();
        next.map_or(Ok(()), Err)
    }

    fn calls(&self) -> usize {
        self.received.lock().unwrap().len()
    }
}

#[tonic::async_trait]
impl InventorySentinel for Scripted {
    async fn reserve(&self, request: Request<v1::ReserveRequest>) -> Result<Response<v1::ReserveResponse>, Status> {
        let id = request.get_ref().request_id.clone();
        self.answer(&id, &request).await?;
        let result = if self.short {
            let line = v1::ShortLine { sku: "ps5".into(), requested: 2, available: 1 };
            v1::reserve_response::Result::Shortage(v1::Shortage { lines: vec![line] })
        } else {
            v1::reserve_response::Result::Reservation(pending())
        };
        Ok(Response::new(v1::ReserveResponse { result: Some(result), replayed: self.calls() > 1, sequence: 9 }))
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        let request_id = request.get_ref().request_id.clone();
        self.answer(&request_id, &request).await?;
        Ok(Response::new(v1::CommitResponse::default()))
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        let request_id = request.get_ref().request_id.clone();
        self.answer(&request_id, &request).await?;
        Ok(Response::new(v1::RollbackResponse::default()))
    }

    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        let request_id = request.get_ref().request_id.clone();
        self.answer(&request_id, &request).await?;
        Ok(Response::new(v1::ExtendResponse::default()))
    }

    async fn get_reservation(
        &self,
        _: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_stock(&self, request: Request<v1::GetStockRequest>) -> Result<Response<v1::GetStockResponse>, Status> {
        self.answer("", &request).await?;
        Ok(Response::new(v1::GetStockResponse::default()))
    }

    async fn batch_get_stock(
        &self,
        _: Request<v1::BatchGetStockRequest>,
    ) -> Result<Response<v1::BatchGetStockResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn batch(&self, request: Request<v1::BatchRequest>) -> Result<Response<v1::BatchResponse>, Status> {
        let answer = batcher::answer(self, request.into_inner());
        if self.silent_batches {
            std::future::pending::<()>().await;
        }
        answer
    }

    async fn is_protected(
        &self,
        _: Request<v1::IsProtectedRequest>,
    ) -> Result<Response<v1::IsProtectedResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    type WatchProtectedStream = tokio_stream::Empty<Result<v1::WatchProtectedResponse, Status>>;

    async fn watch_protected(
        &self,
        _: Request<v1::WatchProtectedRequest>,
    ) -> Result<Response<Self::WatchProtectedStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

fn pending() -> v1::Reservation {
    v1::Reservation {
        reservation_id: "r1".into(),
        state: v1::ReservationState::Pending.into(),
        created_at: Some(prost_types::Timestamp::default()),
        expires_at: Some(prost_types::Timestamp::default()),
        ..v1::Reservation::default()
    }
}

fn refusal(reason: Reason) -> Status {
    let info = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new());
    Status::with_error_details(reason.code(), "scripted", info)
}

fn refusal_with_delay(reason: Reason, delay: Duration) -> Status {
    let mut info = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new());
    info.set_retry_info(Some(delay));
    Status::with_error_details(reason.code(), "scripted", info)
}

fn quick() -> RetryPolicy {
    RetryPolicy { initial_backoff: Duration::from_millis(5), jitter: false, ..RetryPolicy::default() }
}

async fn sale(server: &Scripted, policy: RetryPolicy) -> Namespace {
    let uri = server.serve().await;
    let sentinel = Sentinel::builder(uri).retry(policy).connect().await;
    sentinel.unwrap().namespace("sale")
}

async fn direct_sale(server: &Scripted) -> Namespace {
    let sentinel = Sentinel::builder(server.serve().await).direct().retry(quick()).connect().await;
    sentinel.unwrap().namespace("sale")
}

#[tokio::test]
async fn a_retry_is_the_same_request_with_less_time() {
    let server = Scripted::refusing([refusal(Reason::StoreUnavailable), refusal(Reason::OutcomeUnknown)]);
    let sale = sale(&server, quick()).await;
    let held = sale.reserve("ps5", 1).await.unwrap();
    assert_eq!((held.state, held.sequence), (State::Pending, 9));
    assert!(held.replayed);
    let received = server.received.lock().unwrap();
    assert_eq!(received.len(), 3);
    let id = uuid::Uuid::parse_str(&received[0].request_id).unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert!(received.iter().all(|call| call.request_id == received[0].request_id));
    assert!(received.iter().all(|call| !call.first_attempt), "the caller has not called direct()");
    assert!(received[0].timeout <= crate::DEFAULT_DEADLINE);
    assert!(received[0].timeout > received[1].timeout && received[1].timeout > received[2].timeout);
}

#[tokio::test]
async fn two_calls_are_two_requests_unless_the_caller_says_otherwise() {
    let server = Scripted::default();
    let sale = sale(&server, quick()).await;
    sale.reserve("ps5", 1).await.unwrap();
    sale.reserve("ps5", 1).await.unwrap();
    sale.reserve("ps5", 1).request_id("mine").await.unwrap();
    let received = server.received.lock().unwrap();
    assert_ne!(received[0].request_id, received[1].request_id);
    assert_eq!(received[2].request_id, "mine");
}

#[tokio::test]
async fn a_direct_connection_says_first_attempt_once_and_only_of_its_own_identities() {
    let server = Scripted::refusing([refusal(Reason::StoreUnavailable), refusal(Reason::OutcomeUnknown)]);
    let sale = direct_sale(&server).await;
    sale.reserve("ps5", 1).await.unwrap();
    sale.reserve("ps5", 1).await.unwrap();
    sale.reserve("ps5", 1).request_id("mine").await.unwrap();
    let received = server.received.lock().unwrap();
    let first: Vec<_> = received.iter().map(|call| call.first_attempt).collect();
    // Three attempts of the first call; the last one's identity can be that of an earlier call.
    assert_eq!(first, [true, false, false, true, false]);
}

#[tokio::test]
async fn an_identity_that_the_caller_names_stands_for_one_request() {
    let server = Scripted::default();
    let sale = sale(&server, quick()).await;
    let order = |lines: [(&str, i32); 2]| {
        sale.reserve_cart(lines.map(|(sku, quantity)| crate::Line::new(sku, quantity))).request_id("order-1")
    };
    order([("ps5", 1), ("pad", 2)]).await.unwrap();
    order([("pad", 2), ("ps5", 1)]).await.unwrap();
    match sale.clone().reserve("vita", 1).request_id("order-1").await {
        Err(ReserveError::RequestIdReused(rpc)) => {
            assert_eq!((rpc.code(), rpc.attempts(), rpc.outcome_unknown()), (Code::FailedPrecondition, 0, false));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.calls(), 2, "the refused call is not sent");
    // Another kind of change, through the same memory.
    let refused = sale.extend("r1", Duration::from_secs(9)).request_id("order-1").await;
    assert!(matches!(refused, Err(crate::ExtendError::RequestIdReused(_))), "{refused:?}");
    assert_eq!(server.calls(), 2);
}

#[tokio::test]
async fn an_identity_whose_call_got_nothing_is_free() {
    let server = Scripted { short: true, ..Scripted::refusing([refusal(Reason::SkuNotFound)]) };
    let sale = sale(&server, quick()).await;
    let refused = sale.reserve("ps6", 1).request_id("order-1").await;
    assert!(matches!(refused, Err(ReserveError::SkuNotFound(_))), "{refused:?}");
    for quantity in [2, 1] {
        let short = sale.reserve("ps5", quantity).request_id("order-1").await;
        assert!(matches!(short, Err(ReserveError::InsufficientStock { .. })), "{short:?}");
    }
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn an_identity_whose_outcome_is_unknown_is_not_free() {
    let server = Scripted { silent: true, ..Scripted::default() };
    let sale = sale(&server, RetryPolicy::never()).await.with_deadline(Duration::from_millis(200));
    let lost = sale.reserve("ps5", 1).request_id("order-1").await.unwrap_err();
    assert!(lost.outcome_unknown());
    let other = sale.reserve("vita", 1).request_id("order-1").await;
    assert!(matches!(other, Err(ReserveError::RequestIdReused(_))), "{other:?}");
    assert_eq!(server.calls(), 1);
}

/// A refusal before the lookup of the identity does not prove that an earlier attempt was not applied.
#[tokio::test]
async fn a_repeat_that_is_refused_before_the_look_up_leaves_the_outcome_unknown() {
    for reason in [Reason::RequestTooOld, Reason::InvalidTtl, Reason::ReservationNotFound] {
        for (script, unknown) in [(vec![Reason::OutcomeUnknown, reason], true), (vec![reason], false)] {
            let server = Scripted::refusing(script.into_iter().map(refusal));
            let error = sale(&server, quick()).await.reserve("ps5", 1).await.unwrap_err();
            assert_eq!(error.rpc().and_then(|rpc| rpc.reason()), Some(reason));
            assert_eq!(error.outcome_unknown(), unknown, "{}", reason.as_str());
        }
    }
}

#[tokio::test]
async fn a_change_in_part_has_an_identity_that_a_retry_keeps() {
    let server = Scripted::refusing([1, 2, 3].map(|_| refusal(Reason::StoreUnavailable)));
    let sale = sale(&server, quick()).await;
    // The responses are empty: the test checks the received calls.
    sale.commit("r1").line("ps5", 1).keep_rest().await.unwrap_err();
    sale.commit("r1").line("ps5", 1).await.unwrap_err();
    sale.rollback("r1").line("ps5", 1).await.unwrap_err();
    sale.extend("r1", Duration::from_secs(9)).await.unwrap_err();
    sale.extend("r1", Duration::from_secs(9)).request_id("mine").await.unwrap_err();
    sale.commit("r1").await.unwrap_err();
    sale.rollback("r1").await.unwrap_err();
    let received = server.received.lock().unwrap();
    let ids: Vec<_> = received.iter().map(|call| call.request_id.as_str()).collect();
    assert_eq!(ids.len(), 10);
    let made: HashSet<_> = [ids[0], ids[4], ids[5], ids[6]].into();
    assert_eq!(made.len(), 4, "each call has its own");
    assert!(made.iter().all(|id| uuid::Uuid::parse_str(id).unwrap().get_version_num() == 7));
    assert!(ids[1..4].iter().all(|id| *id == ids[0]), "all retries of the first call have its own");
    assert_eq!(ids[7..], ["mine", "", ""], "a change of the whole needs none");
}

#[tokio::test]
async fn the_callers_trace_travels_with_each_attempt() {
    let server = Scripted::refusing([refusal(Reason::Draining)]);
    let sale = sale(&server, quick()).await;
    let trace = SpanContext::new(TraceId::from(7), SpanId::from(9), TraceFlags::SAMPLED, true, TraceState::NONE);
    let context = opentelemetry::Context::new().with_remote_span_context(trace);
    sale.reserve("ps5", 1).into_future().with_context(context).await.unwrap();
    sale.reserve("ps5", 1).await.unwrap();
    let received = server.received.lock().unwrap();
    let parents: Vec<_> = received.iter().map(|call| call.trace_parent.as_deref()).collect();
    let parent = Some("00-00000000000000000000000000000007-0000000000000009-01");
    assert_eq!(parents, [parent, parent, None]);
}

#[tokio::test]
async fn calls_take_turns_on_the_connections() {
    let server = Scripted::default();
    let uri = server.serve().await;
    let sentinel = Sentinel::builder(uri).connections(3).connect().await.unwrap();
    for _ in 0..6 {
        sentinel.namespace("sale").reserve("ps5", 1).await.unwrap();
    }
    let received = server.received.lock().unwrap();
    let connections: HashSet<_> = received.iter().map(|call| call.from.unwrap()).collect();
    assert_eq!(connections.len(), 3);
}

#[tokio::test]
async fn only_unavailable_is_retried() {
    for reason in [Reason::Overloaded, Reason::ReservationExpired, Reason::DeadlineExceeded, Reason::Internal] {
        let server = Scripted::refusing([refusal(reason)]);
        let error = sale(&server, quick()).await.commit("r1").await.unwrap_err();
        assert_eq!(error.rpc().and_then(|rpc| rpc.reason()), Some(reason));
        assert_eq!(server.calls(), 1, "{}", reason.as_str());
    }
}

#[tokio::test]
async fn attempts_end_and_the_outcome_stays_unknown() {
    let mut script = vec![refusal(Reason::OutcomeUnknown)];
    script.resize_with(9, || refusal(Reason::StoreUnavailable));
    let server = Scripted::refusing(script);
    let error = sale(&server, quick()).await.commit("r1").await.unwrap_err();
    assert_eq!(server.calls(), 4);
    let rpc = error.rpc().unwrap();
    assert_eq!(rpc.reason(), Some(Reason::StoreUnavailable));
    assert_eq!(rpc.attempts(), 4);
    assert!(error.outcome_unknown(), "the first attempt may have been applied");
}

#[tokio::test]
async fn a_pause_beyond_the_deadline_is_not_begun() {
    let delay = Duration::from_secs(60);
    let server = Scripted::refusing([refusal_with_delay(Reason::Draining, delay)]);
    let begun = Instant::now();
    let error = sale(&server, quick()).await.commit("r1").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(error.rpc().and_then(|rpc| rpc.retry_delay()), Some(delay));
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn the_servers_pause_is_kept() {
    let delay = Duration::from_millis(120);
    let server = Scripted::refusing([refusal_with_delay(Reason::Draining, delay)]);
    let sale = sale(&server, quick()).await;
    let begun = Instant::now();
    sale.reserve("ps5", 1).await.unwrap();
    assert!(begun.elapsed() >= delay);
    assert_eq!(server.calls(), 2);
}

#[tokio::test]
async fn a_silent_server_ends_with_the_deadline() {
    let server = Scripted { silent: true, ..Scripted::default() };
    let sale = sale(&server, quick()).await;
    let deadline = Duration::from_millis(200);
    let begun = Instant::now();
    let error = sale.with_deadline(deadline).commit("r1").await.unwrap_err();
    assert!(begun.elapsed() >= deadline && begun.elapsed() < Duration::from_secs(3));
    assert!(matches!(error, CommitError::Rpc(_)));
    let rpc = error.rpc().unwrap();
    assert_eq!(rpc.code(), Code::DeadlineExceeded);
    assert!(error.outcome_unknown());
    let stock = sale.with_deadline(deadline).stock("ps5").await.unwrap_err();
    assert!(!stock.outcome_unknown(), "a read changes nothing");
}

#[tokio::test]
async fn a_spent_budget_ends_retries_for_all_calls() {
    let mut script = Vec::new();
    script.resize_with(20, || refusal(Reason::StoreUnavailable));
    let server = Scripted::refusing(script);
    let budget = RetryBudget { tokens: 4, refund: 0.0 };
    let sale = sale(&server, RetryPolicy { budget, ..quick() }).await;
    for calls in [4, 6, 7] {
        sale.clone().commit("r1").await.unwrap_err();
        assert_eq!(server.calls(), calls);
    }
}

#[tokio::test]
async fn sold_out_is_an_error_with_its_lines() {
    let server = Scripted { short: true, ..Scripted::default() };
    let sale = sale(&server, quick()).await;
    match sale.reserve("ps5", 2).await {
        Err(ReserveError::InsufficientStock { lines }) => {
            assert_eq!((lines[0].requested, lines[0].available), (2, 1));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_without_its_reservation_is_an_error() {
    let server = Scripted::default();
    let error = sale(&server, quick()).await.commit("r1").await.unwrap_err();
    assert_eq!(error.rpc().map(|rpc| rpc.code()), Some(Code::Internal));
    assert!(error.outcome_unknown());
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_a_lost_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let connected = Sentinel::connect(uri.clone()).await;
    assert!(matches!(connected, Err(ConnectError::Unreachable { .. })));

    let lazy = Sentinel::builder(uri).retry(quick()).connect_lazy().unwrap();
    let error = lazy.namespace("sale").commit("r1").await.unwrap_err();
    let rpc = error.rpc().unwrap();
    assert_eq!((rpc.code(), rpc.attempts()), (Code::Unavailable, 4));
    assert!(!error.outcome_unknown(), "nothing was ever sent: {error}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_repeated_and_leaves_the_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    // Answers the HTTP/2 preface with nothing, and hangs up.
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket.readable().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let lazy = Sentinel::builder(uri).retry(quick()).connect_lazy().unwrap();
    let error = lazy.namespace("sale").commit("r1").await.unwrap_err();
    let rpc = error.rpc().unwrap();
    assert_eq!((rpc.code(), rpc.attempts()), (Code::Unavailable, 4), "{rpc}");
    assert!(error.outcome_unknown());
}

#[tokio::test]
async fn a_uri_that_is_none_is_refused_before_anything_is_opened() {
    for uri in ["", "127.0.0.1:50051", "grpc://shop.example", "http://", "https://", "a b"] {
        let error = Sentinel::builder(uri).connect_lazy().unwrap_err();
        assert!(matches!(error, ConnectError::InvalidUri { .. }), "{uri}: {error}");
    }
}
