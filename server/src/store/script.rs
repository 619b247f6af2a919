//! The script, assembled at build time from the files of `lua/`, and its name in Redis.

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
    block_if!("ARGV[1] == 'open'", "terms.lua", "state.lua", "opening.lua"),
    block!("partition.lua"),
    block_if!("is_unproven", "terms.lua", "history.lua"),
    block_if!("not is_batch", "state.lua", "configuring.lua"),
    block_if!("ctx.settled_at", "withdrawal.lua"),
    block!("batch.lua"),
    block!("expiry.lua"),
    block!("counters.lua"),
    block_if!("kinds.I", "terms.lua", "stream_end.lua", "withdrawal.lua"),
    block_if!("kinds.R or kinds.r or kinds.L", "refusal.lua"),
    "if not reply then\n",
    block!("state.lua"),
    block!("ledger.lua"),
    block_if!("ctx.any_counted", "buyers.lua"),
    block_if!("ctx.any_extended", "extended.lua"),
    block_if!("kinds.R or kinds.r", "reserve.lua"),
    block_if!("kinds.r or ctx.any_limited", "counted.lua"),
    block_if!("kinds.C or kinds.B or kinds.G", "resolve.lua"),
    block_if!("kinds.L or kinds.c or kinds.b or kinds.E", "parts.lua"),
    block_if!("kinds.S or kinds.A or kinds.F or kinds.D or kinds.T or kinds.H", "supply.lua", "stock.lua"),
    block_if!("kinds.I or kinds.U or kinds.O", "terms.lua", "supply.lua", "settle.lua"),
    block!("apply.lua"),
    block_if!("replid ~= ctx.run", "terms.lua", "term.lua"),
    block!("write.lua"),
    "end\n",
    "return reply\n",
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
