//! The queue of a lane: bounded, in order, taken from in groups. Pure but for its lock and the clock.
//!
//! An item that has to be sent again is parked. Parked items have an order of their own, so that a batch can limit how
//! many of them it takes.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// What waits for the workers of one lane.
#[derive(Debug)]
pub(super) struct Queue<T> {
    limit: usize,
    state: Mutex<State<T>>,
    /// Somebody should look: something waits, or nothing ever will.
    look: Notify,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    parked: VecDeque<T>,
    /// No parked item is taken before this instant.
    parked_until: Instant,
    is_closed: bool,
}

impl<T> State<T> {
    fn len(&self) -> usize {
        self.waiting.len() + self.parked.len()
    }

    fn has_parked(&self) -> bool {
        !self.parked.is_empty() && self.parked_until <= Instant::now()
    }
}

impl<T> Queue<T> {
    /// One in which so many may wait. Items that return to it may exceed the limit, by those of the batches under way.
    pub(super) fn new(limit: usize) -> Self {
        let state =
            State { waiting: VecDeque::new(), parked: VecDeque::new(), parked_until: Instant::now(), is_closed: false };
        Self { limit, state: Mutex::new(state), look: Notify::new() }
    }

    /// Adds one at the end; `false` if too many wait, parked ones included.
    pub(super) fn push(&self, item: T) -> bool {
        self.add(item, |state| &mut state.waiting)
    }

    /// Adds one behind the parked ones, which goes when they go; `false` if too many wait.
    pub(super) fn push_parked(&self, item: T) -> bool {
        self.add(item, |state| &mut state.parked)
    }

    fn add(&self, item: T, list: impl FnOnce(&mut State<T>) -> &mut VecDeque<T>) -> bool {
        let mut state = self.state();
        if state.len() >= self.limit {
            return false;
        }
        list(&mut state).push_back(item);
        drop(state);
        self.look.notify_one();
        true
    }

    /// Puts these back to where [`Queue::take`] found them.
    pub(super) fn put_back(&self, items: Vec<T>) {
        let mut state = self.state();
        for item in items.into_iter().rev() {
            state.waiting.push_front(item);
        }
        drop(state);
        self.look.notify_one();
    }

    /// Parks these behind the parked ones. No parked item is taken before this instant.
    pub(super) fn park(&self, items: Vec<T>, until: Instant) {
        let mut state = self.state();
        state.parked.extend(items);
        state.parked_until = state.parked_until.max(until);
        drop(state);
        self.look.notify_one();
    }

    /// Puts these back to where [`Queue::take_parked`] found them.
    pub(super) fn put_back_parked(&self, items: Vec<T>) {
        let mut state = self.state();
        for item in items.into_iter().rev() {
            state.parked.push_front(item);
        }
        drop(state);
        self.look.notify_one();
    }

    /// No parked item is taken before this instant.
    pub(super) fn delay_parked(&self, until: Instant) {
        let mut state = self.state();
        state.parked_until = state.parked_until.max(until);
    }

