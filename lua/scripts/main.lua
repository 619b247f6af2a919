-- The table of contents of the script: its files in the order in which they run.
--
-- The assembler (src/assemble.rs) replaces each directive, which may have several lines, by files:
--   `--@inline FILE`              the text, whose locals are visible in the files after it
--   `--@include FILES`            a block, whose locals end with it
--   `--@include FILES if ...`     a block that would change nothing if the condition is false: the
--                                 condition only saves time
--   `--@include FILES only if ..` a block that must not run if the condition is false
-- Redis executes the whole script in each call. So a file that not every batch needs runs under a
-- condition.
--
-- The script loads what the batch touches, decides on Lua tables, and then writes. contract.lua
-- explains why.

--@inline "contract.lua"
--@inline "formats.lua"
--@inline "shared.lua"
--@include "load/lines.lua"

-- Opening a partition: this call ends here if it creates one.
--@include "load/terms.lua", "write/open.lua" only if ARGV[1] == 'open'
if saves then
--@include "write/state.lua"
--@include "write/configure.lua"
return reply
end

-- The deletion of a closed partition.
if ARGV[1] == 'delete' then
--@inline "write/deletion.lua"
return reply
end

-- The partition and its history.
--@include "load/partition.lua"
--@include "load/clock.lua"
--@include "load/terms.lua", "load/history.lua" only if is_unproven

-- Opening a partition that exists, and configuring a namespace.
if not is_batch then
--@include "write/configure.lua"
--@include "write/state.lua" only if saves
return reply
end

-- LOAD: what the batch touches.
--@include "decide/withdrawal.lua" if ctx.settled_at
--@include "load/batch.lua"
--@include "load/record_fields.lua" if not ctx.only_reserves or ctx.next_due ~= 0 and ctx.next_due
--@    <= ctx.now
--@include "load/records.lua"
--@include "load/stock.lua" if groups[1] and ctx.next_due ~= 0 and ctx.next_due <= ctx.now
--@include "load/due.lua"
--@include "load/ended_counts.lua", "load/stock.lua", "load/purged_counts.lua" only if ctx.purging
--@    and not ctx.gated
--@include "load/stock.lua"
--@include "load/terms.lua", "load/stream_end.lua", "decide/withdrawal.lua" if
--@    kinds.begin_settlement or kinds.end_settlement
--@include "load/half_done.lua" only if ctx.half_done

-- DECIDE: on Lua tables. Fast rejection answers a batch of Reserves that are all refused.
--@include "decide/refusal.lua" if kinds.reserve or kinds.reserve_replacing or kinds.commit_late
if not reply then
--@include "load/record_fields.lua" if not is_pending
--@include "write/stock_bytes.lua"
--@include "decide/ledger.lua"
--@include "decide/resolve_ledger.lua" if not ctx.only_reserves or due[1]
--@include "load/buyer_limits.lua" if ctx.any_counted
--@include "decide/extended_records.lua" if ctx.any_extended
--@include "decide/same_request.lua" if (kinds.reserve or kinds.reserve_replacing) and
--@    (next(records_by_id) or groups[2] or groups[1].n > 1)
--@include "decide/reserve.lua" if kinds.reserve or kinds.reserve_replacing
--@include "decide/reserve_limited.lua" if kinds.reserve_replacing or ctx.any_limited
--@include "decide/resolve.lua" if kinds.commit or kinds.rollback or kinds.get_reservation
--@include "decide/partial_ops.lua" if kinds.commit_late or kinds.commit_lines or
--@    kinds.rollback_lines or kinds.extend
--@include "decide/stock_ledger.lua", "decide/stock.lua" if kinds.set_stock or kinds.adjust_stock or
--@    kinds.configure_sku or kinds.delete_sku or kinds.get_stock or kinds.is_protected
--@include "load/terms.lua", "decide/stock_ledger.lua", "decide/settle.lua" if
--@    kinds.begin_settlement or kinds.settle_sku or kinds.end_settlement
--@include "decide/close.lua" if kinds.close_partition
--@include "decide/doubt.lua" only if ctx.doubt_lag
--@include "decide/returning.lua" only if ctx.backlog or ctx.is_doubtful
--@include "decide/apply.lua"
--@include "load/terms.lua", "decide/term.lua" only if replid ~= state_run

-- WRITE: all or nothing; every check came before.
--@include "write/batch.lua"
--@include "write/state.lua" only if saves
--@include "write/closed.lua" only if ctx.closes
end
--@inline "write/reply.lua"
