//! A checkout that charges at most once: reserves, takes the payment, commits. It can be run again after any error.
//!
//! Uses the client crate, so there is nothing to generate. connection.rs connects to the server.
//! docs/start/first-checkout.md explains it; main.rs plays it.

use std::{
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use inventory_sentinel_client::{CommitError, Namespace, ReserveError, RollbackError, RpcError};

/// Any error of a checkout: a refusal, [`Unknown`], or one of the payments.
pub type Failure = Box<dyn Error + Send + Sync>;

// region call
/// The deadline of one call, with all repeats of the client.
pub const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// The most attempts of a call.
const CALL_ATTEMPTS: u32 = 5;
/// The longest pause before the first repeat; doubles with each repeat.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The call may have been applied. Run the checkout again later, with the same attempt number.
#[derive(Debug)]
pub struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outcome unknown: {}", self.0)
    }
}

impl Error for Unknown {}

/// The order is charged, and the service refuses its units. The order stays open: run the checkout again later with the
/// same attempt number, or let a person decide.
#[derive(Debug)]
pub struct PaidButRefused(pub Failure);

impl fmt::Display for PaidButRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "paid, but refused: {}", self.0)
    }
}

impl Error for PaidButRefused {}

/// Repeats a call until the service responds, or no attempt is left. `rpc` returns the [`RpcError`] of an error.
async fn call<T, E, C>(rpc: fn(&E) -> Option<&RpcError>, call: impl Fn() -> C) -> Result<Result<T, E>, Unknown>
where
    C: IntoFuture<Output = Result<T, E>>,
{
    let mut last = String::new();
    for attempt in 0..CALL_ATTEMPTS {
        let result = call().await;
        let Some(error) = result.as_ref().err().and_then(rpc) else {
            return Ok(result);
        };
        // Without a reason the error is not of this service, and the outcome is unknown. The repeat has the same
        // request_id, so it can't have a second effect.
        let is_unknown = error.reason().is_none() || error.outcome_unknown();
        if !is_unknown && error.retry_delay().is_none() {
            return Ok(result);
        }
        last = error.to_string();
        let pause = FIRST_PAUSE.mul_f64(f64::from(1 << attempt) * rand::random::<f64>());
        tokio::time::sleep(error.retry_delay().unwrap_or_default() + pause).await;
    }
    Err(Unknown(last))
}
// endregion call

/// One purchase of one product.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: String,
    pub buyer: String,
    pub sku: String,
    pub quantity: i32,
    pub hold: Duration,
}

/// Each function is idempotent by `Order::id`: an order is charged once, whatever attempts and repeats there are.
pub trait Payments {
    /// Stores the attempt with the charge. `false`: declined.
    async fn pay(&self, order: &Order, attempt: u32) -> Result<bool, Failure>;
    /// Whether this attempt has charged the order.
    async fn is_paid(&self, order: &Order, attempt: u32) -> Result<bool, Failure>;
    async fn refund(&self, order: &Order) -> Result<(), Failure>;
}

/// The outcome of a checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Bought,
    /// Bought before; not charged again.
    AlreadyBought,
    SoldOut,
    /// The payment was declined; another payment is attempt + 1.
    Declined,
    /// This attempt is over and did not charge; continue with attempt + 1.
    Over,
    /// Paid too late and sold out.
    Refunded,
}

// region checkout
/// Buys one order. Its error is a `ReserveError` if the order is not charged, [`PaidButRefused`] if it is, [`Unknown`],
/// or an error of the payments.
pub async fn checkout(
    shop: &Namespace,
    payments: &impl Payments,
    order: &Order,
    attempt: u32,
) -> Result<Outcome, Failure> {
    let reserve = || {
        shop.reserve(&order.sku, order.quantity)
            .request_id(format!("{}-{attempt}", order.id))
            .buyer(&order.buyer)
            .ttl(order.hold)
    };
    let reservation_id = match call(ReserveError::rpc, reserve).await? {
        Ok(held) => {
            let left = held.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
            println!("  {} {} held for {} s", order.quantity, order.sku, left.as_secs());
            if !payments.pay(order, attempt).await? {
                return match call(RollbackError::rpc, || shop.rollback(&held.id)).await? {
                    Ok(released) if released.purchase.is_none() => Ok(Outcome::Declined),
                    // By another run of this attempt, late or in time.
                    Ok(_) | Err(RollbackError::AlreadyCommitted(_)) => Ok(Outcome::AlreadyBought),
                    Err(refused) => Err(refused.into()),
                };
            }
            held.id.clone()
        }
        Err(ReserveError::AlreadyPurchased { .. }) => return Ok(Outcome::AlreadyBought),
        Err(ReserveError::AlreadyReleased { reservation }) => {
            if !payments.is_paid(order, attempt).await? {
                return Ok(Outcome::Over);
            }
            // The process stopped between payment and commit, and the hold ran out: the commit below is a late one.
            reservation.id.clone()
        }
        Err(ReserveError::InsufficientStock { .. }) => {
            if !payments.is_paid(order, attempt).await? {
                return Ok(Outcome::SoldOut);
            }
            // The process stopped after the payment, and the store has lost or forgotten the hold since.
            payments.refund(order).await?;
            return Ok(Outcome::Refunded);
        }
        // The same, but the service refuses the units for another reason.
        Err(refused) if payments.is_paid(order, attempt).await? => return Err(PaidButRefused(refused.into()).into()),
        Err(refused) => return Err(refused.into()),
    };
    match call(CommitError::rpc, || shop.commit(&reservation_id).repurchase_if_late()).await? {
        Ok(_) => Ok(Outcome::Bought),
        // The buyer has paid and gets nothing. For any other reason the order stays open.
        Err(
            CommitError::LateSoldOut { .. }
            | CommitError::RolledBack(_)
            | CommitError::BuyerLimit { .. }
            | CommitError::BuyerRequired { .. },
        ) => {
            payments.refund(order).await?;
            Ok(Outcome::Refunded)
        }
        Err(refused) => Err(PaidButRefused(refused.into()).into()),
    }
}
// endregion checkout
