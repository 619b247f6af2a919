//! Due holds while a batch runs: the SKUs whose operations wait for them, the calls that expire them, and the earliest
//! deadline in a SKU's record.

use deadpool_redis::redis::{Cmd, Value};
use inventory_sentinel::v1::{ConfigureNamespaceRequest, NamespaceConfig, SkuRules};
use inventory_sentinel_script::{
    domain::{Id, ReservationId, State},
    limits::MAX_OPERATIONS,
    reservation_from,
    script::script_source,
    stock_from,
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use sentinel_tests::{Group, Redis, SentinelProcess, epoch, eventually, line_set, number_in, partition_keys, u48};

use super::{call, codes};

/// One expired and one pending hold of `late`, and pending holds of `other` and `limited`: nothing is available.
async fn hold_all(run: &impl AsyncFn(&[Group]) -> Vec<String>, redis: &Redis) {
    let reserve = |sku: &str, n: u8, ttl: u64, extra: &[u8]| {
        ("reserve", line_set(ttl, &[(1, sku)]), vec![n; 16], [&u48(ttl)[..], extra].concat())
    };
    assert_eq!(run(&[reserve("late", 1, 1, &[])]).await, ["K"]);
    let made = redis.now().await;
    eventually("it is due", async || (redis.now().await > made + 1).then_some(())).await;
    let groups =
        [reserve("late", 2, 60_000, &[]), reserve("other", 3, 60_000, &[]), reserve("limited", 4, 60_000, &ADA)];
    assert_eq!(run(&groups).await, ["K", "K", "K"]);
}

/// A buyer field.
const ADA: [u8; 4] = [3, b'a', b'd', b'a'];
/// Holds of `storm` that fall due together: many more than one call gives back.
const STORM: usize = MAX_OPERATIONS;

/// Holds of `storm` that are due: more than one call expires.
async fn storm_of(run: &impl AsyncFn(&[Group]) -> Vec<String>, redis: &Redis, first: u16) {
    let ids: Vec<u8> = (0..STORM as u16).flat_map(|i| [&(first + i).to_be_bytes()[..], &[0xEE; 14]].concat()).collect();
    let hold = ("reserve", line_set(1, &[(1, "storm")]), ids, u48(1).to_vec());
    assert_eq!(run(&[hold]).await, ["K".repeat(STORM)]);
    let made = redis.now().await;
    eventually("all are due", async || (redis.now().await > made + 1).then_some(())).await;
}

/// While a SKU has due holds, an operation on another SKU is answered if that one certainly has none.
#[tokio::test]
async fn a_sku_that_has_no_due_hold_is_answered_beside_one_that_has() {
    // In the older formats any SKU with held units may have a due hold.
    for (format, answers) in [(4, "VVSHhOIV"), (3, "AVAAAAAA")] {
        let redis = Redis::start().await;
        let flags = format!("--sweep-interval 1m --format {format}");
        let server = SentinelProcess::launch().on(&redis).flags(&flags).start().await;
        let shop = server.shop("sale");
        for (sku, on_hand) in [("storm", STORM as i64), ("other", 1), ("late", 1), ("limited", 5), ("empty", 0)] {
            shop.supply(sku, on_hand).await;
        }
        shop.configure("limited", SkuRules { buyer_limit: Some(1), ..Default::default() }).await.expect("a limit");
        let (script, epoch) = (script_source(), epoch(&redis).await);
        let run = async |groups: &[Group]| codes(&redis.query(&call(&script, epoch, groups)).await);
        hold_all(&run, &redis).await;
        storm_of(&run, &redis, 0).await;

        let none = Vec::new;
        let reserve = |lines: &[(u32, &str)], n: u8, buyer: &[u8]| {
            ("reserve", line_set(60_000, lines), vec![n; 16], [&u48(60_000)[..], buyer].concat())
        };
        let adjust =
            |sku: &str| ("adjust_stock", [&(-1i64).to_be_bytes()[..], sku.as_bytes()].concat(), vec![23; 16], none());
        let groups = [
            ("get_stock", b"other".to_vec(), none(), none()),
            ("get_stock", b"empty".to_vec(), none(), none()),
            reserve(&[(1, "other")], 20, &[]),
            adjust("other"),
            ("delete_sku", b"other".to_vec(), vec![22; 16], none()),
            ("commit_late", none(), vec![1; 16], vec![21; 16]),
            reserve(&[(1, "limited")], 24, &ADA),
            ("is_protected", b"other".to_vec(), none(), none()),
        ];
        let codes = run(&groups).await;
        assert_eq!(codes.concat(), answers, "format {format}");
        // An operation on a SKU with due holds waits, also a cart with one line of it. Available units are given at
        // once.
        let groups = [
            ("get_stock", b"storm".to_vec(), none(), none()),
            ("delete_sku", b"storm".to_vec(), vec![25; 16], none()),
            reserve(&[(STORM as u32, "storm")], 26, &[]),
            reserve(&[(1, "other"), (1, "storm")], 27, &[]),
            reserve(&[(1, "empty")], 28, &[]),
            reserve(&[(1, "storm")], 29, &[]),
        ];
        assert_eq!(run(&groups).await.concat(), "AAAASK", "format {format}");
        shop.audit().await;
    }
}

/// A limit that is set in a batch applies to later operations of the batch, and not to earlier ones.
#[tokio::test]
async fn a_limit_counts_from_its_place_in_the_batch() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let (script, epoch) = (script_source(), epoch(&redis).await);
    let run = async |groups: &[Group]| codes(&redis.query(&call(&script, epoch, groups)).await).concat();
    let reserve = |n: u8| ("reserve", line_set(60_000, &[(1, "ps5")]), vec![n; 16], [&u48(60_000)[..], &ADA].concat());
    let limit = |units: u32, n: u8| {
        let any_revision = [0xFF; 6];
        let args = [&[8, 0][..], &[0; 4], &[0; 6], &units.to_be_bytes(), &[0; 12], &any_revision, b"ps5"].concat();
        ("configure_sku", args, vec![n; 16], Vec::new())
    };
    let roll_back = |n: u8| ("rollback", Vec::new(), vec![n; 16], Vec::new());
    assert_eq!(run(&[reserve(1), limit(1, 2), reserve(3), reserve(4)]).await, "KKKI");
    assert_eq!(run(&[roll_back(1), reserve(5), roll_back(3), reserve(6), reserve(7)]).await, "KIKKI");
    // Removed and set again, twice: each time the counts start at zero.
    assert_eq!(run(&[limit(0, 8), limit(1, 9), reserve(10), reserve(11)]).await, "KKKI");
    assert_eq!(run(&[reserve(12), limit(0, 13), reserve(14), limit(1, 15), reserve(16), reserve(17)]).await, "IKKKKI");
    shop.audit().await;
}

