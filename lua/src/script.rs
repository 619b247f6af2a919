//! The scripts and their names in Redis. No I/O.

use deadpool_redis::redis::Script as Hashed;

use crate::assemble::{Options, assemble, file};

/// A script and its name in Redis. Its source has 96 KB and is not kept in memory. It is assembled only when Redis
/// lacks the script, which is rare.
///
/// The script of the service is loaded in two variants. Redis at its memory limit runs only the second, so resolutions,
/// expiry and changes of existing records still succeed. The second differs by one constant, and creates no SKU.
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

    /// The variant for all operations. Redis at its memory limit refuses it before its first line.
    pub fn plain() -> Self {
        Self::new(script_source)
    }

    /// The variant for operations that free memory, and for changes of existing records.
    pub fn allow_oom() -> Self {
        Self::new(|| {
            let lua = assemble(Options { at_memory_limit: true, ..Options::default() });
            format!("#!lua flags=allow-oom\n{lua}")
        })
    }

    /// Adds a namespace to the list of namespaces.
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

/// The same script, in which every block runs whose condition only saves time. For tests.
#[doc(hidden)]
pub fn script_source_with_all_blocks() -> String {
    format!("#!lua\n{}", assemble(Options { forces_blocks: true, ..Options::default() }))
}
