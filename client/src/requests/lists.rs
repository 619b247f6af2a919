//! The operators' lists, one page per request: filters and sending. Keeps no state.

use std::{sync::Arc, time::Duration};

use inventory_sentinel::v1;

use super::impl_into_future;
use crate::{
    convert,
    operation_errors::{ListNamespacesError, ListReservationsError, ListStockError},
    rpc_error::RpcError,
    rules::SkuConfiguration,
    scope::AdminScope,
    transport::{call::Core, stubs::admin_client},
    types::{Page, Reservation, State},
};

/// The page to read.
#[derive(Clone, Debug, Default)]
struct PageRequest {
    size: i32,
    token: String,
}

/// A request for a page of the namespaces. Made by [`Sentinel::list_namespaces`](crate::Sentinel::list_namespaces);
/// await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is listed before it is awaited"]
pub struct ListNamespaces {
    core: Arc<Core>,
    deadline: Duration,
    page: PageRequest,
}

impl ListNamespaces {
    pub(crate) fn new(core: Arc<Core>, deadline: Duration) -> ListNamespaces {
        ListNamespaces { core, deadline, page: PageRequest::default() }
    }

    /// Most items of the page, 1 to 1,000. Default 100.
    pub fn size(mut self, items: i32) -> Self {
        self.page.size = items;
        self
    }

    /// The page after another: its [`Page::next`].
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.page.token = next.into();
        self
    }

    async fn send(self) -> Result<Page<String>, ListNamespacesError> {
        let PageRequest { size: page_size, token: page_token } = self.page;
        let message = v1::ListNamespacesRequest { page_size, page_token };
        let send = |channel, request| async { admin_client(channel).list_namespaces(request).await };
        Ok(self.core.call(self.deadline, message, send).await.map_err(RpcError::into_read)?)
    }
}

impl_into_future! { ListNamespaces -> Result<Page<String>, ListNamespacesError> }

/// A request for a page of the SKUs. Made by [`Admin::list_stock`](crate::Admin::list_stock); await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is listed before it is awaited"]
pub struct ListStock {
    scope: AdminScope,
    page: PageRequest,
}

impl ListStock {
    pub(crate) fn new(scope: AdminScope) -> ListStock {
        ListStock { scope, page: PageRequest::default() }
    }

    /// Most items of the page, 1 to 1,000. Default 100.
    pub fn size(mut self, items: i32) -> Self {
        self.page.size = items;
        self
    }

    /// The page after another: its [`Page::next`].
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.page.token = next.into();
        self
    }

    async fn send(self) -> Result<Page<SkuConfiguration>, ListStockError> {
        let PageRequest { size: page_size, token: page_token } = self.page;
        let message = v1::ListStockRequest { namespace_id: self.scope.namespace_id(), page_size, page_token };
        let send = |channel, request| async { admin_client(channel).list_stock(request).await };
        Ok(self.scope.scope.read(message, send).await?)
    }
}

impl_into_future! { ListStock -> Result<Page<SkuConfiguration>, ListStockError> }

/// A request for a page of the reservations, by default the pending ones. Made by
/// [`Admin::list_reservations`](crate::Admin::list_reservations); await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is listed before it is awaited"]
pub struct ListReservations {
    scope: AdminScope,
    page: PageRequest,
    sku: String,
    buyer: String,
    states: Vec<i32>,
}

impl ListReservations {
    pub(crate) fn new(scope: AdminScope) -> ListReservations {
        ListReservations {
            scope,
            page: PageRequest::default(),
            sku: String::new(),
            buyer: String::new(),
            states: Vec::new(),
        }
    }

    /// Most items of the page, 1 to 1,000. Default 100.
    pub fn size(mut self, items: i32) -> Self {
        self.page.size = items;
        self
    }

    /// The page after another: its [`Page::next`].
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.page.token = next.into();
        self
    }

    /// Only reservations with a line of this SKU.
    pub fn sku(mut self, sku: impl Into<String>) -> Self {
        self.sku = sku.into();
        self
    }

    /// Only reservations of this buyer.
    pub fn buyer(mut self, buyer: impl Into<String>) -> Self {
        self.buyer = buyer.into();
        self
    }

    /// Only reservations in this state. Several calls select several states.
    pub fn state(mut self, state: State) -> Self {
        self.states.push(convert::state_number(state));
        self
    }

    async fn send(self) -> Result<Page<Reservation>, ListReservationsError> {
        let message = v1::ListReservationsRequest {
            namespace_id: self.scope.namespace_id(),
            page_size: self.page.size,
            page_token: self.page.token,
            sku: self.sku,
            buyer_id: self.buyer,
            states: self.states,
        };
        let send = |channel, request| async { admin_client(channel).list_reservations(request).await };
        Ok(self.scope.scope.read(message, send).await?)
    }
}

impl_into_future! { ListReservations -> Result<Page<Reservation>, ListReservationsError> }
