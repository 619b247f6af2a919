//! The state that all services share: admission, the namespaces, the counters of calls.
//! Uses the health gate, the namespaces and the metrics.

use std::{collections::HashSet, sync::Arc};

use inventory_sentinel::Reason;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deadline::by_deadline;
use crate::{
    access::{Caller, Guard},
    control::health::StoreGate,
    domain::NamespaceName,
    failure::Failure,
    namespaces::{Lookups, Namespace, Namespaces},
    tasks::Tasks,
    telemetry::metrics::{CallStatus, Metrics, RpcKind},
};

/// The shared state. Each service has a clone.
#[derive(Clone)]
pub(crate) struct ServiceContext {
    pub(super) namespaces: Arc<Namespaces>,
    gate: Arc<StoreGate>,
    metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
    pub(super) draining: CancellationToken,
    pub(super) guard: Arc<Guard>,
}

impl ServiceContext {
    pub(crate) fn new(
        namespaces: Arc<Namespaces>,
        gate: Arc<StoreGate>,
        metrics: Arc<Metrics>,
        tasks: Tasks,
        draining: CancellationToken,
        guard: Arc<Guard>,
    ) -> Self {
        Self { namespaces, gate, metrics, tasks, draining, guard }
    }

    /// Counts the end of a call, and logs its failure.
    pub(super) fn observe<T>(
        &self,
        kind: RpcKind,
        arrived_at: Instant,
        result: &Result<T, Failure>,
        is_shortage: impl FnOnce(&T) -> bool,
    ) {
        let status = match result {
            Ok(response) if is_shortage(response) => CallStatus::InsufficientStock,
            Ok(_) => CallStatus::Success,
            Err(failure) => failure.call_status(),
        };
        self.metrics.observe(kind, status, arrived_at.elapsed());
        if let Err(failure) = result {
            if failure.reason() == Reason::Internal || failure.reason() == Reason::StoreCorrupt {
                tracing::error!(reason = failure.reason().as_str(), message = failure.message(), "a call failed");
            } else {
                tracing::debug!(reason = failure.reason().as_str(), message = failure.message(), "a call was refused");
            }
        }
    }

    /// Refuses the call while the server drains or the store can't be used.
    pub(super) fn admit(&self) -> Result<(), Failure> {
        if self.draining.is_cancelled() {
            return Err(Failure::new(Reason::Draining));
        }
        Ok(self.gate.check()?)
    }

    /// The namespace, if it is open in this server. Refuses the call like [`Self::admit`].
    pub(super) fn open_namespace(&self, name: &NamespaceName) -> Result<Option<Arc<Namespace>>, Failure> {
        self.admit()?;
        Ok(self.namespaces.opened(name))
    }

    /// The namespace, if it exists. If it is not open in this server, it is loaded from the store.
    pub(super) async fn find_namespace(
        &self,
        name: &NamespaceName,
        deadline: Instant,
    ) -> Result<Option<Arc<Namespace>>, Failure> {
        match self.open_namespace(name)? {
            Some(namespace) => Ok(Some(namespace)),
            None => by_deadline(deadline, self.namespaces.get(name)).await,
        }
    }

    /// Like [`Self::find_namespace`], but uses the result of these lookups if they contain the name.
    pub(super) async fn find_namespace_in(
        &self,
        lookups: &Lookups,
        name: &NamespaceName,
        deadline: Instant,
    ) -> Result<Option<Arc<Namespace>>, Failure> {
        if lookups.has(name) {
            self.admit()?;
            let found = async { lookups.found(name).await.transpose() };
            if let Some(found) = by_deadline(deadline, found).await? {
                return Ok(found);
            }
        }
        self.find_namespace(name, deadline).await
    }

    /// Starts one store read for all of these namespaces that the caller may use and that are not open in this server.
    pub(super) fn start_lookups<'a>(&self, names: impl Iterator<Item = &'a str>, caller: Option<&Caller>) -> Lookups {
        let mut unopened = HashSet::new();
        // Most entries of a batch have the same namespace as the entry before.
        let mut last = None;
        for name in names.filter(|name| last.replace(*name) != Some(*name)) {
            // The decoding of its entry refuses a malformed name.
            if let Ok(name) = NamespaceName::parse(name.to_owned())
                && caller.is_none_or(|caller| caller.allows(&name))
                && self.namespaces.opened(&name).is_none()
            {
                unopened.insert(name);
            }
        }
        if unopened.is_empty() || self.admit().is_err() {
            return Lookups::default();
        }
        self.namespaces.search_all(unopened)
    }

    /// The namespace; NAMESPACE_NOT_FOUND if it does not exist.
    pub(super) async fn namespace(&self, name: &NamespaceName, deadline: Instant) -> Result<Arc<Namespace>, Failure> {
        let found = self.find_namespace(name, deadline).await?;
        found.ok_or_else(|| Failure::new(Reason::NamespaceNotFound).within(name))
    }

    /// The namespace. If it does not exist, it is created, unless `only_existing` is set.
    pub(super) async fn namespace_or_new(
        &self,
        name: &NamespaceName,
        only_existing: bool,
        deadline: Instant,
    ) -> Result<Arc<Namespace>, Failure> {
        self.admit()?;
        by_deadline(deadline, self.namespaces.get_or_create(name, only_existing)).await
    }
}
