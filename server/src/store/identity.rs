//! The identity of the store: a random id that it keeps under a key. A server that has seen one id uses no store with
//! another one, so that what it knows of one store's history fences no other. Reads and writes that key only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use deadpool_redis::redis::{self, Value, cmd};
use rand::Rng as _;
use tokio::sync::Notify;

use super::{error::StoreError, keys::STORE_ID, pool::Connection};
use crate::domain::Promise;

/// Digits of an id.
const ID_DIGITS: usize = 32;

/// The promise that the store is the one that this server knows.
pub(crate) const STORE_IDENTITY: &str = "store_identity";

/// The store that this server knows.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    known: Mutex<Known>,
    replaced: Notify,
}

#[derive(Clone, Debug, Default)]
struct Known {
    id: Option<String>,
    /// The process in which the id was seen last.
    run_id: Option<String>,
    /// Name and version of the store.
    version: Option<String>,
    /// It has lost its id in the life of this server.
    was_emptied: bool,
}

/// What a store turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has the id that is known, or is the first that this server has met.
    Same,
    /// It had lost its id: it was emptied.
    Emptied,
}

impl Identity {
    /// Of a server that knows this id, or none yet.
    pub(crate) fn new(id: Option<String>) -> Self {
        Self { known: Mutex::new(Known { id, ..Known::default() }), replaced: Notify::new() }
    }

    /// The id, once it is known.
    pub(crate) fn id(&self) -> Option<String> {
        self.known().id.clone()
    }

    /// Compares the id of the store behind this connection with the one that is known. A store that has none gets it.
    /// Another id is an error, unless the same process had the known one before: then it was emptied, and a server that
    /// did not know it has given it a new id.
    pub(crate) async fn verify(&self, connection: &mut Connection) -> Result<Found, StoreError> {
        let known = self.known().clone();
        let mut stored = id_in(connection.send(cmd("GETRANGE").arg(STORE_ID).arg(0).arg(ID_DIGITS)).await?)?;
        let proposed = known.id.clone().unwrap_or_else(|| format!("{:032x}", rand::rng().random::<u128>()));
        if stored.is_none() {
            match connection.send(cmd("SET").arg(STORE_ID).arg(&proposed).arg("NX").arg("GET")).await {
                Ok(reply) => stored = id_in(reply)?,
                // A store that was made before there were ids gets one when it has room: commits and rollbacks go on.
                Err(StoreError::Full) if known.id.is_none() => return Ok(Found::Same),
                Err(error) => return Err(error),
            }
        }
        let (id, found) = match (stored, &known.id) {
            (None, None) => (proposed, Found::Same),
            (None, Some(_)) => (proposed, Found::Emptied),
            (Some(stored), None) => (stored, Found::Same),
            (Some(stored), Some(known)) if stored == *known => (stored, Found::Same),
            (Some(stored), Some(id)) => {
                let run_id = run_id(connection).await?;
                if known.run_id.as_ref() != Some(&run_id) {
                    return Err(StoreError::Foreign { found: stored.into(), known: id.as_str().into() });
                }
                (stored, Found::Emptied)
            }
        };
        self.known().id = Some(id);
        if found == Found::Emptied {
            self.known().was_emptied = true;
            tracing::error!("the store has lost its id: every partition is compared with what this server knows");
            self.replaced.notify_one();
        }
        Ok(found)
    }

    /// The promise that this is the store that the server knows, after a verification that ended so.
    pub(crate) fn promise(&self, error: Option<&StoreError>) -> Promise {
        let known = self.known();
        match (error, &known.id) {
            (Some(error @ (StoreError::Foreign { .. } | StoreError::Corrupt { .. })), _) => {
                Promise::broken(STORE_IDENTITY, error.to_string())
            }
            (Some(error), _) => Promise::not_checked(STORE_IDENTITY, error.to_string()),
            (None, None) => Promise::not_checked(STORE_IDENTITY, "the store has no id yet, and no room for one"),
            (None, Some(id)) if known.was_emptied => Promise::kept(
                STORE_IDENTITY,
                format!(
                    "the id is {id}; the store was emptied while this server ran, and every partition was compared"
                ),
            ),
            (None, Some(id)) => Promise::kept(STORE_IDENTITY, format!("the id is {id}, and was not replaced")),
        }
    }

    /// Notes the process in which the store was just verified. After a restart the store may be an older copy.
    pub(crate) fn set_run_id(&self, run_id: &str) {
        let before = self.known().run_id.replace(run_id.to_owned());
        if before.is_some_and(|before| before != run_id) {
            self.replaced.notify_one();
        }
    }

    /// Notes name and version of the store.
    pub(crate) fn set_version(&self, version: &str) {
        let mut known = self.known();
        if known.version.as_deref() != Some(version) {
            known.version = Some(version.to_owned());
        }
    }

    /// Name and version of the store, once they are known.
    pub(crate) fn version(&self) -> Option<String> {
        self.known().version.clone()
    }

    /// Waits until the store has restarted or was emptied, so that all partitions must be compared with what is known.
    pub(crate) async fn replaced(&self) {
        self.replaced.notified().await;
    }

    #[cfg(test)]
    pub(crate) fn set_id(&self, id: &str) {
        self.known().id = Some(id.to_owned());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id in a reply; none where there is no such key.
fn id_in(reply: Value) -> Result<Option<String>, StoreError> {
    let id: Option<String> = redis::from_redis_value(reply).map_err(|error| StoreError::corrupt(error.to_string()))?;
    match id.filter(|id| !id.is_empty()) {
        Some(id) if id.len() != ID_DIGITS || !id.bytes().all(|digit| digit.is_ascii_hexdigit()) => Err(
            StoreError::corrupt(format!("the id of the store under {STORE_ID} is not {ID_DIGITS} hexadecimal digits")),
        ),
        id => Ok(id),
    }
}

async fn run_id(connection: &mut Connection) -> Result<String, StoreError> {
    let reply = connection.send(cmd("INFO").arg("server")).await?;
    let info: String = redis::from_redis_value(reply).map_err(|error| StoreError::corrupt(error.to_string()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    line.map(|id| id.trim_end().to_owned()).ok_or_else(|| StoreError::corrupt("INFO without a run_id"))
}
