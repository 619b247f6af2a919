//! WatchProtected: the stream of the SKUs that are protected. Reads the watch hub, no lane.

use inventory_sentinel::v1;
use tonic::{Request, Response, Status};

use crate::{
    control::watch::{
        Hub,
        stock::{StockUpdate, View},
    },
    domain::Sku,
    service::{
        context::ServiceContext,
        deadline::deadline,
        rpc::events::stream::{ResponseStream, stock_stream},
    },
};

pub(super) async fn open(
    context: &ServiceContext,
    hub: &Hub,
    request: Request<v1::WatchProtectedRequest>,
) -> Result<Response<ResponseStream<v1::WatchProtectedResponse>>, Status> {
    let deadline = deadline(request.metadata());
    let (_, extensions, message) = request.into_parts();
    let v1::WatchProtectedRequest { namespace_id, resume_token } = message;
    let encode = |update: StockUpdate, resume_token| {
        let (added, removed): (Vec<_>, Vec<_>) =
            update.rows.into_iter().partition(|(_, stock)| stock.is_some_and(|stock| stock.is_protected));
        let names = |rows: Vec<(Sku, _)>| rows.into_iter().map(|(sku, _)| sku.into_string()).collect();
        v1::WatchProtectedResponse {
            added_skus: names(added),
            removed_skus: names(removed),
            is_snapshot: update.is_snapshot,
            resume_token,
        }
    };
    stock_stream(context, hub, &extensions, (namespace_id, resume_token), View::Protection, deadline, encode).await
}
