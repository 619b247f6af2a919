//! What all buyers of the sale by the rules share: the shop, the terms, and the books across holds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use inventory_sentinel_client::{Applied, Reservation, ReserveError};
use rand::{Rng as _, rngs::StdRng};
use uuid::Uuid;

use super::{
    hold::Hold,
    roles::{self, Want},
    terms::{BUYER_LIMIT, Terms},
};
use crate::{
    demo::{
        ledger::{Answer, End, Ledger, Pace},
        plan::Plan,
        shop::{Order, Shop},
    },
    failure::Failure,
};

/// Of a hundred calls, how many are sent a second time with the same identity.
const REPEATS: u32 = 10;

/// One sale by the rules. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sale {
    pub(crate) shop: Shop,
    pub(crate) plan: Arc<Plan>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) terms: Arc<Terms>,
    /// Holds whose buyers pay too late.
    late: Arc<Mutex<Vec<Hold>>>,
    /// Units bought, by buyer and product.
    bought: Arc<Mutex<HashMap<(u32, usize), u32>>>,
}

/// What a buyer asks for.
pub(crate) struct Ask<'a> {
    pub(crate) buyer: u32,
    pub(crate) is_named: bool,
    pub(crate) cart: &'a [Want],
    pub(crate) ttl: Duration,
    pub(crate) replaces: Option<&'a str>,
}

impl Sale {
    pub(crate) fn new(shop: &Shop, plan: &Arc<Plan>, ledger: &Arc<Ledger>, terms: Terms) -> Sale {
        Sale {
            shop: shop.clone(),
            plan: Arc::clone(plan),
            ledger: Arc::clone(ledger),
            terms: Arc::new(terms),
            late: Arc::default(),
            bought: Arc::default(),
        }
    }

    /// One attempt: the hold, or nothing if there was a shortage or a rule was against it.
    pub(crate) async fn ask(&self, pace: Pace, dice: &mut StdRng, ask: &Ask<'_>) -> Result<Option<Hold>, Failure> {
        let request_id = Uuid::now_v7().to_string();
        let buyer = format!("buyer-{}", ask.buyer);
        let order = Order {
            request_id: &request_id,
            lines: roles::lines(ask.cart, &self.plan.skus),
            ttl: ask.ttl,
            buyer: ask.is_named.then_some(&buyer),
            replaces: ask.replaces,
        };
        let latency = |latency| self.ledger.latency(pace, latency);
        let asked_at = SystemTime::now();
        let held = match self.shop.reserve(&self.ledger, latency, &order).await? {
            Ok(held) => held,
            Err(ReserveError::InsufficientStock { .. }) => {
                self.ledger.attempted(pace, Answer::SoldOut);
                return Ok(None);
            }
            Err(error) => {
                self.ledger.attempted(pace, Answer::Refused);
                return match self.terms.refused(&self.ledger, &self.plan.skus, asked_at, &error) {
                    true => Ok(None),
                    false => Err(self.shop.unexpected("Reserve", &error)),
                };
            }
        };
        let units = ask.cart.iter().map(|want| want.units).sum();
        self.ledger.attempted(pace, Answer::Reserved { units });
        if ask.cart.len() > 1 {
            self.ledger.played("carts");
        }
        let hold = Hold::new(&held.id, ask.buyer, ask.cart);
        hold.check(&self.ledger, "Reserve", &held);
        if repeats(dice) {
            match self.shop.reserve(&self.ledger, |_| (), &order).await? {
                Ok(again) => self.replayed(&held, &again),
                Err(ReserveError::AlreadyReleased { reservation }) => self.replayed(&held, &reservation),
                Err(error) => self.ledger.broken(format!("Reserve of {} again: {error}", held.id)),
            }
        }
        Ok(Some(hold))
    }

    /// Two answers to one change must be of one reservation, the second a replay.
    pub(crate) fn replayed(&self, first: &Applied<Reservation>, again: &Applied<Reservation>) {
        if first.id == again.id && again.replayed {
            self.ledger.replayed();
        } else {
            self.ledger.broken(format!("a call on {} was done twice: {:?}", first.id, again.value));
        }
    }

    /// A hold has come to its end: what it sold is in the books from now on.
    pub(crate) fn enter(&self, hold: Hold, otherwise: End) {
        let mut bought = self.bought.lock().unwrap_or_else(PoisonError::into_inner);
        for line in &hold.lines {
            let units = bought.entry((hold.buyer, line.product)).or_default();
            *units += line.sold;
            if *units > BUYER_LIMIT {
                self.ledger.broken(format!("buyer {} has bought {units} of {line:?}", hold.buyer));
            }
        }
        drop(bought);
        self.ledger.enter(hold.entry(otherwise));
    }

    /// The buyer of this hold will be back, too late.
    pub(crate) fn will_be_late(&self, hold: Hold) {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(hold);
    }

    /// Those who will be back too late, up to now.
    pub(crate) fn take_late(&self) -> Vec<Hold> {
        std::mem::take(&mut self.late.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a call is sent a second time.
pub(crate) fn repeats(dice: &mut StdRng) -> bool {
    dice.random_range(0..100) < REPEATS
}
