//! The queue of a lane: bounded and ordered; workers take several items at once. Uses a lock and the clock. No I/O.
//!
//! Items can be parked: those that must be resent, and sweeps. Parked items have a separate order, so a batch can
//! limit how many of them it takes.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// The items that wait for the workers of one lane.
#[derive(Debug)]
pub(super) struct Queue<T> {
    limit: usize,
    state: Mutex<State<T>>,
    /// Wakes one worker: an item is queued, or the queue is closed.
    wakeup: Notify,
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

    fn can_take_parked(&self) -> bool {
        !self.parked.is_empty() && self.parked_until <= Instant::now()
    }
}

impl<T> Queue<T> {
    /// An empty queue for at most `limit` items. Items that workers put back or park may exceed the limit.
    pub(super) fn new(limit: usize) -> Self {
        let state =
            State { waiting: VecDeque::new(), parked: VecDeque::new(), parked_until: Instant::now(), is_closed: false };
        Self { limit, state: Mutex::new(state), wakeup: Notify::new() }
    }

    /// Adds an item at the end. Returns `false` if the queue is full; parked items count.
    pub(super) fn push(&self, item: T) -> bool {
        self.add(item, |state| &mut state.waiting)
    }

    /// Parks a new item, behind the others. Returns `false` if the queue is full.
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
        self.wakeup.notify_one();
        true
    }

    /// Puts items back to the front, from where [`Queue::take`] took them.
    pub(super) fn put_back(&self, items: Vec<T>) {
        let mut state = self.state();
        for item in items.into_iter().rev() {
            state.waiting.push_front(item);
        }
        drop(state);
        self.wakeup.notify_one();
    }

    /// Parks items that were taken, behind the others. No parked item is taken before `until`.
    pub(super) fn park(&self, items: Vec<T>, until: Instant) {
        let mut state = self.state();
        state.parked.extend(items);
        state.parked_until = state.parked_until.max(until);
        drop(state);
        self.wakeup.notify_one();
    }

    /// Puts items back to the front of the parked ones, from where [`Queue::take_parked`] took them.
    pub(super) fn put_back_parked(&self, items: Vec<T>) {
        let mut state = self.state();
        for item in items.into_iter().rev() {
            state.parked.push_front(item);
        }
        drop(state);
        self.wakeup.notify_one();
    }

    /// Takes no parked item before `until`.
    pub(super) fn delay_parked(&self, until: Instant) {
        let mut state = self.state();
        state.parked_until = state.parked_until.max(until);
    }

    /// Ends [`Queue::wait`] once the queue is empty. Queued items can still be taken.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.wakeup.notify_one();
    }

    /// Waits until an item can be taken. Returns `false` if the queue is closed and empty.
    pub(super) async fn wait(&self) -> bool {
        loop {
            let parked_until = {
                let state = self.state();
                if !state.waiting.is_empty() || state.can_take_parked() {
                    return true;
                }
                if state.is_closed && state.parked.is_empty() {
                    drop(state);
                    // Wake the other workers too.
                    self.wakeup.notify_one();
                    return false;
                }
                (!state.parked.is_empty()).then_some(state.parked_until)
            };
            match parked_until {
                // The loop checks again after either end of this wait.
                Some(until) => _ = timeout_at(until, self.wakeup.notified()).await,
                None => self.wakeup.notified().await,
            }
        }
    }

    /// The number of queued items without the parked ones.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Whether the queue is more than half full. Parked items count.
    pub(super) fn is_half_full(&self) -> bool {
        self.state().len() > self.limit / 2
    }

    /// Takes at most `most` items from the front.
    pub(super) fn take(&self, most: usize) -> Vec<T> {
        let mut state = self.state();
        let number = state.waiting.len().min(most);
        if number < state.waiting.len() {
            let taken = state.waiting.drain(..number).collect();
            drop(state);
            self.wakeup.notify_one();
            return taken;
        }
        // To take all items, the buffer is moved. The new buffer has room for as many, the likely size of the next
        // batch.
        std::mem::replace(&mut state.waiting, VecDeque::with_capacity(number)).into()
    }

    /// Takes at most `most` parked items, in the order in which they were parked.
    pub(super) fn take_parked(&self, most: usize) -> Vec<T> {
        let mut state = self.state();
        if !state.can_take_parked() {
            return Vec::new();
        }
        let number = state.parked.len().min(most);
        let taken = state.parked.drain(..number).collect();
        let is_left = !state.parked.is_empty();
        drop(state);
        if is_left {
            self.wakeup.notify_one();
        }
        taken
    }

    /// Takes all items for which `is_taken` is true, parked ones too.
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
