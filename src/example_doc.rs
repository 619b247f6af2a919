//! A test that keeps the code in `docs/start/first-checkout.md` equal to that of `examples/`. Reads both; writes the
//! page if UPDATE_DOCS is set.
//!
//! The page names a part of a file in a line such as `<!-- examples/go/checkout.go: call -->`, and the fenced block
//! after it contains the lines of the file between the comments `region call` and `endregion call`.

use std::{fs, path::Path};

const PAGE: &str = "docs/start/first-checkout.md";
const FENCE: &str = "```";

/// The lines of a file between its two comments, without their common indentation.
fn region(file: &str, name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let is_mark = |line: &str, word: &str| line.trim().ends_with(&format!(" {word} {name}"));
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| !is_mark(line, "region"))
        .skip(1)
        .take_while(|line| !is_mark(line, "endregion"))
        .collect();
    assert!(text.lines().any(|line| is_mark(line, "endregion")) && !lines.is_empty(), "{file} has no region {name}");
    let indentation = |line: &&&str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indentation(&line)).min().unwrap_or(0);
    let text = lines.iter().map(|line| line.get(common..).unwrap_or_default()).collect::<Vec<_>>().join("\n");
    text.trim_matches('\n').lines().map(str::to_owned).collect()
}

/// The page with the code of the files, and the number of parts.
fn with_code(page: &str) -> (String, usize) {
    let (mut out, mut parts, mut lines) = (Vec::new(), 0, page.lines());
    while let Some(line) = lines.next() {
        out.push(line.to_owned());
        let Some((file, name)) = line
            .strip_prefix("<!-- examples/")
            .and_then(|rest| rest.strip_suffix(" -->"))
            .and_then(|part| part.split_once(": "))
        else {
            continue;
        };
        let open = lines.next().unwrap_or_default();
        assert!(open.starts_with(FENCE), "{PAGE}: no code follows `{line}`");
        assert!(lines.by_ref().any(|line| line == FENCE), "{PAGE}: the code after `{line}` has no end");
        out.push(open.to_owned());
        out.extend(region(&format!("examples/{file}"), name));
        out.push(FENCE.to_owned());
        parts += 1;
    }
    (out.join("\n") + "\n", parts)
}

#[test]
fn the_documentation_has_the_code_of_the_examples() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).expect("the page");
    let (expected, parts) = with_code(&page);
    assert_eq!(parts, 15, "three parts for each of five languages");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).expect("the page is writable");
    }
    let written = fs::read_to_string(&path).expect("the page");
    assert!(written == expected, "{PAGE} differs from examples/: run `make docs`");
}
