//! The honest caller beside an attack: some hundred calls per second on connections and a separate thread. Counts every
//! failure; repeats nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use inventory_sentinel::v1::{
    self, EventKind, inventory_admin_client::InventoryAdminClient, inventory_events_client::InventoryEventsClient,
    inventory_sentinel_client::InventorySentinelClient, reserve_response::Result as Outcome,
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use crate::{credentials::Bearer, fixture::Shop, process::Server};

/// Calls per second.
const RATE: f64 = 300.0;
/// Longest time of a call.
const DEADLINE: Duration = Duration::from_secs(5);
/// Connections, which take turns.
const CONNECTIONS: usize = 2;
/// Longest wait for the events of the last calls.
const EVENTS_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two checks for them.
const CHECK: Duration = Duration::from_millis(20);

/// Callers of the warm-up, the connections that they share, and how long they call.
const WARM_CALLERS: usize = 2_048;
const WARM_CONNECTIONS: usize = 16;
const WARM_UP: Duration = Duration::from_secs(1);
/// Connections of clients that call once and go, and operations of the Batch that each sends.
const WARM_VISITORS: usize = 64;
const WARM_BATCH: usize = 256;
/// Operators that list the stock meanwhile.
const WARM_LISTERS: usize = 8;

/// The way to the server: its address, and the header that it accepts.
#[derive(Clone, Debug)]
pub(super) struct Access {
    endpoint: Endpoint,
    bearer: Bearer,
}

impl Access {
    pub(super) fn to(server: &Server) -> Result<Self> {
        Ok(Self { endpoint: server.endpoint()?, bearer: server.bearer()? })
    }

    async fn connect(&self) -> Result<Channel> {
        Ok(self.endpoint.connect().await?)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        self.bearer.request(message)
    }
}

/// Calls the server as the first second of a sale would, so that what is measured as calm is a server that has worked.
pub(super) async fn warm_up(access: &Access, shop: &Shop) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..WARM_CONNECTIONS {
        clients.push(InventorySentinelClient::new(access.connect().await?));
    }
    let reserve = |sku: &String| v1::ReserveRequest {
        namespace_id: shop.namespace.clone(),
        request_id: uuid::Uuid::now_v7().to_string(),
        lines: vec![v1::Line { sku: sku.clone(), quantity: 1 }],
        ..Default::default()
    };
    let end = Instant::now() + WARM_UP;
    let mut callers: JoinSet<Result<(), Status>> = JoinSet::new();
    for caller in 0..WARM_CALLERS {
        let mut client = clients[caller % WARM_CONNECTIONS].clone();
        let request = reserve(&shop.skus[caller % shop.skus.len()]);
        let access = access.clone();
        callers.spawn(async move {
            while Instant::now() < end {
                let request = v1::ReserveRequest { request_id: uuid::Uuid::now_v7().to_string(), ..request.clone() };
                let namespace_id = request.namespace_id.clone();
                if let Some(Outcome::Reservation(held)) =
                    client.reserve(access.request(request)).await?.into_inner().result
                {
                    let rollback =
                        v1::RollbackRequest { namespace_id, reservation_id: held.reservation_id, ..Default::default() };
                    client.rollback(access.request(rollback)).await?;
                }
            }
            Ok(())
        });
    }
    for _ in 0..WARM_LISTERS {
        let mut client = InventoryAdminClient::new(access.connect().await?);
        let (access, namespace_id) = (access.clone(), shop.namespace.clone());
        callers.spawn(async move {
            while Instant::now() < end {
                let namespace_id = namespace_id.clone();
                let request = access.request(v1::ListStockRequest { namespace_id, ..Default::default() });
                match client.list_stock(request).await {
                    // More lists than the server takes at once.
                    Err(refusal) if refusal.code() != Code::ResourceExhausted => return Err(refusal),
                    _ => {}
                }
            }
            Ok(())
        });
    }
    for _ in 0..WARM_VISITORS {
        let mut client = InventorySentinelClient::new(access.connect().await?);
        let operation = |sku| v1::BatchOperation {
            operation: Some(v1::batch_operation::Operation::GetStock(v1::GetStockRequest {
                namespace_id: shop.namespace.clone(),
                sku,
            })),
            timeout: None,
        };
        let operations = (0..WARM_BATCH).map(|_| operation(shop.skus[0].clone())).collect();
        let request = access.request(v1::BatchRequest { operations });
        callers.spawn(async move { client.batch(request).await.map(drop) });
    }
    while let Some(called) = callers.join_next().await {
        called?.context("a call of the warm-up")?;
    }
    Ok(())
}

/// One call.
#[derive(Debug)]
struct Call {
    due: Instant,
    latency: Duration,
    failure: Option<String>,
}

/// All that the caller has done.
#[derive(Debug, Default)]
pub(super) struct Record {
    calls: Vec<Call>,
    /// Why the events of its changes did not arrive.
    pub(super) watch_fault: Option<String>,
}

/// The measured values of it.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) calls: usize,
    /// Why calls failed, and how many.
    pub(super) failures: BTreeMap<String, usize>,
}

impl Record {
    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures { calls: self.calls.len(), ..Figures::default() };
        for failure in self.calls.iter().filter_map(|call| call.failure.as_ref()) {
            *figures.failures.entry(failure.clone()).or_default() += 1;
        }
        figures
    }

    /// The time below which 99% of the calls ended that were due in this time.
    pub(super) fn p99(&self, from: Instant, until: Instant) -> Duration {
        let mut latencies: Vec<_> =
            self.calls.iter().filter(|call| (from..until).contains(&call.due)).map(|call| call.latency).collect();
        latencies.sort_unstable();
        let index = (latencies.len() * 99).div_ceil(100).saturating_sub(1);
        latencies.get(index).copied().unwrap_or_default()
    }
}

