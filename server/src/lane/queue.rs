//! The queue of a lane: bounded, in order, taken from in groups. Pure but for its lock.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

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
    is_closed: bool,
}

impl<T> Queue<T> {
    /// One in which so many may wait.
    pub(super) fn new(limit: usize) -> Self {
        let state = State { waiting: VecDeque::new(), is_closed: false };
        Self { limit, state: Mutex::new(state), look: Notify::new() }
    }

    /// Adds one at the end; `false` if too many wait.
    pub(super) fn push(&self, item: T) -> bool {
        let mut state = self.state();
        if state.waiting.len() >= self.limit {
            return false;
        }
        state.waiting.push_back(item);
        drop(state);
        self.look.notify_one();
        true
    }

    /// Puts these back to where they came from, whatever the limit.
    pub(super) fn put_back(&self, items: Vec<T>) {
        let mut state = self.state();
        for item in items.into_iter().rev() {
            state.waiting.push_front(item);
        }
        drop(state);
        self.look.notify_one();
    }

    /// Nothing more is added; what waits can be taken still.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.look.notify_one();
    }

    /// Waits until something can be taken; `false` if nothing ever will.
    pub(super) async fn wait(&self) -> bool {
        loop {
            let (is_empty, is_closed) = {
                let state = self.state();
                (state.waiting.is_empty(), state.is_closed)
            };
            if !is_empty {
                return true;
            }
            if is_closed {
                // The others shall know too.
                self.look.notify_one();
                return false;
            }
            self.look.notified().await;
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.state().waiting.len()
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

    /// Takes out all of which this is true, from wherever they stand.
    pub(super) fn take_if(&self, mut is_taken: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut state = self.state();
        if !state.waiting.iter().any(&mut is_taken) {
            return Vec::new();
        }
        let (taken, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut state.waiting).into_iter().partition(is_taken);
        state.waiting = rest;
        taken.into()
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
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.take_if(|i| i % 2 == 1), [3]);
        assert!(queue.take_if(|i| *i > 4).is_empty());
        queue.close();
        assert!(queue.wait().await, "what waits can be taken still");
        assert_eq!(queue.take(9), [2, 4]);
        assert!(!queue.wait().await);
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
