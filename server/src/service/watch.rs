//! The streams: WatchProtected, and `InventoryEvents`. Parses and answers; what there is to tell comes from the
//! watch core. A stream is only asked for more when its caller has read what came before.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use inventory_sentinel::{
    Reason,
    v1::{self, inventory_events_server::InventoryEvents},
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span};

use super::{
    Desk, convert, deadline, events,
    status::Failure,
    token::{self, Resume},
};
use crate::{
    domain::{HistoryPoint, Invalid, NamespaceName, Sku, Stock, Term},
    namespaces::Namespace,
    telemetry::spans,
    watch::{
        Hub, Position, WatchError,
        changes::{ChangesWatch, Heard, Start, Told},
        numbers::{News, NumbersWatch, View},
    },
};

/// SKUs that one WatchStock can name.
const MAX_SKUS: usize = 1_000;
/// Events of one response.
const MAX_EVENTS: usize = 128;
/// Shortest time between two responses with changes of stock, unless the caller names one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest and the longest that he can name.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3_600));

/// What a streaming call answers with.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service of the feed.
#[derive(Clone)]
pub(crate) struct Events {
    pub(crate) desk: Desk,
    pub(crate) hub: Arc<Hub>,
}

#[tonic::async_trait]
impl InventoryEvents for Events {
    type WatchStream = Answers<v1::WatchResponse>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let deadline = deadline(request.metadata());
        let v1::WatchRequest { namespace_id, resume_token, from_oldest } = request.into_inner();
        let namespace = known(&self.desk, namespace_id, deadline).await?;
        let start = match (token::read(&namespace, &resume_token)?, from_oldest) {
            (Resume::At(token), _) => Start::Behind(token.claims),
            (Resume::Elsewhere, _) => return Err(Failure::new(Reason::EventsCompacted).into()),
            (Resume::No, true) => Start::Oldest,
            (Resume::No, false) => Start::Now,
        };
        let watch = in_time(deadline, ChangesWatch::open(&self.hub, &namespace, start)).await?;
        Ok(Response::new(changes(&self.desk, namespace, watch)))
    }

    type WatchStockStream = Answers<v1::WatchStockResponse>;

    async fn watch_stock(
        &self,
        request: Request<v1::WatchStockRequest>,
    ) -> Result<Response<Self::WatchStockStream>, Status> {
        let deadline = deadline(request.metadata());
        let v1::WatchStockRequest { namespace_id, skus, min_interval, resume_token } = request.into_inner();
        let view = View::Stock { skus: named(skus)?, interval: interval(min_interval)? };
        let message = |news: News, resume_token| v1::WatchStockResponse {
            is_snapshot: news.is_snapshot,
            skus: news.rows.into_iter().map(watched).collect(),
            resume_token,
        };
        numbers(&self.desk, &self.hub, (namespace_id, resume_token), view, deadline, message).await
    }
}

/// WatchProtected.
pub(super) async fn protected(
    desk: &Desk,
    hub: &Hub,
    request: Request<v1::WatchProtectedRequest>,
) -> Result<Response<Answers<v1::WatchProtectedResponse>>, Status> {
    let deadline = deadline(request.metadata());
    let v1::WatchProtectedRequest { namespace_id, resume_token } = request.into_inner();
    let message = |news: News, resume_token| {
        let (added, removed): (Vec<_>, Vec<_>) =
            news.rows.into_iter().partition(|(_, stock)| stock.is_some_and(|stock| stock.is_protected));
        let names = |rows: Vec<(Sku, _)>| rows.into_iter().map(|(sku, _)| sku.into_string()).collect();
        v1::WatchProtectedResponse {
            added_skus: names(added),
            removed_skus: names(removed),
            is_snapshot: news.is_snapshot,
            resume_token,
        }
    };
    numbers(desk, hub, (namespace_id, resume_token), View::Protection, deadline, message).await
}

async fn known(desk: &Desk, namespace_id: String, deadline: Instant) -> Result<Arc<Namespace>, Failure> {
    let name = NamespaceName::parse(namespace_id)?;
    desk.namespace_known(&name, deadline).await
}

/// The start of a stream, until the caller's deadline at most.
async fn in_time<T>(deadline: Instant, open: impl Future<Output = Result<T, WatchError>>) -> Result<T, Failure> {
    match timeout_at(deadline, open).await {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(Failure::new(Reason::DeadlineExceeded)),
    }
}

