//! Checks of the source text: words, line lengths, file sizes, headers, limits and links. Reads the tree, starts
//! nothing.
//!
//! - `tree`: the files of the repository.
//! - `words`: banned words in prose and names.
//! - `shape`: line length, file size, header comment.
//! - `layers`: no module of the server uses a module above it.
//! - `limits`: each limit has one definition.
//! - `lints`: every package forbids unsafe code, except the listed ones.
//! - `links`: each link of the documentation leads somewhere, and each page can be reached.
//!
//! A rule is a function from a file to its findings. No file is exempt from a rule as a whole: `words`, `shape` and
//! `lints` list their exceptions, each with the reason.

mod layers;
mod limits;
mod links;
mod lints;
mod shape;
mod tree;
mod words;

use tree::File;

/// One violation of a rule.
#[derive(Debug, PartialEq)]
struct Finding {
    line: usize,
    text: String,
}

/// Panics with all findings of a rule.
fn hold(rule: &str, check: impl Fn(&File) -> Vec<Finding>) {
    let files = tree::files();
    assert!(files.len() > 100, "only {} files", files.len());
    let findings: Vec<String> = files
        .iter()
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
fn no_module_of_the_server_uses_one_above_it() {
    let order = layers::order(&tree::files());
    assert!(order.len() > 10, "{order:?}");
    hold("layers", |file| layers::check(file, &order));
}

#[test]
fn every_limit_has_one_definition() {
    let defined = limits::definitions(&tree::files());
    hold("limits", |file| limits::check(file, &defined));
}

#[test]
fn every_package_forbids_unsafe_code() {
    hold("lints", lints::check);
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