/// Each start or end of a limit advances the clock of the partition by a millisecond. That must not end holds early, so
/// many of them in one batch have to wait for the time to pass.
#[tokio::test]
async fn limits_do_not_move_the_clock_far() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    let (script, epoch) = (script_source(), epoch(&redis).await);
    let limits: Vec<Group> = (0..300u16)
        .map(|n| {
            let units = u32::from(n % 2 == 0);
            let args = [&[8, 0][..], &[0; 10], &units.to_be_bytes(), &[0; 12], &[0xFF; 6], b"ps5"].concat();
            ("configure_sku", args, [&[1; 14][..], &n.to_be_bytes()].concat(), Vec::new())
        })
        .collect();
    let reply: Value = redis.query(&call(&script, epoch, &limits)).await;
    let codes = codes(&reply).concat();
    let applied = codes.matches('K').count();
    assert!((50..100).contains(&applied), "{codes}");
    assert!(codes.contains('A'), "{codes}");
    let Value::Array(reply) = reply else { panic!("{reply:?}") };
    let Value::BulkString(head) = &reply[0] else { panic!("{reply:?}") };
    assert!(number_in(&head[..6]) <= redis.now().await + 50);
    shop.audit().await;
}

/// The number of holds that a call expired, from the raw reply: decoding needs the operations.
fn expired(reply: &Value) -> u32 {
    let Value::Array(reply) = reply else { panic!("{reply:?}") };
    let Value::BulkString(head) = &reply[0] else { panic!("{reply:?}") };
    u32::from_be_bytes(head[12..16].try_into().expect("four bytes"))
}

