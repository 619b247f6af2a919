//! The state that all buyers of the rules scenario share: the shop, the rules, and the units bought per buyer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use inventory_sentinel_client::{Applied, Reservation, ReserveError};
use rand::{Rng as _, rngs::StdRng};
use uuid::Uuid;

use super::{
    behavior::{self, CartLine},
    hold::Hold,
    sale_rules::{BUYER_LIMIT, SaleRules},
};
use crate::{
    demo::{
        ledger::{Answer, End, LatencyClass, Ledger},
        plan::Plan,
        shop::{ReserveParams, Shop},
    },
    failure::Failure,
};

/// Percentage of calls that are sent a second time with the same identity.
const REPEATS: u32 = 10;

/// One sale. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sale {
    pub(crate) shop: Shop,
    pub(crate) plan: Arc<Plan>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) rules: Arc<SaleRules>,
    /// Holds whose buyers pay after the deadline.
    late: Arc<Mutex<Vec<Hold>>>,
    /// Units bought, by buyer and product.
    bought: Arc<Mutex<HashMap<(u32, usize), u32>>>,
}

/// An attempt to reserve a cart.
pub(crate) struct CartRequest<'a> {
    pub(crate) buyer: u32,
    pub(crate) is_named: bool,
    pub(crate) cart: &'a [CartLine],
    pub(crate) ttl: Duration,
    pub(crate) replaces: Option<&'a str>,
}

impl Sale {
    pub(crate) fn new(shop: &Shop, plan: &Arc<Plan>, ledger: &Arc<Ledger>, rules: SaleRules) -> Sale {
        Sale {
            shop: shop.clone(),
            plan: Arc::clone(plan),
            ledger: Arc::clone(ledger),
            rules: Arc::new(rules),
            late: Arc::default(),
            bought: Arc::default(),
        }
    }

    /// One attempt: the hold, or `None` after a shortage or a refusal by a rule.
    pub(crate) async fn reserve(
        &self,
        latency_class: LatencyClass,
        rng: &mut StdRng,
        request: &CartRequest<'_>,
    ) -> Result<Option<Hold>, Failure> {
        let request_id = Uuid::now_v7().to_string();
        let buyer = format!("buyer-{}", request.buyer);
        let params = ReserveParams {
            request_id: &request_id,
            lines: behavior::lines(request.cart, &self.plan.skus),
            ttl: request.ttl,
            buyer: request.is_named.then_some(&buyer),
            replaces: request.replaces,
        };
        let latency = |latency| self.ledger.latency(latency_class, latency);
        let sent_at = SystemTime::now();
        let held = match self.shop.reserve(&self.ledger, latency, &params).await? {
            Ok(held) => held,
            Err(ReserveError::InsufficientStock { .. }) => {
                self.ledger.attempted(latency_class, Answer::SoldOut);
                return Ok(None);
            }
            Err(error) => {
                self.ledger.attempted(latency_class, Answer::Refused);
                return match self.rules.refused(&self.ledger, &self.plan.skus, sent_at, &error) {
                    true => Ok(None),
                    false => Err(self.shop.unexpected("Reserve", &error)),
                };
            }
        };
        let units = request.cart.iter().map(|want| want.units).sum();
        self.ledger.attempted(latency_class, Answer::Reserved { units });
        if request.cart.len() > 1 {
            self.ledger.played("carts");
        }
        let hold = Hold::new(&held.id, request.buyer, request.cart);
        hold.check(&self.ledger, "Reserve", &held);
        if repeats(rng) {
            match self.shop.reserve(&self.ledger, |_| (), &params).await? {
                Ok(again) => self.replayed(&held, &again),
                Err(ReserveError::AlreadyReleased { reservation }) => self.replayed(&held, &reservation),
                Err(error) => self.ledger.violation(format!("Reserve of {} again: {error}", held.id)),
            }
        }
        Ok(Some(hold))
    }

    /// Two responses to one change must have the same reservation, and the second must be a replay.
    pub(crate) fn replayed(&self, first: &Applied<Reservation>, again: &Applied<Reservation>) {
        if first.id == again.id && again.replayed {
            self.ledger.replayed();
        } else {
            self.ledger.violation(format!("a call on {} was applied twice: {:?}", first.id, again.value));
        }
    }

    /// Records the end of a hold and the units that it sold.
    pub(crate) fn record(&self, hold: Hold, otherwise: End) {
        let mut bought = self.bought.lock().unwrap_or_else(PoisonError::into_inner);
        for line in &hold.lines {
            let units = bought.entry((hold.buyer, line.product)).or_default();
            *units += line.sold;
            if *units > BUYER_LIMIT {
                self.ledger.violation(format!("buyer {} has bought {units} of {line:?}", hold.buyer));
            }
        }
        drop(bought);
        self.ledger.record(hold.entry(otherwise));
    }

    /// Queues a hold whose buyer pays after the deadline.
    pub(crate) fn will_be_late(&self, hold: Hold) {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(hold);
    }

    /// Takes the queued late holds.
    pub(crate) fn take_late(&self) -> Vec<Hold> {
        std::mem::take(&mut self.late.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Draws whether a call is sent a second time.
pub(crate) fn repeats(rng: &mut StdRng) -> bool {
    rng.random_range(0..100) < REPEATS
}
