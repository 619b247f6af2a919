//! Assembles the script from the files of `scripts/`: expands the manifest `main.lua`, and replaces each constant by
//! its value. No I/O.

use std::{borrow::Cow, collections::HashMap};

use crate::prelude::prelude;

macro_rules! files {
    ($($path:literal,)+) => {
        /// The files of `scripts/` by their names.
        pub(crate) const FILES: &[(&str, &str)] = &[$(($path, include_str!(concat!("../scripts/", $path)))),+];
    };
}

files! {
    "main.lua",
    "contract.lua",
    "formats.lua",
    "shared.lua",
    "register.lua",
    "load/lines.lua",
    "load/record_fields.lua",
    "load/partition.lua",
    "load/clock.lua",
    "load/terms.lua",
    "load/history.lua",
    "load/batch.lua",
    "load/records.lua",
    "load/stock.lua",
    "load/due.lua",
    "load/ended_counts.lua",
    "load/purged_counts.lua",
    "load/stream_end.lua",
    "load/half_done.lua",
    "load/buyer_limits.lua",
    "decide/refusal.lua",
    "decide/ledger.lua",
    "decide/resolve_ledger.lua",
    "decide/extended_records.lua",
    "decide/same_request.lua",
    "decide/reserve.lua",
    "decide/reserve_limited.lua",
    "decide/resolve.lua",
    "decide/partial_ops.lua",
    "decide/stock_ledger.lua",
    "decide/stock.lua",
    "decide/settle.lua",
    "decide/close.lua",
    "decide/withdrawal.lua",
    "decide/doubt.lua",
    "decide/returning.lua",
    "decide/apply.lua",
    "decide/term.lua",
    "write/stock_bytes.lua",
    "write/batch.lua",
    "write/state.lua",
    "write/closed.lua",
    "write/deletion.lua",
    "write/open.lua",
    "write/configure.lua",
    "write/reply.lua",
}

/// Which variant of the script is assembled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// For Redis at its memory limit: the script creates no SKU.
    pub(crate) at_memory_limit: bool,
    /// Runs every block whose condition only saves time.
    pub(crate) forces_blocks: bool,
}

/// The script that `main.lua` lists.
pub(crate) fn assemble(options: Options) -> String {
    let prelude = prelude(options.at_memory_limit);
    let lua = expand(file("main.lua"), options);
    with_constants(&prelude, &lua)
}

/// The text of a file; the manifest names no other.
pub(crate) fn file(name: &str) -> &'static str {
    let found = FILES.iter().find(|(path, _)| *path == name);
    found.map(|(_, text)| *text).unwrap_or_else(|| panic!("scripts/ has no file {name}"))
}

