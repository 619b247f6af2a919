//! The script, assembled from the files of `lua/`, and its name in Redis. Pure, no I/O.

use std::collections::HashMap;

use deadpool_redis::redis::Script as Hashed;

/// A file of `lua/` as a block: it runs where it stands, and its locals end with it.
macro_rules! block {
    ($file:literal) => {
        concat!("do\n", include_str!(concat!("../../../lua/", $file)), "end\n")
    };
}

/// The same where the batch needs it.
macro_rules! block_if {
    ($condition:literal, $($file:literal),+) => {
        concat!("if ", $condition, " then\n", $(include_str!(concat!("../../../lua/", $file)),)+ "end\n")
    };
}

/// The files of `lua/`, in the order in which they run.
const BODY: &str = concat!(
    include_str!("../../../lua/contract.lua"),
    include_str!("../../../lua/shared.lua"),
    block!("records.lua"),
    block_if!("ARGV[1] == 'open'", "terms.lua", "opening.lua"),
    "if saves then\n",
    block!("save.lua"),
    block!("configuring.lua"),
    "return reply\nend\n",
    "if ARGV[1] == 'delete' then\n",
    include_str!("../../../lua/deletion.lua"),
    "return reply\nend\n",
    block!("partition.lua"),
    block!("clock.lua"),
    block_if!("is_unproven", "terms.lua", "history.lua"),
    "if not is_batch then\n",
    block!("configuring.lua"),
    block_if!("saves", "save.lua"),
    "return reply\nend\n",
    block_if!("ctx.settled_at", "withdrawal.lua"),
    block!("batch.lua"),
    block_if!("not ctx.only_reserves or ctx.next_due ~= 0 and ctx.next_due <= ctx.now", "fields.lua"),
    block!("lookup.lua"),
    block_if!("groups[1] and ctx.next_due ~= 0 and ctx.next_due <= ctx.now", "counters.lua"),
    block!("expiry.lua"),
    block_if!("ctx.purging and not ctx.gated", "purge.lua", "counters.lua", "purged.lua"),
    block!("counters.lua"),
    block_if!("kinds.I or kinds.O", "terms.lua", "stream_end.lua", "withdrawal.lua"),
    block_if!("ctx.half_done", "half_done.lua"),
    block_if!("kinds.R or kinds.r or kinds.L", "refusal.lua"),
    "if not reply then\n",
    block_if!("not is_pending", "fields.lua"),
    block!("stock_bytes.lua"),
    block!("ledger.lua"),
    block_if!("not ctx.only_reserves or due[1]", "settling.lua"),
    block_if!("ctx.any_counted", "buyers.lua"),
    block_if!("ctx.any_extended", "extended.lua"),
    block_if!("(kinds.R or kinds.r) and (next(known) or groups[2] or groups[1].n > 1)", "same.lua"),
    block_if!("kinds.R or kinds.r", "reserve.lua"),
    block_if!("kinds.r or ctx.any_limited", "counted.lua"),
    block_if!("kinds.C or kinds.B or kinds.G", "resolve.lua"),
    block_if!("kinds.L or kinds.c or kinds.b or kinds.E", "parts.lua"),
    block_if!("kinds.S or kinds.A or kinds.F or kinds.D or kinds.T or kinds.H", "supply.lua", "stock.lua"),
    block_if!("kinds.I or kinds.U or kinds.O", "terms.lua", "supply.lua", "settle.lua"),
    block_if!("kinds.X", "closing.lua"),
    block_if!("ctx.doubt_lag", "doubt.lua"),
    block_if!("ctx.backlog or ctx.is_doubtful", "returning.lua"),
    block!("apply.lua"),
    block_if!("replid ~= state_run", "terms.lua", "term.lua"),
    block!("write.lua"),
    block_if!("saves", "save.lua"),
    block_if!("ctx.closes", "closed.lua"),
    "end\n",
    include_str!("../../../lua/reply.lua"),
);

