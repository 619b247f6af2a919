//! The open connections, in a bounded number. If the port is full, a new connection replaces the
//! one that has been longest without a call; first among those without a response so far. Pure but
//! for the clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::peer::{Clock, Closed, Patience, Peer};
use crate::telemetry::transport::TransportMetrics;

/// The places of one port.
#[derive(Debug)]
pub(crate) struct Places {
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

/// The place of one connection. Freed when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    peer: Arc<Peer>,
}

impl Place {
    pub(crate) fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().peers.remove(&self.number);
        self.places.metrics.add_connections(-1);
    }
}

impl Places {
    pub(crate) fn new(max: usize, metrics: TransportMetrics) -> Self {
        Self { max, clock: Clock::new(), open: Mutex::default(), metrics }
    }

    /// A place for a new connection; `None`: all are taken by connections with calls.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
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
        Some(Place { places: Arc::clone(self), number, peer })
    }

    /// Closes the connection that has been longest without a call.
    pub(crate) fn close_idle(&self) {
        evict(&mut self.open());
    }

    /// Closes the connections that exceed a time limit.
    pub(crate) fn close_late(&self, patience: &Patience) {
        for peer in self.open().peers.values() {
            if let Some(exceeded_limit) = peer.exceeded_limit(patience) {
                peer.close(exceeded_limit);
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connection that has been longest without a call; false: each has one. Its place is
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

    fn places(max: usize) -> Arc<Places> {
        let metrics = TransportMetrics::new(&prometheus::Registry::new()).unwrap();
        Arc::new(Places::new(max, metrics))
    }

    #[test]
    fn the_longest_idle_makes_room_and_a_busy_one_does_not() {
        let places = places(2);
        let (one, other) = (places.take().unwrap(), places.take().unwrap());
        one.peer.begin_call();
        let third = places.take().expect("the idle one is closed");
        assert_eq!((one.peer.closed(), other.peer.closed()), (None, Some(Closed::Evicted)));
        third.peer.begin_call();
        assert!(places.take().is_none());
        drop(other);
        assert!(places.take().is_none(), "its place was given away");
        drop(one);
        assert!(places.take().is_some());
    }

    #[test]
    fn one_that_had_an_answer_stays_before_one_that_had_none() {
        let places = places(2);
        let (proven, stranger) = (places.take().unwrap(), places.take().unwrap());
        proven.peer.earn();
        let _third = places.take().expect("the untrusted one is closed");
        assert_eq!((proven.peer.closed(), stranger.peer.closed()), (None, Some(Closed::Evicted)));
    }
}
