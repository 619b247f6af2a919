//! The state of one client connection: whether it is idle, whether it keeps its time limits, and
//! why it is closed. Pure but for the clock.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    task::AbortHandle,
};

use super::ledger::Entry;
use crate::telemetry::transport::Closed;

/// Calls of one connection that may be cut before the connection is closed.
const MAX_CUTS: u32 = 16;
/// Credit, in calls, for each response of a service. A connection without credit is untrusted:
/// trust grows with each response, and a connection whose calls get none loses it.
const CREDIT_PER_RESPONSE: u32 = 4;
/// Most credit.
const MAX_CREDIT: u32 = 1_024;
/// With this credit a read has no limit: by default a connection has no more calls at once.
const FULL_READ_CREDIT: u32 = 256;

/// Milliseconds since its creation, never 0, which means "not".
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        self.0.elapsed().as_millis() as u64 + 1
    }
}

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTimeouts {
    /// For its HTTP/2 handshake.
    pub(crate) handshake: Duration,
    /// For a frame, a header block and a whole request.
    pub(crate) request: Duration,
    /// To read the bytes that the server sends.
    pub(crate) response: Duration,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(super) clock: Clock,
    opened: u64,
    /// Running calls.
    calls: AtomicU32,
    /// Of these, those that only watch.
    watches: AtomicU32,
    /// Of the running calls, those that do not protect the connection from eviction.
    unpinned: AtomicU32,
    /// When its last call ended.
    idle_since: AtomicU64,
    has_called: AtomicBool,
    has_handshake: AtomicBool,
    /// A service has responded to one of its calls.
    is_proven: AtomicBool,
    /// Its credit, in calls.
    credit: AtomicU32,
    /// When the incomplete frame or header block began; 0: there is none.
    frame_since: AtomicU64,
    /// When the socket became blocked for writes; 0: it is not.
    write_since: AtomicU64,
    /// When a flush of the socket became blocked; 0: it is not.
    flush_since: AtomicU64,
    cuts: AtomicU32,
    /// Microseconds of decompression that the socket has not counted yet.
    decompression_work: AtomicU32,
    closed: AtomicU8,
    close: Notify,
    /// Ledger entries of the call that was just passed to the service, until its task starts.
    starting: Mutex<Vec<Arc<Entry>>>,
    is_starting: AtomicBool,
}

impl Peer {
    pub(super) fn new(clock: Clock) -> Self {
        let now = clock.now();
        Self {
            clock,
            opened: now,
            calls: AtomicU32::new(0),
            watches: AtomicU32::new(0),
            unpinned: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            has_called: AtomicBool::new(false),
            has_handshake: AtomicBool::new(false),
            is_proven: AtomicBool::new(false),
            credit: AtomicU32::new(0),
            frame_since: AtomicU64::new(0),
            write_since: AtomicU64::new(0),
            flush_since: AtomicU64::new(0),
            cuts: AtomicU32::new(0),
            decompression_work: AtomicU32::new(0),
            closed: AtomicU8::new(0),
            close: Notify::new(),
            starting: Mutex::default(),
            is_starting: AtomicBool::new(false),
        }
    }

    pub(crate) fn begin_call(&self) {
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            self.has_called.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn end_call(&self) {
        if self.calls.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_since.store(self.clock.now(), Ordering::Relaxed);
        }
    }

