//! Attacks by answers and events that are requested and not read.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use inventory_sentinel::v1;
use prost::Message as _;
use tokio::time::sleep;

use super::bodies::CALLS_EACH;
use crate::abuse::{
    attacker::Attacker,
    frames::{self, DEFAULT_WINDOW},
    wire::Opening,
};

const LIST_STOCK: &str = "/inventory_sentinel.v1.InventoryAdmin/ListStock";
const WATCH: &str = "/inventory_sentinel.v1.InventoryEvents/Watch";
/// Lists that are not read.
const LISTS: usize = 20_000;
/// SKUs of one list, the most that a page has.
const PAGE: i32 = 1_000;
/// Connections with slow readers, calls of each, the bytes that each reads, and the pause before it reads again.
const SLOW_CONNECTIONS: usize = 16;
const SLOW_CALLS: usize = 64;
const SLOW_BYTES: u32 = 1;
const SLOW_PAUSE: Duration = Duration::from_secs(1);

fn list(attacker: &Attacker) -> Vec<u8> {
    let request =
        v1::ListStockRequest { namespace_id: attacker.namespace.clone(), page_size: PAGE, page_token: String::new() };
    frames::message(&request.encode_to_vec())
}

/// Long lists for which the attacker has no window.
pub(super) async fn unread_lists(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening { stream_window: 0, ..Opening::default() }).await?;
        let calls = CALLS_EACH.min(wire.max_streams().await? as usize);
        let (block, message, mut out) = (frames::call_block(LIST_STOCK), list(&attacker), Vec::new());
        for _ in 0..calls {
            attacker.call(&wire, &mut out, &block, Some((&message, true)));
        }
        Ok(wire.send(&out).await?)
    };
    attacker.crowd_and_hold(attacker.scaled(LISTS).div_ceil(CALLS_EACH), act).await
}

/// Long lists of which one byte is read per second.
pub(super) async fn slow_reader(attacker: Arc<Attacker>) -> Result<()> {
    let act = |attacker: Arc<Attacker>, _| async move {
        let wire = attacker.open(Opening { stream_window: SLOW_BYTES, ..Opening::default() }).await?;
        let calls = SLOW_CALLS.min(wire.max_streams().await? as usize);
        let (block, message, mut out) = (frames::call_block(LIST_STOCK), list(&attacker), Vec::new());
        let streams: Vec<u32> =
            (0..calls).map(|_| attacker.call(&wire, &mut out, &block, Some((&message, true)))).collect();
        loop {
            wire.send(&out).await?;
            sleep(SLOW_PAUSE).await;
            out.clear();
            streams.iter().for_each(|&stream| frames::window_update(&mut out, stream, SLOW_BYTES));
        }
    };
    attacker.crowd(attacker.scaled(SLOW_CONNECTIONS), act).await;
    Ok(())
}

/// Watchers of all events that read one window of them and no more.
pub(super) async fn stalled_watchers(attacker: Arc<Attacker>, watchers: usize) -> Result<()> {
    let watchers = attacker.scaled(watchers);
    let act = move |attacker: Arc<Attacker>, member: usize| async move {
        let opening =
            Opening { stream_window: DEFAULT_WINDOW, connection_window: DEFAULT_WINDOW, ..Opening::default() };
        let wire = attacker.open(opening).await?;
        let limit = CALLS_EACH.min(wire.max_streams().await? as usize);
        let request =
            v1::WatchRequest { namespace_id: attacker.namespace.clone(), from_oldest: true, ..Default::default() };
        let (block, message, mut out) =
            (frames::call_block(WATCH), frames::message(&request.encode_to_vec()), Vec::new());
        for _ in 0..limit.min(watchers.saturating_sub(member * CALLS_EACH)) {
            attacker.call(&wire, &mut out, &block, Some((&message, true)));
        }
        Ok(wire.send(&out).await?)
    };
    attacker.crowd_and_hold(watchers.div_ceil(CALLS_EACH), act).await
}