/// A call that does not need a due hold expires only a few. The many of a storm would delay its answer.
#[tokio::test]
async fn a_call_for_other_skus_leaves_a_storm_to_the_sweeps() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    for (sku, on_hand) in [("storm", STORM as i64), ("other", 2), ("few", 1)] {
        shop.supply(sku, on_hand).await;
    }
    let (script, epoch) = (script_source(), epoch(&redis).await);
    let query = async |groups: &[Group]| redis.query(&call(&script, epoch, groups)).await;
    let run = async |groups: &[Group]| codes(&query(groups).await);
    let read = |sku: &str| ("get_stock", sku.as_bytes().to_vec(), Vec::new(), Vec::new());
    let hold = |sku: &str, n: u8, ttl: u64| ("reserve", line_set(ttl, &[(1, sku)]), vec![n; 16], u48(ttl).to_vec());

    assert_eq!(run(&[hold("other", 1, 60_000), hold("few", 2, 1)]).await, ["K", "K"]);
    let made = redis.now().await;
    eventually("it is due", async || (redis.now().await > made + 1).then_some(())).await;
    let reply = query(&[read("other")]).await;
    assert_eq!((codes(&reply), expired(&reply)), (vec!["V".to_owned()], 1), "a few cost little");

    storm_of(&run, &redis, 0).await;
    for groups in
        [vec![read("other")], vec![read("few")], vec![hold("other", 3, 60_000)], vec![hold("other", 4, 60_000)]]
    {
        let reply = query(&groups).await;
        let is_answered = ["V", "K", "S"].contains(&codes(&reply)[0].as_str());
        assert!(is_answered && expired(&reply) == 0, "{groups:?}: {reply:?}");
    }
    let reply = query(&[read("other"), read("storm")]).await;
    assert_eq!(codes(&reply).concat(), "VA");
    assert!((1..STORM as u32).contains(&expired(&reply)), "{reply:?}");
    // A sweep.
    let given_back = expired(&query(&[]).await);
    assert!((1..STORM as u32).contains(&given_back), "{given_back}");
    shop.audit().await;
}

/// The record of a SKU without a bound gets one with its next change.
#[tokio::test]
async fn a_raised_namespace_learns_the_earliest_deadlines() {
    let redis = Redis::start().await;
    let flags = "--sweep-interval 1m --format 3";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    shop.supply("storm", STORM as i64).await;
    shop.supply("other", 2).await;
    let (script, epoch) = (script_source(), epoch(&redis).await);
    let run = async |groups: &[Group]| codes(&redis.query(&call(&script, epoch, groups)).await);
    // The bound is read from the raw record: no decoder returns it.
    let keys = partition_keys("sale", 0);
    let record = async |sku: &str| redis.query::<Vec<u8>>(&Cmd::hget(keys.stock(), sku)).await;
    let read = |sku: &str| ("get_stock", sku.as_bytes().to_vec(), Vec::new(), Vec::new());
    let hold = |n: u8, ttl: u64| ("reserve", line_set(ttl, &[(1, "other")]), vec![n; 16], u48(ttl).to_vec());
    assert_eq!(run(&[hold(1, 60_000)]).await, ["K"]);
    assert_eq!(record("other").await.len(), 31);

    let config = NamespaceConfig { format: Some(4), ..Default::default() };
    let request = ConfigureNamespaceRequest { namespace_id: "sale".into(), config: Some(config), ..Default::default() };
    shop.admin.clone().configure_namespace(request).await.expect("raised");
    storm_of(&run, &redis, 0).await;
    assert_eq!(run(&[read("other")]).await, ["A"]);
    for _ in 0..3 {
        run(&[]).await;
    }
    assert_eq!(run(&[read("storm")]).await, ["V"]);
    assert_eq!(run(&[hold(2, 30_000)]).await, ["K"]);
    let known = record("other").await;
    assert_eq!((known.len(), known[30]), (37, 17));
    assert_eq!(number_in(&known[31..]), earliest_deadline(&redis, "other").await.expect("two are held"));
    storm_of(&run, &redis, STORM as u16).await;
    assert_eq!(run(&[read("other")]).await, ["V"]);
    // A SKU without held units has no bound.
    for _ in 0..4 {
        run(&[]).await;
    }
    let back = ("rollback", Vec::new(), [[1; 16], [2; 16]].concat(), Vec::new());
    assert_eq!(run(&[back]).await, ["KK"]);
    assert_eq!((record("other").await.len(), record("storm").await.len()), (31, 31));
    shop.audit().await;
}

