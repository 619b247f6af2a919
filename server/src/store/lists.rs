//! Lists of namespaces, stock and reservations, one page at a time. Reads with SSCAN and HSCAN in bounded steps.
//! Changes nothing.
//!
//! A scan returns each element that exists from its start to its end. It may return an element that was added or
//! removed meanwhile, and it may return an element twice. Redis keeps no state of a scan: a [`Place`] is all of it.

use deadpool_redis::redis::{self, cmd};

use super::{
    error::StoreError,
    keys::{NAMESPACES, PartitionKeys},
    pool::Connection,
    wire::{is_memo, reservation_from, stock_from},
};
use crate::domain::{BuyerId, Id, NamespaceName, Reservation, ReservationId, Sku, State, Stock};

/// The most elements that one step requests.
const STEP: usize = 250;
/// The most steps of one page. With [`STEP`], a page reads at most 10,000 elements.
const MAX_STEPS: usize = 40;
/// A page with this many bytes of records is full, whatever its size: the response has to fit into a message.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// A position in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: Source,
    pub(crate) cursor: u64,
}

/// One key of a list: its partition, and its number if a partition has several keys in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) partition: u16,
    pub(crate) part: u8,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Where the next page begins; `None` after the last.
    pub(crate) next: Option<Place>,
}

/// The size and the start of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) size: usize,
    /// `None`: the start of the list.
    pub(crate) from: Option<Place>,
}

/// The parts of a partition that has reservations.
pub(crate) const GENERATIONS: [u8; 2] = [0, 1];
/// The only source of a list of namespaces, and the first source of each partition.
const FIRST: Source = Source { partition: 0, part: 0 };

/// A page of the namespaces that `is_listed` selects. An invalid name is left out; the sweeper reports it.
pub(crate) async fn namespaces(
    connection: &mut Connection,
    range: Range,
    is_listed: impl Fn(&NamespaceName) -> bool,
) -> Result<Page<NamespaceName>, StoreError> {
    let list = List { command: "SSCAN", width: 1, sources: &[(FIRST, NAMESPACES)] };
    list.page(connection, range, |_, names| Ok(NamespaceName::from_store(&names[0]).filter(&is_listed))).await
}

/// A page of the SKUs in these partitions.
pub(crate) async fn stock(
    connection: &mut Connection,
    partitions: &[(u16, PartitionKeys)],
    range: Range,
) -> Result<Page<(Sku, Stock)>, StoreError> {
    let source = |partition: &u16| Source { partition: *partition, ..FIRST };
    let sources: Vec<_> = partitions.iter().map(|(partition, keys)| (source(partition), keys.stock())).collect();
    let list = List { command: "HSCAN", width: 2, sources: &sources };
    list.page(connection, range, |_, record| {
        let entry = Sku::from_store(&record[0]).zip(stock_from(&record[1]));
        entry.map(Some).ok_or_else(|| StoreError::corrupt("a stock record"))
    })
    .await
}

/// The number of SKUs in these partitions.
pub(crate) async fn count_stock(
    connection: &mut Connection,
    partitions: &[(u16, PartitionKeys)],
) -> Result<u64, StoreError> {
    let mut count = 0;
    for (_, keys) in partitions {
        let reply = connection.send(cmd("HLEN").arg(keys.stock())).await?;
        let skus: u64 = redis::from_redis_value(reply).map_err(|error| StoreError::corrupt(error.to_string()))?;
        count += skus;
    }
    Ok(count)
}

/// The criteria for a list of reservations.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) sku: Option<Sku>,
    /// Empty: any buyer.
    pub(crate) buyer: BuyerId,
    /// At least one.
    pub(crate) states: Vec<State>,
}

impl Filter {
    fn passes(&self, reservation: &Reservation) -> bool {
        let is_pending = reservation.state == State::Pending;
        let has = |sku: &Sku| reservation.lines.iter().any(|line| line.sku == *sku && (!is_pending || line.held() > 0));
        (self.buyer.as_str().is_empty() || self.buyer == reservation.buyer)
            && self.states.contains(&reservation.state)
            && self.sku.as_ref().is_none_or(has)
    }
}

