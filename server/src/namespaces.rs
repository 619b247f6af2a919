//! The namespaces that this server has opened, each with a lane for every partition. Uses the store to find, create and
//! configure them.

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

pub(crate) use self::{deletion::DeleteError, searches::Lookups, settings::Defaults};
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

/// The most attempts of a change of config that concurrent changes overtake.
const CONFIGURE_ATTEMPTS: usize = 10;
/// The most namespaces that open at the same time.
const OPENINGS_AT_ONCE: usize = 4;
/// Epochs are random numbers below this, so that two partitions never share one by chance.
const EPOCHS: u64 = 1 << 47;

/// Why a namespace was not configured.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConfigureError {
    /// The value of this field is out of its range.
    Invalid(&'static str),
    /// The number of partitions never changes.
    PartitionsFixed,
    /// The namespace has this revision.
    VersionMismatch(u64),
    /// The number of namespaces has reached this limit.
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

impl From<OpenError> for ConfigureError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::TooMany(most) => ConfigureError::TooMany(most),
            // ConfigureNamespace may create any.
            OpenError::Unknown(_) => ConfigureError::Store(StoreError::not_applied("the namespace is not known")),
            OpenError::Store(error) => ConfigureError::Store(error),
        }
    }
}

/// The error for a namespace whose deletion can still be abandoned.
pub(crate) fn being_deleted() -> StoreError {
    StoreError::not_applied("the namespace is being deleted")
}

impl From<StoreError> for ConfigureError {
    /// For a command that reads or opens.
    fn from(error: StoreError) -> Self {
        ConfigureError::Store(error)
    }
}

/// A request that configures a namespace, or creates it.
pub(crate) struct ConfigureRequest {
    change: NamespaceChange,
    if_revision: Option<u64>,
    request_id: Option<RequestId>,
    /// The id of the request if the caller gave none.
    generated: Id,
}

impl ConfigureRequest {
    pub(crate) fn new(change: NamespaceChange, if_revision: Option<u64>, request_id: Option<RequestId>) -> Self {
        Self { change, if_revision, request_id, generated: new_identity(&Random::System) }
    }

    /// The memo of this request in the first partition of a namespace with this config.
    fn memo(&self, config: &NamespaceConfig) -> Result<ConfigMemo, StoreError> {
        let id = match &self.request_id {
            Some(request_id) => Identities::new(config)?.of_request(request_id),
            None => self.generated,
        };
        let fingerprint = encode_change(&self.change, self.if_revision);
        Ok(ConfigMemo { id, fingerprint, if_revision: self.if_revision })
    }
}

/// An open namespace.
pub(crate) struct Namespace {
    pub(crate) name: NamespaceName,
    pub(crate) config: NamespaceConfig,
    identities: Identities,
    random: Random,
    lanes: Vec<Lane>,
    /// The epoch of each partition. It distinguishes the partition from a later one under the same keys.
    pub(crate) epochs: Box<[u64]>,
    /// The recorded history of each partition.
    pub(crate) witnesses: Box<[Arc<Witness>]>,
}

impl Namespace {
    /// The id of this request in the store.
    pub(crate) fn identity(&self, request: &RequestId) -> Id {
        self.identities.of_request(request)
    }

    /// The request that created this reservation, if the id contains it.
    pub(crate) fn request_of(&self, reservation: ReservationId) -> Option<String> {
        self.identities.request_of(&reservation.id)
    }

    /// The id of an optional request id. Without one it is random, and protects only the resends of this server.
    pub(crate) fn identity_or_new(&self, request: Option<&RequestId>) -> Id {
        request.map_or_else(|| new_identity(&self.random), |request| self.identity(request))
    }

    /// The id of one row of an import. No request can have it.
    pub(crate) fn row_identity(&self, request: &RequestId, sku: &Sku) -> Id {
        self.digest(&[request.as_str().as_bytes(), b"\0row", sku.as_str().as_bytes()])
    }

    /// The id of one SKU of a SetProtection. No request and no row can have it.
    pub(crate) fn protection_identity(&self, request: Option<&RequestId>, sku: &Sku) -> Id {
        let derived =
            |request: &RequestId| self.digest(&[request.as_str().as_bytes(), b"\0protection", sku.as_str().as_bytes()]);
        request.map_or_else(|| new_identity(&self.random), derived)
    }

    /// The tag of these bytes. It takes the namespace's secret to compute it.
    pub(crate) fn tag(&self, bytes: &[u8]) -> Id {
        identity::first_bytes(self.identities.mac(), &[b"\0token", bytes])
    }

    /// Whether this is the tag of these bytes. Takes constant time.
    pub(crate) fn has_tag(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.identities.mac().chain_update(b"\0token").chain_update(bytes).verify_truncated_left(tag).is_ok()
    }

    /// The MAC for the page tokens of this namespace. Resume tokens have another one.
    pub(crate) fn page_mac(&self) -> Hmac<Sha256> {
        self.identities.mac().chain_update(b"\0page")
    }

    /// The id of the purchase that a late Commit makes again. It is derived from the reservation's, so that a repeat
    /// finds it. No request can have it, because a request id has no NUL.
    pub(crate) fn purchase_of(&self, reservation: ReservationId) -> Id {
        self.digest(&[b"\0late", &reservation.id])
    }

