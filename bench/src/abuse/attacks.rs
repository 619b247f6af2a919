//! The list of attacks, each against one bound of the server. An attack uses what [`Attacker`] offers and nothing
//! else of the machine.
//!
//! # Layout
//! - `bodies`: messages that are promised, unfinished, slow or larger once they are decoded.
//! - `floods`: frames and header blocks without end.
//! - `idle`: connections and streams that do nothing, and many connections at once.
//! - `answers`: answers and events that nobody reads.
//! - `access`: credentials that nobody issued.
//! - `admin`: the operator's port.
//! - `patient`: an honest client whose deadlines pass.
//! - `tls`: handshakes without end, and records without bytes.

use std::{future::Future, pin::Pin, sync::Arc};

use anyhow::Result;

use super::attacker::Attacker;

mod access;
mod admin;
mod answers;
mod bodies;
mod floods;
mod idle;
mod patient;
mod tls;

type Run = fn(Arc<Attacker>) -> Pin<Box<dyn Future<Output = Result<()>>>>;

/// One attack.
#[derive(Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) run: Run,
    /// How long it lasts in the full form, in seconds.
    pub(super) seconds: u64,
    /// Whether the short form has it.
    pub(super) is_in_short: bool,
    /// SKUs of the namespace.
    pub(super) skus: usize,
    /// Events of the namespace before the attack.
    pub(super) events: usize,
    /// Whether the honest caller follows events too.
    pub(super) watches: bool,
    /// The limit of open files of the server; `None`: the highest.
    pub(super) descriptors: Option<u32>,
    /// Most CPU seconds per second that the server may use.
    pub(super) most_cpu: Option<f64>,
    /// Whether the latency of the honest caller is judged.
    pub(super) judges_latency: bool,
    /// Whether it attacks the TLS of the server.
    pub(super) needs_tls: bool,
    /// Whether the server has a policy: the honest caller has a token, and the attackers have none.
    pub(super) has_policy: bool,
}

/// Length of an attack unless it has a separate length, in seconds.
const SECONDS: u64 = 8;
/// Length of an attack whose bound is a time-out of the server, in seconds.
const SLOW_SECONDS: u64 = 30;
/// SKUs of the namespace, and of one with long lists.
const SKUS: usize = 16;
const MANY_SKUS: usize = 2_000;
/// Events before an attack by watchers.
const EVENTS: usize = 50_000;
/// Open files of a server that has few.
const FEW_DESCRIPTORS: u32 = 64;
/// CPU seconds per second of a server that can't accept.
const LITTLE_CPU: f64 = 0.5;

impl Attack {
    const fn new(name: &'static str, run: Run) -> Self {
        Self {
            name,
            run,
            seconds: SECONDS,
            is_in_short: false,
            skus: SKUS,
            events: 0,
            watches: false,
            descriptors: None,
            most_cpu: None,
            judges_latency: true,
            needs_tls: false,
            has_policy: false,
        }
    }

    const fn in_short(mut self) -> Self {
        self.is_in_short = true;
        self
    }

    const fn slow(mut self) -> Self {
        self.seconds = SLOW_SECONDS;
        self
    }

    const fn with_lists(mut self) -> Self {
        self.skus = MANY_SKUS;
        self
    }

    const fn with_events(mut self) -> Self {
        self.events = EVENTS;
        self.watches = true;
        self
    }

    const fn with_few_descriptors(mut self) -> Self {
        self.descriptors = Some(FEW_DESCRIPTORS);
        self.most_cpu = Some(LITTLE_CPU);
        self
    }

    const fn on_tls(mut self) -> Self {
        self.needs_tls = true;
        self
    }

    const fn with_policy(mut self) -> Self {
        self.has_policy = true;
        self
    }

    const fn without_latency(mut self) -> Self {
        self.judges_latency = false;
        self
    }
}

