//! The rules of the sale, and the refusals and events that it must produce. Checks each refusal; sends nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inventory_sentinel_client::{ReserveError, RulesChange};

use crate::demo::ledger::Ledger;

/// Units of a product that one buyer may hold and buy.
pub(crate) const BUYER_LIMIT: u32 = 2;
/// The most units of a product in one reservation.
pub(crate) const QUANTITY_LIMIT: u32 = 2;
/// Longest ttl of a product.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(60);
/// Ttl of the holds that are not abandoned: long enough never to expire.
pub(crate) const STAY_TTL: Duration = Duration::from_secs(50);
/// The longest ttl of the namespace, and the longest life of a hold.
pub(crate) const MAX_LIFE: Duration = Duration::from_secs(120);

/// Tolerated clock difference between two processes at the edges of the window.
pub(crate) const CLOCK_GRACE: Duration = Duration::from_millis(100);

/// The reasons that must refuse at least one call.
pub(crate) const REFUSALS: &[&str] = &[
    "BUYER_LIMIT",
    "BUYER_REQUIRED",
    "EXTEND_LIMIT",
    "LATE_COMMIT_SOLD_OUT",
    "LINE_NOT_HELD",
    "QUANTITY_LIMIT",
    "RESERVATION_EXPIRED",
    "SALE_CLOSED",
    "SALE_NOT_OPEN",
    "SKU_NOT_PROTECTED",
    "TTL_LIMIT",
];

/// The events that must happen at least once.
pub(crate) const PLAYED: &[&str] = &[
    "attempted_after_closing",
    "attempted_before_opening",
    "repurchased",
    "carts",
    "extended",
    "parts_bought",
    "parts_given_back",
    "replaced",
    "resolved_after_closing",
    "rest_kept",
];

/// The rules of one sale.
#[derive(Clone, Debug)]
pub(crate) struct SaleRules {
    pub(crate) opens_at: SystemTime,
    /// The product that is not protected for a while.
    pub(crate) drained: usize,
}

impl SaleRules {
    /// The change that sets them for a product.
    pub(crate) fn as_change(&self) -> RulesChange {
        let change = RulesChange::new().buyer_limit(BUYER_LIMIT as i32).max_quantity(QUANTITY_LIMIT as i32);
        change.max_ttl(MAX_TTL).opens_at(self.opens_at)
    }

    /// Counts a refusal of a Reserve that was sent at this time; false if no rule can cause it.
    pub(crate) fn refused(&self, ledger: &Ledger, skus: &[String], sent_at: SystemTime, error: &ReserveError) -> bool {
        let is_expected = match error {
            ReserveError::SaleNotOpen { opens_at, .. } => {
                ledger.played("attempted_before_opening");
                *opens_at == Some(self.opens_at) && sent_at < self.opens_at + CLOCK_GRACE
            }
            ReserveError::SaleClosed { closes_at, .. } => {
                ledger.played("attempted_after_closing");
                closes_at.is_some_and(|at| at <= SystemTime::now() + CLOCK_GRACE)
            }
            ReserveError::BuyerLimit { has, limit, .. } => {
                *limit == i64::from(BUYER_LIMIT) && (1..=*limit).contains(has)
            }
            ReserveError::QuantityLimit { limit, .. } => *limit == i64::from(QUANTITY_LIMIT),
            ReserveError::TtlLimit { limit, .. } => *limit == MAX_TTL,
            ReserveError::BuyerRequired { .. } => true,
            ReserveError::NotProtected(rpc) => rpc.metadata().get("sku") == Some(&skus[self.drained]),
            _ => return false,
        };
        let Some(reason) = error.rpc().and_then(|rpc| rpc.reason()) else { return false };
        ledger.refusal(reason.as_str());
        if !is_expected {
            ledger.violation(format!("Reserve was refused against the rules of the sale: {error:?}"));
        }
        true
    }
}

/// An instant from now, in whole milliseconds like those of the server.
pub(crate) fn from_now(lead: Duration) -> SystemTime {
    let millis = (SystemTime::now() + lead).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    UNIX_EPOCH + Duration::from_millis(millis as u64)
}

/// Records a violation for each reason that refused no call, and for each event that never happened.
pub(crate) fn check_coverage(ledger: &Ledger) {
    let (refusals, played) = ledger.tallies();
    for (reason, _) in refusals.iter().filter(|(_, count)| **count == 0) {
        ledger.violation(format!("{reason} refused no call, and this scenario must produce it"));
    }
    for (what, _) in played.iter().filter(|(_, count)| **count == 0) {
        ledger.violation(format!("{what} never happened, and this scenario must produce it"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::{Plan, tests::args};

    #[test]
    fn a_rule_that_refused_nobody_fails_the_sale() {
        let ledger = Ledger::new(&Plan::new(&args(5, 1, 5, 5)).expect("a plan"));
        ledger.expect(&["BUYER_LIMIT", "TTL_LIMIT"], &["carts"]);
        ledger.refusal("TTL_LIMIT");
        ledger.played("carts");
        check_coverage(&ledger);
        assert_eq!(ledger.counts().violation, 1);
        assert!(ledger.violation_texts()[0].starts_with("BUYER_LIMIT refused no call"));
        ledger.refusal("BUYER_LIMIT");
        check_coverage(&ledger);
        assert_eq!(ledger.counts().violation, 1, "nothing more is missing");
    }
}
