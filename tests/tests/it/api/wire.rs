//! Calls as raw bytes: each malformed call is refused with a reason of the catalogue. And compressed requests.

use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Method, Request, StatusCode};
use inventory_sentinel::{Reason, v1};
use prost::Message as _;
use sentinel_tests::{BOUND, HostedSentinel, Redis, SentinelProcess, assert_refused, new_id, reserve_request};
use tokio::{net::TcpStream, time::timeout};
use tonic::{Code, Status};

const RESERVE: &str = "/inventory_sentinel.v1.InventorySentinel/Reserve";
const BATCH: &str = "/inventory_sentinel.v1.InventorySentinel/Batch";
const GET_STOCK: &str = "/inventory_sentinel.v1.InventorySentinel/GetStock";
const LIST_STOCK: &str = "/inventory_sentinel.v1.InventoryAdmin/ListStock";
const AUDIT: &str = "/inventory_sentinel.v1.InventoryAdmin/Audit";
const IMPORT: &str = "/inventory_sentinel.v1.InventoryAdmin/ImportStock";
const WATCH: &str = "/inventory_sentinel.v1.InventoryEvents/Watch";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// A call as a client library would send it, unless a test changes it.
struct Call {
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Call {
    fn new(path: &'static str, body: Vec<u8>) -> Call {
        let headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
        Call { method: Method::POST, path, headers, body }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Call {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        self
    }

    fn by(self, method: Method) -> Call {
        Call { method, ..self }
    }

    async fn send(self, server: &SentinelProcess) -> Answer {
        let socket = TcpStream::connect(server.grpc()).await.expect("a connection");
        let (calls, connection) = h2::client::handshake(socket).await.expect("a handshake");
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(self.method).uri(format!("http://sentinel{}", self.path));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let mut calls = calls.ready().await.expect("an open connection");
        let (response, mut body) = calls.send_request(request.body(()).expect("a request"), false).expect("a call");
        body.send_data(self.body.into(), true).expect("a body");
        let read = async {
            let (head, mut body) = response.await.expect("a response").into_parts();
            let mut come = BytesMut::new();
            while let Some(data) = body.data().await {
                let data = data.expect("data");
                body.flow_control().release_capacity(data.len()).expect("capacity");
                come.extend_from_slice(&data);
            }
            let trailers = body.trailers().await.expect("trailers").unwrap_or_default();
            let headers = if head.headers.contains_key("grpc-status") { head.headers.clone() } else { trailers };
            Answer { http: head.status, headers, body: come.freeze() }
        };
        let answer = timeout(BOUND, read).await.expect("an answer in time");
        connection.abort();
        answer
    }
}

/// The answer.
#[derive(Debug)]
struct Answer {
    http: StatusCode,
    /// The headers that contain the status.
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn status(&self) -> Result<(), Status> {
        let status = Status::from_header_map(&self.headers).unwrap_or_else(|| panic!("no status: {self:?}"));
        if status.code() == Code::Ok { Ok(()) } else { Err(status) }
    }

    /// The messages of a successful call.
    fn messages<M: prost::Message + Default>(&self) -> Vec<M> {
        self.status().expect("it succeeds");
        let mut messages = Vec::new();
        let mut rest = &self.body[..];
        while !rest.is_empty() {
            assert_eq!(rest[0], 0, "answers are not compressed");
            let length = u32::from_be_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
            messages.push(M::decode(&rest[5..5 + length]).expect("a message"));
            rest = &rest[5 + length..];
        }
        messages
    }
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn plain(message: &impl prost::Message) -> Vec<u8> {
    framed(0, &message.encode_to_vec())
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).expect("a Vec takes all");
    encoder.finish().expect("a Vec takes all")
}

fn zipped(message: &impl prost::Message) -> Vec<u8> {
    framed(1, &gzip(&message.encode_to_vec()))
}

fn reserve(sku: &str) -> v1::ReserveRequest {
    v1::ReserveRequest { namespace_id: "sale".into(), ..reserve_request(&[(sku, 1)]) }
}

fn import(sku: &str) -> v1::ImportStockRequest {
    let rows = vec![v1::ImportRow { sku: sku.into(), on_hand: 5 }];
    v1::ImportStockRequest {
        namespace_id: "sale".into(),
        request_id: new_id(),
        rows,
        overwrite: false,
        existing_namespace_only: false,
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_a_call_its_refusal_has_a_reason() {
    let server = SentinelProcess::start().await;
    server.shop("sale").supply("ps5", 10).await;
    let garbage = || framed(0, &[0xFF; 12]);
    let not_text = || framed(0, &[0x0A, 2, 0xFF, 0xFE]);
    let cases = [
        (Call::new(RESERVE, garbage()), Reason::MalformedRequest),
        (Call::new(RESERVE, not_text()), Reason::MalformedRequest),
        (Call::new(BATCH, garbage()), Reason::MalformedRequest),
        (Call::new(LIST_STOCK, garbage()), Reason::MalformedRequest),
        (Call::new(WATCH, garbage()), Reason::MalformedRequest),
        (Call::new(IMPORT, garbage()), Reason::MalformedRequest),
        (Call::new(HEALTH, garbage()), Reason::MalformedRequest),
        (Call::new(REFLECTION, framed(0, &[])), Reason::MalformedRequest),
        (Call::new(REFLECTION, framed(0, &[0x22, 2, b'n', b'o'])), Reason::UnknownService),
        (Call::new(IMPORT, [plain(&import("one")), garbage()].concat()), Reason::MalformedRequest),
        (Call::new(IMPORT, vec![0, 0, 0, 0, 9, 1]), Reason::MalformedRequest),
        (Call::new(RESERVE, Vec::new()), Reason::MalformedRequest),
        (Call::new(RESERVE, framed(2, &[])), Reason::MalformedRequest),
        // The flag marks it as compressed, and no encoding is given.
        (Call::new(RESERVE, framed(1, &[])), Reason::MalformedRequest),
        (Call::new(IMPORT, framed(1, &[])), Reason::MalformedRequest),
        (Call::new(RESERVE, framed(0, &vec![0; 300_000])), Reason::RequestTooLarge),
        (Call::new(IMPORT, framed(0, &vec![0; 5_000_000])), Reason::RequestTooLarge),
        (Call::new("/inventory_sentinel.v1.InventorySentinel/Nothing", garbage()), Reason::UnknownMethod),
        (Call::new("/inventory_sentinel.v1.InventoryAdmin/Nothing", garbage()), Reason::UnknownMethod),
        (Call::new("/inventory_sentinel.v1.InventoryEvents/Nothing", garbage()), Reason::UnknownMethod),
        (Call::new("/grpc.health.v1.Health/Nothing", plain(&v1::GetServerInfoRequest {})), Reason::UnknownMethod),
        (Call::new("/nobody.v1.Nothing/It", garbage()), Reason::UnknownMethod),
        (Call::new("/", garbage()), Reason::UnknownMethod),
        (Call::new(RESERVE, plain(&reserve("ps5"))).with("grpc-encoding", "br"), Reason::UnknownEncoding),
        (Call::new(IMPORT, plain(&import("one"))).with("grpc-encoding", "zstd"), Reason::UnknownEncoding),
        (Call::new(HEALTH, framed(0, &[])).with("grpc-encoding", "deflate"), Reason::UnknownEncoding),
        (Call::new(HEALTH, framed(0, &[10, 2, b'n', b'o'])), Reason::UnknownService),
        (Call::new(RESERVE, plain(&reserve("ps5"))).with("grpc-timeout", "1n"), Reason::DeadlineExceeded),
    ];
    for (i, (call, expected)) in cases.into_iter().enumerate() {
        let (path, answer) = (call.path, call.send(&server).await);
        println!("case {i}, {path}: {answer:?}");
        assert_eq!(answer.http, StatusCode::OK, "case {i}");
        assert_refused(answer.status(), expected, None);
        let accepts = answer.headers.get("grpc-accept-encoding").map(|value| value.as_bytes());
        assert_eq!(accepts, (expected == Reason::UnknownEncoding).then_some(&b"identity,gzip"[..]), "case {i}");
    }
    // An answer that is not gRPC has an HTTP status.
    let call = || Call::new(RESERVE, plain(&reserve("ps5")));
    for content_type in ["application/json", "text/html", "application/grpc-web", "application/grpcx", ""] {
        let answer = call().with("content-type", content_type).send(&server).await;
        assert_eq!(answer.http, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
        assert_refused(answer.status(), Reason::MalformedRequest, None);
    }
    for method in [Method::GET, Method::PUT] {
        let answer = call().by(method).send(&server).await;
        assert_eq!(answer.http, StatusCode::METHOD_NOT_ALLOWED);
        assert_refused(answer.status(), Reason::MalformedRequest, None);
    }
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
        call().with("content-type", content_type).send(&server).await.status().expect("it is served");
    }
    assert_eq!(server.shop("sale").counts("ps5").await, (7, 3, 0), "only the good ones were applied");
}

/// A call is refused with a reason at its deadline, before its caller gives up, whatever it waits for.
#[tokio::test]
async fn deadlines_have_a_reason_whatever_waits() {
    let redis = Redis::start().await;
    let flags = "--store-timeout 20s --connect-timeout 20s --pool-wait 20s";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    server.shop("sale").supply("ps5", 10).await;
    let sale = || "sale".to_owned();
    redis.stop();
    let list = plain(&v1::ListStockRequest { namespace_id: sale(), ..Default::default() });
    let watch = plain(&v1::WatchRequest { namespace_id: sale(), ..Default::default() });
    let stock = plain(&v1::GetStockRequest { namespace_id: sale(), sku: "ps5".into() });
    let audit = plain(&v1::AuditRequest { namespace_id: sale() });
    for (path, body) in [(GET_STOCK, stock), (LIST_STOCK, list), (AUDIT, audit), (WATCH, watch)] {
        let began = Instant::now();
        let answer = Call::new(path, body).with("grpc-timeout", "400m").send(&server).await;
        println!("{path}: {:?}", began.elapsed());
        assert_refused(answer.status(), Reason::DeadlineExceeded, None);
        assert!(began.elapsed() < Duration::from_secs(5), "{path}: {:?}", began.elapsed());
    }
    redis.cont();
}

#[tokio::test]
async fn a_handler_that_panics_is_a_reason_too() {
    let redis = Redis::start().await;
    let server = HostedSentinel::on(&redis, "").await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1).await;
    server.panic_in("call");
    assert_refused(shop.try_stock("ps5").await, Reason::Internal, None);
}

#[tokio::test]
async fn compressed_requests_are_served() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let gzipped = |path, body| Call::new(path, body).with("grpc-encoding", "gzip");
    let held = |answer: &Answer| {
        let answer = &answer.messages::<v1::ReserveResponse>()[0];
        assert!(matches!(answer.result, Some(v1::reserve_response::Result::Reservation(_))), "{answer:?}");
    };
    held(&gzipped(RESERVE, zipped(&reserve("ps5"))).send(&server).await);
    // A client compresses only what is worth it.
    held(&gzipped(RESERVE, plain(&reserve("ps5"))).send(&server).await);
    held(&Call::new(RESERVE, plain(&reserve("ps5"))).with("grpc-encoding", "identity").send(&server).await);
    held(&gzipped(RESERVE, zipped(&reserve("ps5"))).with("grpc-accept-encoding", "gzip").send(&server).await);
    assert_eq!(shop.counts("ps5").await, (96, 4, 0));

    // The largest size that is allowed, unpacked.
    let operation = |i: usize| v1::BatchOperation {
        operation: Some(v1::batch_operation::Operation::GetStock(v1::GetStockRequest {
            namespace_id: "sale".into(),
            sku: format!("{i:0>120}"),
        })),
        timeout: None,
    };
    let batch = v1::BatchRequest { operations: (0..512).map(operation).collect() };
    let answer = gzipped(BATCH, zipped(&batch)).send(&server).await;
    assert_eq!(answer.messages::<v1::BatchResponse>()[0].results.len(), 512);

    let messages =
        [zipped(&import("one")), plain(&import("two")), zipped(&import("three")), zipped(&import("four"))].concat();
    let answer = gzipped(IMPORT, messages).send(&server).await;
    assert_eq!(answer.messages::<v1::ImportStockResponse>().len(), 4);
    for sku in ["one", "two", "three", "four"] {
        assert_eq!(shop.counts(sku).await, (5, 0, 0), "{sku}");
    }
    assert!(!gzipped(HEALTH, framed(1, &gzip(&[]))).send(&server).await.body.is_empty());
}

#[tokio::test]
async fn a_compressed_request_is_bounded_by_what_it_unpacks_to() {
    const GIB: usize = 1 << 30;
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let gzipped = |path, body: Vec<u8>| Call::new(path, body).with("grpc-encoding", "gzip");
    for (path, most) in [(RESERVE, 262_144), (BATCH, 4_194_304), (IMPORT, 4_194_304)] {
        let answer = gzipped(path, framed(1, &gzip(&vec![0; most + 1]))).send(&server).await;
        assert_refused(answer.status(), Reason::RequestTooLarge, None);
        let answer = gzipped(path, framed(1, &gzip(&vec![0xFF; most]))).send(&server).await;
        assert_refused(answer.status(), Reason::MalformedRequest, None);
    }
    // Its entries are counted too.
    for path in [BATCH, IMPORT] {
        let many = gzip(&[0x0A, 0].repeat(2_100));
        assert_refused(gzipped(path, framed(1, &many)).send(&server).await.status(), Reason::RequestTooLarge, None);
    }
    let whole = gzip(&reserve("ps5").encode_to_vec());
    let (head, tail) = whole.split_at(whole.len() - 8);
    let torn = [
        Vec::new(),
        head.to_vec(),
        [head, &[0; 8][..]].concat(),
        [&whole[..], &[1, 2, 3]].concat(),
        b"no gzip at all".to_vec(),
        [&whole[..5], tail].concat(),
    ];
    for (i, torn) in torn.into_iter().enumerate() {
        println!("torn {i}");
        let answer = gzipped(RESERVE, framed(1, &torn)).send(&server).await;
        assert_refused(answer.status(), Reason::MalformedRequest, None);
    }

    // A bomb: it would unpack to more than the machine has.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let piece = vec![0; 1 << 20];
    for _ in 0..(4 * GIB) >> 20 {
        bomb.write_all(&piece).expect("a Vec takes all");
    }
    let bomb = framed(1, &bomb.finish().expect("a Vec takes all"));
    assert!(bomb.len() < 4_194_304 + 5, "{} bytes", bomb.len());
    let (memory, time) = (resident(&server), processor_time(&server));
    let began = Instant::now();
    for path in [BATCH, IMPORT, BATCH, IMPORT] {
        let answer = gzipped(path, bomb.clone()).send(&server).await;
        assert_refused(answer.status(), Reason::RequestTooLarge, None);
    }
    let (grown, used) = (resident(&server).saturating_sub(memory), processor_time(&server) - time);
    println!("four bombs: {grown} bytes, {used:?} of a processor, {:?}", began.elapsed());
    assert!(grown < 48 << 20, "{grown} bytes");
    assert!(used < Duration::from_secs(3), "{used:?}");
    assert_eq!(shop.counts("ps5").await, (10, 0, 0));
}

/// Resident memory of a server, in bytes.
fn resident(server: &SentinelProcess) -> usize {
    let statm = fs::read_to_string(format!("/proc/{}/statm", server.pid())).expect("the server runs");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4_096
}

/// Processor time that a server has used.
fn processor_time(server: &SentinelProcess) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("the server runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    Duration::from_millis(ticks.iter().sum::<u64>() * 10)
}
