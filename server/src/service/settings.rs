//! The settings of a namespace, from messages and to messages. No I/O.

use std::time::Duration;

use inventory_sentinel::{Reason, v1};

use crate::{
    domain::{Invalid, NamespaceChange},
    store::wire::NamespaceConfig,
};

/// What to change; at least one setting. Ranges are checked where the whole is known.
pub(super) fn change(config: Option<v1::NamespaceConfig>) -> Result<NamespaceChange, Invalid> {
    let v1::NamespaceConfig { partitions, default_ttl, max_ttl, max_life, retention, quota_records, quota_skus } =
        config.unwrap_or_default();
    let change = NamespaceChange {
        partitions: partitions.map(|number| whole(number, "config.partitions")).transpose()?,
        default_ttl: default_ttl.map(|span| duration(span, "config.default_ttl")).transpose()?,
        max_ttl: max_ttl.map(|span| duration(span, "config.max_ttl")).transpose()?,
        max_life: max_life.map(|span| duration(span, "config.max_life")).transpose()?,
        retention: retention.map(|span| duration(span, "config.retention")).transpose()?,
        quota_records: quota_records.map(|number| whole(number, "config.quota_records")).transpose()?,
        quota_skus: quota_skus.map(|number| whole(number, "config.quota_skus")).transpose()?,
    };
    if change == NamespaceChange::default() {
        return Err(Invalid::new(Reason::NoRules, "config"));
    }
    Ok(change)
}

fn whole<F, T: TryFrom<F>>(number: F, field: &str) -> Result<T, Invalid> {
    T::try_from(number).map_err(|_| Invalid::new(Reason::InvalidConfig, field))
}

/// Not negative, and nothing between the milliseconds.
fn duration(span: prost_types::Duration, field: &str) -> Result<Duration, Invalid> {
    let invalid = || Invalid::new(Reason::InvalidConfig, field);
    let (seconds, nanos) = (whole(span.seconds, field)?, whole(span.nanos, field)?);
    if nanos >= 1_000_000_000 || nanos % 1_000_000 != 0 || seconds > i64::MAX as u64 / 1_000 {
        return Err(invalid());
    }
    Ok(Duration::new(seconds, nanos))
}

/// The whole config.
pub(super) fn message(config: &NamespaceConfig) -> v1::NamespaceConfig {
    let span = |duration: Duration| prost_types::Duration {
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    };
    v1::NamespaceConfig {
        partitions: Some(config.partitions.into()),
        default_ttl: Some(span(config.default_ttl)),
        max_ttl: Some(span(config.max_ttl)),
        max_life: Some(span(config.max_life)),
        retention: Some(span(config.retention)),
        quota_records: Some(config.quota_records as i64),
        quota_skus: Some(config.quota_skus as i64),
    }
}
