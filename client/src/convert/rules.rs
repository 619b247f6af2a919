//! Rules and settings: types to messages and back; no I/O.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inventory_sentinel::v1;

use super::{Decode, duration, instant, span, stock};
use crate::{
    rpc_error::RpcError,
    rules::{NamespaceChange, NamespaceConfig, RulesChange, SkuConfiguration, SkuRules},
    types::Snapshot,
};

/// On the wire a zero removes a limit, which a change expresses as `None`. A limit of zero is sent as -1, which the
/// server refuses.
pub(crate) fn rules_change(change: RulesChange) -> v1::SkuRules {
    let RulesChange { is_protected, max_quantity, max_ttl, buyer_limit, opens_at, closes_at, is_paused } = change;
    v1::SkuRules {
        is_protected,
        max_quantity: max_quantity.map(limit),
        max_ttl: max_ttl.map(|ttl| match ttl {
            Some(Duration::ZERO) => prost_types::Duration { seconds: -1, nanos: 0 },
            Some(ttl) => duration(ttl),
            None => prost_types::Duration::default(),
        }),
        buyer_limit: buyer_limit.map(limit),
        opens_at: opens_at.map(timestamp),
        closes_at: closes_at.map(timestamp),
        is_paused,
    }
}

fn limit(units: Option<i32>) -> i32 {
    match units {
        Some(0) => -1,
        Some(units) => units,
        None => 0,
    }
}

/// Sent unrounded: the server rounds it up to the millisecond.
fn timestamp(at: Option<SystemTime>) -> prost_types::Timestamp {
    let Some(at) = at else {
        return prost_types::Timestamp::default();
    };
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) if since >= Duration::from_millis(1) => prost_types::Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        },
        // 1970 itself means "no instant". It is sent as an instant before 1970, which the server refuses.
        _ => prost_types::Timestamp { seconds: -1, nanos: 0 },
    }
}

pub(crate) fn namespace_change(change: NamespaceChange) -> v1::NamespaceConfig {
    let NamespaceChange {
        partitions,
        default_ttl,
        max_ttl,
        max_life,
        retention,
        quota_records,
        quota_skus,
        format,
        is_paused,
    } = change;
    v1::NamespaceConfig {
        partitions,
        default_ttl: default_ttl.map(duration),
        max_ttl: max_ttl.map(duration),
        max_life: max_life.map(duration),
        retention: retention.map(duration),
        quota_records,
        quota_skus,
        format,
        is_paused,
    }
}

impl Decode for v1::ConfigureSkuResponse {
    type Value = Snapshot<SkuConfiguration>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        configuration(self.rules, self.rules_version, self.stock, self.sequence)
    }
}

impl Decode for v1::GetSkuResponse {
    type Value = Snapshot<SkuConfiguration>;
    fn decode(self) -> Result<Self::Value, RpcError> {
        configuration(self.rules, self.rules_version, self.stock, self.sequence)
    }
}

impl Decode for v1::ConfigureNamespaceResponse {
    type Value = NamespaceConfig;
    fn decode(self) -> Result<Self::Value, RpcError> {
        namespace(self.config, self.version)
    }
}

impl Decode for v1::GetNamespaceResponse {
    type Value = NamespaceConfig;
    fn decode(self) -> Result<Self::Value, RpcError> {
        namespace(self.config, self.version)
    }
}

impl Decode for v1::DeleteNamespaceResponse {
    type Value = bool;
    fn decode(self) -> Result<Self::Value, RpcError> {
        Ok(self.replayed)
    }
}

fn configuration(
    rules: Option<v1::SkuRules>,
    rules_version: i64,
    counters: Option<v1::Stock>,
    sequence: i64,
) -> Result<Snapshot<SkuConfiguration>, RpcError> {
    Ok(Snapshot { value: sku_configuration(rules, rules_version, counters)?, sequence })
}

pub(super) fn sku_configuration(
    rules: Option<v1::SkuRules>,
    rules_version: i64,
    counters: Option<v1::Stock>,
) -> Result<SkuConfiguration, RpcError> {
    let rules = sku_rules(rules.ok_or_else(|| RpcError::malformed("no rules"))?)?;
    Ok(SkuConfiguration { rules, rules_version, stock: stock(counters)? })
}

