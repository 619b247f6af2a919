//! One attempt of one buyer in the rules scenario, from Reserve to its end, by its behavior. Checks each response.

use std::time::Duration;

use inventory_sentinel_client::{CommitError, ExtendError, Namespace, State};
use rand::rngs::StdRng;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    behavior::{self, Behavior, CartLine},
    hold::{Hold, Units},
    sale::{CartRequest, Sale, repeats},
    sale_rules::{BUYER_LIMIT, MAX_LIFE, MAX_TTL, QUANTITY_LIMIT, STAY_TTL},
};
use crate::{
    demo::{
        SHORT_TTL,
        ledger::{End, LatencyClass},
    },
    failure::Failure,
};

/// Runs one attempt.
pub(crate) async fn attempt(
    sale: &Sale,
    latency_class: LatencyClass,
    buyer: u32,
    behavior: Behavior,
    rng: &mut StdRng,
) -> Result<(), Failure> {
    let first = match behavior {
        Behavior::ExceedsQuantity => QUANTITY_LIMIT + 1,
        behavior if behavior.needs_two() => 2,
        _ => 1,
    };
    let cart = behavior::cart(rng, sale.plan.skus.len(), first);
    let ttl = match behavior {
        Behavior::ExceedsTtl => MAX_TTL * 2,
        Behavior::WalksAway | Behavior::PaysLate => SHORT_TTL,
        _ => STAY_TTL,
    };
    let request = CartRequest { buyer, is_named: behavior != Behavior::HasNoBuyerId, cart: &cart, ttl, replaces: None };
    let Some(hold) = sale.reserve(latency_class, rng, &request).await? else {
        return Ok(());
    };
    if let Behavior::ExceedsQuantity | Behavior::ExceedsTtl | Behavior::HasNoBuyerId = behavior {
        sale.ledger.violation(format!("{} was reserved against a rule: {behavior:?}", hold.id));
    }
    finish(sale, latency_class, behavior, hold, rng).await
}

async fn finish(
    sale: &Sale,
    latency_class: LatencyClass,
    behavior: Behavior,
    mut hold: Hold,
    rng: &mut StdRng,
) -> Result<(), Failure> {
    match behavior {
        Behavior::WalksAway => {
            sale.record(hold, End::Expired);
            return Ok(());
        }
        Behavior::PaysLate => {
            sale.will_be_late(hold);
            return Ok(());
        }
        Behavior::FailsToPay => return roll_back_all(sale, hold, rng).await,
        Behavior::PaysPart => {
            let end = commit(sale, &mut hold, Units::One, false, rng).await?;
            sale.record(hold, end);
            return Ok(());
        }
        Behavior::PaysInParts => {
            if commit(sale, &mut hold, Units::One, true, rng).await? != End::Committed {
                sale.record(hold, End::Lost);
                return Ok(());
            }
        }
        Behavior::GivesPartBack => {
            if roll_back(sale, &mut hold, Units::One, rng).await? != End::RolledBack {
                sale.record(hold, End::Lost);
                return Ok(());
            }
            sale.ledger.played("parts_given_back");
        }
        Behavior::Extends => extend(sale, &hold).await?,
        Behavior::ExtendsTooFar => extend_too_far(sale, &hold).await?,
        Behavior::ExceedsBuyerLimit => exceed_buyer_limit(sale, latency_class, &hold, rng).await?,
        Behavior::ExceedsHeld => exceed_held(sale, &hold).await?,
        Behavior::Swaps => hold = swap(sale, latency_class, hold, rng).await?,
        Behavior::Pays | Behavior::ExceedsQuantity | Behavior::ExceedsTtl | Behavior::HasNoBuyerId => {}
    }
    pay(sale, hold, rng).await
}

/// Pays for all held units.
pub(crate) async fn pay(sale: &Sale, mut hold: Hold, rng: &mut StdRng) -> Result<(), Failure> {
    let end = commit(sale, &mut hold, Units::All, false, rng).await?;
    sale.record(hold, end);
    Ok(())
}

/// Rolls back all held units.
pub(crate) async fn roll_back_all(sale: &Sale, mut hold: Hold, rng: &mut StdRng) -> Result<(), Failure> {
    let end = roll_back(sale, &mut hold, Units::All, rng).await?;
    sale.record(hold, end);
    Ok(())
}

/// Buys units; the rest is released unless it is kept. Returns the end of the hold.
async fn commit(
    sale: &Sale,
    hold: &mut Hold,
    units: Units,
    keeps_rest: bool,
    rng: &mut StdRng,
) -> Result<End, Failure> {
    let (request_id, id) = (Uuid::now_v7().to_string(), hold.id.clone());
    let sku = sale.shop.sku(hold.lines[0].product).to_owned();
    let send = || {
        sale.shop.commit(&sale.ledger, |namespace| {
            let request = namespace.commit(&id);
            match (units, keeps_rest) {
                (Units::All, _) => request,
                (Units::One, true) => request.line(&sku, 1).keep_rest().request_id(&request_id),
                (Units::One, false) => request.line(&sku, 1).request_id(&request_id),
            }
        })
    };
    let sold = match send().await? {
        Ok(sold) => sold,
        Err(error) => {
            sale.ledger.violation(format!("Commit of {id}: {error}"));
            return Ok(End::Lost);
        }
    };
    hold.bought(units);
    match (units, keeps_rest) {
        (Units::One, true) => sale.ledger.played("rest_kept"),
        (Units::One, false) => {
            sale.ledger.played("parts_bought");
            hold.released(Units::All);
        }
        (Units::All, _) => {}
    }
    hold.check(&sale.ledger, "Commit", &sold);
    if repeats(rng) {
        match send().await? {
            Ok(again) => sale.replayed(&sold, &again),
            Err(error) => sale.ledger.violation(format!("Commit of {id} again: {error}")),
        }
    }
    Ok(End::Committed)
}

