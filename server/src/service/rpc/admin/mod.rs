//! `InventoryAdmin`: stock, rules, namespaces, lists, imports, the audit. The control plane: its
//! store reads use the connections for lists and audits. Lists the RPCs; may use `dispatch`.

use std::sync::Arc;

use inventory_sentinel::{
    Reason,
    v1::{self, inventory_admin_server::InventoryAdmin},
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

mod adjust_stock;
mod audit;
mod configure_namespace;
mod configure_sku;
mod delete_namespace;
mod delete_sku;
mod get_namespace;
mod get_server_info;
mod get_sku;
mod import_stock;
mod list_namespaces;
mod list_reservations;
mod list_stock;
mod set_protection;
mod set_stock;
mod settle_partition;
mod sku_change;

use self::{
    adjust_stock::AdjustStock, audit::Audit, configure_namespace::ConfigureNamespace, configure_sku::ConfigureSku,
    delete_namespace::DeleteNamespace, delete_sku::DeleteSku, get_namespace::GetNamespace,
    get_server_info::GetServerInfo, get_sku::GetSku, list_namespaces::ListNamespaces,
    list_reservations::ListReservations, list_stock::ListStock, set_protection::SetProtection, set_stock::SetStock,
    settle_partition::SettlePartition,
};
use super::events::stream::ResponseStream;
use crate::{
    config::{Config, Durability},
    control::promises::Promises,
    domain::Invalid,
    failure::Failure,
    namespaces::Namespace,
    service::{
        audit_record::AuditRecord,
        context::ServiceContext,
        dispatch::{AsyncRpc, dispatch_async, rpc_methods},
    },
    store::{NamespaceStore as _, Store},
    telemetry::metrics::RpcKind,
};

/// Audits that may run at once: each reads every pending reservation.
const MAX_AUDITS: usize = 1;
/// Rows of one message of an import, and SKUs of one SetProtection or SettlePartition.
const MAX_ROWS: usize = 1_000;
/// Rows of one call that may wait in lanes at the same time: those of one full batch and of the next.
const MAX_ROWS_IN_FLIGHT: usize = 1_024;

/// The operators' service.
#[derive(Clone)]
pub(crate) struct Admin {
    context: ServiceContext,
    store: Arc<Store>,
    promises: Promises,
    durability: Durability,
    /// The memory that an audit may use, in bytes, approximately.
    audit_memory: usize,
    audits: Arc<Semaphore>,
}

impl Admin {
    pub(crate) fn new(context: ServiceContext, store: Arc<Store>, promises: Promises, config: &Config) -> Self {
        let Config { durability, audit_memory, .. } = *config;
        Self { context, store, promises, durability, audit_memory, audits: Arc::new(Semaphore::new(MAX_AUDITS)) }
    }

    /// Refuses results of a namespace that was deleted during the read: they may be incomplete. A
    /// deletion closes the first partition before it deletes anything.
    async fn check_presence(&self, namespace: &Namespace) -> Result<(), Failure> {
        let place = self.store.last_change(&namespace.keys(0)).await?;
        if place.is_some_and(|at| namespace.epochs.first() == Some(&at.epoch)) {
            return Ok(());
        }
        Err(Failure::new(Reason::NamespaceNotFound).within(&namespace.name))
    }
}

impl AsRef<ServiceContext> for Admin {
    fn as_ref(&self) -> &ServiceContext {
        &self.context
    }
}

#[tonic::async_trait]
impl InventoryAdmin for Admin {
    rpc_methods! { AsyncRpc, dispatch_async:
        set_stock => SetStock,
        adjust_stock => AdjustStock,
        configure_sku => ConfigureSku,
        get_sku => GetSku,
        delete_sku => DeleteSku,
        configure_namespace => ConfigureNamespace,
        delete_namespace => DeleteNamespace,
        get_namespace => GetNamespace,
        list_namespaces => ListNamespaces,
        list_stock => ListStock,
        list_reservations => ListReservations,
        set_protection => SetProtection,
        audit => Audit,
        settle_partition => SettlePartition,
        get_server_info => GetServerInfo,
    }

    type ImportStockStream = ResponseStream<v1::ImportStockResponse>;

    async fn import_stock(
        &self,
        request: Request<Streaming<v1::ImportStockRequest>>,
    ) -> Result<Response<Self::ImportStockStream>, Status> {
        let caller = self.context.guard.caller(request.extensions())?.cloned();
        let record = AuditRecord::detached(RpcKind::ImportStock, &request);
        // Each message has a record.
        record.discard();
        Ok(Response::new(import_stock::open(self.context.clone(), caller, record, request.into_inner())))
    }
}

/// Decodes `if_version`. A version is a sequence, which fits six bytes with one number to spare.
fn decode_version(number: i64) -> Result<u64, Invalid> {
    let version = u64::try_from(number).ok().filter(|version| *version < (1 << 48) - 1);
    version.ok_or_else(|| Invalid::new(Reason::InvalidPolicy, "if_version"))
}
