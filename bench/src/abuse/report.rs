//! The verdict on an attack, and the format of a row. Computes and formats only.

use std::fmt;

use serde::Serialize;

use super::{attacker::Outcome, honest::Record};

/// Bytes of a MiB.
pub(super) const MIB: u64 = 1 << 20;
/// Memory that the server may take beyond what it has when it is calm, in bytes.
const MORE_MEMORY: u64 = 256 * MIB;
/// Memory some time after an attack, as a multiple of what it was before.
pub(super) const GIVEN_BACK: f64 = 1.2;

/// Whether so many bytes are what a server may keep after an attack.
pub(super) fn is_given_back(calm: u64, after: u64, most: f64) -> bool {
    after as f64 <= calm as f64 * most
}

/// One attack.
#[derive(Debug, Default, Serialize)]
pub(super) struct Row {
    name: &'static str,
    /// The work of the attacker.
    did: String,
    /// Memory of the server before, at its peak and after, in MiB.
    calm: u64,
    peak: u64,
    after: u64,
    /// CPU seconds per second of the server during the attack.
    pub(super) cpu: f64,
    /// Calls of the honest caller, and those that failed.
    calls: usize,
    failed: usize,
    /// The 99th percentile of its latency before and during the attack, in milliseconds.
    pub(super) calm_p99: f64,
    pub(super) p99: f64,
    /// The end of the attacker.
    fate: String,
    /// The bounds that did not hold; none where the row is good.
    pub(super) faults: Vec<String>,
}

impl Row {
    pub(super) fn new(name: &'static str, calm: u64, outcome: Outcome) -> Self {
        let Outcome { did, fate, faults } = outcome;
        Self { name, did, calm: calm / MIB, fate, faults, ..Self::default() }
    }

    pub(super) fn judge_memory(&mut self, calm: u64, peak: u64, after: u64, most: f64) {
        (self.peak, self.after) = (peak / MIB, after / MIB);
        let more = peak.saturating_sub(calm);
        if more > MORE_MEMORY {
            self.faults.push(format!("{} MiB above calm", more / MIB));
        }
        if !is_given_back(calm, after, most) {
            self.faults.push(format!("{:.2} x calm afterwards", after as f64 / calm as f64));
        }
    }

    /// The server has ended; it was seen with so much memory.
    pub(super) fn judge_end(&mut self, peak: u64) {
        self.peak = peak / MIB;
        self.faults.push("the server ended".to_owned());
    }

    pub(super) fn judge_cpu(&mut self, most: Option<f64>) {
        if most.is_some_and(|most| self.cpu > most) {
            self.faults.push(format!("{:.2} of a CPU", self.cpu));
        }
    }

    /// `most_p99`: in milliseconds.
    pub(super) fn judge_calls(&mut self, record: &Record, most_p99: Option<f64>) {
        let figures = record.figures();
        self.calls = figures.calls;
        self.failed = figures.failures.values().sum();
        for (failure, number) in figures.failures {
            self.faults.push(format!("{number} honest calls failed: {failure}"));
        }
        if most_p99.is_some_and(|most| self.p99 > most) {
            self.faults.push(format!("honest p99 {:.0} ms", self.p99));
        }
        self.faults.extend(record.watch_fault.clone());
    }

    pub(super) fn header() -> String {
        format!(
            "{:<28} {:<5} {:>5} {:>6} {:>6} {:>5} {:>6} {:>6} {:>8} {:>8}  {:<34}  {}",
            "attack",
            "holds",
            "calm",
            "peak",
            "after",
            "cpu",
            "calls",
            "failed",
            "calm p99",
            "p99 ms",
            "did",
            "offender"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<28} {:<5} {:>5} {:>6} {:>6} {:>5.2} {:>6} {:>6} {:>8.1} {:>8.1}  {:<34}  {}",
            self.name,
            if self.faults.is_empty() { "yes" } else { "NO" },
            self.calm,
            self.peak,
            self.after,
            self.cpu,
            self.calls,
            self.failed,
            self.calm_p99,
            self.p99,
            self.did,
            self.fate,
        )?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n    {fault}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_judged_at_its_peak_and_afterwards() {
        let mut row = Row::default();
        row.judge_memory(20 * MIB, 276 * MIB, 24 * MIB, GIVEN_BACK);
        assert!(row.faults.is_empty(), "{row}");
        row.judge_memory(20 * MIB, 277 * MIB, 25 * MIB, GIVEN_BACK);
        assert_eq!(row.faults, ["257 MiB above calm", "1.25 x calm afterwards"]);
    }
}
