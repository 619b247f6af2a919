//! The gRPC port: accepts connections, limits the memory, processor time and descriptors of
//! untrusted clients, and passes whole requests to the services. Uses the sockets and the metrics.
//! Of the services it uses only the form of their refusals.
//!
//! - [`accept`][]: listening sockets, and retries while there are no descriptors.
//! - [`slots`][]: the open connections, and the one that is closed for a new one.
//! - [`peer`][]: one connection: its times, its calls, the reason of its end.
//! - [`meter`][], [`rates`][]: its socket, which counts frames; the allowed rate of each kind.
//!   [`pace`][]: the work that untrusted connections can cause.
//! - [`entry`][]: the entry of a call from its connection; [`rpc`][]: the limits of each RPC.
//! - [`observer`][]: calls that only watch.
//! - [`refusals`][]: of calls that do not reach a service; [`compression`][]: compressed messages.
//! - [`requests`][], [`responses`][]: bodies in both directions; [`ledger`][]: the bytes of them
//!   that may wait.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) mod accept;
mod compression;
mod entry;
mod ledger;
mod meter;
mod observer;
pub(crate) mod pace;
pub(crate) mod peer;
mod rates;
mod refusals;
mod requests;
mod responses;
mod rpc;
pub(crate) mod slots;

pub(crate) use self::entry::{CallerAddress, Services};
use self::{
    accept::Accept,
    entry::{Entrance, Shared},
    ledger::{Counts, Ledger},
    meter::Metered,
    pace::Pace,
    peer::{ConnectionTimeouts, Peer},
    rates::FrameRates,
    slots::Slots,
};
use crate::{
    allocator,
    config::Config,
    telemetry::transport::{Closed, TransportMetrics},
};

/// A connection that is idle this long is pinged...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// ... and closed if it does not respond within this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Unsent bytes of a stream in the HTTP/2 library.
const SEND_BUFFER: usize = 16 * 1_024;
/// Bytes of the headers of a call, decoded.
const MAX_HEADER_LIST: u32 = 16 * 1_024;
/// Interval of the checks for connections and calls that take too long.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Interval at which the memory of requests is returned to the system.
const MEMORY_RETURN_INTERVAL: Duration = Duration::from_secs(2);
/// Length of the burst after an idle time: of accepted connections, and of the work of untrusted
/// ones.
const ACCEPT_BURST: Duration = Duration::from_millis(50);
const UNTRUSTED_BURST: Duration = Duration::from_millis(20);
/// Longest time of a connection after a GOAWAY, unless it has a call that does work.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The limits of the transport. Each is a flag of the server, with its unit and default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransportLimits {
    accepts: u32,
    untrusted_time: Duration,
    connections: usize,
    /// Descriptors that the server needs for other uses than client connections.
    descriptors: usize,
    window: u32,
    streams: u32,
    request_streams: usize,
    admin_calls: usize,
    max_request: usize,
    unfinished: usize,
    request_budget: usize,
    response_budget: usize,
    stream_pause: Duration,
    timeouts: ConnectionTimeouts,
    rates: FrameRates,
}

impl From<&Config> for TransportLimits {
    fn from(config: &Config) -> Self {
        Self {
            accepts: config.max_accepts,
            untrusted_time: config.untrusted_cpu_time,
            connections: config.max_connections,
            descriptors: config.pool_size + config.max_watched_namespaces,
            window: config.connection_window,
            streams: config.max_streams,
            request_streams: config.max_request_streams,
            admin_calls: config.max_admin_calls,
            max_request: config.max_request_bytes,
            unfinished: config.max_unfinished_requests,
            request_budget: config.request_budget,
            response_budget: config.response_budget,
            stream_pause: config.stream_pause,
            timeouts: ConnectionTimeouts {
                handshake: config.handshake_timeout,
                request: config.request_timeout,
                response: config.response_timeout,
            },
            rates: FrameRates { resets: config.max_resets, control: config.max_control_frames },
        }
    }
}

/// Serves on this listener until the shutdown, and then until the last call has ended that does
/// more than watch.
pub(crate) async fn serve<S: Services>(
    listener: TcpListener,
    services: S,
    limits: TransportLimits,
    metrics: TransportMetrics,
    tasks: &crate::tasks::Tasks,
    shutdown: CancellationToken,
) {
    let ledger = |budget, limit, [bytes, cut, late]: [&'static str; 3]| {
        let counts =
            Counts { bytes: metrics.waiting(bytes), cut: metrics.calls_cut(cut), late: metrics.calls_cut(late) };
        Arc::new(Ledger::new(budget, limit, counts))
    };
    let shared = Arc::new(Shared {
        max_request: limits.max_request,
        request_timeout: limits.timeouts.request,
        stream_pause: limits.stream_pause,
        streams: Arc::new(Semaphore::new(limits.request_streams)),
        admin_calls: Arc::new(Semaphore::new(limits.admin_calls)),
        // A client has one watch for each connection.
        health_watches: Arc::new(Semaphore::new(limits.connections)),
        draining: shutdown.clone(),
        requests: ledger(
            limits.request_budget,
            limits.unfinished,
            ["request", "too_many_unfinished_requests", "slow_request"],
        ),
        responses: ledger(limits.response_budget, usize::MAX, ["response", "too_much_unread", "slow_reader"]),
        tasks: tasks.clone(),
    });
    let max = accept::connections_for_descriptors(limits.connections, limits.descriptors);
    let slots = Arc::new(Slots::new(max, metrics.clone()));
    let work = limits.untrusted_time.as_micros() as u64;
    let pace = Arc::new(Pace::new(work, UNTRUSTED_BURST, metrics.pauses("untrusted")));
    let port = Port { limits, services, shared, slots, pace, metrics };
    let tracker = TaskTracker::new();
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = port.accept(listener, &tracker, &shutdown) => {}
        () = port.check() => {}
    }
    tracker.close();
    // Running calls may end in their time; calls that are too slow are still cut.
    tokio::select! {
        () = tracker.wait() => {}
        () = port.check() => {}
    }
}

