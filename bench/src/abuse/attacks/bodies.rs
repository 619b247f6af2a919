//! Attacks by messages: promised and not sent, never ended, slow, or far larger once they are decoded.

use std::{io::Write as _, sync::Arc, time::Duration};

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use inventory_sentinel::v1;
use prost::Message as _;
use tokio::time::sleep;

use crate::abuse::{
    attacker::Attacker,
    frames::{self, MAX_PAYLOAD, flag, kind},
    wire::{Opening, Wire},
};

/// Methods that are attacked.
pub(super) const RESERVE: &str = "/inventory_sentinel.v1.InventorySentinel/Reserve";
pub(super) const BATCH: &str = "/inventory_sentinel.v1.InventorySentinel/Batch";
pub(super) const GET_STOCK: &str = "/inventory_sentinel.v1.InventorySentinel/GetStock";

pub(super) const MIB: usize = 1 << 20;
/// Bytes of a message that a server with default limits accepts.
const LONG_MESSAGE: usize = 1_048_000;
/// Bytes of it that are sent where it is never ended.
const SENT_BODY: usize = 1_000_000;
/// Calls of one connection, and of many.
const CALLS: usize = 2_000;
const CALLS_OF_MANY: usize = 47_500;
const UNENDED_CALLS: usize = 1_000;
/// Calls of each connection where there are many connections.
pub(super) const CALLS_EACH: usize = 256;
/// Calls that are refused: at once on each connection, and connections.
const REFUSED_AT_ONCE: usize = 128;
const REFUSED_CONNECTIONS: usize = 64;
/// Bytes that a bomb unpacks to, and how many of them are sent at once on each connection.
const BOMB_BYTES: usize = 12 * MIB;
const BOMBS_AT_ONCE: usize = 8;
/// Connections that fill their windows: as many as a server has by default.
const CONNECTIONS: usize = 1_024;
/// Connections and calls of slow bodies, and the pause between two bytes of each.
const SLOW_CONNECTIONS: usize = 16;
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Messages that are large once they are decoded: at once on each connection, and connections.
const AMPLIFIED_CALLS: usize = 64;
const AMPLIFIED_CONNECTIONS: usize = 4;
/// Levels of groups in one another.
const LEVELS: usize = 90;

/// Headers, a prefix that promises a long message, and one byte of it.
fn promise(attacker: &Attacker, wire: &Wire, out: &mut Vec<u8>, block: &[u8]) {
    let start = [&frames::prefix(LONG_MESSAGE)[..], &[0]].concat();
    attacker.call(wire, out, block, Some((&start, false)));
}

async fn promise_calls(attacker: &Attacker, wire: &Wire, calls: usize) -> Result<()> {
    let block = frames::call_block(RESERVE);
    let mut out = Vec::new();
    for _ in 0..calls {
        promise(attacker, wire, &mut out, &block);
    }
    Ok(wire.send(&out).await?)
}

/// One connection, as many calls as it may have.
pub(super) async fn promised(attacker: Arc<Attacker>) -> Result<()> {
    let wire = attacker.open(Opening::default()).await?;
    let calls = attacker.scaled(CALLS).min(wire.max_streams().await? as usize);
    promise_calls(&attacker, &wire, calls).await?;
    attacker.hold().await;
    Ok(())
}

/// One connection, more calls than it may have.
pub(super) async fn promised_over_limit(attacker: Arc<Attacker>) -> Result<()> {
    let wire = attacker.open(Opening::default()).await?;
    let limit = wire.max_streams().await? as usize;
    promise_calls(&attacker, &wire, attacker.scaled(CALLS).max(limit.saturating_mul(2).min(CALLS_OF_MANY))).await?;
    attacker.hold().await;
    Ok(())
}

/// Many connections, each with as many calls as it may have.
pub(super) async fn promised_by_many(attacker: Arc<Attacker>) -> Result<()> {
    let connections = attacker.scaled(CALLS_OF_MANY).div_ceil(CALLS_EACH);
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening::default()).await?;
        let calls = CALLS_EACH.min(wire.max_streams().await? as usize);
        promise_calls(&attacker, &wire, calls).await
    };
    attacker.crowd_and_hold(connections, act).await
}

/// Calls that are refused for the length of their messages, without a pause, on connections that had an honest
/// answer before.
pub(super) async fn refused(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening::default()).await?;
        get_an_answer(&attacker, &wire).await?;
        while !attacker.is_over() {
            let ended = wire.seen().ended;
            promise_calls(&attacker, &wire, REFUSED_AT_ONCE).await?;
            wire.wait_for_ended(ended + REFUSED_AT_ONCE as u64).await?;
        }
        Ok(())
    };
    attacker.crowd_and_hold(attacker.scaled(REFUSED_CONNECTIONS), act).await
}

