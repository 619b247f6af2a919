//! The services: proto to domain and back, and nothing else. Each call is parsed here, carried by a
//! lane, and answered here.
//!
//! - [`checkout`][]: `InventorySentinel`.
//! - [`ask`][]: what its requests ask of a lane; [`batch`][]: many of its operations in one call.
//! - [`admin`][]: `InventoryAdmin`; [`lists`][]: its lists; [`bulk`][]: many SKUs in a call; [`settle`][]: partitions
//!   that lost changes.
//! - [`watch`][]: the streams, `InventoryEvents` among them; [`token`][]: their resume tokens.
//! - [`convert`][], [`events`][]: domain values as messages.
//! - [`rules`][]: the rules of a SKU, both ways.
//! - [`settings`][]: the settings of a namespace, both ways.
//! - [`trail`][]: the log of what operators change.
//! - [`status`][]: refusals as `Status`; the only place that knows gRPC codes.

use std::{collections::HashSet, future::Future, sync::Arc, time::Duration};

use http::HeaderName;
use inventory_sentinel::Reason;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, metadata::MetadataMap};

pub(crate) mod admin;
mod ask;
mod batch;
mod bulk;
pub(crate) mod checkout;
mod convert;
mod events;
mod lists;
mod rules;
mod settings;
mod settle;
mod status;
mod token;
pub(crate) mod trail;
pub(crate) mod watch;

use self::status::Failure;
use crate::{
    domain::{Answer, NamespaceName, Operation, Outcome, Refusal, RequestId, ReservationId},
    health::StoreGate,
    lane::{Lane, Pending},
    namespaces::{Lookups, Namespace, Namespaces},
    store::error::StoreError,
    tasks::Tasks,
    telemetry::metrics::{CallStatus, Metrics, Operation as Measured},
};

/// Longest that a call without a deadline waits for its answer.
const LONGEST_CALL: Duration = Duration::from_secs(60);
/// How much earlier than the caller's deadline we answer at most, and a tenth of his time-out at that, so
/// that the answer is ours and says why: the transport's own time-out says nothing.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// How long the caller waits.
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How often gRPC has sent the call before; absent from the first attempt.
static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// Which attempt of Envoy's this is, from 1.
static ATTEMPT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// What every call needs: shared by the services.
#[derive(Clone)]
pub(crate) struct Desk {
    namespaces: Arc<Namespaces>,
    gate: Arc<StoreGate>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    draining: CancellationToken,
}

impl Desk {
    pub(crate) fn new(
        namespaces: Arc<Namespaces>,
        gate: Arc<StoreGate>,
        metrics: Arc<Metrics>,
        tasks: Tasks,
        draining: CancellationToken,
    ) -> Self {
        Self { namespaces, gate, metrics, tasks, draining }
    }

    /// Runs a call's handler and counts how it ended. Where it is hot, the handler is given pinned: by value it would be
    /// copied at every step.
    async fn answer<T>(
        &self,
        operation: Measured,
        handler: impl Future<Output = Result<T, Failure>>,
        short: impl FnOnce(&T) -> bool,
    ) -> Result<Response<T>, Status> {
        let start = Instant::now();
        let result = handler.await;
        self.note(operation, start, &result, short);
        Ok(Response::new(result?))
    }

    /// Counts how a call that began then has ended.
    fn note<T>(
        &self,
        operation: Measured,
        start: Instant,
        result: &Result<T, Failure>,
        short: impl FnOnce(&T) -> bool,
    ) {
        let status = match result {
            Ok(message) if short(message) => CallStatus::InsufficientStock,
            Ok(_) => CallStatus::Success,
            Err(failure) => failure.call_status(),
        };
        self.metrics.observe(operation, status, start.elapsed());
        if let Err(failure) = result {
            if failure.reason() == Reason::Internal || failure.reason() == Reason::StoreCorrupt {
                tracing::error!(reason = failure.reason().as_str(), message = failure.message(), "a call failed");
            } else {
                tracing::debug!(reason = failure.reason().as_str(), message = failure.message(), "a call was refused");
            }
        }
    }

    /// Whether calls may pass at all.
    fn admit(&self) -> Result<(), Failure> {
        if self.draining.is_cancelled() {
            return Err(Failure::new(Reason::Draining));
        }
        Ok(self.gate.check()?)
    }

    /// The namespace, if it is open here.
    fn opened(&self, name: &NamespaceName) -> Result<Option<Arc<Namespace>>, Failure> {
        self.admit()?;
        Ok(self.namespaces.opened(name))
    }

    async fn namespace(&self, name: &NamespaceName, deadline: Instant) -> Result<Option<Arc<Namespace>>, Failure> {
        match self.opened(name)? {
            Some(namespace) => Ok(Some(namespace)),
            None => in_time(deadline, self.namespaces.get(name)).await,
        }
    }

    /// The namespace, from these look-ups where they have it.
    async fn namespace_in(
        &self,
        lookups: &Lookups,
        name: &NamespaceName,
        deadline: Instant,
    ) -> Result<Option<Arc<Namespace>>, Failure> {
        if lookups.has(name) {
            self.admit()?;
            let found = async { lookups.found(name).await.transpose() };
            if let Some(found) = in_time(deadline, found).await? {
                return Ok(found);
            }
        }
        self.namespace(name, deadline).await
    }

