//! Compares the ledger with the server's counters, its audit, and every acknowledged reservation.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use inventory_sentinel_client::{Audit, Reservation, State, Stock};
use tokio::task::JoinSet;

use super::{
    ledger::{End, Entry, Ledger},
    plan::Plan,
    shop::Shop,
};
use crate::failure::Failure;

/// Reservations read at the same time.
const READERS: usize = 256;

/// The result of the comparison.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) committed: u64,
    pub(crate) rolled_back: u64,
    pub(crate) expired: u64,
    /// Units sold or acknowledged beyond the supply.
    pub(crate) oversold: u64,
    /// Units that no counter contains, and acknowledged reservations that are missing or different on the server.
    pub(crate) lost: u64,
    pub(crate) products: Vec<Product>,
    pub(crate) audit: AuditResult,
    /// Every difference; empty if the sale was exact.
    pub(crate) problems: Vec<String>,
}

/// One product: the ledger and the server's counters.
#[derive(Debug)]
pub(crate) struct Product {
    pub(crate) sku: String,
    /// Units that the demo supplied.
    pub(crate) supply: i64,
    /// Committed units in the ledger.
    pub(crate) ledger: i64,
    pub(crate) counters: Counters,
}

/// The server's counters of a product, or of all, in units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) supplied: i64,
    pub(crate) available: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
}

/// The server's audit.
#[derive(Debug)]
pub(crate) struct AuditResult {
    pub(crate) clean: bool,
    pub(crate) counters: Counters,
    findings: Vec<String>,
    pending: i64,
}

/// An acknowledged reservation on the server.
#[derive(Clone, Debug)]
struct Found {
    state: State,
    /// SKU and units, by line.
    sold: Vec<(String, i32)>,
}

/// The units supplied by product, and whether every unit must be sold.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) supplies: Vec<u32>,
    pub(crate) sold_out: bool,
}

/// Reads the counters, the audit and the reservations, and compares them with the ledger.
pub(crate) async fn run(shop: &Shop, plan: &Plan, ledger: &Ledger, expected: &Expected) -> Result<Verdict, Failure> {
    let entries = ledger.entries();
    let found = read_all(shop, &entries).await?;
    let mut products = Vec::with_capacity(plan.skus.len());
    for (index, (sku, &supply)) in plan.skus.iter().zip(&expected.supplies).enumerate() {
        let parts = entries.iter().flat_map(|entry| &entry.parts).filter(|part| part.product == index);
        products.push(Product {
            sku: sku.clone(),
            supply: supply.into(),
            ledger: parts.map(|part| i64::from(part.sold)).sum(),
            counters: shop.stock(sku).await?.into(),
        });
    }
    let audit = shop.audit().await?.into();
    let mut verdict = compare(&entries, &found, products, audit, expected.sold_out);
    // Violations seen by buyers come first: the rest often follows from them.
    verdict.problems.splice(0..0, ledger.violation_texts());
    Ok(verdict)
}

/// Reads every acknowledged reservation, in the order of `entries`.
async fn read_all(shop: &Shop, entries: &[Entry]) -> Result<Vec<Option<Found>>, Failure> {
    let ids: Arc<[String]> = entries.iter().map(|entry| entry.id.clone()).collect();
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (shop, ids, next) = (shop.clone(), Arc::clone(&ids), Arc::clone(&next));
        readers.spawn(async move {
            let mut read = Vec::new();
            loop {
                let index = next.fetch_add(1, Relaxed);
                let Some(id) = ids.get(index) else {
                    return Ok::<_, Failure>(read);
                };
                let found = shop.reservation(id).await?;
                read.push((index, found.map(|snapshot| Found::from(snapshot.value))));
            }
        });
    }
    let mut found = vec![None; ids.len()];
    while let Some(reader) = readers.join_next().await {
        let read = reader.map_err(|error| Failure::Failed(format!("a reader failed: {error}")))?;
        for (index, reservation) in read? {
            found[index] = reservation;
        }
    }
    Ok(found)
}

