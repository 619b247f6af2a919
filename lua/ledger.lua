-- The ledger: the only place that changes a counter, and with it the sequence, the record and the
-- event. Works on the tables that were loaded; no redis.call.

local pack, sub, byte, char, lower = struct.pack, string.sub, string.byte, string.char, string.lower
local PENDING, NO_ORIGIN, AVAILABLE, HELD, SOLD, SUPPLIED, VERSION, FLAGS, corrupt, lines_from, shape_of,
      state_of, buyer_and_shape, extension_of, extension_bytes, implied_extension =
  records.PENDING, records.NO_ORIGIN, records.AVAILABLE, records.HELD, records.SOLD, records.SUPPLIED,
  records.VERSION, records.FLAGS, records.corrupt, records.lines_from, records.shape_of, records.state_of,
  records.buyer_and_shape, records.extension_of, records.extension_bytes, records.implied_extension
local known, stocks, lines_of = batch.known, batch.stocks, batch.lines_of
local limited_lines, count = buyers.limited_lines, buyers.count

local changed_stock = {}  -- SKU -> true
local changed = {}        -- ids whose record this call has changed, in order, possibly twice
local runs = {}           -- events by all but the id: { head, entries... }
local run_list = {}
local new_deadlines = {}  -- score, packed ids, ... for the index

-- One entry of an event run: the id, its place in the sequence, the buyer field. The run says what
-- happened (kind), what the reservation is after it, until when it is held, which units moved
-- (shape), and which are held still where that is not the same (rest).
local function note(kind, after, deadline, shape, rest, id, buyer)
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
  run.n = run.n + 1
  run[run.n] = id .. pack('>I2', ctx.sequence - ctx.first_sequence) .. buyer
end

local NO_DEADLINE = '\0\0\0\0\0\0'

-- Moves units of these lines from one counter to another: one change, one number.
local function move(lines, amounts, from, to)
  ctx.sequence = ctx.sequence + 1
  for i = 1, lines.n do
    local stock, quantity = lines.stocks[i], amounts[i]
    if quantity > 0 then
      if not stock then corrupt('a reservation of an unknown SKU') end
      stock[from] = stock[from] - quantity
      stock[to] = stock[to] + quantity
      if stock[from] < 0 then corrupt('a counter below zero') end
      stock[VERSION] = ctx.sequence
      changed_stock[lines.skus[i]] = true
    end
  end
end

