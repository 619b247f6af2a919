//! Steps of the store's clock, seen by the script: the doubt, the difference and the correction that it computes.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value};
use inventory_sentinel::v1::SkuRules;
use inventory_sentinel_script::script::script_source;
use sentinel_tests::{Redis, SentinelProcess, epoch, number_in, partition_keys, script_call, stored_stock};

use super::{DAY, HOUR, MINUTE};

/// Bytes of the state of a partition whose clock is the store's.
const STATE_LENGTH: usize = 117;

/// The clock of the partition, as a call of the script returns it; in milliseconds.
#[derive(Clone, Copy, Debug)]
struct ClockState {
    now: i64,
    offset: i64,
    correction: i64,
    doubt: i64,
}

/// The script of the partition `sale/0`, called as by a server that expects this instant, or none.
struct Script {
    source: String,
    epoch: u64,
    redis: Redis,
}

impl Script {
    async fn of(redis: Redis) -> Self {
        Self { source: script_source(), epoch: epoch(&redis).await, redis }
    }

    async fn call(&self, expected: Option<i64>, groups: &[[&[u8]; 4]]) -> ClockState {
        let mut command = script_call(&self.source);
        let knowledge = [b"g", &expected.unwrap_or(0).to_be_bytes()[2..]].concat();
        command.arg(self.epoch).arg(knowledge);
        for group in groups.iter().flatten() {
            command.arg(*group);
        }
        let Value::Array(reply) = self.redis.query(&command).await else { panic!("no reply") };
        let Value::BulkString(head) = &reply[0] else { panic!("{reply:?}") };
        // The head of a raw reply: `Reply` has no doubt and no correction of the clock.
        let signed = |at: usize| i64::from_be_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let now = number_in(&head[..6]);
        match head[74] {
            0 => ClockState { now, offset: 0, correction: 0, doubt: 0 },
            22 => ClockState { now, offset: signed(76), correction: signed(84), doubt: number_in(&head[92..98]) },
            other => panic!("a clock of {other} bytes"),
        }
    }

    /// The next deadlines in the index, in milliseconds.
    async fn next_deadlines(&self) -> Vec<i64> {
        let keys = partition_keys("sale", 0);
        let index: Vec<(Vec<u8>, i64)> =
            self.redis.query(&Cmd::zrangebyscore_withscores(keys.deadlines(), "-inf", "+inf")).await;
        index.into_iter().map(|(_, score)| score).collect()
    }
}

fn about(value: i64, expected: i64) -> bool {
    (value - expected).abs() < 900
}

/// A namespace whose only server is gone, with a hold for an hour.
async fn left_alone(flags: &str) -> Script {
    let redis = Redis::start_with_clock().await;
    let mut server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.hold_for("ps5", 1, Duration::from_secs(3_600)).await;
    server.kill9();
    Script::of(redis).await
}

/// A reservation of one unit for ten seconds, as an argument of the script.
const RESERVE: [&[u8]; 4] = [b"reserve", b"\0\0\0\0\x27\x10\x01\0\0\0\x01\x03ps5", &[7; 16], &[0; 6]];

#[tokio::test]
async fn the_time_of_day_follows_a_step_that_has_stood_for_five_minutes() {
    let script = left_alone("--sweep-interval 50ms").await;
    let start = script.redis.now().await;
    let ClockState { now, offset, correction, .. } = script.call(Some(start), &[]).await;
    assert_eq!((offset, correction), (0, 0));
    // This many seconds later, with the store's clock ahead by this difference.
    let later = async |seconds: i64, ahead: i64| {
        script.redis.step_clock(seconds * 1_000 + ahead);
        let clock = script.call(Some(now + seconds * 1_000), &[]).await;
        assert!(about(clock.now, now + seconds * 1_000), "{clock:?}");
        assert!(about(clock.offset, -ahead), "{clock:?}");
        clock.correction
    };
    assert_eq!(later(1, HOUR).await, 0);
    assert_eq!(later(200, HOUR).await, 0);
    // Another step: the five minutes start again here.
    assert_eq!(later(290, HOUR + 5_000).await, 0);
    assert_eq!(later(585, HOUR + 5_000).await, 0);
    let correction = later(592, HOUR + 5_000).await;
    assert!(about(correction, HOUR + 5_000), "{correction}");
    // The same when the clock returns.
    assert_eq!(later(600, 0).await, correction);
    assert_eq!(later(895, 0).await, correction);
    assert_eq!(later(902, 0).await, 0);
    // A step that is taken back leaves no trace.
    assert_eq!(later(1_000, -DAY).await, 0);
    assert_eq!(later(1_100, 0).await, 0);
    assert_eq!(later(1_350, 0).await, 0);
    assert_eq!(later(1_500, -DAY).await, 0);
    assert_eq!(later(1_510, 0).await, 0);
    let state: Vec<u8> = script.redis.query(&Cmd::hget(partition_keys("sale", 0).meta(), "state")).await;
    assert_eq!(state.len(), STATE_LENGTH);
}

