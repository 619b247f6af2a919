//! Partitions that an older release left half-done, because one command was refused in the middle of a change. A
//! settlement repairs them.

use deadpool_redis::redis::{Cmd, cmd};
use inventory_sentinel::Reason;
use sentinel_tests::{
    Redis, SentinelProcess, TestClient, assert_refused, eventually, figure, new_id, number_in, partition_keys,
    reserve_request,
};

use super::script::Alone;

/// The data that an older release left when ZREM was refused: the event and the records are written, the index and the
/// state are not. The next change has no number in the stream until the partition is settled.
#[tokio::test]
async fn a_partition_that_was_left_half_done_is_settled() {
    let alone = Alone::start("--sweep-interval 1m").await;
    alone.make(&[alone.reserve("ps5", &alone.id(), "", 1)]).await;
    let keys = partition_keys("sale", 0);
    let (meta, deadlines) = (keys.meta(), keys.deadlines());
    let state: Vec<u8> = alone.redis.query(&Cmd::hget(meta, "state")).await;
    let index: Vec<u8> = alone.redis.query(cmd("DUMP").arg(deadlines)).await;
    let until = alone.redis.now().await + 1;
    eventually("it is due", async || (alone.redis.now().await > until).then_some(())).await;
    alone.make(&[]).await;
    alone.redis.query::<()>(&Cmd::hset(meta, "state", state)).await;
    alone.redis.query::<()>(cmd("RESTORE").arg(deadlines).arg(0).arg(index).arg("REPLACE")).await;

    let server = SentinelProcess::on(&alone.redis).await;
    let shop = server.shop("sale");
    is_settled_and_sells(&shop).await;
    assert_eq!(shop.counts("ps5").await, (9, 0, 1));
    assert_eq!(pending(&alone.redis).await, (0, 0), "in the state: a generation with a pending hold is never deleted");
    shop.audit().await;
}

/// The partition refuses changes, is settled, and works again.
async fn is_settled_and_sells(shop: &TestClient) {
    assert_refused(shop.reserve(reserve_request(&[("ps5", 1)])).await, Reason::StoreCorrupt, None);
    shop.settle(0, &[figure("ps5", 10), figure("few", 20)], &new_id()).await.expect("settled");
    let id = shop.hold("ps5", 1).await.reservation_id;
    shop.commit(&id).await.expect("the sale continues");
}

/// Pending reservations as the state counts them: of both generations, and of the older one. Raw: no decoder
/// returns them.
async fn pending(redis: &Redis) -> (i64, i64) {
    let state: Vec<u8> = redis.query(&Cmd::hget(partition_keys("sale", 0).meta(), "state")).await;
    (number_in(&state[74..80]), number_in(&state[80..86]))
}

/// The same with ZADD: two holds have no entry in the deadline index, and one with an entry is committed.
#[tokio::test]
async fn holds_that_were_left_without_a_deadline_expire_after_the_settlement() {
    let alone = Alone::start("--sweep-interval 1m").await;
    let sold = alone.id();
    alone.make(&[alone.reserve("ps5", &sold, "", 3_600_000)]).await;
    let keys = partition_keys("sale", 0);
    let (meta, deadlines) = (keys.meta(), keys.deadlines());
    let state: Vec<u8> = alone.redis.query(&Cmd::hget(meta, "state")).await;
    let index: Vec<u8> = alone.redis.query(cmd("DUMP").arg(deadlines)).await;
    let [named, other] = [alone.id(), alone.id()];
    alone
        .make(&[
            alone.reserve("few", &named, "amy", 1_500),
            alone.reserve("ps5", &other, "", 3_600_000),
            ("commit", Vec::new(), sold, Vec::new()),
        ])
        .await;
    alone.redis.query::<()>(&Cmd::hset(meta, "state", state)).await;
    alone.redis.query::<()>(cmd("RESTORE").arg(deadlines).arg(0).arg(index).arg("REPLACE")).await;
    assert_eq!(pending(&alone.redis).await, (1, 0), "as it was before");

    let server = SentinelProcess::on(&alone.redis).await;
    let shop = server.shop("sale");
    shop.settle(0, &[figure("ps5", 10), figure("few", 20)], &new_id()).await.expect("settled");
    eventually("the short hold has expired", async || (shop.counts("few").await.1 == 0).then_some(())).await;
    assert_eq!(shop.counts("ps5").await, (10, 2, 2));
    assert_eq!(pending(&alone.redis).await, (1, 0));
    shop.audit().await;
}

/// The same with HDEL: the half-done change is about no reservation.
#[tokio::test]
async fn a_deletion_that_was_left_half_done_is_settled() {
    let alone = Alone::start("--sweep-interval 1m").await;
    let adjusted = [&1i64.to_be_bytes()[..], b"old"].concat();
    alone.make(&[("adjust_stock", adjusted, alone.id(), Vec::new())]).await;
    let keys = partition_keys("sale", 0);
    let meta = keys.meta();
    let state: Vec<u8> = alone.redis.query(&Cmd::hget(meta, "state")).await;
    alone.make(&[("delete_sku", b"old".to_vec(), alone.id(), Vec::new())]).await;
    alone.redis.query::<()>(&Cmd::hset(meta, "state", state)).await;

    let server = SentinelProcess::on(&alone.redis).await;
    let shop = server.shop("sale");
    is_settled_and_sells(&shop).await;
    shop.audit().await;
}
