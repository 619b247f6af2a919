//! The last entries of a feed, bounded in number and in bytes, for any number of readers. Pure but
//! for its lock: no I/O.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// The entries from `first` on.
#[derive(Debug)]
struct State<T> {
    entries: VecDeque<(T, usize)>,
    /// The number of the oldest entry that is kept.
    first: u64,
    bytes: usize,
}

/// Keeps the last entries. A reader that falls behind the oldest is overtaken.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    max_entries: usize,
    max_bytes: usize,
    state: Mutex<State<T>>,
    /// The number of the next entry.
    next: watch::Sender<u64>,
}

/// One reader of a backlog.
#[derive(Debug)]
pub(super) struct BacklogReader<T> {
    backlog: Arc<Backlog<T>>,
    pushed: watch::Receiver<u64>,
    next: u64,
}

/// The next entry was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overtaken;

impl<T: Clone> Backlog<T> {
    /// A backlog with these limits. The newest entry is kept whatever its size.
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Arc<Self> {
        let state = State { entries: VecDeque::new(), first: 0, bytes: 0 };
        Arc::new(Self { max_entries, max_bytes, state: Mutex::new(state), next: watch::channel(0).0 })
    }

    /// Adds an entry of this size.
    pub(super) fn push(&self, entry: T, bytes: usize) {
        let mut state = self.state();
        state.entries.push_back((entry, bytes));
        state.bytes += bytes;
        while state.entries.len() > self.max_entries || (state.bytes > self.max_bytes && state.entries.len() > 1) {
            if let Some((_, bytes)) = state.entries.pop_front() {
                state.bytes -= bytes;
                state.first += 1;
            }
        }
        let next = state.first + state.entries.len() as u64;
        drop(state);
        self.next.send_replace(next);
    }

    /// A reader of the entries that are pushed from now on.
    pub(super) fn subscribe(self: &Arc<Self>) -> BacklogReader<T> {
        let pushed = self.next.subscribe();
        let state = self.state();
        let next = state.first + state.entries.len() as u64;
        drop(state);
        BacklogReader { backlog: Arc::clone(self), pushed, next }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> BacklogReader<T> {
    /// The next entry. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<T, Overtaken> {
        loop {
            {
                let state = self.backlog.state();
                let at = self.next.checked_sub(state.first).ok_or(Overtaken)?;
                if let Some((entry, _)) = state.entries.get(at as usize) {
                    self.next += 1;
                    return Ok(entry.clone());
                }
            }
            // The backlog lives as long as its reader.
            let _ = self.pushed.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn it_is_bounded_in_entries_and_in_bytes_and_keeps_the_newest() {
        let backlog = Backlog::new(3, 100);
        let mut reader = backlog.subscribe();
        let mut next = || reader.next().now_or_never();
        assert_eq!(next(), None);
        backlog.push('a', 40);
        backlog.push('b', 40);
        assert_eq!((next(), next(), next()), (Some(Ok('a')), Some(Ok('b')), None));
        backlog.push('c', 40);
        let mut late = backlog.subscribe();
        backlog.push('d', 1_000);
        assert_eq!(backlog.state().bytes, 1_000);
        assert_eq!(next(), Some(Err(Overtaken)));
        assert_eq!(late.next().now_or_never(), Some(Ok('d')));
        for letter in ['e', 'f', 'g', 'h'] {
            backlog.push(letter, 1);
        }
        let kept = {
            let state = backlog.state();
            (state.entries.len(), state.bytes)
        };
        assert_eq!(kept, (3, 3));
        assert_eq!(late.next().now_or_never(), Some(Err(Overtaken)));
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let backlog = Backlog::new(3, 100);
        let mut reader = backlog.subscribe();
        let waiting = tokio::spawn(async move { reader.next().await });
        tokio::task::yield_now().await;
        backlog.push('a', 1);
        assert_eq!(waiting.await.unwrap(), Ok('a'));
    }
}
