//! One attempt of one buyer: Reserve, then pay, fail to pay, or abandon the hold. Checks each response and records it
//! in the ledger.

use std::time::Duration;

use inventory_sentinel_client::{Applied, CommitError, Line, Reservation, ReserveError, RollbackError, State};
use uuid::Uuid;

use super::workload::{Attempt, Outcome, Repeat};
use crate::{
    demo::{
        SHORT_TTL,
        ledger::{Answer, End, Entry, LatencyClass, Ledger, Part},
        shop::{ReserveParams, Shop},
    },
    failure::Failure,
};

/// Ttl of the holds that are not abandoned: long enough never to expire.
const STAY_TTL: Duration = Duration::from_secs(120);

/// Runs one attempt.
pub(crate) async fn attempt(
    shop: &Shop,
    ledger: &Ledger,
    latency_class: LatencyClass,
    product: usize,
    behavior: Attempt,
) -> Result<(), Failure> {
    let Some(held) = reserve(shop, ledger, latency_class, product, behavior).await? else {
        ledger.attempted(latency_class, Answer::SoldOut);
        return Ok(());
    };
    ledger.attempted(latency_class, Answer::Reserved { units: 1 });
    let end = match behavior.outcome {
        Outcome::Pay => pay(shop, ledger, &held.id, behavior.repeat).await?,
        Outcome::FailToPay => roll_back(shop, ledger, &held.id, behavior.repeat).await?,
        Outcome::WalkAway => End::Expired,
    };
    let sold = u32::from(end == End::Committed);
    ledger.record(Entry { id: held.value.id, parts: vec![Part { product, sold }], end });
    Ok(())
}

async fn reserve(
    shop: &Shop,
    ledger: &Ledger,
    latency_class: LatencyClass,
    product: usize,
    behavior: Attempt,
) -> Result<Option<Applied<Reservation>>, Failure> {
    let request_id = Uuid::now_v7().to_string();
    let params = ReserveParams {
        request_id: &request_id,
        lines: vec![Line::new(shop.sku(product), 1)],
        ttl: match behavior.outcome {
            Outcome::WalkAway => SHORT_TTL,
            Outcome::Pay | Outcome::FailToPay => STAY_TTL,
        },
        buyer: None,
        replaces: None,
    };
    let send = || async {
        let latency = |latency| ledger.latency(latency_class, latency);
        match shop.reserve(ledger, latency, &params).await? {
            Ok(held) => Ok(Some(held)),
            // The short hold can have expired before the response to the second call.
            Err(ReserveError::AlreadyReleased { reservation }) if behavior.outcome == Outcome::WalkAway => {
                Ok(Some(*reservation))
            }
            Err(ReserveError::InsufficientStock { .. }) => Ok(None),
            Err(error) => Err(shop.unexpected("Reserve", &error)),
        }
    };
    let pending = |again: &Reservation| match (behavior.outcome, again.state) {
        (Outcome::WalkAway, State::Expired) => State::Expired,
        _ => State::Pending,
    };
    match behavior.repeat {
        Repeat::Never => send().await,
        Repeat::AtOnce => {
            // Either may be applied first, and a shortage is not stored: one of each is possible.
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
                None => ledger.violation(format!("Reserve again: {} is sold out now", first.id)),
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
            ledger.violation(format!("Commit of {id}: {error}"));
            return Ok(End::Lost);
        }
    };
    check_state(ledger, "Commit", &first, State::Committed);
    match again {
        Some(Ok(again)) => check_repeat(ledger, "Commit", &first, &again, State::Committed),
        Some(Err(error)) => ledger.violation(format!("Commit of {id} again: {error}")),
        None => {}
    }
    Ok(End::Committed)
}

async fn roll_back(shop: &Shop, ledger: &Ledger, id: &str, repeat: Repeat) -> Result<End, Failure> {
    let send = || shop.rollback(ledger, |sale| sale.rollback(id));
    let (first, again): (Result<_, RollbackError>, _) = twice(send, repeat).await?;
    let first = match first {
        Ok(back) if back.state == State::Expired => return Ok(End::Expired),
        Ok(back) => back,
        Err(error) => {
            ledger.violation(format!("Rollback of {id}: {error}"));
            return Ok(End::Lost);
        }
    };
    check_state(ledger, "Rollback", &first, State::RolledBack);
    match again {
        Some(Ok(again)) => check_repeat(ledger, "Rollback", &first, &again, State::RolledBack),
        Some(Err(error)) => ledger.violation(format!("Rollback of {id} again: {error}")),
        None => {}
    }
    Ok(End::RolledBack)
}

/// Sends a call once or twice.
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

/// Two responses to one request must have one reservation, and one of them must be a replay.
fn check_repeat(ledger: &Ledger, call: &str, one: &Applied<Reservation>, other: &Applied<Reservation>, state: State) {
    if one.id != other.id {
        ledger.violation(format!("{call} twice made two reservations, {} and {}", one.id, other.id));
    } else if one.replayed || other.replayed {
        ledger.replayed();
    } else {
        ledger.violation(format!("{call} twice of {} was applied twice", one.id));
    }
    check_state(ledger, call, other, state);
}

fn check_state(ledger: &Ledger, call: &str, answer: &Applied<Reservation>, state: State) {
    if answer.state != state {
        ledger.violation(format!("{call} of {} returned {:?}", answer.id, answer.state));
    }
}
