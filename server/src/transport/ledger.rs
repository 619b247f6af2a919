//! Bytes that wait for a client: of incomplete requests, or of unread responses. Limits their sum
//! and their number. Beyond a limit, the connection that has held the most for the longest time is
//! closed. Pure but for the clock.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::{IntCounter, IntGauge};
use tokio::task::AbortHandle;

use super::peer::Peer;
use crate::telemetry::transport::Closed;

/// The share of a limit that is freed when it is reached, as a divisor. Otherwise each further byte
/// would search for a connection to close.
const FREED: usize = 8;
/// Bytes that each call adds to its waiting bytes when connections are compared.
const CALL: usize = 1_024;

/// The calls of all connections that wait in one direction.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Bytes that may wait.
    budget: usize,
    /// Calls that may wait.
    limit: usize,
    used: AtomicUsize,
    entries: Mutex<Entries>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    open: HashMap<u64, Arc<Entry>>,
}

/// The metrics of a ledger.
#[derive(Debug)]
pub(super) struct Counts {
    /// Bytes that wait now.
    pub(super) bytes: IntGauge,
    /// Calls that ended with their connection, because too many waited.
    pub(super) cut: IntCounter,
    /// Calls that ended because they waited too long.
    pub(super) late: IntCounter,
}

/// One call.
#[derive(Debug)]
pub(super) struct Entry {
    peer: Arc<Peer>,
    bytes: AtomicUsize,
    /// When it began to wait; 0: it does not wait.
    since: AtomicU64,
    /// The task that serves the call.
    task: OnceLock<AbortHandle>,
}

/// The registration of a call in a ledger. Its drop removes the call.
#[derive(Debug)]
pub(super) struct Registration {
    ledger: Arc<Ledger>,
    entry: Arc<Entry>,
    number: u64,
}

impl Ledger {
    pub(super) fn new(budget: usize, limit: usize, counts: Counts) -> Self {
        Self { budget, limit, used: AtomicUsize::new(0), entries: Mutex::default(), counts }
    }

    /// Registers a call of this connection.
    pub(super) fn register(self: &Arc<Self>, peer: &Arc<Peer>) -> Registration {
        let entry = Arc::new(Entry {
            peer: Arc::clone(peer),
            bytes: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            task: OnceLock::new(),
        });
        let mut entries = self.entries();
        let number = entries.next;
        entries.next += 1;
        entries.open.insert(number, Arc::clone(&entry));
        if entries.open.len() > self.limit {
            self.make_room(&mut entries);
        }
        Registration { ledger: Arc::clone(self), entry, number }
    }

    /// Cuts the calls that have waited for longer than this.
    pub(super) fn cut_late(&self, timeout: Duration) {
        let mut entries = self.entries();
        let limit = timeout.as_millis() as u64;
        let late = |entry: &Entry| {
            let since = entry.since.load(Ordering::Relaxed);
            since != 0 && entry.peer.clock.now().saturating_sub(since) > limit
        };
        let numbers: Vec<_> = entries.open.iter().filter(|(_, entry)| late(entry)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(entry) = entries.open.remove(&number) {
                self.counts.late.inc();
                self.set_bytes(&entry, 0);
                entry.peer.record_cut();
                // A call whose task has not started does not wait long.
                if let Some(task) = entry.task.get() {
                    task.abort();
                }
            }
        }
    }

    /// Closes the connections that have held the most for the longest time, until enough is free.
    /// An attack holds much, or holds it long. An honest call ends soon, even if it waits for its
    /// turn.
    fn make_room(&self, entries: &mut Entries) {
        let mut holders: HashMap<*const Peer, (Arc<Peer>, u128, Vec<u64>)> = HashMap::new();
        for (number, entry) in &entries.open {
            let since = entry.since.load(Ordering::Relaxed);
            if since == 0 {
                continue;
            }
            let holder = holders.entry(Arc::as_ptr(&entry.peer));
            let (_, weight, numbers) = holder.or_insert_with(|| (Arc::clone(&entry.peer), 0, Vec::new()));
            let age = entry.peer.clock.now().saturating_sub(since) + 1;
            *weight += u128::from(age) * (entry.bytes.load(Ordering::Relaxed) + CALL) as u128;
            numbers.push(*number);
        }
        let mut holders: Vec<_> = holders.into_values().collect();
        holders.sort_unstable_by_key(|(_, weight, _)| std::cmp::Reverse(*weight));
        for (peer, _, numbers) in holders {
            if self.used.load(Ordering::Relaxed) <= self.budget - self.budget / FREED
                && entries.open.len() <= self.limit - self.limit / FREED
            {
                return;
            }
            peer.close(Closed::Hoarding);
            for number in numbers {
                if let Some(entry) = entries.open.remove(&number) {
                    self.counts.cut.inc();
                    self.set_bytes(&entry, 0);
                }
            }
        }
    }

