//! The layers of the server: the module doc of `server/src/lib.rs` lists the modules from the top down, and a module
//! uses only modules below it. Tests of a module may use any.

use crate::{Finding, tree::File};

const ROOT: &str = "server/src/";

/// The modules in the order of the list, the top one first.
pub(crate) fn order(files: &[File]) -> Vec<String> {
    let lib = files.iter().find(|file| file.path == "server/src/lib.rs").expect("the root of the server");
    let entries = lib.text.lines().filter_map(|line| line.strip_prefix("//! - "));
    entries.map(|entry| entry.trim_start_matches(['`', '[']).split('`').next().unwrap_or_default().to_owned()).collect()
}

pub(crate) fn check(file: &File, order: &[String]) -> Vec<Finding> {
    let Some(module) = module_of(&file.path) else { return Vec::new() };
    let Some(own) = order.iter().position(|name| name == module) else {
        return vec![Finding { line: 1, text: format!("`{module}` is not in the list of modules in lib.rs") }];
    };
    let code = file.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let is_upward = |(_, name): &(usize, &str)| order.iter().position(|other| other == name).is_some_and(|at| at < own);
    let findings = used_modules(code).into_iter().filter(is_upward);
    findings
        .map(|(line, name)| Finding { line, text: format!("`{module}` uses `{name}`, which is above it") })
        .collect()
}

/// The module of a file of the server, unless it only has tests or is the root.
fn module_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix(ROOT)?.strip_suffix(".rs")?;
    let is_test = path.ends_with("tests") || path == "simulation" || path.ends_with("simulated");
    (!is_test && path != "lib" && path != "main").then(|| path.split('/').next().unwrap_or(path))
}

/// The modules that the code names behind `crate::`, with the line of each.
fn used_modules(code: &str) -> Vec<(usize, &str)> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = 1 + code[..at].matches('\n').count();
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => used.push((line, identifier(rest))),
            Some(list) => used.extend(top_level(list).map(|name| (line, name))),
        }
    }
    used
}

/// The first names of the entries of a list of imports, up to its closing brace.
fn top_level(list: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut starts) = (0_i32, vec![0]);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts.into_iter().map(|start| identifier(list[start..].trim_start())).filter(|name| !name.is_empty())
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Vec<String> {
        ["service", "lane", "store"].map(str::to_owned).to_vec()
    }

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&File::new(path, text), &order()).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn an_import_of_a_module_above_is_found() {
        let nested = "use crate::{\n    lane::{self, Lane},\n    service,\n};\n";
        assert_eq!(lines("server/src/lane/a.rs", nested), [1]);
        assert_eq!(lines("server/src/store.rs", "\nfn a() { crate::lane::b() }"), [2]);
        assert_eq!(lines("server/src/lane/a.rs", "use crate::store::Store;"), [0; 0]);
        assert_eq!(lines("server/src/other.rs", ""), [1], "a module without a place");
    }

    #[test]
    fn tests_may_use_any_module() {
        assert_eq!(lines("server/src/lane/tests.rs", "use crate::service;"), [0; 0]);
        assert_eq!(lines("server/src/lane/a.rs", "#[cfg(test)]\nmod tests {\n use crate::service; }"), [0; 0]);
    }
}
