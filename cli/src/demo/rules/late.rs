//! Buyers that pay after the deadline: refused and refunded, or repurchased if the stock still has the units.

use inventory_sentinel_client::{CommitError, State};
use rand::rngs::StdRng;

use super::{
    hold::{Hold, Units},
    sale::{Sale, repeats},
};
use crate::{demo::ledger::End, failure::Failure};

/// Pays late with the default policy, which refuses.
pub(crate) async fn pay_by_default(sale: &Sale, hold: Hold) -> Result<(), Failure> {
    match sale.shop.commit(&sale.ledger, |namespace| namespace.commit(&hold.id)).await? {
        Err(CommitError::Expired(_)) => sale.ledger.refusal("RESERVATION_EXPIRED"),
        answer => sale.ledger.violation(format!("late Commit of {}: {answer:?}", hold.id)),
    }
    sale.record(hold, End::Expired);
    Ok(())
}

/// Pays late, with a commit that may repurchase.
pub(crate) async fn pay_late_and_repurchase(sale: &Sale, hold: Hold, rng: &mut StdRng) -> Result<(), Failure> {
    let send = || sale.shop.commit(&sale.ledger, |namespace| namespace.commit(&hold.id).repurchase_if_late());
    match send().await? {
        Ok(sold) => {
            let mut purchase = Hold { id: sold.id.clone(), ..hold.clone() };
            purchase.bought(Units::All);
            purchase.check(&sale.ledger, "late Commit", &sold);
            if sold.state != State::Committed || sold.origin.as_deref() != Some(&hold.id) {
                sale.ledger.violation(format!("late Commit of {} returned {:?}", hold.id, sold.value));
            }
            if repeats(rng) {
                match send().await? {
                    Ok(again) => sale.replayed(&sold, &again),
                    Err(error) => sale.ledger.violation(format!("late Commit of {} again: {error}", hold.id)),
                }
            }
            sale.ledger.repurchased();
            sale.ledger.played("repurchased");
            sale.record(purchase, End::Committed);
        }
        Err(CommitError::LateSoldOut { lines, .. }) if !lines.is_empty() => {
            sale.ledger.refusal("LATE_COMMIT_SOLD_OUT");
        }
        // The buyer has bought up to the limit meanwhile.
        Err(CommitError::BuyerLimit { .. }) => sale.ledger.refusal("BUYER_LIMIT"),
        Err(error) => sale.ledger.violation(format!("late Commit of {}: {error}", hold.id)),
    }
    sale.record(hold, End::Expired);
    Ok(())
}
