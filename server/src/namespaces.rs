//! The namespaces that this server has opened, each with a lane for every partition. Uses the store
//! to find and to make them, and the lanes to reach them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use hmac::{Hmac, Mac as _};
use rand::Rng as _;
use sha2::Sha256;
use tokio::{sync::Semaphore, time::Instant};

mod deletion;
mod identity;
mod searches;
mod settings;

pub(crate) use self::{deletion::Undeleted, searches::Lookups, settings::Defaults};
use self::{deletion::UnendedDeletions, identity::Identities, searches::Searches};

use crate::{
    config::{Config, CreateNamespaces},
    domain::{ClockOffsets, Id, NamespaceChange, NamespaceName, RequestId, ReservationId, Sku},
    lane::{Lane, LaneContext, PartitionRef},
    random::Random,
    resend::Resends,
    store::{
        NamespaceStore, Store,
        error::StoreError,
        keys::PartitionKeys,
        wire::{ConfigMemo, Configured, NamespaceConfig, Opened, Presence, encode_change},
    },
    witness::{Witness, Witnesses},
};

/// How often a change of config is tried again that another one has overtaken.
const CONFIGURE_ATTEMPTS: usize = 10;
/// Namespaces that open at the same time.
const OPENINGS_AT_ONCE: usize = 4;
/// Epochs are random numbers below this, so that two partitions never share one by chance.
const EPOCHS: u64 = 1 << 47;

/// Why a namespace was not configured.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unchanged {
    /// A setting is out of its range: its field.
    Invalid(&'static str),
    /// The number of partitions never changes.
    PartitionsFixed,
    /// It has this revision.
    VersionMismatch(u64),
    /// There are so many namespaces, which is the limit.
    TooMany(usize),
    /// The identity was used for another request.
    RequestIdReused,
    /// The caller's deadline passed before anything was sent.
    DeadlinePassed,
    /// It may have been configured.
    OutcomeUnknown { why: Arc<str> },
    /// The store refused, and nothing was changed.
    Store(StoreError),
}

/// Why a namespace was not made.
#[derive(Debug)]
pub(crate) enum NotMade {
    /// There are so many, which is the limit.
    TooMany(usize),
    /// Only ConfigureNamespace makes one.
    Unknown(NamespaceName),
    Store(StoreError),
}

impl From<StoreError> for NotMade {
    fn from(error: StoreError) -> Self {
        NotMade::Store(error)
    }
}

impl From<NotMade> for Unchanged {
    fn from(not_made: NotMade) -> Self {
        match not_made {
            NotMade::TooMany(most) => Unchanged::TooMany(most),
            // Not asked of ConfigureNamespace.
            NotMade::Unknown(_) => Unchanged::Store(StoreError::not_applied("the namespace is not known")),
            NotMade::Store(error) => Unchanged::Store(error),
        }
    }
}

/// Of a namespace whose deletion can still be given up.
pub(crate) fn being_deleted() -> StoreError {
    StoreError::not_applied("the namespace is being deleted")
}

impl From<StoreError> for Unchanged {
    /// Of a command that reads or opens.
    fn from(error: StoreError) -> Self {
        Unchanged::Store(error)
    }
}

/// A request that configures a namespace, or makes it.
pub(crate) struct ConfigureRequest {
    change: NamespaceChange,
    if_revision: Option<u64>,
    request_id: Option<RequestId>,
    /// Its identity where the caller gave none.
    made: Id,
}

impl ConfigureRequest {
    pub(crate) fn new(change: NamespaceChange, if_revision: Option<u64>, request_id: Option<RequestId>) -> Self {
        Self { change, if_revision, request_id, made: new_identity(&Random::System) }
    }

    /// As the first partition of a namespace with this config remembers it.
    fn memo(&self, config: &NamespaceConfig) -> Result<ConfigMemo, StoreError> {
        let id = match &self.request_id {
            Some(request_id) => Identities::new(config)?.of_request(request_id),
            None => self.made,
        };
        let fingerprint = encode_change(&self.change, self.if_revision);
        Ok(ConfigMemo { id, fingerprint, if_revision: self.if_revision })
    }
}

/// One namespace, open.
pub(crate) struct Namespace {
    pub(crate) name: NamespaceName,
    pub(crate) config: NamespaceConfig,
    identities: Identities,
    random: Random,
    lanes: Vec<Lane>,
    /// Of each partition, by which it is told from one that takes its place.
    pub(crate) epochs: Box<[u64]>,
    /// What this server knows of the history of each partition.
    pub(crate) witnesses: Box<[Arc<Witness>]>,
}