#[tokio::test]
async fn a_server_that_knows_nothing_waits_before_it_believes_the_clock() {
    let script = left_alone("--sweep-interval 50ms").await;
    let mark = script.redis.now().await;
    script.redis.step_clock(MINUTE);
    let first = script.call(None, &[]).await;
    assert!(about(first.now, mark) && about(first.doubt, MINUTE), "{first:?}");
    script.redis.step_clock(MINUTE + 4_000);
    let second = script.call(None, &[]).await;
    assert!(about(second.now, mark + 4_000) && second.doubt == first.doubt, "{second:?}");
    script.redis.step_clock(MINUTE + 5_500);
    let third = script.call(None, &[]).await;
    assert!(about(third.now, mark + MINUTE + 5_500), "{third:?}");
    assert_eq!((third.doubt, third.offset, third.correction), (0, 0, 0), "{third:?}");
}

/// New holds count from the later instant. Those made during a wrong doubt are corrected.
#[tokio::test]
async fn a_server_that_knows_the_clock_ends_the_doubt_of_another() {
    for time_has_passed in [true, false] {
        let script = left_alone("--sweep-interval 50ms").await;
        let mark = script.redis.now().await;
        script.redis.step_clock(MINUTE);
        let clock = script.call(None, &[RESERVE]).await;
        assert!(about(clock.doubt, MINUTE), "{clock:?}");
        let deadlines = script.next_deadlines().await;
        assert!(about(deadlines[0], mark + MINUTE + 10_000), "{deadlines:?} {mark}");
        // The deadline may move back, so the SKU's raw record has no lower bound of it (lua/scripts/formats.lua).
        let stock: Vec<u8> = script.redis.query(&Cmd::hget(partition_keys("sale", 0).stock(), "ps5")).await;
        assert_eq!((stock.len(), stock[30]), (31, 1), "{stock:?}");
        let expected = if time_has_passed { mark + MINUTE } else { mark };
        let clock = script.call(Some(expected), &[]).await;
        assert!(about(clock.now, expected) && clock.doubt == 0, "{clock:?}");
        assert!(about(clock.offset, expected - mark - MINUTE), "{clock:?}");
        let deadlines = script.next_deadlines().await;
        assert!(about(deadlines[0], expected + 10_000), "{deadlines:?} {expected}");
        let left: Vec<u8> = script.redis.query(&Cmd::hget(partition_keys("sale", 0).meta(), "doubted")).await;
        assert!(left.is_empty(), "{left:?}");
        // The hold ends then, and not before.
        script.redis.step_clock(MINUTE + 9_000);
        script.call(Some(expected + 9_000), &[]).await;
        assert_eq!(stored_stock(&script.redis, "ps5").await.held, 2);
        script.redis.step_clock(MINUTE + 11_000);
        script.call(Some(expected + 11_000), &[]).await;
        assert_eq!(stored_stock(&script.redis, "ps5").await.held, 1);
    }
}

/// Without a hold a sale window still depends on the difference.
#[tokio::test]
async fn an_idle_partition_waits_too() {
    let redis = Redis::start_with_clock().await;
    let mut server = SentinelProcess::on(&redis).await;
    server.shop("sale").supply("ps5", 10).await;
    server.kill9();
    redis.step_clock(HOUR);
    let script = Script::of(redis).await;
    let clock = script.call(None, &[]).await;
    assert!(about(clock.doubt, HOUR), "{clock:?}");
    script.redis.step_clock(HOUR + 5_500);
    let clock = script.call(None, &[]).await;
    assert!(about(clock.now, script.redis.now().await) && clock.doubt == 0, "{clock:?}");
}

/// Older formats have no room for a doubt or a correction. A clock that is ahead is believed at once, and the time of
/// day is the store's.
#[tokio::test]
async fn an_older_format_keeps_durations_and_the_time_of_day_is_that_of_the_store() {
    for format in [1, 2] {
        let script = left_alone(&format!("--format {format}")).await;
        let start = script.redis.now().await;
        script.redis.step_clock(HOUR);
        let clock = script.call(Some(start), &[]).await;
        assert!(about(clock.now, start) && about(clock.offset, -HOUR) && about(clock.correction, HOUR), "{clock:?}");
        script.redis.step_clock(0);
        let clock = script.call(None, &[]).await;
        assert!(clock.now >= start - 900 && about(clock.now, start), "{clock:?}");
        script.redis.step_clock(MINUTE);
        let clock = script.call(None, &[]).await;
        assert!(about(clock.now, start + MINUTE) && clock.doubt == 0, "{clock:?}");
    }
}

/// The call that ends a doubt also reserves and resolves. The correction of the other holds must not affect its stock.
#[tokio::test]
async fn the_end_of_a_doubt_goes_together_with_other_operations() {
    let redis = Redis::start_with_clock().await;
    let mut server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("vita", 10).await;
    let limit = prost_types::Duration { seconds: 5, nanos: 0 };
    shop.configure("ps5", SkuRules { max_ttl: Some(limit), ..Default::default() }).await.expect("configured");
    shop.hold_for("vita", 1, Duration::from_secs(3_600)).await;
    server.kill9();
    let script = Script::of(redis).await;
    let mark = script.redis.now().await;
    script.redis.step_clock(MINUTE);
    script.call(None, &[RESERVE]).await;
    let [reserve, args, _, extra] = RESERVE;
    let clock = script.call(Some(mark), &[[reserve, args, &[8; 16], extra], [b"commit", b"", &[8; 16], b""]]).await;
    assert!(clock.doubt == 0 && about(clock.now, mark), "{clock:?}");
    let stock = stored_stock(&script.redis, "ps5").await;
    assert_eq!((stock.held, stock.sold), (1, 1));
}
