//! The measurement: rows that take turns, so other work of the machine affects all of them equally; and
//! ratios taken round by round, between neighbours in time.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    process::Durability,
    stats::{Run, Spread},
    workloads::Way,
};

/// Length of the first run of each row, which is not counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// The name of a row, and the promise of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: &'static str,
    /// `None`: nothing is kept at all.
    pub(crate) durability: Option<Durability>,
    /// Something else than this service as it is.
    pub(crate) is_peer: bool,
}

impl Name {
    /// As reports have it.
    pub(crate) fn durability(self) -> &'static str {
        self.durability.map_or("none", Durability::name)
    }
}

/// A way that takes part, under its name.
pub(crate) struct Contender {
    pub(crate) name: Name,
    pub(crate) way: Way,
}

impl Contender {
    async fn run(&self, round: usize, length: Duration, saturation: Option<f64>) -> Result<Run> {
        self.way.run(round, length, saturation).await.with_context(|| self.name.text.to_owned())
    }
}

/// The results of one of them in each round.
pub(crate) struct Row {
    pub(crate) name: Name,
    pub(crate) runs: Vec<Run>,
}

impl Row {
    pub(crate) fn spread(&self, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(figure))
    }
}

/// Lets the contenders take turns; what they have started ends with this.
pub(crate) async fn measure(contenders: Vec<Contender>, rounds: usize, length: Duration) -> Result<Vec<Row>> {
    for contender in &contenders {
        contender.run(0, WARM_UP, None).await?;
    }
    let mut rows: Vec<Row> = contenders.iter().map(|one| Row { name: one.name, runs: Vec::new() }).collect();
    for round in 1..=rounds {
        let mut saturation = None;
        for (contender, row) in contenders.iter().zip(&mut rows) {
            eprint!("\rround {round} of {rounds}: {:<40}", row.name.text);
            let run = contender.run(round, length, saturation).await?;
            saturation.get_or_insert(run.rate);
            row.runs.push(run);
        }
    }
    eprintln!("\r{:<60}\r", "");
    Ok(rows)
}

/// Which way a ratio is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

impl Better {
    /// The sign before a bound.
    pub(crate) fn sign(self) -> char {
        match self {
            Self::More => '≥',
            Self::Less => '≤',
        }
    }
}

/// A ratio to take.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    pub(crate) this: Name,
    pub(crate) that: Name,
    pub(crate) figure: fn(&Run) -> f64,
    pub(crate) better: Better,
    pub(crate) requirement: Option<Requirement>,
}

/// The requirement on a ratio: the value that it must reach, and the aim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requirement {
    pub(crate) must: f64,
    pub(crate) aim: f64,
}

/// A ratio that was taken.
pub(crate) struct Ratio {
    pub(crate) name: &'static str,
    pub(crate) spread: Spread,
    pub(crate) better: Better,
    /// `None` of one that only informs.
    pub(crate) requirement: Option<Requirement>,
}

impl Ratio {
    /// Whether it is what it must be; `None` without a requirement.
    pub(crate) fn holds(&self) -> Option<bool> {
        let must = self.requirement?.must;
        Some(match self.better {
            Better::More => self.spread.median >= must,
            Better::Less => self.spread.median <= must,
        })
    }
}

impl Wanted {
    /// `None` where a row of it was not measured.
    pub(crate) fn take(&self, rows: &[Row]) -> Option<Ratio> {
        let find = |name| rows.iter().find(|row| row.name == name);
        let (this, that) = (find(self.this)?, find(self.that)?);
        let ratios = this.runs.iter().zip(&that.runs).map(|(this, that)| (self.figure)(this) / (self.figure)(that));
        let &Wanted { name, better, requirement, .. } = self;
        Some(Ratio { name, spread: Spread::of(ratios)?, better, requirement })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Cpu, Latency, rate};

    const THIS: Name = Name { text: "this", durability: None, is_peer: false };
    const THAT: Name = Name { text: "that", durability: None, is_peer: true };

    fn row(name: Name, rates: &[f64]) -> Row {
        let latency = Latency { p50: 1.0, p99: 1.0, p999: 1.0 };
        let run = |&rate: &f64| Run { rate, latency, cpu: Cpu::default(), operations_per_batch: None };
        Row { name, runs: rates.iter().map(run).collect() }
    }

    fn wanted(better: Better, must: f64) -> Wanted {
        Wanted {
            name: "ratio",
            this: THIS,
            that: THAT,
            figure: rate,
            better,
            requirement: Some(Requirement { must, aim: must }),
        }
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let rows = [row(THAT, &[10.0, 100.0, 1000.0]), row(THIS, &[20.0, 100.0, 4000.0])];
        // Of the medians of both it would be 1.
        let ratio = wanted(Better::More, 1.0).take(&rows).unwrap();
        assert_eq!(ratio.spread, Spread { lowest: 1.0, median: 2.0, highest: 4.0 });
        assert!(wanted(Better::More, 1.0).take(&rows[..1]).is_none());
    }

    #[test]
    fn what_must_be_is_met_or_not() {
        let rows = [row(THIS, &[2.0]), row(THAT, &[1.0])];
        let holds = |better, must| wanted(better, must).take(&rows).unwrap().holds();
        assert_eq!([holds(Better::More, 1.9), holds(Better::More, 2.1)], [Some(true), Some(false)]);
        assert_eq!([holds(Better::Less, 1.9), holds(Better::Less, 2.1)], [Some(false), Some(true)]);
        let informs = Wanted { requirement: None, ..wanted(Better::More, 1.0) };
        assert_eq!(informs.take(&rows).unwrap().holds(), None);
    }
}
