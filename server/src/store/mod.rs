//! The access to Redis. The modules above use its types and traits, and send no command themselves.
//!
//! - [`keys`]: the name of every key.
//! - [`wire`]: arguments, replies and records as bytes.
//! - [`script`]: the Lua, assembled from `lua/scripts/`.
//! - [`pool`]: connections, bounded in number and in time.
//! - [`error`]: failed commands, classified by whether they may have been applied.
//! - [`permissions`]: the permissions that the Redis user needs, and their check.
//! - [`fitness`]: whether this Redis may hold stock.
//! - [`identity`]: whether it is the expected store.
//! - [`embedded`]: a Redis as a child process of this server.
//! - [`events`]: the entries of the event stream.
//! - [`audit`]: the comparison of counters and records, in bounded reads.
//! - [`lists`]: namespaces, stock and reservations, one page at a time, in bounded reads.

use deadpool_redis::redis::{Arg, Cmd, Pipeline, Value, cmd};
use tokio::time::Instant;

pub(crate) mod audit;
pub(crate) mod embedded;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod fitness;
pub(crate) mod identity;
pub(crate) mod lists;
pub(crate) mod permissions;
pub(crate) mod pool;
#[cfg(test)]
pub(crate) mod simulated;
mod traits;

pub(crate) use inventory_sentinel_script::{self as wire, keys, script};

pub(crate) use self::traits::{BatchCall, BatchStore, NamespaceStore};
use self::{
    error::StoreError,
    identity::Identity,
    keys::{NAMESPACES, PartitionKeys},
    pool::{Connection, Pool},
    script::Script,
    wire::{
        Batch, ConfigMemo, Configured, DeletionStep, FOUND_FIELDS, Found, NamespaceConfig, Opened, RawReply, Reply,
        Stepped,
    },
};
use crate::domain::{HistoryPoint, Id, Knowledge, NamespaceName, Operation};

/// The length to which a name that this service did not write is cut for the log, in bytes.
const SHOWN_BYTES: usize = 64;
/// Names of namespaces read with one command.
const SCAN_COUNT: usize = 1_000;

/// Whether Redis runs a call at its memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Any operation. At the limit Redis refuses the whole call.
    Plain,
    /// Runs at the limit too. Contains no Reserve, and creates no SKU.
    Resolving,
}

/// The commands of this service on one Redis.
pub(crate) struct Store {
    pool: Pool,
    plain: Script,
    resolving: Script,
    register: Script,
}

/// A page of the list of all namespaces.
pub(crate) struct NamesPage {
    pub(crate) names: Vec<NamespaceName>,
    /// Members of the list that are not valid names, escaped and shortened.
    pub(crate) bad: Vec<String>,
    /// The cursor of the next page; 0 after the last.
    pub(crate) next: u64,
}

impl Store {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, plain: Script::plain(), resolving: Script::allow_oom(), register: Script::register() }
    }

    /// An exclusive connection, for reads that take several commands.
    pub(crate) async fn connection(&self) -> Result<Connection, StoreError> {
        self.pool.get().await
    }

    /// Runs a script on the expected store only. For scripts whose claims may be of other epochs than those of the
    /// store, and whose reply this server records.
    async fn run_verified(
        &self,
        script: &Script,
        identity: &Identity,
        command: impl Fn(&Script) -> Cmd,
    ) -> Result<Value, StoreError> {
        let mut connection = self.pool.get().await?;
        identity.verify(&mut connection).await?;
        run_on(&mut connection, script, command(script)).await
    }

    /// Runs a batch once. Returns the reply and the instant at which the call was sent.
    pub(crate) async fn apply(
        &self,
        keys: &PartitionKeys,
        epoch: u64,
        knowledge: &Knowledge,
        batch: &Batch,
        mode: Mode,
    ) -> Result<(RawReply, Instant), StoreError> {
        let script = match mode {
            Mode::Plain => &self.plain,
            Mode::Resolving => &self.resolving,
        };
        let mut connection = self.pool.get().await?;
        // Taken after the wait for a connection, which can be long.
        let sent = Instant::now();
        let command = batch.command(&script.sha, keys, epoch, knowledge, connection.replid());
        Ok((run_on(&mut connection, script, command).await?, sent))
    }

    async fn send(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.pool.get().await?.send(command).await
    }
}

impl BatchStore for Store {
    type Reply = RawReply;

    async fn run_batch(&self, call: BatchCall<'_>) -> Result<(RawReply, Instant), StoreError> {
        self.apply(call.keys, call.epoch, call.knowledge, call.batch, call.mode).await
    }

    fn decode(
        &self,
        partition: u16,
        batch: &Batch,
        reply: RawReply,
        operations: Vec<Operation>,
    ) -> Result<Reply, StoreError> {
        Ok(batch.decode(&reply, partition, operations)?)
    }
}

impl NamespaceStore for Store {
    async fn find(&self, namespace: &NamespaceName) -> Result<Found, StoreError> {
        let keys = PartitionKeys::new(namespace, 0);
        let reply = self.send(cmd("HMGET").arg(keys.meta()).arg(&FOUND_FIELDS)).await?;
        Ok(wire::decode_found(&reply)?)
    }

    async fn find_all(&self, namespaces: &[NamespaceName]) -> Result<Vec<Result<Found, StoreError>>, StoreError> {
        let mut connection = self.pool.get().await?;
        let mut pipeline = Pipeline::with_capacity(namespaces.len());
        for namespace in namespaces {
            pipeline.cmd("HMGET").arg(PartitionKeys::new(namespace, 0).meta()).arg(&FOUND_FIELDS);
        }
        let replies = connection.send_all(&pipeline).await?;
        Ok(replies.into_iter().map(|reply| Ok(wire::decode_found(&reply?)?)).collect())
    }

