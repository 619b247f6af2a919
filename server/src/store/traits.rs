//! The interface of the store: two traits. [`Store`](super::Store) implements them with Redis, the simulated store in
//! memory. Uses the domain and the wire types.

use std::future::Future;

use tokio::time::Instant;

use super::{
    Mode, NamesPage,
    error::StoreError,
    identity::Identity,
    keys::PartitionKeys,
    wire::{Batch, ConfigMemo, Configured, DeletionStep, Found, NamespaceConfig, Opened, Reply, Stepped},
};
use crate::domain::{HistoryPoint, Id, Knowledge, NamespaceName, Operation};

/// One attempt to run a batch.
pub(crate) struct BatchCall<'a> {
    pub(crate) keys: &'a PartitionKeys,
    /// The epoch of the partition at the time of opening.
    pub(crate) epoch: u64,
    pub(crate) knowledge: &'a Knowledge,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the simulated store alone"))]
    pub(crate) operations: &'a [Operation],
    /// The same operations, encoded.
    pub(crate) batch: &'a Batch,
    pub(crate) mode: Mode,
}

/// Runs batches on partitions.
pub(crate) trait BatchStore: Send + Sync + 'static {
    /// A reply that is not decoded yet.
    type Reply: Send;

    /// Runs a batch once. Returns the reply, and the instant at which the batch was sent.
    fn run_batch(&self, call: BatchCall<'_>)
    -> impl Future<Output = Result<(Self::Reply, Instant), StoreError>> + Send;

    /// Decodes the reply to this batch of these operations.
    fn decode(
        &self,
        partition: u16,
        batch: &Batch,
        reply: Self::Reply,
        operations: Vec<Operation>,
    ) -> Result<Reply, StoreError>;
}

/// Finds, opens, configures and deletes namespaces.
pub(crate) trait NamespaceStore: BatchStore {
    /// The state of a namespace.
    fn find(&self, namespace: &NamespaceName) -> impl Future<Output = Result<Found, StoreError>> + Send;

    /// The state of each of these namespaces, in their order, with one read.
    fn find_all(
        &self,
        namespaces: &[NamespaceName],
    ) -> impl Future<Output = Result<Vec<Result<Found, StoreError>>, StoreError>> + Send;

    /// Adds a namespace to the list of all, so every server sweeps it. Precedes its first record.
    /// Returns `false` if the list has `most` entries.
    fn register(&self, namespace: &NamespaceName, most: usize)
    -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes the name of a deleted namespace from the list.
    fn unregister(&self, namespace: &NamespaceName) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The last change of a partition; `None` if the partition is absent or closed.
    fn last_change(
        &self,
        keys: &PartitionKeys,
    ) -> impl Future<Output = Result<Option<HistoryPoint>, StoreError>> + Send;

    /// The deletions of earlier partitions under these keys, the newest last.
    fn deletions(&self, keys: &PartitionKeys) -> impl Future<Output = Result<Vec<HistoryPoint>, StoreError>> + Send;

    /// Takes one step of the deletion of a closed partition.
    fn delete(
        &self,
        keys: &PartitionKeys,
        identity: &Identity,
        step: DeletionStep,
        token: &Id,
    ) -> impl Future<Output = Result<Stepped, StoreError>> + Send;

    /// One page of the list of all namespaces.
    fn namespaces(&self, cursor: u64) -> impl Future<Output = Result<NamesPage, StoreError>> + Send;

    /// Opens a partition; creates it as proposed if it is absent. Compares this server's knowledge
    /// with the partition. Refuses a store that is not the expected one.
    fn open(
        &self,
        keys: &PartitionKeys,
        knowledge: &Knowledge,
        identity: &Identity,
        proposal: &NamespaceConfig,
        epoch: u64,
        memo: Option<&ConfigMemo>,
    ) -> impl Future<Output = Result<Opened, StoreError>> + Send;

    /// Replaces the config of a partition if it still has this revision. Returns the outcome and the
    /// config afterwards.
    fn configure(
        &self,
        keys: &PartitionKeys,
        knowledge: &Knowledge,
        identity: &Identity,
        replaced: u64,
        config: Option<&NamespaceConfig>,
        memo: Option<&ConfigMemo>,
    ) -> impl Future<Output = Result<(Configured, NamespaceConfig), StoreError>> + Send;

    /// Whether all of these partitions are present.
    fn has_all(&self, partitions: &[PartitionKeys]) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Compares the identity of the store with the expected one.
    fn verify(&self, identity: &Identity) -> impl Future<Output = Result<(), StoreError>> + Send;
}
