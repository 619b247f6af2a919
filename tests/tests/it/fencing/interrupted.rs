//! Settlements that are interrupted, repeated or concurrent: losses in the middle of one, late steps, and figures for
//! another loss.

use std::{path::PathBuf, sync::Arc, time::Duration};

use deadpool_redis::redis::Value;
use inventory_sentinel::{Reason, v1};
use inventory_sentinel_script::script::script_source;
use sentinel_tests::{
    Redis, SentinelProcess, assert_refused, epoch, figure, new_id, reason, script_call, stored_stock, until_fenced,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    time::sleep,
};

use super::{Lost, reported_fence, retry_until_answered, sell, take_one, token, two_lost_sales};
use crate::streams::events::Feed;

/// The fate of a held script call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Waits,
    /// It is forwarded to Redis.
    Sent,
    /// Its connection is closed before it is sent.
    Cut,
}

/// A proxy between the server and Redis that holds script calls of one kind.
struct Holder {
    address: std::net::SocketAddr,
    /// The kind that is held, and the fate of its calls.
    order: watch::Sender<(&'static str, Held)>,
    /// How many calls were held.
    held: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Holder {
    async fn start(redis: &Redis) -> Holder {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let ((order, orders), (count, held)) = (watch::channel(("", Held::Sent)), watch::channel(0));
        let (socket, count) = (redis.socket(), Arc::new(count));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (socket, orders, count) = (socket.clone(), orders.clone(), Arc::clone(&count));
                tokio::spawn(async move { _ = forward(stream, socket, orders, &count).await });
            }
        });
        Holder { address, order, held, task }
    }

    fn flags(&self) -> String {
        format!("--redis-url redis://{} --sweep-interval 1m", self.address)
    }

    /// Holds calls of this kind from now on.
    fn hold(&self, kind: &'static str) {
        self.order.send_replace((kind, Held::Waits));
    }

    /// Releases the held calls; nothing is held from then on.
    fn let_go(&self, held: Held) {
        self.order.send_replace(("", held));
    }

    async fn until_held(&mut self, before: usize) {
        let held = self.held.wait_for(|held| *held > before);
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, held).await.expect("a call is held in time").expect("the proxy runs");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut server: TcpStream,
    socket: PathBuf,
    mut orders: watch::Receiver<(&'static str, Held)>,
    count: &watch::Sender<usize>,
) -> std::io::Result<()> {
    let mut redis = UnixStream::connect(socket).await?;
    let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            n = server.read(&mut request) => {
                let n = n?;
                if n == 0 { return Ok(()); }
                let (kind, held) = *orders.borrow_and_update();
                let word = format!("${}\r\n{kind}\r\n", kind.len());
                if held == Held::Waits && request[..n].windows(word.len()).any(|other| other == word.as_bytes()) {
                    count.send_modify(|count| *count += 1);
                    let order = orders.wait_for(|(_, held)| *held != Held::Waits).await.expect("an order").1;
                    if order == Held::Cut { return Ok(()); }
                }
                redis.write_all(&request[..n]).await?;
            }
            n = redis.read(&mut reply) => {
                let n = n?;
                if n == 0 { return Ok(()); }
                server.write_all(&reply[..n]).await?;
            }
        }
    }
}

/// The machine crashes in the middle of a settlement, and its figures are lost although they were acknowledged. The
/// end of the settlement is sent again.
#[tokio::test]
async fn a_loss_within_a_settlement_is_not_settled_by_its_end() {
    let mut redis = Redis::start().await;
    let mut holder = Holder::start(&redis).await;
    let server = SentinelProcess::launch().flags(&holder.flags()).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 40).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;

    holder.hold("settle_sku");
    let settling = {
        let shop = shop.clone();
        tokio::spawn(async move { shop.settle(0, &[figure("ps5", 60)], &new_id()).await })
    };
    holder.until_held(0).await;
    let begun = redis.files().copy();
    holder.let_go(Held::Sent);
    holder.hold("end_settlement");
    holder.until_held(1).await;
    assert_eq!(stored_stock(&redis, "ps5").await.available, 60, "the figure is set, and acknowledged");
    redis.restart_with_copy(&begun).await;
    holder.let_go(Held::Cut);
    let answer = settling.await.expect("an end");
    let taken = retry_until_answered("an answer", async || take_one(&shop, "ps5").await).await;
    let counts = shop.counts("ps5").await;
    assert!(taken.is_err() || counts.0 <= 59, "settled: {answer:?}; it sells from {counts:?}, and 40 were sold before");
}

/// An operator settles the losses that were known when they began. Meanwhile another server reports more lost changes.
#[tokio::test]
async fn a_loss_that_is_noticed_within_a_settlement_is_not_forgiven_by_it() {
    let (redis, early, late) = two_lost_sales().await;
    let mut holder = Holder::start(&redis).await;
    let fresh = SentinelProcess::launch().flags(&holder.flags()).start().await;
    let shop = fresh.shop("sale");
    assert!(Feed::open(&shop, &early, false).await.is_err());
    assert_eq!(until_fenced("Reserve", async || take_one(&shop, "ps5").await).await.seen.sequence, 3);
    holder.hold("end_settlement");
    let settling = {
        let shop = shop.clone();
        tokio::spawn(async move { shop.settle(0, &[figure("ps5", 99)], &new_id()).await })
    };
    holder.until_held(0).await;
    assert!(Feed::open(&shop, &late, false).await.is_err());
    holder.let_go(Held::Sent);
    let answer = settling.await.expect("an end");
    let taken = take_one(&shop, "ps5").await;
    assert!(taken.is_err(), "{answer:?}; sells 99 although 2 were sold: {taken:?}");
}

