-- The ledger. Together with decide/resolve_ledger.lua, decide/extended_records.lua,
-- decide/stock_ledger.lua and decide/withdrawal.lua it is the only code that changes a counter. Each
-- change also advances the sequence, and writes a record and an event. Works on the loaded tables;
-- no redis.call.

-- Everything is loaded. These fields decide which of the following files run.
ctx.any_counted = ctx.any_limited or ctx.any_extended
ctx.any_extended = ctx.any_counted or ctx.doubt_lag or kinds.reserve_replacing or kinds.commit_late
  or kinds.commit_lines or kinds.rollback_lines or kinds.extend

-- The most holds whose deadlines are corrected if the clock was wrong while they were created;
-- further ones end late.
local MAX_DOUBTED = 1024

local runs = {} -- the same as run_list, by their heads

-- Finds or creates a run of events: the event (kind), the state after it, the deadline of the hold,
-- whether buyers are named, the units that moved (a line set), the units that are still held if
-- they differ (rest), and those that were withdrawn (a line set, or nil).
function run_of(kind, after, deadline, is_named, line_set, rest, withdrawn)
  local head = kind .. after .. deadline .. (is_named and '\1' or '\0') .. pack('>I2', #line_set) .. line_set
    .. (rest == '' and '\0\0' or pack('>I2', #rest) .. rest)
    .. (ctx.format == 1 and '' or withdrawn and pack('>I2', #withdrawn) .. withdrawn or '\0\0')
  local run = runs[head]
  if not run then
    -- [1], [2], ... are ids. `last` is the last of its numbers, counted from the first of this
    -- call.
    run = { head = head, n = 0, ranges = {}, last = -1, buyers = is_named and {} }
    runs[head] = run
    run_list[#run_list + 1] = run
  end
  return run
end

-- Adds n reservations to a run, with the last n numbers of the sequence. `ids` is packed, and
-- `buyers` too in a run with names.
function append_event(run, ids, n, buyers)
  local last = ctx.sequence - ctx.first_sequence
  if run.last ~= last - n then
    run.range = { last - n + 1, 0 }
    run.ranges[#run.ranges + 1] = run.range
  end
  run.range[2] = run.range[2] + n
  run.last, run.n = last, run.n + n
  run[#run + 1] = ids
  if run.buyers then run.buyers[#run] = buyers end
end

-- Moves the units of n reservations from one counter to another; each is one change with one
-- number. `deadline` is set if the units become held: they are not due before it (0: not known).
function transfer(lines, amounts, n, from, to, deadline)
  local sequence = next_sequence(n)
  for i = 1, lines.n do
    local units = n * amounts[i]
    if units > 0 then
      local stock = lines.stocks[i]
      if not stock then fail(CORRUPT, 'a reservation of an unknown SKU') end
      local left = stock[from] - units
      if left < 0 then fail(CORRUPT, 'a counter below zero') end
      if deadline and (stock[HELD] == 0 or deadline < stock[EARLIEST]) then stock[EARLIEST] = deadline end
      stock[from], stock[to], stock[VERSION] = left, stock[to] + units, sequence
      changed_stock[lines.skus[i]] = true
    end
  end
end

-- Takes the next n numbers of the sequence; returns the last of them.
function next_sequence(n)
  local sequence = ctx.sequence + n
  ctx.sequence = sequence
  return sequence
end

function store_record(id, record)
  records_by_id[id] = record
  new_records[#new_records + 1] = id
  new_records[#new_records + 1] = record
end

-- Adds ids to the deadline index.
function watch_deadline(deadline, ids)
  if ctx.doubted and #ctx.doubted < 16 * MAX_DOUBTED then ctx.doubted = ctx.doubted .. ids end
  local at_once = new_deadlines[deadline]
  if at_once then
    at_once[#at_once + 1] = ids
  else
    new_deadlines[deadline] = { ids }
  end
  if ctx.next_due == 0 or deadline < ctx.next_due then ctx.next_due = deadline end
end
