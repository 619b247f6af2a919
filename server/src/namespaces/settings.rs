//! The config of a new namespace, and the validation of a change to it. Pure, no I/O.

use std::time::Duration;

use rand::Rng as _;

use super::ConfigureError;
use crate::{
    config::Config,
    domain::{
        FIRST_WITH_PAUSE, FORMATS, MAX_LIFE, MAX_PARTITIONS, MAX_QUOTA_RECORDS, MAX_QUOTA_SKUS, MAX_TTL,
        NamespaceChange, RETENTION,
    },
    random::Random,
    store::wire::NamespaceConfig,
};

/// The approximate number of changes that the event stream of a partition keeps.
const EVENTS_KEPT: u64 = 1_000_000;
/// The shortest ttl.
const MILLISECOND: Duration = Duration::from_millis(1);

/// The settings of a new namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    retention: Duration,
    default_ttl: Duration,
    max_ttl: Duration,
    max_life: Duration,
    quota_records: u64,
    quota_skus: u64,
    partitions: u16,
    format: u8,
}

impl From<&Config> for Defaults {
    fn from(config: &Config) -> Self {
        Self {
            retention: config.retention,
            default_ttl: config.default_ttl,
            max_ttl: config.max_ttl,
            max_life: config.max_life,
            quota_records: config.quota_records,
            quota_skus: config.quota_skus,
            partitions: config.partitions,
            format: config.format,
        }
    }
}

impl Defaults {
    /// The config of a new namespace, with a new secret.
    pub(crate) fn propose(&self, partitions: Option<u16>, mut random: &Random) -> NamespaceConfig {
        NamespaceConfig {
            revision: 1,
            retention: self.retention,
            default_ttl: self.default_ttl,
            max_ttl: self.max_ttl,
            max_life: self.max_life,
            quota_records: self.quota_records,
            quota_skus: self.quota_skus,
            events_kept: EVENTS_KEPT,
            partitions: partitions.unwrap_or(self.partitions),
            format: self.format,
            is_paused: false,
            has_sealed_ids: self.format >= FIRST_WITH_PAUSE,
            secret: random.random(),
        }
    }
}

/// The config after a change. It is valid as a whole.
pub(super) fn changed(config: &NamespaceConfig, change: NamespaceChange) -> Result<NamespaceConfig, ConfigureError> {
    let next = NamespaceConfig {
        default_ttl: change.default_ttl.unwrap_or(config.default_ttl),
        max_ttl: change.max_ttl.unwrap_or(config.max_ttl),
        max_life: change.max_life.unwrap_or(config.max_life),
        retention: change.retention.unwrap_or(config.retention),
        quota_records: change.quota_records.unwrap_or(config.quota_records),
        quota_skus: change.quota_skus.unwrap_or(config.quota_skus),
        format: change.format.unwrap_or(config.format),
        is_paused: change.is_paused.unwrap_or(config.is_paused),
        ..config.clone()
    };
    if change.partitions.is_some_and(|partitions| partitions != config.partitions) {
        return Err(ConfigureError::PartitionsFixed);
    }
    let checks = [
        ("config.partitions", (1..=MAX_PARTITIONS).contains(&next.partitions)),
        ("config.max_ttl", (MILLISECOND..=MAX_TTL).contains(&next.max_ttl)),
        ("config.default_ttl", (MILLISECOND..=next.max_ttl).contains(&next.default_ttl)),
        ("config.max_life", (next.max_ttl..=MAX_LIFE).contains(&next.max_life)),
        ("config.retention", (RETENTION.0..=RETENTION.1).contains(&next.retention)),
        ("config.quota_records", (1..=MAX_QUOTA_RECORDS).contains(&next.quota_records)),
        ("config.quota_skus", (1..=MAX_QUOTA_SKUS).contains(&next.quota_skus)),
        ("config.is_paused", !next.is_paused || next.format >= FIRST_WITH_PAUSE),
        ("config.format", (config.format..=FORMATS.1).contains(&next.format)),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((field, _)) => Err(ConfigureError::Invalid(field)),
        None => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_valid_as_a_whole_or_changes_nothing() {
        let config = Defaults::from(&Config::default()).propose(Some(2), &Random::System);
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
        let change = |change| changed(&config, change).map(|next| (next.max_ttl, next.max_life));
        assert_eq!(
            change(NamespaceChange { max_ttl: hours(3), ..Default::default() }),
            Err(ConfigureError::Invalid("config.max_life"))
        );
        let both = NamespaceChange { max_ttl: hours(3), max_life: hours(4), ..Default::default() };
        assert_eq!(change(both).ok(), hours(3).zip(hours(4)));
        let other = NamespaceChange { partitions: Some(3), ..Default::default() };
        assert_eq!(change(other), Err(ConfigureError::PartitionsFixed));
        let same = NamespaceChange { partitions: Some(2), ..Default::default() };
        assert!(change(same).is_ok());
        let none = NamespaceChange { quota_skus: Some(0), ..Default::default() };
        assert_eq!(change(none), Err(ConfigureError::Invalid("config.quota_skus")));
    }

    #[test]
    fn the_format_can_only_be_raised_to_one_that_is_known() {
        let config = NamespaceConfig { format: 1, ..Defaults::from(&Config::default()).propose(None, &Random::System) };
        let to = |config: &NamespaceConfig, format| {
            changed(config, NamespaceChange { format: Some(format), ..Default::default() }).ok()
        };
        let raised = to(&config, 2).expect("a newer format");
        assert_eq!(raised.format, 2);
        assert!(to(&config, 1).is_some() && to(&config, FORMATS.1 + 1).is_none() && to(&raised, 1).is_none());
    }
}
