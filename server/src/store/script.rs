//! The script, assembled at build time from the files of `lua/`, and its name in Redis.

use deadpool_redis::redis::Script as Hashed;

/// One file of `lua/`, as a block of its own: its locals end with it.
macro_rules! block {
    ($file:literal) => {
        concat!("do\n", include_str!(concat!("../../../lua/", $file)), "end\n")
    };
}

/// One file of `lua/`, as a function that is run when it is needed.
macro_rules! on_demand {
    ($file:literal, $module:literal) => {
        concat!("function ", $module, ".load()\n", include_str!(concat!("../../../lua/", $file)), "end\n")
    };
}

/// The files of `lua/`, each using only what stands before it.
const BODY: &str = concat!(
    include_str!("../../../lua/contract.lua"),
    include_str!("../../../lua/modules.lua"),
    block!("records.lua"),
    block!("partition.lua"),
    block!("batch.lua"),
    block!("buyers.lua"),
    block!("ledger.lua"),
    block!("expiry.lua"),
    block!("reserve.lua"),
    block!("resolve.lua"),
    on_demand!("parts.lua", "parts"),
    on_demand!("stock.lua", "stock"),
    block!("write.lua"),
    block!("main.lua"),
);

/// One script, loaded twice: Redis at its memory limit runs only the second, so that resolutions
/// and expiry always get through, and nothing else does.
pub(crate) struct Script {
    pub(crate) source: String,
    pub(crate) sha: String,
}

impl Script {
    fn with_shebang(shebang: &str) -> Self {
        let source = format!("{shebang}\n{BODY}");
        let sha = Hashed::new(&source).get_hash().to_owned();
        Self { source, sha }
    }

    /// For everything while there is memory: refused before its first line when there is none.
    pub(crate) fn plain() -> Self {
        Self::with_shebang("#!lua")
    }

    /// For what frees memory.
    pub(crate) fn allow_oom() -> Self {
        Self::with_shebang("#!lua flags=allow-oom")
    }
}
