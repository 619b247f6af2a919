//! The frames that are cheap for a client and expensive for the server, and their allowed rates.
//! Pure but for the clock.

use std::time::Instant;

/// The type bytes of HTTP/2 frames (RFC 9113, section 6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

/// Flags of a frame: the last of its stream (DATA), or an acknowledgement (SETTINGS, PING).
const END_STREAM_OR_ACK: u8 = 1;

/// Control frames that one SETTINGS frame counts as: it makes the server visit each open stream.
const SETTINGS_UNITS: u32 = 100;
/// Control frames that one PRIORITY, CONTINUATION, empty DATA or unknown frame counts as: no client
/// needs many of them.
const ODD_FRAME_UNITS: u32 = 10;
/// Seconds of the allowed rate that a connection may save up. A healthy client sends as much at
/// once after the server or the network stalled.
pub(super) const BURST_SECONDS: u32 = 2;

/// The allowed frames of one connection, in units per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRates {
    /// RST_STREAM frames: cancelled calls.
    pub(crate) resets: u32,
    /// Control frames, weighted.
    pub(crate) control: u32,
}

/// The cost of a frame: calls, resets, control frames, and approximate work of the server in
/// microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) calls: u32,
    resets: u32,
    control: u32,
    pub(super) work: u32,
}

impl Cost {
    /// The cost of a frame with this type, flags and length of payload.
    pub(super) fn of(kind: u8, flags: u8, length: u32) -> Self {
        match kind {
            kind::DATA if length > 0 || flags & END_STREAM_OR_ACK != 0 => Self::default(),
            kind::HEADERS => Self { calls: 1, work: 30, ..Self::default() },
            kind::RST_STREAM => Self { resets: 1, work: 5, ..Self::default() },
            kind::SETTINGS | kind::PING if flags & END_STREAM_OR_ACK != 0 => {
                Self { control: 1, work: 1, ..Self::default() }
            }
            kind::SETTINGS => Self { control: SETTINGS_UNITS, work: 50, ..Self::default() },
            kind::PING => Self { control: 1, work: 3, ..Self::default() },
            kind::WINDOW_UPDATE => Self { control: 1, work: 1, ..Self::default() },
            _ => Self { control: ODD_FRAME_UNITS, work: 2, ..Self::default() },
        }
    }

    /// Whether calls do not consist of frames of this kind.
    pub(super) fn is_suspect(self) -> bool {
        self.resets + self.control > 0
    }
}

/// The remaining allowance of a connection.
#[derive(Debug)]
pub(super) struct Allowance {
    resets: Bucket,
    control: Bucket,
}

impl Allowance {
    pub(super) fn new(rates: FrameRates, now: Instant) -> Self {
        Self { resets: Bucket::new(rates.resets, now), control: Bucket::new(rates.control, now) }
    }

    /// Takes the cost of a frame; false: the connection exceeds a rate.
    pub(super) fn take(&mut self, cost: Cost) -> bool {
        self.resets.take(cost.resets) && self.control.take(cost.control)
    }
}

/// A token bucket. Reads the clock only when it is empty.
#[derive(Debug)]
struct Bucket {
    rate: u32,
    left: u64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Self {
        Self { rate, left: Self::capacity(rate), filled: now }
    }

    fn capacity(rate: u32) -> u64 {
        u64::from(rate) * u64::from(BURST_SECONDS)
    }

    fn take(&mut self, units: u32) -> bool {
        let units = u64::from(units);
        if units > self.left {
            self.fill(Instant::now());
        }
        let is_enough = units <= self.left;
        self.left = self.left.saturating_sub(units);
        is_enough
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_millis().min(u128::from(u32::MAX)) as u64;
        let earned = passed * u64::from(self.rate) / 1_000;
        if earned > 0 {
            self.left = (self.left + earned).min(Self::capacity(self.rate));
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_calls_are_made_of_costs_nothing() {
        assert_eq!(Cost::of(kind::DATA, 0, 12), Cost::default());
        assert_eq!(Cost::of(kind::DATA, 1, 0), Cost::default());
        assert_eq!((Cost::of(kind::HEADERS, 4, 90).resets, Cost::of(kind::HEADERS, 4, 90).control), (0, 0));
        // An empty DATA frame that ends nothing, a PRIORITY frame, and an unknown type.
        for (kind, flags) in [(kind::DATA, 0), (2, 0), (9, 4), (200, 255)] {
            assert_eq!(Cost::of(kind, flags, 0).control, ODD_FRAME_UNITS, "{kind}");
        }
    }

    #[test]
    fn a_burst_is_allowed_and_a_rate_above_the_limit_is_not() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        assert!((0..200).all(|_| bucket.take(1)));
        bucket.filled = Instant::now() + Duration::from_secs(60);
        assert!(!bucket.take(1));
        bucket.filled = start;
        bucket.fill(start + Duration::from_millis(500));
        assert!((0..50).all(|_| bucket.take(1)));
        bucket.filled = Instant::now() + Duration::from_secs(60);
        assert!(!bucket.take(1));
        bucket.fill(bucket.filled + Duration::from_secs(3_600));
        assert_eq!(bucket.left, 200);
    }
}
