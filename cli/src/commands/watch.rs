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

/// Clears the terminal, and goes to its first line.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// `sentinelctl watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The SKUs, up to 1,000; all of the namespace where none is named.
    #[arg(value_name = "SKU")]
    skus: Vec<String>,
    /// Shortest time between two changes of the picture, 10ms to 1h.
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
    /// Null: there is no such SKU, or not any more.
    stock: Option<&'a StockView>,
}

pub(crate) async fn run(session: &Session, args: WatchArgs) -> Result<bool, Failure> {
    let mut stop = Stop::new(args.length)?;
    let mut stream = session.namespace().watch_stock(args.skus).interval(args.interval);
    let (mut picture, mut breaks) = (Picture::default(), Breaks::default());
    loop {
        let news = tokio::select! {
            () = stop.wait() => return Ok(true),
            news = stream.next() => news,
        };
        let news = match news {
            Ok(news) => news,
            Err(error) => match breaks.survive(session, &error, &mut stop).await? {
                true => continue,
                false => return Ok(true),
            },
        };
        breaks.end();
        let changed = picture.learn(news);
        if session.output.is_json() {
            for (sku, stock) in &changed {
                session.output.json(&WatchedView { sku, stock: stock.as_ref() })?;
            }
        } else if picture.is_due(!changed.is_empty()) {
            picture.draw(session.output)?;
        }
    }
}

type Counters = BTreeMap<String, Option<StockView>>;

/// All counters as they were heard last.
#[derive(Default)]
struct Picture {
    skus: Counters,
    /// What a further snapshot has said so far: until it is complete the picture stays as it is.
    building: Option<Counters>,
    is_drawn: bool,
}

impl Picture {
    /// Takes in news; returns what is different from now on.
    fn learn(&mut self, news: StockUpdate) -> Vec<(String, Option<StockView>)> {
        let heard = news.skus.into_iter().map(|(sku, stock)| (sku, stock.as_ref().map(StockView::from)));
        if news.starts_over && !self.skus.is_empty() {
            self.building = Some(Counters::new());
        }
        if let (true, Some(building)) = (news.is_snapshot, &mut self.building) {
            building.extend(heard);
            return Vec::new();
        }
        // The first snapshot is shown as it comes, because there is no picture to keep meanwhile.
        let Some(mut complete) = self.building.take() else {
            let mut changed: Vec<_> = heard.collect();
            changed.retain(|(sku, stock)| self.skus.insert(sku.clone(), stock.clone()).as_ref() != Some(stock));
            return changed;
        };
        complete.extend(heard);
        // What was deleted while nobody heard of it is not part of the snapshot.
        let gone = self.skus.iter().filter(|(sku, stock)| stock.is_some() && !complete.contains_key(*sku));
        let mut changed: Vec<_> = gone.map(|(sku, _)| (sku.clone(), None)).collect();
        let others = complete.iter().filter(|&(sku, stock)| self.skus.get(sku) != Some(stock));
        changed.extend(others.map(|(sku, stock)| (sku.clone(), stock.clone())));
        self.skus = complete;
        changed
    }

    /// Whether there is something to draw.
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
