//! Shared by the streaming RPCs: the stream type, the end of a stream, and streams over the stock
//! table. Uses the watch hub.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Response, Status};
use tracing::{Instrument as _, Span};

use crate::{
    access::Caller,
    control::watch::{
        Hub, Position, WatchError,
        stock::{StockUpdate, StockWatch, View},
    },
    domain::NamespaceName,
    failure::Failure,
    service::{
        context::ServiceContext,
        deadline::by_deadline,
        token::resume::{self, Resume},
    },
    telemetry::spans,
};
use inventory_sentinel::Reason;

/// The responses of a streaming call.
pub(in crate::service) type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream of the changes of the stock table.
pub(in crate::service) async fn stock_stream<T: Send + 'static>(
    context: &ServiceContext,
    hub: &Hub,
    extensions: &Extensions,
    (namespace_id, resume_token): (String, String),
    view: View,
    deadline: Instant,
    message: impl Fn(StockUpdate, String) -> T + Copy + Send + 'static,
) -> Result<Response<ResponseStream<T>>, Status> {
    let name = NamespaceName::parse(namespace_id).map_err(Failure::from)?;
    let end = StreamEnd::new(context, extensions, &name)?;
    let namespace = context.namespace(&name, deadline).await?;
    let resume = match resume::decode(&namespace, &resume_token)? {
        Resume::At(token) => Some((Position(token.positions.into()), token.claims)),
        Resume::Elsewhere | Resume::No => None,
    };
    let watch = by_deadline(deadline, StockWatch::open(hub, &namespace, view, resume)).await?;
    let state = (end, namespace, watch);
    Ok(Response::new(Box::pin(stream::try_unfold(state, move |(mut ending, namespace, mut watch)| async move {
        let update = ending.next_or_end(watch.next()).await?;
        let token = resume::encode(&namespace, &update.claims, &update.position.0);
        Ok(Some((message(update, token), (ending, namespace, watch))))
    }))))
}

/// Waits until the caller may no longer use this namespace. Never returns if every call is allowed.
pub(in crate::service) async fn until_refused(caller: Option<&Caller>, namespace: Option<&NamespaceName>) -> Failure {
    match caller {
        Some(caller) => caller.until_refused(namespace).await,
        None => std::future::pending().await,
    }
}

/// Ends a stream when the server drains or its caller loses the permission, and records the reason of its end in the
/// span of the call.
pub(super) struct StreamEnd {
    draining: CancellationToken,
    /// Ready when the caller may no longer use the namespace.
    refused: Pin<Box<dyn Future<Output = Failure> + Send>>,
    span: Span,
}

impl StreamEnd {
    /// Refuses a namespace that the caller may not use.
    pub(super) fn new(
        context: &ServiceContext,
        extensions: &Extensions,
        namespace: &NamespaceName,
    ) -> Result<Self, Failure> {
        let caller = context.guard.caller(extensions)?.cloned();
        if let Some(caller) = &caller {
            caller.permit(namespace)?;
        }
        let namespace = namespace.clone();
        let refused = Box::pin(async move { until_refused(caller.as_ref(), Some(&namespace)).await });
        Ok(Self { draining: context.draining.clone(), refused, span: Span::current() })
    }

    /// The next item, unless the stream ends first.
    pub(super) async fn next_or_end<T>(
        &mut self,
        next: impl Future<Output = Result<T, WatchError>>,
    ) -> Result<T, Failure> {
        let (draining, refused) = (&self.draining, &mut self.refused);
        let next = async {
            tokio::select! {
                biased;
                () = draining.cancelled() => Err(Failure::new(Reason::Draining)),
                failure = refused => Err(failure),
                result = next => result.map_err(Failure::from),
            }
        };
        // The exporter takes the last exit from a span as its end. `instrument` enters it for each item,
        // so the span lasts as long as the stream.
        next.instrument(self.span.clone())
            .await
            .inspect_err(|failure| spans::set_status(&self.span, failure.reason().code()))
    }
}
