//! The script, called without a server. It repeats the checks of the server before its first write. And each group of a
//! batch sees the effects of the groups before it.

use deadpool_redis::redis::{Cmd, ToRedisArgs, Value, cmd};
use inventory_sentinel::v1::SkuRules;
use inventory_sentinel_script::{
    limits::{MAX_LINES, MAX_OPERATIONS, MAX_QUANTITY, MAX_STOCK},
    script::script_source,
};
use sentinel_tests::{Group, Redis, SentinelProcess, epoch, eventually, line_set, partition_keys, script_call, u48};

mod blocks;
mod bytecode;
mod due;

fn shape(lines: &[(u32, &str)]) -> Vec<u8> {
    line_set(60_000, lines)
}

fn call(script: &str, epoch: impl ToRedisArgs, groups: &[Group]) -> Cmd {
    let mut command = script_call(script);
    // The epoch, and the knowledge of a caller that has seen nothing.
    command.arg(epoch).arg("g");
    for (kind, args, ids, extra) in groups {
        command.arg(kind).arg(args).arg(ids).arg(extra);
    }
    command
}

fn malformed() -> Vec<Group> {
    let (id, ids) = (|| vec![7; 16], |n: usize| vec![7; 16 * n]);
    let ttl = || u48(0).to_vec();
    let reserve = |shape: Vec<u8>| ("reserve", shape, id(), ttl());
    let good = || shape(&[(1, "ps5")]);
    let adjust = |delta: i64, sku: &str| [&delta.to_be_bytes()[..], sku.as_bytes()].concat();
    let set = |on_hand: u64, sku: &str| [&u48(on_hand)[..], &[0], &u48(0), sku.as_bytes()].concat();
    // Rules to set, flags, most units, longest ttl, limit, opens, closes, any revision.
    let rules = |set: u8, flags: u8, most: u32, limit: u32| {
        let (most, limit) = (most.to_be_bytes(), limit.to_be_bytes());
        [&[set, flags], &most[..], &u48(0), &limit, &u48(0), &u48(0), &u48((1 << 48) - 1), b"ps5"].concat()
    };
    let target = || vec![6; 16];
    let many: Vec<String> = (0..=MAX_LINES).map(|i| format!("sku-{i}")).collect();
    let many: Vec<(u32, &str)> = many.iter().map(|sku| (1, sku.as_str())).collect();
    vec![
        reserve(shape(&[(0, "ps5")])),
        reserve(shape(&[(MAX_QUANTITY + 1, "ps5")])),
        reserve(shape(&[(u32::MAX, "ps5")])),
        reserve(shape(&[(1, "")])),
        reserve(shape(&[])),
        reserve(shape(&many)),
        reserve(shape(&[(1, "ps5"), (1, "ps5")])),
        reserve(good()[..9].to_vec()),
        reserve(good()[..good().len() - 1].to_vec()),
        reserve([good(), vec![0]].concat()),
        reserve(Vec::new()),
        reserve(line_set(0, &[(1, "ps5")])),
        reserve(line_set((1 << 48) - 1, &[(1, "ps5")])),
        ("reserve", good(), id(), vec![1]),
        // A buyer field for the first of two only.
        ("reserve", good(), ids(2), [ttl(), vec![1, b'x']].concat()),
        ("reserve", good(), Vec::new(), ttl()),
        ("reserve", good(), vec![7; 15], ttl()),
        ("reserve_first", good(), Vec::new(), ttl()),
        ("reserve_first", good(), vec![7; 15], ttl()),
        ("reserve_first", good(), ids(MAX_OPERATIONS + 1), ttl()),
        ("reserve_first", line_set(0, &[(1, "ps5")]), id(), ttl()),
        ("reserve_first", shape(&[(0, "ps5")]), id(), ttl()),
        ("commit", Vec::new(), vec![7; 17], Vec::new()),
        ("commit", Vec::new(), Vec::new(), Vec::new()),
        ("get_reservation", Vec::new(), ids(MAX_OPERATIONS + 1), Vec::new()),
        ("set_stock", set(MAX_STOCK + 1, "ps5"), id(), Vec::new()),
        ("set_stock", set(1, ""), id(), Vec::new()),
        ("set_stock", set(1, "ps5"), ids(2), Vec::new()),
        ("adjust_stock", adjust(0, "ps5"), id(), Vec::new()),
        ("adjust_stock", adjust(MAX_STOCK as i64 + 1, "ps5"), id(), Vec::new()),
        ("adjust_stock", adjust(i64::MIN, "ps5"), id(), Vec::new()),
        ("adjust_stock", adjust(1, ""), id(), Vec::new()),
        ("set_stock", [&u48(1)[..], &[3], &u48(0), b"ps5"].concat(), id(), Vec::new()),
        ("configure_sku", rules(0, 1, 0, 0), id(), Vec::new()),
        ("configure_sku", rules(1, 2, 0, 0), id(), Vec::new()),
        ("configure_sku", rules(2, 1, MAX_QUANTITY + 1, 0), id(), Vec::new()),
        ("configure_sku", rules(8, 1, 0, MAX_QUANTITY + 1), id(), Vec::new()),
        ("configure_sku", rules(1, 1, 0, 0), Vec::new(), Vec::new()),
        ("configure_sku", rules(1, 1, 0, 0), ids(2), Vec::new()),
        ("configure_sku", rules(1, 1, 0, 0)[..34].to_vec(), id(), Vec::new()),
        ("reserve_replacing", good(), ids(2), [ttl(), vec![0, 0], target()].concat()),
        ("reserve_replacing", good(), id(), ttl()),
        ("commit_late", Vec::new(), ids(2), target()),
        ("commit_lines", [target(), vec![1]].concat(), id(), Vec::new()),
        ("commit_lines", [target(), vec![1], shape(&[(0, "ps5")])].concat(), id(), Vec::new()),
        ("rollback_lines", shape(&[(1, "ps5")]), id(), Vec::new()),
        ("extend", target(), id(), Vec::new()),
        ("extend", [target(), u48(0).to_vec()].concat(), id(), Vec::new()),
        ("delete_sku", Vec::new(), id(), Vec::new()),
        ("delete_sku", b"ps5".to_vec(), Vec::new(), Vec::new()),
        ("delete_sku", b"ps5".to_vec(), ids(2), Vec::new()),
        ("get_stock", Vec::new(), Vec::new(), Vec::new()),
        ("Z", Vec::new(), id(), Vec::new()),
        ("settle_sku", [&[4][..], &u48(1), b"ps5"].concat(), id(), Vec::new()),
        ("settle_sku", [&[0][..], &u48(MAX_STOCK + 1), b"ps5"].concat(), id(), Vec::new()),
        ("settle_sku", [&[0][..], &u48(1)].concat(), id(), Vec::new()),
        ("begin_settlement", vec![1; 15], id(), Vec::new()),
        ("end_settlement", vec![1; 17], id(), Vec::new()),
        ("", Vec::new(), Vec::new(), Vec::new()),
    ]
}

