-- What the files share: a table of exports for each, and the context of this call. Each file that
-- follows is a block of its own (server/src/store/script.rs wraps it in `do ... end`): its locals end
-- with it, and it hands on what stands in its table. That is also for speed: Redis runs all of this at
-- every call, and making a function costs a walk through the captured locals that are open then. For the
-- same reason parts.lua and stock.lua are functions, parts.load() and stock.load(), that run when a
-- batch has a kind of theirs. A file that applies kinds of operations has them in its table `apply`.

local records, partition, batch, buyers, ledger, expiry = {}, {}, {}, {}, {}, {}
local reserve, resolve, parts, stock, write = {}, {}, {}, {}, {}

local ctx = {
  -- Of the partition, loaded by partition.lua: epoch, sequence, mark, offset, generation_start,
  -- generation, next_due; of its config: config_revision, retention, longest_life, quota_records,
  -- quota_skus, events_kept.
  -- now               the clock of this call, ms
  -- past, past_other  the generation that is written, and the one before it
  -- first_sequence    of this call's first change, minus one
  record_count = 0,     -- records of the partition, counted against its quota
  any_limited = false,  -- whether a SKU of the batch has a limit per buyer
  backlog = false,      -- whether more holds are due than this call gives back
  expired = 0,          -- holds that this call has given back
}