/// Batches of a few KiB that unpack to far more than a request may have, without a pause, on connections that had an
/// honest answer before.
pub(super) async fn gzip_bombs(attacker: Arc<Attacker>) -> Result<()> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; BOMB_BYTES])?;
    let mut bomb = frames::message(&encoder.finish()?);
    // The flag of a message that is packed.
    bomb[0] = 1;
    let bomb: Arc<[u8]> = bomb.into();
    let act = move |attacker: Arc<Attacker>, _| {
        let bomb = Arc::clone(&bomb);
        async move {
            let wire = attacker.open(Opening::default()).await?;
            get_an_answer(&attacker, &wire).await?;
            let mut block = frames::call_block(BATCH);
            frames::literal(&mut block, b"grpc-encoding", b"gzip");
            while !attacker.is_over() {
                let ended = wire.seen().ended;
                let mut out = Vec::new();
                for _ in 0..BOMBS_AT_ONCE {
                    attacker.call(&wire, &mut out, &block, Some((&bomb, true)));
                }
                wire.send(&out).await?;
                wire.wait_for_ended(ended + BOMBS_AT_ONCE as u64).await?;
            }
            Ok(())
        }
    };
    attacker.crowd_and_hold(attacker.scaled(REFUSED_CONNECTIONS), act).await
}

/// One call as an honest client makes it.
pub(super) async fn get_an_answer(attacker: &Attacker, wire: &Wire) -> Result<()> {
    let request = v1::GetStockRequest { namespace_id: attacker.namespace.clone(), sku: "sku-0".into() };
    let message = frames::message(&request.encode_to_vec());
    let mut out = Vec::new();
    attacker.call(wire, &mut out, &frames::call_block(GET_STOCK), Some((&message, true)));
    wire.send(&out).await?;
    Ok(wire.wait_for_ended(1).await?)
}

/// Long messages of which all but the end is sent, as fast as the server's windows let them be.
pub(super) async fn unended(attacker: Arc<Attacker>, path: &'static str) -> Result<()> {
    let act = move |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening::default()).await?;
        let calls = CALLS_EACH.min(wire.max_streams().await? as usize);
        send_unended(&attacker, &wire, path, calls).await
    };
    attacker.crowd_and_hold(attacker.scaled(UNENDED_CALLS).div_ceil(CALLS_EACH), act).await
}

async fn send_unended(attacker: &Attacker, wire: &Wire, path: &str, calls: usize) -> Result<()> {
    let block = frames::call_block(path);
    let mut out = Vec::new();
    // The prefix, and then zeros.
    let mut left: Vec<(u32, usize)> =
        (0..calls).map(|_| (attacker.call(wire, &mut out, &block, None), SENT_BODY)).collect();
    wire.send(&out).await?;
    let start = [&frames::prefix(LONG_MESSAGE)[..], &[0; MAX_PAYLOAD - 5]].concat();
    let zeros = [0; MAX_PAYLOAD];
    while !left.is_empty() && !attacker.is_over() {
        let mut has_sent = false;
        for (stream, left) in &mut left {
            let payload = if *left == SENT_BODY { &start[..] } else { &zeros[..] };
            let bytes = wire.take_window(*stream, payload.len().min(*left));
            if bytes > 0 {
                out.clear();
                frames::frame(&mut out, kind::DATA, flag::NONE, *stream, &payload[..bytes]);
                wire.send(&out).await?;
                *left -= bytes;
                has_sent = true;
            }
        }
        left.retain(|&(_, left)| left > 0);
        if !has_sent {
            wire.wait_for_news().await?;
        }
    }
    Ok(())
}

/// As many connections as there may be, each with the data of its whole window, and nothing is read.
pub(super) async fn full_windows(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening::default()).await?;
        let calls = CALLS_EACH.min(wire.max_streams().await? as usize);
        wire.stop_reading();
        let block = frames::call_block(RESERVE);
        let mut out = Vec::new();
        let streams: Vec<u32> = (0..calls).map(|_| attacker.call(&wire, &mut out, &block, None)).collect();
        wire.send(&out).await?;
        let start = [&frames::prefix(LONG_MESSAGE)[..], &[0; MAX_PAYLOAD - 5]].concat();
        let zeros = [0; MAX_PAYLOAD];
        for round in 0.. {
            let mut has_sent = false;
            for &stream in &streams {
                let payload = if round == 0 { &start[..] } else { &zeros[..] };
                let bytes = wire.take_window(stream, payload.len());
                if bytes > 0 {
                    out.clear();
                    frames::frame(&mut out, kind::DATA, flag::NONE, stream, &payload[..bytes]);
                    wire.send(&out).await?;
                    has_sent = true;
                }
            }
            if !has_sent {
                break;
            }
        }
        Ok(())
    };
    attacker.crowd_and_hold(attacker.scaled(CONNECTIONS), act).await
}

