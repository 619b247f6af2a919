//! The namespaces that this server has opened, each with a lane for every partition. Uses the store and the witnesses.
//!
//! - this file: [`Namespaces`], the registry;
//! - [`namespace`]: one open namespace; [`identity`]: the ids of its requests;
//! - [`searches`]: searches of the store, shared by the calls that wait; [`open`]: the opening of a namespace;
//! - [`configure`], [`deletion`]: the changes of a namespace as a whole; [`settings`]: its config.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rand::Rng as _;
use tokio::sync::Semaphore;

mod configure;
mod deletion;
mod identity;
mod namespace;
mod open;
mod searches;
mod settings;

pub(crate) use self::{
    configure::{ConfigureError, ConfigureRequest},
    deletion::DeleteError,
    namespace::Namespace,
    searches::Lookups,
    settings::Defaults,
};
use self::{deletion::UnfinishedDeletions, searches::Searches};
use crate::{
    config::{Config, CreateNamespaces},
    domain::{ClockOffsets, Id, NamespaceName},
    lane::LaneContext,
    random::Random,
    store::{
        NamespaceStore, Store,
        error::StoreError,
        wire::{NamespaceConfig, Presence},
    },
    witness::Witnesses,
};

/// The most namespaces that open at the same time.
const OPENINGS_AT_ONCE: usize = 4;

/// Why a namespace was not opened or created.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The number of namespaces has reached this limit.
    TooMany(usize),
    /// It does not exist, and only ConfigureNamespace may create it.
    Unknown(NamespaceName),
    Store(StoreError),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        OpenError::Store(error)
    }
}

/// The error for a namespace whose deletion can still be abandoned.
pub(crate) fn being_deleted() -> StoreError {
    StoreError::not_applied("the namespace is being deleted")
}

/// A random id, which no other request has.
fn new_identity(mut random: &Random) -> Id {
    random.random()
}

/// The rules for the creation of namespaces.
pub(crate) struct NewNamespaces {
    defaults: Defaults,
    /// The most namespaces in the store.
    most: usize,
    /// Whether only ConfigureNamespace creates one.
    is_explicit: bool,
}

impl From<&Config> for NewNamespaces {
    fn from(config: &Config) -> Self {
        Self {
            defaults: Defaults::from(config),
            most: config.max_namespaces,
            is_explicit: config.create_namespaces == CreateNamespaces::Explicit,
        }
    }
}

/// All namespaces that this server has opened.
pub(crate) struct Namespaces<S = Store> {
    /// A store whose connections are not those of the lanes.
    store: Arc<S>,
    lanes: LaneContext<S>,
    new: NewNamespaces,
    /// The recorded history of every namespace that this server has opened.
    witnesses: Arc<Witnesses>,
    open: RwLock<HashMap<NamespaceName, Arc<Namespace>>>,
    searches: Mutex<Searches>,
    unfinished_deletions: UnfinishedDeletions,
    /// Bounds how many namespaces open at the same time.
    openings: Arc<Semaphore>,
}

impl<S: NamespaceStore> Namespaces<S> {
    pub(crate) fn new(store: Arc<S>, lanes: LaneContext<S>, new: NewNamespaces, witnesses: Arc<Witnesses>) -> Self {
        Self {
            store,
            lanes,
            new,
            witnesses,
            open: RwLock::default(),
            searches: Mutex::default(),
            unfinished_deletions: UnfinishedDeletions::default(),
            openings: Arc::new(Semaphore::new(OPENINGS_AT_ONCE)),
        }
    }

    /// Adds the name to the list of namespaces of the expected store. Returns false if the list has `most` entries.
    async fn register(&self, name: &NamespaceName, most: usize) -> Result<bool, StoreError> {
        self.store.verify(self.witnesses.identity()).await?;
        self.store.register(name, most).await
    }

    /// The config of a namespace. If the store has lost it, it is written back first.
    pub(crate) async fn config(&self, name: &NamespaceName) -> Result<Option<NamespaceConfig>, StoreError> {
        let found = self.store.find(name).await?;
        let known = self.witnesses.config(name).map_or(0, |known| known.revision);
        match found.config() {
            Some(config) if config.revision >= known => return Ok(Some(config.clone())),
            None if known == 0 && matches!(found.presence, Presence::Absent) => return Ok(None),
            _ => {}
        }
        Ok(self.open_found(name, found).await?.map(|namespace| namespace.config.clone()))
    }

    /// The names of all namespaces that this server has recorded, open or not.
    pub(crate) fn known(&self) -> Vec<NamespaceName> {
        self.witnesses.names()
    }

    /// The namespace. If it is absent, it is created with this server's defaults.
    pub(crate) async fn get_or_create(
        self: &Arc<Self>,
        name: &NamespaceName,
        only_existing: bool,
    ) -> Result<Arc<Namespace>, OpenError> {
        if let Some(namespace) = self.get(name).await? {
            return Ok(namespace);
        }
        if only_existing || self.new.is_explicit {
            return Err(OpenError::Unknown(name.clone()));
        }
        self.admit_new(name).await?;
        let namespace = self.open(name, &self.new.defaults.propose(None, self.random())).await?;
        tracing::info!(namespace = name.as_str(), partitions = namespace.config.partitions, "a namespace was created");
        Ok(namespace)
    }

    /// Adds a namespace that is about to be created to the list of all.
    async fn admit_new(&self, name: &NamespaceName) -> Result<(), OpenError> {
        let found = self.store.find(name).await?;
        self.unfinished_deletions.record(name, &found.presence);
        if matches!(found.presence, Presence::Deleting { .. }) {
            return Err(being_deleted().into());
        }
        let most = self.new.most;
        if self.register(name, most).await? { Ok(()) } else { Err(OpenError::TooMany(most)) }
    }
    fn random(&self) -> &Random {
        &self.lanes.random
    }

    /// All open namespaces, sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<Namespace>> {
        let mut all: Vec<_> = self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// The differences between the clocks of all open partitions and the store's.
    pub(crate) fn clock_offsets(&self) -> ClockOffsets {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let lanes = open.values().flat_map(|namespace| namespace.lanes());
        lanes.fold(ClockOffsets::default(), |offsets, lane| offsets.or(lane.clock()))
    }

    /// The namespace, if this server has opened it.
    pub(crate) fn opened(&self, name: &NamespaceName) -> Option<Arc<Namespace>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(name).filter(|namespace| !namespace.is_closed()).cloned()
    }
}
