//! Bytes that wait for somebody outside: of requests that have not arrived in full, or of responses that are not read.
//! Bounds their sum and their number; what has waited longest is cut for what comes. Pure but for the clock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::{IntCounter, IntGauge};
use tokio::task::AbortHandle;

use super::peer::Peer;

/// The share of the budget that is freed where it is used up, as a divisor: so that not each byte looks for its victim.
const FREED: usize = 8;

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
    /// In the order in which they came.
    open: BTreeMap<u64, Arc<Entry>>,
}

/// What a ledger reports.
#[derive(Debug)]
pub(super) struct Counts {
    /// Bytes that wait now.
    pub(super) bytes: IntGauge,
    /// Calls that were cut because too many waited.
    pub(super) cut: IntCounter,
    /// Calls that were cut because they waited too long.
    pub(super) late: IntCounter,
}

/// One call.
#[derive(Debug)]
pub(super) struct Entry {
    peer: Arc<Peer>,
    bytes: AtomicUsize,
    /// Since when it waits; 0: it does not.
    since: AtomicU64,
    /// The task that serves the call.
    task: OnceLock<AbortHandle>,
}

/// A place in a ledger, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    ledger: Arc<Ledger>,
    entry: Arc<Entry>,
    number: u64,
}

impl Ledger {
    pub(super) fn new(budget: usize, limit: usize, counts: Counts) -> Self {
        Self { budget, limit, used: AtomicUsize::new(0), entries: Mutex::default(), counts }
    }

    /// A place for a call of this connection. Where all are taken, the call that came first is cut.
    pub(super) fn enter(self: &Arc<Self>, peer: &Arc<Peer>) -> Place {
        let entry = Arc::new(Entry {
            peer: Arc::clone(peer),
            bytes: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            task: OnceLock::new(),
        });
        let mut entries = self.entries();
        if entries.open.len() >= self.limit
            && let Some((_, first)) = entries.open.pop_first()
        {
            self.cut(&first, &self.counts.cut);
        }
        let number = entries.next;
        entries.next += 1;
        entries.open.insert(number, Arc::clone(&entry));
        Place { ledger: Arc::clone(self), entry, number }
    }

    /// Cuts the calls that have waited for longer than this.
    pub(super) fn cut_late(&self, patience: Duration) {
        let mut entries = self.entries();
        let limit = patience.as_millis() as u64;
        let late = |entry: &Entry| {
            let since = entry.since.load(Ordering::Relaxed);
            since != 0 && entry.peer.clock.now().saturating_sub(since) > limit
        };
        let numbers: Vec<_> = entries.open.iter().filter(|(_, entry)| late(entry)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(entry) = entries.open.remove(&number) {
                self.cut(&entry, &self.counts.late);
            }
        }
    }

    /// Cuts the calls that have waited longest, other than this one, until some room is free again.
    fn make_room(&self, but: u64) {
        let mut entries = self.entries();
        let others = entries.open.iter().filter(|(number, _)| **number != but);
        let waiting = others.map(|(number, entry)| (entry.since.load(Ordering::Relaxed), *number));
        let mut waiting: Vec<_> = waiting.filter(|(since, _)| *since != 0).collect();
        waiting.sort_unstable();
        for (_, number) in waiting {
            if self.used.load(Ordering::Relaxed) <= self.budget - self.budget / FREED {
                return;
            }
            if let Some(entry) = entries.open.remove(&number) {
                self.cut(&entry, &self.counts.cut);
            }
        }
    }

    fn cut(&self, entry: &Entry, counter: &IntCounter) {
        counter.inc();
        entry.peer.note_cut();
        self.set_bytes(entry, 0);
        // A call whose task has not started yet waits for nothing: it is not the oldest.
        if let Some(task) = entry.task.get() {
            task.abort();
        }
    }

    /// Notes how many bytes of a call wait; returns the sum.
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

impl Place {
    pub(super) fn entry(&self) -> Arc<Entry> {
        Arc::clone(&self.entry)
    }

    /// So many bytes of the call wait, from now on. Cuts others while all together are more than may wait.
    pub(super) fn wait_with(&self, bytes: usize) {
        self.entry.since.store(self.entry.peer.clock.now(), Ordering::Relaxed);
        if self.ledger.set_bytes(&self.entry, bytes) > self.ledger.budget {
            self.ledger.make_room(self.number);
        }
    }

    /// The same, but it goes on waiting since when it does.
    pub(super) fn wait_on_with(&self, bytes: usize) {
        let since = self.entry.since.load(Ordering::Relaxed);
        self.wait_with(bytes);
        if since != 0 {
            self.entry.since.store(since, Ordering::Relaxed);
        }
    }

    /// Nothing of the call waits.
    pub(super) fn stop_waiting(&self) {
        if self.entry.since.swap(0, Ordering::Relaxed) != 0 {
            self.ledger.set_bytes(&self.entry, 0);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ledger.entries().open.remove(&self.number);
        self.ledger.set_bytes(&self.entry, 0);
    }
}

impl Entry {
    /// The task that serves the call: it ends where the call is cut.
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

    fn running(place: &Place) -> tokio::task::JoinHandle<()> {
        let task = tokio::spawn(std::future::pending());
        place.entry().set_task(task.abort_handle());
        task
    }

    #[tokio::test]
    async fn the_call_that_has_waited_longest_is_cut_for_bytes_of_others() {
        let (ledger, peer) = (ledger(100, 10), peer());
        let places: Vec<_> = (0..3).map(|_| ledger.enter(&peer)).collect();
        let tasks: Vec<_> = places.iter().map(running).collect();
        places[1].wait_with(60);
        tokio::time::sleep(Duration::from_millis(3)).await;
        places[0].wait_with(40);
        assert_eq!(ledger.counts.cut.get(), 0);
        tokio::time::sleep(Duration::from_millis(3)).await;
        places[2].wait_with(30);
        let mut tasks = tasks.into_iter();
        let (kept, cut) = (tasks.next().unwrap(), tasks.next().unwrap());
        assert!(cut.await.unwrap_err().is_cancelled());
        assert!(!kept.is_finished());
        assert_eq!((ledger.counts.cut.get(), ledger.counts.bytes.get()), (1, 70));
        drop(places);
        assert_eq!((ledger.counts.bytes.get(), ledger.used.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn a_call_alone_may_wait_with_more_and_nothing_is_cut_for_what_is_read() {
        let (ledger, peer) = (ledger(100, 10), peer());
        let (large, other) = (ledger.enter(&peer), ledger.enter(&peer));
        let task = running(&large);
        large.wait_with(500);
        large.stop_waiting();
        other.wait_with(100);
        assert!(!task.is_finished());
        assert_eq!(ledger.counts.cut.get(), 0);
    }

    #[tokio::test]
    async fn there_are_so_many_calls_and_no_more() {
        let (ledger, peer) = (ledger(100, 2), peer());
        let places: Vec<_> = (0..2).map(|_| ledger.enter(&peer)).collect();
        let task = running(&places[0]);
        places.iter().for_each(|place| place.wait_with(1));
        let _one_more = ledger.enter(&peer);
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(ledger.entries().open.len(), 2);
    }

    #[tokio::test]
    async fn what_waits_too_long_is_cut_and_what_goes_on_is_not() {
        let (ledger, peer) = (ledger(100, 10), peer());
        let (late, idle) = (ledger.enter(&peer), ledger.enter(&peer));
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
