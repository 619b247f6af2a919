//! Whether a namespace exists, is being deleted, or was deleted, as the meta of its first partition states. Encodes the
//! steps of a deletion and decodes its records; `scripts/formats.lua` has their formats. Pure, no I/O.

use deadpool_redis::redis::{Cmd, Value};

use crate::{
    bytes::{ByteReader, array, script_call},
    config::{NamespaceConfig, decode_config},
    domain::{HistoryPoint, Id},
    error::DecodeError,
    keys::PartitionKeys,
};

/// The version of both records.
const VERSION: u8 = 1;
/// The fields of a partition's meta that [`decode_found`] needs, in its order.
pub const FIELDS: [&str; 4] = ["config", "deleting", "deleted", "closed_config"];

/// The namespace of a name, and those that had the name before.
pub struct Found {
    /// Whether there is a namespace.
    pub presence: Presence,
    /// The deletions of namespaces that had the name before, the newest last.
    pub deleted: Vec<Deleted>,
}

/// Whether there is a namespace.
pub enum Presence {
    /// There is none.
    Absent,
    /// There is one.
    Live(NamespaceConfig),
    /// Its deletion has begun and has not ended.
    Deleting {
        /// Its config when it was closed.
        config: NamespaceConfig,
        /// The deletion.
        deleting: Deleting,
    },
}

impl Found {
    /// The config of a namespace that exists and is not being deleted.
    pub fn config(&self) -> Option<&NamespaceConfig> {
        match &self.presence {
            Presence::Live(config) => Some(config),
            _ => None,
        }
    }
}

/// The deletion of a partition that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleting {
    /// A digest of the request.
    pub request: Id,
    /// Whether the deletion can no longer be given up.
    pub is_final: bool,
    /// The deletion as a change of the partition.
    pub at: HistoryPoint,
}

/// The deletion of a partition that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The deletion as a change of the partition.
    pub at: HistoryPoint,
    /// A digest of the request.
    pub request: Id,
}

/// A step of the deletion of a closed partition (`scripts/write/deletion.lua`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionStep {
    /// Takes over a deletion that another call has begun.
    Take,
    /// Decides that the deletion can no longer be given up.
    Decide,
    /// Gives the deletion up.
    Reopen,
    /// Unlinks the key with this number.
    Unlink(usize),
    /// Leaves only the record of the deletion.
    Bury,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// No deletion of the partition is under way.
    Nothing,
    /// The step was taken.
    Done,
    /// Another call has taken the deletion over.
    Overtaken,
    /// This call has taken the deletion over.
    Taken(Deleting),
}

/// The call that takes a step.
pub fn deletion_command(sha: &str, keys: &PartitionKeys, step: DeletionStep, token: &Id) -> Cmd {
    let mut command = script_call(sha, keys);
    let (name, number) = match step {
        DeletionStep::Take => ("take", 0),
        DeletionStep::Decide => ("decide", 0),
        DeletionStep::Reopen => ("reopen", 0),
        DeletionStep::Unlink(number) => ("unlink", number),
        DeletionStep::Bury => ("bury", 0),
    };
    command.arg("delete").arg(name).arg(token).arg(number);
    command
}

/// The reply to [`deletion_command`].
pub fn decode_step(reply: &Value) -> Result<Stepped, DecodeError> {
    let stepped = match reply {
        Value::Int(0) => Some(Stepped::Nothing),
        Value::Int(1) => Some(Stepped::Done),
        Value::Int(2) => Some(Stepped::Overtaken),
        Value::BulkString(record) => deleting_from(record).map(Stepped::Taken),
        _ => None,
    };
    stepped.ok_or_else(|| DecodeError::malformed("the deletion of a partition"))
}

/// Decodes [`FIELDS`] of a first partition.
pub fn decode_found(reply: &Value) -> Result<Found, DecodeError> {
    let Some([config, deleting, deleted, closed]) = array(reply) else {
        return Err(DecodeError::malformed("the meta of a partition"));
    };
    let deleted = decode_deleted(deleted)?;
    let presence = match (decode_config(config)?, deleting) {
        (Some(config), _) => Presence::Live(config),
        (None, Value::BulkString(record)) => {
            let deleting =
                deleting_from(record).ok_or_else(|| DecodeError::malformed("the deletion of a partition"))?;
            let config =
                decode_config(closed)?.ok_or_else(|| DecodeError::malformed("the config of a closed partition"))?;
            Presence::Deleting { config, deleting }
        }
        (None, _) => Presence::Absent,
    };
    Ok(Found { presence, deleted })
}

/// Decodes the deletions of earlier partitions of the same name and number.
pub fn decode_deleted(reply: &Value) -> Result<Vec<Deleted>, DecodeError> {
    let deleted = match reply {
        Value::Nil => Some(Vec::new()),
        Value::BulkString(record) => deleted_from(record),
        _ => None,
    };
    deleted.ok_or_else(|| DecodeError::malformed("the deletions of a partition"))
}

fn deleting_from(record: &[u8]) -> Option<Deleting> {
    let mut bytes = ByteReader(record);
    let (VERSION, _token, request) = (bytes.u8()?, bytes.take(16)?, bytes.take(16)?) else { return None };
    let is_final = bytes.u8()? > 0;
    Some(Deleting { request: request.try_into().ok()?, is_final, at: bytes.history_point()? })
}

fn deleted_from(record: &[u8]) -> Option<Vec<Deleted>> {
    let mut bytes = ByteReader(record);
    let (VERSION, number) = (bytes.u8()?, bytes.u8()?) else { return None };
    let mut deleted = || Some(Deleted { at: bytes.history_point()?, request: bytes.take(16)?.try_into().ok()? });
    let deleted = (0..number).map(|_| deleted()).collect::<Option<_>>()?;
    bytes.0.is_empty().then_some(deleted)
}
