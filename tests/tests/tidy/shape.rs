//! The shape of files: length of lines, number of lines, and the comment at the head. Reads the texts that it is given.

use crate::{Finding, tree::File};

const MAX_LINES: usize = 500;

/// Files that may be longer, each with the reason.
const LONG: &[(&str, &str)] = &[
    ("CHANGELOG.md", "a list that grows with each release"),
    ("docs/reference/api.md", "generated from proto/"),
    ("docs/reference/configuration.md", "generated from the flags of the server"),
    ("docs/start/first-checkout.md", "contains the code of examples/ in five languages"),
    ("proto/inventory_sentinel/v1/inventory_admin.proto", "moving a message to another file breaks generated clients"),
    ("proto/inventory_sentinel/v1/inventory_sentinel.proto", "the same"),
];

/// The longest line of a file, in characters; `None` if its kind has no limit.
fn max_columns(file: &File) -> Option<usize> {
    match file.extension() {
        "md" => Some(100),
        "lua" => Some(110),
        "rs" | "proto" => Some(120),
        _ => None,
    }
}

/// Lines of generated pages follow their sources.
const GENERATED: &[&str] = &[
    "docs/reference/api.md",
    "docs/reference/errors.md",
    "docs/reference/configuration.md",
    "docs/benchmarks/README.md",
];

pub(crate) fn line_length(file: &File) -> Vec<Finding> {
    let Some(max) = max_columns(file).filter(|_| !GENERATED.contains(&file.path.as_str())) else { return Vec::new() };
    let is_markdown = file.extension() == "md";
    let mut in_code = false;
    let mut findings = Vec::new();
    for (line, text) in (1..).zip(file.text.lines()) {
        let is_fence = is_markdown && text.trim_start().starts_with("```");
        in_code ^= is_fence;
        // A table row or a link can't be wrapped.
        let is_free =
            is_markdown && (in_code || is_fence || text.trim_start().starts_with('|') || is_unbreakable(text, max));
        let columns = text.chars().count();
        if columns > max && !is_free && !has_url(text) {
            findings.push(Finding { line, text: format!("{columns} columns, {max} at most") });
        }
    }
    findings
}

/// Whether a break at a space could not make the line shorter than the limit: a link or one long code span.
fn is_unbreakable(text: &str, max: usize) -> bool {
    text.split(' ').any(|word| word.chars().count() > max - 20)
}

fn has_url(text: &str) -> bool {
    text.contains("https://") || text.contains("http://")
}

pub(crate) fn file_size(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let is_long = LONG.iter().any(|(path, _)| *path == file.path) || file.extension() == "json";
    if lines <= MAX_LINES || is_long {
        return Vec::new();
    }
    vec![Finding { line: lines, text: format!("{lines} lines, {MAX_LINES} at most") }]
}

/// Each source file opens with a comment: what it is for, and what it may touch.
pub(crate) fn header(file: &File) -> Vec<Finding> {
    let Some(markers) = comment_markers(file) else { return Vec::new() };
    let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!")).unwrap_or_default();
    if markers.iter().any(|marker| first.starts_with(marker)) {
        return Vec::new();
    }
    vec![Finding { line: 1, text: "no header comment".to_owned() }]
}

fn comment_markers(file: &File) -> Option<&'static [&'static str]> {
    Some(match file.extension() {
        "rs" => &["//"],
        "lua" => &["--"],
        "proto" | "go" | "ts" | "java" => &["//"],
        "sh" | "toml" | "yml" | "yaml" => &["#"],
        "py" => &["#", "\"\"\""],
        "" if file.text.starts_with("#!") => &["#"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_found_where_it_can_be_wrapped() {
        let long = "word ".repeat(40);
        assert_eq!(line_length(&File::new("a.md", &format!("short\n{long}"))).len(), 1);
        assert_eq!(line_length(&File::new("a.md", &format!("| {long} |\n```\n{long}\n```"))), []);
        assert_eq!(line_length(&File::new("a.rs", &"x ".repeat(61))).len(), 1);
        assert_eq!(line_length(&File::new("a.lua", &"x ".repeat(56))).len(), 1);
        assert_eq!(line_length(&File::new("a.lua", &"x ".repeat(55))), []);
    }

    #[test]
    fn a_large_file_is_found() {
        assert_eq!(file_size(&File::new("a.rs", &"a\n".repeat(501))).len(), 1);
        assert_eq!(file_size(&File::new("a.rs", &"a\n".repeat(500))), []);
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(header(&File::new("a.rs", "use std::fs;\n")).len(), 1);
        assert_eq!(header(&File::new("a.rs", "//! What it is for.\nuse std::fs;\n")), []);
        assert_eq!(header(&File::new("run", "#!/bin/sh\nset -e\n")).len(), 1);
        assert_eq!(header(&File::new("run", "#!/bin/sh\n# What it is for.\nset -e\n")), []);
        assert_eq!(header(&File::new("a.md", "text")), []);
    }

    #[test]
    fn every_exception_exists() {
        let files = crate::tree::files();
        for path in LONG.iter().map(|(path, _)| path).chain(GENERATED) {
            assert!(files.iter().any(|file| file.path == *path), "{path}");
        }
    }
}