/// Puts files in the place of the directives of a manifest.
fn expand(manifest: &str, options: Options) -> String {
    let mut out = String::with_capacity(128 * 1024);
    for line in joined(manifest).lines() {
        match directive(line) {
            Some(Directive { files, block }) => {
                let (first, last): (Cow<'_, str>, _) = match block {
                    Block::Inline => ("".into(), ""),
                    Block::Saving(_) if options.forces_blocks => ("do\n".into(), "end\n"),
                    Block::Always => ("do\n".into(), "end\n"),
                    Block::Saving(condition) | Block::Acting(condition) => {
                        (format!("if {condition} then\n").into(), "end\n")
                    }
                };
                out.push_str(&first);
                files.iter().for_each(|name| out.push_str(file(name)));
                out.push_str(last);
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// The manifest with each directive in one line.
fn joined(manifest: &str) -> String {
    manifest.replace("\n--@    ", " ")
}

/// A line of the manifest that is replaced by files.
struct Directive<'a> {
    files: Vec<&'a str>,
    block: Block<'a>,
}

/// When the files of a directive run.
enum Block<'a> {
    /// Always, and the files behind them see their locals.
    Inline,
    Always,
    /// If the condition holds. Otherwise the files would change nothing, so the condition only saves time.
    Saving(&'a str),
    /// If the condition holds. Otherwise the files must not run.
    Acting(&'a str),
}

fn directive(line: &str) -> Option<Directive<'_>> {
    let (rest, is_inline) = match line.strip_prefix("--@inline ") {
        Some(rest) => (rest, true),
        None => (line.strip_prefix("--@include ")?, false),
    };
    // The files end with the last quote before the condition; a condition may have quotes too, of the other kind.
    let end = rest.rfind('"').map_or(0, |at| at + 1);
    let (quoted, condition) = rest.split_at(end);
    let files: Vec<&str> = quoted.split('"').skip(1).step_by(2).collect();
    let block = match condition.trim() {
        "" if is_inline => Block::Inline,
        "" => Block::Always,
        condition => match (condition.strip_prefix("only if "), condition.strip_prefix("if ")) {
            (Some(condition), _) => Block::Acting(condition),
            (_, Some(condition)) => Block::Saving(condition),
            _ => panic!("no directive of the manifest: {line}"),
        },
    };
    Some(Directive { files, block })
}

/// The Lua with each constant replaced by its value, and without comments. The number of lines does not change.
///
/// A constant is a name in capitals. A line of the prelude or of the script that begins with `local` assigns a number
/// or a text to it. As a local it would be set in each call, and again for each function that uses it.
fn with_constants(prelude: &str, lua: &str) -> String {
    let lines = prelude.lines().chain(lua.lines());
    let constants: HashMap<&str, &str> = lines.filter_map(constants_in).flatten().collect();
    let mut out = String::with_capacity(lua.len());
    for line in lua.lines() {
        if constants_in(line).is_none() {
            for token in tokens(line) {
                out.push_str(constants.get(token).copied().unwrap_or(token));
            }
        }
        out.push('\n');
    }
    out
}

/// The names that this line declares with their values, if all of them are constants.
fn constants_in(line: &str) -> Option<Vec<(&str, &str)>> {
    let (names, values) = line.strip_prefix("local ")?.split_once(" = ")?;
    let names: Vec<&str> = names.split(", ").collect();
    let is_name = |name: &&str| name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    let values: Vec<&str> = tokens(values).into_iter().filter(|token| !matches!(*token, " " | "," | "")).collect();
    let is_literal = |value: &&str| value.starts_with(|first: char| first == '\'' || first.is_ascii_digit());
    let is_constant = names.len() == values.len() && names.iter().all(is_name) && values.iter().all(is_literal);
    is_constant.then(|| names.into_iter().zip(values).collect())
}

/// The words, texts and other characters of a line up to its comment.
fn tokens(line: &str) -> Vec<&str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = line.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        at += 1;
        if bytes[start..].starts_with(b"--") {
            break;
        } else if bytes[start] == b'\'' {
            while at < bytes.len() && bytes[at] != b'\'' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at = (at + 1).min(bytes.len());
        } else if is_word(bytes[start]) {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
        } else {
            while !line.is_char_boundary(at) {
                at += 1;
            }
        }
        tokens.push(&line[start..at]);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::Path};

    use super::*;
    use crate::codes::{AnswerCode, OpKind};

    #[test]
    fn a_constant_is_put_in_the_place_of_its_name() {
        let lua = "local MOST, TEXT = 7, 'a MOST -- b' -- the MOST\n\
            local made = { MOST, TEXT, MOST_OF, 'MOST\\'MOST' } -- MOST\n";
        assert_eq!(with_constants("", lua), "\nlocal made = { 7, 'a MOST -- b', MOST_OF, 'MOST\\'MOST' } \n");
        assert_eq!(with_constants("local ONE = 1\n", "local one = ONE\n"), "local one = 1\n");
        for kept in
            ["local META = KEYS", "local PADDING = 'M' .. 'x'", "local now = 7", "  local MOST = 7", "local A, B = 7"]
        {
            assert_eq!(with_constants("", kept), format!("{kept}\n"));
        }
    }

    #[test]
    fn the_script_of_the_memory_limit_differs_by_one_constant() {
        let [plain, limited] =
            [false, true].map(|at_memory_limit| assemble(Options { at_memory_limit, ..Options::default() }));
        let differ: Vec<_> = plain.lines().zip(limited.lines()).filter(|(one, other)| one != other).collect();
        assert_eq!(plain.lines().count(), limited.lines().count());
        assert!(matches!(differ[..], [(one, other)] if one.replace("0 == 1", "1 == 1") == other), "{differ:?}");
    }

    #[test]
    fn no_constant_of_the_script_has_two_values_and_none_is_left() {
        let (prelude, lua) = (prelude(false), expand(file("main.lua"), Options::default()));
        let mut values = HashMap::new();
        for (name, value) in prelude.lines().chain(lua.lines()).filter_map(constants_in).flatten() {
            assert_eq!(*values.entry(name).or_insert(value), value, "{name}");
        }
        assert!(values.len() > 150 && values["MAX_OPERATIONS"] == "512");
        let script = assemble(Options::default());
        assert_eq!(script.lines().count(), lua.lines().count());
        let left = script.lines().flat_map(tokens).find(|token| values.contains_key(token));
        assert_eq!(left, None);
        // `tokens` does not parse these quotes.
        assert!(!script.contains("[[") && !script.contains('"'), "quotes that `tokens` does not parse");
    }

    /// The script uses every constant of the prelude, except letters that two alphabets share: an event that resolves
    /// reservations has the letter of their state, and a change of stock has the letter of its memo.
    #[test]
    fn every_constant_of_the_prelude_is_used() {
        let prelude = prelude(false);
        let used: HashSet<&str> = FILES.iter().flat_map(|(_, text)| text.lines()).flat_map(tokens).collect();
        let constants: HashMap<_, _> = prelude.lines().filter_map(constants_in).flatten().collect();
        let mut unused: Vec<_> = constants.keys().copied().filter(|name| !used.contains(name)).collect();
        unused.sort_unstable();
        let twins = [
            ("EVENT_COMMITTED", "STATE_COMMITTED"),
            ("EVENT_EXPIRED", "STATE_EXPIRED"),
            ("EVENT_ROLLED_BACK", "STATE_ROLLED_BACK"),
            ("EVENT_STOCK_ADJUSTED", "MEMO_ADJUST_STOCK"),
            ("EVENT_STOCK_SET", "MEMO_SET_STOCK"),
        ];
        assert_eq!(unused, twins.map(|(name, _)| name));
        for (name, twin) in twins {
            assert_eq!(constants[name], constants[twin], "{name}");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_manifest_or_a_script_of_its_own() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
        let mut found = HashSet::new();
        for path in ["", "load", "decide", "write"] {
            for entry in fs::read_dir(folder.join(path)).expect("a folder") {
                let entry = entry.expect("an entry").path();
                if entry.extension().is_some_and(|extension| extension == "lua") {
                    found.insert(
                        entry.strip_prefix(&folder).expect("a path in it").to_str().expect("a name").to_owned(),
                    );
                }
            }
        }
        let listed: HashSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(found, listed);
        let manifest = joined(file("main.lua"));
        let mut run: HashSet<&str> =
            manifest.lines().filter_map(directive).flat_map(|directive| directive.files).collect();
        run.extend(["main.lua", "register.lua"]);
        assert_eq!(listed, run.into_iter().map(str::to_owned).collect());
        for (name, text) in FILES {
            assert!(*name == "main.lua" || !text.lines().any(|line| directive(line).is_some()), "{name}");
        }
    }

    /// The tables of `contract.lua` name each kind and each answer code once, with its letter.
    #[test]
    fn the_contract_has_every_kind_and_every_answer_code() {
        let rows = |is_row: fn(&str) -> bool| -> Vec<Vec<&str>> {
            let rows = file("contract.lua").lines().filter_map(|line| line.strip_prefix("--   "));
            rows.filter(|row| is_row(row)).map(|row| row.split_whitespace().take(2).collect()).collect()
        };
        let is_answer = |row: &str| row.get(..3).is_some_and(|start| !start.starts_with(' ') && start.ends_with("  "));
        let answers: Vec<_> = AnswerCode::ALL
            .iter()
            .map(|code| vec![char::from(code.byte()).to_string(), code.lua_name().to_owned()])
            .collect();
        assert_eq!(rows(is_answer), answers);
        let first_words: Vec<_> = rows(|row| row.starts_with(|first: char| first.is_ascii_lowercase()));
        for kind in OpKind::ALL {
            let named = first_words.iter().filter(|row| row[0] == kind.word()).count();
            assert_eq!(named, 1, "{}", kind.word());
        }
    }
}
