//! Waits until abandoned holds have expired, by the server's counters. Changes nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{SHORT_TTL, ledger::Ledger, plan::Plan, shop::Shop};
use crate::failure::Failure;

/// How long after their deadline holds may still be counted as held.
const EXPIRY_GRACE: Duration = Duration::from_secs(15);
/// Interval of the stock reads.
const EXPIRY_POLL: Duration = Duration::from_millis(50);

/// Waits until no unit is held.
pub(crate) async fn wait_for_expiry(shop: &Shop, plan: &Plan, ledger: &Ledger) -> Result<(), Failure> {
    let limit = SHORT_TTL + EXPIRY_GRACE;
    let deadline = Instant::now() + limit;
    loop {
        let mut held = 0;
        for sku in &plan.skus {
            held += shop.stock(sku).await?.held;
        }
        if held == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            ledger.violation(format!("{held} units are still held {limit:?} after the last attempt"));
            return Ok(());
        }
        sleep(EXPIRY_POLL).await;
    }
}
