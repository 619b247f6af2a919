//! `InventorySentinel`: hold units, make the sale final, give units back. The data plane: every call
//! but WatchProtected is one or more operations for lanes. Lists the RPCs; may use `dispatch`.

use std::sync::Arc;

use inventory_sentinel::v1::{self, inventory_sentinel_server::InventorySentinel};
use tonic::{Request, Response, Status};

mod batch;
mod batch_get_stock;
mod commit;
mod extend;
mod get_reservation;
mod get_stock;
mod is_protected;
mod reservation;
mod reserve;
mod rollback;
mod watch_protected;

pub(in crate::service) use self::reserve::Reserve;
use self::{
    batch::Batch, batch_get_stock::BatchGetStock, commit::Commit, extend::Extend, get_reservation::GetReservation,
    get_stock::GetStock, is_protected::IsProtected, rollback::Rollback,
};
use super::events::stream::ResponseStream;
use crate::{
    control::watch::Hub,
    service::{
        context::ServiceContext,
        dispatch::{AsyncRpc, LaneRpc, dispatch, dispatch_async, rpc_methods},
    },
};

/// The checkout service.
#[derive(Clone)]
pub(crate) struct Checkout {
    pub(crate) context: ServiceContext,
    pub(crate) hub: Arc<Hub>,
}

impl AsRef<ServiceContext> for Checkout {
    fn as_ref(&self) -> &ServiceContext {
        &self.context
    }
}

#[tonic::async_trait]
impl InventorySentinel for Checkout {
    rpc_methods! { LaneRpc, dispatch:
        reserve => Reserve,
        commit => Commit,
        rollback => Rollback,
        extend => Extend,
        get_reservation => GetReservation,
        get_stock => GetStock,
        is_protected => IsProtected,
    }

    rpc_methods! { AsyncRpc, dispatch_async:
        batch => Batch,
        batch_get_stock => BatchGetStock,
    }

    type WatchProtectedStream = ResponseStream<v1::WatchProtectedResponse>;

    async fn watch_protected(
        &self,
        request: Request<v1::WatchProtectedRequest>,
    ) -> Result<Response<Self::WatchProtectedStream>, Status> {
        watch_protected::open(&self.context, &self.hub, request).await
    }
}
