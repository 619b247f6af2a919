//! `InventoryEvents`: streams of events and of stock. The control plane: uses the watch hub, no
//! lane. Lists the RPCs. A stream is polled only after its caller has read the previous response.

use std::sync::Arc;

use inventory_sentinel::v1::{self, inventory_events_server::InventoryEvents};
use tonic::{Request, Response, Status};

pub(super) mod stream;
mod watch;
mod watch_stock;

use self::stream::ResponseStream;
use crate::{control::watch::Hub, service::context::ServiceContext};

/// The service of events.
#[derive(Clone)]
pub(crate) struct Events {
    pub(crate) context: ServiceContext,
    pub(crate) hub: Arc<Hub>,
}

#[tonic::async_trait]
impl InventoryEvents for Events {
    type WatchStream = ResponseStream<v1::WatchResponse>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        watch::open(&self.context, &self.hub, request).await
    }

    type WatchStockStream = ResponseStream<v1::WatchStockResponse>;

    async fn watch_stock(
        &self,
        request: Request<v1::WatchStockRequest>,
    ) -> Result<Response<Self::WatchStockStream>, Status> {
        watch_stock::open(&self.context, &self.hub, request).await
    }
}
