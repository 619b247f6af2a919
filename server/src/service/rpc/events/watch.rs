//! Watch: the stream of all events of a namespace.

use std::{future, sync::Arc};

use futures_util::stream;
use inventory_sentinel::{Reason, v1};
use tonic::{Request, Response, Status};

use super::stream::{ResponseStream, StreamEnd};
use crate::{
    control::watch::{
        Hub,
        events::{EventWatch, Item, PartitionEntry, Start},
    },
    domain::{HistoryPoint, NamespaceName, Term},
    failure::Failure,
    namespaces::Namespace,
    service::{
        context::ServiceContext,
        convert::event,
        deadline::{by_deadline, deadline},
        token::resume::{self, Resume},
    },
};

/// Most events of one response.
const MAX_EVENTS: usize = 128;

pub(super) async fn open(
    context: &ServiceContext,
    hub: &Hub,
    request: Request<v1::WatchRequest>,
) -> Result<Response<ResponseStream<v1::WatchResponse>>, Status> {
    let deadline = deadline(request.metadata());
    let (_, extensions, message) = request.into_parts();
    let v1::WatchRequest { namespace_id, resume_token, from_oldest } = message;
    let name = NamespaceName::parse(namespace_id).map_err(Failure::from)?;
    let end = StreamEnd::new(context, &extensions, &name)?;
    let namespace = context.namespace(&name, deadline).await?;
    let start = match (resume::decode(&namespace, &resume_token)?, from_oldest) {
        (Resume::At(token), _) => Start::Behind(token.claims),
        (Resume::Elsewhere, _) => return Err(Failure::new(Reason::EventsCompacted).into()),
        (Resume::No, true) => Start::Oldest,
        (Resume::No, false) => Start::Now,
    };
    let watch = by_deadline(deadline, EventWatch::open(hub, &namespace, start)).await?;
    Ok(Response::new(events(end, namespace, watch)))
}

/// A stream of events. A response is built only when the stream is polled, so an unread stream holds one.
fn events(end: StreamEnd, namespace: Arc<Namespace>, watch: EventWatch) -> ResponseStream<v1::WatchResponse> {
    let state = (end, namespace, watch, None::<SplitEntry>);
    Box::pin(stream::try_unfold(state, |(mut ending, namespace, mut watch, mut entry)| async move {
        loop {
            // A slow reader takes the pieces of an entry over a long time.
            ending.next_or_end(future::ready(Ok(()))).await?;
            if let Some(response) = entry.as_mut().and_then(|entry| entry.next(&namespace)) {
                return Ok(Some((response, (ending, namespace, watch, entry))));
            }
            let before = watch.claims();
            match ending.next_or_end(watch.next()).await? {
                Item::UpToDate => {
                    let resume_token = resume::of_claims(&namespace, &watch.claims());
                    let response = v1::WatchResponse { events: Vec::new(), resume_token };
                    return Ok(Some((response, (ending, namespace, watch, None))));
                }
                Item::Entry(new, after) => entry = Some(SplitEntry::new(new, after, before)),
            }
        }
    }))
}

/// An entry that is sent in messages of at most [`MAX_EVENTS`].
struct SplitEntry {
    entry: Arc<PartitionEntry>,
    /// The changes that are not sent yet, in descending order.
    places: Vec<event::Place>,
    /// For each partition, the point in its history up to which everything is sent.
    claims: Vec<HistoryPoint>,
}

impl SplitEntry {
    /// Splits the changes of an entry after this sequence.
    fn new(entry: Arc<PartitionEntry>, after: u64, claims: Vec<HistoryPoint>) -> Self {
        let mut places = event::in_order(&entry.entry, after);
        places.reverse();
        Self { entry, places, claims }
    }

    fn next(&mut self, namespace: &Namespace) -> Option<v1::WatchResponse> {
        let PartitionEntry { partition, entry } = &*self.entry;
        let at = usize::from(*partition);
        let first = self.places.len().saturating_sub(MAX_EVENTS);
        let places = self.places.split_off(first);
        let last = places.first()?.sequence;
        let message = |place| event::message_at(namespace, *partition, entry, place);
        let events = places.into_iter().rev().map(message).collect();
        let term = entry.term.map_or(Term::NONE, |(term, _)| term);
        self.claims[at] = HistoryPoint { term, sequence: last, ..self.claims[at] };
        Some(v1::WatchResponse { events, resume_token: resume::of_claims(namespace, &self.claims) })
    }
}
