//! The connections of one client: which one a call uses, and when another is opened. Counts the calls in flight on
//! each. It imports limits only.
//!
//! A call uses the first connection that has room: a client with few calls needs few connections. The connections that
//! were opened at the start take turns. If none has room, one more is opened in the background; meanwhile the call uses
//! the connection with the fewest calls. No call waits for a connection to open.

use std::{
    error::Error as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Handle;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::limits::{CALLS_PER_CONNECTION, MAX_CONNECTIONS};

/// Pause after the first failure to connect. It doubles with each further failure.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause between two attempts to open another connection.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// How long calls avoid a connection that has failed, while another has room.
const COOLDOWN: Duration = Duration::from_secs(1);

/// One connection.
#[derive(Debug, Default)]
struct Slot {
    channel: OnceLock<Channel>,
    /// Calls and streams in flight.
    calls: AtomicUsize,
    /// The end of its cooldown, in milliseconds from the start of the client; 0: none.
    cools_until: AtomicU64,
}

/// The connections of one client.
#[derive(Debug)]
pub(crate) struct Channels {
    slots: Box<[Slot]>,
    /// How many were opened at the start, and how many are open.
    first: usize,
    open: AtomicUsize,
    turn: AtomicUsize,
    /// Opens further connections; `None`: there are none.
    endpoint: Option<Endpoint>,
    /// The runtime of the connections. That of a caller may end.
    runtime: Handle,
    start: Instant,
    is_growing: AtomicBool,
    /// Failures to connect in a row, and when the next attempt may begin, in milliseconds from the start of the client.
    failures: AtomicU32,
    grows_after: AtomicU64,
}

/// The use of a connection by one call, which is in flight until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    channels: Arc<Channels>,
    index: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slot().calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    fn slot(&self) -> &Slot {
        &self.channels.slots[self.index]
    }

    pub(crate) fn channel(&self) -> Channel {
        self.slot().channel.get().expect("a connection is counted as open after it is there").clone()
    }

    /// Records the failure of the call. If the connection is lost, calls avoid it for a while, and no other is opened:
    /// the server may refuse connections.
    pub(crate) fn record_failure(&self, status: &Status) {
        let is_lost = matches!(status.code(), Code::Unavailable | Code::Unknown) && status.source().is_some();
        if is_lost {
            let channels = &self.channels;
            self.slot().cools_until.store(channels.millis() + millis(COOLDOWN), Ordering::Relaxed);
            channels.grows_after.fetch_max(channels.millis() + millis(COOLDOWN), Ordering::Relaxed);
        }
    }
}

impl Channels {
    /// `channels` has at least one. Must be called in the runtime of the connections.
    pub(crate) fn new(channels: Vec<Channel>, endpoint: Option<Endpoint>) -> Channels {
        debug_assert!(!channels.is_empty());
        let first = channels.len();
        let slots: Box<[Slot]> = (0..first.max(MAX_CONNECTIONS)).map(|_| Slot::default()).collect();
        for (slot, channel) in slots.iter().zip(channels) {
            let _ = slot.channel.set(channel);
        }
        Channels {
            slots,
            first,
            open: AtomicUsize::new(first),
            turn: AtomicUsize::new(0),
            endpoint,
            runtime: Handle::current(),
            start: Instant::now(),
            is_growing: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            grows_after: AtomicU64::new(0),
        }
    }

    /// A connection for one call.
    pub(crate) fn acquire(self: &Arc<Self>) -> Lease {
        let open = self.open.load(Ordering::Acquire);
        // So a retry also uses another connection than the attempt before it.
        let turn = match self.first {
            1 => 0,
            several => self.turn.fetch_add(1, Ordering::Relaxed) % several,
        };
        let in_turn = (turn..self.first).chain(0..turn).chain(self.first..open);
        let index = in_turn.into_iter().find(|&index| self.try_acquire(index)).unwrap_or_else(|| {
            self.grow();
            self.acquire_least_loaded(open)
        });
        Lease { channels: Arc::clone(self), index }
    }

    /// Counts a call on this connection if it has room and no cooldown.
    fn try_acquire(&self, index: usize) -> bool {
        if self.is_cooling(index) {
            return false;
        }
        let calls = &self.slots[index].calls;
        let has_room = calls.fetch_add(1, Ordering::Relaxed) < CALLS_PER_CONNECTION;
        if !has_room {
            calls.fetch_sub(1, Ordering::Relaxed);
        }
        has_room
    }

    /// Counts a call on the connection with the fewest calls, preferring those without a cooldown.
    fn acquire_least_loaded(&self, open: usize) -> usize {
        let load = |&index: &usize| (self.is_cooling(index), self.slots[index].calls.load(Ordering::Relaxed));
        let index = (0..open).min_by_key(load).unwrap_or_default();
        self.slots[index].calls.fetch_add(1, Ordering::Relaxed);
        index
    }

    fn is_cooling(&self, index: usize) -> bool {
        let cools_until = &self.slots[index].cools_until;
        let until = cools_until.load(Ordering::Relaxed);
        // The clock is read only during a cooldown, and once after it.
        if until == 0 || until > self.millis() {
            return until != 0;
        }
        let _ = cools_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
        false
    }

