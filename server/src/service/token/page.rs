//! Page tokens of the lists: a scan cursor with a tag. A token is bound to its list, namespace and
//! filter; only a server with the secret of the namespace can create it. No I/O.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use inventory_sentinel::Reason;
use sha2::Sha256;

use crate::{
    domain::{Invalid, Sku},
    namespaces::Namespace,
    store::{
        keys::PartitionKeys,
        lists::{Filter, Place, Range, Source},
    },
};

/// Items of a page if the request sets no number.
const DEFAULT_PAGE_SIZE: usize = 100;
/// Most items that a request can set.
const MAX_PAGE_SIZE: usize = 1_000;
/// Bytes of a cursor in a token: part, partition, cursor.
const CURSOR_BYTES: usize = 1 + 2 + 8;
/// Bytes of its tag.
const TAG_BYTES: usize = 16;

/// The list that a token belongs to.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Namespaces = b'n',
    Stock = b's',
    Reservations = b'r',
}

/// The partitions to scan: that of the SKU, or all. Refuses a token whose cursor is in another
/// partition, or in none of these parts.
pub(in crate::service) fn partitions(
    namespace: &Namespace,
    sku: Option<&Sku>,
    parts: &[u8],
    range: Range,
) -> Result<Vec<(u16, PartitionKeys)>, Invalid> {
    let only = sku.map(|sku| namespace.partition_of(sku));
    let is_scanned = |partition: u16| only.is_none_or(|only| only == partition);
    let partitions: Vec<_> = namespace.partitions().filter(|(partition, _)| is_scanned(*partition)).collect();
    match range.from {
        Some(Place { source, .. })
            if !parts.contains(&source.part) || !partitions.iter().any(|(number, _)| *number == source.partition) =>
        {
            Err(bad_token())
        }
        _ => Ok(partitions),
    }
}

pub(in crate::service) fn decode_page_size(page_size: i32) -> Result<usize, Invalid> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(size @ 1..=MAX_PAGE_SIZE) => Ok(size),
        _ => Err(Invalid::new(Reason::InvalidPageSize, "page_size")),
    }
}

fn bad_token() -> Invalid {
    Invalid::new(Reason::InvalidPageToken, "page_token")
}

/// The bytes of a filter that its tokens are bound to.
fn filter_bytes(filter: &Filter) -> Vec<u8> {
    let mut states: Vec<u8> = filter.states.iter().map(|state| *state as u8).collect();
    states.sort_unstable();
    states.dedup();
    let sku = filter.sku.as_ref().map_or("", Sku::as_str);
    [&states, &b"\0"[..], sku.as_bytes(), b"\0", filter.buyer.as_str().as_bytes()].concat()
}

/// The page tokens of one list.
pub(in crate::service) struct PageTokens {
    mac: Hmac<Sha256>,
}

impl PageTokens {
    /// The list of namespaces belongs to no namespace, so its tags are computed with the id of the store.
    pub(in crate::service) fn of_namespaces(store_id: &str) -> Result<Self, Invalid> {
        let mac = Hmac::new_from_slice(store_id.as_bytes()).map_err(|_| bad_token())?;
        Ok(Self::new(mac, Kind::Namespaces, &[]))
    }

    pub(in crate::service) fn of_stock(namespace: &Namespace) -> Self {
        Self::new(namespace.page_mac(), Kind::Stock, &[])
    }

    pub(in crate::service) fn of_reservations(namespace: &Namespace, filter: &Filter) -> Self {
        Self::new(namespace.page_mac(), Kind::Reservations, &filter_bytes(filter))
    }

    fn new(mac: Hmac<Sha256>, kind: Kind, filter: &[u8]) -> Self {
        Self {
            mac: mac.chain_update([kind as u8]).chain_update((filter.len() as u64).to_be_bytes()).chain_update(filter),
        }
    }

    /// The token of a cursor; empty after the last page.
    pub(in crate::service) fn encode(&self, place: Option<Place>) -> String {
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

    /// The cursor of a token; `None` if there is no token.
    pub(in crate::service) fn decode(&self, token: &str) -> Result<Option<Place>, Invalid> {
        if token.is_empty() {
            return Ok(None);
        }
        self.decode_cursor(token).map(Some).ok_or_else(bad_token)
    }

    fn decode_cursor(&self, token: &str) -> Option<Place> {
        let bytes: [u8; CURSOR_BYTES + TAG_BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (place, tag) = bytes.split_at(CURSOR_BYTES);
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
            |secret: &[u8], kind, filter: &[u8]| PageTokens::new(Hmac::new_from_slice(secret).unwrap(), kind, filter);
        let ours = tokens(b"secret", Kind::Stock, b"f");
        let at = Place { source: Source { partition: 7, part: 2 }, cursor: u64::MAX - 1 };
        let text = ours.encode(Some(at));
        assert_eq!((ours.decode(&text), ours.decode(""), ours.encode(None)), (Ok(Some(at)), Ok(None), String::new()));
        for others in [
            tokens(b"secret", Kind::Reservations, b"f"),
            tokens(b"another", Kind::Stock, b"f"),
            tokens(b"secret", Kind::Stock, b"g"),
            tokens(b"secret", Kind::Stock, b""),
        ] {
            assert_eq!(others.decode(&text), Err(bad_token()));
        }
        for bad in ["A", "AAAA", "!", &text[1..], &format!("{text}AA"), &"A".repeat(1 << 20)] {
            assert_eq!(ours.decode(bad), Err(bad_token()), "{bad}");
        }
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ours.decode(&URL_SAFE_NO_PAD.encode(flipped)), Err(bad_token()), "bit {bit}");
        }
    }

    #[test]
    fn a_page_has_a_size() {
        assert_eq!([0, 1, 1_000].map(decode_page_size), [Ok(100), Ok(1), Ok(1_000)]);
        for bad in [-1, 1_001, i32::MIN, i32::MAX] {
            assert_eq!(decode_page_size(bad), Err(Invalid::new(Reason::InvalidPageSize, "page_size")));
        }
    }
}
