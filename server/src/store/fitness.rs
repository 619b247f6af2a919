//! The check whether a Redis is fit to hold stock: a primary, new enough, without eviction, and with an append-only
//! file if the durability promises one. Reads INFO and CONFIG. Changes nothing.
//!
//! - this file: the reads, and the result of a check;
//! - `judge`: the verdict on the replies, promise by promise.

use deadpool_redis::redis;

mod judge;

use self::judge::{Fields, TOO_OLD, judge, text};
use super::error::StoreError;
use super::permissions;
use super::pool::Connection;
use crate::{config::Durability, domain::Promise};

/// A usable store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Name and version, as `redis 7.0.15` or `valkey 8.1.0`.
    pub(crate) version: String,
    /// The id of the process. It changes at a restart.
    pub(crate) run_id: String,
    /// The settings that could not be checked, one line each.
    pub(crate) notes: Vec<String>,
}

/// The result of a check: a verdict, and the state of each promise in the order of [`PROMISES`].
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) verdict: Result<Fit, Unfit>,
    pub(crate) promises: Vec<Promise>,
}

/// The store responds, is a standalone primary and new enough.
const REACHABLE: &str = "store_reachable";
const APPENDS: &str = "append_only_file";
const FSYNC: &str = "fsync_before_answer";
const FSYNC_ON_REWRITE: &str = "fsync_during_rewrite";
const FIRST_REWRITE: &str = "first_rewrite";
const LAST_WRITE: &str = "last_write";
const NO_EVICTION: &str = "no_eviction";
const MEMORY_LIMIT: &str = "memory_limit";
const TERMS: &str = "terms";
const PERMISSIONS: &str = "permissions";

/// Every promise of a check.
const PROMISES: [&str; 10] = [
    REACHABLE,
    APPENDS,
    FSYNC,
    FSYNC_ON_REWRITE,
    FIRST_REWRITE,
    LAST_WRITE,
    NO_EVICTION,
    MEMORY_LIMIT,
    TERMS,
    PERMISSIONS,
];
/// Those that make an OK durable.
const DURABLE: [&str; 5] = [APPENDS, FSYNC, FSYNC_ON_REWRITE, FIRST_REWRITE, LAST_WRITE];
/// Why those are not checked in `fast`.
const FAST: &str = "fast: an OK is in memory only";

/// The promises about a store that could not be checked further.
pub(crate) fn unchecked(reachable: Result<(), &str>, why: &str, durability: Durability) -> Vec<Promise> {
    let promise = |name| match reachable {
        Err(error) if name == REACHABLE => Promise::broken(name, error),
        _ if durability == Durability::Fast && DURABLE.contains(&name) => Promise::not_checked(name, FAST),
        _ => Promise::not_checked(name, why),
    };
    PROMISES.map(promise).into()
}

/// A store that may not be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// It did not respond, or is still loading.
    #[error("{0}")]
    Unavailable(StoreError),
    /// It has faults: one line per fault, with its remedy.
    #[error("{}", .0.join("; "))]
    Faults(Vec<String>),
    /// Its user lacks permissions: the ACL rules that grant them.
    #[error("the Redis user of the service lacks permissions: grant {} (docs/operate/permissions.md)", .0.join(" "))]
    Denied(Vec<String>),
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Unfit {
        match error {
            StoreError::Denied { missing, .. } => Unfit::Denied(vec![missing.to_string()]),
            error => Unfit::Unavailable(error),
        }
    }
}

/// The result of the last check that got a response.
pub(crate) enum Before {
    /// No check got a response yet.
    Unknown,
    /// The process with this id was fit.
    Fit(String),
    /// The store was not fit.
    Unfit,
}

/// Checks the store, and the permissions of its user.
pub(crate) async fn check(connection: &mut Connection, durability: Durability, before: &Before) -> Found {
    let mut found = match read(connection, durability, before).await {
        Ok(found) => found,
        Err(error) => Found::unavailable(error, durability),
    };
    // A store that is too old cannot report the permissions of a user.
    if matches!(found.verdict, Err(Unfit::Unavailable(_))) || found.is_too_old() {
        return found;
    }
    let missing = permissions::missing(connection).await;
    found.set(match &missing {
        Ok(missing) if missing.is_empty() => Promise::kept(PERMISSIONS, "nothing is missing"),
        Ok(missing) => {
            // The other rules are checked with these two.
            let hides = missing.iter().all(|rule| ["+evalsha", "+eval"].contains(&rule.as_str()));
            let others = if hides { ", and others may be: without these they cannot be checked" } else { "" };
            Promise::broken(PERMISSIONS, format!("rules are missing{others}: grant {}", missing.join(" ")))
        }
        Err(error) => Promise::not_checked(PERMISSIONS, error.to_string()),
    });
    found.verdict = match (found.verdict, missing) {
        (Err(faults @ Unfit::Faults(_)), _) => Err(faults),
        (_, Err(error)) => return Found::unavailable(error, durability),
        (_, Ok(missing)) if !missing.is_empty() => Err(Unfit::Denied(missing)),
        (verdict, Ok(_)) => verdict,
    };
    found
}

async fn read(connection: &mut Connection, durability: Durability, before: &Before) -> Result<Found, StoreError> {
    let info = connection.send(&redis::cmd("INFO")).await?;
    let info = Fields::parse_info(&text(&info));
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("maxmemory-policy").arg("appendonly").arg("appendfsync").arg("no-appendfsync-on-rewrite");
    let config = match connection.send(&command).await {
        Ok(reply) => Some(Fields::from_pairs(&reply)),
        // Forbidden, renamed or, before 7.0, limited to one name.
        Err(StoreError::Denied { .. } | StoreError::NotApplied { .. } | StoreError::Corrupt { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(judge(&info, config.as_ref(), durability, before))
}

impl Found {
    /// The result for a store that did not respond, or denied INFO.
    pub(crate) fn unavailable(error: StoreError, durability: Durability) -> Self {
        let promises = match &error {
            StoreError::Denied { .. } => unchecked(Ok(()), "INFO is not permitted: grant +info", durability),
            error => unchecked(Err(&error.to_string()), "the store does not answer", durability),
        };
        Self { verdict: Err(error.into()), promises }
    }

    /// Replaces the promise with the same name.
    fn set(&mut self, promise: Promise) {
        if let Some(old) = self.promises.iter_mut().find(|old| old.name == promise.name) {
            *old = promise;
        }
    }

    fn is_too_old(&self) -> bool {
        matches!(&self.verdict, Err(Unfit::Faults(faults)) if faults.iter().any(|fault| fault.starts_with(TOO_OLD)))
    }
}