    /// Sets the waiting bytes of a call; returns the sum of all.
    fn set_bytes(&self, entry: &Entry, bytes: usize) -> usize {
        let before = entry.bytes.swap(bytes, Ordering::Relaxed);
        self.counts.bytes.add(bytes as i64 - before as i64);
        let used = self.used.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        used.wrapping_add(bytes.wrapping_sub(before))
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    pub(super) fn entry(&self) -> Arc<Entry> {
        Arc::clone(&self.entry)
    }

    /// Sets the waiting bytes of the call and restarts its time. Closes connections while the sum
    /// is beyond the limit.
    pub(super) fn wait_with(&self, bytes: usize) {
        self.entry.since.store(self.entry.peer.clock.now(), Ordering::Relaxed);
        if self.ledger.set_bytes(&self.entry, bytes) > self.ledger.budget {
            self.ledger.make_room(&mut self.ledger.entries());
        }
    }

    /// The same, but keeps the start of its wait.
    pub(super) fn wait_on_with(&self, bytes: usize) {
        let since = self.entry.since.load(Ordering::Relaxed);
        self.wait_with(bytes);
        if since != 0 {
            self.entry.since.store(since, Ordering::Relaxed);
        }
    }

    /// Ends the call because it waited too long.
    pub(super) fn record_late(&self) {
        self.ledger.counts.late.inc();
    }

    /// No byte of the call waits.
    pub(super) fn stop_waiting(&self) {
        if self.entry.since.swap(0, Ordering::Relaxed) != 0 {
            self.ledger.set_bytes(&self.entry, 0);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.ledger.entries().open.remove(&self.number);
        self.ledger.set_bytes(&self.entry, 0);
    }
}

impl Entry {
    /// Registers the task that serves the call, which ends when the call is cut.
    pub(super) fn set_task(&self, task: AbortHandle) {
        // Set once: a call has one task.
        let _ = self.task.set(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::peer::Clock;

    fn ledger(budget: usize, limit: usize) -> Arc<Ledger> {
        let counter = || IntCounter::new("name", "help").unwrap();
        let counts = Counts { bytes: IntGauge::new("bytes", "help").unwrap(), cut: counter(), late: counter() };
        Arc::new(Ledger::new(budget, limit, counts))
    }

    fn peer() -> Arc<Peer> {
        Arc::new(Peer::new(Clock::new()))
    }

    fn running(registration: &Registration) -> tokio::task::JoinHandle<()> {
        let task = tokio::spawn(std::future::pending());
        registration.entry().set_task(task.abort_handle());
        task
    }

    #[test]
    fn the_connection_that_holds_most_for_longest_is_closed() {
        let ledger = ledger(100, 10);
        let (hoarder, honest) = (peer(), peer());
        let hoard: Vec<_> = (0..3).map(|_| ledger.register(&hoarder)).collect();
        let registration = ledger.register(&honest);
        hoard.iter().for_each(|registration| registration.wait_with(20));
        registration.wait_with(40);
        assert_eq!((hoarder.closed(), honest.closed()), (None, None));
        registration.wait_with(50);
        assert_eq!((hoarder.closed(), honest.closed()), (Some(Closed::Hoarding), None));
        assert_eq!((ledger.counts.cut.get(), ledger.counts.bytes.get()), (3, 50));
        drop((hoard, registration));
        assert_eq!((ledger.counts.bytes.get(), ledger.used.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn nothing_is_closed_for_what_is_read() {
        let ledger = ledger(100, 10);
        let (one, other) = (peer(), peer());
        let (large, small) = (ledger.register(&one), ledger.register(&other));
        large.wait_with(90);
        large.stop_waiting();
        small.wait_with(100);
        assert_eq!((one.closed(), other.closed()), (None, None));
    }

    #[test]
    fn there_are_so_many_calls_and_no_more() {
        let ledger = ledger(100_000, 8);
        let (hoarder, honest) = (peer(), peer());
        let hoard: Vec<_> = (0..7).map(|_| ledger.register(&hoarder)).collect();
        hoard.iter().for_each(|registration| registration.wait_with(1));
        let registration = ledger.register(&honest);
        registration.wait_with(1);
        assert_eq!(hoarder.closed(), None);
        let _more = ledger.register(&honest);
        assert_eq!((hoarder.closed(), honest.closed()), (Some(Closed::Hoarding), None));
        assert_eq!(ledger.entries().open.len(), 2);
    }

    #[tokio::test]
    async fn what_waits_too_long_is_cut_and_what_goes_on_is_not() {
        let (ledger, peer) = (ledger(100, 10), peer());
        let (late, idle) = (ledger.register(&peer), ledger.register(&peer));
        let (cut, kept) = (running(&late), running(&idle));
        late.wait_with(1);
        idle.wait_with(1);
        tokio::time::sleep(Duration::from_millis(30)).await;
        idle.stop_waiting();
        late.wait_on_with(2);
        ledger.cut_late(Duration::from_millis(20));
        assert!(cut.await.unwrap_err().is_cancelled());
        assert!(!kept.is_finished());
        assert_eq!((ledger.counts.late.get(), ledger.counts.cut.get()), (1, 0));
    }
}
