//! Batch: many operations in one call. All are submitted to their lanes before the first is awaited, so
//! they share script calls. Each is validated, counted and refused like a single call. The batch is
//! neither atomic nor ordered.

use std::time::Duration;

use inventory_sentinel::{
    Reason,
    v1::{self, batch_operation::Operation as Entry, batch_result::Result as EntryResult},
};
use tokio::time::Instant;
use tonic::Request;

use super::{
    Checkout, commit::Commit, extend::Extend, get_reservation::GetReservation, get_stock::GetStock, reserve::Reserve,
    rollback::Rollback,
};
use crate::{
    access::Caller,
    domain::{Invalid, MAX_OPERATIONS, NamespaceName},
    failure::Failure,
    namespaces::Lookups,
    service::{
        context::ServiceContext,
        deadline::{deadline_in, is_retry},
        dispatch::{AsyncRpc, LaneRpc, Scope, Submitted, find_and_submit},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct Batch {
    operations: Vec<v1::BatchOperation>,
    is_retry: bool,
    caller: Option<Caller>,
}

impl AsyncRpc for Batch {
    type Service = Checkout;
    type Request = v1::BatchRequest;
    type Response = v1::BatchResponse;
    const KIND: RpcKind = RpcKind::Batch;

    fn decode(request: Request<v1::BatchRequest>) -> Result<Self, Failure> {
        let is_retry = is_retry(request.metadata());
        let caller = request.extensions().get().cloned();
        let v1::BatchRequest { operations } = request.into_inner();
        check_size(operations.len(), "operations")?;
        Ok(Self { operations, is_retry, caller })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Entries
    }

    async fn run(self, Checkout { context, .. }: &Checkout, deadline: Instant) -> Result<v1::BatchResponse, Failure> {
        let Self { operations, is_retry, caller } = self;
        let entries = Entries { context, caller, deadline };
        let lookups = context.start_lookups(operations.iter().filter_map(namespace_of), entries.caller.as_ref());
        // Entries that wait for the lookup of their namespace are submitted last, so they delay no other.
        let mut started: Vec<_> = std::iter::repeat_with(|| None).take(operations.len()).collect();
        let mut unopened = Vec::new();
        let is_looked_up = |entry: &v1::BatchOperation| {
            let name = namespace_of(entry).and_then(|name| NamespaceName::parse(name.to_owned()).ok());
            name.is_some_and(|name| lookups.has(&name))
        };
        for (i, mut entry) in operations.into_iter().enumerate() {
            if let Some(Entry::Reserve(request)) = &mut entry.operation {
                request.first_attempt &= !is_retry;
            }
            if !lookups.is_empty() && is_looked_up(&entry) {
                unopened.push((i, entry));
            } else {
                started[i] = Some(entries.start(entry, &lookups).await);
            }
        }
        for (i, entry) in unopened {
            started[i] = Some(entries.start(entry, &lookups).await);
        }
        let mut results = Vec::with_capacity(started.len());
        for entry in started.into_iter().flatten() {
            let result = match entry {
                Ok(started) => finish(context, started).await,
                Err(failure) => Err(failure),
            };
            let result = result.unwrap_or_else(|failure| EntryResult::Failure(failure.into()));
            results.push(v1::BatchResult { result: Some(result) });
        }
        Ok(v1::BatchResponse { results })
    }
}

/// One entry between its submission and its response.
struct Started {
    kind: RpcKind,
    at: Instant,
    /// Submitted to its lane, or refused before that.
    submitted: Result<Submitted, Failure>,
}

/// The entries of one batch.
struct Entries<'a> {
    context: &'a ServiceContext,
    /// `None`: every call is allowed.
    caller: Option<Caller>,
    deadline: Instant,
}

impl Entries<'_> {
    /// Submits one entry in the same way as its single call.
    async fn start(&self, entry: v1::BatchOperation, lookups: &Lookups) -> Result<Started, Failure> {
        let at = Instant::now();
        // A negative timeout counts as 0.
        let own = |timeout| deadline_in(at, Duration::try_from(timeout).unwrap_or_default());
        let times = (at, entry.timeout.map_or(self.deadline, |timeout| self.deadline.min(own(timeout))));
        match entry.operation {
            Some(Entry::Reserve(request)) => self.submit::<Reserve>(request, times, lookups).await,
            Some(Entry::Commit(request)) => self.submit::<Commit>(request, times, lookups).await,
            Some(Entry::Rollback(request)) => self.submit::<Rollback>(request, times, lookups).await,
            Some(Entry::Extend(request)) => self.submit::<Extend>(request, times, lookups).await,
            Some(Entry::GetReservation(request)) => self.submit::<GetReservation>(request, times, lookups).await,
            Some(Entry::GetStock(request)) => self.submit::<GetStock>(request, times, lookups).await,
            None => Err(Invalid::new(Reason::NoOperations, "operation").into()),
        }
    }

    async fn submit<R: LaneRpc>(
        &self,
        request: R::Request,
        times: (Instant, Instant),
        lookups: &Lookups,
    ) -> Result<Started, Failure> {
        let submitted = match R::decode(request) {
            Ok((name, rpc)) => match self.caller.as_ref().map_or(Ok(()), |caller| caller.permit(&name)) {
                Ok(()) => find_and_submit(self.context, rpc, &name, times, lookups).await,
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        Ok(Started { kind: R::KIND, at: times.0, submitted })
    }
}

/// Awaits one entry, and counts it in the same way as its single call.
async fn finish(context: &ServiceContext, started: Started) -> Result<EntryResult, Failure> {
    match started.kind {
        RpcKind::Reserve => respond::<Reserve>(context, started).await.map(EntryResult::Reserve),
        RpcKind::Commit => respond::<Commit>(context, started).await.map(EntryResult::Commit),
        RpcKind::Rollback => respond::<Rollback>(context, started).await.map(EntryResult::Rollback),
        RpcKind::Extend => respond::<Extend>(context, started).await.map(EntryResult::Extend),
        RpcKind::GetReservation => respond::<GetReservation>(context, started).await.map(EntryResult::GetReservation),
        RpcKind::GetStock => respond::<GetStock>(context, started).await.map(EntryResult::GetStock),
        _ => Err(Failure::new(Reason::Internal)),
    }
}

async fn respond<R: LaneRpc>(context: &ServiceContext, started: Started) -> Result<R::Response, Failure> {
    let result = match started.submitted {
        Ok(submitted) => submitted.response::<R>().await,
        Err(failure) => Err(failure),
    };
    context.observe(R::KIND, started.at, &result, R::is_shortage);
    result
}

/// The name of the namespace that an entry is for.
fn namespace_of(entry: &v1::BatchOperation) -> Option<&str> {
    Some(match entry.operation.as_ref()? {
        Entry::Reserve(request) => &request.namespace_id,
        Entry::Commit(request) => &request.namespace_id,
        Entry::Rollback(request) => &request.namespace_id,
        Entry::Extend(request) => &request.namespace_id,
        Entry::GetReservation(request) => &request.namespace_id,
        Entry::GetStock(request) => &request.namespace_id,
    })
}

/// Refuses an empty list, and one with too many entries.
pub(super) fn check_size(entries: usize, field: &str) -> Result<(), Invalid> {
    match entries {
        0 => Err(Invalid::new(Reason::NoOperations, field)),
        1..=MAX_OPERATIONS => Ok(()),
        _ => Err(Invalid::new(Reason::TooManyOperations, field)),
    }
}
