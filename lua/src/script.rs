//! The scripts and their names in Redis. No I/O.

use deadpool_redis::redis::Script as Hashed;

use crate::assemble::{Options, assemble, file};

/// A script by its name in Redis. Its source is made only where Redis lacks it, which is rare: nothing keeps its 96 KB.
///
/// The script of the service is loaded twice. Redis at its memory limit runs only the second, so that resolutions, expiry
/// and changes of what exists always get through. It differs by one constant, and makes no SKU.
pub struct Script {
    /// Its SHA-1, for EVALSHA.
    pub sha: String,
    source: fn() -> String,
}

impl Script {
    /// The script with this source, which must be the same at each call.
    pub fn new(source: fn() -> String) -> Self {
        Self { sha: Hashed::new(&source()).get_hash().to_owned(), source }
    }

    /// For everything while there is memory: refused before its first line when there is none.
    pub fn plain() -> Self {
        Self::new(script_source)
    }

    /// For what frees memory, and for changes of what exists.
    pub fn allow_oom() -> Self {
        Self::new(|| {
            let lua = assemble(Options { at_memory_limit: true, ..Options::default() });
            format!("#!lua flags=allow-oom\n{lua}")
        })
    }

    /// Enters a namespace in the list of all.
    pub fn register() -> Self {
        Self::new(|| format!("#!lua\n{}", file("register.lua")))
    }

    /// Its Lua.
    pub fn source(&self) -> String {
        (self.source)()
    }
}

/// The source of the script.
pub fn script_source() -> String {
    format!("#!lua\n{}", assemble(Options::default()))
}

/// The same with every block that a condition only leaves out to save time. For tests.
#[doc(hidden)]
pub fn script_source_with_all_blocks() -> String {
    format!("#!lua\n{}", assemble(Options { forces_blocks: true, ..Options::default() }))
}
