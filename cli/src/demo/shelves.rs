//! Waiting for the shelves of the sale, as the server itself counts them. Changes nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{SHORT_TTL, ledger::Ledger, plan::Plan, shop::Shop};
use crate::failure::Failure;

/// How much later than their deadline holds may be seen as given back.
const GIVE_BACK_GRACE: Duration = Duration::from_secs(15);
/// How often the stock is read while holds are awaited.
const GIVE_BACK_POLL: Duration = Duration::from_millis(50);

/// Waits until no unit is held any more, as the server itself counts it.
pub(crate) async fn wait_until_given_back(shop: &Shop, plan: &Plan, ledger: &Ledger) -> Result<(), Failure> {
    let limit = SHORT_TTL + GIVE_BACK_GRACE;
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
            ledger.broken(format!("{held} units are still held {limit:?} after the rush"));
            return Ok(());
        }
        sleep(GIVE_BACK_POLL).await;
    }
}
