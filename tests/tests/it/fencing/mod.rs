//! A store that comes back older or empty. Servers and consumers notice the loss, and nothing is sold until an operator
//! settles the partition. One file for each kind of loss; this one has the shared helpers.

mod consumers;
mod emptied;
mod endurance;
mod fast;
mod interrupted;
mod old_holds;
mod older_copy;
mod restarts;
mod settling;
mod stores;
mod torn_tail;
mod versions;
mod witness;

use inventory_sentinel::v1::{self, reserve_response::Result as Reserved};
use sentinel_tests::{
    Redis, SentinelProcess, TestClient, eventually, model::execute::may_repeat, new_id, reserve_request, until_fenced,
};

use crate::streams::events::Feed;

/// Sells so many units, one by one.
async fn sell(shop: &TestClient, sku: &str, units: usize) {
    for _ in 0..units {
        let id = shop.hold(sku, 1).await.reservation_id;
        shop.commit(&id).await.expect("sold");
    }
}

/// Sells unit by unit until there is a shortage; returns the number of sold units.
async fn sell_out(shop: &TestClient, sku: &str) -> i64 {
    for sold in 0.. {
        match shop.reserve(reserve_request(&[(sku, 1)])).await.expect("an answer").result {
            Some(Reserved::Reservation(held)) => drop(shop.commit(&held.reservation_id).await.expect("sold")),
            Some(Reserved::Shortage(_)) => return sold,
            other => panic!("neither held nor short: {other:?}"),
        }
    }
    unreachable!("the stock ends before the numbers do")
}

/// A Reserve of one unit; only a refusal matters.
async fn take_one(shop: &TestClient, sku: &str) -> Result<v1::ReserveResponse, tonic::Status> {
    shop.reserve(reserve_request(&[(sku, 1)])).await
}

/// Waits until the server reports, without any other call, that this partition of `sale` is fenced.
async fn reported_fence(server: &SentinelProcess, partition: i32) -> v1::FencedPartition {
    eventually("the server reports the fenced partition", async || {
        let fenced = server.info().await.fenced_partitions;
        fenced.into_iter().find(|fenced| (fenced.namespace_id.as_str(), fenced.partition) == ("sale", partition))
    })
    .await
}

/// The only partition of `sale`, fenced: an older copy replaced a store that had one more change.
struct Lost {
    redis: Redis,
    server: SentinelProcess,
    shop: TestClient,
}

impl Lost {
    /// The copy contains the changes that `before` makes.
    async fn after<T>(before: impl AsyncFnOnce(&TestClient) -> T) -> (Lost, T) {
        let mut redis = Redis::start().await;
        let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 20ms").start().await;
        let shop = server.shop("sale");
        let made = before(&shop).await;
        let copy = redis.files().copy();
        shop.supply("lost", 1).await;
        redis.restart_with_copy(&copy).await;
        until_fenced("SetStock", async || shop.set_stock("found", 1, &new_id()).await).await;
        (Lost { redis, server, shop }, made)
    }

    /// Settles with these figures.
    async fn settle(&self, figures: &[v1::SettledSku]) -> v1::SettlePartitionResponse {
        self.shop.settle(0, figures, &new_id()).await.expect("settled")
    }
}

/// Makes the call until the store can be used.
async fn retry_until_answered<T>(
    what: &str,
    mut call: impl AsyncFnMut() -> Result<T, tonic::Status>,
) -> Result<T, tonic::Status> {
    eventually(what, async || match call().await {
        Err(status) if may_repeat(&status) => None,
        answer => Some(answer),
    })
    .await
}

/// The resume token of a consumer that has read everything, up to this sequence.
async fn token(shop: &TestClient, sequence: i64) -> String {
    let mut feed = Feed::open(shop, "", true).await.expect("a stream");
    feed.catch_up().await;
    assert_eq!(feed.events.last().map(|event| event.sequence), Some(sequence));
    feed.token
}

/// A store that lost two sales, which no server has seen, and the tokens of two consumers: one saw the first sale, the
/// other both.
async fn two_lost_sales() -> (Redis, String, String) {
    let mut redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let copy = redis.files().copy();
    sell(&shop, "ps5", 1).await;
    let early = token(&shop, 3).await;
    sell(&shop, "ps5", 1).await;
    let late = token(&shop, 5).await;
    server.kill9();
    redis.restart_with_copy(&copy).await;
    (redis, early, late)
}
