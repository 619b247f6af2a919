-- The ledger: the only place that changes a counter, and with it the sequence, the record and the
-- event. Works on the tables that batch.lua loaded; no redis.call.

local first_sequence      -- of this call's first change, minus one
local changed_stock = {}  -- SKU -> true
local changed = {}        -- ids whose record this call has changed, in order, possibly twice
local runs = {}           -- events by kind and shape: { kind, shape, deadline, entries... }
local run_list = {}

-- One entry of the event run of this kind: the id, its place in the sequence, the buyer field.
local function note(kind, shape, deadline, id, buyer)
  local name = kind .. deadline .. shape
  local run = runs[name]
  if not run then
    run = { kind = kind, shape = shape, deadline = deadline, n = 0 }
    runs[name] = run
    run_list[#run_list + 1] = run
  end
  run.n = run.n + 1
  run[run.n] = id .. pack('>I2', sequence - first_sequence) .. buyer
end

-- Moves the units of all lines from one counter to another: one change, one number.
local function move(lines, from, to)
  sequence = sequence + 1
  for i = 1, lines.n do
    local stock, quantity = lines.stocks[i], lines.quantities[i]
    if not stock then corrupt('a reservation of an unknown SKU') end
    stock[from] = stock[from] - quantity
    stock[to] = stock[to] + quantity
    if stock[from] < 0 then corrupt('a counter below zero') end
    stock[VERSION] = sequence
    changed_stock[lines.skus[i]] = true
  end
end

local function put(id, record)
  known[id] = record
  changed[#changed + 1] = id
end

-- available -> held: the birth of a reservation.
local function hold(id, record, buyer, shape, deadline)
  move(lines_of(shape), AVAILABLE, HELD)
  put(id, record)
  note('H', shape, deadline, id, buyer)
end

-- held -> sold ('C'), or held -> available ('R' by a call, 'E' by the deadline): the end of one.
local function resolve(id, state, at)
  local record = known[id]
  local buyer, shape = buyer_and_shape(record)
  move(lines_of(shape), HELD, state == 'C' and SOLD or AVAILABLE)
  put(id, state .. sub(record, 2, 13) .. pack('>I6', at) .. sub(record, 14))
  note(state, shape, '', id, buyer)
end

-- Units that come in or go out: the only change of `supplied`.
local function supply(sku, delta, kind, id)
  local stock = stocks[sku]
  sequence = sequence + 1
  stock[AVAILABLE] = stock[AVAILABLE] + delta
  stock[SUPPLIED] = stock[SUPPLIED] + delta
  if stock[AVAILABLE] < 0 or stock[SUPPLIED] < 0 then corrupt('a counter below zero') end
  stock[VERSION] = sequence
  changed_stock[sku] = true
  note(kind, pack('>i8', delta) .. sku, '', id, '\0')
end

-- The rules of a SKU; no unit moves.
local function configure(sku, flags)
  local stock = stocks[sku]
  sequence = sequence + 1
  stock[FLAGS], stock[VERSION] = flags, sequence
  changed_stock[sku] = true
  note('F', char(flags) .. sku, '', string.rep('\0', 16), '\0')
end
