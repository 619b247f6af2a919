//! Links of the Markdown pages: each relative link leads to a file, each anchor to a heading, and each page of docs/ can be
//! reached from its index. Reads the tree and opens no connection.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
};

use crate::tree::{self, File};

/// All Markdown pages, by path.
pub(crate) fn pages() -> HashMap<String, File> {
    let pages = tree::files().into_iter().filter(|file| file.extension() == "md");
    // This page is part of another one, whose links it has.
    pages.filter(|file| file.path != "bench/src/rows.md").map(|file| (file.path.clone(), file)).collect()
}

/// The lines outside of fenced code.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut lines = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            lines.push((line, text));
        }
    }
    lines
}

/// The targets of the links of a page, each with its line.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut targets = Vec::new();
    for (line, text) in prose(text) {
        for (at, _) in text.match_indices("](") {
            let rest = &text[at + 2..];
            if let Some(end) = rest.find(')') {
                targets.push((line, &rest[..end]));
            }
        }
    }
    targets
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> HashSet<String> {
    prose(text).iter().filter(|(_, line)| line.starts_with('#')).map(|(_, line)| anchor(line)).collect()
}

/// The path of a relative link, from the root of the repository; `None` for a link to another site.
fn resolve(page: &str, target: &str) -> Option<(String, Option<String>)> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
        None => (target, None),
    };
    if path.is_empty() {
        return Some((page.to_owned(), anchor));
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some((parts.join("/"), anchor))
}

pub(crate) fn broken(pages: &HashMap<String, File>) -> Vec<String> {
    let mut broken = Vec::new();
    for page in pages.values() {
        for (line, target) in targets(&page.text) {
            let Some((path, anchor)) = resolve(&page.path, target) else { continue };
            let leads = match (pages.get(&path), anchor) {
                (Some(page), Some(anchor)) => anchors(&page.text).contains(&anchor),
                (Some(_), None) => true,
                (None, anchor) => anchor.is_none() && tree::root().join(&path).exists(),
            };
            if !leads {
                broken.push(format!("{}:{line}: {target}", page.path));
            }
        }
    }
    broken.sort();
    broken
}

/// The pages of the folder of the index to which no chain of links leads.
pub(crate) fn unreachable(pages: &HashMap<String, File>, index: &str) -> Vec<String> {
    let (mut open, mut reached) = (VecDeque::from([index.to_owned()]), HashSet::new());
    while let Some(path) = open.pop_front() {
        let Some(page) = pages.get(&path).filter(|_| reached.insert(path.clone())) else { continue };
        open.extend(targets(&page.text).into_iter().filter_map(|(_, target)| Some(resolve(&path, target)?.0)));
    }
    let folder = Path::new(index).parent().unwrap_or(Path::new(""));
    let mut lost: Vec<_> = pages.keys().filter(|path| Path::new(path).starts_with(folder)).cloned().collect();
    lost.retain(|path| !reached.contains(path));
    lost.sort();
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages_of(texts: &[(&str, &str)]) -> HashMap<String, File> {
        texts.iter().map(|(path, text)| ((*path).to_owned(), File::new(path, text))).collect()
    }

    #[test]
    fn a_broken_link_is_found() {
        let pages = pages_of(&[
            ("docs/a.md", "# A\n[b](b/b.md#two-words) [c](../none.md) [d](#a) [e](#e)\n```\n[f](f.md)\n```\n"),
            (
                "docs/b/b.md",
                "## `Two` words!\n[a](../a.md) [toml](../../Cargo.toml) [site](https://example.org/x.md)\n",
            ),
        ]);
        assert_eq!(broken(&pages), ["docs/a.md:2: #e", "docs/a.md:2: ../none.md"]);
    }

    #[test]
    fn a_page_without_a_link_to_it_is_found() {
        let pages = pages_of(&[("docs/a.md", "[b](b.md)"), ("docs/b.md", "[a](a.md)"), ("docs/c.md", "")]);
        assert_eq!(unreachable(&pages, "docs/a.md"), ["docs/c.md"]);
    }
}