/// A settlement's answer is lost, and `sentinelctl` repeats it. Meanwhile an older copy came back again.
#[tokio::test]
async fn a_settlement_is_not_repeated_for_another_loss() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 40).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    let (settlement, fence) = (new_id(), reported_fence(&server, 0).await.fence);
    shop.settle_fence(0, &fence, &[figure("ps5", 60)], &settlement).await.expect("settled");
    sell(&shop, "ps5", 60).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    let repeated = shop.settle_fence(0, &fence, &[figure("ps5", 60)], &settlement).await;
    assert_refused(repeated, Reason::FenceChanged, None);
    assert_refused(take_one(&shop, "ps5").await, Reason::StoreFenced, None);
    assert_refused(shop.settle_fence(0, "ps5", &[], &new_id()).await, Reason::InvalidFence, Some("fence"));
}

/// Two settlements have one identity and different figures. The last call of the first arrives late.
#[tokio::test]
async fn a_settlement_sets_the_figures_that_it_was_begun_with() {
    let (lost, ()) = Lost::after(async |shop| drop(shop.supply("ps5", 100).await)).await;
    let redis = &lost.redis;
    let (script, epoch) = (script_source(), epoch(redis).await);
    let call = async |kind: &str, args: &[u8], id: u8| {
        let mut command = script_call(&script);
        let Value::Array(reply) =
            redis.query::<Value>(command.arg(epoch).arg("g").arg(kind).arg(args).arg(&[id; 16][..]).arg("")).await
        else {
            panic!("a reply")
        };
        let Value::Array(group) = &reply[1] else { panic!("{reply:?}") };
        let Value::BulkString(codes) = &group[0] else { panic!("{group:?}") };
        String::from_utf8(codes.clone()).expect("letters")
    };
    let figure = |available: u64| [&[0][..], &available.to_be_bytes()[2..], b"ps5"].concat();
    let fence = reported_fence(&lost.server, 0).await.fence;
    let begin = |key: u8| [&[key; 16][..], fence.as_bytes()].concat();
    assert_eq!(call("begin_settlement", &[&[1; 16][..], b"0123456789abcdef"].concat(), 7).await, "e");
    assert_eq!(call("begin_settlement", &begin(1), 7).await, "V");
    assert_eq!(call("begin_settlement", &begin(2), 7).await, "V");
    assert_eq!(call("settle_sku", &figure(30), 2).await, "K");
    assert_eq!(call("settle_sku", &figure(60), 1).await, "o", "a late figure of the first");
    assert_eq!(call("end_settlement", &[1; 16], 7).await, "o", "a late end of the first");
    assert_eq!(call("end_settlement", &[2; 16], 7).await, "K");
    assert_eq!(call("begin_settlement", &begin(2), 7).await, "Y");
    assert_eq!(call("begin_settlement", &begin(1), 7).await, "D");
    assert_eq!(lost.shop.counts("ps5").await.0, 30);
}

/// A consumer stopped before a restart of the store. The servers have seen only later changes.
#[tokio::test]
async fn a_settlement_forgives_all_that_was_lost_below_what_was_seen() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 1).await;
    let early = token(&shop, 3).await;
    redis.restart().await;
    retry_until_answered("an answer", async || shop.adjust_stock("ps5", 1, &new_id()).await)
        .await
        .expect("nothing is lost");
    sell(&shop, "ps5", 1).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    shop.settle(0, &[figure("ps5", 99)], &new_id()).await.expect("settled");
    sell(&shop, "ps5", 1).await;
    let refused = Feed::open(&shop, &early, false).await.map(drop);
    assert_refused(refused, Reason::EventsCompacted, None);
    take_one(&shop, "ps5").await.expect("the settlement was about all that came after the copy");
}

/// A settlement with more SKUs than the queue has room for.
#[tokio::test]
async fn a_settlement_ends_on_a_server_with_a_short_queue() {
    let mut redis = Redis::start().await;
    let other = SentinelProcess::on(&redis).await;
    let shop = other.shop("sale");
    let rows = (0..1_000).map(|i| v1::ImportRow { sku: format!("s{i}"), on_hand: 5 }).collect();
    let message = v1::ImportStockRequest {
        namespace_id: "sale".into(),
        request_id: new_id(),
        rows,
        overwrite: false,
        existing_namespace_only: false,
    };
    let import = shop.admin.clone().import_stock(tokio_stream::iter([message])).await.expect("a stream");
    import.into_inner().message().await.expect("an answer").expect("one for each message");
    let copy = redis.files().copy();
    shop.supply("ps5", 1).await;
    redis.restart_with_copy(&copy).await;
    until_fenced("Reserve", async || take_one(&shop, "s1").await).await;
    let server = SentinelProcess::launch().on(&redis).flags("--queue-limit 100").start().await;
    let shop = server.shop("sale");
    let mut reasons = Vec::new();
    let settlement = new_id();
    for _ in 0..5 {
        match shop.settle(0, &[], &settlement).await {
            Ok(_) => return,
            Err(status) => reasons.push(reason(&status)),
        }
        sleep(Duration::from_millis(300)).await;
    }
    panic!("it does not end: {reasons:?}");
}
