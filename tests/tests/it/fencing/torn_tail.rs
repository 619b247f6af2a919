//! An append-only file whose end is missing: Redis starts with the complete part, and the loss of the rest is noticed.

use std::os::unix::net::UnixStream;

use sentinel_tests::{Redis, SentinelProcess, assert_fenced, eventually, figure, new_id, until_fenced};

use super::{sell, sell_out, take_one};

/// A number of bytes that is less than the last change.
const TORN: u64 = 10;

/// The last of ten units is held when the machine loses the end of the file. Redis starts with an unnoticed warning,
/// the hold is gone, and an eleventh unit of ten used to be given.
#[tokio::test]
async fn a_torn_tail_sells_no_unit_twice() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    sell(&shop, "ps5", 9).await;
    let last = shop.hold("ps5", 1).await.reservation_id;
    redis.kill9();
    redis.files().truncate_aof(TORN);
    redis.restart().await;
    let fence = until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    assert_eq!((fence.seen.sequence, fence.kept_sequence), (20, 19), "exactly the last change is lost");
    assert_fenced(shop.commit(&last).await);
    assert_eq!(shop.counts("ps5").await, (1, 0, 9));
    shop.settle(0, &[figure("ps5", 0)], &new_id()).await.expect("settled");
    assert_eq!(sell_out(&shop, "ps5").await, 0);
    shop.audit().await;
}

/// The same with the Redis that the server supervises and restarts.
#[tokio::test]
async fn a_torn_tail_of_the_embedded_redis_sells_no_unit_twice() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    sell(&shop, "ps5", 9).await;
    shop.hold("ps5", 1).await;
    // The supervisor is suspended, so Redis does not start before the file is cut.
    server.stop();
    server.kill9_redis();
    eventually("redis is dead", async || UnixStream::connect(server.embedded_socket()).err()).await;
    server.embedded_files().truncate_aof(TORN);
    server.cont();
    let fence = until_fenced("Reserve", async || take_one(&shop, "ps5").await).await;
    assert_eq!((fence.seen.sequence, fence.kept_sequence), (20, 19));
    shop.settle(0, &[figure("ps5", 0)], &new_id()).await.expect("settled");
    assert_eq!(sell_out(&shop, "ps5").await, 0);
    shop.audit().await;
}

/// A torn change that was not answered is no loss: it never happened.
#[tokio::test]
async fn a_torn_tail_that_nobody_was_promised_passes() {
    let mut redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.hold("ps5", 1).await;
    // A write of another client, the last of the file.
    redis.execute::<()>("SET other:key value").await;
    redis.kill9();
    redis.files().truncate_aof(TORN);
    redis.restart().await;
    let held = eventually("the store can be used", async || match take_one(&shop, "ps5").await {
        Err(status) if sentinel_tests::model::execute::may_repeat(&status) => None,
        answer => Some(answer.expect("nothing acknowledged is lost")),
    })
    .await;
    assert_eq!(held.sequence, 3);
    assert_eq!(shop.counts("ps5").await, (8, 2, 0));
    assert_eq!(server.info().await.fenced_partitions, []);
}
