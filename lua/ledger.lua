-- The ledger: with extended.lua and supply.lua the only place that changes a counter, and with it the
-- sequence, the record and the event. Works on the tables that were loaded; no redis.call.

local runs = {} -- the same as run_list, by their heads
local n_resolved, n_past = 0, 0 -- lengths of resolved_ids and past_records
-- What is resolved one after the other and differs only by id is booked as one: ids that are not booked
-- yet, their number, what becomes of them, what they are like (batch.lua), and their buyers if they are named.
local stretch, stretch_n, stretch_to, stretch_like, stretch_buyers = nil, 0, nil, nil, nil

-- A run of events: what happened (kind), what the reservation is after it, until when it is held, whether
-- buyers are named, which units moved (shape), and which are held still where that is not the same (rest).
function run_of(kind, after, deadline, is_named, shape, rest)
  local head = kind .. after .. deadline .. (is_named and '\1' or '\0') .. pack('>I2', #shape) .. shape
    .. pack('>I2', #rest) .. rest
  local run = runs[head]
  if not run then
    -- In [1], [2], ...: ids. `last`: the last of its numbers, counted from the first of this call.
    run = { head = head, n = 0, parts = 0, ranges = {}, last = -1, buyers = is_named and {} }
    runs[head] = run
    run_list[#run_list + 1] = run
  end
  return run
end

-- It happened to n reservations, by the last n numbers of the sequence; their ids, and the buyer fields of a
-- run with names, stand one behind the other.
function enter(run, ids, n, buyers)
  local last = ctx.sequence - ctx.first_sequence
  if run.last ~= last - n then
    run.range = { last - n + 1, 0 }
    run.ranges[#run.ranges + 1] = run.range
  end
  run.range[2] = run.range[2] + n
  run.last, run.n, run.parts = last, run.n + n, run.parts + 1
  run[run.parts] = ids
  if run.buyers then run.buyers[run.parts] = buyers end
end

-- Moves the units of n reservations from one counter to another: each is one change, with one number.
function move(lines, amounts, n, from, to)
  local sequence = advance(n)
  for i = 1, lines.n do
    local units = n * amounts[i]
    if units > 0 then
      local stock = lines.stocks[i]
      if not stock then corrupt('a reservation of an unknown SKU') end
      local left = stock[from] - units
      if left < 0 then corrupt('a counter below zero') end
      stock[from], stock[to], stock[VERSION] = left, stock[to] + units, sequence
      changed_stock[lines.skus[i]] = true
    end
  end
end

-- Books what is not booked yet, and takes the next n numbers of the sequence; returns the last of them.
function advance(n)
  if stretch_n > 0 then
    local ids, count, to, like, buyers = concat(stretch), stretch_n, stretch_to, stretch_like, stretch_buyers
    stretch_n = 0
    move(like.lines, like.lines.quantities, count, HELD, to == 'C' and SOLD or AVAILABLE)
    enter(run_of(to, to, NO_DEADLINE, like.is_named, like.shape, ''), ids, count, buyers and concat(buyers))
  end
  local sequence = ctx.sequence + n
  ctx.sequence = sequence
  return sequence
end

function put(id, record)
  known[id] = record
  if is_pending(record) then
    held_records[#held_records + 1] = id
    held_records[#held_records + 1] = record
  else
    if byte(record, 1) ~= MEMO then
      n_resolved = n_resolved + 1
      resolved_ids[n_resolved] = id
    end
    past_records[n_past + 1], past_records[n_past + 2] = id, record
    n_past = n_past + 2
  end
end

-- held -> sold ('C'), or held -> available ('R' by a call, 'E' by the deadline): of the amounts, or
-- of all that is held. Booked before the next change that is not of the same kind, and after each group.
function settle(id, to, amounts)
  local record = known[id]
  if alike[record] == nil then touch(record) end
  local like = alike[record]
  if amounts or not like then return settle_extended(id, to, amounts) end
  if stretch_n == 0 or like.lines ~= stretch_like.lines or to ~= stretch_to
    or like.is_named ~= stretch_like.is_named then
    advance(0)
    stretch, stretch_to, stretch_like, stretch_buyers = {}, to, like, like.is_named and {} or nil
  end
  stretch_n = stretch_n + 1
  stretch[stretch_n] = id
  if stretch_buyers then stretch_buyers[stretch_n] = like.buyer end
  local settled = like[to]
  if not settled then
    -- Resolved at the deadline, not at the moment that somebody noticed.
    settled = to .. (to == 'E' and sub(record, 2, 7) or ctx.now_bytes) .. record
    like[to] = settled
  end
  known[id] = settled
  n_resolved = n_resolved + 1
  resolved_ids[n_resolved] = id
  past_records[n_past + 1], past_records[n_past + 2] = id, settled
  n_past = n_past + 2
end

-- Adds an entry to the deadline index: these ids are looked at then.
function watch_deadline(deadline, ids)
  new_deadlines[#new_deadlines + 1] = deadline
  new_deadlines[#new_deadlines + 1] = ids
  if ctx.next_due == 0 or deadline < ctx.next_due then ctx.next_due = deadline end
end
