//! The refusals of the other modules as a [`Failure`]: which reason each has, and which details. No I/O.

use std::time::{Duration, UNIX_EPOCH};

use inventory_sentinel::Reason;

use super::convert::is_short;
use crate::{
    control::health::Shut,
    control::watch::WatchError,
    domain::{Fence, Invalid, Line, Refusal, StoreTime},
    failure::Failure,
    lane::LaneError,
    namespaces::{ConfigureError, DeleteError, OpenError},
    store::{audit::AuditError, error::StoreError},
};

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::SkuNotFound(sku) => Self::of_sku(Reason::SkuNotFound, &sku, ""),
            Refusal::SkuNotProtected(sku) => Self::of_sku(Reason::SkuNotProtected, &sku, ""),
            Refusal::SaleNotOpen { sku, opens_at, closes_at } => {
                Self::of_sku(Reason::SaleNotOpen, &sku, &format!(" opens at {}", time(opens_at)))
                    .with("opens_at_ms", opens_at.0)
                    .with("closes_at_ms", closes_at.0)
            }
            Refusal::SaleClosed { sku, opens_at, closes_at } => {
                Self::of_sku(Reason::SaleClosed, &sku, &format!(" closed at {}", time(closes_at)))
                    .with("opens_at_ms", opens_at.0)
                    .with("closes_at_ms", closes_at.0)
            }
            Refusal::SalePaused(Some(sku)) => Self::of_sku(Reason::SalePaused, &sku, ""),
            Refusal::SalePaused(None) => Self::new(Reason::SalePaused).because("the namespace"),
            Refusal::QuantityLimit { sku, limit } => {
                Self::of_sku(Reason::QuantityLimit, &sku, &format!(" allows {limit}")).with("limit", limit)
            }
            Refusal::TtlLimit { sku, limit } => {
                let longest = humantime::format_duration(Duration::from_millis(limit));
                Self::of_sku(Reason::TtlLimit, &sku, &format!(" allows {longest}")).with("limit_ms", limit)
            }
            Refusal::BuyerRequired(sku) => Self::of_sku(Reason::BuyerRequired, &sku, ""),
            Refusal::BuyerLimit { sku, has, limit } => {
                Self::of_sku(Reason::BuyerLimit, &sku, &format!(", of which the buyer has {has} of at most {limit}"))
                    .with("has", has)
                    .with("limit", limit)
            }
            Refusal::RequestIdReused => Self::new(Reason::RequestIdReused),
            Refusal::NamespaceQuota => Self::new(Reason::NamespaceQuota),
            Refusal::StoreFull => Self::new(Reason::StoreFull),
            Refusal::ReservationNotFound => Self::new(Reason::ReservationNotFound),
            Refusal::ReservationExpired => Self::new(Reason::ReservationExpired),
            Refusal::ReservationRolledBack => Self::new(Reason::ReservationRolledBack),
            Refusal::ReservationAlreadyCommitted => Self::new(Reason::ReservationAlreadyCommitted),
            Refusal::LineNotHeld { sku, held } => {
                Self::of_sku(Reason::LineNotHeld, &sku, &format!(", of which {held} are held")).with("held", held)
            }
            Refusal::TooManyChanges => Self::new(Reason::TooManyChanges),
            Refusal::LateCommitSoldOut(lines) => late_commit_sold_out(&lines),
            Refusal::ExtendLimit { left } => {
                let most = humantime::format_duration(Duration::from_millis(left));
                Self::new(Reason::ExtendLimit).because(&format!("it can be moved by {most}")).with("left_ms", left)
            }
            Refusal::StockBelowHeld { held } => {
                Self::new(Reason::StockBelowHeld).because(&format!("{held} are held")).with("held", held)
            }
            Refusal::StockLimit => Self::new(Reason::StockLimit),
            Refusal::SkuExists => Self::new(Reason::SkuExists),
            Refusal::PartitionHasHolds { held } => {
                Self::new(Reason::NamespaceHasHolds).because(&format!("{held} reservations")).with("held", held)
            }
            Refusal::SkuHasHolds { held } => {
                Self::new(Reason::SkuHasHolds).because(&format!("{held} are held")).with("held", held)
            }
            Refusal::VersionMismatch(None) => Self::new(Reason::VersionMismatch),
            Refusal::VersionMismatch(Some(stock)) => Self::new(Reason::VersionMismatch)
                .because(&format!("the version is {}, that of the rules {}", stock.version, stock.rules.revision))
                .with("version", stock.version)
                .with("rules_version", stock.rules.revision),
            Refusal::ClosesBeforeOpening => {
                Invalid::new(Reason::InvalidRule, "rules.closes_at").because("it is not later than opens_at").into()
            }
            Refusal::StoreFenced { partition, fence } => store_fenced(partition, fence),
            Refusal::NotFenced => Self::new(Reason::NotFenced),
            Refusal::FenceChanged(fence) => Self::new(Reason::FenceChanged).with("fence", fence.as_str()),
            Refusal::SettlementSuperseded => Self::new(Reason::SettlementSuperseded),
        }
    }
}