    /// Counts a call that only watches.
    pub(super) fn begin_watch(&self) {
        self.watches.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_watch(&self) {
        self.watches.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it has a call that does more than watch.
    pub(super) fn has_work(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > self.watches.load(Ordering::Relaxed)
    }

    /// Adds the credit of a response.
    pub(super) fn earn(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
        let earn = |credit: u32| Some((credit + CREDIT_PER_RESPONSE).min(MAX_CREDIT));
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn);
    }

    /// Whether a response would add credit.
    pub(super) fn can_earn(&self) -> bool {
        self.credit.load(Ordering::Relaxed) < MAX_CREDIT
    }

    /// Takes the credit for this many calls; false, without effect: there is less.
    pub(super) fn spend(&self, calls: u32) -> bool {
        let spend = |credit: u32| credit.checked_sub(calls);
        calls == 0 || self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    /// Whether it has credit for as many calls as one read can contain.
    pub(super) fn has_full_read_credit(&self) -> bool {
        self.credit.load(Ordering::Relaxed) >= FULL_READ_CREDIT
    }

    /// Adds the work of a decompressed message.
    pub(super) fn add_decompression_work(&self, work: u32) {
        self.decompression_work.fetch_add(work, Ordering::Relaxed);
    }

    /// Takes all credit, because a message was decompressed in vain.
    pub(super) fn lose_credit(&self) {
        self.credit.store(0, Ordering::Relaxed);
    }

    /// Takes the decompression work since the last call.
    pub(super) fn take_decompression_work(&self) -> u32 {
        if self.decompression_work.load(Ordering::Relaxed) == 0 {
            0
        } else {
            self.decompression_work.swap(0, Ordering::Relaxed)
        }
    }

    /// Whether a service has responded to one of its calls.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// When its last call ended; `None`: one runs that protects the connection from eviction.
    pub(super) fn idle_since(&self) -> Option<u64> {
        (self.calls.load(Ordering::Relaxed) <= self.unpinned.load(Ordering::Relaxed))
            .then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// Whether it ever had a call.
    pub(super) fn has_called(&self) -> bool {
        self.has_called.load(Ordering::Relaxed)
    }

    pub(super) fn record_handshake(&self) {
        self.has_handshake.store(true, Ordering::Relaxed);
    }

    pub(super) fn record_frame(&self, is_incomplete: bool) {
        Self::set_since(&self.frame_since, is_incomplete, self.clock);
    }

    /// Restarts the time of the incomplete frame: one frame ended, and the next has begun.
    pub(super) fn renew_frame(&self) {
        self.frame_since.store(self.clock.now(), Ordering::Relaxed);
    }

    pub(super) fn record_write(&self, is_blocked: bool) {
        Self::set_since(&self.write_since, is_blocked, self.clock);
    }

    pub(super) fn record_flush(&self, is_blocked: bool) {
        Self::set_since(&self.flush_since, is_blocked, self.clock);
    }

    fn set_since(since: &AtomicU64, is_true: bool, clock: Clock) {
        let before = since.load(Ordering::Relaxed);
        if is_true && before == 0 {
            since.store(clock.now(), Ordering::Relaxed);
        } else if !is_true && before != 0 {
            since.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a call that was cut because its response was not read in time.
    pub(super) fn record_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// The time limit, or the limit of cut calls, that the connection exceeds.
    pub(super) fn exceeded_limit(&self, timeouts: &ConnectionTimeouts) -> Option<Closed> {
        let now = self.clock.now();
        let longer =
            |since: u64, limit: Duration| since != 0 && u128::from(now.saturating_sub(since)) > limit.as_millis();
        if !self.has_handshake.load(Ordering::Relaxed) && longer(self.opened, timeouts.handshake) {
            return Some(Closed::Handshake);
        }
        if longer(self.frame_since.load(Ordering::Relaxed), timeouts.request) {
            return Some(Closed::SlowFrame);
        }
        let blocked = [&self.write_since, &self.flush_since].map(|since| since.load(Ordering::Relaxed));
        if blocked.into_iter().any(|since| longer(since, timeouts.response)) {
            return Some(Closed::SlowReader);
        }
        (self.cuts.load(Ordering::Relaxed) >= MAX_CUTS).then_some(Closed::Cuts)
    }

    /// Requests the end of the connection; the first reason counts.
    pub(super) fn close(&self, why: Closed) {
        let _ = self.closed.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed);
        self.close.notify_one();
    }

    /// Why it has to be closed, if it has to be.
    pub(crate) fn closed(&self) -> Option<Closed> {
        Closed::from_code(self.closed.load(Ordering::Relaxed))
    }

    /// Waits until it has to be closed.
    pub(crate) async fn until_closed(&self) -> Closed {
        loop {
            if let Some(closed) = self.closed() {
                return closed;
            }
            self.close.notified().await;
        }
    }

    /// Keeps an entry of the call whose task starts next.
    pub(super) fn add_starting(&self, entry: Arc<Entry>) {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.is_starting.store(true, Ordering::Relaxed);
    }

    /// Registers the task of that call in the entries of the call, which can end it.
    pub(super) fn start_task(&self, task: &AbortHandle) {
        if !self.is_starting.swap(false, Ordering::Relaxed) {
            return;
        }
        for entry in self.starting.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            entry.set_task(task.clone());
        }
    }
}

/// A running call that does not protect its connection from eviction: it needs no credential, or it is refused.
#[derive(Debug)]
pub(super) struct Unpinned(Arc<Peer>);

impl Unpinned {
    pub(super) fn new(peer: &Arc<Peer>) -> Self {
        peer.unpinned.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(peer))
    }
}

impl Drop for Unpinned {
    fn drop(&mut self) {
        self.0.unpinned.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The slot of a stream of the health service.
#[derive(Debug)]
pub(super) struct HealthSlot {
    _permit: OwnedSemaphorePermit,
    _unpinned: Unpinned,
}

impl HealthSlot {
    pub(super) fn new(permit: OwnedSemaphorePermit, peer: &Arc<Peer>) -> Self {
        Self { _permit: permit, _unpinned: Unpinned::new(peer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: ConnectionTimeouts = ConnectionTimeouts {
        handshake: Duration::from_millis(1_000),
        request: Duration::from_millis(2_000),
        response: Duration::from_millis(3_000),
    };

    /// A connection of this age.
    fn peer(age: Duration) -> Peer {
        let peer = Peer::new(Clock(Instant::now()));
        Peer { clock: Clock(Instant::now().checked_sub(age).expect("the machine runs longer")), ..peer }
    }

    #[test]
    fn a_connection_has_limited_time_for_each_of_its_duties() {
        assert_eq!(peer(Duration::from_millis(900)).exceeded_limit(&TIMEOUTS), None);
        let slow = peer(Duration::from_millis(1_500));
        assert_eq!(slow.exceeded_limit(&TIMEOUTS), Some(Closed::Handshake));
        slow.record_handshake();
        assert_eq!(slow.exceeded_limit(&TIMEOUTS), None);
        slow.frame_since.store(1, Ordering::Relaxed);
        assert_eq!(slow.exceeded_limit(&TIMEOUTS), None);
        let slower = peer(Duration::from_millis(3_500));
        slower.record_handshake();
        slower.frame_since.store(1, Ordering::Relaxed);
        assert_eq!(slower.exceeded_limit(&TIMEOUTS), Some(Closed::SlowFrame));
        slower.record_frame(false);
        slower.write_since.store(1, Ordering::Relaxed);
        assert_eq!(slower.exceeded_limit(&TIMEOUTS), Some(Closed::SlowReader));
        slower.record_write(false);
        assert_eq!(slower.exceeded_limit(&TIMEOUTS), None);
        (0..MAX_CUTS).for_each(|_| slower.record_cut());
        assert_eq!(slower.exceeded_limit(&TIMEOUTS), Some(Closed::Cuts));
    }

    #[test]
    fn it_is_idle_between_its_calls() {
        let peer = peer(Duration::from_millis(10));
        assert!(peer.idle_since().is_some() && !peer.has_called());
        peer.begin_call();
        peer.begin_call();
        peer.end_call();
        assert_eq!(peer.idle_since(), None);
        peer.end_call();
        assert!(peer.idle_since().is_some_and(|since| since > 10));
        assert!(peer.has_called());
    }

    #[tokio::test]
    async fn the_first_reason_to_close_counts() {
        let peer = peer(Duration::ZERO);
        peer.close(Closed::Evicted);
        peer.close(Closed::Flood);
        assert_eq!(peer.until_closed().await, Closed::Evicted);
        assert_eq!(peer.until_closed().await, Closed::Evicted);
    }
}
