//! Counters as they change.

use std::time::Duration;

use inventory_sentinel::v1;

use super::{ResumableResponse, ResumingStream, StreamItem};
use crate::{convert, operation_errors::WatchStockError, scope::Scope, transport::stubs::events_client, types::Stock};

/// A stream of counters. Made by [`Namespace::watch_stock`](crate::Namespace::watch_stock).
#[derive(Debug)]
#[must_use = "nothing is watched before next()"]
pub struct WatchStock {
    scope: Scope,
    skus: Vec<String>,
    interval: Option<Duration>,
    stream: Option<ResumingStream<v1::WatchStockResponse>>,
}

/// Current counters of some SKUs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StockUpdate {
    /// SKUs with their counters; `None`: the SKU does not exist, or was deleted.
    pub skus: Vec<(String, Option<Stock>)>,
    /// True while the stream sends all counters; the first update with false completes them.
    pub is_snapshot: bool,
    /// Discard all earlier updates.
    pub starts_over: bool,
}

impl WatchStock {
    pub(crate) fn new(scope: Scope, skus: Vec<String>) -> WatchStock {
        WatchStock { scope, skus, interval: None, stream: None }
    }

    /// Shortest time between two updates with changes, 10 ms to 1 hour. Default 1 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// First all counters, then the changed ones; at least once a second an empty update. Resumes after lost
    /// connections and server restarts.
    ///
    /// # Errors
    /// See [`WatchStockError`]. A call after an error resumes at the same position.
    pub async fn next(&mut self) -> Result<StockUpdate, WatchStockError> {
        let WatchStock { scope, skus, interval, stream } = self;
        let stream = stream.get_or_insert_with(|| open(scope, skus, *interval));
        let StreamItem { response, is_first } = stream.next().await?;
        let skus = response.skus.into_iter().map(convert::watched).collect::<Result<_, _>>()?;
        Ok(StockUpdate { skus, is_snapshot: response.is_snapshot, starts_over: is_first && response.is_snapshot })
    }
}

fn open(scope: &Scope, skus: &[String], interval: Option<Duration>) -> ResumingStream<v1::WatchStockResponse> {
    let (namespace_id, skus) = (scope.namespace_id(), skus.to_owned());
    ResumingStream::new(scope.clone(), String::new(), move |channel, request, resume_token| {
        let message = v1::WatchStockRequest {
            namespace_id: namespace_id.clone(),
            skus: skus.clone(),
            min_interval: interval.map(convert::duration),
            resume_token,
        };
        let mut client = events_client(channel);
        Box::pin(async move { client.watch_stock(request.map(|()| message)).await })
    })
}

impl ResumableResponse for v1::WatchStockResponse {
    fn resume_token(&self) -> &str {
        &self.resume_token
    }
}
