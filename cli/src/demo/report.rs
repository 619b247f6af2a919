//! The result of the sale: a table for humans, an object for programs. Writes only.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Scenario,
    ledger::{Counts, LatencyClass, Ledger, Tally},
    plan::Plan,
    shop::Shop,
    verify::Verdict,
};
use crate::failure::Failure;

/// Problems that are printed.
const MAX_PROBLEMS: usize = 20;

/// The result of one sale.
pub(crate) struct Report<'a> {
    server: &'a str,
    verdict: Verdict,
    summary: Summary<'a>,
}

/// The object of `--json`, which the help describes.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    scenario: Scenario,
    namespace: &'a str,
    seed: u64,
    units: i64,
    products: u32,
    buyers: u32,
    in_flight: u32,
    attempts: u64,
    reserved: u64,
    committed: u64,
    rolled_back: u64,
    expired: u64,
    repurchased: u64,
    sold_out: u64,
    refused_attempts: u64,
    replays: u64,
    shed: u64,
    sent_again: u64,
    oversold: u64,
    lost: u64,
    problems: usize,
    selling_seconds: f64,
    attempts_per_second: u64,
    reservations_per_second: u64,
    p50_us: u64,
    p99_us: u64,
    lone_p50_us: u64,
    lone_p99_us: u64,
    audit_clean: bool,
    exact: bool,
    refused: Tally,
    played: Tally,
}

