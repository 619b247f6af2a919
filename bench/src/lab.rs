//! The measurement: rows that take turns, so that what the machine does meanwhile meets all of them alike; and
//! ratios taken round by round, between neighbours in time.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    figures::{Run, Spread, rate},
    ways::Way,
};

/// Length of the first run of each row, which is not counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// One way, and what it did in each round.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// `fast`, `durable` or `-`, where nothing is kept.
    pub(crate) durability: &'static str,
    pub(crate) way: Way,
    pub(crate) runs: Vec<Run>,
}

impl Row {
    pub(crate) fn new(name: &'static str, durability: &'static str, way: Way) -> Self {
        Self { name, durability, way, runs: Vec::new() }
    }

    async fn run(&self, round: usize, length: Duration, saturation: Option<f64>) -> Result<Run> {
        self.way.run(round, length, saturation).await.with_context(|| self.name.to_owned())
    }

    pub(crate) fn spread(&self, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(figure))
    }
}

/// Lets the rows take turns.
pub(crate) async fn measure(rows: &mut [Row], rounds: usize, length: Duration) -> Result<()> {
    for row in &mut *rows {
        row.run(0, WARM_UP, None).await?;
    }
    for round in 1..=rounds {
        let mut saturation = None;
        for row in &mut *rows {
            eprint!("\rround {round} of {rounds}: {:<40}", row.name);
            let run = row.run(round, length, saturation).await?;
            saturation.get_or_insert(run.rate);
            row.runs.push(run);
        }
    }
    eprintln!("\r{:<60}\r", "");
    debug_assert!(rows.iter().all(|row| row.spread(rate).is_some()));
    Ok(())
}

/// Which way a ratio is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// A ratio to take.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    pub(crate) this: &'static str,
    pub(crate) that: &'static str,
    pub(crate) figure: fn(&Run) -> f64,
    pub(crate) better: Better,
    /// What it must reach; what we aim at.
    pub(crate) must: f64,
    pub(crate) aim: f64,
}

/// A ratio that was taken.
pub(crate) struct Ratio {
    pub(crate) name: &'static str,
    pub(crate) spread: Spread,
    pub(crate) better: Better,
    pub(crate) must: f64,
    pub(crate) aim: f64,
}

impl Ratio {
    pub(crate) fn holds(&self) -> bool {
        match self.better {
            Better::More => self.spread.median >= self.must,
            Better::Less => self.spread.median <= self.must,
        }
    }
}

impl Wanted {
    /// `None` where a row of it was not measured.
    pub(crate) fn take(&self, rows: &[Row]) -> Option<Ratio> {
        let find = |name| rows.iter().find(|row| row.name == name);
        let (this, that) = (find(self.this)?, find(self.that)?);
        let ratios = this.runs.iter().zip(&that.runs).map(|(this, that)| (self.figure)(this) / (self.figure)(that));
        let &Wanted { name, better, must, aim, .. } = self;
        Some(Ratio { name, spread: Spread::of(ratios)?, better, must, aim })
    }
}