pub(super) fn sku_rules(rules: v1::SkuRules) -> Result<SkuRules, RpcError> {
    let set = |at: prost_types::Timestamp| (at != prost_types::Timestamp::default()).then_some(at);
    Ok(SkuRules {
        is_protected: rules.is_protected.ok_or_else(|| RpcError::malformed("no is_protected"))?,
        max_quantity: rules.max_quantity.filter(|units| *units != 0),
        max_ttl: rules.max_ttl.map(span).transpose()?.filter(|ttl| !ttl.is_zero()),
        buyer_limit: rules.buyer_limit.filter(|units| *units != 0),
        opens_at: rules.opens_at.and_then(set).map(instant).transpose()?,
        closes_at: rules.closes_at.and_then(set).map(instant).transpose()?,
        // Absent from servers before format 5.
        is_paused: rules.is_paused.unwrap_or(false),
    })
}

fn namespace(config: Option<v1::NamespaceConfig>, version: i64) -> Result<NamespaceConfig, RpcError> {
    let config = config.ok_or_else(|| RpcError::malformed("no config"))?;
    let required = || RpcError::malformed("a config without one of its settings");
    let length = |value: Option<prost_types::Duration>| span(value.ok_or_else(required)?);
    Ok(NamespaceConfig {
        partitions: config.partitions.ok_or_else(required)?,
        default_ttl: length(config.default_ttl)?,
        max_ttl: length(config.max_ttl)?,
        max_life: length(config.max_life)?,
        retention: length(config.retention)?,
        quota_records: config.quota_records.ok_or_else(required)?,
        quota_skus: config.quota_skus.ok_or_else(required)?,
        // Absent from servers before format 2.
        format: config.format.unwrap_or(1),
        is_paused: config.is_paused.unwrap_or(false),
        version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_stays_and_none_takes_away() {
        assert_eq!(rules_change(RulesChange::new()), v1::SkuRules::default());
        let none = RulesChange::new().max_quantity(None).max_ttl(None).buyer_limit(None).opens_at(None).closes_at(None);
        let wire = rules_change(none);
        assert_eq!((wire.is_protected, wire.max_quantity, wire.buyer_limit), (None, Some(0), Some(0)));
        assert_eq!(wire.max_ttl, Some(prost_types::Duration::default()));
        assert_eq!(wire.opens_at, Some(prost_types::Timestamp::default()));
        assert_eq!(wire.closes_at, Some(prost_types::Timestamp::default()));
    }

    #[test]
    fn a_limit_of_zero_does_not_take_the_limit_away() {
        let zero = RulesChange::new().max_quantity(0).buyer_limit(0).max_ttl(Duration::ZERO);
        let wire = rules_change(zero.opens_at(UNIX_EPOCH).closes_at(UNIX_EPOCH - Duration::from_secs(9)));
        assert_eq!((wire.max_quantity, wire.buyer_limit), (Some(-1), Some(-1)));
        assert!(wire.max_ttl.is_some_and(|ttl| ttl.seconds < 0));
        assert!(wire.opens_at.is_some_and(|at| at.seconds < 0));
        assert!(wire.closes_at.is_some_and(|at| at.seconds < 0));
    }

    #[test]
    fn the_server_rounds_instants() {
        let wire = rules_change(RulesChange::new().opens_at(UNIX_EPOCH + Duration::from_nanos(5_001_999_999)));
        assert_eq!(wire.opens_at, Some(prost_types::Timestamp { seconds: 5, nanos: 1_999_999 }));
    }

    #[test]
    fn rules_keep_every_field() {
        let opens = UNIX_EPOCH + Duration::from_secs(100);
        let change = RulesChange::new().protected(true).max_quantity(3).buyer_limit(2).opens_at(opens);
        let rules =
            sku_rules(rules_change(change.max_ttl(Duration::from_millis(1500)).closes_at(None).paused(true))).unwrap();
        assert_eq!(
            rules,
            SkuRules {
                is_protected: true,
                max_quantity: Some(3),
                max_ttl: Some(Duration::from_millis(1500)),
                buyer_limit: Some(2),
                opens_at: Some(opens),
                closes_at: None,
                is_paused: true,
            }
        );
    }

    #[test]
    fn a_namespace_keeps_every_setting_and_lacks_none() {
        let seconds = Duration::from_secs;
        let change = NamespaceChange::new().partitions(4).default_ttl(seconds(1)).max_ttl(seconds(2));
        let change = change.max_life(seconds(3)).retention(seconds(4)).quota_records(5);
        let missing = namespace(Some(namespace_change(change.clone())), 7);
        assert!(missing.unwrap_err().message().contains("without one of its settings"));
        let config = namespace(Some(namespace_change(change.quota_skus(6))), 7).unwrap();
        assert_eq!((config.partitions, config.quota_records, config.quota_skus, config.version), (4, 5, 6, 7));
        assert_eq!((config.default_ttl, config.max_ttl), (seconds(1), seconds(2)));
        assert_eq!((config.max_life, config.retention), (seconds(3), seconds(4)));
    }
}
