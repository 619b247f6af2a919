//! What was measured, for people and for programs: Markdown, and the JSON of `target/bench/report.json`.
//! Writes files and nothing else.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    figures::{Run, p50, p99, rate, server_cpu, store_cpu},
    lab::{Better, Ratio, Row},
    machine::Machine,
};

/// All of one measurement.
pub(crate) struct Report<'a> {
    pub(crate) date: String,
    pub(crate) machine: &'a Machine,
    pub(crate) method: String,
    pub(crate) rows: &'a [Row],
    pub(crate) ratios: Vec<Ratio>,
    /// What was not measured, and why.
    pub(crate) absent: Vec<String>,
}

impl Report<'_> {
    pub(crate) fn markdown(&self) -> String {
        let machine = self.machine;
        let mut out = String::new();
        let _ = writeln!(
            out,
            "Measured on {} on {} ({} cores, {:.0} GiB), {}, {}; an fdatasync takes {:.0} us (median). {}\n",
            self.date,
            machine.processor,
            machine.cores,
            machine.memory_gib,
            machine.kernel,
            machine.store,
            machine.fdatasync_us.median,
            self.method,
        );
        out += &self.rows_table();
        out.push('\n');
        out += &self.ratios_table();
        for absent in &self.absent {
            let _ = writeln!(out, "\nNot measured: {absent}.");
        }
        out
    }

    fn rows_table(&self) -> String {
        let mut out =
            "| row | durability | answers/s | p50 us | p99 us | client CPU us | server CPU us | store CPU us |\n\
                       |---|---|---|---|---|---|---|---|\n"
                .to_owned();
        for row in self.rows {
            let median = |figure: fn(&Run) -> f64| row.spread(figure).map_or(f64::NAN, |spread| spread.median);
            let _ = writeln!(
                out,
                "| {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} |",
                row.name,
                row.durability,
                median(rate),
                median(p50),
                median(p99),
                median(|run| run.cpu.client),
                median(server_cpu),
                median(store_cpu),
            );
        }
        out
    }

    fn ratios_table(&self) -> String {
        let mut out =
            "| ratio | median of the rounds | lowest | highest | must | aim | holds |\n|---|---|---|---|---|---|---|\n"
                .to_owned();
        for ratio in &self.ratios {
            let sign = if ratio.better == Better::More { "≥" } else { "≤" };
            let _ = writeln!(
                out,
                "| `{}` | {:.3} | {:.3} | {:.3} | {sign} {} | {sign} {} | {} |",
                ratio.name,
                ratio.spread.median,
                ratio.spread.lowest,
                ratio.spread.highest,
                ratio.must,
                ratio.aim,
                if ratio.holds() { "yes" } else { "**no**" },
            );
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let ratios = self.ratios.iter().map(|ratio| {
            let figures = json!({
                "median": ratio.spread.median, "lowest": ratio.spread.lowest, "highest": ratio.spread.highest,
                "must": ratio.must, "aim": ratio.aim, "less_is_better": ratio.better == Better::Less,
                "holds": ratio.holds(),
            });
            (ratio.name.to_owned(), figures)
        });
        let rows =
            self.rows.iter().map(|row| json!({"name": row.name, "durability": row.durability, "runs": row.runs}));
        json!({
            "date": self.date,
            "machine": self.machine,
            "method": self.method,
            "units": {"rate": "answers per second", "latency": "microseconds", "cpu": "microseconds per answer"},
            "ratios": ratios.collect::<serde_json::Map<_, _>>(),
            "rows": rows.collect::<Vec<_>>(),
            "absent": self.absent,
        })
    }
}

/// Writes a file, and the folders above it.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, text)?)
}
