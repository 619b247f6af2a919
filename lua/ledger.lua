-- The ledger: with extended.lua and supply.lua the only place that changes a counter, and with it the
-- sequence, the record and the event. Works on the tables that were loaded; no redis.call.

local runs = {}      -- the same as run_list, by all but the ids
local n_changed = 0  -- of `changed`

-- A run of events: what happened (kind), what the reservation is after it, until when it is held, which
-- units moved (shape), and which are held still where that is not the same (rest).
function run_of(kind, after, deadline, shape, rest)
  local name = kind .. after .. deadline .. shape .. rest
  local run = runs[name]
  if not run then
    run = {
      head = kind .. after .. deadline .. pack('>I2', #shape) .. shape .. pack('>I2', #rest) .. rest,
      n = 0,
    }
    runs[name] = run
    run_list[#run_list + 1] = run
  end
  return run
end

-- One entry of a run: the id, its place in the sequence, the buyer field.
function enter(run, id, buyer)
  local n = run.n + 1
  run.n = n
  run[n] = id .. pack('>I2', ctx.sequence - ctx.first_sequence) .. buyer
end

-- Moves units of these lines from one counter to another: one change, one number.
function move(lines, amounts, from, to)
  local sequence = ctx.sequence + 1
  ctx.sequence = sequence
  for i = 1, lines.n do
    local quantity = amounts[i]
    if quantity > 0 then
      local stock = lines.stocks[i]
      if not stock then corrupt('a reservation of an unknown SKU') end
      local left = stock[from] - quantity
      if left < 0 then corrupt('a counter below zero') end
      stock[from], stock[to], stock[VERSION] = left, stock[to] + quantity, sequence
      changed_stock[lines.skus[i]] = true
    end
  end
end

function put(id, record)
  known[id] = record
  n_changed = n_changed + 1
  changed[n_changed] = id
end

-- available -> held: the birth of a reservation that is not extended.
function hold(id, record, lines, run, buyer)
  move(lines, lines.quantities, AVAILABLE, HELD)
  put(id, record)
  enter(run, id, buyer)
end

-- held -> sold ('C'), or held -> available ('R' by a call, 'E' by the deadline): of the amounts, or
-- of all that is held.
function settle(id, to, amounts, at)
  local record = known[id]
  if amounts or byte(record, 1) ~= PENDING then return settle_extended(id, to, amounts, at) end
  local buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  move(lines, lines.quantities, HELD, to == 'C' and SOLD or AVAILABLE)
  put(id, to .. sub(record, 2, 13) .. pack('>I6', at) .. sub(record, 14))
  enter(run_of(to, to, NO_DEADLINE, shape, ''), id, buyer)
end

-- Adds an entry to the deadline index: these ids are looked at then.
function watch_deadline(deadline, ids)
  new_deadlines[#new_deadlines + 1] = deadline
  new_deadlines[#new_deadlines + 1] = ids
  if ctx.next_due == 0 or deadline < ctx.next_due then ctx.next_due = deadline end
end
