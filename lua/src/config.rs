//! The config of a namespace, of which every partition has a copy, and the calls that open a
//! partition and configure it. Pure, no I/O.

use std::time::Duration;

use deadpool_redis::redis::{Cmd, Value};

use crate::{
    bytes::{ByteReader, array, number, put_u48, script_call},
    domain::{Clock, Id, Knowledge, NamespaceChange, StoreTime},
    error::DecodeError,
    history::encode_knowledge,
    keys::PartitionKeys,
    limits::FORMATS,
};

/// The newest version of the record. Version 1 implies format 1, version 2 contains the format, and version 3 (since
/// format 5) also contains flags.
pub(crate) const VERSION: u8 = 3;
/// The first version that contains the format.
pub(crate) const FIRST_WITH_FORMAT: u8 = 2;
/// The first format whose config has flags.
const FIRST_WITH_FLAGS: u8 = 5;
/// Flags: the namespace is paused; reservation ids are sealed request ids.
pub(crate) const PAUSED: u8 = 1;
const SEALED_IDS: u8 = 2;
/// The length of the secret from which ids are derived.
const SECRET_BYTES: usize = 32;

/// The settings of a namespace, as they are stored in each of its partitions.
#[derive(Clone, PartialEq, Eq)]
pub struct NamespaceConfig {
    /// Grows with every change.
    pub revision: u64,
    /// How long resolved reservations and requests are remembered.
    pub retention: Duration,
    /// The ttl of a hold that names none.
    pub default_ttl: Duration,
    /// The longest ttl of a hold.
    pub max_ttl: Duration,
    /// The longest life of a hold, however often it is extended.
    pub max_life: Duration,
    /// Most records of one partition.
    pub quota_records: u64,
    /// Most SKUs of one partition.
    pub quota_skus: u64,
    /// Changes that the event stream keeps, about.
    pub events_kept: u64,
    /// Partitions; never changes.
    pub partitions: u16,
    /// The format in which records are written; can only be raised.
    pub format: u8,
    /// Whether every Reserve is refused; only in format 5 and later.
    pub is_paused: bool,
    /// Whether a reservation id can be turned back into its request id (`namespaces::identity`); never changes.
    pub has_sealed_ids: bool,
    /// The secret from which ids are derived; never shown, never changes.
    pub secret: [u8; SECRET_BYTES],
}

impl NamespaceConfig {
    /// Encodes the record that each partition stores.
    pub fn encode(&self) -> Vec<u8> {
        let version = match self.format {
            1 => 1,
            format if format < FIRST_WITH_FLAGS => 2,
            _ => VERSION,
        };
        let mut out = vec![version];
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
        if version >= 3 {
            out.push(u8::from(self.is_paused) * PAUSED + u8::from(self.has_sealed_ids) * SEALED_IDS);
        }
        out.extend_from_slice(&self.secret);
        out
    }

    /// Decodes the record that a partition stores.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let config = Self::read(record).ok_or_else(|| DecodeError::malformed("the config of a partition"))?;
        let newer = |what: &str| Err(DecodeError::newer(what));
        match record.first() {
            Some(version) if *version > VERSION => newer("the config of a partition"),
            _ if config.format > FORMATS.1 => newer("the format of a namespace"),
            _ => Ok(config),
        }
    }

    /// Decodes the fields that this release has, also from a record of a newer version.
    fn read(record: &[u8]) -> Option<Self> {
        let mut bytes = ByteReader(record);
        let version = bytes.u8()?;
        let revision = bytes.u48()?;
        let mut millis = || bytes.u48().map(Duration::from_millis);
        let (retention, default_ttl, max_ttl, max_life) = (millis()?, millis()?, millis()?, millis()?);
        let (quota_records, quota_skus, events_kept, partitions) =
            (bytes.u48()?, bytes.u48()?, bytes.u48()?, bytes.u16()?);
        let format = if version == 1 { 1 } else { bytes.u8()? };
        let flags = if version >= 3 { bytes.u8()? } else { 0 };
        Some(Self {
            revision,
            retention,
            default_ttl,
            max_ttl,
            max_life,
            quota_records,
            quota_skus,
            events_kept,
            partitions,
            format,
            is_paused: flags & PAUSED != 0,
            has_sealed_ids: flags & SEALED_IDS != 0,
            secret: if version > VERSION { [0; SECRET_BYTES] } else { bytes.0.try_into().ok()? },
        })
    }
}

/// A partition that was found or created.
pub struct Opened {
    /// On the partition's clock.
    pub now: StoreTime,
    /// The clock beside the store's.
    pub clock: Clock,
    /// The config that is in force.
    pub config: NamespaceConfig,
    /// The epoch of the partition.
    pub epoch: u64,
}

