//! `sentinelctl watch`: the counters of SKUs as they change, until Ctrl-C.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use inventory_sentinel_client::StockUpdate;
use serde::Serialize;

use crate::{
    failure::Failure,
    output::{Output, Row as _},
    session::Session,
    stop::{Breaks, Stop},
    table::Table,
    values::positive_duration,
    views::stock::StockView,
};

/// Clears the terminal and moves the cursor to the first line.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// `sentinelctl watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The SKUs, up to 1,000; default: all of the namespace.
    #[arg(value_name = "SKU")]
    skus: Vec<String>,
    /// Shortest time between two updates, 10ms to 1h.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, default_value = "1s")]
    interval: Duration,
    /// End after this time.
    #[arg(long = "for", value_name = "DURATION", value_parser = positive_duration)]
    length: Option<Duration>,
}

/// A change, as WatchStock has it.
#[derive(Debug, Serialize)]
struct WatchedView<'a> {
    sku: &'a str,
    /// Null: the SKU does not exist, or was deleted.
    stock: Option<&'a StockView>,
}

pub(crate) async fn run(session: &Session, args: WatchArgs) -> Result<bool, Failure> {
    let mut stop = Stop::new(args.length)?;
    let mut stream = session.namespace().watch_stock(args.skus).interval(args.interval);
    let (mut table, mut breaks) = (StockTable::default(), Breaks::default());
    loop {
        let update = tokio::select! {
            () = stop.wait() => return Ok(true),
            update = stream.next() => update,
        };
        let update = match update {
            Ok(update) => update,
            Err(error) => match breaks.survive(session, &error, &mut stop).await? {
                true => continue,
                false => return Ok(true),
            },
        };
        breaks.end();
        let changed = table.apply(update);
        if session.output.is_json() {
            for (sku, stock) in &changed {
                session.output.json(&WatchedView { sku, stock: stock.as_ref() })?;
            }
        } else if table.is_due(!changed.is_empty()) {
            table.draw(session.output)?;
        }
    }
}

type Counters = BTreeMap<String, Option<StockView>>;

/// The latest counters.
#[derive(Default)]
struct StockTable {
    skus: Counters,
    /// The counters of an incomplete snapshot. Until it is complete, `skus` stay in force.
    building: Option<Counters>,
    is_drawn: bool,
}

impl StockTable {
    /// Applies an update; returns the changed counters.
    fn apply(&mut self, update: StockUpdate) -> Vec<(String, Option<StockView>)> {
        let received = update.skus.into_iter().map(|(sku, stock)| (sku, stock.as_ref().map(StockView::from)));
        if update.starts_over && !self.skus.is_empty() {
            self.building = Some(Counters::new());
        }
        if let (true, Some(building)) = (update.is_snapshot, &mut self.building) {
            building.extend(received);
            return Vec::new();
        }
        // The first snapshot is shown page by page: there are no earlier counters.
        let Some(mut complete) = self.building.take() else {
            let mut changed: Vec<_> = received.collect();
            changed.retain(|(sku, stock)| self.skus.insert(sku.clone(), stock.clone()).as_ref() != Some(stock));
            return changed;
        };
        complete.extend(received);
        // SKUs that were deleted during an interruption are not part of the snapshot.
        let gone = self.skus.iter().filter(|(sku, stock)| stock.is_some() && !complete.contains_key(*sku));
        let mut changed: Vec<_> = gone.map(|(sku, _)| (sku.clone(), None)).collect();
        let others = complete.iter().filter(|&(sku, stock)| self.skus.get(sku) != Some(stock));
        changed.extend(others.map(|(sku, stock)| (sku.clone(), stock.clone())));
        self.skus = complete;
        changed
    }

    /// Whether to draw.
    fn is_due(&mut self, has_changed: bool) -> bool {
        let is_due = self.building.is_none() && (has_changed || !self.is_drawn);
        self.is_drawn |= is_due;
        is_due
    }

    fn draw(&self, output: Output) -> Result<(), Failure> {
        let mut table = Table::new(StockView::COLUMNS);
        self.skus.values().flatten().for_each(|stock| table.push(stock.cells()));
        let before = if output.can_redraw() { CLEAR } else { "" };
        Ok(output.text(&format!("{before}{table}\n"))?)
    }
}
