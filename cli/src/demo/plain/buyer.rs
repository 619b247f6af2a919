//! One attempt of one buyer: Reserve, and then he pays, fails to pay, or walks away. Checks each answer
//! against what was promised, and enters it in the ledger.

use std::time::Duration;

use inventory_sentinel_client::{Applied, CommitError, Line, Reservation, ReserveError, RollbackError, State};
use uuid::Uuid;

use super::mix::{Behaviour, Fate, Repeat};
use crate::{
    demo::{
        SHORT_TTL,
        ledger::{Answer, End, Entry, Ledger, Pace, Part},
        shop::{Order, Shop},
    },
    failure::Failure,
};

/// How long the holds of those who stay last: never the reason for a loss in the demo.
const STAY_TTL: Duration = Duration::from_secs(120);

/// Plays one attempt to its end.
pub(crate) async fn attempt(
    shop: &Shop,
    ledger: &Ledger,
    pace: Pace,
    product: usize,
    behaviour: Behaviour,
) -> Result<(), Failure> {
    let Some(held) = reserve(shop, ledger, pace, product, behaviour).await? else {
        ledger.attempted(pace, Answer::SoldOut);
        return Ok(());
    };
    ledger.attempted(pace, Answer::Reserved { units: 1 });
    let end = match behaviour.fate {
        Fate::Pay => pay(shop, ledger, &held.id, behaviour.repeat).await?,
        Fate::FailToPay => give_back(shop, ledger, &held.id, behaviour.repeat).await?,
        Fate::WalkAway => End::Expired,
    };
    let sold = u32::from(end == End::Committed);
    ledger.enter(Entry { id: held.value.id, parts: vec![Part { product, sold }], end });
    Ok(())
}

async fn reserve(
    shop: &Shop,
    ledger: &Ledger,
    pace: Pace,
    product: usize,
    behaviour: Behaviour,
) -> Result<Option<Applied<Reservation>>, Failure> {
    let request_id = Uuid::now_v7().to_string();
    let order = Order {
        request_id: &request_id,
        lines: vec![Line::new(shop.sku(product), 1)],
        ttl: match behaviour.fate {
            Fate::WalkAway => SHORT_TTL,
            Fate::Pay | Fate::FailToPay => STAY_TTL,
        },
        buyer: None,
        replaces: None,
    };
    let send = || async {
        let latency = |latency| ledger.latency(pace, latency);
        match shop.reserve(ledger, latency, &order).await? {
            Ok(held) => Ok(Some(held)),
            // The short hold of a repeated call can have expired before the second call was answered.
            Err(ReserveError::AlreadyReleased { reservation }) if behaviour.fate == Fate::WalkAway => {
                Ok(Some(*reservation))
            }
            Err(ReserveError::InsufficientStock { .. }) => Ok(None),
            Err(error) => Err(shop.unexpected("Reserve", &error)),
        }
    };
    let pending = |again: &Reservation| match (behaviour.fate, again.state) {
        (Fate::WalkAway, State::Expired) => State::Expired,
        _ => State::Pending,
    };
    match behaviour.repeat {
        Repeat::Never => send().await,
        Repeat::AtOnce => {
            // Either may come first, and a shortage is not remembered: one of each is possible.
            match tokio::try_join!(send(), send())? {
                (Some(one), Some(other)) => {
                    check_repeat(ledger, "Reserve", &one, &other, pending(&other));
                    Ok(Some(one))
                }
                (one, other) => Ok(one.or(other)),
            }
        }
        Repeat::Afterwards => {
            let Some(first) = send().await? else {
                return Ok(None);
            };
            match send().await? {
                Some(again) => check_repeat(ledger, "Reserve", &first, &again, pending(&again)),
                None => ledger.broken(format!("Reserve again: {} is sold out now", first.id)),
            }
            Ok(Some(first))
        }
    }
}

async fn pay(shop: &Shop, ledger: &Ledger, id: &str, repeat: Repeat) -> Result<End, Failure> {
    let send = || shop.commit(ledger, |sale| sale.commit(id));
    let (first, again) = twice(send, repeat).await?;
    let first = match first {
        Ok(sold) => sold,
        Err(CommitError::Expired(_)) => return Ok(End::Expired),
        Err(error) => {
            ledger.broken(format!("Commit of {id}: {error}"));
            return Ok(End::Lost);
        }
    };
    check_state(ledger, "Commit", &first, State::Committed);
    match again {
        Some(Ok(again)) => check_repeat(ledger, "Commit", &first, &again, State::Committed),
        Some(Err(error)) => ledger.broken(format!("Commit of {id} again: {error}")),
        None => {}
    }
    Ok(End::Committed)
}

async fn give_back(shop: &Shop, ledger: &Ledger, id: &str, repeat: Repeat) -> Result<End, Failure> {
    let send = || shop.rollback(ledger, |sale| sale.rollback(id));
    let (first, again): (Result<_, RollbackError>, _) = twice(send, repeat).await?;
    let first = match first {
        Ok(back) if back.state == State::Expired => return Ok(End::Expired),
        Ok(back) => back,
        Err(error) => {
            ledger.broken(format!("Rollback of {id}: {error}"));
            return Ok(End::Lost);
        }
    };
    check_state(ledger, "Rollback", &first, State::RolledBack);
    match again {
        Some(Ok(again)) => check_repeat(ledger, "Rollback", &first, &again, State::RolledBack),
        Some(Err(error)) => ledger.broken(format!("Rollback of {id} again: {error}")),
        None => {}
    }
    Ok(End::RolledBack)
}

/// Sends a call once or twice, as the buyer does.
async fn twice<T, F>(send: impl Fn() -> F, repeat: Repeat) -> Result<(T, Option<T>), Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    Ok(match repeat {
        Repeat::Never => (send().await?, None),
        Repeat::AtOnce => {
            let (one, other) = tokio::try_join!(send(), send())?;
            (one, Some(other))
        }
        Repeat::Afterwards => (send().await?, Some(send().await?)),
    })
}

/// Two answers to one request must be one reservation, and one of them a replay.
fn check_repeat(ledger: &Ledger, call: &str, one: &Applied<Reservation>, other: &Applied<Reservation>, state: State) {
    if one.id != other.id {
        ledger.broken(format!("{call} twice made two reservations, {} and {}", one.id, other.id));
    } else if one.replayed || other.replayed {
        ledger.replayed();
    } else {
        ledger.broken(format!("{call} twice of {} was done twice", one.id));
    }
    check_state(ledger, call, other, state);
}

fn check_state(ledger: &Ledger, call: &str, answer: &Applied<Reservation>, state: State) {
    if answer.state != state {
        ledger.broken(format!("{call} of {} answered {:?}", answer.id, answer.state));
    }
}
