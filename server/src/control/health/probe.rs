//! One check of the store: whether it may be used, and the state of each promise. Reads the store,
//! and creates its id if it has none.

use crate::{
    config::Durability,
    domain::Promise,
    store::{
        error::StoreError,
        fitness::{self, Before, Found, Unfit},
        identity::{Identity, STORE_IDENTITY},
        pool::Pool,
    },
};

/// The promises about a store that is not checked, for this reason.
pub(super) fn unchecked(why: &str, durability: Durability) -> Vec<Promise> {
    let mut promises = fitness::unchecked(Err(why), "the store is not checked", durability);
    promises.push(Promise::not_checked(STORE_IDENTITY, "the store is not checked"));
    promises
}

/// One check. If the connection broke since the last check, a new one is opened.
pub(super) async fn probe(pool: &Pool, durability: Durability, identity: &Identity, before: &Before) -> Found {
    let found = check(pool, durability, identity, before).await;
    match found.verdict {
        Err(Unfit::Unavailable(StoreError::Unknown { .. })) => check(pool, durability, identity, before).await,
        _ => found,
    }
}

async fn check(pool: &Pool, durability: Durability, identity: &Identity, before: &Before) -> Found {
    let mut connection = match pool.get().await {
        Ok(connection) => connection,
        Err(error) => {
            let mut found = Found::unavailable(error, durability);
            found.promises.push(Promise::not_checked(STORE_IDENTITY, "the store does not answer"));
            return found;
        }
    };
    let mut found = fitness::check(&mut connection, durability, before).await;
    let fit = match &found.verdict {
        Ok(fit) => fit,
        Err(_) => {
            found.promises.push(Promise::not_checked(
                STORE_IDENTITY,
                "checked only if every other promise about the store is kept",
            ));
            return found;
        }
    };
    let verified = identity.verify(&mut connection).await.map(drop);
    found.promises.push(identity.promise(verified.as_ref().err()));
    match verified {
        Ok(()) => {
            identity.set_run_id(&fit.run_id);
            identity.set_version(&fit.version);
        }
        Err(error @ (StoreError::Foreign { .. } | StoreError::Corrupt { .. })) => {
            found.verdict = Err(Unfit::Faults(vec![error.to_string()]));
        }
        Err(error) => found.verdict = Err(error.into()),
    }
    found
}