impl Namespace {
    /// The identity of this request in the store.
    pub(crate) fn identity(&self, request: &RequestId) -> Id {
        self.identities.of_request(request)
    }

    /// The request that made this reservation, where its id says so.
    pub(crate) fn request_of(&self, reservation: ReservationId) -> Option<String> {
        self.identities.request_of(&reservation.id)
    }

    /// The same where the caller may have given none: then it is new, and protects what this server sends again.
    pub(crate) fn identity_or_new(&self, request: Option<&RequestId>) -> Id {
        request.map_or_else(|| new_identity(&self.random), |request| self.identity(request))
    }

    /// What stands for one row of an import; it can be no request's either.
    pub(crate) fn row_identity(&self, request: &RequestId, sku: &Sku) -> Id {
        self.digest(&[request.as_str().as_bytes(), b"\0row", sku.as_str().as_bytes()])
    }

    /// What stands for one SKU of a SetProtection; it can be no request's and no row's either.
    pub(crate) fn protection_identity(&self, request: Option<&RequestId>, sku: &Sku) -> Id {
        let derived =
            |request: &RequestId| self.digest(&[request.as_str().as_bytes(), b"\0protection", sku.as_str().as_bytes()]);
        request.map_or_else(|| new_identity(&self.random), derived)
    }

    /// A tag that only a server with the namespace's secret can make of these bytes.
    pub(crate) fn tag(&self, bytes: &[u8]) -> Id {
        identity::first_bytes(self.identities.mac(), &[b"\0token", bytes])
    }

    /// Whether this is that tag. Takes the same time wherever the tag is wrong.
    pub(crate) fn has_tag(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.identities.mac().chain_update(b"\0token").chain_update(bytes).verify_truncated_left(tag).is_ok()
    }

    /// What authenticates the page tokens of this namespace: they are no resume tokens.
    pub(crate) fn page_mac(&self) -> Hmac<Sha256> {
        self.identities.mac().chain_update(b"\0page")
    }

    /// The id of what a late Commit buys anew: it follows from the reservation's, so that a repeat finds
    /// it, and can be no request's, as those have no NUL.
    pub(crate) fn purchase_of(&self, reservation: ReservationId) -> Id {
        self.digest(&[b"\0late", &reservation.id])
    }

    fn digest(&self, parts: &[&[u8]]) -> Id {
        self.identities.derived(parts)
    }

    /// The partition that a SKU lies in.
    pub(crate) fn partition_of(&self, sku: &Sku) -> u16 {
        sku.partition(self.config.partitions)
    }

    /// The lane of a partition; `None` if there is no such partition.
    pub(crate) fn lane(&self, partition: u16) -> Option<&Lane> {
        self.lanes.get(usize::from(partition))
    }

