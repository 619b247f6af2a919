//! Each package has the lints of the workspace, which forbid unsafe code. Reads the `Cargo.toml` files of the tree.

use crate::{Finding, tree::File};

/// Packages with unsafe code, each with the reason.
const UNSAFE: &[(&str, &str)] = &[
    ("tests/clock/Cargo.toml", "a library that is preloaded into the Redis of a test"),
    ("tests/disk/Cargo.toml", "the same"),
];

/// Packages that forbid unsafe code in lints that are not those of the workspace, each with the reason.
const SEPARATE: &[(&str, &str)] =
    &[("examples/rust/Cargo.toml", "a program to copy: its module is public, which a lint of the workspace denies")];

pub(crate) fn check(file: &File) -> Vec<Finding> {
    let is_manifest = file.path == "Cargo.toml" || file.path.ends_with("/Cargo.toml");
    let is_listed = |list: &[(&str, &str)]| list.iter().any(|(path, _)| *path == file.path);
    if !is_manifest || is_listed(UNSAFE) {
        return Vec::new();
    }
    let mut required = Vec::new();
    if has_table(&file.text, "workspace") {
        required.push(("workspace.lints.rust", "unsafe_code = \"forbid\""));
    }
    if is_listed(SEPARATE) {
        required.push(("lints.rust", "unsafe_code = \"forbid\""));
    } else if has_table(&file.text, "package") {
        required.push(("lints", "workspace = true"));
    }
    let missing = required.into_iter().filter(|(table, entry)| !entries(&file.text, table).any(|line| line == *entry));
    missing.map(|(table, entry)| Finding { line: 1, text: format!("no `{entry}` in [{table}]") }).collect()
}

fn has_table(text: &str, name: &str) -> bool {
    text.lines().any(|line| is_header_of(line, name))
}

/// The lines between the header of a table and the next header.
fn entries<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let behind = text.lines().skip_while(move |line| !is_header_of(line, name)).skip(1);
    behind.take_while(|line| !line.starts_with('[')).map(str::trim)
}

fn is_header_of(line: &str, name: &str) -> bool {
    line.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&File::new(path, text)).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn a_package_without_the_lints_of_the_workspace_is_found() {
        let missing = ["no `workspace = true` in [lints]"];
        assert_eq!(findings("a/Cargo.toml", "[package]\n\n[lints]\nworkspace = true\n"), [""; 0]);
        assert_eq!(findings("a/Cargo.toml", "[package]\nworkspace = true\n"), missing);
        assert_eq!(findings("a/Cargo.toml", "[package]\n[lints]\n[dependencies]\nworkspace = true\n"), missing);
        assert_eq!(findings("a/Cargo.toml", "[package]\n[lints.rust]\nunsafe_code = \"forbid\"\n"), missing);
        assert_eq!(findings("a/deny.toml", "[package]\n"), [""; 0]);
    }

    #[test]
    fn lints_that_allow_unsafe_code_are_found() {
        let text =
            "[workspace]\n[workspace.lints.rust]\nunsafe_code = \"deny\"\n[package]\n[lints]\nworkspace = true\n";
        assert_eq!(findings("Cargo.toml", text), ["no `unsafe_code = \"forbid\"` in [workspace.lints.rust]"]);
        assert_eq!(findings("Cargo.toml", &text.replace("deny", "forbid")), [""; 0]);
        let separate = "[package]\n[lints.rust]\nmissing_docs = \"warn\"\n";
        assert_eq!(findings(SEPARATE[0].0, separate), ["no `unsafe_code = \"forbid\"` in [lints.rust]"]);
    }

    #[test]
    fn every_exception_exists() {
        let files = crate::tree::files();
        for (path, _) in UNSAFE.iter().chain(SEPARATE) {
            assert!(files.iter().any(|file| file.path == *path), "{path}");
        }
    }
}