/// The codes of each group of a reply.
fn codes(reply: &Value) -> Vec<String> {
    let Value::Array(reply) = reply else { panic!("{reply:?}") };
    let code = |group: &Value| match group {
        Value::Array(group) => match &group[0] {
            Value::BulkString(codes) => String::from_utf8(codes.clone()).expect("letters"),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    reply[1..].iter().map(code).collect()
}

#[tokio::test]
async fn each_group_of_a_batch_sees_what_those_before_it_have_done() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 100).await;
    shop.supply("vita", 5).await;
    let (script, epoch) = (script_source(), epoch(&redis).await);
    let run = async |groups: &[Group]| codes(&redis.query(&call(&script, epoch, groups)).await);
    let id = |n: u8| vec![n; 16];
    let reserve = |sku: &str, n: u8, ttl: u64| ("reserve", line_set(ttl, &[(1, sku)]), id(n), u48(ttl).to_vec());
    let extend = |of: u8, n: u8, ttl: u64| ("extend", [id(of), u48(ttl).to_vec()].concat(), id(n), Vec::new());

    // A SKU is deleted, another created, a reservation committed at once.
    let gone = [("delete_sku", b"vita".to_vec(), id(20), Vec::new()), reserve("vita", 1, 60_000)];
    assert_eq!(run(&gone).await, ["K", "N"]);
    let set = [&u48(3)[..], &[0], &u48(0), b"cable"].concat();
    assert_eq!(run(&[("set_stock", set, id(2), Vec::new()), reserve("cable", 3, 60_000)]).await, ["K", "K"]);
    assert_eq!(shop.counts("cable").await, (2, 1, 0));
    let bought = [reserve("ps5", 4, 60_000), ("commit", Vec::new(), id(4), Vec::new())];
    assert_eq!(run(&bought).await, ["K", "K"]);
    assert_eq!(shop.counts("ps5").await, (99, 0, 1));

    // Extended several times at once: the index has the last deadline, whatever the order of a Lua table.
    for n in 0..20 {
        let (held, first) = (100 + n, 130 + 3 * n);
        let longer = |i: u8| extend(held, first + i, 100_000 * (1 + u64::from(i)) + u64::from(n));
        let groups = [reserve("ps5", held, 60_000 + u64::from(n)), longer(0), longer(1), longer(2)];
        assert_eq!(run(&groups).await, ["K", "K", "K", "K"]);
        shop.audit().await;
    }

    // A stale entry of the index, and a new one with the same id in the same call.
    assert_eq!(run(&[reserve("ps5", 5, 1)]).await, ["K"]);
    let mut stale = cmd("ZADD");
    redis.query::<()>(stale.arg(partition_keys("sale", 0).deadlines()).arg(1).arg(id(6))).await;
    eventually("it is due", async || {
        let due: Vec<i64> = redis.query(&Cmd::zscore_multiple(partition_keys("sale", 0).deadlines(), &[id(5)])).await;
        (redis.now().await > due[0]).then_some(())
    })
    .await;
    assert_eq!(run(&[reserve("ps5", 6, 60_000)]).await, ["K"]);
    shop.audit().await;
    let (available, held, sold) = shop.counts("ps5").await;
    assert_eq!((available, held, sold), (78, 21, 1));
}

