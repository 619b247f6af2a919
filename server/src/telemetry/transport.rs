//! The metrics of the ports: connections, aborted calls, bytes that wait for a client. Touches its series only.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The names of the ports, as labels and in the log.
pub(crate) const GRPC: &str = "grpc";
pub(crate) const GRPC_ADMIN: &str = "grpc_admin";
pub(crate) const ADMIN: &str = "admin";

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Closed {
    /// It exceeds the rate of control frames or resets.
    Flood = 1,
    /// Its HTTP/2 handshake is not complete in time.
    Handshake,
    /// A frame or a header block is not complete in time.
    SlowFrame,
    /// It does not read the bytes that the server sends.
    SlowReader,
    /// Too many of its calls were cut because it did not read them.
    Cuts,
    /// A limit of the whole server was reached, and it held the most for the longest time.
    Hoarding,
    /// The port is full, and it was the longest without a call.
    Evicted,
    /// It reached the longest life of a connection of its port.
    Aged,
    /// The certificate of its client is no longer valid.
    Revoked,
}

impl Closed {
    pub(crate) const ALL: [Closed; 9] = [
        Closed::Flood,
        Closed::Handshake,
        Closed::SlowFrame,
        Closed::SlowReader,
        Closed::Cuts,
        Closed::Hoarding,
        Closed::Evicted,
        Closed::Aged,
        Closed::Revoked,
    ];

    /// The label of the metric.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Closed::Flood => "flood",
            Closed::Handshake => "handshake",
            Closed::SlowFrame => "slow_frame",
            Closed::SlowReader => "slow_reader",
            Closed::Cuts => "cuts",
            Closed::Hoarding => "hoarding",
            Closed::Evicted => "evicted",
            Closed::Aged => "aged",
            Closed::Revoked => "revoked",
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|closed| *closed as u8 == code)
    }
}

/// The metrics of one port. Clones share their series.
#[derive(Clone, Debug)]
pub(crate) struct TransportMetrics {
    port: &'static str,
    connections: IntGaugeVec,
    closed: IntCounterVec,
    refused: IntCounterVec,
    accept_failures: IntCounterVec,
    calls_cut: IntCounterVec,
    waiting: IntGaugeVec,
    pauses: IntCounterVec,
    handshakes: IntCounterVec,
}

impl TransportMetrics {
    /// The metrics of the gRPC port, with every series at zero.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            port: GRPC,
            connections: IntGaugeVec::new(
                Opts::new("inventory_sentinel_connections", "Client connections that are open."),
                &["port"],
            )?,
            closed: counters(
                "inventory_sentinel_connections_closed_total",
                "Client connections that this server closed, by reason: too many control frames or resets (flood), no \
                 HTTP/2 handshake in time (handshake), an incomplete frame (slow_frame), no reading (slow_reader), too \
                 many aborted calls (cuts), the largest part of a full budget (hoarding), no free slot (evicted), the \
                 end of its maximum age (aged), a client certificate that is no longer valid (revoked).",
                &["port", "reason"],
            )?,
            refused: counters(
                "inventory_sentinel_connections_refused_total",
                "Client connections that were closed at once because every other connection had a call.",
                &["port"],
            )?,
            accept_failures: counters(
                "inventory_sentinel_accept_failures_total",
                "Attempts to accept a connection that the system refused because of descriptors or memory.",
                &["port"],
            )?,
            calls_cut: counters(
                "inventory_sentinel_calls_cut_total",
                "Aborted calls: because their connection had too many incomplete requests \
                 (too_many_unfinished_requests) or unread bytes (too_much_unread), because the request did not arrive \
                 in full in time (slow_request), or because the response was not read in time (slow_reader).",
                &["reason"],
            )?,
            waiting: IntGaugeVec::new(
                Opts::new(
                    "inventory_sentinel_waiting_bytes",
                    "Bytes of incomplete requests, and of large or streamed responses that are not read.",
                ),
                &["direction"],
            )?,
            pauses: counters(
                "inventory_sentinel_pauses_total",
                "Pauses before a connection is accepted (accept), before an untrusted connection that causes much work \
                 is read (untrusted), before a scrape \
                 (scrape), or before a TLS handshake of the operator's port (admin_handshake).",
                &["reason"],
            )?,
            handshakes: counters(
                "inventory_sentinel_tls_handshakes_total",
                "TLS handshakes, by result. One fails because of a wrong certificate, a wrong protocol, or bytes that \
                 are not TLS.",
                &["port", "result"],
            )?,
        };
        for port in [GRPC, GRPC_ADMIN, ADMIN] {
            metrics.connections.with_label_values(&[port]);
            metrics.refused.with_label_values(&[port]);
            metrics.accept_failures.with_label_values(&[port]);
            for result in ["success", "failure"] {
                metrics.handshakes.with_label_values(&[port, result]);
            }
            for closed in Closed::ALL {
                metrics.closed.with_label_values(&[port, closed.label()]);
            }
        }
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.closed.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.accept_failures.clone()))?;
        registry.register(Box::new(metrics.calls_cut.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.pauses.clone()))?;
        registry.register(Box::new(metrics.handshakes.clone()))?;
        Ok(metrics)
    }

    /// The same for another port.
    pub(crate) fn of_port(&self, port: &'static str) -> Self {
        Self { port, ..self.clone() }
    }

    /// The name of the port.
    pub(crate) fn port(&self) -> &'static str {
        self.port
    }

    /// Changes the number of open connections.
    pub(crate) fn add_connections(&self, connections: i64) {
        self.connections.with_label_values(&[self.port]).add(connections);
    }

    /// Counts a connection that the server closed.
    pub(crate) fn inc_closed(&self, why: Closed) {
        self.closed.with_label_values(&[self.port, why.label()]).inc();
    }

    /// Counts a connection that was refused because the port was full.
    pub(crate) fn inc_refused(&self) {
        self.refused.with_label_values(&[self.port]).inc();
    }

    /// Counts a TLS handshake.
    pub(crate) fn inc_handshake(&self, is_success: bool) {
        let result = if is_success { "success" } else { "failure" };
        self.handshakes.with_label_values(&[self.port, result]).inc();
    }

    /// Counts a failed accept.
    pub(crate) fn inc_accept_failure(&self) {
        self.accept_failures.with_label_values(&[self.port]).inc();
    }

    /// The counter of calls that are aborted for this reason.
    pub(crate) fn calls_cut(&self, reason: &str) -> IntCounter {
        self.calls_cut.with_label_values(&[reason])
    }

    /// The counter of pauses for this reason.
    pub(crate) fn pauses(&self, reason: &str) -> IntCounter {
        self.pauses.with_label_values(&[reason])
    }

    /// The gauge of waiting bytes in this direction.
    pub(crate) fn waiting(&self, direction: &str) -> IntGauge {
        self.waiting.with_label_values(&[direction])
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}
