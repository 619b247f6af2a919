//! The bytecode of the assembled script, from its Redis: it sets no global, and stays well below Lua's limits.

use std::collections::BTreeSet;

use deadpool_redis::redis::cmd;
use inventory_sentinel_script::script::script_source;
use sentinel_tests::Redis;

/// The globals that the script may read: what Redis gives it.
const GLOBALS: [&str; 13] = [
    "ARGV", "KEYS", "bit", "error", "math", "next", "pairs", "redis", "string", "struct", "table", "tonumber", "unpack",
];
/// Locals of one function at a time; Lua permits 200.
const MOST_LOCALS: usize = 180;
/// Upvalues of one function; Lua permits 60.
const MOST_UPVALUES: usize = 55;

/// The properties of a chunk's bytecode.
#[derive(Debug, Default)]
struct Usage {
    read: BTreeSet<String>,
    written: BTreeSet<String>,
    locals: usize,
    upvalues: usize,
    functions: usize,
}

/// A cursor over the bytecode of Lua 5.1, of a machine with little-endian numbers of 4 bytes and sizes of 8.
struct Chunk<'a>(&'a [u8]);

impl Chunk<'_> {
    const HEADER: [u8; 12] = [0x1b, b'L', b'u', b'a', 0x51, 0, 1, 4, 8, 4, 8, 0];

    fn take(&mut self, length: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> usize {
        self.take(1)[0].into()
    }

    fn int(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().expect("4 bytes")) as usize
    }

    fn text(&mut self) -> String {
        let length = u64::from_le_bytes(self.take(8).try_into().expect("8 bytes")) as usize;
        let bytes = self.take(length);
        String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned()
    }

    /// Adds those of a function and of the functions inside it.
    fn function(&mut self, usage: &mut Usage) {
        const GET_GLOBAL: usize = 5;
        const SET_GLOBAL: usize = 7;
        let _name = self.text();
        let (_first_line, _last_line) = (self.int(), self.int());
        usage.upvalues = usage.upvalues.max(self.byte());
        usage.functions += 1;
        let (_parameters, _varargs, _stack) = (self.byte(), self.byte(), self.byte());
        let instructions: Vec<usize> = (0..self.int()).map(|_| self.int()).collect();
        let mut constants = Vec::new();
        for _ in 0..self.int() {
            constants.push(match self.byte() {
                0 => String::new(),
                1 => self.byte().to_string(),
                3 => hex(self.take(8)),
                _ => self.text(),
            });
        }
        for instruction in instructions {
            let name = || constants[instruction >> 14].clone();
            match instruction & 0x3f {
                GET_GLOBAL => _ = usage.read.insert(name()),
                SET_GLOBAL => _ = usage.written.insert(name()),
                _ => {}
            }
        }
        for _ in 0..self.int() {
            self.function(usage);
        }
        for _ in 0..self.int() {
            let _line = self.int();
        }
        let mut locals = Vec::new();
        for _ in 0..self.int() {
            let _name = self.text();
            locals.push(self.int()..self.int());
        }
        for local in &locals {
            let at_once = locals.iter().filter(|other| other.contains(&local.start)).count();
            usage.locals = usage.locals.max(at_once);
        }
        for _ in 0..self.int() {
            let _upvalue = self.text();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The properties of this Lua source.
async fn usage(redis: &Redis, lua: &str) -> Usage {
    let mut compile = cmd("EVAL");
    compile.arg("return string.dump(assert(loadstring(ARGV[1])))").arg(0).arg(lua);
    let bytecode: Vec<u8> = redis.query(&compile).await;
    let code = bytecode.strip_prefix(&Chunk::HEADER).expect("bytecode of Lua 5.1");
    let (mut usage, mut chunk) = (Usage::default(), Chunk(code));
    chunk.function(&mut usage);
    assert!(chunk.0.is_empty(), "all of it was read");
    usage
}

/// Redis refuses a global only when the script reaches it.
#[tokio::test]
async fn the_script_has_no_global_of_its_own_and_stays_below_the_limits_of_lua() {
    let redis = Redis::start_in_memory().await;
    let lua = script_source();
    let (_shebang, lua) = lua.split_once('\n').expect("a shebang");
    let found = usage(&redis, lua).await;
    assert!(found.functions > 100, "{found:?}");
    assert!(found.written.is_empty(), "globals that are written: {:?}", found.written);
    let unknown: Vec<_> = found.read.iter().filter(|name| !GLOBALS.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "globals that are read: {unknown:?}");
    assert!(found.locals < MOST_LOCALS && found.upvalues < MOST_UPVALUES, "{found:?}");

    // The check finds what it is for.
    let leaking = format!("{lua}\n", lua = lua.replacen("local function call_with", "function call_with", 1));
    assert_eq!(Vec::from_iter(usage(&redis, &leaking).await.written), ["call_with"]);
    let misspelt = lua.replacen("ctx.sequence", "cxt.sequence", 1);
    assert!(usage(&redis, &misspelt).await.read.contains("cxt"));
    let names = |n: usize| (0..n).map(|i| format!("a{i}")).collect::<Vec<_>>().join(", ");
    let crowded =
        format!("local {} = 1 do local c, d = 1, 2 c = d end return function() return {} end", names(50), names(50));
    let crowded = usage(&redis, &crowded).await;
    assert_eq!((crowded.locals, crowded.upvalues), (52, 50));
}
