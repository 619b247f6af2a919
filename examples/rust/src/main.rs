//! Plays the checkout: `checkout-example ADDRESS NAMESPACE` against a running server, in a namespace that must be new.
//! Prints one line for each step, and exits with 1 if a step has another result than expected.

mod checkout;
mod connection;

use std::{collections::HashMap, future::Future, pin::Pin, sync::Mutex, time::Duration};

use checkout::{Failure, Order, Outcome, PaidButRefused, Payments, Unknown, checkout};
use connection::connect;
use inventory_sentinel_client::{Namespace, ReserveError};

const USUAL: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_millis(100);

/// The charges and refunds of an order, as the bank records them.
#[derive(Clone, Copy, Default)]
struct Account {
    charges: u32,
    refunds: u32,
    /// The attempt that has charged the order.
    paid: Option<u32>,
}

type Accounts = Mutex<HashMap<String, Account>>;
type Meanwhile<'a> = dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>> + 'a;

/// A bank that accepts or declines. `meanwhile` runs after that.
struct Bank<'a> {
    accounts: &'a Accounts,
    accepts: bool,
    meanwhile: &'a Meanwhile<'a>,
}

impl Bank<'_> {
    fn with_account<T>(&self, order: &Order, book: impl FnOnce(&mut Account) -> T) -> T {
        book(self.accounts.lock().expect("the accounts").entry(order.id.clone()).or_default())
    }

    /// Charges and refunds of an order.
    fn booked(&self, order: &Order) -> (u32, u32) {
        self.with_account(order, |account| (account.charges, account.refunds))
    }
}

impl Payments for Bank<'_> {
    async fn pay(&self, order: &Order, attempt: u32) -> Result<bool, Failure> {
        self.with_account(order, |account| {
            if self.accepts && account.paid.is_none() {
                account.paid = Some(attempt);
                account.charges += 1;
            }
        });
        (self.meanwhile)().await?;
        Ok(self.accepts)
    }

    async fn is_paid(&self, order: &Order, attempt: u32) -> Result<bool, Failure> {
        Ok(self.with_account(order, |account| account.paid == Some(attempt)))
    }

    async fn refund(&self, order: &Order) -> Result<(), Failure> {
        self.with_account(order, |account| {
            if account.paid.take().is_some() {
                account.refunds += 1;
            }
        });
        Ok(())
    }
}

async fn play(shop: &Namespace, name: &str, order: &Order, attempt: u32, bank: &Bank<'_>) -> Result<Outcome, Failure> {
    let outcome = checkout(shop, bank, order, attempt).await;
    match &outcome {
        Ok(outcome) => println!("{name}: {outcome:?}"),
        Err(error) => println!("{name}: {error}"),
    }
    outcome
}

async fn step(
    shop: &Namespace,
    (name, order, attempt): (&str, &Order, u32),
    bank: &Bank<'_>,
    expected: Outcome,
    booked: (u32, u32),
) -> Result<(), Failure> {
    let outcome = play(shop, name, order, attempt, bank).await?;
    if (outcome, bank.booked(order)) != (expected, booked) {
        return Err(format!("{name}: {outcome:?}, {:?} instead of {expected:?}, {booked:?}", bank.booked(order)).into());
    }
    Ok(())
}

