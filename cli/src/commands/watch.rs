//! `sentinelctl watch`: the counters of SKUs as they change, until Ctrl-C.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use inventory_sentinel_client::StockNews;
use serde::Serialize;

use crate::{
    failure::Failure,
    output::{Output, Row as _},
    session::Session,
    stop::Stop,
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
    let mut picture = Picture::default();
    loop {
        let news = tokio::select! {
            () = stop.wait() => return Ok(true),
            news = stream.next() => news.map_err(|error| session.unread(&error))?,
        };
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

/// All counters as they were heard last.
#[derive(Default)]
struct Picture {
    skus: BTreeMap<String, Option<StockView>>,
    is_complete: bool,
    is_drawn: bool,
}

impl Picture {
    /// Takes in news; returns them.
    fn learn(&mut self, news: StockNews) -> Vec<(String, Option<StockView>)> {
        if news.begins_anew {
            self.skus.clear();
            self.is_drawn = false;
        }
        self.is_complete = !news.is_snapshot;
        let changed = news.skus.into_iter().map(|(sku, stock)| (sku, stock.as_ref().map(StockView::from)));
        let changed: Vec<_> = changed.collect();
        for (sku, stock) in &changed {
            self.skus.insert(sku.clone(), stock.clone());
        }
        changed
    }

    /// Whether there is something new to draw. What a snapshot has told so far is no picture yet.
    fn is_due(&mut self, has_changed: bool) -> bool {
        let is_due = self.is_complete && (has_changed || !self.is_drawn);
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
