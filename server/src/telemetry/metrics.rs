//! Counters, gauges and histograms of one server, in one registry, written in the Prometheus text format. Every label
//! has a fixed set of values: no SKU, namespace or buyer is a label.

use std::time::Duration;

use super::{access::AccessMetrics, transport::TransportMetrics};
use crate::domain::ClockOffsets;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Seconds. A single call takes a few hundred microseconds; a call during a failover takes seconds.
const DURATION_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_35, 0.000_5, 0.000_75, 0.001, 0.001_5, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Operations; a batch has at most 512.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 384.0, 512.0];

/// Every kind of store error: the label of `inventory_sentinel_store_errors_total`.
pub(crate) const STORE_ERROR_KINDS: &[&str] =
    &["not_applied", "unknown", "full", "corrupt", "newer", "denied", "foreign", "busy", "no_script", "closed"];

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub(crate) const ALL: &[$name] = &[$($name::$variant,)+];

            pub(crate) const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// The RPCs; those of `InventoryAdmin` from SetStock on.
    RpcKind {
        Reserve = "reserve",
        Commit = "commit",
        Rollback = "rollback",
        Extend = "extend",
        GetReservation = "get_reservation",
        GetStock = "get_stock",
        BatchGetStock = "batch_get_stock",
        Batch = "batch",
        IsProtected = "is_protected",
        SetStock = "set_stock",
        AdjustStock = "adjust_stock",
        ConfigureSku = "configure_sku",
        GetSku = "get_sku",
        DeleteSku = "delete_sku",
        ConfigureNamespace = "configure_namespace",
        DeleteNamespace = "delete_namespace",
        GetNamespace = "get_namespace",
        ListNamespaces = "list_namespaces",
        ListStock = "list_stock",
        ListReservations = "list_reservations",
        /// One message of the stream.
        ImportStock = "import_stock",
        SetProtection = "set_protection",
        Audit = "audit",
        SettlePartition = "settle_partition",
        GetServerInfo = "get_server_info",
    }
}

impl RpcKind {
    /// Whether it is an RPC of operators that changes something.
    pub(crate) const fn is_change_of_operator(self) -> bool {
        matches!(
            self,
            RpcKind::SetStock
                | RpcKind::AdjustStock
                | RpcKind::ConfigureSku
                | RpcKind::DeleteSku
                | RpcKind::ConfigureNamespace
                | RpcKind::DeleteNamespace
                | RpcKind::SetProtection
                | RpcKind::SettlePartition
        )
    }

    /// Whether it is an RPC of operators.
    pub(crate) const fn is_of_operator(self) -> bool {
        self as usize >= RpcKind::SetStock as usize
    }
}

labels! {
    /// The result of a call.
    CallStatus {
        /// It succeeded, now or when it was first sent.
        Success = "success",
        /// The stock did not suffice for the reservation.
        InsufficientStock = "insufficient_stock",
        /// The request is invalid.
        Invalid = "invalid",
        /// A rule refused the valid request.
        Refused = "refused",
        /// The store or this server is unavailable.
        Unavailable = "unavailable",
    }
}

labels! {
    /// The kinds of tasks that a server runs.
    Task {
        /// Sends the batches of a lane.
        LaneWorker = "lane_worker",
        /// Reads the events of a watched namespace.
        FeedReader = "feed_reader",
        /// Reads events for one stream that is behind the reader.
        CatchUp = "catch_up",
        /// Applies one message of an ImportStock.
        Import = "import",
        /// Searches the store for namespaces.
        NamespaceSearch = "namespace_search",
        Sweeper = "sweeper",
        /// Checks whether the store can be used.
        StoreProbe = "store_probe",
        /// Writes the state folder.
        WitnessFile = "witness_file",
        AdminPort = "admin_port",
        /// Reads changed certificates, keys and policies.
        Reload = "reload",
        /// Supervises the child process.
        EmbeddedRedis = "embedded_redis",
        /// Completes a change of an operator, also if its caller disconnects.
        OperatorChange = "operator_change",
        /// Handles one call.
        Call = "call",
        /// Sends the messages of one stream.
        Stream = "stream",
    }
}

/// The metrics of one server. Handles are resolved once: a call needs no lookup of a series.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: [[IntCounter; CallStatus::ALL.len()]; COUNTED.len()],
    durations: [Histogram; RpcKind::ALL.len()],
    batch_operations: Histogram,
    lane_queue: IntGauge,
    expired: IntCounter,
    shed: IntCounter,
    store_errors: IntCounterVec,
    clock_steps: IntCounter,
    clock_offset: Gauge,
    time_of_day_offset: Gauge,
    history_losses: IntCounter,
    fenced: IntGauge,
    watches: IntGauge,
    cut_off: IntCounter,
    transport: TransportMetrics,
    access: AccessMetrics,
    sweep_failures: IntCounter,
    resumed_deletions: IntCounter,
    bad_names: IntGauge,
    task_panics: IntCounterVec,
    task_restarts: IntCounterVec,
}

