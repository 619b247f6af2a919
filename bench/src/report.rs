//! The results, for people and for programs: Markdown, and the JSON of `target/bench/report.json`.
//! Makes text and writes files, nothing else.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    machine::Machine,
    runner::{Better, Ratio, Requirement, Row},
    stats::{Run, client_cpu, operations_per_batch, p50, p99, p999, rate, server_cpu, store_cpu},
};

/// All of one measurement.
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) method: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) ratios: Vec<Ratio>,
    /// The rows that were not measured, and why.
    pub(crate) absent: Vec<String>,
}

/// How it was measured, in words.
pub(crate) fn method(rounds: u16, seconds: u64) -> String {
    format!(
        "Callers, server and store share the machine. {rounds} interleaved rounds of {seconds} s: in each every row \
         has its turn; figures are medians of the rounds, and a ratio is taken within each. 512 callers at once in a \
         closed loop, unless the row states another number; in an open loop calls come at random at a rate, are started \
         within a millisecond of when they are due, and their latency counts from then. CPU is in microseconds per \
         answer: that of callers, server and PostgreSQL from /proc, that of Redis from its INFO (used_cpu_user + used_cpu_sys, which has to agree with /proc; a child \
         that rewrites its log is not in it). Durability: a `fast` answer is in memory and synced within a second, a \
         `durable` one is synced before it is given; `none` keeps nothing."
    )
}

impl Report {
    pub(crate) fn markdown(&self) -> String {
        let parts = [&self.measured(), &self.method, &self.rows_table(), &self.ratios_table(), &self.not_measured()];
        parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| format!("{}\n", part.trim_end()))
            .collect::<Vec<_>>()
            .join("\n")
    }

    pub(crate) fn not_measured(&self) -> String {
        self.absent.iter().map(|absent| format!("Not measured: {absent}.\n")).collect::<Vec<_>>().join("\n")
    }

    /// When, and on what.
    pub(crate) fn measured(&self) -> String {
        let Machine { processor, cores, memory_gib, kernel, store, sql, go, rust, fdatasync_us } = &self.machine;
        format!(
            "Measured on {} on {processor} ({cores} cores, {memory_gib:.0} GiB), {kernel}; {store}; {sql}; {go}; {rust}; \
             an fdatasync takes {:.0} us (median; {:.0} to {:.0}).",
            self.date, fdatasync_us.median, fdatasync_us.lowest, fdatasync_us.highest,
        )
    }

    pub(crate) fn rows_table(&self) -> String {
        let mut out = "| row | durability | answers/s | p50 us | p99 us | p99.9 us | client CPU us | server CPU us \
                       | store CPU us | operations per batch |\n|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for row in &self.rows {
            let median = |figure: fn(&Run) -> f64, decimals| {
                cell(row.spread(figure).map_or(f64::NAN, |spread| spread.median), decimals)
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.name.text,
                row.name.durability(),
                median(rate, 0),
                median(p50, 0),
                median(p99, 0),
                median(p999, 0),
                median(client_cpu, 1),
                median(server_cpu, 1),
                median(store_cpu, 1),
                median(operations_per_batch, 1),
            );
        }
        out
    }

    pub(crate) fn ratios_table(&self) -> String {
        let mut out =
            "| ratio | median of the rounds | lowest | highest | must | aim | holds |\n|---|---|---|---|---|---|---|\n"
                .to_owned();
        for ratio in &self.ratios {
            let (must, aim) = match ratio.requirement {
                Some(Requirement { must, aim }) => {
                    (format!("{} {must}", ratio.better.sign()), format!("{} {aim}", ratio.better.sign()))
                }
                None => ("-".to_owned(), "-".to_owned()),
            };
            let holds = match ratio.holds() {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "-",
            };
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} | {must} | {aim} | {holds} |",
                ratio.name,
                cell(ratio.spread.median, 3),
                cell(ratio.spread.lowest, 3),
                cell(ratio.spread.highest, 3),
            );
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let ratios = self.ratios.iter().map(|ratio| {
            let figures = json!({
                "median": ratio.spread.median, "lowest": ratio.spread.lowest, "highest": ratio.spread.highest,
                "must": ratio.requirement.map(|requirement| requirement.must), "aim": ratio.requirement.map(|requirement| requirement.aim),
                "less_is_better": ratio.better == Better::Less, "holds": ratio.holds(),
            });
            (ratio.name.to_owned(), figures)
        });
        let rows = self
            .rows
            .iter()
            .map(|row| json!({"name": row.name.text, "durability": row.name.durability(), "runs": row.runs}));
        json!({
            "date": self.date,
            "machine": self.machine,
            "method": self.method,
            "units": {
                "rate": "answers per second", "latency": "microseconds", "cpu": "microseconds per answer",
                "operations_per_batch": "mean of the batches of the run",
            },
            "ratios": ratios.collect::<serde_json::Map<_, _>>(),
            "rows": rows.collect::<Vec<_>>(),
            "absent": self.absent,
        })
    }
}

