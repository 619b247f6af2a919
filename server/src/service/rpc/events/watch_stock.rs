//! WatchStock: the stream of the counters of some SKUs, or of all.

use std::time::Duration;

use inventory_sentinel::{Reason, v1};
use tonic::{Request, Response, Status};

use super::stream::{ResponseStream, stock_stream};
use crate::{
    control::watch::{
        Hub,
        stock::{StockUpdate, View},
    },
    domain::{Invalid, Sku, Stock},
    failure::Failure,
    service::{context::ServiceContext, convert, deadline::deadline},
};

/// Most SKUs that one WatchStock can name.
const MAX_SKUS: usize = 1_000;
/// Shortest time between two responses with changes of stock, if the caller does not set it.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest and the longest interval that the caller can set.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3_600));

pub(super) async fn open(
    context: &ServiceContext,
    hub: &Hub,
    request: Request<v1::WatchStockRequest>,
) -> Result<Response<ResponseStream<v1::WatchStockResponse>>, Status> {
    let deadline = deadline(request.metadata());
    let (_, extensions, message) = request.into_parts();
    let v1::WatchStockRequest { namespace_id, skus, min_interval, resume_token } = message;
    let view = View::Stock { skus: dedup_skus(skus)?, interval: decode_interval(min_interval)? };
    let encode = |update: StockUpdate, resume_token| v1::WatchStockResponse {
        is_snapshot: update.is_snapshot,
        skus: update.rows.into_iter().map(encode_row).collect(),
        resume_token,
    };
    stock_stream(context, hub, &extensions, (namespace_id, resume_token), view, deadline, encode).await
}

fn encode_row((sku, stock): (Sku, Option<Stock>)) -> v1::WatchedSku {
    let name = sku.as_str().to_owned();
    v1::WatchedSku { stock: stock.map(|stock| convert::stock(sku, stock)), sku: name }
}

fn dedup_skus(skus: Vec<String>) -> Result<Vec<Sku>, Failure> {
    if skus.len() > MAX_SKUS {
        return Err(Invalid::new(Reason::TooManyOperations, "skus").into());
    }
    let mut distinct = Vec::with_capacity(skus.len());
    for sku in convert::skus(skus)? {
        if !distinct.contains(&sku) {
            distinct.push(sku);
        }
    }
    Ok(distinct)
}

fn decode_interval(interval: Option<prost_types::Duration>) -> Result<Duration, Failure> {
    let Some(interval) = interval else { return Ok(DEFAULT_INTERVAL) };
    Duration::try_from(interval)
        .ok()
        .filter(|interval| (INTERVALS.0..=INTERVALS.1).contains(interval))
        .ok_or_else(|| Invalid::new(Reason::InvalidInterval, "min_interval").into())
}
