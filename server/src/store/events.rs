//! Reads the event stream and the state of a partition. The script crate decodes the entries.

use deadpool_redis::redis::{self, cmd};
pub(crate) use inventory_sentinel_script::events::{After, Change, Entry, Run};

use super::{
    error::StoreError,
    keys::PartitionKeys,
    pool::Connection,
    wire::{FOUND_FIELDS, PartitionState, Presence, decode_found, state_from},
};

/// The state of a partition; `None` if there is no such partition.
pub(crate) async fn state(
    connection: &mut Connection,
    keys: &PartitionKeys,
) -> Result<Option<PartitionState>, StoreError> {
    let reply = connection.send(cmd("HGET").arg(keys.meta()).arg("state")).await?;
    let Some(state): Option<Vec<u8>> = parse(reply)? else { return Ok(None) };
    state_from(&state).map(Some).ok_or_else(|| StoreError::corrupt("the state of a partition"))
}

/// Whether a partition without a state is being deleted or was deleted: `Some(false)` while the deletion can be
/// abandoned, `Some(true)` after that.
pub(crate) async fn deletion(connection: &mut Connection, keys: &PartitionKeys) -> Result<Option<bool>, StoreError> {
    let found = decode_found(&connection.send(cmd("HMGET").arg(keys.meta()).arg(&FOUND_FIELDS)).await?)?;
    Ok(match found.presence {
        Presence::Deleting { deleting, .. } => Some(deleting.is_final),
        Presence::Absent if !found.deleted.is_empty() => Some(true),
        Presence::Absent | Presence::Live(_) => None,
    })
}

/// At most `count` entries of one partition, with changes after the sequence `after` and up to `end`, if there is one.
pub(crate) async fn read(
    connection: &mut Connection,
    keys: &PartitionKeys,
    after: u64,
    end: Option<u64>,
    count: usize,
) -> Result<Vec<Entry>, StoreError> {
    let end = end.map_or_else(|| "+".to_owned(), |end| format!("{end}-0"));
    let from = format!("{}-0", after.saturating_add(1));
    let reply = connection.send(cmd("XRANGE").arg(keys.events()).arg(from).arg(end).arg("COUNT").arg(count)).await?;
    decode(parse(reply)?)
}

/// Waits at most `longest` for entries after these sequences, each in the stream of its partition. Returns at most
/// `count` entries of each stream.
pub(crate) async fn wait(
    connection: &mut Connection,
    places: &[(PartitionKeys, u64)],
    longest: std::time::Duration,
    count: usize,
) -> Result<Vec<(usize, Vec<Entry>)>, StoreError> {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count).arg("BLOCK").arg(longest.as_millis() as u64).arg("STREAMS");
    places.iter().for_each(|(keys, _)| _ = command.arg(keys.events()));
    places.iter().for_each(|(_, after)| _ = command.arg(format!("{after}-0")));
    let streams: Option<Vec<(String, Raw)>> = parse(connection.send(&command).await?)?;
    let mut read = Vec::new();
    for (key, entries) in streams.unwrap_or_default() {
        let partition = places.iter().position(|(keys, _)| keys.events() == key);
        let partition = partition.ok_or_else(|| StoreError::corrupt("a stream that was not requested"))?;
        read.push((partition, decode(entries)?));
    }
    Ok(read)
}

/// Entries as Redis returns them: an id, then a field and its value.
type Raw = Vec<(String, Vec<Vec<u8>>)>;

fn decode(raw: Raw) -> Result<Vec<Entry>, StoreError> {
    raw.into_iter()
        .map(|(id, fields)| {
            let data = fields.get(1).ok_or_else(|| StoreError::corrupt("an event"))?;
            Ok(Entry::decode(&id, data)?)
        })
        .collect()
}

fn parse<T: redis::FromRedisValue>(reply: redis::Value) -> Result<T, StoreError> {
    redis::from_redis_value(reply).map_err(|error| StoreError::corrupt(error.to_string()))
}
