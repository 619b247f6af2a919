//! ConfigureNamespace: changes the config of a namespace, or creates the namespace. Partition 0 decides; the others
//! follow. Uses the store and the witnesses.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;

use super::{Namespaces, OpenError, identity::Identities, new_identity, settings};
use crate::{
    domain::{Id, NamespaceChange, NamespaceName, RequestId},
    random::Random,
    resend::Resends,
    store::{
        NamespaceStore,
        error::StoreError,
        keys::PartitionKeys,
        wire::{ConfigMemo, Configured, NamespaceConfig, encode_change},
    },
};

/// The most attempts of a change of config that concurrent changes overtake.
const CONFIGURE_ATTEMPTS: usize = 10;

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

impl<S: NamespaceStore> Namespaces<S> {
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
}
