//! ListReservations: a page of the reservations of a namespace, read through `store::lists`.

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;
use tonic::Request;

use super::Admin;
use crate::{
    domain::{BuyerId, Invalid, NamespaceName, Reservation, Sku, State},
    failure::Failure,
    lane::Lane,
    service::{
        convert,
        deadline::by_deadline,
        dispatch::{AsyncRpc, Scope},
        token::page::{PageTokens, decode_page_size, partitions},
    },
    store::lists::{self, Filter, GENERATIONS, Page, Range},
    telemetry::metrics::RpcKind,
};

pub(crate) struct ListReservations {
    name: NamespaceName,
    filter: Filter,
    size: usize,
    page_token: String,
}

impl AsyncRpc for ListReservations {
    type Service = Admin;
    type Request = v1::ListReservationsRequest;
    type Response = v1::ListReservationsResponse;
    const KIND: RpcKind = RpcKind::ListReservations;

    fn decode(request: Request<v1::ListReservationsRequest>) -> Result<Self, Failure> {
        let v1::ListReservationsRequest { namespace_id, page_size, page_token, sku, buyer_id, states } =
            request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let size = decode_page_size(page_size)?;
        let sku = (!sku.is_empty()).then(|| Sku::parse(sku, "sku")).transpose()?;
        let filter = Filter { sku, buyer: BuyerId::parse(buyer_id)?, states: decode_states(&states)? };
        Ok(Self { name, filter, size, page_token })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::ListReservationsResponse, Failure> {
        let Self { name, filter, size, page_token } = self;
        let namespace = admin.context.namespace(&name, deadline).await?;
        let tokens = PageTokens::of_reservations(&namespace, &filter);
        let range = Range { size, from: tokens.decode(&page_token)? };
        let partitions = partitions(&namespace, filter.sku.as_ref(), &GENERATIONS, range)?;
        let page = by_deadline(deadline, async {
            let mut connection = admin.store.connection().await?;
            lists::reservations(&mut connection, &partitions, &filter, range).await
        });
        let Page { items, next } = page.await?;
        admin.check_presence(&namespace).await?;
        let row = |held: Reservation| {
            let clock = namespace.lane(held.id.partition).map(Lane::clock).unwrap_or_default();
            convert::reservation(&namespace, held.at_time_of_day(clock))
        };
        Ok(v1::ListReservationsResponse {
            reservations: items.into_iter().map(row).collect(),
            next_page_token: tokens.encode(next),
        })
    }
}

/// The states to list: those in the request, or PENDING.
fn decode_states(states: &[i32]) -> Result<Vec<State>, Invalid> {
    if states.is_empty() {
        return Ok(vec![State::Pending]);
    }
    let decode = |(i, state): (usize, &i32)| match v1::ReservationState::try_from(*state) {
        Ok(v1::ReservationState::Pending) => Ok(State::Pending),
        Ok(v1::ReservationState::Committed) => Ok(State::Committed),
        Ok(v1::ReservationState::RolledBack) => Ok(State::RolledBack),
        Ok(v1::ReservationState::Expired) => Ok(State::Expired),
        Ok(v1::ReservationState::Unspecified) | Err(_) => {
            Err(Invalid::new(Reason::InvalidState, format!("states[{i}]")))
        }
    };
    states.iter().enumerate().map(decode).collect()
}
