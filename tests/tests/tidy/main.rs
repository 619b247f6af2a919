//! Checks of the source text: words, line lengths, file sizes, headers, limits and links. Reads the tree, starts
//! nothing.
//!
//! - `tree`: the files of the repository.
//! - `words`: banned words in prose and names.
//! - `shape`: line length, file size, header comment.
//! - `limits`: each limit has one definition.
//! - `links`: each link of the documentation leads somewhere, and each page can be reached.
//!
//! A rule is a function from a file to its findings. [`NOT_YET`] lists the folders that a rule does not cover yet.

mod limits;
mod links;
mod shape;
mod tree;
mod words;

use tree::File;

/// Folders and files that are not clean yet, by rule. The goal is an empty list.
const NOT_YET: &[(&str, &[&str])] = &[
    ("words", &["server/", "tests/polyglot/", "tests/tests/it/"]),
    ("line length", &["server/", "tests/polyglot/", "tests/tests/it/"]),
    ("file size", &["server/", "tests/src/model.rs", "tests/tests/it/"]),
    ("header", &["server/"]),
    ("limits", &["client/", "lua/", "server/"]),
];

/// One violation of a rule.
#[derive(Debug, PartialEq)]
struct Finding {
    line: usize,
    text: String,
}

/// Panics with all findings of a rule in the files that it covers.
fn hold(rule: &str, check: impl Fn(&File) -> Vec<Finding>) {
    let exempt = NOT_YET.iter().find(|(name, _)| *name == rule).map_or(&[][..], |(_, folders)| folders);
    // With TIDY_ALL set, the findings of exempt folders are shown too.
    let exempt = if std::env::var_os("TIDY_ALL").is_some() { &[] } else { exempt };
    let files = tree::files();
    assert!(files.len() > 100, "only {} files", files.len());
    let covered = files.iter().filter(|file| !exempt.iter().any(|folder| file.path.starts_with(folder)));
    let findings: Vec<String> = covered
        .flat_map(|file| {
            check(file).into_iter().map(move |found| format!("{}:{}: {}", file.path, found.line, found.text))
        })
        .collect();
    assert!(findings.is_empty(), "{rule}: {} findings\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn no_file_has_a_banned_word() {
    let names = words::test_names(&tree::files());
    hold("words", |file| words::check(file, &names));
}

#[test]
fn no_line_is_too_long() {
    hold("line length", shape::line_length);
}

#[test]
fn no_file_is_too_large() {
    hold("file size", shape::file_size);
}

#[test]
fn every_source_file_has_a_header() {
    hold("header", shape::header);
}

#[test]
fn every_limit_has_one_definition() {
    let defined = limits::definitions(&tree::files());
    hold("limits", |file| limits::check(file, &defined));
}

#[test]
fn every_exempt_folder_exists() {
    let files = tree::files();
    for (rule, folders) in NOT_YET {
        for folder in *folders {
            assert!(files.iter().any(|file| file.path.starts_with(folder)), "{rule}: {folder} has no file");
        }
    }
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let broken = links::broken(&links::pages());
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_page_can_be_reached_from_the_index() {
    let lost = links::unreachable(&links::pages(), "docs/README.md");
    assert!(lost.is_empty(), "no link leads to:\n{}", lost.join("\n"));
}