    /// Opens another connection in the background, unless the limit is reached, one is being opened, or the last
    /// attempt failed a short time ago.
    fn grow(self: &Arc<Self>) {
        let Some(endpoint) = &self.endpoint else { return };
        let may_grow = self.open.load(Ordering::Acquire) < MAX_CONNECTIONS
            && self.grows_after.load(Ordering::Relaxed) <= self.millis();
        if !may_grow || self.is_growing.swap(true, Ordering::AcqRel) {
            return;
        }
        let growth = GrowthGuard(Arc::clone(self));
        let endpoint = endpoint.clone();
        self.runtime.spawn(async move {
            match endpoint.connect().await {
                Ok(channel) => growth.0.add(channel),
                Err(error) => growth.0.back_off(&error),
            }
        });
    }

    fn add(&self, channel: Channel) {
        let open = self.open.load(Ordering::Acquire);
        let is_added = self.slots.get(open).is_some_and(|slot| slot.channel.set(channel).is_ok());
        if is_added {
            self.failures.store(0, Ordering::Relaxed);
            self.open.store(open + 1, Ordering::Release);
            tracing::debug!(connections = open + 1, "another connection is open");
        }
    }

    fn back_off(&self, error: &tonic::transport::Error) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let pause = MIN_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF);
        self.grows_after.fetch_max(self.millis() + millis(pause), Ordering::Relaxed);
        tracing::debug!(?pause, %error, "no other connection can be opened");
    }

    /// Milliseconds since the start of the client.
    fn millis(&self) -> u64 {
        millis(self.start.elapsed())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Marks that a connection is being opened. Dropping it allows the next.
struct GrowthGuard(Arc<Channels>);

impl Drop for GrowthGuard {
    fn drop(&mut self) {
        self.0.is_growing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Longest wait for a connection.
    const LIMIT: Duration = Duration::from_secs(10);

    /// A client of this listener, with this number of open connections.
    async fn channels(listener: &TcpListener, first: usize) -> Arc<Channels> {
        let endpoint = Endpoint::new(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let lazy = (0..first).map(|_| endpoint.connect_lazy()).collect();
        Arc::new(Channels::new(lazy, Some(endpoint)))
    }

    async fn accept(listener: &TcpListener) -> TcpStream {
        tokio::time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap().0
    }

    async fn until(holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap();
    }

    fn take(channels: &Arc<Channels>, calls: usize) -> Vec<Lease> {
        (0..calls).map(|_| channels.acquire()).collect()
    }

    fn calls(channels: &Channels) -> Vec<usize> {
        let open = channels.open.load(Ordering::Acquire);
        channels.slots[..open].iter().map(|slot| slot.calls.load(Ordering::Relaxed)).collect()
    }

    #[tokio::test]
    async fn a_full_connection_makes_room_on_another() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channels = channels(&listener, 1).await;
        let first = take(&channels, CALLS_PER_CONNECTION);
        assert!(!channels.is_growing.load(Ordering::Relaxed), "it has room for so many");
        // The next ones do not wait for the connection that they cause.
        let second = take(&channels, 3);
        assert_eq!(calls(&channels), [CALLS_PER_CONNECTION + 3]);
        let _other = accept(&listener).await;
        until(|| calls(&channels).len() == 2).await;
        let third = take(&channels, 2);
        assert_eq!(calls(&channels), [CALLS_PER_CONNECTION + 3, 2]);
        drop((first, second));
        let fourth = take(&channels, 1);
        assert_eq!(calls(&channels), [1, 2], "the first that has room");
        drop((third, fourth));
        assert_eq!(calls(&channels), [0, 0]);
    }

    #[tokio::test]
    async fn connections_of_the_start_take_turns() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channels = channels(&listener, 3).await;
        let _calls = take(&channels, 7);
        assert_eq!(calls(&channels), [3, 2, 2]);
    }

    #[tokio::test]
    async fn there_are_no_more_than_allowed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channels = channels(&listener, MAX_CONNECTIONS).await;
        let _calls = take(&channels, CALLS_PER_CONNECTION * MAX_CONNECTIONS + MAX_CONNECTIONS);
        assert!(!channels.is_growing.load(Ordering::Relaxed));
        assert_eq!(calls(&channels), [CALLS_PER_CONNECTION + 1; MAX_CONNECTIONS]);
    }

    #[tokio::test]
    async fn a_failure_to_connect_is_followed_by_a_pause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channels = channels(&listener, 1).await;
        drop(listener);
        let _calls = take(&channels, CALLS_PER_CONNECTION + 1);
        until(|| !channels.is_growing.load(Ordering::Acquire)).await;
        assert_eq!(channels.failures.load(Ordering::Relaxed), 1);
        assert!(channels.grows_after.load(Ordering::Relaxed) >= millis(MIN_BACKOFF));
        assert_eq!(calls(&channels), [CALLS_PER_CONNECTION + 1], "the old one stays");
    }

    #[tokio::test]
    async fn a_lost_connection_rests_while_another_has_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channels = channels(&listener, 2).await;
        let lease = channels.acquire();
        lease.record_failure(&Status::unavailable("by the server"));
        assert!(!channels.is_cooling(lease.index));
        lease
            .record_failure(&Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))));
        assert!(channels.is_cooling(lease.index));
        drop(lease);
        let _calls = take(&channels, 4);
        assert_eq!(calls(&channels), [0, 4]);
    }
}