/// A page of the reservations in these partitions.
pub(crate) async fn reservations(
    connection: &mut Connection,
    partitions: &[(u16, PartitionKeys)],
    filter: &Filter,
    range: Range,
) -> Result<Page<Reservation>, StoreError> {
    let mut sources = Vec::new();
    for (partition, keys) in partitions {
        let source = |part| Source { partition: *partition, part };
        sources.extend(GENERATIONS.into_iter().map(source).zip(keys.records()));
    }
    let list = List { command: "HSCAN", width: 2, sources: &sources };
    list.page(connection, range, |source, element| {
        let reservation = reservation_in(source.partition, element)?;
        Ok(reservation.filter(|reservation| filter.passes(reservation)))
    })
    .await
}

/// Decodes an element of a generation: an id and a record. `None` if it is a remembered request.
pub(super) fn reservation_in(partition: u16, element: &[Vec<u8>]) -> Result<Option<Reservation>, StoreError> {
    if is_memo(&element[1]) {
        return Ok(None);
    }
    let id = Id::try_from(element[0].as_slice()).map_err(|_| StoreError::corrupt("the id of a reservation"))?;
    let reservation = reservation_from(ReservationId { id, partition }, &element[1]);
    reservation.map(Some).ok_or_else(|| StoreError::corrupt("the record of a reservation"))
}

/// One step of a scan. Returns the next cursor, 0 after the last step, and the elements.
pub(super) async fn scan(
    connection: &mut Connection,
    command: &str,
    key: &str,
    cursor: u64,
    count: usize,
) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
    let reply = connection.send(cmd(command).arg(key).arg(cursor).arg("COUNT").arg(count)).await?;
    redis::from_redis_value(reply).map_err(|error| StoreError::corrupt(error.to_string()))
}

/// A list over several keys.
struct List<'a> {
    command: &'static str,
    /// The number of strings of one element.
    width: usize,
    /// In order, each with the key to scan.
    sources: &'a [(Source, &'a str)],
}

impl List<'_> {
    /// Scans until the page is full, the list ends, or [`MAX_STEPS`] are done. `read` decodes an element; it returns
    /// `None` for one that is not requested.
    async fn page<T>(
        &self,
        connection: &mut Connection,
        Range { size, from }: Range,
        read: impl Fn(Source, &[Vec<u8>]) -> Result<Option<T>, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut next = from.or_else(|| Some(Place { source: self.sources.first()?.0, cursor: 0 }));
        let mut count = size.min(STEP);
        for _ in 0..MAX_STEPS {
            let room = size - items.len().min(size);
            let Some(place) = next.filter(|_| room > 0 && bytes < MAX_PAGE_BYTES) else {
                break;
            };
            let Some(&(source, key)) = self.sources.iter().find(|source| source.0 == place.source) else {
                return Ok(Page { items, next: None });
            };
            let (cursor, elements) = scan(connection, self.command, key, place.cursor, count).await?;
            let mut found = Vec::new();
            let mut found_bytes = 0;
            for element in elements.chunks_exact(self.width) {
                if let Some(item) = read(source, element)? {
                    found.push(item);
                    found_bytes += element.iter().map(Vec::len).sum::<usize>();
                }
            }
            if found.len() > room && count > room {
                // A shorter step from the same place may fit.
                count = room;
                continue;
            }
            if found.len() > room && !items.is_empty() {
                break;
            }
            // Longer steps while few elements match.
            let longer = found.is_empty().then_some(count * 2);
            bytes += found_bytes;
            items.extend(found);
            count = longer.unwrap_or(size - items.len().min(size)).clamp(1, STEP);
            next = self.after(place, cursor);
        }
        Ok(Page { items, next })
    }

    /// The place behind a step that ended with this cursor.
    fn after(&self, place: Place, cursor: u64) -> Option<Place> {
        if cursor != 0 {
            return Some(Place { cursor, ..place });
        }
        let following = self.sources.iter().find(|source| source.0 > place.source)?;
        Some(Place { source: following.0, cursor: 0 })
    }
}
