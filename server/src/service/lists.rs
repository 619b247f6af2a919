//! The lists of `InventoryAdmin`: pages and their tokens. Parses and answers; reads through `store::lists`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;

use super::{admin::Admin, convert, rules, status::Failure};
use crate::{
    domain::{BuyerId, Invalid, NamespaceName, Reservation, Sku, State},
    lane::Lane,
    namespaces::Namespace,
    store::{
        error::StoreError,
        keys::PartitionKeys,
        lists::{self, Filter, GENERATIONS, Page, Place, Range, Source},
    },
};

/// Items of a page where the request names no number.
const DEFAULT_PAGE_SIZE: usize = 100;
/// Most items that a request can ask for.
const MAX_PAGE_SIZE: usize = 1_000;

/// Which list a token belongs to: its first byte.
#[derive(Clone, Copy)]
enum Kind {
    Namespaces = b'n' as isize,
    Stock = b's' as isize,
    Reservations = b'r' as isize,
}

impl Admin {
    pub(super) async fn page_of_namespaces(
        &self,
        request: v1::ListNamespacesRequest,
        deadline: Instant,
    ) -> Result<v1::ListNamespacesResponse, Failure> {
        let v1::ListNamespacesRequest { page_size, page_token } = request;
        let range = range(Kind::Namespaces, page_size, &page_token)?;
        if range.from.is_some_and(|place| place.source != Source { partition: 0, part: 0 }) {
            return Err(bad_token().into());
        }
        self.desk.admit()?;
        let page = in_time(deadline, async {
            let mut connection = self.store.connection().await?;
            lists::namespaces(&mut connection, range).await
        });
        let Page { items, next } = page.await?;
        let listed = |name: NamespaceName| v1::ListedNamespace { namespace_id: name.as_str().to_owned() };
        Ok(v1::ListNamespacesResponse {
            namespaces: items.into_iter().map(listed).collect(),
            next_page_token: token(Kind::Namespaces, next),
        })
    }

    pub(super) async fn page_of_stock(
        &self,
        request: v1::ListStockRequest,
        deadline: Instant,
    ) -> Result<v1::ListStockResponse, Failure> {
        let v1::ListStockRequest { namespace_id, page_size, page_token } = request;
        let name = NamespaceName::parse(namespace_id)?;
        let range = range(Kind::Stock, page_size, &page_token)?;
        let namespace = self.known(&name, deadline).await?;
        let partitions = partitions(&namespace, None, &[0], range)?;
        let page = in_time(deadline, async {
            let mut connection = self.store.connection().await?;
            lists::stock(&mut connection, &partitions, range).await
        });
        let Page { items, next } = page.await?;
        let listed = |(sku, stock)| v1::ListedSku {
            rules: Some(rules::message(&stock)),
            rules_version: stock.rules.revision as i64,
            stock: Some(convert::stock(sku, stock)),
        };
        Ok(v1::ListStockResponse {
            skus: items.into_iter().map(listed).collect(),
            next_page_token: token(Kind::Stock, next),
        })
    }

    pub(super) async fn page_of_reservations(
        &self,
        request: v1::ListReservationsRequest,
        deadline: Instant,
    ) -> Result<v1::ListReservationsResponse, Failure> {
        let v1::ListReservationsRequest { namespace_id, page_size, page_token, sku, buyer_id, states } = request;
        let name = NamespaceName::parse(namespace_id)?;
        let range = range(Kind::Reservations, page_size, &page_token)?;
        let sku = (!sku.is_empty()).then(|| Sku::parse(sku, "sku")).transpose()?;
        let filter = Filter { sku, buyer: BuyerId::parse(buyer_id)?, states: listed_states(&states)? };
        let namespace = self.known(&name, deadline).await?;
        let partitions = partitions(&namespace, filter.sku.as_ref(), &GENERATIONS, range)?;
        let page = in_time(deadline, async {
            let mut connection = self.store.connection().await?;
            lists::reservations(&mut connection, &partitions, &filter, range).await
        });
        let Page { items, next } = page.await?;
        let listed = |held: Reservation| {
            let clock = namespace.lane(held.id.partition).map(Lane::clock).unwrap_or_default();
            convert::reservation(&name, held.at_time_of_day(clock))
        };
        Ok(v1::ListReservationsResponse {
            reservations: items.into_iter().map(listed).collect(),
            next_page_token: token(Kind::Reservations, next),
        })
    }

    async fn known(&self, name: &NamespaceName, deadline: Instant) -> Result<std::sync::Arc<Namespace>, Failure> {
        let namespace = self.desk.namespace(name, deadline).await?;
        namespace.ok_or_else(|| Failure::new(Reason::NamespaceNotFound))
    }
}