/// All attacks, in the order in which they run.
pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("promised-lengths", |a| Box::pin(bodies::promised(a))).in_short(),
    Attack::new("promised-lengths-over-limit", |a| Box::pin(bodies::promised_over_limit(a))),
    Attack::new("promised-lengths-many", |a| Box::pin(bodies::promised_by_many(a))).in_short(),
    Attack::new("refused-calls", |a| Box::pin(bodies::refused(a))).in_short(),
    Attack::new("gzip-bombs", |a| Box::pin(bodies::gzip_bombs(a))).in_short(),
    Attack::new("unended-reserve", |a| Box::pin(bodies::unended(a, bodies::RESERVE))).in_short(),
    Attack::new("unended-batch", |a| Box::pin(bodies::unended(a, bodies::BATCH))),
    Attack::new("full-windows", |a| Box::pin(bodies::full_windows(a))).in_short(),
    Attack::new("slow-body", |a| Box::pin(bodies::slow(a))).slow(),
    Attack::new("empty-operations-1mib", |a| Box::pin(bodies::empty_operations(a, bodies::MIB))).in_short(),
    Attack::new("empty-operations-4mib", |a| Box::pin(bodies::empty_operations(a, 4 * bodies::MIB))),
    Attack::new("empty-lines", |a| Box::pin(bodies::empty_lines(a))).in_short(),
    Attack::new("unknown-fields", |a| Box::pin(bodies::unknown_fields(a))),
    Attack::new("nested-fields", |a| Box::pin(bodies::nested_fields(a))),
    Attack::new("rapid-reset-headers", |a| Box::pin(floods::rapid_reset(a, floods::Reset::Headers))),
    Attack::new("rapid-reset-bodies", |a| Box::pin(floods::rapid_reset(a, floods::Reset::Bodies))),
    Attack::new("rapid-reset-calls", |a| Box::pin(floods::rapid_reset(a, floods::Reset::Calls))).in_short(),
    Attack::new("rapid-reset-reconnects", |a| Box::pin(floods::rapid_reset_reconnects(a))),
    Attack::new("continuation", |a| Box::pin(floods::continuation(a, floods::WHOLE_FRAME))).in_short(),
    Attack::new("continuation-empty", |a| Box::pin(floods::continuation(a, 0))),
    Attack::new("hpack-bomb", |a| Box::pin(floods::hpack_bomb(a))).in_short(),
    Attack::new("ping-flood", |a| Box::pin(floods::flood(a, floods::Flood::Ping))).in_short(),
    Attack::new("settings-flood", |a| Box::pin(floods::flood(a, floods::Flood::Settings))).in_short(),
    Attack::new("window-toggle", |a| Box::pin(floods::window_toggle(a))).in_short(),
    Attack::new("window-update-flood", |a| Box::pin(floods::flood(a, floods::Flood::WindowUpdate))),
    Attack::new("priority-flood", |a| Box::pin(floods::flood(a, floods::Flood::Priority))),
    Attack::new("empty-data-flood", |a| Box::pin(floods::flood(a, floods::Flood::EmptyData))),
    Attack::new("unknown-frame-flood", |a| Box::pin(floods::flood(a, floods::Flood::Unknown))),
    Attack::new("slow-header", |a| Box::pin(idle::slow_header(a))).slow(),
    Attack::new("unfinished-header", |a| Box::pin(idle::unfinished_header(a))).slow(),
    Attack::new("idle-streams", |a| Box::pin(idle::streams(a))).in_short(),
    Attack::new("health-watches", |a| Box::pin(idle::health_watches(a))),
    Attack::new("reflection-streams", |a| Box::pin(idle::reflection(a))),
    Attack::new("idle-connections", |a| Box::pin(idle::connections(a, idle::Hello::Nothing))).slow().in_short(),
    Attack::new("preface-only", |a| Box::pin(idle::connections(a, idle::Hello::Preface))).slow(),
    Attack::new("half-preface", |a| Box::pin(idle::connections(a, idle::Hello::HalfPreface))).slow(),
    Attack::new("connects", |a| Box::pin(idle::connects(a))).in_short(),
    Attack::new("few-descriptors", |a| Box::pin(idle::descriptors(a))).with_few_descriptors().in_short(),
    Attack::new("unread-lists", |a| Box::pin(answers::unread_lists(a))).with_lists().in_short(),
    Attack::new("slow-reader", |a| Box::pin(answers::slow_reader(a))).with_lists().slow(),
    Attack::new("stalled-watchers-8", |a| Box::pin(answers::stalled_watchers(a, 8))).with_events(),
    Attack::new("stalled-watchers-2000", |a| Box::pin(answers::stalled_watchers(a, 2_000))).with_events().in_short(),
    Attack::new("admin-pipelined", |a| Box::pin(admin::pipelined(a))).in_short(),
    Attack::new("admin-idle", |a| Box::pin(admin::idle(a))).slow(),
    Attack::new("tls-silent", |a| Box::pin(tls::connections(a, tls::Hello::Nothing))).on_tls().slow().in_short(),
    Attack::new("tls-half-hello", |a| Box::pin(tls::connections(a, tls::Hello::Half))).on_tls().slow().in_short(),
    Attack::new("tls-hello-only", |a| Box::pin(tls::connections(a, tls::Hello::Whole))).on_tls().slow(),
    Attack::new("tls-garbage", |a| Box::pin(tls::garbage(a))).on_tls().in_short(),
    Attack::new("tls-handshakes", |a| Box::pin(tls::handshakes(a))).on_tls().in_short(),
    Attack::new("tls-hellos", |a| Box::pin(tls::hellos(a))).on_tls().in_short(),
    Attack::new("tls-tiny-records", |a| Box::pin(tls::tiny_records(a))).on_tls().in_short(),
    Attack::new("tls-admin-silent", |a| Box::pin(tls::admin(a))).on_tls().slow(),
    Attack::new("forged-tokens", |a| Box::pin(access::forged(a, access::Forged::Token))).with_policy().in_short(),
    Attack::new("forged-jwts", |a| Box::pin(access::forged(a, access::Forged::Jwt))).with_policy().in_short(),
    Attack::new("forged-jwts-long", |a| Box::pin(access::forged(a, access::Forged::LongJwt))).with_policy(),
    Attack::new("anonymous-unended", |a| Box::pin(bodies::unended(a, bodies::BATCH))).with_policy().in_short(),
    Attack::new("anonymous-watches", |a| Box::pin(idle::health_watches(a))).with_policy(),
    Attack::new("passed-deadlines", |a| Box::pin(patient::passed_deadlines(a))).without_latency().in_short(),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_used_once() {
        let names: BTreeSet<_> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
    }
}