/// Of the script that Redis runs at its memory limit, and what stands there in the other.
const AT_MEMORY_LIMIT: [&str; 2] = ["local AT_MEMORY_LIMIT = 1", "local AT_MEMORY_LIMIT = 0"];

/// A script by its name in Redis. Its source is made where Redis lacks it, which is rare: nothing keeps its 96 KB.
///
/// The script of the service is loaded twice: Redis at its memory limit runs only the second, so that resolutions, expiry and
/// changes of what exists always get through. It differs by one constant, so that it makes no SKU.
pub(crate) struct Script {
    pub(crate) sha: String,
    source: fn() -> String,
}

impl Script {
    pub(super) fn new(source: fn() -> String) -> Self {
        Self { sha: Hashed::new(&source()).get_hash().to_owned(), source }
    }

    /// For everything while there is memory: refused before its first line when there is none.
    pub(crate) fn plain() -> Self {
        Self::new(|| with_shebang("#!lua", BODY))
    }

    /// For what frees memory, and for changes of what exists.
    pub(crate) fn allow_oom() -> Self {
        Self::new(|| {
            let [limited, plain] = AT_MEMORY_LIMIT;
            with_shebang("#!lua flags=allow-oom", &BODY.replace(plain, limited))
        })
    }

    /// Enters a namespace in the list of all.
    pub(crate) fn register() -> Self {
        Self::new(|| format!("#!lua\n{}", include_str!("../../../lua/register.lua")))
    }

    pub(crate) fn source(&self) -> String {
        (self.source)()
    }
}

fn with_shebang(shebang: &str, lua: &str) -> String {
    format!("{shebang}\n{}", with_constants(lua))
}

/// The source of the script, for tests that call it as no server does.
#[doc(hidden)]
pub fn script_source() -> String {
    Script::plain().source()
}

/// The Lua with the value of each constant in the place of its name, and without comments. Lines stay where they are.
///
/// A constant is a name in capitals to which a line that begins with `local` gives a number or a text. As a local it
/// would be set in each call, and again for each function that uses it.
fn with_constants(lua: &str) -> String {
    let constants: HashMap<&str, &str> = lua.lines().filter_map(constants_in).flatten().collect();
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
    use super::*;

    #[test]
    fn a_constant_is_put_in_the_place_of_its_name() {
        let lua = "local MOST, TEXT = 7, 'a MOST -- b' -- the MOST\nlocal made = { MOST, TEXT, MOST_OF, 'MOST\\'MOST' } -- MOST\n";
        assert_eq!(with_constants(lua), "\nlocal made = { 7, 'a MOST -- b', MOST_OF, 'MOST\\'MOST' } \n");
        for kept in
            ["local META = KEYS", "local WEIGHT = 'M' .. 'x'", "local now = 7", "  local MOST = 7", "local A, B = 7"]
        {
            assert_eq!(with_constants(kept), format!("{kept}\n"));
        }
    }

    #[test]
    fn the_script_of_the_memory_limit_differs_by_one_constant() {
        let (plain, limited) = (Script::plain().source(), Script::allow_oom().source());
        let differ: Vec<_> = plain.lines().zip(limited.lines()).skip(1).filter(|(one, other)| one != other).collect();
        assert_eq!(plain.lines().count(), limited.lines().count());
        assert!(matches!(differ[..], [(one, other)] if one.replace("0 == 1", "1 == 1") == other), "{differ:?}");
    }

    #[test]
    fn no_constant_of_the_script_has_two_values_and_none_is_left() {
        let mut values = HashMap::new();
        for (name, value) in BODY.lines().filter_map(constants_in).flatten() {
            assert_eq!(*values.entry(name).or_insert(value), value, "{name}");
        }
        assert!(values.len() > 50 && values["MAX_OPERATIONS"] == "512");
        let script = with_constants(BODY);
        assert_eq!(script.lines().count(), BODY.lines().count());
        let left = script.lines().flat_map(tokens).find(|token| values.contains_key(token));
        assert_eq!(left, None);
        // What the tokens do not know.
        assert!(!script.contains("[[") && !script.contains('"'), "other quotes than those of `tokens`");
    }
}
