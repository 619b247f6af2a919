//! The operators' lists, a page at a time: what can be asked for, and the sending of it. Keeps no state.

use std::{sync::Arc, time::Duration};

use inventory_sentinel::v1;

use crate::{
    admin::{Admin, operators},
    call::{Core, awaited},
    convert,
    namespace::Namespace,
    operation_errors::{ListNamespacesError, ListReservationsError, ListStockError},
    rpc_error::RpcError,
    rules::SkuConfiguration,
    types::{Page, Reservation, State},
};

/// Which page: what every list can be told.
#[derive(Clone, Debug, Default)]
struct Place {
    size: i32,
    token: String,
}

macro_rules! paged {
    ($request:ident) => {
        impl $request {
            /// Items that the page should have, 1 to 1,000; 100 unless told otherwise.
            pub fn size(mut self, items: i32) -> Self {
                self.place.size = items;
                self
            }

            /// The page that begins where another ended: its [`Page::next`].
            pub fn after(mut self, next: impl Into<String>) -> Self {
                self.place.token = next.into();
                self
            }
        }
    };
}

/// A request for a page of the namespaces. Made by [`Sentinel::list_namespaces`](crate::Sentinel::list_namespaces);
/// await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is listed before it is awaited"]
pub struct ListNamespaces {
    core: Arc<Core>,
    deadline: Duration,
    place: Place,
}

impl ListNamespaces {
    pub(crate) fn new(core: Arc<Core>, deadline: Duration) -> ListNamespaces {
        ListNamespaces { core, deadline, place: Place::default() }
    }

    async fn send(self) -> Result<Page<String>, ListNamespacesError> {
        let Place { size: page_size, token: page_token } = self.place;
        let message = v1::ListNamespacesRequest { page_size, page_token };
        let send = |channel, request| async { operators(channel).list_namespaces(request).await };
        Ok(self.core.call(self.deadline, message, send).await.map_err(RpcError::of_read)?)
    }
}

paged! { ListNamespaces }
awaited! { ListNamespaces -> Result<Page<String>, ListNamespacesError> }

/// A request for a page of the SKUs. Made by [`Admin::list_stock`]; await it to send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is listed before it is awaited"]
pub struct ListStock {
    admin: Admin,
    place: Place,
}

impl ListStock {
    pub(crate) fn new(admin: Admin) -> ListStock {
        ListStock { admin, place: Place::default() }
    }

    async fn send(self) -> Result<Page<SkuConfiguration>, ListStockError> {
        let Namespace { core, name, deadline } = self.admin.namespace;
        let Place { size: page_size, token: page_token } = self.place;
        let message = v1::ListStockRequest { namespace_id: name.to_string(), page_size, page_token };
        let send = |channel, request| async { operators(channel).list_stock(request).await };
        Ok(core.call(deadline, message, send).await.map_err(RpcError::of_read)?)
    }
}

paged! { ListStock }
awaited! { ListStock -> Result<Page<SkuConfiguration>, ListStockError> }

/// A request for a page of the reservations, the pending ones unless told otherwise. Made by [`Admin::list_reservations`]; await it to
/// send it.
#[derive(Clone, Debug)]
#[must_use = "nothing is listed before it is awaited"]
pub struct ListReservations {
    admin: Admin,
    place: Place,
    sku: String,
    buyer: String,
    states: Vec<i32>,
}

impl ListReservations {
    pub(crate) fn new(admin: Admin) -> ListReservations {
        ListReservations {
            admin,
            place: Place::default(),
            sku: String::new(),
            buyer: String::new(),
            states: Vec::new(),
        }
    }

    /// Only those that hold units of this SKU.
    pub fn sku(mut self, sku: impl Into<String>) -> Self {
        self.sku = sku.into();
        self
    }

    /// Only those of this buyer.
    pub fn buyer(mut self, buyer: impl Into<String>) -> Self {
        self.buyer = buyer.into();
        self
    }

    /// Those in this state; said several times, in any of them.
    pub fn state(mut self, state: State) -> Self {
        self.states.push(convert::state_number(state));
        self
    }

    async fn send(self) -> Result<Page<Reservation>, ListReservationsError> {
        let Namespace { core, name, deadline } = self.admin.namespace;
        let message = v1::ListReservationsRequest {
            namespace_id: name.to_string(),
            page_size: self.place.size,
            page_token: self.place.token,
            sku: self.sku,
            buyer_id: self.buyer,
            states: self.states,
        };
        let send = |channel, request| async { operators(channel).list_reservations(request).await };
        Ok(core.call(deadline, message, send).await.map_err(RpcError::of_read)?)
    }
}

paged! { ListReservations }
awaited! { ListReservations -> Result<Page<Reservation>, ListReservationsError> }
