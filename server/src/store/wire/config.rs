//! The config of a namespace, of which every partition has a copy, and the calls that open a
//! partition and configure it. Pure, no I/O.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value};

use super::{Bytes, array, history::encode_knowledge, number, put_u48, script_call};
use crate::{
    domain::{Clock, FORMATS, Knowledge, Millis},
    store::{error::StoreError, keys::PartitionKeys},
};

/// The newest version of the record. Version 1 stands for a namespace of format 1, version 2 names the format.
const VERSION: u8 = 2;
/// Bytes of the secret that ids are derived with.
const SECRET_BYTES: usize = 32;

/// What holds for a namespace.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NamespaceConfig {
    /// Grows with every change.
    pub(crate) revision: u64,
    /// How long resolved reservations and requests are known.
    pub(crate) retention: Duration,
    /// The ttl of a hold that names none.
    pub(crate) default_ttl: Duration,
    /// The longest ttl of a hold.
    pub(crate) max_ttl: Duration,
    /// The longest life of a hold, however often it is extended.
    pub(crate) max_life: Duration,
    /// Most records of one partition.
    pub(crate) quota_records: u64,
    /// Most SKUs of one partition.
    pub(crate) quota_skus: u64,
    /// Changes that the event stream keeps, about.
    pub(crate) events_kept: u64,
    /// Partitions; never changes.
    pub(crate) partitions: u16,
    /// In which records are written; can only be raised.
    pub(crate) format: u8,
    /// What ids are derived with; never shown, never changes.
    pub(crate) secret: [u8; SECRET_BYTES],
}

impl NamespaceConfig {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.format == 1 { 1 } else { VERSION }];
        for number in [
            self.revision,
            self.retention.as_millis() as u64,
            self.default_ttl.as_millis() as u64,
            self.max_ttl.as_millis() as u64,
            self.max_life.as_millis() as u64,
            self.quota_records,
            self.quota_skus,
            self.events_kept,
        ] {
            put_u48(&mut out, number);
        }
        out.extend_from_slice(&self.partitions.to_be_bytes());
        if self.format > 1 {
            out.push(self.format);
        }
        out.extend_from_slice(&self.secret);
        out
    }

    pub(crate) fn decode(record: &[u8]) -> Result<Self, StoreError> {
        let config = Self::read(record).ok_or_else(|| StoreError::corrupt("the config of a partition"))?;
        let newer = |what: &str| Err(StoreError::Newer { why: what.into() });
        match record.first() {
            Some(version) if *version > VERSION => newer("the config of a partition"),
            _ if config.format > FORMATS.1 => newer("the format of a namespace"),
            _ => Ok(config),
        }
    }

    /// Reads a newer version as far as it is known.
    fn read(record: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(record);
        let version = bytes.u8()?;
        let revision = bytes.u48()?;
        let mut millis = || bytes.u48().map(Duration::from_millis);
        let (retention, default_ttl, max_ttl, max_life) = (millis()?, millis()?, millis()?, millis()?);
        Some(Self {
            revision,
            retention,
            default_ttl,
            max_ttl,
            max_life,
            quota_records: bytes.u48()?,
            quota_skus: bytes.u48()?,
            events_kept: bytes.u48()?,
            partitions: bytes.u16()?,
            format: if version == 1 { 1 } else { bytes.u8()? },
            secret: if version > VERSION { [0; SECRET_BYTES] } else { bytes.0.try_into().ok()? },
        })
    }
}

/// A partition as it was found or made.
pub(crate) struct Opened {
    /// On the partition's clock.
    pub(crate) now: Millis,
    pub(crate) clock: Clock,
    pub(crate) config: NamespaceConfig,
    pub(crate) epoch: u64,
}

/// The call that opens a partition, with what is proposed if there is none.
pub(crate) fn open_command(
    sha: &str,
    keys: &PartitionKeys,
    knowledge: &Knowledge,
    config: &NamespaceConfig,
    epoch: u64,
) -> Cmd {
    let mut command = script_call(sha, keys);
    command.arg("open").arg(encode_knowledge(knowledge, None, None)).arg(config.encode()).arg(epoch);
    command
}

pub(crate) fn decode_opened(reply: &Value) -> Result<Opened, StoreError> {
    let opened = || {
        let [now, Value::BulkString(config), epoch, Value::BulkString(clock)] = array(reply)? else {
            return None;
        };
        Some((Millis(number(now)?), Bytes(clock).clock()?, config, number(epoch)?))
    };
    let (now, clock, config, epoch) = opened().ok_or_else(|| StoreError::corrupt("the meta of a partition"))?;
    Ok(Opened { now, clock, config: NamespaceConfig::decode(config)?, epoch })
}

/// The call that replaces the config of a partition, if it still has this revision.
pub(crate) fn configure_command(
    sha: &str,
    keys: &PartitionKeys,
    knowledge: &Knowledge,
    replaced: u64,
    config: &NamespaceConfig,
) -> Cmd {
    let mut command = script_call(sha, keys);
    command.arg("configure").arg(encode_knowledge(knowledge, None, None)).arg(replaced).arg(config.encode());
    command
}

/// Whether the config was replaced, and the one that is there now.
pub(crate) fn decode_configured(reply: &Value) -> Result<(bool, NamespaceConfig), StoreError> {
    let configured = || {
        let [replaced, Value::BulkString(config)] = array(reply)? else {
            return None;
        };
        Some((number(replaced)? == 1, config))
    };
    let (replaced, config) = configured().ok_or_else(|| StoreError::corrupt("the config of a partition"))?;
    Ok((replaced, NamespaceConfig::decode(config)?))
}

/// The config in a partition's meta, for one that may not exist.
pub(crate) fn decode_config(reply: &Value) -> Result<Option<NamespaceConfig>, StoreError> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => NamespaceConfig::decode(bytes).map(Some),
        _ => Err(StoreError::corrupt("the config of a partition")),
    }
}
