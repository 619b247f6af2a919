//! Namespaces, as they are printed.

use inventory_sentinel_client::NamespaceConfig;
use serde::Serialize;

use super::{length, seconds, stock::yes_no};
use crate::{
    output::Row,
    table::{Column, shown},
};

/// The name of a namespace, in a list.
#[derive(Debug, Serialize)]
pub(crate) struct ListedNamespace {
    pub(crate) namespace_id: String,
}

impl Row for ListedNamespace {
    const COLUMNS: &'static [Column] = &[Column::Left("namespace")];

    fn cells(&self) -> Vec<String> {
        vec![shown(&self.namespace_id)]
    }
}

/// The settings of a namespace, and their version.
#[derive(Debug, Serialize)]
pub(crate) struct NamespaceView {
    namespace_id: String,
    config: ConfigView,
    version: i64,
    #[serde(skip)]
    details: Vec<(&'static str, String)>,
}

#[derive(Debug, Serialize)]
struct ConfigView {
    partitions: i32,
    default_ttl: String,
    max_ttl: String,
    max_life: String,
    retention: String,
    quota_records: i64,
    quota_skus: i64,
    format: i32,
    is_paused: bool,
}

impl NamespaceView {
    pub(crate) fn new(name: &str, config: &NamespaceConfig) -> Self {
        let details = vec![
            ("namespace", shown(name)),
            ("partitions", config.partitions.to_string()),
            ("default ttl", length(config.default_ttl)),
            ("max ttl", length(config.max_ttl)),
            ("max life", length(config.max_life)),
            ("retention", length(config.retention)),
            ("quota records", config.quota_records.to_string()),
            ("quota skus", config.quota_skus.to_string()),
            ("format", config.format.to_string()),
            ("paused", yes_no(config.is_paused)),
            ("version", config.version.to_string()),
        ];
        let of_proto = ConfigView {
            partitions: config.partitions,
            default_ttl: seconds(config.default_ttl),
            max_ttl: seconds(config.max_ttl),
            max_life: seconds(config.max_life),
            retention: seconds(config.retention),
            quota_records: config.quota_records,
            quota_skus: config.quota_skus,
            format: config.format,
            is_paused: config.is_paused,
        };
        NamespaceView { namespace_id: name.to_owned(), config: of_proto, version: config.version, details }
    }

    pub(crate) fn details(&self) -> &[(&'static str, String)] {
        &self.details
    }
}