/// Releases units. Returns the end of the hold.
async fn roll_back(sale: &Sale, hold: &mut Hold, units: Units, rng: &mut StdRng) -> Result<End, Failure> {
    let (request_id, id) = (Uuid::now_v7().to_string(), hold.id.clone());
    let sku = sale.shop.sku(hold.lines[0].product).to_owned();
    let send = || {
        sale.shop.rollback(&sale.ledger, |namespace| match units {
            Units::All => namespace.rollback(&id),
            Units::One => namespace.rollback(&id).line(&sku, 1).request_id(&request_id),
        })
    };
    let back = match send().await? {
        Ok(back) => back,
        Err(error) => {
            sale.ledger.violation(format!("Rollback of {id}: {error}"));
            return Ok(End::Lost);
        }
    };
    hold.released(units);
    hold.check(&sale.ledger, "Rollback", &back);
    if repeats(rng) {
        match send().await? {
            Ok(again) => sale.replayed(&back, &again),
            Err(error) => sale.ledger.violation(format!("Rollback of {id} again: {error}")),
        }
    }
    Ok(End::RolledBack)
}

async fn extend(sale: &Sale, hold: &Hold) -> Result<(), Failure> {
    let request_id = Uuid::now_v7().to_string();
    let send =
        || sale.shop.extend(&sale.ledger, |namespace| namespace.extend(&hold.id, MAX_TTL).request_id(&request_id));
    match send().await? {
        Ok(longer) if longer.reservation.state == State::Pending => sale.ledger.played("extended"),
        answer => sale.ledger.violation(format!("Extend of {}: {answer:?}", hold.id)),
    }
    Ok(())
}

/// Extends by the longest life, which exceeds the limit at any time after the Reserve.
async fn extend_too_far(sale: &Sale, hold: &Hold) -> Result<(), Failure> {
    let request_id = Uuid::now_v7().to_string();
    // Redis counts milliseconds: after one more the sum exceeds the limit.
    sleep(Duration::from_millis(2)).await;
    let send =
        || sale.shop.extend(&sale.ledger, |namespace| namespace.extend(&hold.id, MAX_LIFE).request_id(&request_id));
    match send().await? {
        Err(ExtendError::Limit { left, .. }) if left < MAX_LIFE => sale.ledger.refusal("EXTEND_LIMIT"),
        answer => sale.ledger.violation(format!("Extend of {} beyond its life: {answer:?}", hold.id)),
    }
    Ok(())
}

/// With a hold of a product, reserves the whole buyer limit of it.
async fn exceed_buyer_limit(
    sale: &Sale,
    latency_class: LatencyClass,
    hold: &Hold,
    rng: &mut StdRng,
) -> Result<(), Failure> {
    let mut cart = vec![CartLine { product: hold.lines[0].product, units: BUYER_LIMIT }];
    // The other product of the cart must not be reserved either.
    let other = (cart[0].product + 1) % sale.plan.skus.len();
    cart.push(CartLine { product: other, units: 1 });
    let request = CartRequest { buyer: hold.buyer, is_named: true, cart: &cart, ttl: STAY_TTL, replaces: None };
    if let Some(second) = sale.reserve(latency_class, rng, &request).await? {
        sale.ledger.violation(format!("{} was reserved beyond the buyer limit", second.id));
        roll_back_all(sale, second, rng).await?;
    }
    Ok(())
}

async fn exceed_held(sale: &Sale, hold: &Hold) -> Result<(), Failure> {
    let line = hold.lines[0];
    let (request_id, sku) = (Uuid::now_v7().to_string(), sale.shop.sku(line.product));
    let request =
        |namespace: &Namespace| namespace.commit(&hold.id).line(sku, line.held as i32 + 1).request_id(&request_id);
    match sale.shop.commit(&sale.ledger, request).await? {
        Err(CommitError::LineNotHeld { held, .. }) if held == i64::from(line.held) => {
            sale.ledger.refusal("LINE_NOT_HELD");
        }
        answer => sale.ledger.violation(format!("Commit of more than {} holds: {answer:?}", hold.id)),
    }
    Ok(())
}

/// Replaces the hold by another cart. Returns the hold that exists afterwards.
async fn swap(sale: &Sale, latency_class: LatencyClass, mut hold: Hold, rng: &mut StdRng) -> Result<Hold, Failure> {
    let cart = behavior::cart(rng, sale.plan.skus.len(), 1);
    let replaces = Some(hold.id.as_str());
    let request = CartRequest { buyer: hold.buyer, is_named: true, cart: &cart, ttl: STAY_TTL, replaces };
    // On a shortage or a refusal the first hold stays unchanged.
    let Some(second) = sale.reserve(latency_class, rng, &request).await? else {
        return Ok(hold);
    };
    sale.ledger.played("replaced");
    hold.released(Units::All);
    sale.record(hold, End::RolledBack);
    Ok(second)
}
