//! The pools of connections to Redis, one for each kind of work, so that no kind takes the connections of another.
//! Opens no connection itself.

use std::sync::Arc;

use super::RunError;
use crate::{
    config::{Config, RedisUrl},
    control::watch::{Hub, WatchLimits},
    lane::{LaneContext, LaneLimits},
    namespaces::{Namespaces, NewNamespaces},
    random::Random,
    store::{
        Store,
        error::StoreError,
        pool::{Handout, Limits, Pool},
    },
    tasks::Tasks,
    telemetry::metrics::Metrics,
    witness::Witnesses,
};

pub(super) struct Stores {
    /// For the batches of the lanes.
    checkout: Arc<Store>,
    /// For the control of namespaces.
    pub(super) control: Arc<Store>,
    /// For lists and audits.
    pub(super) lists: Arc<Store>,
    /// For watches.
    pub(super) hub: Arc<Hub>,
}

impl Stores {
    pub(super) fn open(
        url: &RedisUrl,
        config: &Config,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Self, RunError> {
        let unusable = |error: StoreError| RunError::Store(error.to_string());
        let limits = Limits::from(config);
        let pool = Pool::new(url, limits).map_err(unusable)?;
        let store =
            |limits, handout| pool.sibling(limits, handout).map(|pool| Arc::new(Store::new(pool))).map_err(unusable);
        let watches = WatchLimits::from(config);
        Ok(Self {
            checkout: store(limits, Handout::Unchecked)?,
            control: store(limits.control(), Handout::Checked)?,
            lists: store(limits.lists(config), Handout::Checked)?,
            hub: Arc::new(Hub::new(&pool, limits, watches, Arc::clone(metrics), tasks.clone()).map_err(unusable)?),
        })
    }

    /// The namespaces of a server with these stores.
    pub(super) fn namespaces(
        &self,
        config: &Config,
        metrics: &Arc<Metrics>,
        witnesses: &Arc<Witnesses>,
        tasks: &Tasks,
    ) -> Arc<Namespaces> {
        let limits = LaneLimits {
            queue: config.queue_limit,
            batch: config.batch_max_operations,
            in_flight: config.batches_in_flight,
            resend_for: config.resend_for,
        };
        let lanes = LaneContext {
            limits,
            store: Arc::clone(&self.checkout),
            metrics: Arc::clone(metrics),
            tasks: tasks.clone(),
            random: Random::System,
        };
        let new = NewNamespaces::from(config);
        Arc::new(Namespaces::new(Arc::clone(&self.control), lanes, new, Arc::clone(witnesses)))
    }
}