impl<'a> Report<'a> {
    pub(crate) fn new(plan: &'a Plan, shop: &'a Shop, ledger: &Ledger, verdict: Verdict) -> Report<'a> {
        let Counts {
            attempts,
            rush_attempts,
            reserved,
            repurchased,
            refused,
            sold_out,
            replays,
            shed,
            troubled,
            violation,
        } = ledger.counts();
        let (selling, at_units, reservations) = ledger.times();
        let (refusals, played) = ledger.tallies();
        let rate = |count: u64, seconds: f64| (count as f64 / seconds.max(1e-6)).round() as u64;
        let (p50_us, p99_us) = ledger.quantiles(LatencyClass::Concurrent);
        let (lone_p50_us, lone_p99_us) = ledger.quantiles(LatencyClass::Sequential);
        let exact = verdict.problems.is_empty()
            && violation == 0
            && verdict.oversold == 0
            && verdict.lost == 0
            && reserved == verdict.committed + verdict.rolled_back + verdict.expired
            && attempts == reserved - repurchased + sold_out + refused;
        let summary = Summary {
            scenario: plan.scenario,
            namespace: &plan.namespace,
            seed: plan.seed,
            units: verdict.products.iter().map(|product| product.supply).sum(),
            products: plan.products,
            buyers: plan.buyers,
            in_flight: plan.in_flight,
            attempts,
            reserved,
            committed: verdict.committed,
            rolled_back: verdict.rolled_back,
            expired: verdict.expired,
            repurchased,
            sold_out,
            refused_attempts: refused,
            replays,
            shed,
            sent_again: troubled,
            oversold: verdict.oversold,
            lost: verdict.lost,
            problems: verdict.problems.len(),
            selling_seconds: (selling.as_secs_f64() * 1e3).round() / 1e3,
            attempts_per_second: rate(rush_attempts, selling.as_secs_f64()),
            reservations_per_second: rate(reservations, at_units.as_secs_f64()),
            p50_us,
            p99_us,
            lone_p50_us,
            lone_p99_us,
            audit_clean: verdict.audit.clean,
            exact,
            refused: refusals,
            played,
        };
        Report { server: shop.server(), verdict, summary }
    }

    /// True if each product sold exactly the units of the ledger, and none are oversold or lost.
    pub(crate) fn exact(&self) -> bool {
        self.summary.exact
    }

    /// Prints the table, and with `json` the object as the last line of standard output.
    pub(crate) fn print(&self, json: bool) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::Failed(format!("can't write the report: {error}"));
        if json {
            self.table(&mut io::stderr().lock()).map_err(failed)?;
            let object = serde_json::to_string(&self.summary).map_err(io::Error::from);
            writeln!(io::stdout(), "{}", object.map_err(failed)?).map_err(failed)
        } else {
            self.table(&mut io::stdout().lock()).map_err(failed)
        }
    }

    fn table(&self, out: &mut impl Write) -> io::Result<()> {
        let s = &self.summary;
        writeln!(out, "\nsale {} on {}, seed {}\n", s.namespace, self.server, s.seed)?;
        for (label, value) in [
            ("attempts", s.attempts),
            ("reserved", s.reserved),
            ("  sold", s.committed),
            ("  rolled back", s.rolled_back),
            ("  expired and released", s.expired),
            ("repurchased by late payers", s.repurchased),
            ("sold out", s.sold_out),
            ("attempts refused by a rule", s.refused_attempts),
            ("repeats recognized", s.replays),
            ("calls shed, retried", s.shed),
            ("other transient errors, retried", s.sent_again),
            ("oversold", s.oversold),
            ("lost", s.lost),
        ] {
            writeln!(out, "  {label:<32} {:>11}", grouped(value))?;
        }
        for (title, tally) in [("refused, by reason", &s.refused), ("played", &s.played)] {
            if !tally.is_empty() {
                writeln!(out, "\n  {title}")?;
            }
            for (name, count) in tally {
                writeln!(out, "    {:<30} {:>11}", name, grouped(count))?;
            }
        }
        writeln!(out)?;
        let concurrent = format!("Reserve with up to {} in flight, mostly queueing", grouped(s.in_flight));
        for (label, value, unit, what) in [
            (
                "throughput, successful",
                s.reservations_per_second,
                "/s",
                "until the initial supply was reserved, payments included".to_owned(),
            ),
            (
                "throughput, all attempts",
                s.attempts_per_second,
                "/s",
                format!("over {:.1} s of selling", s.selling_seconds),
            ),
            ("p50", s.p50_us, "us", concurrent.clone()),
            ("p99", s.p99_us, "us", concurrent),
            ("p50, lone caller", s.lone_p50_us, "us", "Reserve one at a time, afterwards".to_owned()),
            ("p99, lone caller", s.lone_p99_us, "us", "the same".to_owned()),
        ] {
            writeln!(out, "  {label:<32} {:>11} {unit:<2}  {what}", grouped(value))?;
        }
        self.products(out)?;
        self.verdict_lines(out)
    }

    fn products(&self, out: &mut impl Write) -> io::Result<()> {
        let names = self.verdict.products.iter().map(|product| &product.sku);
        let width = names.map(String::len).max().unwrap_or(0).max("product".len());
        writeln!(
            out,
            "\n  {:<width$} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "product", "supplied", "sold", "ledger", "available", "held"
        )?;
        for product in &self.verdict.products {
            let counters = product.counters;
            writeln!(
                out,
                "  {:<width$} {:>10} {:>10} {:>10} {:>10} {:>10}",
                product.sku,
                grouped(counters.supplied),
                grouped(counters.sold),
                grouped(product.ledger),
                grouped(counters.available),
                grouped(counters.held),
            )?;
        }
        Ok(())
    }

    fn verdict_lines(&self, out: &mut impl Write) -> io::Result<()> {
        let audit = &self.verdict.audit;
        writeln!(
            out,
            "\n  audit    {}: {} supplied = {} available + {} held + {} sold",
            if audit.clean { "clean" } else { "NOT CLEAN" },
            grouped(audit.counters.supplied),
            grouped(audit.counters.available),
            grouped(audit.counters.held),
            grouped(audit.counters.sold),
        )?;
        if self.exact() {
            return writeln!(
                out,
                "  verdict  exact: {}, and all {} acknowledged reservations are as acknowledged",
                match self.summary.scenario {
                    Scenario::Plain => "every product sold out",
                    Scenario::Rules => "every rule held",
                },
                grouped(self.summary.reserved)
            );
        }
        writeln!(out, "  verdict  NOT EXACT")?;
        for problem in self.verdict.problems.iter().take(MAX_PROBLEMS) {
            writeln!(out, "    {problem}")?;
        }
        Ok(())
    }
}

/// A number with a comma between groups of three digits.
pub(crate) fn grouped(number: impl ToString) -> String {
    let text = number.to_string();
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |rest| ("-", rest));
    let mut out = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in [(0_i64, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567"), (-123, "-123")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
