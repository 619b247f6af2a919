//! The settings of a namespace, to and from messages. No I/O.

use std::time::Duration;

use inventory_sentinel::{Reason, v1};

use super as convert;
use crate::{
    domain::{Invalid, NamespaceChange, whole_millis},
    store::wire::NamespaceConfig,
};

/// The settings to change; at least one. Ranges are checked with the whole config.
pub(in crate::service) fn decode_change(config: Option<v1::NamespaceConfig>) -> Result<NamespaceChange, Invalid> {
    let v1::NamespaceConfig {
        partitions,
        default_ttl,
        max_ttl,
        max_life,
        retention,
        quota_records,
        quota_skus,
        format,
        is_paused,
    } = config.unwrap_or_default();
    let change = NamespaceChange {
        partitions: partitions.map(|number| whole(number, "config.partitions")).transpose()?,
        default_ttl: default_ttl.map(|span| duration(span, "config.default_ttl")).transpose()?,
        max_ttl: max_ttl.map(|span| duration(span, "config.max_ttl")).transpose()?,
        max_life: max_life.map(|span| duration(span, "config.max_life")).transpose()?,
        retention: retention.map(|span| duration(span, "config.retention")).transpose()?,
        quota_records: quota_records.map(|number| whole(number, "config.quota_records")).transpose()?,
        quota_skus: quota_skus.map(|number| whole(number, "config.quota_skus")).transpose()?,
        format: format.map(|number| whole(number, "config.format")).transpose()?,
        is_paused,
    };
    if change == NamespaceChange::default() {
        return Err(Invalid::new(Reason::NoRules, "config"));
    }
    Ok(change)
}

fn whole<F, T: TryFrom<F>>(number: F, field: &str) -> Result<T, Invalid> {
    T::try_from(number).map_err(|_| Invalid::new(Reason::InvalidConfig, field))
}

fn duration(span: prost_types::Duration, field: &str) -> Result<Duration, Invalid> {
    let millis = whole_millis(span.seconds, span.nanos);
    millis.map(Duration::from_millis).ok_or_else(|| Invalid::new(Reason::InvalidConfig, field))
}

/// The whole config.
pub(in crate::service) fn encode(config: &NamespaceConfig) -> v1::NamespaceConfig {
    v1::NamespaceConfig {
        partitions: Some(config.partitions.into()),
        default_ttl: Some(convert::duration(config.default_ttl)),
        max_ttl: Some(convert::duration(config.max_ttl)),
        max_life: Some(convert::duration(config.max_life)),
        retention: Some(convert::duration(config.retention)),
        quota_records: Some(config.quota_records as i64),
        quota_skus: Some(config.quota_skus as i64),
        format: Some(config.format.into()),
        is_paused: Some(config.is_paused),
    }
}