/// The comparison. Pure.
fn compare(
    entries: &[Entry],
    found: &[Option<Found>],
    products: Vec<Product>,
    audit: AuditResult,
    sold_out: bool,
) -> Verdict {
    let left = |supply: i64, sold: i64| if sold_out { 0 } else { supply - sold };
    let mut problems = Vec::new();
    let mut oversold = 0;
    let mut lost = 0;

    let mut ids = HashSet::with_capacity(entries.len());
    for (entry, found) in entries.iter().zip(found) {
        if !ids.insert(&entry.id) {
            oversold += 1;
            problems.push(format!("{} was reserved for two buyers", entry.id));
        }
        if let Some(problem) = difference(entry, found.as_ref(), &products) {
            lost += 1;
            problems.push(problem);
        }
    }
    for Product { sku, supply, ledger, counters } in &products {
        oversold += positive(counters.sold.max(*ledger) - supply);
        lost += positive(supply - (counters.available + counters.held + counters.sold));
        let must = [
            ("supplied", counters.supplied, *supply),
            ("sold", counters.sold, *ledger),
            ("available", counters.available, left(*supply, *ledger)),
            ("held", counters.held, 0),
        ];
        require_equal(&mut problems, sku, &must);
    }
    let (supply, sold) = (sum(&products, |p| p.supply), sum(&products, |p| p.ledger));
    let must = [
        ("supplied", audit.counters.supplied, supply),
        ("sold", audit.counters.sold, sold),
        ("available", audit.counters.available, left(supply, sold)),
        ("held", audit.counters.held, 0),
        ("pending reservations", audit.pending, 0),
    ];
    require_equal(&mut problems, "audit", &must);
    problems.extend(audit.findings.iter().cloned());
    if !audit.clean && audit.findings.is_empty() {
        problems.push("audit: not clean".to_owned());
    }

    let ended = |end: End| entries.iter().filter(|entry| entry.end == end).count() as u64;
    Verdict {
        committed: ended(End::Committed),
        rolled_back: ended(End::RolledBack),
        expired: ended(End::Expired),
        oversold,
        lost,
        products,
        audit,
        problems,
    }
}

/// The difference between a reservation on the server and in the ledger, if any.
fn difference(entry: &Entry, found: Option<&Found>, products: &[Product]) -> Option<String> {
    let id = &entry.id;
    let Some(found) = found else {
        return Some(format!("{id} was acknowledged and does not exist"));
    };
    let state = match entry.end {
        End::Committed => State::Committed,
        End::RolledBack => State::RolledBack,
        End::Expired => State::Expired,
        End::Lost => return Some(format!("{id} was acknowledged and could not be resolved")),
    };
    let is = found.sold.iter().map(|(sku, sold)| (sku.as_str(), i64::from(*sold)));
    let expected = entry.parts.iter().map(|part| (products[part.product].sku.as_str(), i64::from(part.sold)));
    (found.state != state || !is.eq(expected))
        .then(|| format!("{id} is {:?} with {:?} sold; the ledger has {entry:?}", found.state, found.sold))
}

fn require_equal(problems: &mut Vec<String>, whose: &str, must: &[(&str, i64, i64)]) {
    for (what, is, must) in must {
        if is != must {
            problems.push(format!("{whose}: {what} is {is}, not {must}"));
        }
    }
}

fn sum(products: &[Product], what: impl Fn(&Product) -> i64) -> i64 {
    products.iter().map(what).sum()
}

fn positive(difference: i64) -> u64 {
    u64::try_from(difference).unwrap_or(0)
}

impl From<Reservation> for Found {
    fn from(reservation: Reservation) -> Found {
        Found {
            state: reservation.state,
            sold: reservation.lines.into_iter().map(|line| (line.sku, line.sold)).collect(),
        }
    }
}

impl From<Stock> for Counters {
    fn from(stock: Stock) -> Counters {
        Counters { supplied: stock.supplied, available: stock.available, held: stock.held, sold: stock.sold }
    }
}

