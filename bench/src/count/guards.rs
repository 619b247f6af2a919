//! The expected value of each count, and the comparison of a count with it. Reads and writes `bench/guards.json`, and
//! runs programs for their versions.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{process::Redis, stats::Spread};

const ABOUT: &str = "What an operation may cost, counted by `make guard`: redis_calls are commands per script call, \
                     script_calls are script calls per message, the others are instructions per operation. \
                     Sold-out answers are counted with first_attempt, looked_up ones without it. \
                     Rewritten by `make guard ARGS=--update`; state in the commit why a number grew.";

/// The kind of a count, which decides how well it repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Commands and script calls.
    Calls,
    /// Instructions in Redis.
    Redis,
    /// Instructions in one of our programs.
    Program,
    /// Instructions in one less those in another.
    Difference,
}

impl Kind {
    /// How much more than expected is let pass, as a share of it. On one machine counts of Redis repeat within 0.03,
    /// those of our programs within 0.01, and their difference within 0.04. The rest is for other machines: a
    /// processor's features choose among the copying routines of the C library, its speed how much of a wave is read
    /// at once. Both meet the server and the no-op server alike, so that their difference is the sharper guard.
    fn allowance(self) -> f64 {
        match self {
            Kind::Calls => 0.0,
            Kind::Redis => 0.05,
            Kind::Program => 0.08,
            Kind::Difference => 0.15,
        }
    }
}

/// One count, over its repetitions.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) counted: Spread,
}

impl Count {
    /// `None` of no repetition.
    pub(crate) fn of(name: impl Into<String>, kind: Kind, repetitions: &[u64]) -> Option<Self> {
        let counted = Spread::of(repetitions.iter().map(|&count| count as f64))?;
        Some(Self { name: name.into(), kind, counted })
    }

    fn median(&self) -> u64 {
        self.counted.median as u64
    }
}

/// The versions that counts of instructions depend on, beside our code.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Versions {
    machine: String,
    rustc: String,
    redis: String,
    valgrind: String,
}

impl Versions {
    /// Those of this machine. Fails where one of the programs is missing.
    pub(crate) fn read() -> Result<Self> {
        Ok(Self {
            machine: std::env::consts::ARCH.to_owned(),
            rustc: version_of("rustc")?,
            redis: version_of(Redis::program()?)?,
            valgrind: version_of("valgrind").context("`scripts/bootstrap valgrind` installs it")?,
        })
    }

    /// Whether counts of this kind are the same with both.
    fn is_comparable(&self, other: &Self, kind: Kind) -> bool {
        let counted_alike = self.machine == other.machine && self.valgrind == other.valgrind;
        match kind {
            Kind::Calls => true,
            Kind::Redis => counted_alike && self.redis == other.redis,
            Kind::Program | Kind::Difference => counted_alike && self.rustc == other.rustc,
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, {}, {}, {}", self.machine, self.rustc, self.redis, self.valgrind)
    }
}

fn version_of(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} prints no version");
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

/// The expected counts.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Guards {
    about: String,
    pub(crate) made_with: Versions,
    expected: BTreeMap<String, u64>,
}

impl Guards {
    /// That which was counted.
    pub(crate) fn new(made_with: Versions, counts: &[Count]) -> Self {
        let expected = counts.iter().map(|count| (count.name.clone(), count.median())).collect();
        Self { about: ABOUT.to_owned(), made_with, expected }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Each count beside what is expected of it.
    pub(crate) fn judge<'a>(&self, versions: &Versions, counts: &'a [Count]) -> Vec<Judged<'a>> {
        let judge = |count: &'a Count| {
            let expected = self.expected.get(&count.name).copied();
            let is_comparable = self.made_with.is_comparable(versions, count.kind);
            let verdict = match expected {
                None => Verdict::Unknown,
                Some(_) if !is_comparable => Verdict::NotComparable,
                Some(expected) => compare(expected, count.median(), count.kind.allowance()),
            };
            Judged { name: &count.name, kind: count.kind, expected, counted: count.counted, verdict }
        };
        counts.iter().map(judge).collect()
    }

    /// Further notes.
    pub(crate) fn hints(&self, versions: &Versions, judged: &[Judged<'_>]) -> Vec<String> {
        let has = |verdict| judged.iter().any(|row| row.verdict == verdict);
        let mut hints = Vec::new();
        if has(Verdict::NotComparable) {
            hints.push(format!("Not comparable: expected of {}; counted with {versions}.", self.made_with));
        }
        if has(Verdict::Less) {
            hints.push("Some costs less than is expected: `make guard ARGS=--update` keeps it so.".to_owned());
        }
        for name in self.expected.keys().filter(|name| !judged.iter().any(|row| row.name == *name)) {
            hints.push(format!("Expected and not counted: {name}."));
        }
        hints
    }
}

/// The end of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    /// So much less than expected that growth from here would not be seen.
    Less,
    More,
    /// Nothing is expected.
    Unknown,
    /// Expected of other programs than there are here.
    NotComparable,
}

fn compare(expected: u64, counted: u64, allowance: f64) -> Verdict {
    let (expected, counted) = (expected as f64, counted as f64);
    if counted > expected * (1.0 + allowance) {
        Verdict::More
    } else if counted < expected * (1.0 - allowance) {
        Verdict::Less
    } else {
        Verdict::Holds
    }
}