/// Reading a page, until the caller's deadline at most.
async fn in_time<T>(
    deadline: Instant,
    page: impl Future<Output = Result<Page<T>, StoreError>>,
) -> Result<Page<T>, Failure> {
    match tokio::time::timeout_at(deadline, page).await {
        Ok(page) => Ok(page?),
        Err(_) => Err(Failure::new(Reason::DeadlineExceeded)),
    }
}

/// The states to list: those that are named, or PENDING.
fn listed_states(states: &[i32]) -> Result<Vec<State>, Invalid> {
    if states.is_empty() {
        return Ok(vec![State::Pending]);
    }
    let named = |(i, state): (usize, &i32)| match v1::ReservationState::try_from(*state) {
        Ok(v1::ReservationState::Pending) => Ok(State::Pending),
        Ok(v1::ReservationState::Committed) => Ok(State::Committed),
        Ok(v1::ReservationState::RolledBack) => Ok(State::RolledBack),
        Ok(v1::ReservationState::Expired) => Ok(State::Expired),
        Ok(v1::ReservationState::Unspecified) | Err(_) => {
            Err(Invalid::new(Reason::InvalidState, format!("states[{i}]")))
        }
    };
    states.iter().enumerate().map(named).collect()
}

/// The partitions to walk over: of one SKU its own, else all. The place has to be in one of these parts of
/// one of them.
fn partitions(
    namespace: &Namespace,
    sku: Option<&Sku>,
    parts: &[u8],
    range: Range,
) -> Result<Vec<(u16, PartitionKeys)>, Invalid> {
    let only = sku.map(|sku| namespace.partition_of(sku));
    let walked = |partition: u16| only.is_none_or(|only| only == partition);
    let partitions: Vec<_> = namespace.partitions().filter(|(partition, _)| walked(*partition)).collect();
    match range.from {
        Some(Place { source, .. })
            if !parts.contains(&source.part) || !partitions.iter().any(|(number, _)| *number == source.partition) =>
        {
            Err(bad_token())
        }
        _ => Ok(partitions),
    }
}

fn range(kind: Kind, page_size: i32, page_token: &str) -> Result<Range, Invalid> {
    let size = match usize::try_from(page_size) {
        Ok(0) => DEFAULT_PAGE_SIZE,
        Ok(size @ 1..=MAX_PAGE_SIZE) => size,
        _ => return Err(Invalid::new(Reason::InvalidPageSize, "page_size")),
    };
    let from = match page_token {
        "" => None,
        text => Some(place(kind, text).ok_or_else(bad_token)?),
    };
    Ok(Range { size, from })
}

fn bad_token() -> Invalid {
    Invalid::new(Reason::InvalidPageToken, "page_token")
}

/// A place as a token: the list, the partition, its part, the cursor; empty after the last page.
fn token(kind: Kind, place: Option<Place>) -> String {
    let Some(Place { source: Source { partition, part }, cursor }) = place else {
        return String::new();
    };
    let mut bytes = vec![kind as u8, part];
    bytes.extend_from_slice(&partition.to_be_bytes());
    bytes.extend_from_slice(&cursor.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn place(kind: Kind, token: &str) -> Option<Place> {
    let bytes: [u8; 12] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
    if bytes[0] != kind as u8 {
        return None;
    }
    let partition = u16::from_be_bytes(bytes[2..4].try_into().ok()?);
    Some(Place {
        source: Source { partition, part: bytes[1] },
        cursor: u64::from_be_bytes(bytes[4..].try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_with_its_list_and_only_with_it() {
        let at = Place { source: Source { partition: 7, part: 2 }, cursor: u64::MAX - 1 };
        let text = token(Kind::Stock, Some(at));
        assert_eq!(place(Kind::Stock, &text), Some(at));
        assert_eq!(place(Kind::Reservations, &text), None);
        assert_eq!(token(Kind::Stock, None), "");
        for bad in ["A", "AAAA", "!", &text[1..], &format!("{text}AA"), &"A".repeat(1 << 20)] {
            assert!(place(Kind::Stock, bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_page_has_a_size() {
        let size = |number| range(Kind::Stock, number, "").map(|range| range.size);
        assert_eq!((size(0), size(1), size(1_000)), (Ok(100), Ok(1), Ok(1_000)));
        for bad in [-1, 1_001, i32::MIN, i32::MAX] {
            assert_eq!(size(bad), Err(Invalid::new(Reason::InvalidPageSize, "page_size")));
        }
    }
}
