//! The lists of `InventoryAdmin`: pages and their tokens. Parses and answers; reads through `store::lists`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use inventory_sentinel::{Reason, v1};
use sha2::Sha256;
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
/// Bytes of a place in a token: part, partition, cursor.
const PLACE_BYTES: usize = 1 + 2 + 8;
/// Bytes of its tag.
const TAG_BYTES: usize = 16;

/// Which list a token belongs to.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Namespaces = b'n',
    Stock = b's',
    Reservations = b'r',
}

impl Admin {
    pub(super) async fn page_of_namespaces(
        &self,
        request: v1::ListNamespacesRequest,
        deadline: Instant,
    ) -> Result<v1::ListNamespacesResponse, Failure> {
        let v1::ListNamespacesRequest { page_size, page_token } = request;
        let size = page_size_of(page_size)?;
        self.desk.admit()?;
        let tokens = self.tokens_of_store()?;
        let range = Range { size, from: tokens.read(&page_token)? };
        let page = in_time(deadline, async {
            let mut connection = self.store.connection().await?;
            lists::namespaces(&mut connection, range).await
        });
        let Page { items, next } = page.await?;
        let listed = |name: NamespaceName| v1::ListedNamespace { namespace_id: name.as_str().to_owned() };
        Ok(v1::ListNamespacesResponse {
            namespaces: items.into_iter().map(listed).collect(),
            next_page_token: tokens.write(next),
        })
    }

    pub(super) async fn page_of_stock(
        &self,
        request: v1::ListStockRequest,
        deadline: Instant,
    ) -> Result<v1::ListStockResponse, Failure> {
        let v1::ListStockRequest { namespace_id, page_size, page_token } = request;
        let name = NamespaceName::parse(namespace_id)?;
        let size = page_size_of(page_size)?;
        let namespace = self.desk.namespace_known(&name, deadline).await?;
        let tokens = Tokens::new(namespace.page_mac(), Kind::Stock, &[]);
        let range = Range { size, from: tokens.read(&page_token)? };
        let partitions = partitions(&namespace, None, &[0], range)?;
        let page = in_time(deadline, async {
            let mut connection = self.store.connection().await?;
            lists::stock(&mut connection, &partitions, range).await
        });
        let Page { items, next } = page.await?;
        self.check_presence(&namespace).await?;
        let listed = |(sku, stock)| v1::ListedSku {
            rules: Some(rules::message_of(&stock)),
            rules_version: stock.rules.revision as i64,
            stock: Some(convert::stock(sku, stock)),
        };
        Ok(v1::ListStockResponse { skus: items.into_iter().map(listed).collect(), next_page_token: tokens.write(next) })
    }

    pub(super) async fn page_of_reservations(
        &self,
        request: v1::ListReservationsRequest,
        deadline: Instant,
    ) -> Result<v1::ListReservationsResponse, Failure> {
        let v1::ListReservationsRequest { namespace_id, page_size, page_token, sku, buyer_id, states } = request;
        let name = NamespaceName::parse(namespace_id)?;
        let size = page_size_of(page_size)?;
        let sku = (!sku.is_empty()).then(|| Sku::parse(sku, "sku")).transpose()?;
        let filter = Filter { sku, buyer: BuyerId::parse(buyer_id)?, states: listed_states(&states)? };
        let namespace = self.desk.namespace_known(&name, deadline).await?;
        let tokens = Tokens::new(namespace.page_mac(), Kind::Reservations, &filter_bytes(&filter));
        let range = Range { size, from: tokens.read(&page_token)? };
        let partitions = partitions(&namespace, filter.sku.as_ref(), &GENERATIONS, range)?;
        let page = in_time(deadline, async {
            let mut connection = self.store.connection().await?;
            lists::reservations(&mut connection, &partitions, &filter, range).await
        });
        let Page { items, next } = page.await?;
        self.check_presence(&namespace).await?;
        let listed = |held: Reservation| {
            let clock = namespace.lane(held.id.partition).map(Lane::clock).unwrap_or_default();
            convert::reservation(&namespace, held.at_time_of_day(clock))
        };
        Ok(v1::ListReservationsResponse {
            reservations: items.into_iter().map(listed).collect(),
            next_page_token: tokens.write(next),
        })
    }

