//! The rules of a SKU and the settings of a namespace: current values and changes. Data only; it imports no message.

use std::time::{Duration, SystemTime};

use crate::types::Stock;

/// The current rules of a SKU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkuRules {
    /// Whether this service governs the units.
    pub is_protected: bool,
    /// Most units of one reservation; `None`: no limit.
    pub max_quantity: Option<i32>,
    /// Longest ttl of one reservation; `None`: no limit.
    pub max_ttl: Option<Duration>,
    /// Most units that one buyer may hold and have bought in all; `None`: no limit.
    pub buyer_limit: Option<i32>,
    /// When the sale opens; `None`: always open.
    pub opens_at: Option<SystemTime>,
    /// When the sale closes; `None`: never.
    pub closes_at: Option<SystemTime>,
    /// Whether the sale is paused: no units can be reserved, but held units can be committed.
    pub is_paused: bool,
}

/// The current rules and counters of a SKU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkuConfiguration {
    /// All rules.
    pub rules: SkuRules,
    /// Grows with every change of the rules, from 0.
    pub rules_version: i64,
    /// The counters.
    pub stock: Stock,
}

/// A change of the rules of a SKU. Rules that are not set stay unchanged; `None` removes a limit:
/// `RulesChange::new().buyer_limit(2).closes_at(None)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "nothing is changed before it is sent"]
pub struct RulesChange {
    pub(crate) is_protected: Option<bool>,
    pub(crate) max_quantity: Option<Option<i32>>,
    pub(crate) max_ttl: Option<Option<Duration>>,
    pub(crate) buyer_limit: Option<Option<i32>>,
    pub(crate) opens_at: Option<Option<SystemTime>>,
    pub(crate) closes_at: Option<Option<SystemTime>>,
    pub(crate) is_paused: Option<bool>,
}

impl RulesChange {
    /// An empty change, which the server refuses.
    pub fn new() -> Self {
        RulesChange::default()
    }

    /// Whether the sale is paused: no units can be reserved; held units can be committed, extended and rolled back.
    pub fn paused(mut self, yes: bool) -> Self {
        self.is_paused = Some(yes);
        self
    }

    /// Whether this service governs the units. To stop a sale use [`paused`](Self::paused): without protection the shop
    /// sells the same units on its ordinary path.
    pub fn protected(mut self, yes: bool) -> Self {
        self.is_protected = Some(yes);
        self
    }

    /// Most units of one reservation, 1 to 1,000,000.
    pub fn max_quantity(mut self, units: impl Into<Option<i32>>) -> Self {
        self.max_quantity = Some(units.into());
        self
    }

    /// Longest ttl of one reservation, from 1 ms, in steps of 1 ms.
    pub fn max_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.max_ttl = Some(ttl.into());
        self
    }

    /// Most units that one buyer may hold and have bought in all, 1 to 1,000,000. Units count from the moment that a
    /// limit is set until it is removed.
    pub fn buyer_limit(mut self, units: impl Into<Option<i32>>) -> Self {
        self.buyer_limit = Some(units.into());
        self
    }

    /// When the sale opens, on the time of day of the partition; rounded up to the millisecond.
    pub fn opens_at(mut self, at: impl Into<Option<SystemTime>>) -> Self {
        self.opens_at = Some(at.into());
        self
    }

    /// When the sale closes, on the time of day of the partition; rounded up to the millisecond.
    pub fn closes_at(mut self, at: impl Into<Option<SystemTime>>) -> Self {
        self.closes_at = Some(at.into());
        self
    }
}

/// The settings of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceConfig {
    /// Partitions; each has its Redis hash tag.
    pub partitions: i32,
    /// The ttl of a hold that sets none.
    pub default_ttl: Duration,
    /// Longest ttl of a hold.
    pub max_ttl: Duration,
    /// Longest life of a hold, however often it is extended.
    pub max_life: Duration,
    /// How long resolved reservations and request ids are stored.
    pub retention: Duration,
    /// Records (reservations and remembered requests) that the namespace may hold.
    pub quota_records: i64,
    /// SKUs that the namespace may hold.
    pub quota_skus: i64,
    /// The format in which records are written.
    pub format: i32,
    /// Whether all sales of the namespace are paused.
    pub is_paused: bool,
    /// Grows with every change.
    pub version: i64,
}

/// A change of the settings of a namespace. Settings that are not set stay unchanged, or get the server's default if
/// the namespace is created: `NamespaceChange::new().partitions(8)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "nothing is changed before it is sent"]
pub struct NamespaceChange {
    pub(crate) partitions: Option<i32>,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) max_ttl: Option<Duration>,
    pub(crate) max_life: Option<Duration>,
    pub(crate) retention: Option<Duration>,
    pub(crate) quota_records: Option<i64>,
    pub(crate) quota_skus: Option<i64>,
    pub(crate) format: Option<i32>,
    pub(crate) is_paused: Option<bool>,
}

impl NamespaceChange {
    /// An empty change, which the server refuses.
    pub fn new() -> Self {
        NamespaceChange::default()
    }

    /// Partitions, 1 to 64; fixed once the namespace exists.
    pub fn partitions(mut self, number: i32) -> Self {
        self.partitions = Some(number);
        self
    }

    /// The ttl of a hold that sets none, from 1 ms to the longest ttl, in steps of 1 ms.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Longest ttl of a hold, 1 ms to 30 days, in steps of 1 ms.
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.max_ttl = Some(ttl);
        self
    }

    /// Longest life of a hold, however often it is extended: from the longest ttl to 60 days, in steps
    /// of 1 ms.
    pub fn max_life(mut self, life: Duration) -> Self {
        self.max_life = Some(life);
        self
    }

    /// How long resolved reservations and request ids are stored, 1 s to 30 days, in steps of 1 ms.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Records (reservations and remembered requests) that the namespace may hold, 1 to 1,000,000,000.
    pub fn quota_records(mut self, records: i64) -> Self {
        self.quota_records = Some(records);
        self
    }

    /// SKUs that the namespace may hold, 1 to 100,000,000.
    pub fn quota_skus(mut self, skus: i64) -> Self {
        self.quota_skus = Some(skus);
        self
    }

    /// Whether all sales of the namespace are paused, in format 5 and later.
    pub fn paused(mut self, yes: bool) -> Self {
        self.is_paused = Some(yes);
        self
    }

    /// The format in which records are written, 1 to 5; it can only be raised, after the last server of an older
    /// release has stopped.
    pub fn format(mut self, format: i32) -> Self {
        self.format = Some(format);
        self
    }
}
