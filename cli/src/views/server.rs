//! The printed state of a server and result of an audit.

use inventory_sentinel_client::{Audit, FencedPartition, Finding, FindingKind, Promise, PromiseState, ServerInfo};
use serde::Serialize;

use super::{instant, or_nothing};
use crate::{
    output::Row,
    table::{Column, shown},
};

/// GetServerInfo.
#[derive(Debug, Serialize)]
pub(crate) struct InfoView {
    version: String,
    durability: String,
    store_version: String,
    store_id: String,
    state: String,
    state_written_at: Option<String>,
    state_error: Option<String>,
    newest_format: i32,
    clock_offset: String,
    time_of_day_offset: String,
    pub(crate) promises: Vec<PromiseView>,
    pub(crate) fenced_partitions: Vec<FencedView>,
}

/// One condition on which an OK depends.
#[derive(Debug, Serialize)]
pub(crate) struct PromiseView {
    name: String,
    state: String,
    detail: String,
}

impl From<&Promise> for PromiseView {
    fn from(promise: &Promise) -> Self {
        let state = match promise.state {
            PromiseState::Kept => "KEPT".to_owned(),
            PromiseState::Broken => "BROKEN".to_owned(),
            PromiseState::NotChecked => "NOT_CHECKED".to_owned(),
            PromiseState::Unknown(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        PromiseView { name: promise.name.clone(), state, detail: promise.detail.clone() }
    }
}

impl Row for PromiseView {
    const COLUMNS: &'static [Column] = &[Column::Left("promise"), Column::Left("state"), Column::Left("detail")];

    fn cells(&self) -> Vec<String> {
        vec![shown(&self.name), self.state.clone(), shown(&self.detail)]
    }
}

/// A fenced partition.
#[derive(Debug, Serialize)]
pub(crate) struct FencedView {
    namespace_id: String,
    partition: i32,
    seen: SeenView,
    kept_sequence: i64,
    fenced_at: Option<String>,
    fence: String,
    is_gated: bool,
}

#[derive(Debug, Serialize)]
struct SeenView {
    epoch: i64,
    term: String,
    sequence: i64,
}

impl From<&FencedPartition> for FencedView {
    fn from(fenced: &FencedPartition) -> Self {
        FencedView {
            namespace_id: fenced.namespace.clone(),
            partition: fenced.partition,
            seen: SeenView { epoch: fenced.seen_epoch, term: fenced.seen_term.clone(), sequence: fenced.seen_sequence },
            kept_sequence: fenced.kept_sequence,
            fenced_at: fenced.fenced_at.map(instant),
            fence: fenced.fence.clone(),
            is_gated: fenced.is_gated,
        }
    }
}

impl Row for FencedView {
    const COLUMNS: &'static [Column] = &[
        Column::Left("fenced namespace"),
        Column::Right("partition"),
        Column::Left("fence"),
        Column::Right("lost changes"),
        Column::Left("fenced at"),
        Column::Left("gated"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            shown(&self.namespace_id),
            self.partition.to_string(),
            self.fence.clone(),
            self.seen.sequence.saturating_sub(self.kept_sequence).to_string(),
            or_nothing(self.fenced_at.as_ref()),
            if self.is_gated { "yes" } else { "no" }.to_owned(),
        ]
    }
}

impl From<&ServerInfo> for InfoView {
    fn from(info: &ServerInfo) -> Self {
        InfoView {
            version: info.version.clone(),
            durability: info.durability.clone(),
            store_version: info.store_version.clone(),
            store_id: info.store_id.clone(),
            state: info.state.clone(),
            state_written_at: info.state_written_at.map(instant),
            state_error: Some(info.state_error.clone()).filter(|error| !error.is_empty()),
            newest_format: info.newest_format,
            clock_offset: milliseconds(info.clock_offset_ms),
            time_of_day_offset: milliseconds(info.time_of_day_offset_ms),
            promises: info.promises.iter().map(PromiseView::from).collect(),
            fenced_partitions: info.fenced_partitions.iter().map(FencedView::from).collect(),
        }
    }
}

/// A signed number of milliseconds as a duration of protobuf.
fn milliseconds(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    match (number.unsigned_abs() / 1_000, number.unsigned_abs() % 1_000) {
        (seconds, 0) => format!("{sign}{seconds}s"),
        (seconds, rest) => format!("{sign}{seconds}.{rest:03}s"),
    }
}

impl InfoView {
    pub(crate) fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("version", shown(&self.version)),
            ("durability", shown(&self.durability)),
            ("store", shown(&self.store_version)),
            ("store id", shown(&self.store_id)),
            ("state", shown(&self.state)),
            ("state written at", or_nothing(self.state_written_at.as_ref())),
            ("state error", or_nothing(self.state_error.as_deref().map(shown))),
            ("newest format", self.newest_format.to_string()),
            ("clock offset", self.clock_offset.clone()),
            ("time of day offset", self.time_of_day_offset.clone()),
            ("fenced partitions", self.fenced_partitions.len().to_string()),
        ]
    }
}

/// The result of an audit.
#[derive(Debug, Serialize)]
pub(crate) struct AuditView {
    clean: bool,
    pub(crate) findings: Vec<FindingView>,
    skus: i64,
    pending_reservations: i64,
    available: i64,
    held: i64,
    sold: i64,
    supplied: i64,
}

/// A finding.
#[derive(Debug, Serialize)]
pub(crate) struct FindingView {
    kind: String,
    sku: Option<String>,
    reservation_id: Option<String>,
    expected: i64,
    actual: i64,
}

impl From<&Audit> for AuditView {
    fn from(audit: &Audit) -> Self {
        AuditView {
            clean: audit.clean,
            findings: audit.findings.iter().map(FindingView::from).collect(),
            skus: audit.skus,
            pending_reservations: audit.pending_reservations,
            available: audit.available,
            held: audit.held,
            sold: audit.sold,
            supplied: audit.supplied,
        }
    }
}

impl AuditView {
    pub(crate) fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("clean", if self.clean { "yes" } else { "NO" }.to_owned()),
            ("skus", self.skus.to_string()),
            ("pending reservations", self.pending_reservations.to_string()),
            ("available", self.available.to_string()),
            ("held", self.held.to_string()),
            ("sold", self.sold.to_string()),
            ("supplied", self.supplied.to_string()),
        ]
    }
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        let kind = match finding.kind {
            FindingKind::NotConserved => "NOT_CONSERVED".to_owned(),
            FindingKind::Negative => "NEGATIVE".to_owned(),
            FindingKind::HeldMismatch => "HELD_MISMATCH".to_owned(),
            FindingKind::NoDeadline => "NO_DEADLINE".to_owned(),
            FindingKind::Unknown(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        FindingView {
            kind,
            sku: finding.sku.clone(),
            reservation_id: finding.reservation_id.clone(),
            expected: finding.expected,
            actual: finding.actual,
        }
    }
}

impl Row for FindingView {
    const COLUMNS: &'static [Column] = &[
        Column::Left("finding"),
        Column::Left("sku"),
        Column::Left("reservation"),
        Column::Right("expected"),
        Column::Right("actual"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.clone(),
            or_nothing(self.sku.as_deref().map(shown)),
            or_nothing(self.reservation_id.as_ref()),
            self.expected.to_string(),
            self.actual.to_string(),
        ]
    }
}
