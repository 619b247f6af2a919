//! The rules of the sale, and what its buyers show of them. Checks each refusal against the terms; sends nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inventory_sentinel_client::{ReserveError, RulesChange};

use crate::demo::ledger::Ledger;

/// Units that one buyer may have of a product.
pub(crate) const BUYER_LIMIT: u32 = 2;
/// Units of a product in one reservation.
pub(crate) const MAX_QUANTITY: u32 = 2;
/// Longest ttl of a product.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(60);
/// How long the holds of those who stay last: never the reason for a loss in the demo.
pub(crate) const STAY_TTL: Duration = Duration::from_secs(50);
/// The namespace's own longest ttl, and the longest life of a hold.
pub(crate) const MAX_LIFE: Duration = Duration::from_secs(120);

/// How far the clocks of two processes may be apart for who asks at the edge of the window.
pub(crate) const CLOCK_GRACE: Duration = Duration::from_millis(100);

/// What must refuse someone, by reason.
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

/// What must happen besides.
pub(crate) const PLAYED: &[&str] = &[
    "asked_after_closing",
    "asked_before_opening",
    "repurchased",
    "carts",
    "extended",
    "parts_bought",
    "parts_given_back",
    "replaced",
    "resolved_after_closing",
    "rest_kept",
];

/// What was agreed on before the sale.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) opens_at: SystemTime,
    /// The product that is not protected for a while.
    pub(crate) drained: usize,
}

impl Terms {
    /// As the operator sets them for every product.
    pub(crate) fn rules(&self) -> RulesChange {
        let rules = RulesChange::new().buyer_limit(BUYER_LIMIT as i32).max_quantity(MAX_QUANTITY as i32);
        rules.max_ttl(MAX_TTL).opens_at(self.opens_at)
    }

    /// Books a refusal of a Reserve that was sent at this time; false if it is none that the terms can lead to.
    pub(crate) fn refused(&self, ledger: &Ledger, skus: &[String], asked_at: SystemTime, error: &ReserveError) -> bool {
        let as_agreed = match error {
            ReserveError::SaleNotOpen { opens_at, .. } => {
                ledger.played("asked_before_opening");
                *opens_at == Some(self.opens_at) && asked_at < self.opens_at + CLOCK_GRACE
            }
            ReserveError::SaleClosed { closes_at, .. } => {
                ledger.played("asked_after_closing");
                closes_at.is_some_and(|at| at <= SystemTime::now() + CLOCK_GRACE)
            }
            ReserveError::BuyerLimit { has, limit, .. } => {
                *limit == i64::from(BUYER_LIMIT) && (1..=*limit).contains(has)
            }
            ReserveError::QuantityLimit { limit, .. } => *limit == i64::from(MAX_QUANTITY),
            ReserveError::TtlLimit { limit, .. } => *limit == MAX_TTL,
            ReserveError::BuyerRequired { .. } => true,
            ReserveError::NotProtected(rpc) => rpc.metadata().get("sku") == Some(&skus[self.drained]),
            _ => return false,
        };
        let Some(reason) = error.rpc().and_then(|rpc| rpc.reason()) else { return false };
        ledger.refusal(reason.as_str());
        if !as_agreed {
            ledger.broken(format!("Reserve was refused by other terms than were agreed on: {error:?}"));
        }
        true
    }
}

/// An instant from now, as the server keeps it: in whole milliseconds.
pub(crate) fn from_now(lead: Duration) -> SystemTime {
    let millis = (SystemTime::now() + lead).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    UNIX_EPOCH + Duration::from_millis(millis as u64)
}

/// Fails the sale for each rule that refused nobody, and for what never happened.
pub(crate) fn check_coverage(ledger: &Ledger) {
    let (refusals, played) = ledger.tallies();
    for (reason, _) in refusals.iter().filter(|(_, count)| **count == 0) {
        ledger.broken(format!("{reason} never refused anyone, and this scenario is built to meet it"));
    }
    for (what, _) in played.iter().filter(|(_, count)| **count == 0) {
        ledger.broken(format!("{what} never happened, and this scenario is built to show it"));
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
        assert_eq!(ledger.counts().broken, 1);
        assert!(ledger.broken_words()[0].starts_with("BUYER_LIMIT never refused anyone"));
        ledger.refusal("BUYER_LIMIT");
        check_coverage(&ledger);
        assert_eq!(ledger.counts().broken, 1, "nothing more is missing");
    }
}
