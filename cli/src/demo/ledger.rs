//! The results that the server acknowledged to the buyers, and their latencies. Counts; sends nothing.

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

/// The longest measured latency, in microseconds: one minute.
const MAX_LATENCY_US: u64 = 60_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// Violations that are stored as text; all are counted.
const MAX_TEXTS: usize = 20;

/// An acknowledged reservation and its last acknowledged state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// By line, in the order of the request.
    pub(crate) parts: Vec<Part>,
    pub(crate) end: End,
}

/// The sold units of one line.
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
    /// The server acknowledged it and then did not find it, or refused a valid call.
    Lost,
}

/// The class of a latency.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LatencyClass {
    /// With many calls in flight.
    Concurrent,
    /// The only call in flight.
    Sequential,
    /// Not measured.
    Unmeasured,
}

/// The result of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Reserved { units: u32 },
    SoldOut,
    Refused,
}

/// The results of all buyers.
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
    violation: AtomicU64,
    texts: Mutex<Vec<String>>,
    refusals: Mutex<Tally>,
    played: Mutex<Tally>,
    entries: Mutex<Vec<Entry>>,
    concurrent: Mutex<Histogram<u64>>,
    lone: Mutex<Histogram<u64>>,
    clock: Mutex<Clock>,
}

/// Counts by name.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

/// The selling time: it runs during concurrent phases and is stopped while expiry is awaited.
#[derive(Debug, Default)]
struct Clock {
    elapsed: Duration,
    since: Option<Instant>,
    /// The selling time when the initial supply was reserved, and the reservations by then.
    at_units: Option<(Duration, u64)>,
}

impl Clock {
    fn reading(&self) -> Duration {
        self.elapsed + self.since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

impl Ledger {
    pub(crate) fn new(plan: &Plan) -> Ledger {
        let histogram = || {
            Mutex::new(Histogram::new_with_bounds(1, MAX_LATENCY_US, DIGITS).expect("the bounds are valid constants"))
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
            violation: AtomicU64::new(0),
            texts: Mutex::default(),
            refusals: Mutex::default(),
            played: Mutex::default(),
            entries: Mutex::default(),
            concurrent: histogram(),
            lone: histogram(),
            clock: Mutex::default(),
        }
    }

    /// Starts the selling time, if this class counts.
    pub(crate) fn start_clock(&self, latency_class: LatencyClass) {
        if let LatencyClass::Concurrent = latency_class {
            lock(&self.clock).since = Some(Instant::now());
        }
    }

    pub(crate) fn stop_clock(&self) {
        let mut clock = lock(&self.clock);
        clock.elapsed = clock.reading();
        clock.since = None;
    }

    /// Records the latency of a Reserve call.
    pub(crate) fn latency(&self, latency_class: LatencyClass, latency: Duration) {
        let histogram = match latency_class {
            LatencyClass::Concurrent => &self.concurrent,
            LatencyClass::Sequential => &self.lone,
            LatencyClass::Unmeasured => return,
        };
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        lock(histogram).saturating_record(micros);
    }

    /// Counts the result of an attempt.
    pub(crate) fn attempted(&self, latency_class: LatencyClass, answer: Answer) {
        match answer {
            Answer::Reserved { units } => self.reserved(units.into()),
            Answer::SoldOut => _ = self.sold_out.fetch_add(1, Relaxed),
            Answer::Refused => _ = self.refused.fetch_add(1, Relaxed),
        }
        self.attempts.fetch_add(1, Relaxed);
        if let LatencyClass::Concurrent = latency_class {
            self.rush_attempts.fetch_add(1, Relaxed);
        }
    }

    fn reserved(&self, units: u64) {
        let reservations = self.reserved.fetch_add(1, Relaxed) + 1;
        let before = self.reserved_units.fetch_add(units, Relaxed);
        if before < self.units && before + units >= self.units {
            let mut clock = lock(&self.clock);
            clock.at_units = Some((clock.reading(), reservations));
        }
    }

    /// Counts a reservation that a late payment created.
    pub(crate) fn repurchased(&self) {
        self.repurchased.fetch_add(1, Relaxed);
    }

    /// Adds these names to the tallies with a count of zero.
    pub(crate) fn expect(&self, refusals: &[&'static str], played: &[&'static str]) {
        lock(&self.refusals).extend(refusals.iter().map(|&reason| (reason, 0)));
        lock(&self.played).extend(played.iter().map(|&what| (what, 0)));
    }

    /// Counts a refusal that the scenario demonstrates.
    pub(crate) fn refusal(&self, reason: &'static str) {
        *lock(&self.refusals).entry(reason).or_default() += 1;
    }

    /// Counts an event that the scenario demonstrates.
    pub(crate) fn played(&self, what: &'static str) {
        *lock(&self.played).entry(what).or_default() += 1;
    }

    /// The refusals by reason, and the events by name.
    pub(crate) fn tallies(&self) -> (Tally, Tally) {
        (lock(&self.refusals).clone(), lock(&self.played).clone())
    }

    /// Counts a repeat that the server recognized.
    pub(crate) fn replayed(&self) {
        self.replays.fetch_add(1, Relaxed);
    }

    /// Counts a retry, after shedding or after another transient error.
    pub(crate) fn repeated(&self, shed: bool) {
        let counter = if shed { &self.shed } else { &self.troubled };
        counter.fetch_add(1, Relaxed);
    }

    /// Records a response that violates a promise of the server.
    pub(crate) fn violation(&self, what: String) {
        self.violation.fetch_add(1, Relaxed);
        let mut texts = lock(&self.texts);
        if texts.len() < MAX_TEXTS {
            texts.push(what);
        }
    }

    /// Adds a reservation in its last acknowledged state.
    pub(crate) fn record(&self, entry: Entry) {
        lock(&self.entries).push(entry);
    }

    /// All acknowledged reservations.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// The current counts.
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
            violation: self.violation.load(Relaxed),
        }
    }

    /// The first violations as text.
    pub(crate) fn violation_texts(&self) -> Vec<String> {
        lock(&self.texts).clone()
    }

    /// The selling time; the selling time until the initial supply was reserved, and the reservations by then.
    pub(crate) fn times(&self) -> (Duration, Duration, u64) {
        let clock = lock(&self.clock);
        let selling = clock.reading();
        let (at_units, reservations) = clock.at_units.unwrap_or((selling, self.reserved.load(Relaxed)));
        (selling, at_units, reservations)
    }

    /// Median and 99th percentile in microseconds; zero without calls.
    pub(crate) fn quantiles(&self, latency_class: LatencyClass) -> (u64, u64) {
        let histogram = lock(match latency_class {
            LatencyClass::Concurrent => &self.concurrent,
            LatencyClass::Sequential => &self.lone,
            LatencyClass::Unmeasured => return (0, 0),
        });
        (histogram.value_at_quantile(0.50), histogram.value_at_quantile(0.99))
    }
}

/// The counts of a ledger at one instant.
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
    pub(crate) violation: u64,
}

/// Locks; the ledger stays readable after a panic of a buyer.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
