//! Each limit has one definition: a constant `MAX_…` or `MIN_…` with a number, in one file. Other files use it by name.
//! Covers Rust and Lua outside of tests and benchmarks, which state the limits of their subject a second time on purpose.

use std::collections::HashMap;

use crate::{Finding, tree::File};

/// The folders that are not part of the product.
const OUTSIDE: &[&str] = &["tests/", "bench/", "examples/"];

/// The files that define each limit with a number.
pub(crate) fn definitions(files: &[File]) -> HashMap<String, Vec<String>> {
    let mut defined: HashMap<String, Vec<String>> = HashMap::new();
    for file in files.iter().filter(|file| !OUTSIDE.iter().any(|folder| file.path.starts_with(folder))) {
        for (_, name) in limits(file) {
            defined.entry(name).or_default().push(file.path.clone());
        }
    }
    defined
}

pub(crate) fn check(file: &File, defined: &HashMap<String, Vec<String>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if OUTSIDE.iter().any(|folder| file.path.starts_with(folder)) {
        return findings;
    }
    for (line, name) in limits(file) {
        let others = defined.get(&name).into_iter().flatten().filter(|path| **path != file.path);
        findings.extend(others.map(|other| Finding { line, text: format!("`{name}` is also defined in {other}") }));
    }
    findings
}

/// The limits that a file defines with a number, each with its line.
fn limits(file: &File) -> Vec<(usize, String)> {
    let keyword = match file.extension() {
        "rs" => "const ",
        "lua" => "local ",
        _ => return Vec::new(),
    };
    let mut limits = Vec::new();
    for (line, text) in (1..).zip(file.text.lines()) {
        let Some((before, rest)) = text.split_once(keyword) else { continue };
        let is_definition = before.trim().is_empty() || before.trim_start().starts_with("pub");
        let Some((name, value)) = rest.split_once('=') else { continue };
        let name = name.split(':').next().unwrap_or_default().trim();
        let is_limit = ["MAX_", "MIN_"].iter().any(|prefix| name.starts_with(prefix));
        if is_definition && is_limit && value.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
            limits.push((line, name.to_owned()));
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_with_two_definitions_is_found() {
        let files = [
            File::new("server/src/a.rs", "pub(crate) const MAX_LINES: usize = 32;\n"),
            File::new("lua/b.lua", "local MAX_LINES = 32\nlocal MAX_UNITS = 5\n"),
            File::new("client/src/c.rs", "const MAX_LINES: usize = limits::MAX_LINES;\n"),
            File::new("tests/src/d.rs", "const MAX_UNITS: usize = 5;\n"),
        ];
        let defined = definitions(&files);
        let lines = |file: &File| check(file, &defined).iter().map(|finding| finding.line).collect::<Vec<_>>();
        assert_eq!(files.iter().map(lines).collect::<Vec<_>>(), [vec![1], vec![1], vec![], vec![]]);
    }
}
