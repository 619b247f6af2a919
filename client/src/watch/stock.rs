//! Counters as they change.

use std::time::Duration;

use inventory_sentinel::v1;

use super::{Follower, Heard, Told, events};
use crate::{convert, namespace::Namespace, operation_errors::WatchStockError, types::Stock};

/// A stream of counters. Made by [`Namespace::watch_stock`].
#[derive(Debug)]
#[must_use = "nothing is watched before next()"]
pub struct WatchStock {
    namespace: Namespace,
    skus: Vec<String>,
    interval: Option<Duration>,
    follower: Option<Follower<v1::WatchStockResponse>>,
}

/// Counters as they are.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StockNews {
    /// SKUs with their counters; `None`: there is no such SKU, or not any more.
    pub skus: Vec<(String, Option<Stock>)>,
    /// True while the stream begins with everything; the first one that is none completes the picture.
    pub is_snapshot: bool,
    /// Forget what was told before this.
    pub starts_over: bool,
}

impl WatchStock {
    pub(crate) fn new(namespace: Namespace, skus: Vec<String>) -> WatchStock {
        WatchStock { namespace, skus, interval: None, follower: None }
    }

    /// Shortest time between two answers with changes, 10 ms to 1 hour. Default 1 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// First all counters, then those that have changed; at least once a second that none has. Goes on by
    /// itself over lost connections and servers that stop.
    ///
    /// # Errors
    /// See [`WatchStockError`]. Asked again after an error, it tries again from where it stood.
    pub async fn next(&mut self) -> Result<StockNews, WatchStockError> {
        let WatchStock { namespace, skus, interval, follower } = self;
        let follower = follower.get_or_insert_with(|| follow(namespace, skus, *interval));
        let Heard { told, is_first } = follower.next().await?;
        let skus = told.skus.into_iter().map(convert::watched).collect::<Result<_, _>>()?;
        Ok(StockNews { skus, is_snapshot: told.is_snapshot, starts_over: is_first && told.is_snapshot })
    }
}

fn follow(namespace: &Namespace, skus: &[String], interval: Option<Duration>) -> Follower<v1::WatchStockResponse> {
    let (namespace_id, skus) = (namespace.name().to_owned(), skus.to_owned());
    Follower::new(namespace.clone(), String::new(), move |channel, request, resume_token| {
        let message = v1::WatchStockRequest {
            namespace_id: namespace_id.clone(),
            skus: skus.clone(),
            min_interval: interval.map(convert::duration),
            resume_token,
        };
        let mut client = events::client(channel);
        Box::pin(async move { client.watch_stock(request.map(|()| message)).await })
    })
}

impl Told for v1::WatchStockResponse {
    fn resume_token(&self) -> &str {
        &self.resume_token
    }
}