/// A count beside what is expected of it.
pub(crate) struct Judged<'a> {
    pub(crate) name: &'a str,
    kind: Kind,
    expected: Option<u64>,
    counted: Spread,
    verdict: Verdict,
}

impl Judged<'_> {
    pub(crate) fn fails(&self) -> bool {
        matches!(self.verdict, Verdict::More | Verdict::Unknown)
    }
}

/// For people, in Markdown.
pub(crate) fn table(judged: &[Judged<'_>]) -> String {
    let mut out = String::new();
    let mut row = |cells: [&str; 6]| {
        let [name, expected, counted, spread, allowed, ok] = cells;
        let _ = writeln!(out, "| {name:<44} | {expected:>8} | {counted:>8} | {spread:>7} | {allowed:>7} | {ok:<14} |");
    };
    row(["count", "expected", "counted", "spread", "allowed", "ok"]);
    row(["---", "---", "---", "---", "---", "---"]);
    for judged in judged {
        let Spread { lowest, median, highest } = judged.counted;
        row([
            judged.name,
            &judged.expected.map_or_else(|| "-".to_owned(), |expected| expected.to_string()),
            &median.to_string(),
            &format!("{:.1} %", (highest - lowest) / median.max(1.0) * 100.0),
            &format!("+{:.0} %", judged.kind.allowance() * 100.0),
            match judged.verdict {
                Verdict::Holds => "yes",
                Verdict::Less => "yes, and less",
                Verdict::More => "**no**",
                Verdict::Unknown => "**unknown**",
                Verdict::NotComparable => "not comparable",
            },
        ]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(redis: &str, rustc: &str) -> Versions {
        let [machine, valgrind] = ["x86_64", "valgrind-3"].map(str::to_owned);
        Versions { machine, rustc: rustc.to_owned(), redis: redis.to_owned(), valgrind }
    }

    fn counts(calls: u64, redis: u64, program: u64) -> Vec<Count> {
        let of = |name, kind, count| Count::of(name, kind, &[count]).unwrap();
        vec![of("calls", Kind::Calls, calls), of("redis", Kind::Redis, redis), of("program", Kind::Program, program)]
    }

    fn verdicts(guards: &Guards, with: &Versions, counts: &[Count]) -> Vec<Verdict> {
        guards.judge(with, counts).iter().map(|row| row.verdict).collect()
    }

    #[test]
    fn an_allowance_is_a_share_of_what_is_expected_both_ways() {
        assert_eq!(compare(100, 105, 0.05), Verdict::Holds);
        assert_eq!(compare(100, 106, 0.05), Verdict::More);
        assert_eq!(compare(100, 95, 0.05), Verdict::Holds);
        assert_eq!(compare(100, 94, 0.05), Verdict::Less);
        assert_eq!(
            [14, 15, 16].map(|counted| compare(15, counted, 0.0)),
            [Verdict::Less, Verdict::Holds, Verdict::More]
        );
    }

    #[test]
    fn only_growth_and_what_nothing_is_expected_of_fail() {
        let with = versions("r1", "c1");
        let mut guards = Guards::new(with.clone(), &counts(15, 1000, 1000));
        guards.expected.remove("program");
        let counts = counts(16, 1, 1000);
        let judged = guards.judge(&with, &counts);
        assert_eq!(judged.iter().map(Judged::fails).collect::<Vec<_>>(), [true, false, true]);
        assert!(guards.hints(&with, &judged)[0].contains("--update"));
        let printed = table(&judged);
        assert!(printed.contains("**no**") && printed.contains("yes, and less") && printed.contains("**unknown**"));
    }

    #[test]
    fn instructions_of_other_programs_are_not_compared_and_calls_always_are() {
        use Verdict::{Holds, More, NotComparable};
        let guards = Guards::new(versions("r1", "c1"), &counts(15, 1000, 1000));
        let more = counts(16, 2000, 2000);
        assert_eq!(verdicts(&guards, &versions("r1", "c1"), &more), [More, More, More]);
        assert_eq!(verdicts(&guards, &versions("r2", "c1"), &more), [More, NotComparable, More]);
        assert_eq!(verdicts(&guards, &versions("r1", "c2"), &more), [More, More, NotComparable]);
        let mut other = versions("r1", "c1");
        other.valgrind = "valgrind-4".to_owned();
        assert_eq!(verdicts(&guards, &other, &counts(15, 1000, 1000)), [Holds, NotComparable, NotComparable]);
        let judged = guards.judge(&other, &more);
        assert!(guards.hints(&other, &judged)[0].contains("valgrind-4"));
    }

    #[test]
    fn what_is_expected_survives_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guards.json");
        let with = versions("r1", "c1");
        Guards::new(with.clone(), &counts(15, 1000, 1000)).write(&path).unwrap();
        let guards = Guards::read(&path).unwrap();
        assert_eq!(guards.made_with, with);
        assert_eq!(verdicts(&guards, &with, &counts(15, 1000, 1000)), [Verdict::Holds; 3]);
        let fewer = &counts(15, 1000, 1000)[..2];
        assert_eq!(guards.hints(&with, &guards.judge(&with, fewer)), ["Expected and not counted: program."]);
        assert!(Guards::read(folder.path()).is_err());
    }
}
