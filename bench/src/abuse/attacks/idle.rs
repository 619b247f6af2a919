//! Attacks by connections and streams that do nothing or little, and by many connections at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::time::{sleep, timeout, timeout_at};

use super::bodies::{CALLS_EACH, RESERVE};
use crate::abuse::{
    attacker::Attacker,
    frames::{self, PREFACE, flag, kind},
    wire::{Opening, Wire},
};

/// Streams that do nothing.
const STREAMS: usize = 20_000;
/// Connections that do nothing.
const CONNECTIONS: usize = 5_000;
/// Connections that are opened at the same moment.
const CONNECTS: usize = 3_000;
/// A connect that takes so long has been repeated by the operating system: the server's queue was full.
const STALL: Duration = Duration::from_secs(1);
/// Connections with slow headers, and the pause between two bytes of each.
const SLOW_CONNECTIONS: usize = 200;
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Connections to a server that may have far fewer open files.
const CONNECTIONS_OF_FEW: usize = 300;
/// Longest wait for a new connection after an attack.
const RECOVERY: Duration = Duration::from_secs(10);
/// Pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Frames are written in parts or not at all: an acknowledgement must not come between them.
fn in_parts() -> Opening {
    Opening { acknowledges: false, ..Opening::default() }
}

/// A HEADERS frame of which one byte is sent per second.
pub(super) async fn slow_header(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(in_parts()).await?;
        let mut out = Vec::new();
        attacker.call(&wire, &mut out, &frames::call_block(RESERVE), None);
        for byte in out {
            wire.send(&[byte]).await?;
            sleep(SLOW_PAUSE).await;
        }
        Ok(())
    };
    attacker.crowd_and_hold(attacker.scaled(SLOW_CONNECTIONS), act).await
}

/// A header block that is never ended.
pub(super) async fn unfinished_header(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(in_parts()).await?;
        let mut out = Vec::new();
        frames::frame(&mut out, kind::HEADERS, flag::NONE, wire.new_stream(), &frames::call_block(RESERVE));
        Ok(wire.send(&out).await?)
    };
    attacker.crowd_and_hold(attacker.scaled(SLOW_CONNECTIONS), act).await
}

/// Streams of which only the headers are sent.
pub(super) async fn streams(attacker: Arc<Attacker>) -> Result<()> {
    open_streams(attacker, RESERVE, None).await
}

/// Streams of the health service.
pub(super) async fn health_watches(attacker: Arc<Attacker>) -> Result<()> {
    open_streams(attacker, HEALTH_WATCH, Some((Vec::new(), true))).await
}

/// Streams of the reflection service, each with one question.
pub(super) async fn reflection(attacker: Arc<Attacker>) -> Result<()> {
    // Field 7 of the request, `list_services`.
    open_streams(attacker, REFLECTION, Some((vec![0x3a, 1, b'*'], false))).await
}

/// Opens many streams with this message, on as many connections as they need.
async fn open_streams(attacker: Arc<Attacker>, path: &'static str, body: Option<(Vec<u8>, bool)>) -> Result<()> {
    let act = move |attacker: Arc<Attacker>, _| {
        let message = body.as_ref().map(|(body, is_last)| (frames::message(body), *is_last));
        async move {
            let wire = attacker.open(Opening::default()).await?;
            let calls = CALLS_EACH.min(wire.max_streams().await? as usize);
            let (block, mut out) = (frames::call_block(path), Vec::new());
            for _ in 0..calls {
                attacker.call(&wire, &mut out, &block, message.as_ref().map(|(message, last)| (&message[..], *last)));
            }
            Ok(wire.send(&out).await?)
        }
    };
    attacker.crowd_and_hold(attacker.scaled(STREAMS).div_ceil(CALLS_EACH), act).await
}

/// How a connection begins that then does nothing.
#[derive(Clone, Copy)]
pub(super) enum Hello {
    Nothing,
    /// The preface without SETTINGS.
    Preface,
    HalfPreface,
}

/// Connections that send no call.
pub(super) async fn connections(attacker: Arc<Attacker>, hello: Hello) -> Result<()> {
    let act = move |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.connect(attacker.target.grpc, in_parts()).await?;
        let bytes = match hello {
            Hello::Nothing => &[],
            Hello::Preface => PREFACE,
            Hello::HalfPreface => &PREFACE[..PREFACE.len() / 2],
        };
        Ok(wire.send(bytes).await?)
    };
    attacker.crowd_and_hold(attacker.scaled(CONNECTIONS), act).await
}

/// Many connections at the same moment: none may fail or wait for a repeated SYN.
pub(super) async fn connects(attacker: Arc<Attacker>) -> Result<()> {
    let connects = attacker.scaled(CONNECTS);
    let (slowest, stalled, failed) = connect_at_once(&attacker, connects).await;
    attacker.remark(format!("slowest connect {} ms, {stalled} stalled", slowest.as_millis()));
    attacker.demand(stalled == 0, || format!("{stalled} connects took {STALL:?} or longer"));
    attacker.demand(failed == 0, || format!("{failed} connects failed"));
    attacker.hold().await;
    Ok(())
}

/// Opens connections without a pause, until the end of the attack. Returns the longest time of a connect, and how many
/// stalled or failed.
async fn connect_at_once(attacker: &Arc<Attacker>, connects: usize) -> (Duration, usize, usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connects {
        let address = attacker.target.grpc;
        tasks.spawn(async move {
            let start = Instant::now();
            (Wire::connect(address, in_parts(), None).await, start.elapsed())
        });
    }
    let (mut slowest, mut stalled, mut failed) = (Duration::ZERO, 0, 0);
    let end = attacker.until.into();
    while let Ok(Some(connected)) = timeout_at(end, tasks.join_next()).await {
        let Ok((wire, took)) = connected else { continue };
        slowest = slowest.max(took);
        stalled += usize::from(took >= STALL);
        failed += usize::from(attacker.keep(wire).is_err());
    }
    for _ in 0..tasks.len() {
        failed += usize::from(attacker.keep(Err(std::io::ErrorKind::TimedOut.into())).is_err());
    }
    (slowest, stalled, failed)
}

/// More connections than the server may have open files. It must accept again once they have gone.
pub(super) async fn descriptors(attacker: Arc<Attacker>) -> Result<()> {
    connect_at_once(&attacker, CONNECTIONS_OF_FEW).await;
    attacker.hold().await;
    let outcome = attacker.finish();
    attacker.remark(format!("{}: {}", outcome.did, outcome.fate));
    let recovered = timeout(RECOVERY, async {
        loop {
            if settings_of_new_connection(&attacker).await.is_ok() {
                return;
            }
            sleep(RETRY_PAUSE).await;
        }
    });
    let start = Instant::now();
    let has_recovered = recovered.await.is_ok();
    attacker.remark(format!("a new connection {} ms later", start.elapsed().as_millis()));
    attacker.demand(has_recovered, || format!("no new connection within {RECOVERY:?} after the attack"));
    Ok(())
}

async fn settings_of_new_connection(attacker: &Attacker) -> Result<u32> {
    Ok(attacker.open(Opening::default()).await?.max_streams().await?)
}