fn builder(limits: &TransportLimits, peer: Arc<Peer>) -> http2::Builder<Tasks> {
    let resets = usize::try_from(limits.rates.resets).unwrap_or(usize::MAX);
    let mut builder = http2::Builder::new(Tasks(peer));
    builder
        .timer(TokioTimer::new())
        .initial_connection_window_size(limits.window)
        .initial_stream_window_size(limits.window)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        // The library counts resets that it has not reported yet. Their rate decides how many are
        // too many, so this limit is off.
        .max_pending_accept_reset_streams(resets.saturating_mul(rates::BURST_SECONDS as usize))
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

/// Shared by all connections of the port.
struct Port<S> {
    limits: TransportLimits,
    services: S,
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    pace: Arc<Pace>,
    metrics: TransportMetrics,
}

impl<S: Services> Port<S> {
    async fn accept(&self, listener: TcpListener, tracker: &TaskTracker, shutdown: &CancellationToken) {
        let mut accept = Accept::new(listener, self.metrics.clone());
        let pace = Pace::new(u64::from(self.limits.accepts), ACCEPT_BURST, self.metrics.pauses("accept"));
        loop {
            // Meanwhile connections wait in the backlog of the socket.
            if let Some(turn) = pace.take(1) {
                tokio::time::sleep_until(turn).await;
            }
            let Some(stream) = accept.next().await else {
                // An idle connection may have the missing descriptor.
                self.slots.close_idle();
                continue;
            };
            // If no connection can be closed, the client has to retry.
            if let Some(slot) = self.slots.take() {
                tracker.spawn(self.connection(stream, shutdown.clone(), slot));
            }
        }
    }

    /// Serves one connection until it ends.
    fn connection(
        &self,
        stream: TcpStream,
        shutdown: CancellationToken,
        slot: slots::Slot,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let peer = slot.peer();
        let address = stream.peer_addr().ok();
        let socket = TokioIo::new(Metered::new(stream, Arc::clone(&peer), self.limits.rates, Arc::clone(&self.pace)));
        let entrance = Entrance::new(self.services.clone(), address, Arc::clone(&peer), Arc::clone(&self.shared));
        let connection = builder(&self.limits, Arc::clone(&peer)).serve_connection(socket, entrance);
        let metrics = self.metrics.clone();
        async move {
            let _slot = slot;
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                biased;
                _ = connection.as_mut() => {}
                closed = peer.until_closed() => {
                    // A well-behaved client gets a GOAWAY first.
                    if closed == Closed::Evicted && peer.has_called() {
                        connection.as_mut().graceful_shutdown();
                        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.as_mut()).await;
                    }
                }
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    loop {
                        match tokio::time::timeout(CLOSE_TIMEOUT, connection.as_mut()).await {
                            Err(_) if peer.has_work() && peer.closed().is_none() => {}
                            _ => break,
                        }
                    }
                }
            }
            if let Some(closed) = peer.closed() {
                metrics.inc_closed(closed);
                tracing::debug!(reason = closed.label(), "a client connection was closed");
            }
        }
    }

    /// Closes connections and cuts calls that take too long. Never returns.
    async fn check(&self) {
        let timeouts = self.limits.timeouts;
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_give_back = Instant::now();
        loop {
            ticks.tick().await;
            self.slots.close_late(&timeouts);
            self.shared.responses.cut_late(timeouts.response);
            if last_give_back.elapsed() >= MEMORY_RETURN_INTERVAL {
                last_give_back = Instant::now();
                allocator::give_back();
            }
        }
    }
}

/// Spawns the tasks of one connection's calls, and counts the running ones.
#[derive(Clone, Debug)]
struct Tasks(Arc<Peer>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.begin_call();
        let task = tokio::spawn(Counted { call, _count: Count(Arc::clone(&self.0)) });
        self.0.start_task(&task.abort_handle());
    }
}

pin_project! {
    /// A call that is counted until its task ends.
    struct Counted<F> {
        #[pin]
        call: F,
        _count: Count,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().call.poll(cx)
    }
}

struct Count(Arc<Peer>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.end_call();
    }
}
