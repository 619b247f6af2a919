//! The opening of a namespace: opens or creates every partition, and starts their lanes. Uses the store and the
//! witnesses.

use std::sync::{Arc, PoisonError};

use rand::Rng as _;

use super::{Namespace, Namespaces, identity::Identities};
use crate::{
    domain::NamespaceName,
    lane::{Lane, PartitionRef},
    random::Random,
    store::{
        NamespaceStore,
        error::StoreError,
        keys::PartitionKeys,
        wire::{ConfigMemo, NamespaceConfig, Opened},
    },
    witness::Witness,
};

/// Epochs are random numbers below this, so that two partitions never share one by chance.
const EPOCHS: u64 = 1 << 47;

impl<S: NamespaceStore> Namespaces<S> {
    /// Opens every partition. The config of the first applies to all, whatever the proposal. A recorded config that the
    /// store has lost is written back.
    pub(super) async fn open(
        &self,
        name: &NamespaceName,
        proposal: &NamespaceConfig,
    ) -> Result<Arc<Namespace>, StoreError> {
        let known = self.witnesses.config(name);
        let mut opened = vec![self.open_partition(name, 0, known.as_ref().unwrap_or(proposal), None).await?];
        let config = opened[0].config.clone();
        if known.is_some_and(|known| known == config && known.revision > proposal.revision) {
            tracing::error!(
                namespace = name.as_str(),
                version = config.revision,
                "a config that the store had lost was written back"
            );
        }
        for partition in 1..config.partitions {
            opened.push(self.open_partition(name, partition, &config, None).await?);
        }
        let epochs: Vec<u64> = opened.iter().map(|opened| opened.epoch).collect();
        let witnesses = self.witnesses.opened(name, &config, &epochs);
        let start = |(partition, (opened, witness)): (u16, (Opened, Arc<Witness>))| {
            let to = PartitionRef::new(name, partition, opened.epoch, &opened.config, witness);
            Lane::start(&to, opened.now, opened.clock, &self.lanes)
        };
        let lanes = (0..).zip(opened.into_iter().zip(witnesses.clone())).map(start).collect();
        if config.format == 1 {
            tracing::warn!(
                namespace = name.as_str(),
                "a namespace of format 1 does not detect lost changes: raise its format when no older server runs"
            );
        }
        let identities = Identities::new(&config)?;
        let namespace = Arc::new(Namespace {
            name: name.clone(),
            config,
            identities,
            random: self.random().clone(),
            lanes,
            epochs: epochs.into(),
            witnesses: witnesses.into(),
        });

        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let is_current =
            |other: &&Arc<Namespace>| !other.is_closed() && other.config.revision >= namespace.config.revision;
        if let Some(other) = open.get(name).filter(is_current) {
            // Another call was faster. Its lanes may have callers already.
            return Ok(Arc::clone(other));
        }
        open.insert(name.clone(), Arc::clone(&namespace));
        Ok(namespace)
    }

    pub(super) async fn open_partition(
        &self,
        name: &NamespaceName,
        partition: u16,
        proposal: &NamespaceConfig,
        memo: Option<&ConfigMemo>,
    ) -> Result<Opened, StoreError> {
        let keys = PartitionKeys::new(name, partition);
        let (knowledge, identity) = (self.witnesses.opening_knowledge(name, partition), self.witnesses.identity());
        let mut opened = self.store.open(&keys, &knowledge, identity, proposal, new_epoch(self.random()), memo).await?;
        if partition > 0 {
            opened.config = self.catch_up(&keys, opened.config, proposal).await?;
        }
        Ok(opened)
    }

    /// Brings a partition to the config of the first one.
    async fn catch_up(
        &self,
        keys: &PartitionKeys,
        mut current: NamespaceConfig,
        config: &NamespaceConfig,
    ) -> Result<NamespaceConfig, StoreError> {
        let (nothing, identity) = (self.witnesses.nothing(), self.witnesses.identity());
        // It has another secret if a server created it while an earlier namespace with the same name was deleted.
        while current.revision < config.revision || current.secret != config.secret {
            current = self.store.configure(keys, &nothing, identity, current.revision, Some(config), None).await?.1;
        }
        Ok(current)
    }
}

/// A random epoch. It distinguishes a partition from a later one under the same keys.
fn new_epoch(mut random: &Random) -> u64 {
    random.random_range(1..EPOCHS)
}
