//! One attempt of one buyer in the sale by the rules, from Reserve to its end, as his role has it. Checks each answer
//! against what was promised.

use std::time::Duration;

use inventory_sentinel_client::{CommitError, ExtendError, Namespace, State};
use rand::rngs::StdRng;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    hold::{Hold, Units},
    roles::{self, Role, Want},
    sale::{Ask, Sale, repeats},
    terms::{BUYER_LIMIT, MAX_LIFE, MAX_QUANTITY, MAX_TTL, STAY_TTL},
};
use crate::{
    demo::{
        SHORT_TTL,
        ledger::{End, Pace},
    },
    failure::Failure,
};

/// Plays one attempt to its end.
pub(crate) async fn attempt(sale: &Sale, pace: Pace, buyer: u32, role: Role, dice: &mut StdRng) -> Result<(), Failure> {
    let first = match role {
        Role::AsksTooMany => MAX_QUANTITY + 1,
        role if role.needs_two() => 2,
        _ => 1,
    };
    let cart = roles::cart(dice, sale.plan.skus.len(), first);
    let ttl = match role {
        Role::AsksTooLong => MAX_TTL * 2,
        Role::WalksAway | Role::PaysLate => SHORT_TTL,
        _ => STAY_TTL,
    };
    let ask = Ask { buyer, is_named: role != Role::HasNoName, cart: &cart, ttl, replaces: None };
    let Some(hold) = sale.ask(pace, dice, &ask).await? else {
        return Ok(());
    };
    if let Role::AsksTooMany | Role::AsksTooLong | Role::HasNoName = role {
        sale.ledger.broken(format!("{} was reserved, and a rule is against it: {role:?}", hold.id));
    }
    finish(sale, pace, role, hold, dice).await
}

async fn finish(sale: &Sale, pace: Pace, role: Role, mut hold: Hold, dice: &mut StdRng) -> Result<(), Failure> {
    match role {
        Role::WalksAway => {
            sale.enter(hold, End::Expired);
            return Ok(());
        }
        Role::PaysLate => {
            sale.will_be_late(hold);
            return Ok(());
        }
        Role::FailsToPay => return give_all_back(sale, hold, dice).await,
        Role::PaysPart => {
            let end = commit(sale, &mut hold, Units::One, false, dice).await?;
            sale.enter(hold, end);
            return Ok(());
        }
        Role::PaysInParts => {
            if commit(sale, &mut hold, Units::One, true, dice).await? != End::Committed {
                sale.enter(hold, End::Lost);
                return Ok(());
            }
        }
        Role::GivesPartBack => {
            if give_back(sale, &mut hold, Units::One, dice).await? != End::RolledBack {
                sale.enter(hold, End::Lost);
                return Ok(());
            }
            sale.ledger.played("parts_given_back");
        }
        Role::Extends => extend(sale, &hold).await?,
        Role::ExtendsTooFar => extend_too_far(sale, &hold).await?,
        Role::WantsMore => want_more(sale, pace, &hold, dice).await?,
        Role::PaysTooMuch => pay_too_much(sale, &hold).await?,
        Role::Swaps => hold = swap(sale, pace, hold, dice).await?,
        Role::Pays | Role::AsksTooMany | Role::AsksTooLong | Role::HasNoName => {}
    }
    pay(sale, hold, dice).await
}

/// Pays for all that is held.
pub(crate) async fn pay(sale: &Sale, mut hold: Hold, dice: &mut StdRng) -> Result<(), Failure> {
    let end = commit(sale, &mut hold, Units::All, false, dice).await?;
    sale.enter(hold, end);
    Ok(())
}

/// Gives back all that is held.
pub(crate) async fn give_all_back(sale: &Sale, mut hold: Hold, dice: &mut StdRng) -> Result<(), Failure> {
    let end = give_back(sale, &mut hold, Units::All, dice).await?;
    sale.enter(hold, end);
    Ok(())
}