    /// Of a list that belongs to no namespace.
    fn tokens_of_store(&self) -> Result<Tokens, Failure> {
        let id = self.promises.witnesses.identity().id().unwrap_or_default();
        let mac = Hmac::new_from_slice(id.as_bytes()).map_err(|_| bad_token())?;
        Ok(Tokens::new(mac, Kind::Namespaces, &[]))
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

fn page_size_of(page_size: i32) -> Result<usize, Invalid> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(size @ 1..=MAX_PAGE_SIZE) => Ok(size),
        _ => Err(Invalid::new(Reason::InvalidPageSize, "page_size")),
    }
}

fn bad_token() -> Invalid {
    Invalid::new(Reason::InvalidPageToken, "page_token")
}

/// The filter as the tokens of its list are bound to it.
fn filter_bytes(filter: &Filter) -> Vec<u8> {
    let mut states: Vec<u8> = filter.states.iter().map(|state| *state as u8).collect();
    states.sort_unstable();
    states.dedup();
    let sku = filter.sku.as_ref().map_or("", Sku::as_str);
    [&states, &b"\0"[..], sku.as_bytes(), b"\0", filter.buyer.as_str().as_bytes()].concat()
}

/// The page tokens of one list: places, each with a tag that only a server with the secret of the namespace can make. A
/// token is bound to its list, namespace and filter. The tags of the list of namespaces are made with the id of the store.
struct Tokens {
    mac: Hmac<Sha256>,
}

impl Tokens {
    fn new(mac: Hmac<Sha256>, kind: Kind, filter: &[u8]) -> Self {
        Self {
            mac: mac.chain_update([kind as u8]).chain_update((filter.len() as u64).to_be_bytes()).chain_update(filter),
        }
    }

    /// The token of a place; empty after the last page.
    fn write(&self, place: Option<Place>) -> String {
        let Some(Place { source: Source { partition, part }, cursor }) = place else {
            return String::new();
        };
        let mut bytes = vec![part];
        bytes.extend_from_slice(&partition.to_be_bytes());
        bytes.extend_from_slice(&cursor.to_be_bytes());
        let tag = self.mac.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place of a token; `None` if there is no token.
    fn read(&self, token: &str) -> Result<Option<Place>, Invalid> {
        if token.is_empty() {
            return Ok(None);
        }
        self.place(token).map(Some).ok_or_else(bad_token)
    }

    fn place(&self, token: &str) -> Option<Place> {
        let bytes: [u8; PLACE_BYTES + TAG_BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (place, tag) = bytes.split_at(PLACE_BYTES);
        self.mac.clone().chain_update(place).verify_truncated_left(tag).ok()?;
        let partition = u16::from_be_bytes(place[1..3].try_into().ok()?);
        let cursor = u64::from_be_bytes(place[3..].try_into().ok()?);
        Some(Place { source: Source { partition, part: place[0] }, cursor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_bound_to_its_list_its_secret_and_its_filter() {
        let tokens =
            |secret: &[u8], kind, filter: &[u8]| Tokens::new(Hmac::new_from_slice(secret).unwrap(), kind, filter);
        let ours = tokens(b"secret", Kind::Stock, b"f");
        let at = Place { source: Source { partition: 7, part: 2 }, cursor: u64::MAX - 1 };
        let text = ours.write(Some(at));
        assert_eq!((ours.read(&text), ours.read(""), ours.write(None)), (Ok(Some(at)), Ok(None), String::new()));
        for others in [
            tokens(b"secret", Kind::Reservations, b"f"),
            tokens(b"another", Kind::Stock, b"f"),
            tokens(b"secret", Kind::Stock, b"g"),
            tokens(b"secret", Kind::Stock, b""),
        ] {
            assert_eq!(others.read(&text), Err(bad_token()));
        }
        for bad in ["A", "AAAA", "!", &text[1..], &format!("{text}AA"), &"A".repeat(1 << 20)] {
            assert_eq!(ours.read(bad), Err(bad_token()), "{bad}");
        }
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ours.read(&URL_SAFE_NO_PAD.encode(flipped)), Err(bad_token()), "bit {bit}");
        }
    }

    #[test]
    fn a_page_has_a_size() {
        assert_eq!([0, 1, 1_000].map(page_size_of), [Ok(100), Ok(1), Ok(1_000)]);
        for bad in [-1, 1_001, i32::MIN, i32::MAX] {
            assert_eq!(page_size_of(bad), Err(Invalid::new(Reason::InvalidPageSize, "page_size")));
        }
    }
}