impl From<ConfigureError> for Failure {
    fn from(error: ConfigureError) -> Self {
        match error {
            ConfigureError::Invalid(field) => Invalid::new(Reason::InvalidConfig, field).into(),
            ConfigureError::PartitionsFixed => Self::new(Reason::PartitionsFixed),
            ConfigureError::VersionMismatch(version) => Self::new(Reason::VersionMismatch).with("version", version),
            ConfigureError::TooMany(most) => OpenError::TooMany(most).into(),
            ConfigureError::RequestIdReused => Self::new(Reason::RequestIdReused),
            ConfigureError::DeadlinePassed => Self::new(Reason::DeadlineExceeded),
            ConfigureError::OutcomeUnknown { why } => Self::new(Reason::OutcomeUnknown).because(&why),
            ConfigureError::Store(error) => error.into(),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::TooMany(most) => Self::new(Reason::TooManyNamespaces).with("limit", most),
            OpenError::Unknown(name) => Self::new(Reason::NamespaceNotFound).within(&name),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl From<DeleteError> for Failure {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::NotFound => Self::new(Reason::NamespaceNotFound),
            DeleteError::HasHolds { partition, held } => {
                let of = format!("{held} reservations of partition {partition}");
                Self::new(Reason::NamespaceHasHolds).because(&of).with("held", held).with("partition", partition)
            }
            DeleteError::Refused(refusal) => refusal.into(),
            DeleteError::Invalid(invalid) => invalid.into(),
            // Another call continues the deletion.
            DeleteError::Overtaken => Self::new(Reason::OutcomeUnknown),
            DeleteError::DeadlinePassed => Self::new(Reason::DeadlineExceeded),
            DeleteError::OutcomeUnknown { why } => Self::new(Reason::OutcomeUnknown).because(&why),
            DeleteError::Store(error) => error.into(),
        }
    }
}

/// An instant for people.
fn time(at: StoreTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.0))
}

/// Names the missing ACL rules, if the store names them.
fn store_denied(missing: &str) -> Failure {
    let failure = Failure::new(Reason::StoreDenied);
    if missing.is_empty() { failure } else { failure.because(&format!("grant {missing}")).with("missing", missing) }
}

impl From<Shut> for Failure {
    fn from(shut: Shut) -> Self {
        match shut {
            Shut::Unusable(why) => Self::new(Reason::StoreUnavailable).because(&why),
            Shut::Denied(missing) => store_denied(&missing),
        }
    }
}

/// Adds the history that was seen, and the sequence that the store has.
fn store_fenced(partition: u16, fence: Option<Fence>) -> Failure {
    let failure = Failure::new(Reason::StoreFenced).with("partition", partition);
    let Some(Fence { seen, kept, id, .. }) = fence else { return failure };
    failure
        .with("fence", id.as_str())
        .with("seen_epoch", seen.epoch)
        .with("seen_term", seen.term.as_str())
        .with("seen_sequence", seen.sequence)
        .with("kept_sequence", kept)
}

/// Lists every line that is short, in the same way as the shortage of a Reserve.
fn late_commit_sold_out(lines: &[(Line, u64)]) -> Failure {
    let short: Vec<String> = lines
        .iter()
        .filter(|line| is_short(line))
        .map(|(line, available)| format!("{}: {} of {}", line.sku.as_str(), available, line.quantity.get()))
        .collect();
    Failure::new(Reason::LateCommitSoldOut).with("available", short.join(", "))
}

impl From<LaneError> for Failure {
    fn from(error: LaneError) -> Self {
        match error {
            LaneError::Overloaded => Self::new(Reason::Overloaded),
            LaneError::DeadlinePassed => Self::new(Reason::DeadlineExceeded),
            LaneError::OutcomeUnknown { why } => Self::new(Reason::OutcomeUnknown).because(&why),
            LaneError::Unavailable { why } => Self::new(Reason::StoreUnavailable).because(&why),
            LaneError::Full => Self::new(Reason::StoreFull),
            LaneError::Corrupt { why } => Self::new(Reason::StoreCorrupt).because(&why),
            LaneError::Newer { why } => Self::new(Reason::StoreNewer).because(&why),
            LaneError::Denied { missing } => store_denied(&missing),
        }
    }
}

/// The errors of commands that open or read. A retry of those is harmless, so a lost reply counts as
/// STORE_UNAVAILABLE and not as OUTCOME_UNKNOWN.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::new(Reason::StoreFull),
            StoreError::Busy => Self::new(Reason::Overloaded).because(&error.to_string()),
            StoreError::Corrupt { why } => Self::new(Reason::StoreCorrupt).because(&why),
            StoreError::Newer { why } => Self::new(Reason::StoreNewer).because(&why),
            StoreError::Denied { missing, .. } => store_denied(&missing),
            error => Self::new(Reason::StoreUnavailable).because(&error.to_string()),
        }
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::TooMany => Self::new(Reason::TooManyWatches),
            WatchError::TooLarge(most) => Self::new(Reason::TooManyWatches)
                .because(&format!("the namespace has more than the {most} SKUs of --max-watched-skus")),
            WatchError::TooSlow => Self::new(Reason::WatchTooSlow),
            WatchError::Compacted(partitions) => {
                let failure = Self::new(Reason::EventsCompacted);
                if partitions.is_empty() {
                    return failure;
                }
                let partitions: Vec<String> = partitions.iter().map(ToString::to_string).collect();
                failure.with("partitions", partitions.join(","))
            }
            WatchError::Fenced { partition, fence } => store_fenced(partition, fence),
            WatchError::Gone => Self::new(Reason::NamespaceNotFound),
            WatchError::Lost => {
                Self::new(Reason::StoreUnavailable).because("the stream has lost its place in the store")
            }
            WatchError::Store(error) => error.into(),
        }
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Store(error) => error.into(),
            AuditError::TooLarge => Self::new(Reason::Overloaded).because("the audit needs more than --audit-memory"),
            AuditError::Overtaken => Self::new(Reason::AuditOvertaken),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn shedding_says_when_to_come_back() {
        let status = Status::from(Failure::from(LaneError::Overloaded));
        assert!(status.get_details_retry_info().is_some());
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").map(|value| value.as_bytes()), Some(&b"100"[..]));
    }
}