/// The earliest deadline of the pending holds of a SKU, on the clock of the partition; `None` if there is none.
async fn earliest_deadline(redis: &Redis, sku: &str) -> Option<i64> {
    let mut earliest = None;
    let any_id = ReservationId { id: Id::default(), partition: 0 };
    for key in partition_keys("sale", 0).records() {
        let records: Vec<Vec<u8>> = redis.query(&Cmd::hvals(key)).await;
        let reservations = records.iter().filter_map(|record| reservation_from(any_id, record));
        for reservation in reservations.filter(|reservation| reservation.state == State::Pending) {
            if reservation.lines.iter().any(|line| line.sku.as_str() == sku) {
                let deadline = reservation.expires_at.0 as i64;
                earliest = Some(earliest.map_or(deadline, |other: i64| other.min(deadline)));
            }
        }
    }
    earliest
}

/// After each of many random changes, no hold has an earlier deadline than the bound in its SKU's record.
#[tokio::test]
async fn no_hold_has_an_earlier_deadline_than_the_record_of_its_sku() {
    const SKUS: [&str; 3] = ["alpha", "beta", "gamma"];
    let redis = Redis::start_in_memory().await;
    let flags = "--durability fast --sweep-interval 1m";
    let server = SentinelProcess::launch().on(&redis).flags(flags).start().await;
    let shop = server.shop("sale");
    for sku in SKUS {
        shop.supply(sku, 40).await;
    }
    shop.configure("gamma", SkuRules { buyer_limit: Some(30), ..Default::default() }).await.expect("a limit");
    let (script, epoch) = (script_source(), epoch(&redis).await);
    let run = async |groups: &[Group]| codes(&redis.query(&call(&script, epoch, groups)).await);
    let mut runner = TestRunner::deterministic();
    let mut pick = |number: usize| (0..number).new_tree(&mut runner).expect("a number").current();
    let (mut held, mut next, mut known) = (Vec::<Vec<u8>>::new(), 0u32, 0);
    let mut new_id = || {
        next += 1;
        [&[1; 12][..], &next.to_be_bytes()].concat()
    };
    let keys = partition_keys("sale", 0);
    for step in 0..600 {
        let sku = SKUS[pick(3)];
        let ttl = [20, 300, 5_000, 60_000][pick(4)];
        let shape = line_set(ttl, &[(2, sku)]);
        let extra = [&u48(ttl)[..], &ADA].concat();
        let target: Option<Vec<u8>> = if held.is_empty() { None } else { Some(held[pick(held.len())].clone()) };
        let group = match (pick(10), target) {
            (0..=4, _) | (_, None) => {
                let id = new_id();
                held.push(id.clone());
                ("reserve", shape, id, extra)
            }
            (5, Some(target)) => ("extend", [&target[..], &u48(ttl)].concat(), new_id(), Vec::new()),
            (6, Some(target)) => {
                ("commit_lines", [&target[..], &[1], &line_set(0, &[(1, sku)])].concat(), new_id(), Vec::new())
            }
            (7, Some(target)) => ("rollback", Vec::new(), target, Vec::new()),
            (8, Some(target)) => ("commit", Vec::new(), target, Vec::new()),
            (_, Some(target)) => {
                let id = new_id();
                held.push(id.clone());
                ("reserve_replacing", shape, id, [&extra[..], &target].concat())
            }
        };
        let what = format!("step {step}: {group:?}");
        run(&[group]).await;
        for sku in SKUS {
            let record: Vec<u8> = redis.query(&Cmd::hget(keys.stock(), sku)).await;
            let held = stock_from(&record).expect("a stock record").held;
            let deadline = earliest_deadline(&redis, sku).await;
            assert_eq!(held > 0, deadline.is_some(), "{what}: {sku}");
            // The flag and the bound are raw: no decoder returns them.
            assert_eq!(held > 0, record[30] & 16 != 0, "{what}: {sku}");
            if let Some(deadline) = deadline {
                let bound = number_in(&record[record.len() - 6..]);
                assert!(bound > 0 && bound <= deadline, "{what}: {sku} has {bound}, and a hold {deadline}");
                known += usize::from(bound == deadline);
            }
        }
    }
    assert!(known > 100, "the bound was exact {known} times only");
    shop.audit().await;
}