/// The server groups equal operations by their arguments, so one request can be in several groups of a call.
#[tokio::test]
async fn a_call_takes_one_request_in_several_words_for_one() {
    let redis = Redis::start().await;
    let server = SentinelProcess::launch().on(&redis).flags("--sweep-interval 1m").start().await;
    let shop = server.shop("sale");
    for sku in ["ps5", "vita", "limited"] {
        shop.supply(sku, 100).await;
    }
    shop.configure("limited", SkuRules { buyer_limit: Some(5), ..Default::default() }).await.expect("a limit");
    let (script, epoch) = (script_source(), epoch(&redis).await);
    let run = async |groups: &[Group]| codes(&redis.query(&call(&script, epoch, groups)).await);
    let id = |n: u8| vec![n; 16];
    for (n, other, buyer) in [(1, "vita", &[][..]), (2, "limited", &[3, b'a', b'd', b'a'][..])] {
        let reserve = |ttl: u64, lines: &[(u32, &str)]| {
            let in_force = if ttl == 0 { 60_000 } else { ttl };
            ("reserve", line_set(in_force, lines), id(n), [&u48(ttl)[..], buyer].concat())
        };
        let (one, two) = ([(1, "ps5"), (2, other)], [(2, other), (1, "ps5")]);
        let groups = [
            reserve(0, &one),
            reserve(0, &two),
            reserve(60_000, &two),
            reserve(60_001, &two),
            reserve(0, &[(2, "ps5"), (1, other)]),
            ("rollback_lines", [id(n), shape(&[(1, other), (1, "ps5")])].concat(), id(100 + n), Vec::new()),
            ("rollback_lines", [id(n), shape(&[(1, "ps5"), (1, other)])].concat(), id(100 + n), Vec::new()),
            reserve(60_000, &one),
            ("commit", Vec::new(), id(n), Vec::new()),
            reserve(0, &two),
        ];
        assert_eq!(run(&groups).await, ["K", "Y", "Y", "D", "D", "K", "Y", "Y", "K", "Y"], "{other}");
        assert_eq!(shop.counts(other).await, (99, 0, 1), "{other}");
    }
    // The same request twice in a group.
    let twice = ("reserve", shape(&[(1, "ps5")]), [id(9), id(9)].concat(), u48(60_000).to_vec());
    assert_eq!(run(&[twice]).await, ["KY"]);
    // Late commits of one call.
    let short = ("reserve", line_set(1, &[(1, "ps5"), (1, "vita")]), [id(20), id(21)].concat(), u48(1).to_vec());
    assert_eq!(run(&[short]).await, ["KK"]);
    let late = ("commit_late", Vec::new(), [id(20), id(21), id(20)].concat(), [id(120), id(121), id(120)].concat());
    let made = redis.now().await;
    eventually("they are due", async || (redis.now().await > made + 1).then_some(())).await;
    let back = ("rollback", Vec::new(), [id(20), id(21)].concat(), Vec::new());
    assert_eq!(run(&[late.clone(), back, late]).await, ["JJj", "YY", "jjj"]);
    assert_eq!(shop.counts("vita").await, (97, 0, 3));
    shop.audit().await;
}

#[tokio::test]
async fn what_is_malformed_is_refused_again_before_the_first_write() {
    let redis = Redis::start().await;
    let server = SentinelProcess::on(&redis).await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.hold("ps5", 1).await;
    let script = script_source();
    let epoch = epoch(&redis).await;
    let mut connection = redis.connection().await;
    let good = ("reserve", shape(&[(1, "ps5")]), vec![9; 16], u48(60_000).to_vec());
    // This call succeeds, so each refusal below has its own cause.
    let answer: Value = redis.query(&call(&script, epoch, std::slice::from_ref(&good))).await;
    assert!(matches!(answer, Value::Array(_)), "{answer:?}");
    assert_eq!(shop.counts("ps5").await, (8, 2, 0));

    let before = redis.digest("").await;
    let mut check = async |command: Cmd, code: &str, what: &str| {
        let error = command.query_async::<Value>(&mut connection).await.expect_err(what);
        assert_eq!(error.code(), Some(code), "{what}: {error}");
        assert!(redis.digest("").await == before, "{what}: something was written");
    };
    for group in malformed() {
        let what = format!("{group:?}");
        check(call(&script, epoch, std::slice::from_ref(&group)), "SENTINELMALFORMED", &what).await;
        // It also rejects a well-formed group before it.
        let other = (good.0, good.1.clone(), vec![8; 16], good.3.clone());
        check(call(&script, epoch, &[other, group]), "SENTINELMALFORMED", &what).await;
    }
    for epoch in ["nan", "-nan", "inf", "-1", "1.5", "0x10", "", "9007199254740993", "ps5"] {
        check(call(&script, epoch, std::slice::from_ref(&good)), "SENTINELCLOSED", epoch).await;
    }
    shop.audit().await;
}