local function put(id, record)
  known[id] = record
  changed[#changed + 1] = id
end

-- The extension that a new reservation needs, or ''.
local function new_extension(lines, buyer, origin, sold)
  local mask = limited_lines(lines)
  if mask == 0 and origin == NO_ORIGIN then return '' end
  local extension = implied_extension(sold and 'C' or 'P', lines)
  extension.counted, extension.origin = mask, origin
  count(lines, mask, buyer, lines.quantities, 1)
  return extension_bytes(extension)
end

-- available -> held: the birth of a reservation. `head` is its deadline and creation.
local function hold(id, head, buyer, shape, origin)
  local lines = lines_of(shape)
  move(lines, lines.quantities, AVAILABLE, HELD)
  local extension = ''
  if lines.limited or origin ~= NO_ORIGIN then extension = new_extension(lines, buyer, origin) end
  put(id, (extension == '' and 'P' or 'p') .. head .. buyer .. shape .. extension)
  note('H', 'P', sub(head, 1, 6), shape, '', id, buyer)
end

-- available -> sold: what an expired reservation had, bought anew. Always extended: it has an origin.
local function buy(id, origin, buyer, shape)
  local lines = lines_of(shape)
  move(lines, lines.quantities, AVAILABLE, SOLD)
  local at = pack('>I6', ctx.now)
  put(id, 'c' .. at .. at .. at .. buyer .. shape .. new_extension(lines, buyer, origin, true))
  note('L', 'C', NO_DEADLINE, shape, '', id, buyer)
end

-- Units of a pending reservation that are held still, by line.
local function held_amounts(lines, extension)
  local amounts, total = {}, 0
  for i = 1, lines.n do
    amounts[i] = lines.quantities[i] - extension.sold[i] - extension.released[i]
    total = total + amounts[i]
  end
  return amounts, total
end

-- The whole way of what is not plain: some units, or a record that has an extension already.
local function settle_extended(id, to, amounts, at)
  local record = known[id]
  local _, is_extended = state_of(record)
  local buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  local extension = is_extended and extension_of(record, lines.n) or implied_extension('P', lines)
  amounts = amounts or held_amounts(lines, extension)
  move(lines, amounts, HELD, to == 'C' and SOLD or AVAILABLE)
  local sold = 0
  for i = 1, lines.n do
    local share = to == 'C' and extension.sold or extension.released
    share[i] = share[i] + amounts[i]
    sold = sold + extension.sold[i]
  end
  if to ~= 'C' then count(lines, extension.counted, buyer, amounts, -1) end
  local rest, total = held_amounts(lines, extension)
  local after = total > 0 and 'P' or sold > 0 and 'C' or to
  local resolved = after == 'P' and '' or pack('>I6', at)
  put(id, lower(after) .. sub(record, 2, 13) .. resolved .. buyer .. shape .. extension_bytes(extension))
  note(to, after, after == 'P' and sub(record, 2, 7) or NO_DEADLINE, shape_of(lines, amounts),
    after == 'P' and shape_of(lines, rest) or '', id, buyer)
end

-- held -> sold ('C'), or held -> available ('R' by a call, 'E' by the deadline): of the amounts, or
-- of all that is held.
local function settle(id, to, amounts, at)
  local record = known[id]
  if amounts or byte(record, 1) ~= PENDING then return settle_extended(id, to, amounts, at) end
  local buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  move(lines, lines.quantities, HELD, to == 'C' and SOLD or AVAILABLE)
  put(id, to .. sub(record, 2, 13) .. pack('>I6', at) .. sub(record, 14))
  note(to, to, NO_DEADLINE, shape, '', id, buyer)
end

-- Adds an entry to the deadline index: these ids are looked at then.
local function watch_deadline(deadline, ids)
  new_deadlines[#new_deadlines + 1] = deadline
  new_deadlines[#new_deadlines + 1] = ids
  if ctx.next_due == 0 or deadline < ctx.next_due then ctx.next_due = deadline end
end

-- A later deadline; no unit moves.
local function extend_deadline(id, deadline)
  local record = known[id]
  local _, is_extended = state_of(record)
  local buyer, shape = buyer_and_shape(record)
  local lines, held = lines_from(shape), shape
  if is_extended then
    held = shape_of(lines, (held_amounts(lines, extension_of(record, lines.n))))
  end
  ctx.sequence = ctx.sequence + 1
  local bytes = pack('>I6', deadline)
  put(id, sub(record, 1, 1) .. bytes .. sub(record, 8))
  watch_deadline(deadline, id)
  note('X', 'P', bytes, held, '', id, buyer)
end

-- Units that come in or go out: the only change of `supplied`.
local function supply(sku, delta, kind, id)
  local stock = stocks[sku]
  ctx.sequence = ctx.sequence + 1
  stock[AVAILABLE] = stock[AVAILABLE] + delta
  stock[SUPPLIED] = stock[SUPPLIED] + delta
  if stock[AVAILABLE] < 0 or stock[SUPPLIED] < 0 then corrupt('a counter below zero') end
  stock[VERSION] = ctx.sequence
  changed_stock[sku] = true
  note(kind, '-', NO_DEADLINE, pack('>i8', delta) .. sku, '', id, '\0')
end

-- The rules of a SKU; no unit moves.
local function configure(sku, flags, rules)
  local stock = stocks[sku]
  ctx.sequence = ctx.sequence + 1
  stock[FLAGS], stock[VERSION], stock.rules = flags, ctx.sequence, rules
  changed_stock[sku] = true
  note('F', '-', NO_DEADLINE, char(flags) .. sku, '', NO_ORIGIN, '\0')
end

-- A SKU that nobody holds goes.
local function delete(sku)
  ctx.sequence = ctx.sequence + 1
  stocks[sku] = false
  changed_stock[sku] = true
  note('D', '-', NO_DEADLINE, sku, '', NO_ORIGIN, '\0')
end

ledger = {
  settle = settle, hold = hold, held_amounts = held_amounts, watch_deadline = watch_deadline, put = put,
  buy = buy, extend_deadline = extend_deadline, supply = supply, configure = configure, delete = delete,
  changed_stock = changed_stock, changed = changed, run_list = run_list, new_deadlines = new_deadlines,
}