    async fn register(&self, namespace: &NamespaceName, most: usize) -> Result<bool, StoreError> {
        let mut connection = self.pool.get().await?;
        let mut command = cmd("EVALSHA");
        command.arg(&self.register.sha).arg(1).arg(NAMESPACES).arg(namespace.as_str()).arg(most);
        Ok(run_on(&mut connection, &self.register, command).await? == Value::Int(1))
    }

    async fn unregister(&self, namespace: &NamespaceName) -> Result<(), StoreError> {
        self.send(cmd("SREM").arg(NAMESPACES).arg(namespace.as_str())).await.map(drop)
    }

    async fn last_change(&self, keys: &PartitionKeys) -> Result<Option<HistoryPoint>, StoreError> {
        let state = events::state(&mut self.connection().await?, keys).await?;
        Ok(state.map(|state| state.at))
    }

    async fn deletions(&self, keys: &PartitionKeys) -> Result<Vec<HistoryPoint>, StoreError> {
        let reply = self.send(cmd("HGET").arg(keys.meta()).arg("deleted")).await?;
        Ok(wire::decode_deleted(&reply)?.into_iter().map(|deleted| deleted.at).collect())
    }

    async fn delete(
        &self,
        keys: &PartitionKeys,
        identity: &Identity,
        step: DeletionStep,
        token: &Id,
    ) -> Result<Stepped, StoreError> {
        // Allowed at the memory limit, because it frees memory.
        let command = |script: &Script| wire::deletion_command(&script.sha, keys, step, token);
        Ok(wire::decode_step(&self.run_verified(&self.resolving, identity, command).await?)?)
    }

    async fn namespaces(&self, cursor: u64) -> Result<NamesPage, StoreError> {
        let reply = self.send(cmd("SSCAN").arg(NAMESPACES).arg(cursor).arg("COUNT").arg(SCAN_COUNT)).await?;
        let (next, found): (u64, Vec<Vec<u8>>) =
            deadpool_redis::redis::from_redis_value(reply).map_err(|error| StoreError::corrupt(error.to_string()))?;
        let mut page = NamesPage { names: Vec::new(), bad: Vec::new(), next };
        for bytes in found {
            match NamespaceName::from_store(&bytes) {
                Some(name) => page.names.push(name),
                None => page.bad.push(bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii().to_string()),
            }
        }
        Ok(page)
    }

    async fn open(
        &self,
        keys: &PartitionKeys,
        knowledge: &Knowledge,
        identity: &Identity,
        proposal: &NamespaceConfig,
        epoch: u64,
        memo: Option<&ConfigMemo>,
    ) -> Result<Opened, StoreError> {
        let command = |script: &Script| wire::open_command(&script.sha, keys, knowledge, proposal, epoch, memo);
        let opened = match self.run_verified(&self.plain, identity, command).await {
            // Opening an existing partition takes no memory, and its holds must be resolved.
            Err(StoreError::Full) if self.has_all(std::slice::from_ref(keys)).await? => {
                self.run_verified(&self.resolving, identity, command).await
            }
            opened => opened,
        };
        Ok(wire::decode_opened(&opened?)?)
    }

    async fn configure(
        &self,
        keys: &PartitionKeys,
        knowledge: &Knowledge,
        identity: &Identity,
        replaced: u64,
        config: Option<&NamespaceConfig>,
        memo: Option<&ConfigMemo>,
    ) -> Result<(Configured, NamespaceConfig), StoreError> {
        let command = |script: &Script| wire::configure_command(&script.sha, keys, knowledge, replaced, config, memo);
        let configured = match self.run_verified(&self.plain, identity, command).await {
            // A new config for an existing partition takes next to no memory.
            Err(StoreError::Full) => self.run_verified(&self.resolving, identity, command).await,
            configured => configured,
        };
        Ok(wire::decode_configured(&configured?)?)
    }

    async fn has_all(&self, partitions: &[PartitionKeys]) -> Result<bool, StoreError> {
        let mut command = cmd("EXISTS");
        partitions.iter().for_each(|keys| _ = command.arg(keys.meta()));
        Ok(self.send(&command).await? == Value::Int(partitions.len() as i64))
    }

    async fn verify(&self, identity: &Identity) -> Result<(), StoreError> {
        identity.verify(&mut self.pool.get().await?).await.map(drop)
    }
}

/// Runs a script by its hash. If Redis has lost it, the call is sent again with the source, which loads the script too.
/// A separate load could be lost before the call.
async fn run_on(connection: &mut Connection, script: &Script, command: Cmd) -> Result<Value, StoreError> {
    match connection.send(&command).await {
        Err(StoreError::NoScript) => {
            connection.close_on_drop();
            match connection.send(&with_source(&command, &script.source())).await {
                Err(error) => Err(permissions::named(connection, error).await),
                reply => reply,
            }
        }
        Err(error) => Err(permissions::named(connection, error).await),
        reply => reply,
    }
}

/// The EVALSHA with the script's source instead of its name.
fn with_source(evalsha: &Cmd, source: &str) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(source);
    for argument in evalsha.args_iter().skip(2) {
        if let Arg::Simple(bytes) = argument {
            command.arg(bytes);
        }
    }
    command
}