/// A figure of a table; what there is none of is a dash.
fn cell(figure: f64, decimals: usize) -> String {
    if figure.is_nan() { "-".to_owned() } else { format!("{figure:.decimals$}") }
}

/// Writes a file, and the folders above it.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, text)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        process::Durability,
        runner::Name,
        stats::{Cpu, Latency, Spread},
    };

    fn run(rate: f64, server: Option<f64>, operations_per_batch: Option<f64>) -> Run {
        let latency = Latency { p50: 10.0, p99: 20.0, p999: 30.4 };
        Run { rate, latency, cpu: Cpu { client: 1.25, server, store: Some(4.0) }, operations_per_batch }
    }

    /// Of two rows and two ratios, one of which only informs.
    pub(crate) fn report() -> Report {
        let spread = |lowest, median, highest| Spread { lowest, median, highest };
        let ours = Name { text: "ours", durability: Some(Durability::Durable), is_peer: false };
        let theirs = Name { text: "theirs", durability: None, is_peer: true };
        let requirement = Some(Requirement { must: 2.0, aim: 3.0 });
        Report {
            date: "2026-01-02".to_owned(),
            machine: Machine {
                processor: "Abacus".to_owned(),
                cores: 2,
                memory_gib: 3.9,
                kernel: "Linux 6".to_owned(),
                store: "Redis 7".to_owned(),
                sql: "PostgreSQL 15".to_owned(),
                go: "go 1".to_owned(),
                rust: "rustc 1".to_owned(),
                fdatasync_us: spread(1.0, 2.0, 3.0),
            },
            method: "By hand.".to_owned(),
            rows: vec![
                Row {
                    name: ours,
                    runs: vec![
                        run(100.0, Some(2.0), Some(8.5)),
                        run(300.0, Some(2.0), Some(8.5)),
                        run(200.0, None, None),
                    ],
                },
                Row { name: theirs, runs: vec![run(50.0, None, None)] },
            ],
            ratios: vec![
                Ratio { name: "required", spread: spread(1.0, 1.5, 2.5), better: Better::More, requirement },
                Ratio { name: "free", spread: spread(1.0, 1.5, 2.5), better: Better::Less, requirement: None },
            ],
            absent: vec!["something: not installed".to_owned()],
        }
    }

    #[test]
    fn tables_show_medians_and_a_dash_for_what_there_is_none_of() {
        let text = report().markdown();
        let has = |line: &str| assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
        has("| ours | durable | 200 | 10 | 20 | 30 | 1.2 | 2.0 | 4.0 | 8.5 |");
        has("| theirs | none | 50 | 10 | 20 | 30 | 1.2 | - | 4.0 | - |");
        has("| `required` | 1.500 | 1.000 | 2.500 | ≥ 2 | ≥ 3 | **no** |");
        has("| `free` | 1.500 | 1.000 | 2.500 | - | - | - |");
        has("Not measured: something: not installed.");
        assert!(text.starts_with("Measured on 2026-01-02 on Abacus (2 cores, 4 GiB), Linux 6; Redis 7;"), "{text}");
    }

    #[test]
    fn programs_find_ratios_by_name() {
        let json = report().json();
        assert_eq!(json["ratios"]["required"]["median"], 1.5);
        assert_eq!(json["ratios"]["required"]["holds"], false);
        assert_eq!(json["ratios"]["free"]["must"], Value::Null);
        assert_eq!(json["rows"][0]["runs"][0]["operations_per_batch"], 8.5);
        assert_eq!(json["rows"][1]["durability"], "none");
        assert_eq!(json["rows"][1]["runs"][0]["cpu"]["server"], Value::Null);
    }
}
