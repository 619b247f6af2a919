//! `sentinelctl watch` and `sentinelctl events tail`.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use sentinel_tests::{BOUND, Ctl, Redis, SentinelProcess, TcpForwarder};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use super::ctl;

/// A running command, and the lines that it prints.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(server: &SentinelProcess, arguments: &[&str]) -> Running {
        Running::of(&Ctl::new(["-n", "sale"].iter().chain(arguments).copied()).at(server.grpc()))
    }

    fn of(ctl: &Ctl) -> Running {
        let mut child = ctl.start();
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Running { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(BOUND, self.lines.next_line()).await.expect("a line in time").expect("a line");
        line.expect("a line")
    }

    async fn object(&mut self) -> Value {
        serde_json::from_str(&self.line().await).expect("an object")
    }

    /// Sends SIGINT, as Ctrl-C does; returns the exit code.
    async fn interrupt(mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id().expect("it runs") as i32).expect("a process");
        rustix::process::kill_process(pid, Signal::INT).expect("a signal");
        timeout(BOUND, self.child.wait()).await.expect("its end in time").expect("its end").code()
    }
}

#[tokio::test]
async fn watch_shows_each_change_until_ctrl_c() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    shop.supply("pad", 5).await;
    let mut watch = Running::start(&server, &["watch", "ps5", "--interval", "10ms"]);
    let first = watch.object().await;
    assert_eq!((&first["sku"], &first["stock"]["available"]), (&"ps5".into(), &10.into()));
    shop.hold("ps5", 3).await;
    let second = watch.object().await;
    assert_eq!((&second["stock"]["available"], &second["stock"]["held"]), (&7.into(), &3.into()));
    assert_eq!(watch.interrupt().await, Some(0));

    let mut table = Running::start(&server, &["watch", "--table"]);
    assert!(table.line().await.starts_with("SKU  AVAILABLE"));
    assert!(table.line().await.starts_with("pad          5"));
    assert!(table.line().await.starts_with("ps5          7"));
    assert_eq!(table.interrupt().await, Some(0));
    ctl(&server, &["watch", "--for", "100ms"]).await.ends(0);
}

#[tokio::test]
async fn a_deleted_sku_is_watched_to_its_end() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let mut watch = Running::start(&server, &["watch", "--interval", "10ms"]);
    assert_eq!(watch.object().await["stock"]["available"], 10);
    shop.delete_sku("ps5").await.expect("deleted");
    assert_eq!(watch.object().await, serde_json::json!({"sku": "ps5", "stock": null}));
    assert_eq!(watch.interrupt().await, Some(0));
}

#[tokio::test]
async fn the_feed_goes_on_where_it_ended() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 10).await;
    let held = shop.hold("ps5", 3).await;
    let oldest = ctl(&server, &["events", "tail", "--from-oldest", "--until-now"]).await.ends(0);
    let events = oldest.objects();
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["STOCK_SET", "RESERVED"]);
    assert_eq!((&events[0]["sku"], &events[0]["delta"]), (&"ps5".into(), &10.into()));
    assert_eq!(events[1]["lines"], serde_json::json!([{"sku": "ps5", "quantity": 3}]));
    let token = events[1]["resume_token"].as_str().expect("a token behind the last event").to_owned();
    assert_eq!(oldest.err, format!("note: continue after these events with --resume {token}\n"));

    let mut tail = Running::start(&server, &["events", "tail", "--resume", &token]);
    shop.commit(&held.reservation_id).await.expect("sold");
    let next = tail.object().await;
    assert_eq!(
        (&next["kind"], &next["state"], &next["sequence"]),
        (&"COMMITTED".into(), &"COMMITTED".into(), &3.into())
    );
    assert_eq!(tail.interrupt().await, Some(0));

    let table = ctl(&server, &["events", "tail", "--from-oldest", "--until-now", "--table"]).await.ends(0).out;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("OCCURRED AT") && lines[1].ends_with("+10 x ps5"), "{table}");
    assert!(lines[2].contains(&held.reservation_id) && lines[2].ends_with("3 x ps5"), "{table}");

    let forged = ctl(&server, &["events", "tail", "--resume", "forged"]).await.ends(65);
    assert!(forged.err.contains("(INVALID_RESUME_TOKEN)"), "{forged:?}");
    ctl(&server, &["events", "tail", "--resume", ""]).await.ends(64);
}

/// A server that is replaced during a sale must not end the screens that show it.
#[tokio::test]
async fn streams_go_on_over_a_restart() {
    let redis = Redis::start().await;
    let mut server = SentinelProcess::on(&redis).await;
    server.shop("sale").supply("ps5", 10).await;
    server.shop("sale").supply("pad", 10).await;
    let door = TcpForwarder::open(server.grpc()).await;
    let uri = door.uri();
    let start = |arguments: &[&str]| {
        let all = ["-n", "sale", "--server", &uri].into_iter().chain(arguments.iter().copied());
        Running::of(&Ctl::new(all))
    };
    let mut watch = start(&["watch", "--interval", "10ms"]);
    let mut tail = start(&["events", "tail", "--from-oldest"]);
    for _ in 0..2 {
        watch.object().await;
        assert_eq!(tail.object().await["kind"], "STOCK_SET");
    }
    server.kill9();
    let mut note = String::new();
    let mut errors = BufReader::new(watch.child.stderr.take().expect("a pipe"));
    timeout(BOUND, errors.read_line(&mut note)).await.expect("a note in time").expect("a note");
    assert!(note.starts_with("note: the stream broke"), "{note}");
    server.restart().await;
    server.shop("sale").delete_sku("pad").await.expect("deleted");
    door.lead_to(server.grpc());
    assert_eq!(watch.object().await, serde_json::json!({"sku": "pad", "stock": null}), "and nothing that is as it was");
    assert_eq!(tail.object().await["kind"], "SKU_DELETED");
    assert_eq!((watch.interrupt().await, tail.interrupt().await), (Some(0), Some(0)));
}

/// As `sentinelctl stock list | head -1` does.
#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let server = SentinelProcess::start().await;
    let shop = server.shop("sale");
    shop.supply("ps5", 1_000).await;
    let mut child = Ctl::new(["-n", "sale", "watch", "--interval", "10ms"]).at(server.grpc()).start();
    drop(child.stdout.take());
    let ended = timeout(BOUND, async {
        loop {
            shop.hold("ps5", 1).await;
            if let Ok(ended) = timeout(Duration::from_millis(20), child.wait()).await {
                return ended.expect("its end");
            }
        }
    });
    assert_eq!(ended.await.expect("its end in time").code(), Some(0));
    let mut printed = String::new();
    let mut error = child.stderr.take().expect("a pipe");
    tokio::io::AsyncReadExt::read_to_string(&mut error, &mut printed).await.expect("its standard error");
    assert_eq!(printed, "", "no message");
}
