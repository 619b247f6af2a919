//! What the server acknowledged to the buyers, and how long it took. Counts; sends nothing.

use std::{
    collections::BTreeMap,
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
    /// By line, in the order in which they were reserved.
    pub(crate) parts: Vec<Part>,
    pub(crate) end: End,
}

/// What a reservation sold of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) product: usize,
    /// Units.
    pub(crate) sold: u32,
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
    /// Beside the selling: not measured.
    Aside,
}

/// How an attempt was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Reserved { units: u32 },
    SoldOut,
    Refused,
}

/// The books of the buyers' side.
#[derive(Debug)]
pub(crate) struct Ledger {
    units: u64,
    attempts: AtomicU64,
    rush_attempts: AtomicU64,
    reserved: AtomicU64,
    reserved_units: AtomicU64,
    refused: AtomicU64,
    repurchased: AtomicU64,
    sold_out: AtomicU64,
    replays: AtomicU64,
    shed: AtomicU64,
    troubled: AtomicU64,
    broken: AtomicU64,
    words: Mutex<Vec<String>>,
    refusals: Mutex<Tally>,
    played: Mutex<Tally>,
    entries: Mutex<Vec<Entry>>,
    rush: Mutex<Histogram<u64>>,
    lone: Mutex<Histogram<u64>>,
    clock: Mutex<Clock>,
}

/// Counts by name.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

/// The time of selling: runs in the waves and stands while expiry is awaited.
#[derive(Debug, Default)]
struct Clock {
    elapsed: Duration,
    since: Option<Instant>,
    /// What it showed when as many units had been reserved as there were at first, and the reservations by then.
    at_units: Option<(Duration, u64)>,
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
            reserved_units: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            repurchased: AtomicU64::new(0),
            sold_out: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            troubled: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            words: Mutex::default(),
            refusals: Mutex::default(),
            played: Mutex::default(),
            entries: Mutex::default(),
            rush: histogram(),
            lone: histogram(),
            clock: Mutex::default(),
        }
    }

    /// The selling goes on, if it is measured.
    pub(crate) fn clock_on(&self, pace: Pace) {
        if let Pace::Rush = pace {
            lock(&self.clock).since = Some(Instant::now());
        }
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
            Pace::Aside => return,
        };
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        lock(histogram).saturating_record(micros);
    }

    /// An attempt was answered.
    pub(crate) fn attempted(&self, pace: Pace, answer: Answer) {
        match answer {
            Answer::Reserved { units } => self.reserved(units.into()),
            Answer::SoldOut => _ = self.sold_out.fetch_add(1, Relaxed),
            Answer::Refused => _ = self.refused.fetch_add(1, Relaxed),
        }
        self.attempts.fetch_add(1, Relaxed);
        if let Pace::Rush = pace {
            self.rush_attempts.fetch_add(1, Relaxed);
        }
    }

    fn reserved(&self, units: u64) {
        let reservations = self.reserved.fetch_add(1, Relaxed) + 1;
        let before = self.reserved_units.fetch_add(units, Relaxed);
        if before < self.units && before + units >= self.units {
            let mut clock = lock(&self.clock);
            clock.at_units = Some((clock.reads(), reservations));
        }
    }

    /// A late payment repurchased its lines: a reservation that no attempt made.
    pub(crate) fn repurchased(&self) {
        self.repurchased.fetch_add(1, Relaxed);
    }

    /// Makes the tallies show these, even where they stay at zero.
    pub(crate) fn expect(&self, refusals: &[&'static str], played: &[&'static str]) {
        lock(&self.refusals).extend(refusals.iter().map(|&reason| (reason, 0)));
        lock(&self.played).extend(played.iter().map(|&what| (what, 0)));
    }

    /// A call was refused for a reason that the sale is there to show.
    pub(crate) fn refusal(&self, reason: &'static str) {
        *lock(&self.refusals).entry(reason).or_default() += 1;
    }

    /// Something happened that the sale is there to show.
    pub(crate) fn played(&self, what: &'static str) {
        *lock(&self.played).entry(what).or_default() += 1;
    }

    /// The refusals by reason, and what happened by name.
    pub(crate) fn tallies(&self) -> (Tally, Tally) {
        (lock(&self.refusals).clone(), lock(&self.played).clone())
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
            reserved: self.reserved.load(Relaxed) + self.repurchased.load(Relaxed),
            repurchased: self.repurchased.load(Relaxed),
            refused: self.refused.load(Relaxed),
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

    /// How long the waves took together; how long until as many units had been reserved as there were at first,
    /// and how many reservations that took.
    pub(crate) fn times(&self) -> (Duration, Duration, u64) {
        let clock = lock(&self.clock);
        let selling = clock.reads();
        let (at_units, reservations) = clock.at_units.unwrap_or((selling, self.reserved.load(Relaxed)));
        (selling, at_units, reservations)
    }

    /// Median and 99th percentile in microseconds; zero where there was no call.
    pub(crate) fn quantiles(&self, pace: Pace) -> (u64, u64) {
        let histogram = lock(match pace {
            Pace::Rush => &self.rush,
            Pace::Lone => &self.lone,
            Pace::Aside => return (0, 0),
        });
        (histogram.value_at_quantile(0.50), histogram.value_at_quantile(0.99))
    }
}

/// The counters of a ledger at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) attempts: u64,
    pub(crate) rush_attempts: u64,
    /// Reservations, including those that a late payment repurchased.
    pub(crate) reserved: u64,
    pub(crate) repurchased: u64,
    /// Attempts that a rule refused.
    pub(crate) refused: u64,
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