/// Buys units; the rest is given back unless it is kept. Tells how it ended.
async fn commit(
    sale: &Sale,
    hold: &mut Hold,
    units: Units,
    keeps_rest: bool,
    dice: &mut StdRng,
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
            sale.ledger.broken(format!("Commit of {id}: {error}"));
            return Ok(End::Lost);
        }
    };
    hold.bought(units);
    match (units, keeps_rest) {
        (Units::One, true) => sale.ledger.played("rest_kept"),
        (Units::One, false) => {
            sale.ledger.played("parts_bought");
            hold.gave_back(Units::All);
        }
        (Units::All, _) => {}
    }
    hold.check(&sale.ledger, "Commit", &sold);
    if repeats(dice) {
        match send().await? {
            Ok(again) => sale.replayed(&sold, &again),
            Err(error) => sale.ledger.broken(format!("Commit of {id} again: {error}")),
        }
    }
    Ok(End::Committed)
}

/// Gives units back. Tells how it ended.
async fn give_back(sale: &Sale, hold: &mut Hold, units: Units, dice: &mut StdRng) -> Result<End, Failure> {
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
            sale.ledger.broken(format!("Rollback of {id}: {error}"));
            return Ok(End::Lost);
        }
    };
    hold.gave_back(units);
    hold.check(&sale.ledger, "Rollback", &back);
    if repeats(dice) {
        match send().await? {
            Ok(again) => sale.replayed(&back, &again),
            Err(error) => sale.ledger.broken(format!("Rollback of {id} again: {error}")),
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
        answer => sale.ledger.broken(format!("Extend of {}: {answer:?}", hold.id)),
    }
    Ok(())
}

/// From any moment after the first, the longest life reaches beyond what the hold may live.
async fn extend_too_far(sale: &Sale, hold: &Hold) -> Result<(), Failure> {
    let request_id = Uuid::now_v7().to_string();
    // Redis counts in milliseconds: let one pass, so that the sum is certainly beyond.
    sleep(Duration::from_millis(2)).await;
    let send =
        || sale.shop.extend(&sale.ledger, |namespace| namespace.extend(&hold.id, MAX_LIFE).request_id(&request_id));
    match send().await? {
        Err(ExtendError::Limit { left, .. }) if left < MAX_LIFE => sale.ledger.refusal("EXTEND_LIMIT"),
        answer => sale.ledger.broken(format!("Extend of {} beyond its life: {answer:?}", hold.id)),
    }
    Ok(())
}

/// Holds some of a product, and wants as many again as one buyer may have.
async fn want_more(sale: &Sale, pace: Pace, hold: &Hold, dice: &mut StdRng) -> Result<(), Failure> {
    let mut cart = vec![Want { product: hold.lines[0].product, units: BUYER_LIMIT }];
    // Another product in the cart must not be taken either.
    let other = (cart[0].product + 1) % sale.plan.skus.len();
    cart.push(Want { product: other, units: 1 });
    let ask = Ask { buyer: hold.buyer, is_named: true, cart: &cart, ttl: STAY_TTL, replaces: None };
    if let Some(second) = sale.ask(pace, dice, &ask).await? {
        sale.ledger.broken(format!("{} was reserved beyond its buyer's limit", second.id));
        give_all_back(sale, second, dice).await?;
    }
    Ok(())
}

async fn pay_too_much(sale: &Sale, hold: &Hold) -> Result<(), Failure> {
    let line = hold.lines[0];
    let (request_id, sku) = (Uuid::now_v7().to_string(), sale.shop.sku(line.product));
    let request =
        |namespace: &Namespace| namespace.commit(&hold.id).line(sku, line.held as i32 + 1).request_id(&request_id);
    match sale.shop.commit(&sale.ledger, request).await? {
        Err(CommitError::LineNotHeld { held, .. }) if held == i64::from(line.held) => {
            sale.ledger.refusal("LINE_NOT_HELD");
        }
        answer => sale.ledger.broken(format!("Commit of more than {} holds: {answer:?}", hold.id)),
    }
    Ok(())
}

/// Puts another cart in the place of the hold; what is held afterwards.
async fn swap(sale: &Sale, pace: Pace, mut hold: Hold, dice: &mut StdRng) -> Result<Hold, Failure> {
    let cart = roles::cart(dice, sale.plan.skus.len(), 1);
    let replaces = Some(hold.id.as_str());
    let ask = Ask { buyer: hold.buyer, is_named: true, cart: &cart, ttl: STAY_TTL, replaces };
    // On a shortage or a refusal the first stays as it is.
    let Some(second) = sale.ask(pace, dice, &ask).await? else {
        return Ok(hold);
    };
    sale.ledger.played("replaced");
    hold.gave_back(Units::All);
    sale.enter(hold, End::RolledBack);
    Ok(second)
}