fn order(id: &str, buyer: &str, sku: &str, hold: Duration) -> Order {
    Order { id: id.into(), buyer: buyer.into(), sku: sku.into(), quantity: 1, hold }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let [_, address, sale] = std::env::args().collect::<Vec<_>>().try_into().expect("ADDRESS NAMESPACE");
    let shop = &connect(&address)?.namespace(&sale);
    for (sku, units) in [("phone", 10), ("last", 1), ("none", 0)] {
        shop.admin().set_stock(sku, units).await?;
    }
    let accounts = Accounts::default();
    let nothing = || -> Pin<Box<dyn Future<Output = Result<(), Failure>>>> { Box::pin(async { Ok(()) }) };
    let bank = &Bank { accounts: &accounts, accepts: true, meanwhile: &nothing };

    let amy = &order("order-1", "amy", "phone", USUAL);
    step(shop, ("a purchase", amy, 1), bank, Outcome::Bought, (1, 0)).await?;
    step(shop, ("the same order again", amy, 1), bank, Outcome::AlreadyBought, (1, 0)).await?;
    let bob = &order("order-2", "bob", "phone", USUAL);
    let declines = Bank { accepts: false, ..*bank };
    step(shop, ("a declined payment", bob, 1), &declines, Outcome::Declined, (0, 0)).await?;
    step(shop, ("the same attempt again", bob, 1), bank, Outcome::Over, (0, 0)).await?;
    step(shop, ("the next attempt", bob, 2), bank, Outcome::Bought, (1, 0)).await?;
    step(shop, ("the attempt before by mistake", bob, 1), bank, Outcome::Over, (1, 0)).await?;
    let cleo = &order("order-3", "cleo", "none", USUAL);
    step(shop, ("a product that is sold out", cleo, 1), bank, Outcome::SoldOut, (0, 0)).await?;

    let outlast_the_hold = || tokio::time::sleep(SHORT * 5);
    let slow = &Bank {
        meanwhile: &|| {
            Box::pin(async move {
                outlast_the_hold().await;
                Ok(())
            })
        },
        ..*bank
    };
    let dan = &order("order-4", "dan", "phone", SHORT);
    step(shop, ("a payment that takes longer than the hold", dan, 1), slow, Outcome::Bought, (1, 0)).await?;
    step(shop, ("the same order again", dan, 1), bank, Outcome::AlreadyBought, (1, 0)).await?;

    let crashes = Bank {
        meanwhile: &|| {
            Box::pin(async move {
                outlast_the_hold().await;
                Err("the process stops here".into())
            })
        },
        ..*bank
    };
    let eve = &order("order-5", "eve", "phone", SHORT);
    let crashed = play(shop, "a crash after the payment", eve, 1, &crashes).await;
    assert!(crashed.is_err() && bank.booked(eve) == (1, 0), "{crashed:?}");
    step(shop, ("the same attempt after the crash", eve, 1), bank, Outcome::Bought, (1, 0)).await?;

    let overtaken = Bank {
        meanwhile: &|| {
            Box::pin(async move {
                outlast_the_hold().await;
                let gus = &order("order-7", "gus", "last", USUAL);
                Box::pin(step(shop, ("  another buyer meanwhile", gus, 1), bank, Outcome::Bought, (1, 0))).await
            })
        },
        ..*bank
    };
    let flo = &order("order-6", "flo", "last", SHORT);
    step(shop, ("a payment too late for the last unit", flo, 1), &overtaken, Outcome::Refunded, (1, 1)).await?;

    let hal = &order("order-8", "hal", "nothing", USUAL);
    let refused = play(shop, "a product that does not exist", hal, 1, bank).await.expect_err("a refusal");
    assert!(matches!(refused.downcast_ref(), Some(ReserveError::SkuNotFound(_))), "{refused:?}");

    let twice = &order("order-13", "max", "phone", USUAL);
    let declines = Bank {
        accepts: false,
        meanwhile: &|| {
            let again = ("  another run of the order meanwhile", twice, 1);
            Box::pin(async move { Box::pin(step(shop, again, bank, Outcome::Bought, (1, 0))).await })
        },
        ..*bank
    };
    let declined = ("a declined payment of an order that is bought", twice, 1);
    step(shop, declined, &declines, Outcome::AlreadyBought, (1, 0)).await?;
    let too_late = &order("order-14", "ned", "phone", SHORT);
    let declines = Bank {
        accepts: false,
        meanwhile: &|| {
            let again = ("  another run buys it late meanwhile", too_late, 1);
            Box::pin(async move { Box::pin(step(shop, again, slow, Outcome::Bought, (1, 0))).await })
        },
        ..*bank
    };
    let declined = ("a declined payment of an order that is bought late", too_late, 1);
    step(shop, declined, &declines, Outcome::AlreadyBought, (1, 0)).await?;
    let kim = &order("order-11", "kim", "none", USUAL);
    bank.pay(kim, 1).await?; // Simulates a crash after the payment; the store has lost the hold since.
    let lost = ("paid, the hold is lost, and the product is sold out", kim, 1);
    step(shop, lost, bank, Outcome::Refunded, (1, 1)).await?;
    let lea = &order("order-12", "lea", "nothing", USUAL);
    bank.pay(lea, 1).await?;
    let open = play(shop, "paid, the hold is lost, and the product was removed", lea, 1, bank).await.expect_err("open");
    assert!(open.is::<PaidButRefused>() && bank.booked(lea) == (1, 0), "{open:?}");

    let away = &connect("127.0.0.1:1")?.namespace(&sale);
    let ida = &order("order-9", "ida", "phone", USUAL);
    let unknown = play(away, "a server that is away", ida, 1, bank).await.expect_err("no answer");
    assert!(unknown.is::<Unknown>(), "{unknown:?}");
    assert_eq!((bank.booked(hal), bank.booked(ida)), ((0, 0), (0, 0)));

    let stock = shop.stock("phone").await?;
    assert_eq!((stock.available, stock.held, stock.sold), (4, 0, 6), "six buyers have bought a phone each");
    Ok(())
}
