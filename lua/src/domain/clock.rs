//! The clock of a partition beside the clock of the store. Plain data, no I/O.

use std::time::Duration;

use tokio::time::Instant;

use super::StoreTime;

/// How long a reading predicts the clock. After that the two clocks may have drifted apart.
const READING_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// An instant on the clock of a partition, and when the call that read it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The instant on the partition's clock.
    pub now: StoreTime,
    /// When the call was sent.
    pub sent: Instant,
}

impl Reading {
    /// The instant that the clock must show at this time; `None` if the reading is too old.
    pub fn expected(self, at: Instant) -> Option<StoreTime> {
        let since = at.saturating_duration_since(self.sent);
        (since < READING_LIFETIME).then(|| StoreTime(self.now.0 + since.as_millis() as u64))
    }
}

/// How the clock of a partition differs from the store's `TIME`, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// How far the partition's clock is ahead of `TIME`.
    pub offset: i64,
    /// How far the time of day is ahead of the partition's clock.
    pub correction: i64,
    /// How far the partition's clock may be behind: it is not known yet whether time has passed or `TIME` made a step.
    pub doubt: u64,
}

impl Clock {
    /// The time of day at this instant of the partition's clock.
    pub fn time_of_day(self, at: StoreTime) -> StoreTime {
        StoreTime(at.0.saturating_add_signed(self.correction))
    }

    /// How far the time of day is ahead of `TIME`.
    pub fn day_offset(self) -> i64 {
        self.offset + self.correction + self.doubt as i64
    }
}

/// How far the clocks of partitions are ahead of the store's `TIME`, in milliseconds: the largest difference of all
/// partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockOffsets {
    /// The clock of the deadlines.
    pub clock: i64,
    /// The time of day.
    pub time_of_day: i64,
}

impl ClockOffsets {
    /// The larger of both offsets, for each of the two clocks.
    pub fn or(self, clock: Clock) -> Self {
        let larger = |one: i64, other: i64| if other.unsigned_abs() > one.unsigned_abs() { other } else { one };
        // While the clock is in doubt, time is assumed to have passed.
        let offset = clock.offset + clock.doubt as i64;
        Self { clock: larger(self.clock, offset), time_of_day: larger(self.time_of_day, clock.day_offset()) }
    }

    /// Whether they differ by at least this number of milliseconds.
    pub fn differs(self, other: Self, least: u64) -> bool {
        self.clock.abs_diff(other.clock) >= least || self.time_of_day.abs_diff(other.time_of_day) >= least
    }
}

/// The time of day: between two instants while the clock is in doubt, otherwise both are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay {
    /// The earlier one.
    pub earliest: StoreTime,
    /// The later one.
    pub latest: StoreTime,
}