/// A caller that continues until it is stopped.
pub(super) struct Honest {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Record>>>,
}

impl Honest {
    /// Starts to call. `watches`: it also follows the events of its namespace.
    pub(super) fn start(access: Access, shop: Shop, watches: bool) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let is_stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("honest".into())
            .spawn(move || runtime.block_on(call_until(access, shop, watches, is_stopped)))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops it and waits for its last calls.
    pub(super) async fn stop(mut self) -> Result<Record> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it is stopped once")?;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.ok().context("the honest caller panicked")?
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn call_until(access: Access, shop: Shop, watches: bool, is_stopped: Arc<AtomicBool>) -> Result<Record> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(access.connect().await.context("the honest caller")?);
    }
    let watcher = if watches { Some(Watcher::start(&access, &shop.namespace).await?) } else { None };
    let caller = Arc::new(Caller { access, shop, held: Mutex::default(), changes: Mutex::default() });
    let mut calls = JoinSet::new();
    let mut record = Record::default();
    let mut ticks = interval(Duration::from_secs_f64(1.0 / RATE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for turn in 0.. {
        let due = ticks.tick().await.into_std();
        if is_stopped.load(Ordering::Relaxed) {
            break;
        }
        let (caller, channel) = (Arc::clone(&caller), channels[turn % CONNECTIONS].clone());
        calls.spawn(async move {
            let failure = match timeout(DEADLINE, caller.call(turn, channel)).await {
                Ok(Ok(())) => None,
                Ok(Err(status)) => Some(format!("{:?}: {}", status.code(), status.message())),
                Err(_) => Some("no answer within the deadline".to_owned()),
            };
            Call { due, latency: due.elapsed(), failure }
        });
        while let Some(done) = calls.try_join_next() {
            record.calls.push(done?);
        }
    }
    while let Some(done) = calls.join_next().await {
        record.calls.push(done?);
    }
    if let Some(watcher) = watcher {
        let changes = *caller.changes.lock().unwrap_or_else(PoisonError::into_inner);
        record.watch_fault = watcher.fault(changes).await;
    }
    Ok(record)
}

struct Caller {
    access: Access,
    shop: Shop,
    /// Reservations that are not sold yet.
    held: Mutex<VecDeque<String>>,
    /// Changes that the server has confirmed.
    changes: Mutex<u64>,
}

impl Caller {
    /// One call: a read, a reservation, or the sale of an earlier one.
    async fn call(&self, turn: usize, channel: Channel) -> Result<(), Status> {
        let mut client = InventorySentinelClient::new(channel);
        let namespace_id = self.shop.namespace.clone();
        let sku = self.shop.skus[turn % self.shop.skus.len()].clone();
        let held = if turn % 3 == 2 { self.held().pop_front() } else { None };
        if let Some(reservation_id) = held {
            let request = v1::CommitRequest { namespace_id, reservation_id, ..Default::default() };
            client.commit(self.within(request)).await?;
            self.changed();
        } else if turn % 3 == 1 {
            let request = v1::ReserveRequest {
                namespace_id,
                request_id: format!("honest-{turn}"),
                lines: vec![v1::Line { sku, quantity: 1 }],
                ..Default::default()
            };
            let answer = client.reserve(self.within(request)).await?.into_inner();
            let Some(Outcome::Reservation(reservation)) = answer.result else {
                return Err(Status::internal("no reservation in the answer"));
            };
            self.held().push_back(reservation.reservation_id);
            self.changed();
        } else {
            client.get_stock(self.within(v1::GetStockRequest { namespace_id, sku })).await?;
        }
        Ok(())
    }

    fn within<T>(&self, message: T) -> Request<T> {
        let mut request = self.access.request(message);
        request.set_timeout(DEADLINE);
        request
    }

    fn held(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

/// Follows the events of the caller's own changes.
struct Watcher {
    seen: Arc<Mutex<(u64, Option<String>)>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    async fn start(access: &Access, namespace: &str) -> Result<Self> {
        let channel = access.connect().await?;
        let request = access.request(v1::WatchRequest { namespace_id: namespace.to_owned(), ..Default::default() });
        let mut stream = InventoryEventsClient::new(channel).watch(request).await?.into_inner();
        let seen: Arc<Mutex<(u64, Option<String>)>> = Arc::default();
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let fault = loop {
                let events = match stream.message().await {
                    Ok(Some(message)) => message.events,
                    Ok(None) => break "the watch stream ended".to_owned(),
                    Err(status) => break format!("the watch stream failed: {:?}: {}", status.code(), status.message()),
                };
                let is_ours = |event: &&v1::Event| matches!(event.kind(), EventKind::Reserved | EventKind::Committed);
                let number = events.iter().filter(is_ours).count() as u64;
                noted.lock().unwrap_or_else(PoisonError::into_inner).0 += number;
            };
            noted.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(fault);
        });
        Ok(Self { seen, task })
    }

    /// The defect of the stream, after so many changes.
    async fn fault(self, changes: u64) -> Option<String> {
        let give_up = Instant::now() + EVENTS_LIMIT;
        loop {
            let (events, fault) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if fault.is_some() || events >= changes {
                return fault;
            }
            if Instant::now() > give_up {
                return Some(format!("the watch stream has {events} of {changes} events"));
            }
            sleep(CHECK).await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
