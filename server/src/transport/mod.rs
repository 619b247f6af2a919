//! The gRPC port: accepts connections, limits the memory, processor time and descriptors of
//! untrusted clients, and passes whole requests to the services. Uses the sockets and the metrics.
//! Of the services it uses only the form of their refusals.
//!
//! - [`accept`][]: listening sockets, and retries while there are no descriptors.
//! - [`slots`][]: the open connections, and the one that is closed for a new one.
//! - [`connection`][]: serves one connection, with or without TLS.
//! - [`peer`][]: the state of one connection: its times, its calls, the reason of its end.
//! - [`meter`][], [`rates`][]: its socket, which counts frames; the allowed rate of each kind.
//!   [`pace`][]: the work that untrusted connections can cause.
//! - [`entry`][]: the entry of a call from its connection; [`rpc`][]: the limits of each RPC.
//! - [`observer`][]: calls that only watch; [`operator_call`][]: calls of operators.
//! - [`refusals`][]: of calls that do not reach a service; [`compression`][]: compressed messages.
//! - [`requests`][], [`responses`][]: bodies in both directions; [`ledger`][]: the bytes of them
//!   that may wait.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) mod accept;
mod compression;
mod connection;
mod entry;
mod ledger;
mod meter;
mod observer;
mod operator_call;
pub(crate) mod pace;
pub(crate) mod peer;
mod rates;
mod refusals;
mod requests;
mod responses;
mod rpc;
pub(crate) mod slots;

use self::{
    accept::Accept,
    connection::Connection,
    entry::Shared,
    ledger::{Counts, Ledger},
    pace::Pace,
    peer::ConnectionTimeouts,
    rates::FrameRates,
    slots::Slots,
};
pub(crate) use self::{entry::Services, operator_call::OperatorCall, refusals::reason_of};
use crate::{access::reload::Access, allocator, config::Config, telemetry::transport::TransportMetrics};

/// Interval of the checks for connections and calls that take too long.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Interval at which the memory of requests is returned to the system.
const MEMORY_RETURN_INTERVAL: Duration = Duration::from_secs(2);
/// Length of the burst after an idle time: of accepted connections, and of the work of untrusted
/// ones.
const ACCEPT_BURST: Duration = Duration::from_millis(50);
const UNTRUSTED_BURST: Duration = Duration::from_millis(20);

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
    (access, metrics): (Access, TransportMetrics),
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
    let port = Port { limits, services, shared, slots, pace, metrics, access };
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

/// Shared by all connections of the port.
struct Port<S> {
    limits: TransportLimits,
    services: S,
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    pace: Arc<Pace>,
    metrics: TransportMetrics,
    access: Access,
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
                let connection = self.connection(&stream, shutdown.clone(), slot);
                match &self.access.tls {
                    None => tracker.spawn(connection.serve(stream, None)),
                    Some(tls) => tracker.spawn(connection.serve_tls(stream, Arc::clone(tls))),
                };
            }
        }
    }

    fn connection(&self, stream: &TcpStream, shutdown: CancellationToken, slot: slots::Slot) -> Connection<S> {
        Connection {
            limits: self.limits,
            services: self.services.clone(),
            guard: Arc::clone(&self.access.guard),
            address: stream.peer_addr().ok(),
            shared: Arc::clone(&self.shared),
            pace: Arc::clone(&self.pace),
            metrics: self.metrics.clone(),
            shutdown,
            slot,
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