impl From<Audit> for AuditResult {
    fn from(audit: Audit) -> AuditResult {
        let findings = audit.findings.iter();
        AuditResult {
            clean: audit.clean,
            counters: Counters {
                supplied: audit.supplied,
                available: audit.available,
                held: audit.held,
                sold: audit.sold,
            },
            findings: findings.map(|finding| format!("audit: {finding:?}")).collect(),
            pending: audit.pending_reservations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ledger::Part;

    /// A sale of three units that went well: each unit sold, one after having been given back.
    struct Sale {
        entries: Vec<Entry>,
        found: Vec<Option<Found>>,
        counters: Counters,
        ledger: i64,
        audit: AuditResult,
        sold_out: bool,
    }

    fn entry(n: usize, end: End) -> Entry {
        let sold = u32::from(end == End::Committed);
        Entry { id: format!("r{n}"), parts: vec![Part { product: 0, sold }], end }
    }

    fn found(state: State, sold: i32) -> Found {
        Found { state, sold: vec![("p".into(), sold)] }
    }

    fn sale() -> Sale {
        let ends = [
            (End::Committed, State::Committed),
            (End::RolledBack, State::RolledBack),
            (End::Committed, State::Committed),
            (End::Expired, State::Expired),
            (End::Committed, State::Committed),
        ];
        let counters = Counters { supplied: 3, available: 0, held: 0, sold: 3 };
        Sale {
            entries: (0..).zip(ends).map(|(n, (end, _))| entry(n, end)).collect(),
            found: ends.iter().map(|&(end, state)| Some(found(state, i32::from(end == End::Committed)))).collect(),
            counters,
            ledger: 3,
            audit: AuditResult { clean: true, counters, findings: Vec::new(), pending: 0 },
            sold_out: true,
        }
    }

    impl Sale {
        /// Oversold, lost, and whether anything is wrong.
        fn compared(self) -> (u64, u64, bool) {
            let product = Product { sku: "p".into(), supply: 3, ledger: self.ledger, counters: self.counters };
            let verdict = compare(&self.entries, &self.found, vec![product], self.audit, self.sold_out);
            (verdict.oversold, verdict.lost, !verdict.problems.is_empty())
        }
    }

    #[test]
    fn an_exact_sale_is_exact() {
        assert_eq!(sale().compared(), (0, 0, false));
    }

    #[test]
    fn a_unit_sold_beyond_the_supply_is_oversold() {
        let mut oversold_counter = sale();
        oversold_counter.counters.sold = 4;
        assert_eq!(oversold_counter.compared(), (1, 0, true));
        let mut oversold_ledger = sale();
        oversold_ledger.ledger = 4;
        assert_eq!(oversold_ledger.compared(), (1, 0, true));
        let mut two_buyers = sale();
        two_buyers.entries[2].id = "r0".into();
        assert_eq!(two_buyers.compared(), (1, 0, true));
    }

    #[test]
    fn a_unit_that_is_nowhere_is_lost() {
        let mut sale = sale();
        sale.counters.sold = 2;
        assert_eq!(sale.compared(), (0, 1, true));
    }

    #[test]
    fn an_acknowledged_reservation_must_be_as_told() {
        let mut unknown = sale();
        unknown.found[0] = None;
        assert_eq!(unknown.compared(), (0, 1, true));
        for (index, state, sold) in
            [(0, State::Expired, 0), (0, State::Committed, 2), (1, State::Committed, 1), (3, State::Pending, 0)]
        {
            let mut other = sale();
            other.found[index] = Some(found(state, sold));
            assert_eq!(other.compared(), (0, 1, true), "{index}");
        }
        let mut refused = sale();
        refused.entries[0].end = End::Lost;
        assert_eq!(refused.compared(), (0, 1, true));
    }

    #[test]
    fn what_is_left_over_or_pending_or_found_is_a_problem() {
        let mut left = sale();
        left.counters = Counters { available: 1, sold: 2, ..left.counters };
        assert_eq!(left.compared(), (0, 0, true));
        let mut pending = sale();
        pending.audit.pending = 1;
        assert_eq!(pending.compared(), (0, 0, true));
        let mut unclean = sale();
        unclean.audit.clean = false;
        assert_eq!(unclean.compared(), (0, 0, true));
    }

    #[test]
    fn a_sale_that_need_not_sell_out_keeps_exactly_the_rest() {
        // One reservation was rolled back, in the ledger and on the server.
        let rest = |available| {
            let mut rest = sale();
            rest.sold_out = false;
            rest.entries[4] = entry(4, End::RolledBack);
            rest.found[4] = Some(found(State::RolledBack, 0));
            rest.ledger = 2;
            rest.counters = Counters { available, sold: 2, ..rest.counters };
            rest.audit.counters = rest.counters;
            rest.compared()
        };
        assert_eq!(rest(1), (0, 0, false));
        assert_eq!(rest(0), (0, 1, true));
    }

    #[test]
    fn units_of_another_line_than_was_told_are_lost() {
        let mut other = sale();
        other.found[0] = Some(Found { state: State::Committed, sold: vec![("q".into(), 1)] });
        assert_eq!(other.compared(), (0, 1, true));
    }
}
