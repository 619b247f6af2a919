//! The cost of size: the rows and figures of the full run. A million SKUs, a million holds, all of them due in the same
//! second, the bytes of each, a million events to drain; and the server's memory over minutes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use deadpool_redis::redis::{self, aio::MultiplexedConnection};
use hdrhistogram::Histogram;
use inventory_sentinel::v1::{self, inventory_events_client::InventoryEventsClient};

use crate::{
    clients::Unary,
    fixture::{Shop, TTL},
    load,
    process::Server,
    stats::{Latency, Spread},
};

pub(crate) const MILLION: usize = 1_000_000;
/// How finely ttls are set so that holds fall due together: within this they do.
const TOGETHER: u64 = 500;
/// From the filling to the instant at which all that it made is due.
const UNTIL_DUE: Duration = Duration::from_secs(60);
/// How long load runs before that instant, and how long it may go on behind it.
const CALM: Duration = Duration::from_secs(8);
const STORM_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two reads of the due holds.
const LOOK: Duration = Duration::from_millis(50);
/// Calls per second while memory is watched, and all of them together: a namespace has room for ten million records.
const LONG_RATE: f64 = 10_000.0;
const LONG_RECORDS: f64 = 9_000_000.0;
/// How often memory is read in each tenth of that time.
const SAMPLES: u32 = 25;
/// Bytes of one message of events, which are more than other answers are.
const MAX_EVENTS_BYTES: usize = 16 << 20;

/// A shop that has been filled before the rows take turns.
pub(crate) async fn shop_with_skus(server: &Server, skus: usize) -> Result<Shop> {
    let shop = Shop::new(format!("skus-{skus}"), skus, true);
    shop.open(server).await?;
    Ok(shop)
}

/// The same with holds of one SKU that outlive the lab.
pub(crate) async fn shop_with_holds(server: &Server, name: &str, holds: usize) -> Result<Shop> {
    let shop = Shop::new(name, 1, true);
    shop.open(server).await?;
    shop.hold(server, &shop.skus[0], holds, |_| TTL).await?;
    Ok(shop)
}

fn redis_of(server: &Server) -> Result<MultiplexedConnection> {
    Ok(server.redis().context("the server has a Redis")?.connection())
}

/// Bytes of Redis's memory for each hold of a shop: its record and its place in the deadline index.
pub(crate) async fn bytes_per_hold(server: &Server, shop: &Shop) -> Result<f64> {
    let mut redis = redis_of(server)?;
    let mut bytes = 0.0;
    for key in [shop.records(), shop.keys().deadlines().to_owned()] {
        bytes +=
            redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query_async::<f64>(&mut redis).await?;
    }
    let holds: f64 = redis::cmd("HLEN").arg(shop.records()).query_async(&mut redis).await?;
    Ok(bytes / holds)
}

/// The effect on others of a million holds that fall due at once.
#[derive(Debug)]
pub(crate) struct Storm {
    pub(crate) before: Latency,
    pub(crate) during: Latency,
    /// Until the last was given back.
    pub(crate) length: Duration,
}

/// Others reserve at a rate, open loop, while a million holds fall due.
pub(crate) async fn storm(server: &Server, round: usize, rate: f64) -> Result<Storm> {
    let shop = Shop::new(format!("storm-{round}"), 1, true);
    shop.open(server).await?;
    let all_due = Instant::now() + UNTIL_DUE;
    let ttl = move |now: Instant| {
        let left = all_due.saturating_duration_since(now).as_millis() as u64;
        Duration::from_millis((left / TOGETHER).max(1) * TOGETHER)
    };
    shop.hold(server, &shop.skus[0], MILLION, ttl).await?;
    let calm = (all_due - CALM).checked_duration_since(Instant::now()).context("the filling took too long")?;
    tokio::time::sleep(calm).await;

    let mut redis = redis_of(server)?;
    let deadlines = shop.keys().deadlines().to_owned();
    let (end, ended) = tokio::sync::watch::channel(None);
    let start = Instant::now();
    let looker = async move {
        tokio::time::sleep_until(all_due.into()).await;
        loop {
            let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await?;
            let due: u64 = redis::cmd("ZCOUNT")
                .arg(&deadlines)
                .arg("-inf")
                .arg(seconds * 1000 + micros / 1000)
                .query_async(&mut redis)
                .await?;
            if due == 0 || start.elapsed() > CALM + STORM_LIMIT {
                end.send_replace(Some(start.elapsed()));
                return anyhow::Ok(due);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let callers = Unary::callers(server, &shop, crate::workloads::TURNS, true).await?;
    let is_over = ended.clone();
    let answers = load::open(callers, rate, move |_| is_over.borrow().is_none());
    let (answers, left) = tokio::try_join!(answers, looker)?;
    ensure!(left == 0, "not all holds were given back within {STORM_LIMIT:?}");
    let over = ended.borrow().context("it is over")?;

    // Deadlines lie in the last moments before the instant.
    let first_due = CALM - Duration::from_millis(TOGETHER);
    let latency = |range: std::ops::Range<Duration>| -> Result<Latency> {
        let mut histogram = Histogram::new(3)?;
        for answer in answers.iter().filter(|answer| range.contains(&answer.due)) {
            histogram.record(answer.latency.as_micros() as u64)?;
        }
        Ok(Latency::from(&histogram))
    };
    // The first second is that of new connections.
    let before = latency(Duration::from_secs(1)..first_due)?;
    Ok(Storm { before, during: latency(first_due..over)?, length: over.saturating_sub(first_due) })
}

/// Events per second of a reader who begins with the oldest of a shop's events.
pub(crate) async fn drain(server: &Server, shop: &Shop) -> Result<f64> {
    let mut client = InventoryEventsClient::new(server.connect().await?).max_decoding_message_size(MAX_EVENTS_BYTES);
    let request = v1::WatchRequest { namespace_id: shop.namespace.clone(), from_oldest: true, ..Default::default() };
    let start = Instant::now();
    let mut stream = client.watch(request).await?.into_inner();
    let mut events = 0;
    while let Some(message) = stream.message().await? {
        if message.events.is_empty() {
            break;
        }
        events += message.events.len();
    }
    ensure!(events >= MILLION * 9 / 10, "only {events} events were received");
    Ok(events as f64 / start.elapsed().as_secs_f64())
}

/// The server's memory in the last tenth of so long under load, over that in the second: the medians of samples, as a
/// moment in which the host takes the machine away shows in one.
pub(crate) async fn memory_growth(server: &Server, length: Duration) -> Result<f64> {
    let shop = Shop::new("memory", 1, true);
    shop.open(server).await?;
    let callers = Unary::callers(server, &shop, crate::workloads::TURNS, true).await?;
    let rate = LONG_RATE.min(LONG_RECORDS / length.as_secs_f64());
    let watched = async {
        let mut samples = Vec::new();
        for _ in 0..10 * SAMPLES {
            tokio::time::sleep(length / (10 * SAMPLES)).await;
            samples.push(server.memory()? as f64);
        }
        Ok(samples)
    };
    let (samples, _) = tokio::try_join!(watched, load::open(callers, rate, move |due| due < length))?;
    let mut tenths = samples.chunks(SAMPLES as usize).filter_map(|tenth| Spread::of(tenth.to_vec()));
    let early = tenths.nth(1).context("there was a second tenth")?.median;
    let late = tenths.next_back().context("there was a last tenth")?.median;
    Ok(late / early)
}