    /// Starts to look up those of these namespaces that are not open here, with one read of the store.
    fn look_up_all<'a>(&self, names: impl Iterator<Item = &'a str>) -> Lookups {
        let mut unopened = HashSet::new();
        let mut last = None;
        for name in names.filter(|name| last.replace(*name) != Some(*name)) {
            // A name that is malformed is refused with its entry.
            if let Ok(name) = NamespaceName::parse(name.to_owned())
                && self.namespaces.opened(&name).is_none()
            {
                unopened.insert(name);
            }
        }
        if unopened.is_empty() || self.admit().is_err() {
            return Lookups::default();
        }
        self.namespaces.look_up_all(unopened)
    }

    /// The namespace, which there must be.
    async fn namespace_known(&self, name: &NamespaceName, deadline: Instant) -> Result<Arc<Namespace>, Failure> {
        let found = self.namespace(name, deadline).await?;
        found.ok_or_else(|| Failure::new(Reason::NamespaceNotFound).within(name))
    }

    /// The namespace, made if there is none and it may be made.
    async fn namespace_made(
        &self,
        name: &NamespaceName,
        only_existing: bool,
        deadline: Instant,
    ) -> Result<Arc<Namespace>, Failure> {
        self.admit()?;
        match tokio::time::timeout_at(deadline, self.namespaces.get_or_make(name, only_existing)).await {
            Ok(made) => Ok(made?),
            Err(_) => Err(Failure::new(Reason::DeadlineExceeded)),
        }
    }
}

/// Finding a namespace, until the caller's deadline at most: nothing of his call is sent before.
async fn in_time<T>(deadline: Instant, found: impl Future<Output = Result<T, StoreError>>) -> Result<T, Failure> {
    match tokio::time::timeout_at(deadline, found).await {
        Ok(found) => Ok(found?),
        Err(_) => Err(Failure::new(Reason::DeadlineExceeded)),
    }
}

/// Carries an operation through its lane; returns what came of it and the sequence.
async fn carry(lane: &Lane, operation: Operation, deadline: Instant) -> Result<(Outcome, i64), Failure> {
    hear(lane.submit(operation, deadline)?).await
}

/// Waits for what comes of an operation, and for the sequence.
async fn hear(pending: Pending) -> Result<(Outcome, i64), Failure> {
    let Answer { outcome, sequence } = pending.wait().await?;
    Ok((outcome?, sequence as i64))
}

/// The lane of a reservation. An id that names no partition of ours was not made here.
fn lane_of(namespace: &Namespace, id: ReservationId) -> Result<&Lane, Failure> {
    lane_in(namespace, id.partition)
}

fn lane_in(namespace: &Namespace, partition: u16) -> Result<&Lane, Failure> {
    namespace.lane(partition).ok_or_else(|| Refusal::ReservationNotFound.into())
}

/// Refuses an identity that the store may have forgotten when its call came.
fn check_age(namespace: &Namespace, lane: &Lane, request: &RequestId, came: Instant) -> Result<(), Failure> {
    Ok(request.check_age(lane.time_of_day(came), namespace.config.retention)?)
}

/// Whether the call was sent before on the caller's behalf, by gRPC itself or by a proxy that counts its attempts:
/// then nothing in it is a first attempt.
fn is_repeated(metadata: &MetadataMap) -> bool {
    let headers = metadata.as_ref();
    headers.contains_key(&PREVIOUS_ATTEMPTS) || headers.get(&ATTEMPT).is_some_and(|attempt| attempt != "1")
}

/// When the caller of a call that has just come stops waiting.
fn deadline(metadata: &MetadataMap) -> Instant {
    deadline_after(Instant::now(), metadata)
}

/// When the caller of a call that came then stops waiting, from the `grpc-timeout` header.
fn deadline_after(came: Instant, metadata: &MetadataMap) -> Instant {
    let timeout = metadata.as_ref().get(&TIMEOUT).and_then(|value| parse_timeout(value.to_str().ok()?));
    deadline_in(came, timeout.unwrap_or(LONGEST_CALL))
}

/// When we answer one who came then and waits for so long.
fn deadline_in(came: Instant, timeout: Duration) -> Instant {
    let margin = ANSWER_MARGIN.min(timeout / 10);
    came + timeout.saturating_sub(margin).min(LONGEST_CALL)
}

/// At most eight digits and a unit, as the gRPC protocol has it.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// A refusal of a call that no service has seen.
pub(crate) fn refusal(reason: Reason) -> Status {
    Failure::new(reason).into()
}

/// The same, with what is known beyond the reason's meaning.
pub(crate) fn refusal_because(reason: Reason, why: &str) -> Status {
    Failure::new(reason).because(why).into()
}

/// The refusal of a call that has met a defect.
pub(crate) fn defect(why: &str) -> Status {
    Failure::new(Reason::Internal).because(why).into()
}

/// A lane answered with something that the operation can't have: a defect.
fn unexpected(outcome: &Outcome) -> Failure {
    Failure::new(Reason::Internal).because(&format!("unexpected outcome {outcome:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "S", "5", "5s", "-5S", "123456789S", "5ä"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }
}