    /// The lane that a SKU's operations take.
    pub(crate) fn lane_of(&self, sku: &Sku) -> &Lane {
        &self.lanes[usize::from(self.partition_of(sku))]
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The keys of each partition.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (u16, PartitionKeys)> {
        (0..self.config.partitions).map(|partition| (partition, self.keys(partition)))
    }

    pub(crate) fn keys(&self, partition: u16) -> PartitionKeys {
        PartitionKeys::new(&self.name, partition)
    }

    pub(crate) fn reservation_id(&self, request: &RequestId, partition: u16) -> ReservationId {
        ReservationId { id: self.identity(request), partition }
    }

    fn is_closed(&self) -> bool {
        self.lanes.iter().any(Lane::is_closed)
    }
}

/// Makes a change of config until it is known what became of it. `in_doubt` says whether that is unknown.
async fn send_until_known<T, F: Future<Output = Result<T, StoreError>>>(
    attempt: impl Fn() -> F,
    mut resends: Resends,
    in_doubt: &AtomicBool,
) -> Result<T, Unchanged> {
    in_doubt.store(true, Ordering::Relaxed);
    let known = loop {
        let error = match resends.attempt(attempt()).await {
            Ok(answer) => break Ok(answer),
            Err(error) => error,
        };
        match resends.pause_after(error).await {
            Ok(()) => {}
            Err(StoreError::Unknown { why }) => return Err(Unchanged::OutcomeUnknown { why }),
            Err(error) => break Err(error.into()),
        }
    };
    in_doubt.store(false, Ordering::Relaxed);
    known
}

/// An identity that no other request has.
fn new_identity(mut random: &Random) -> Id {
    random.random()
}

/// How namespaces are made.
pub(crate) struct NewNamespaces {
    defaults: Defaults,
    /// Namespaces that there may be.
    most: usize,
    /// Only ConfigureNamespace makes one.
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
    /// Its connections do not serve lanes.
    store: Arc<S>,
    lanes: LaneContext<S>,
    new: NewNamespaces,
    /// What this server knows of every namespace that it has opened.
    witnesses: Arc<Witnesses>,
    open: RwLock<HashMap<NamespaceName, Arc<Namespace>>>,
    searches: Mutex<Searches>,
    unended_deletions: UnendedDeletions,
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
            unended_deletions: UnendedDeletions::default(),
            openings: Arc::new(Semaphore::new(OPENINGS_AT_ONCE)),
        }
    }

    /// Enters the name in the list of namespaces, but only in the store that this server knows. False: there are as many as
    /// there may be.
    async fn register(&self, name: &NamespaceName, most: usize) -> Result<bool, StoreError> {
        self.store.verify(self.witnesses.identity()).await?;
        self.store.register(name, most).await
    }

    /// The config of a namespace, which is written back first where the store has lost it.
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

    /// The names of all namespaces that this server knows, open or not.
    pub(crate) fn known(&self) -> Vec<NamespaceName> {
        self.witnesses.names()
    }

    /// The namespace, made with this server's defaults if there is none.
    pub(crate) async fn get_or_make(
        self: &Arc<Self>,
        name: &NamespaceName,
        only_existing: bool,
    ) -> Result<Arc<Namespace>, NotMade> {
        if let Some(namespace) = self.get(name).await? {
            return Ok(namespace);
        }
        if only_existing || self.new.is_explicit {
            return Err(NotMade::Unknown(name.clone()));
        }
        self.admit_new(name).await?;
        let namespace = self.open(name, &self.new.defaults.propose(None, self.random())).await?;
        tracing::info!(namespace = name.as_str(), partitions = namespace.config.partitions, "made a namespace");
        Ok(namespace)
    }

    /// Enters a namespace that is about to be made in the list of all.
    async fn admit_new(&self, name: &NamespaceName) -> Result<(), NotMade> {
        let found = self.store.find(name).await?;
        self.unended_deletions.note(name, &found.presence);
        if matches!(found.presence, Presence::Deleting { .. }) {
            return Err(being_deleted().into());
        }
        let most = self.new.most;
        if self.register(name, most).await? { Ok(()) } else { Err(NotMade::TooMany(most)) }
    }

    /// Changes what holds for a namespace, and makes it if there is none; returns the config as it is now, and whether the
    /// request was applied before. Partition 0 decides and remembers the request; the others follow, here or when the
    /// namespace is opened the next time.
    pub(crate) async fn configure(
        &self,
        name: &NamespaceName,
        request: &ConfigureRequest,
        deadline: Instant,
    ) -> Result<(NamespaceConfig, bool), Unchanged> {
        let in_doubt = AtomicBool::new(false);
        match tokio::time::timeout_at(deadline, self.try_to_configure(name, request, deadline, &in_doubt)).await {
            Ok(result) => result,
            Err(_) if in_doubt.load(Ordering::Relaxed) => {
                Err(Unchanged::OutcomeUnknown { why: "the deadline passed before the store answered".into() })
            }
            Err(_) => Err(Unchanged::DeadlinePassed),
        }
    }

    async fn try_to_configure(
        &self,
        name: &NamespaceName,
        request: &ConfigureRequest,
        deadline: Instant,
        in_doubt: &AtomicBool,
    ) -> Result<(NamespaceConfig, bool), Unchanged> {
        let keys = PartitionKeys::new(name, 0);
        let resends = |retention| {
            Resends::new(Instant::now(), self.lanes.limits.resend_for, retention, self.random()).until(deadline)
        };
        for _ in 0..CONFIGURE_ATTEMPTS {
            let Some(current) = self.config(name).await? else {
                if request.if_revision.is_some_and(|expected| expected != 0) {
                    return Err(Unchanged::VersionMismatch(0));
                }
                let next = settings::changed(
                    &self.new.defaults.propose(request.change.partitions, self.random()),
                    request.change,
                )?;
                let memo = request.memo(&next)?;
                self.admit_new(name).await?;
                let make = || self.open_partition(name, 0, &next, Some(&memo));
                let made = send_until_known(make, resends(next.retention), in_doubt).await?;
                if made.config == next {
                    return self.follow(name, next, false, in_doubt).await;
                }
                // Another request has made it.
                continue;
            };
            let memo = request.memo(&current)?;
            // A change that is not valid is no change to the store, which may know the request.
            let next = settings::changed(&current, request.change);
            let (replaced, config) = match &next {
                Ok(next) if *next == current => (current.revision, None),
                Ok(next) => {
                    (current.revision, Some(NamespaceConfig { revision: current.revision + 1, ..next.clone() }))
                }
                Err(_) => (0, None),
            };
            let knowledge = self.witnesses.opening_knowledge(name, 0);
            let send = || {
                let identity = self.witnesses.identity();
                self.store.configure(&keys, &knowledge, identity, replaced, config.as_ref(), Some(&memo))
            };
            let retention = config.as_ref().map_or(current.retention, |next| next.retention.min(current.retention));
            let (configured, now) = send_until_known(send, resends(retention), in_doubt).await?;
            match (configured, next) {
                (Configured::Replaced, _) => return self.follow(name, now, false, in_doubt).await,
                (Configured::Replayed, _) => return self.follow(name, now, true, in_doubt).await,
                (Configured::Reused, _) => return Err(Unchanged::RequestIdReused),
                (Configured::OtherRevision, _) => return Err(Unchanged::VersionMismatch(now.revision)),
                (Configured::Overtaken, Err(invalid)) if now.revision == current.revision => return Err(invalid),
                (Configured::Overtaken, _) => {}
            }
        }
        Err(StoreError::not_applied("the namespace is being configured by many at once").into())
    }

    /// Brings the other partitions to the config of the first. Where that fails they follow when they are opened the next
    /// time, and a repeat of the request tries it again.
    async fn follow(
        &self,
        name: &NamespaceName,
        config: NamespaceConfig,
        replayed: bool,
        in_doubt: &AtomicBool,
    ) -> Result<(NamespaceConfig, bool), Unchanged> {
        in_doubt.store(true, Ordering::Relaxed);
        match self.open(name, &config).await {
            Ok(_) => Ok((config, replayed)),
            Err(error) => {
                let why = format!("the first partition has the config, and not all others have it yet: {error}");
                Err(Unchanged::OutcomeUnknown { why: why.into() })
            }
        }
    }

    /// Brings a partition to the config that the first one has.
    async fn catch_up(
        &self,
        keys: &PartitionKeys,
        mut current: NamespaceConfig,
        config: &NamespaceConfig,
    ) -> Result<NamespaceConfig, StoreError> {
        let (nothing, identity) = (self.witnesses.nothing(), self.witnesses.identity());
        // Of another secret is one that a server has made while the namespace was deleted that had the name before.
        while current.revision < config.revision || current.secret != config.secret {
            current = self.store.configure(keys, &nothing, identity, current.revision, Some(config), None).await?.1;
        }
        Ok(current)
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

    /// How far the clocks of all open partitions are from the store's.
    pub(crate) fn clock_offsets(&self) -> ClockOffsets {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let lanes = open.values().flat_map(|namespace| namespace.lanes());
        lanes.fold(ClockOffsets::default(), |offsets, lane| offsets.or(lane.clock()))
    }

    /// The namespace, if it is open here.
    pub(crate) fn opened(&self, name: &NamespaceName) -> Option<Arc<Namespace>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(name).filter(|namespace| !namespace.is_closed()).cloned()
    }

    /// Opens every partition; the first decides what all of them are like, whoever proposes. A config that this server
    /// knows, and that the store has lost, is written back.
    async fn open(&self, name: &NamespaceName, proposal: &NamespaceConfig) -> Result<Arc<Namespace>, StoreError> {
        let known = self.witnesses.config(name);
        let mut opened = vec![self.open_partition(name, 0, known.as_ref().unwrap_or(proposal), None).await?];
        let config = opened[0].config.clone();
        if known.is_some_and(|known| known == config && known.revision > proposal.revision) {
            tracing::error!(
                namespace = name.as_str(),
                version = config.revision,
                "a config that the store had lost is back"
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
                "a namespace of format 1 does not notice a store that lost changes: raise it when no older server runs"
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
            // Somebody was faster; its lanes may carry calls already.
            return Ok(Arc::clone(other));
        }
        open.insert(name.clone(), Arc::clone(&namespace));
        Ok(namespace)
    }

    async fn open_partition(
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
}

/// A random epoch. It distinguishes a partition from a later one under the same keys.
fn new_epoch(mut random: &Random) -> u64 {
    random.random_range(1..EPOCHS)
}