/// Bodies of one byte per second.
pub(super) async fn slow(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening::default()).await?;
        let calls = CALLS_EACH.min(wire.max_streams().await? as usize);
        let (block, mut out) = (frames::call_block(RESERVE), Vec::new());
        let streams: Vec<u32> = (0..calls)
            .map(|_| attacker.call(&wire, &mut out, &block, Some((&frames::prefix(LONG_MESSAGE), false))))
            .collect();
        loop {
            wire.send(&out).await?;
            sleep(SLOW_PAUSE).await;
            out.clear();
            for &stream in &streams {
                frames::frame(&mut out, kind::DATA, flag::NONE, stream, &[0]);
            }
        }
    };
    attacker.crowd(attacker.scaled(SLOW_CONNECTIONS), act).await;
    Ok(())
}

/// Operations without content in a Batch: two bytes each.
pub(super) async fn empty_operations(attacker: Arc<Attacker>, bytes: usize) -> Result<()> {
    amplified(attacker, BATCH, [0x0a, 0].repeat((bytes - 64) / 2)).await
}

/// Lines without content in a Reserve.
pub(super) async fn empty_lines(attacker: Arc<Attacker>) -> Result<()> {
    amplified(attacker, RESERVE, [0x1a, 0].repeat((MIB - 64) / 2)).await
}

/// Numbers under a field that is not known.
pub(super) async fn unknown_fields(attacker: Arc<Attacker>) -> Result<()> {
    amplified(attacker, RESERVE, [0x78, 1].repeat((MIB - 64) / 2)).await
}

/// Groups in groups under a field that is not known.
pub(super) async fn nested_fields(attacker: Arc<Attacker>) -> Result<()> {
    let tower = [[0x7b; LEVELS], [0x7c; LEVELS]].concat();
    amplified(attacker, RESERVE, tower.repeat((MIB - 64) / tower.len())).await
}

/// Whole calls with this body, again and again, as the server's windows let them be.
async fn amplified(attacker: Arc<Attacker>, path: &'static str, body: Vec<u8>) -> Result<()> {
    let message: Arc<[u8]> = frames::message(&body).into();
    let act = move |attacker: Arc<Attacker>, _| {
        let message = Arc::clone(&message);
        async move {
            let wire = attacker.open(Opening::default()).await?;
            let calls = attacker.scaled(AMPLIFIED_CALLS).min(wire.max_streams().await? as usize);
            let (block, mut out) = (frames::call_block(path), Vec::new());
            while !attacker.is_over() {
                out.clear();
                let streams: Vec<u32> = (0..calls).map(|_| attacker.call(&wire, &mut out, &block, None)).collect();
                wire.send(&out).await?;
                send_whole(&attacker, &wire, &streams, &message).await?;
            }
            Ok(())
        }
    };
    attacker.crowd_and_hold(attacker.scaled(AMPLIFIED_CONNECTIONS), act).await
}

/// Sends a message on each of these streams, and its end.
async fn send_whole(attacker: &Attacker, wire: &Wire, streams: &[u32], message: &[u8]) -> Result<()> {
    let mut left: Vec<(u32, usize)> = streams.iter().map(|&stream| (stream, 0)).collect();
    let mut out = Vec::new();
    let mut idle_rounds = 0;
    while !left.is_empty() && !attacker.is_over() {
        let mut has_sent = false;
        for (stream, sent) in &mut left {
            let bytes = wire.take_window(*stream, MAX_PAYLOAD.min(message.len() - *sent));
            if bytes > 0 {
                out.clear();
                let end = *sent + bytes;
                let flags = if end == message.len() { flag::END_STREAM } else { flag::NONE };
                frames::frame(&mut out, kind::DATA, flags, *stream, &message[*sent..end]);
                wire.send(&out).await?;
                *sent = end;
                has_sent = true;
            }
        }
        left.retain(|&(_, sent)| sent < message.len());
        if has_sent {
            idle_rounds = 0;
        } else {
            wire.wait_for_news().await?;
            idle_rounds += 1;
            // The server has refused what is left: it grants no more.
            if idle_rounds > MOST_IDLE_ROUNDS {
                break;
            }
        }
    }
    Ok(())
}

/// Times that a call may find no window before it is given up.
const MOST_IDLE_ROUNDS: usize = 20;