/// The RPCs with a counter each, in the order of [`RpcKind`].
const COUNTED: [RpcKind; 3] = [RpcKind::Reserve, RpcKind::Commit, RpcKind::Rollback];

impl Metrics {
    /// All series at zero.
    pub(crate) fn new() -> Metrics {
        Metrics::try_new().expect("names and labels are constants that fit together")
    }

    fn try_new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();

        let mut counted = Vec::with_capacity(COUNTED.len());
        for operation in COUNTED {
            let label = operation.label();
            let calls = IntCounterVec::new(
                Opts::new(format!("inventory_sentinel_{label}_total"), format!("Calls to {label}, by result.")),
                &["status"],
            )?;
            registry.register(Box::new(calls.clone()))?;
            counted.push(calls);
        }

        let durations = HistogramVec::new(
            HistogramOpts::new(
                "inventory_sentinel_operation_duration_seconds",
                "Time from a call's arrival to its answer, in seconds.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["operation"],
        )?;
        registry.register(Box::new(durations.clone()))?;

        let batch_operations = Histogram::with_opts(
            HistogramOpts::new("inventory_sentinel_batch_operations", "Operations that shared one script call.")
                .buckets(BATCH_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(batch_operations.clone()))?;

        let store_errors = IntCounterVec::new(
            Opts::new("inventory_sentinel_store_errors_total", "Failed script calls, by their possible effect."),
            &["kind"],
        )?;
        for kind in STORE_ERROR_KINDS {
            store_errors.with_label_values(&[kind]);
        }
        registry.register(Box::new(store_errors.clone()))?;

        let by_task = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            let tasks = IntCounterVec::new(Opts::new(name, help), &["task"])?;
            for task in Task::ALL {
                tasks.with_label_values(&[task.label()]);
            }
            registry.register(Box::new(tasks.clone()))?;
            Ok(tasks)
        };
        let task_panics = by_task("inventory_sentinel_task_panics_total", "Tasks that panicked: defects, by task.")?;
        let task_restarts = by_task(
            "inventory_sentinel_task_restarts_total",
            "Tasks that were started again because they ended, by task.",
        )?;

        let build = IntGaugeVec::new(
            Opts::new("inventory_sentinel_build_info", "Always 1; the label names the version."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;

        let lane_queue = IntGauge::new(
            "inventory_sentinel_lane_queue_operations",
            "Operations that wait in the lanes for their batch.",
        )?;
        registry.register(Box::new(lane_queue.clone()))?;

        let watches = IntGauge::new("inventory_sentinel_watches", "Streams that watch a namespace.")?;
        registry.register(Box::new(watches.clone()))?;

        let bad_names = IntGauge::new(
            "inventory_sentinel_bad_namespace_names",
            "Invalid entries of the list of namespaces, which are ignored.",
        )?;
        registry.register(Box::new(bad_names.clone()))?;

        let fenced = IntGauge::new(
            "inventory_sentinel_fenced_partitions",
            "Partitions that lost changes and are not settled. Counts only losses that this server has detected.",
        )?;
        registry.register(Box::new(fenced.clone()))?;

        let gauge = |name: &str, help: &str| -> prometheus::Result<Gauge> {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let transport = TransportMetrics::new(&registry)?;
        let access = AccessMetrics::new(&registry)?;
        Ok(Metrics {
            transport,
            access,
            calls: COUNTED.map(|operation| {
                let calls = &counted[operation as usize];
                std::array::from_fn(|status| calls.with_label_values(&[CallStatus::ALL[status].label()]))
            }),
            durations: std::array::from_fn(|operation| durations.with_label_values(&[RpcKind::ALL[operation].label()])),
            batch_operations,
            lane_queue,
            expired: counter("inventory_sentinel_expired_total", "Holds that expired at their deadline.")?,
            shed: counter("inventory_sentinel_shed_total", "Operations refused because too many waited.")?,
            store_errors,
            clock_steps: counter(
                "inventory_sentinel_clock_steps_total",
                "Steps of 1 s or more of the store's clock that this server has detected, one per partition.",
            )?,
            clock_offset: gauge(
                "inventory_sentinel_clock_offset_seconds",
                "The largest difference of an open partition: its clock minus the store's clock.",
            )?,
            time_of_day_offset: gauge(
                "inventory_sentinel_time_of_day_offset_seconds",
                "The largest difference of an open partition: its time of day minus the store's clock.",
            )?,
            history_losses: counter(
                "inventory_sentinel_history_losses_total",
                "Losses of acknowledged changes that this server has detected in its store, one per partition.",
            )?,
            fenced,
            watches,
            cut_off: counter(
                "inventory_sentinel_watches_cut_off_total",
                "Streams ended because they were not read fast enough.",
            )?,
            sweep_failures: counter(
                "inventory_sentinel_sweep_failures_total",
                "Failed attempts of the sweeper to sweep a partition or to open a namespace.",
            )?,
            resumed_deletions: counter(
                "inventory_sentinel_resumed_deletions_total",
                "Abandoned deletions of namespaces that this server has completed or reversed.",
            )?,
            bad_names,
            task_panics,
            task_restarts,
            registry,
        })
    }

    /// Counts a call and its duration.
    pub(crate) fn observe(&self, operation: RpcKind, status: CallStatus, duration: Duration) {
        if let Some(calls) = self.calls.get(operation as usize) {
            calls[status as usize].inc();
        }
        self.durations[operation as usize].observe(duration.as_secs_f64());
    }

    /// Counts a batch of this size.
    pub(crate) fn observe_batch(&self, operations: usize) {
        self.batch_operations.observe(operations as f64);
    }

    /// Changes the number of operations that wait in the lanes.
    pub(crate) fn add_queued(&self, operations: i64) {
        self.lane_queue.add(operations);
    }

    /// Counts expired holds.
    pub(crate) fn add_expired(&self, holds: u64) {
        self.expired.inc_by(holds);
    }

    /// Changes the number of streams.
    pub(crate) fn add_watches(&self, streams: i64) {
        self.watches.add(streams);
    }

    /// Counts a stream that was ended because its client read too slowly.
    pub(crate) fn inc_cut_off(&self) {
        self.cut_off.inc();
    }

    /// Sets the number of invalid entries in the list of namespaces.
    pub(crate) fn set_bad_names(&self, entries: usize) {
        self.bad_names.set(entries as i64);
    }

    /// Counts an operation that was refused because the queue was full.
    pub(crate) fn inc_shed(&self) {
        self.shed.inc();
    }

    /// Counts a failed script call; the kind is one of [`STORE_ERROR_KINDS`].
    pub(crate) fn inc_store_error(&self, kind: &'static str) {
        self.store_errors.with_label_values(&[kind]).inc();
    }

    /// Counts a step of the store's clock.
    pub(crate) fn inc_clock_step(&self) {
        self.clock_steps.inc();
    }

    /// Sets the offsets of the partitions' clocks from the store's clock.
    pub(crate) fn set_clock_offsets(&self, offsets: ClockOffsets) {
        self.clock_offset.set(offsets.clock as f64 / 1_000.0);
        self.time_of_day_offset.set(offsets.time_of_day as f64 / 1_000.0);
    }

    /// Counts a partition that lost acknowledged changes.
    pub(crate) fn inc_history_losses(&self) {
        self.history_losses.inc();
    }

    /// Changes the number of fenced partitions.
    pub(crate) fn add_fenced(&self, partitions: i64) {
        self.fenced.add(partitions);
    }

    /// The metrics of the gRPC port.
    pub(crate) fn access(&self) -> AccessMetrics {
        self.access.clone()
    }

    pub(crate) fn transport(&self) -> TransportMetrics {
        self.transport.clone()
    }

    /// Counts a deletion that this server completed or abandoned for another caller.
    pub(crate) fn inc_resumed_deletion(&self) {
        self.resumed_deletions.inc();
    }

    /// Counts a failed attempt to sweep a partition, or to open a namespace.
    pub(crate) fn inc_sweep_failure(&self) {
        self.sweep_failures.inc();
    }

    /// Counts a panic of a task.
    pub(crate) fn inc_task_panic(&self, task: Task) {
        self.task_panics.with_label_values(&[task.label()]).inc();
    }

    /// Counts a restart of a task.
    pub(crate) fn inc_task_restart(&self, task: Task) {
        self.task_restarts.with_label_values(&[task.label()]).inc();
    }

    /// Everything, in the Prometheus text format.
    pub(crate) fn encode(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("a String takes every write, and every metric has a sample")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = Metrics::new().encode();
        for operation in ["reserve", "commit", "rollback"] {
            for status in ["success", "insufficient_stock", "invalid", "refused", "unavailable"] {
                let series = format!("inventory_sentinel_{operation}_total{{status=\"{status}\"}} 0\n");
                assert!(text.contains(&series), "no {series} in {text}");
            }
        }
        for operation in RpcKind::ALL {
            let label = operation.label();
            assert!(text.contains(&format!(
                "inventory_sentinel_operation_duration_seconds_bucket{{operation=\"{label}\",le=\"0.00005\"}} 0\n"
            )));
        }
        assert!(text.contains("inventory_sentinel_store_errors_total{kind=\"unknown\"} 0\n"));
        assert!(text.contains(concat!(
            "inventory_sentinel_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1\n"
        )));
    }

    #[test]
    fn a_call_is_counted_under_its_name_and_servers_share_nothing() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.observe(RpcKind::Rollback, CallStatus::Refused, Duration::from_micros(300));
        one.observe(RpcKind::Audit, CallStatus::Success, Duration::from_secs(20));
        let text = one.encode();
        assert!(text.contains("inventory_sentinel_rollback_total{status=\"refused\"} 1\n"));
        assert!(text.contains("inventory_sentinel_operation_duration_seconds_count{operation=\"rollback\"} 1\n"));
        assert!(
            text.contains("inventory_sentinel_operation_duration_seconds_bucket{operation=\"audit\",le=\"10\"} 0\n")
        );
        assert!(other.encode().contains("inventory_sentinel_rollback_total{status=\"refused\"} 0\n"));
    }
}
