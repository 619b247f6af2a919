//! The open connections, in a bounded number. If the port is full, a new connection replaces the
//! one that has been longest without a call; first among those without a response so far. Pure but
//! for the clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::peer::{Clock, ConnectionTimeouts, Peer};
use crate::telemetry::transport::Closed;
use crate::telemetry::transport::TransportMetrics;

/// The slots of one port.
#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    clock: Clock,
    open: Mutex<Open>,
    metrics: TransportMetrics,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    peers: HashMap<u64, Arc<Peer>>,
}

/// The slot of one connection. Freed when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    peer: Arc<Peer>,
}

impl Slot {
    pub(crate) fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.open().peers.remove(&self.number);
        self.slots.metrics.add_connections(-1);
    }
}

impl Slots {
    pub(crate) fn new(max: usize, metrics: TransportMetrics) -> Self {
        Self { max, clock: Clock::new(), open: Mutex::default(), metrics }
    }

    /// A slot for a new connection; `None`: all are taken by connections with calls.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Slot> {
        let mut open = self.open();
        if open.peers.len() >= self.max && !evict(&mut open) {
            self.metrics.inc_refused();
            return None;
        }
        let peer = Arc::new(Peer::new(self.clock));
        let number = open.next;
        open.next += 1;
        open.peers.insert(number, Arc::clone(&peer));
        self.metrics.add_connections(1);
        Some(Slot { slots: Arc::clone(self), number, peer })
    }

    /// Closes the connection that has been longest without a call.
    pub(crate) fn close_idle(&self) {
        evict(&mut self.open());
    }

    /// Closes the connections that exceed a time limit.
    pub(crate) fn close_late(&self, timeouts: &ConnectionTimeouts) {
        for peer in self.open().peers.values() {
            if let Some(exceeded_limit) = peer.exceeded_limit(timeouts) {
                peer.close(exceeded_limit);
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connection that has been longest without a call; false: each has one. Its slot is
/// free at once, its descriptor soon.
fn evict(open: &mut Open) -> bool {
    // A connection with a response is closed only if there is no other.
    let idle = open.peers.iter().filter_map(|(number, peer)| Some((peer.is_proven(), peer.idle_since()?, *number)));
    let Some((_, _, number)) = idle.min() else { return false };
    if let Some(peer) = open.peers.remove(&number) {
        peer.close(Closed::Evicted);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(max: usize) -> Arc<Slots> {
        let metrics = TransportMetrics::new(&prometheus::Registry::new()).unwrap();
        Arc::new(Slots::new(max, metrics))
    }

    #[test]
    fn the_longest_idle_makes_room_and_a_busy_one_does_not() {
        let slots = slots(2);
        let (one, other) = (slots.take().unwrap(), slots.take().unwrap());
        one.peer.begin_call();
        let third = slots.take().expect("the idle one is closed");
        assert_eq!((one.peer.closed(), other.peer.closed()), (None, Some(Closed::Evicted)));
        third.peer.begin_call();
        assert!(slots.take().is_none());
        drop(other);
        assert!(slots.take().is_none(), "its slot was given away");
        drop(one);
        assert!(slots.take().is_some());
    }

    #[test]
    fn one_that_had_an_answer_stays_before_one_that_had_none() {
        let slots = slots(2);
        let (proven, untrusted) = (slots.take().unwrap(), slots.take().unwrap());
        proven.peer.earn();
        let _third = slots.take().expect("the untrusted one is closed");
        assert_eq!((proven.peer.closed(), untrusted.peer.closed()), (None, Some(Closed::Evicted)));
    }
}
