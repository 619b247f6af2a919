//! The identity of the store: a random id under a key. A server that has recorded an id refuses a store with another
//! id. So the recorded history of one store fences no partition of another store. Reads and writes that key only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use deadpool_redis::redis::{self, Value, cmd};
use rand::Rng as _;
use tokio::sync::Notify;

use super::{error::StoreError, keys::STORE_ID, pool::Connection};
use crate::domain::Promise;

/// The number of hexadecimal digits of an id.
const ID_DIGITS: usize = 32;

/// The name of the promise that the store is the expected one.
pub(crate) const STORE_IDENTITY: &str = "store_identity";

/// The expected store.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    known: Mutex<Known>,
    replaced: Notify,
}

#[derive(Clone, Debug, Default)]
struct Known {
    id: Option<String>,
    /// The run id of the process in which the id was last read.
    run_id: Option<String>,
    /// Name and version of the store.
    version: Option<String>,
    /// Whether the store has lost its id while this server ran.
    was_emptied: bool,
}

/// The result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The store has the expected id, or is the first store of this server.
    Same,
    /// The store had lost its id: it was emptied.
    Emptied,
}

impl Identity {
    /// Expects this id; with `None`, accepts the first store.
    pub(crate) fn new(id: Option<String>) -> Self {
        Self { known: Mutex::new(Known { id, ..Known::default() }), replaced: Notify::new() }
    }

    /// The id of the store, once it was read.
    pub(crate) fn id(&self) -> Option<String> {
        self.known().id.clone()
    }

    /// Compares the id of the store behind this connection with the expected id. A store without an id gets it.
    /// Another id is an error, with one exception: the same process had the expected id before. Then the store was
    /// emptied, and another server has given it a new id.
    pub(crate) async fn verify(&self, connection: &mut Connection) -> Result<Found, StoreError> {
        let known = self.known().clone();
        let mut stored = id_in(connection.send(cmd("GETRANGE").arg(STORE_ID).arg(0).arg(ID_DIGITS)).await?)?;
        let proposed = known.id.clone().unwrap_or_else(|| format!("{:032x}", rand::rng().random::<u128>()));
        if stored.is_none() {
            match connection.send(cmd("SET").arg(STORE_ID).arg(&proposed).arg("NX").arg("GET")).await {
                Ok(reply) => stored = id_in(reply)?,
                // A store of a release without ids gets one when it has room. Commits and rollbacks work without it.
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
            tracing::error!("the store has lost its id: every partition is compared with its recorded history");
            self.replaced.notify_one();
        }
        Ok(found)
    }

    /// The promise that this is the expected store, after a verification with this error or none.
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

    /// Records the process in which the store was just verified. After a restart the store may be an older copy.
    pub(crate) fn set_run_id(&self, run_id: &str) {
        let before = self.known().run_id.replace(run_id.to_owned());
        if before.is_some_and(|before| before != run_id) {
            self.replaced.notify_one();
        }
    }

    /// Records name and version of the store.
    pub(crate) fn set_version(&self, version: &str) {
        let mut known = self.known();
        if known.version.as_deref() != Some(version) {
            known.version = Some(version.to_owned());
        }
    }

    /// Name and version of the store, once they were read.
    pub(crate) fn version(&self) -> Option<String> {
        self.known().version.clone()
    }

    /// Waits until the store has restarted or was emptied, so that all partitions must be compared with their recorded
    /// history.
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

/// The id in a reply; `None` if the key is absent.
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