    fn digest(&self, parts: &[&[u8]]) -> Id {
        self.identities.derived(parts)
    }

    /// The partition of a SKU.
    pub(crate) fn partition_of(&self, sku: &Sku) -> u16 {
        sku.partition(self.config.partitions)
    }

    /// The lane of a partition; `None` if there is no such partition.
    pub(crate) fn lane(&self, partition: u16) -> Option<&Lane> {
        self.lanes.get(usize::from(partition))
    }

    /// The lane of a SKU's partition.
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

/// Sends a change of config until its outcome is known. `in_doubt` is true while it is unknown.
async fn send_until_known<T, F: Future<Output = Result<T, StoreError>>>(
    attempt: impl Fn() -> F,
    mut resends: Resends,
    in_doubt: &AtomicBool,
) -> Result<T, ConfigureError> {
    in_doubt.store(true, Ordering::Relaxed);
    let outcome = loop {
        let error = match resends.attempt(attempt()).await {
            Ok(answer) => break Ok(answer),
            Err(error) => error,
        };
        match resends.pause_after(error).await {
            Ok(()) => {}
            Err(StoreError::Unknown { why }) => return Err(ConfigureError::OutcomeUnknown { why }),
            Err(error) => break Err(error.into()),
        }
    };
    in_doubt.store(false, Ordering::Relaxed);
    outcome
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
        self.unended_deletions.record(name, &found.presence);
        if matches!(found.presence, Presence::Deleting { .. }) {
            return Err(being_deleted().into());
        }
        let most = self.new.most;
        if self.register(name, most).await? { Ok(()) } else { Err(OpenError::TooMany(most)) }
    }

    /// Changes the config of a namespace, or creates it. Returns the config afterwards, and whether the request was
    /// applied before. Partition 0 decides and remembers the request. The others follow, here or at the next opening of
    /// the namespace.
    pub(crate) async fn configure(
        &self,
        name: &NamespaceName,
        request: &ConfigureRequest,
        deadline: Instant,
    ) -> Result<(NamespaceConfig, bool), ConfigureError> {
        let in_doubt = AtomicBool::new(false);
        match tokio::time::timeout_at(deadline, self.try_to_configure(name, request, deadline, &in_doubt)).await {
            Ok(result) => result,
            Err(_) if in_doubt.load(Ordering::Relaxed) => {
                Err(ConfigureError::OutcomeUnknown { why: "the deadline passed before the store answered".into() })
            }
            Err(_) => Err(ConfigureError::DeadlinePassed),
        }
    }

    async fn try_to_configure(
        &self,
        name: &NamespaceName,
        request: &ConfigureRequest,
        deadline: Instant,
        in_doubt: &AtomicBool,
    ) -> Result<(NamespaceConfig, bool), ConfigureError> {
        let keys = PartitionKeys::new(name, 0);
        let resends = |retention| {
            Resends::new(Instant::now(), self.lanes.limits.resend_for, retention, self.random()).until(deadline)
        };
        for _ in 0..CONFIGURE_ATTEMPTS {
            let Some(current) = self.config(name).await? else {
                if request.if_revision.is_some_and(|expected| expected != 0) {
                    return Err(ConfigureError::VersionMismatch(0));
                }
                let next = settings::changed(
                    &self.new.defaults.propose(request.change.partitions, self.random()),
                    request.change,
                )?;
                let memo = request.memo(&next)?;
                self.admit_new(name).await?;
                let create = || self.open_partition(name, 0, &next, Some(&memo));
                let created = send_until_known(create, resends(next.retention), in_doubt).await?;
                if created.config == next {
                    return self.follow(name, next, false, in_doubt).await;
                }
                // Another request has created it.
                continue;
            };
            let memo = request.memo(&current)?;
            // An invalid change is sent without a config: the store may remember the request.
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
                (Configured::Reused, _) => return Err(ConfigureError::RequestIdReused),
                (Configured::OtherRevision, _) => return Err(ConfigureError::VersionMismatch(now.revision)),
                (Configured::Overtaken, Err(invalid)) if now.revision == current.revision => return Err(invalid),
                (Configured::Overtaken, _) => {}
            }
        }
        Err(StoreError::not_applied("the namespace is being configured by many at once").into())
    }

    /// Brings the other partitions to the config of the first. After a failure they follow at the next opening, and a
    /// repeat of the request tries it again.
    async fn follow(
        &self,
        name: &NamespaceName,
        config: NamespaceConfig,
        replayed: bool,
        in_doubt: &AtomicBool,
    ) -> Result<(NamespaceConfig, bool), ConfigureError> {
        in_doubt.store(true, Ordering::Relaxed);
        match self.open(name, &config).await {
            Ok(_) => Ok((config, replayed)),
            Err(error) => {
                let why = format!("the first partition has the config, and not all others have it yet: {error}");
                Err(ConfigureError::OutcomeUnknown { why: why.into() })
            }
        }
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

    /// Opens every partition. The config of the first applies to all, whatever the proposal. A recorded config that the
    /// store has lost is written back.
    async fn open(&self, name: &NamespaceName, proposal: &NamespaceConfig) -> Result<Arc<Namespace>, StoreError> {
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
            // Another call was faster. Its lanes may have callers already.
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
