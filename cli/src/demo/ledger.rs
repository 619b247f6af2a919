//! What the server acknowledged to the buyers, and how long it took. Counts; sends nothing.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::plan::Plan;

/// The longest latency told apart, in microseconds: one minute.
const LONGEST_US: u64 = 60_000_000;
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;
/// How many broken promises are kept in words; all are counted.
const WORDS: usize = 20;

/// One reservation that was acknowledged to a buyer, and what he was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) product: usize,
    pub(crate) end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    RolledBack,
    /// Left to its deadline.
    Expired,
    /// The server acknowledged it and then did not know it, or refused what it must not refuse.
    Lost,
}

/// Whose latency it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// One of many at once.
    Rush,
    /// The only call under way.
    Lone,
}

/// The books of the buyers' side.
#[derive(Debug)]
pub(crate) struct Ledger {
    units: u64,
    attempts: AtomicU64,
    rush_attempts: AtomicU64,
    reserved: AtomicU64,
    sold_out: AtomicU64,
    replays: AtomicU64,
    shed: AtomicU64,
    troubled: AtomicU64,
    broken: AtomicU64,
    words: Mutex<Vec<String>>,
    entries: Mutex<Vec<Entry>>,
    rush: Mutex<Histogram<u64>>,
    lone: Mutex<Histogram<u64>>,
    clock: Mutex<Clock>,
}

/// The time of selling: runs in the waves and stands while expiry is awaited.
#[derive(Debug, Default)]
struct Clock {
    elapsed: Duration,
    since: Option<Instant>,
    /// What it showed when there were as many reservations as units.
    at_units: Option<Duration>,
}

impl Clock {
    fn reads(&self) -> Duration {
        self.elapsed + self.since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

impl Ledger {
    pub(crate) fn new(plan: &Plan) -> Ledger {
        let histogram = || {
            Mutex::new(
                Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are constants that make sense"),
            )
        };
        Ledger {
            units: plan.units.into(),
            attempts: AtomicU64::new(0),
            rush_attempts: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            sold_out: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            troubled: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            words: Mutex::default(),
            entries: Mutex::default(),
            rush: histogram(),
            lone: histogram(),
            clock: Mutex::default(),
        }
    }

    pub(crate) fn clock_on(&self) {
        lock(&self.clock).since = Some(Instant::now());
    }

    pub(crate) fn clock_off(&self) {
        let mut clock = lock(&self.clock);
        clock.elapsed = clock.reads();
        clock.since = None;
    }

    /// A Reserve call was answered.
    pub(crate) fn latency(&self, pace: Pace, latency: Duration) {
        let histogram = match pace {
            Pace::Rush => &self.rush,
            Pace::Lone => &self.lone,
        };
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        lock(histogram).saturating_record(micros);
    }

    /// An attempt was answered: it has a reservation, or there is none to be had.
    pub(crate) fn attempted(&self, pace: Pace, reserved: bool) {
        if !reserved {
            self.sold_out.fetch_add(1, Relaxed);
        } else if self.reserved.fetch_add(1, Relaxed) + 1 == self.units {
            let mut clock = lock(&self.clock);
            clock.at_units = Some(clock.reads());
        }
        self.attempts.fetch_add(1, Relaxed);
        if let Pace::Rush = pace {
            self.rush_attempts.fetch_add(1, Relaxed);
        }
    }

    /// A repeat was answered as one.
    pub(crate) fn replayed(&self) {
        self.replays.fetch_add(1, Relaxed);
    }

    /// A call had to be sent again: it was shed, or the server was in trouble.
    pub(crate) fn repeated(&self, shed: bool) {
        let counter = if shed { &self.shed } else { &self.troubled };
        counter.fetch_add(1, Relaxed);
    }

    /// The server said what it must not say.
    pub(crate) fn broken(&self, what: String) {
        self.broken.fetch_add(1, Relaxed);
        let mut words = lock(&self.words);
        if words.len() < WORDS {
            words.push(what);
        }
    }

    /// A reservation has come to its end, as far as its buyer knows.
    pub(crate) fn enter(&self, entry: Entry) {
        lock(&self.entries).push(entry);
    }

    /// All reservations that were acknowledged.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// The counters as they are now.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            attempts: self.attempts.load(Relaxed),
            rush_attempts: self.rush_attempts.load(Relaxed),
            reserved: self.reserved.load(Relaxed),
            sold_out: self.sold_out.load(Relaxed),
            replays: self.replays.load(Relaxed),
            shed: self.shed.load(Relaxed),
            troubled: self.troubled.load(Relaxed),
            broken: self.broken.load(Relaxed),
        }
    }

    /// Broken promises in words, the first few.
    pub(crate) fn broken_words(&self) -> Vec<String> {
        lock(&self.words).clone()
    }

    /// How long the waves took together, and how long until there were as many reservations as units.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        let clock = lock(&self.clock);
        let selling = clock.reads();
        (selling, clock.at_units.unwrap_or(selling))
    }

    /// Median and 99th percentile in microseconds; zero where there was no call.
    pub(crate) fn quantiles(&self, pace: Pace) -> (u64, u64) {
        let histogram = lock(match pace {
            Pace::Rush => &self.rush,
            Pace::Lone => &self.lone,
        });
        (histogram.value_at_quantile(0.50), histogram.value_at_quantile(0.99))
    }
}

/// The counters of a ledger at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) attempts: u64,
    pub(crate) rush_attempts: u64,
    pub(crate) reserved: u64,
    pub(crate) sold_out: u64,
    pub(crate) replays: u64,
    pub(crate) shed: u64,
    pub(crate) troubled: u64,
    pub(crate) broken: u64,
}

/// Locks; a buyer that panicked leaves the ledger readable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