    /// Nothing more is added; what waits can be taken still.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.look.notify_one();
    }

    /// Waits until something can be taken; `false` if nothing ever will.
    pub(super) async fn wait(&self) -> bool {
        loop {
            let parked_until = {
                let state = self.state();
                if !state.waiting.is_empty() || state.has_parked() {
                    return true;
                }
                if state.is_closed && state.parked.is_empty() {
                    drop(state);
                    // The others shall know too.
                    self.look.notify_one();
                    return false;
                }
                (!state.parked.is_empty()).then_some(state.parked_until)
            };
            match parked_until {
                // Both ends of this wait lead to another look.
                Some(until) => _ = timeout_at(until, self.look.notified()).await,
                None => self.look.notified().await,
            }
        }
    }

    /// How many wait, parked ones not included.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Whether so many wait that new ones are refused soon.
    pub(super) fn is_half_full(&self) -> bool {
        self.state().len() > self.limit / 2
    }

    /// Takes so many at most from the front.
    pub(super) fn take(&self, most: usize) -> Vec<T> {
        let mut state = self.state();
        let number = state.waiting.len().min(most);
        if number < state.waiting.len() {
            let taken = state.waiting.drain(..number).collect();
            drop(state);
            self.look.notify_one();
            return taken;
        }
        // Where all go, usually none is copied. As many will come as went.
        std::mem::replace(&mut state.waiting, VecDeque::with_capacity(number)).into()
    }

    /// Takes so many parked ones at most, in the order in which they were parked.
    pub(super) fn take_parked(&self, most: usize) -> Vec<T> {
        let mut state = self.state();
        if !state.has_parked() {
            return Vec::new();
        }
        let number = state.parked.len().min(most);
        let taken = state.parked.drain(..number).collect();
        let is_left = !state.parked.is_empty();
        drop(state);
        if is_left {
            self.look.notify_one();
        }
        taken
    }

    /// Takes out all of which this is true, from wherever they stand.
    pub(super) fn take_if(&self, mut is_taken: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut state = self.state();
        let state = &mut *state;
        let mut all = Vec::new();
        for items in [&mut state.waiting, &mut state.parked] {
            if items.iter().any(&mut is_taken) {
                let (taken, rest): (VecDeque<_>, VecDeque<_>) =
                    std::mem::take(items).into_iter().partition(&mut is_taken);
                *items = rest;
                all.extend(taken);
            }
        }
        all
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn what_waits_is_taken_in_order_and_up_to_the_limit() {
        let queue = Queue::new(4);
        assert_eq!([1, 2, 3, 4, 5].map(|i| queue.push(i)), [true, true, true, true, false]);
        assert!(queue.wait().await);
        let first = queue.take(3);
        assert_eq!(first, [1, 2, 3]);
        queue.put_back(first[1..].to_vec());
        assert_eq!(queue.waiting(), 3);
        assert_eq!(queue.take_if(|i| i % 2 == 1), [3]);
        assert!(queue.take_if(|i| *i > 4).is_empty());
        queue.close();
        assert!(queue.wait().await, "what waits can be taken still");
        assert_eq!(queue.take(9), [2, 4]);
        assert!(!queue.wait().await);
    }

    #[tokio::test]
    async fn parked_ones_have_an_order_of_their_own_and_count_in_the_limit() {
        let queue = Queue::new(4);
        let pause = Duration::from_millis(20);
        assert!([1, 2].iter().all(|&i| queue.push(i)));
        queue.park(vec![10, 11], Instant::now() + pause);
        assert!(!queue.push(3), "two wait and two are parked");
        assert!(queue.is_half_full() && queue.waiting() == 2);
        assert!(queue.take_parked(9).is_empty(), "not before the instant");
        assert_eq!(queue.take(9), [1, 2]);
        let start = Instant::now();
        assert!(queue.wait().await);
        assert!(start.elapsed() >= pause);
        queue.park(vec![12], Instant::now());
        let until = Instant::now() + pause;
        queue.delay_parked(until);
        queue.delay_parked(Instant::now());
        assert!(queue.take_parked(9).is_empty(), "the later instant counts");
        assert!(queue.wait().await && Instant::now() >= until);
        let mut taken = queue.take_parked(2);
        assert_eq!(taken, [10, 11]);
        queue.put_back_parked(taken.split_off(1));
        queue.close();
        assert!(queue.wait().await, "what is parked can be taken still");
        assert_eq!(queue.take_if(|i| *i == 12), [12]);
        assert_eq!(queue.take_parked(9), [11]);
        assert!(!queue.wait().await);
        assert_eq!([1, 2, 3, 4, 5].map(|i| queue.push_parked(i)), [true, true, true, true, false]);
        assert_eq!((queue.waiting(), queue.take_parked(9)), (0, vec![1, 2, 3, 4]));
    }

    #[tokio::test]
    async fn every_worker_hears_of_more_and_of_the_end() {
        let queue = Arc::new(Queue::new(100));
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move {
                    let mut all = Vec::new();
                    while queue.wait().await {
                        all.extend(queue.take(1));
                        // Long enough for the others to be needed.
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    all
                })
            })
            .collect();
        for i in 0..30 {
            assert!(queue.push(i));
        }
        queue.close();
        let mut all = Vec::new();
        for worker in workers {
            let its = tokio::time::timeout(Duration::from_secs(10), worker).await.expect("it ends").unwrap();
            assert!(!its.is_empty());
            all.extend(its);
        }
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<u32>>());
    }
}