/// The identity of a request that changes the config of a namespace, as the first partition remembers it.
pub struct ConfigMemo {
    /// The identity.
    pub id: Id,
    /// The request itself.
    pub fingerprint: Vec<u8>,
    /// Only if the config has this revision.
    pub if_revision: Option<u64>,
}

/// The result of a change of config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configured {
    /// Nothing changed: the config no longer has the revision that was to be replaced.
    Overtaken,
    /// The config was replaced.
    Replaced,
    /// Nothing changed: the request was applied before.
    Replayed,
    /// Refused: the identity was used for another request.
    Reused,
    /// Refused: the config has another revision than the request names.
    OtherRevision,
}

/// The call that opens a partition. If there is none, it is created with this config and epoch, and remembers the
/// request.
pub fn open_command(
    sha: &str,
    keys: &PartitionKeys,
    knowledge: &Knowledge,
    config: &NamespaceConfig,
    epoch: u64,
    memo: Option<&ConfigMemo>,
) -> Cmd {
    let mut command = script_call(sha, keys);
    command.arg("open").arg(encode_knowledge(knowledge, None)).arg(config.encode()).arg(epoch);
    if let Some(memo) = memo {
        command.arg(&memo.id).arg(&memo.fingerprint);
    }
    command
}

/// The reply to [`open_command`].
pub fn decode_opened(reply: &Value) -> Result<Opened, DecodeError> {
    let opened = || {
        let [now, Value::BulkString(config), epoch, Value::BulkString(clock)] = array(reply)? else {
            return None;
        };
        Some((StoreTime(number(now)?), ByteReader(clock).clock()?, config, number(epoch)?))
    };
    let (now, clock, config, epoch) = opened().ok_or_else(|| DecodeError::malformed("the meta of a partition"))?;
    Ok(Opened { now, clock, config: NamespaceConfig::decode(config)?, epoch })
}

/// The call that replaces the config of a partition if it still has this revision. Without a config it only remembers
/// the request.
pub fn configure_command(
    sha: &str,
    keys: &PartitionKeys,
    knowledge: &Knowledge,
    replaced: u64,
    config: Option<&NamespaceConfig>,
    memo: Option<&ConfigMemo>,
) -> Cmd {
    let mut command = script_call(sha, keys);
    command.arg("configure").arg(encode_knowledge(knowledge, None)).arg(replaced);
    command.arg(config.map(NamespaceConfig::encode).unwrap_or_default());
    if let Some(ConfigMemo { id, fingerprint, if_revision }) = memo {
        let version = if_revision.map(|revision| revision.to_string()).unwrap_or_default();
        command.arg(id).arg(fingerprint).arg(version);
    }
    command
}

/// The reply to [`configure_command`]: the result, and the config after it.
pub fn decode_configured(reply: &Value) -> Result<(Configured, NamespaceConfig), DecodeError> {
    let configured = || {
        let [code, Value::BulkString(config)] = array(reply)? else {
            return None;
        };
        let configured = match number(code)? {
            0 => Configured::Overtaken,
            1 => Configured::Replaced,
            2 => Configured::Replayed,
            3 => Configured::Reused,
            4 => Configured::OtherRevision,
            _ => return None,
        };
        Some((configured, config))
    };
    let (configured, config) = configured().ok_or_else(|| DecodeError::malformed("the config of a partition"))?;
    Ok((configured, NamespaceConfig::decode(config)?))
}

/// A change of a namespace as bytes. Equal requests have equal bytes.
pub fn encode_change(change: &NamespaceChange, if_revision: Option<u64>) -> Vec<u8> {
    let NamespaceChange {
        partitions,
        default_ttl,
        max_ttl,
        max_life,
        retention,
        quota_records,
        quota_skus,
        format,
        is_paused,
    } = *change;
    let millis = |duration: Option<Duration>| duration.map(|duration| duration.as_millis() as u64);
    let fields = [
        partitions.map(u64::from),
        millis(default_ttl),
        millis(max_ttl),
        millis(max_life),
        millis(retention),
        quota_records,
        quota_skus,
        format.map(u64::from),
        if_revision,
        is_paused.map(u64::from),
    ];
    let mut out = Vec::new();
    for (field, value) in (0..).zip(fields) {
        if let Some(value) = value {
            out.push(field);
            // A value out of its range is refused later. It may have any size here.
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
    out
}

/// The config in the meta of a partition that may not exist.
pub fn decode_config(reply: &Value) -> Result<Option<NamespaceConfig>, DecodeError> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => NamespaceConfig::decode(bytes).map(Some),
        _ => Err(DecodeError::malformed("the config of a partition")),
    }
}
