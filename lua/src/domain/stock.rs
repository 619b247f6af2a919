//! Counters and rules of a SKU. Plain data, no I/O.

use super::StoreTime;

/// The counters of one SKU, and its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Units that a Reserve can take.
    pub available: u64,
    /// Units of pending reservations.
    pub held: u64,
    /// Units sold.
    pub sold: u64,
    /// Units added, less those taken away or withdrawn: the sum of `available`, `held` and `sold`.
    pub supplied: u64,
    /// Units that left `supplied` with holds that are older than a settlement.
    pub withdrawn: u64,
    /// The sequence of its last change.
    pub version: u64,
    /// Whether its units are governed here.
    pub is_protected: bool,
    /// Whether every Reserve of it is refused.
    pub is_paused: bool,
    /// Its rules.
    pub rules: Rules,
}

/// The rules of a SKU beside its protection; 0 is no rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Grows with every change; 0 while there was none.
    pub revision: u64,
    /// The most units of one line.
    pub max_quantity: u32,
    /// The longest ttl of a hold, in milliseconds.
    pub max_ttl: u64,
    /// The most units of one buyer.
    pub buyer_limit: u32,
    /// When the sale opens, as time of day.
    pub opens_at: StoreTime,
    /// When the sale closes, as time of day.
    pub closes_at: StoreTime,
}

/// Rules of a SKU to change; `None` leaves a rule as it is, 0 removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RulesChange {
    /// Whether its units are governed here.
    pub is_protected: Option<bool>,
    /// The most units of one line.
    pub max_quantity: Option<u32>,
    /// The longest ttl of a hold, in milliseconds.
    pub max_ttl: Option<u64>,
    /// The most units of one buyer.
    pub buyer_limit: Option<u32>,
    /// When the sale opens, as time of day.
    pub opens_at: Option<StoreTime>,
    /// When the sale closes, as time of day.
    pub closes_at: Option<StoreTime>,
    /// Whether every Reserve of it is refused.
    pub is_paused: Option<bool>,
}

/// All rules of a SKU after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Whether its units are governed here.
    pub is_protected: bool,
    /// Whether every Reserve of it is refused.
    pub is_paused: bool,
    /// Its rules.
    pub rules: Rules,
}