/// A stream of what the table says, as messages.
async fn numbers<T: Send + 'static>(
    desk: &Desk,
    hub: &Hub,
    (namespace_id, resume_token): (String, String),
    view: View,
    deadline: Instant,
    message: impl Fn(News, String) -> T + Copy + Send + 'static,
) -> Result<Response<Answers<T>>, Status> {
    let namespace = known(desk, namespace_id, deadline).await?;
    let resume = match token::read(&namespace, &resume_token)? {
        Resume::At(token) => Some((Position(token.positions.into()), token.claims)),
        Resume::Elsewhere | Resume::No => None,
    };
    let watch = in_time(deadline, NumbersWatch::open(hub, &namespace, view, resume)).await?;
    let state = (Ending::new(desk), namespace, watch);
    Ok(Response::new(Box::pin(stream::try_unfold(state, move |(ending, namespace, mut watch)| async move {
        let news = ending.or(watch.next()).await?;
        let token = token::write(&namespace, &news.claims, &news.position.0);
        Ok(Some((message(news, token), (ending, namespace, watch))))
    }))))
}

/// What can end a stream, and who is told how it ended: the call's span lasts as long as the stream.
struct Ending {
    draining: CancellationToken,
    span: Span,
}

impl Ending {
    fn new(desk: &Desk) -> Self {
        Self { draining: desk.draining.clone(), span: Span::current() }
    }

    /// What comes next, unless the server drains first.
    async fn or<T>(&self, next: impl Future<Output = Result<T, WatchError>>) -> Result<T, Failure> {
        let told = async {
            tokio::select! {
                biased;
                () = self.draining.cancelled() => Err(Failure::new(Reason::Draining)),
                told = next => told.map_err(Failure::from),
            }
        };
        // A span ends when it was last entered, which is when this is dropped.
        told.instrument(self.span.clone())
            .await
            .inspect_err(|failure| spans::set_status(&self.span, failure.reason().code()))
    }
}

/// A stream of events, as messages. Each is made when it is asked for: a stream that is not read holds no others.
fn changes(desk: &Desk, namespace: Arc<Namespace>, watch: ChangesWatch) -> Answers<v1::WatchResponse> {
    let state = (Ending::new(desk), namespace, watch, None::<Telling>);
    Box::pin(stream::try_unfold(state, |(ending, namespace, mut watch, mut telling)| async move {
        loop {
            if let Some(response) = telling.as_mut().and_then(|telling| telling.next(&namespace)) {
                return Ok(Some((response, (ending, namespace, watch, telling))));
            }
            let before = watch.claims();
            match ending.or(watch.next()).await? {
                Heard::Nothing => {
                    let resume_token = token::of_claims(&namespace, &watch.claims());
                    let response = v1::WatchResponse { events: Vec::new(), resume_token };
                    return Ok(Some((response, (ending, namespace, watch, None))));
                }
                Heard::Entry(entry, after) => telling = Some(Telling::new(entry, after, before)),
            }
        }
    }))
}

/// An entry that is sent in messages which are not too large.
struct Telling {
    entry: Arc<Told>,
    /// What is still to be sent, the last first.
    places: Vec<events::Place>,
    /// What has been sent, of each partition.
    claims: Vec<HistoryPoint>,
}

impl Telling {
    /// Of an entry of which what is behind this sequence is new.
    fn new(entry: Arc<Told>, after: u64, claims: Vec<HistoryPoint>) -> Self {
        let mut places = events::in_order(&entry.entry, after);
        places.reverse();
        Self { entry, places, claims }
    }

    fn next(&mut self, namespace: &Namespace) -> Option<v1::WatchResponse> {
        let Told { partition, entry } = &*self.entry;
        let at = usize::from(*partition);
        let first = self.places.len().saturating_sub(MAX_EVENTS);
        let places = self.places.split_off(first);
        let last = places.first()?.sequence;
        let message = |place| events::message_at(namespace, *partition, entry, place);
        let events = places.into_iter().rev().map(message).collect();
        let term = entry.term.map_or(Term::NONE, |(term, _)| term);
        self.claims[at] = HistoryPoint { term, sequence: last, ..self.claims[at] };
        Some(v1::WatchResponse { events, resume_token: token::of_claims(namespace, &self.claims) })
    }
}

fn watched((sku, stock): (Sku, Option<Stock>)) -> v1::WatchedSku {
    let name = sku.as_str().to_owned();
    v1::WatchedSku { stock: stock.map(|stock| convert::stock(sku, stock)), sku: name }
}

fn named(skus: Vec<String>) -> Result<Vec<Sku>, Failure> {
    if skus.len() > MAX_SKUS {
        return Err(Invalid::new(Reason::TooManyOperations, "skus").into());
    }
    let mut named = Vec::with_capacity(skus.len());
    for (i, sku) in skus.into_iter().enumerate() {
        let sku = Sku::parse(sku, &format!("skus[{i}]"))?;
        if !named.contains(&sku) {
            named.push(sku);
        }
    }
    Ok(named)
}

fn interval(asked: Option<prost_types::Duration>) -> Result<Duration, Failure> {
    let Some(asked) = asked else { return Ok(DEFAULT_INTERVAL) };
    Duration::try_from(asked)
        .ok()
        .filter(|interval| (INTERVALS.0..=INTERVALS.1).contains(interval))
        .ok_or_else(|| Invalid::new(Reason::InvalidInterval, "min_interval").into())
}
