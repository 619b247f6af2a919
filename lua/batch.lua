-- The batch: parses ARGV into groups, and loads the records, the stock and the buyers' counts that
-- they touch. Reads HOLDS, both generations, STOCK and BUYERS; writes nothing.

local STOCK, HOLDS = KEYS[2], KEYS[3]
local call, sub, byte, min = redis.call, string.sub, string.byte, math.min
local MEMO, BUYER_LIMIT, malformed, stock_from, lines_from, is_pending, buyer_and_shape =
  records.MEMO, records.BUYER_LIMIT, records.malformed, records.stock_from, records.lines_from,
  records.is_pending, records.buyer_and_shape
local retired = partition.retired
local MAX_OPERATIONS = 512 -- operations in a batch
local MAX_ARGUMENTS = 1000 -- of one redis.call; unpack() fails near 8,000

local groups = {}   -- { kind, args, ids = {..}, extra, lines, target }
local known = {}    -- id -> record as it is now: from the store, or as this call has changed it
local stocks = {}   -- SKU -> stock table; false: no such SKU
local shapes = {}   -- shape -> its lines
local wanted = {}   -- SKUs to load
local counts = {}   -- SKU NUL buyer -> units held and bought

-- HMGET in as many calls as the limit on arguments asks for.
local function load_fields(key, fields)
  if #fields <= MAX_ARGUMENTS then return call('HMGET', key, unpack(fields)) end
  local values = {}
  for first = 1, #fields, MAX_ARGUMENTS do
    local last = min(first + MAX_ARGUMENTS - 1, #fields)
    local part = call('HMGET', key, unpack(fields, first, last))
    for i = 1, last - first + 1 do values[first + i - 1] = part[i] end
  end
  return values
end

local function want(sku)
  if stocks[sku] == nil then
    stocks[sku] = false
    wanted[#wanted + 1] = sku
  end
end

local function lines_of(shape)
  local lines = shapes[shape]
  if not lines then
    lines = lines_from(shape)
    shapes[shape] = lines
    for i = 1, lines.n do want(lines.skus[i]) end
  end
  return lines
end

local function want_lines_of(record)
  local _, shape = buyer_and_shape(record)
  lines_of(shape)
end

-- Where the SKU begins in the args of the kinds that name one, and the shape in those that have one.
local SKU_AT = { S = 14, A = 9, F = 35, D = 1, T = 1 }
local SHAPE_AT = { R = 1, r = 1, c = 18, b = 17 }
local HAS_TARGET = { c = true, b = true, E = true }
-- How many ids a group may have: 0 none, 1 exactly one, 2 any number.
local IDS = { R = 2, r = 1, C = 2, L = 2, B = 2, c = 1, b = 1, E = 1, G = 2, S = 1, A = 1, F = 0, D = 0, T = 0 }

local function parse_groups()
  local operations = 0
  for at = 2, #ARGV, 4 do
    local kind, args, packed, extra = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local count = #packed / 16
    local allowed = IDS[kind]
    if not extra or not allowed or count % 1 ~= 0 then malformed('group') end
    if allowed < 2 and count ~= allowed or allowed == 2 and count < 1 then malformed('ids') end
    local ids = {}
    for i = 1, #packed, 16 do ids[#ids + 1] = sub(packed, i, i + 15) end
    local group = { kind = kind, args = args, ids = ids, extra = extra }
    if SHAPE_AT[kind] then group.lines = lines_of(sub(args, SHAPE_AT[kind])) end
    if SKU_AT[kind] then
      if #args < SKU_AT[kind] then malformed('sku') end
      want(sub(args, SKU_AT[kind]))
    end
    if HAS_TARGET[kind] then
      if #args < 16 then malformed('target') end
      group.target = sub(args, 1, 16)
    elseif kind == 'r' then
      group.target = sub(extra, -16)
    end
    operations = operations + count
    groups[#groups + 1] = group
  end
  if operations > MAX_OPERATIONS or #groups > MAX_OPERATIONS then malformed('batch') end
end

-- Kinds that may move units of a reservation that exists already.
local TOUCHES_RECORDS = { C = true, L = true, B = true, c = true, b = true, r = true }

-- Every id that the batch names; for 'L' also those of the purchases.
local function named_ids()
  local ids = {}
  for g = 1, #groups do
    local group = groups[g]
    for i = 1, #group.ids do ids[#ids + 1] = group.ids[i] end
    if group.target then ids[#ids + 1] = group.target end
    if group.kind == 'L' then
      for i = 1, #group.extra, 16 do ids[#ids + 1] = sub(group.extra, i, i + 15) end
    end
  end
  return ids
end

-- Loads every record that the batch names; all three hashes, so that a wrong type is found here.
local function load_records()
  local ids = named_ids()
  if #ids == 0 then return end
  local held = load_fields(HOLDS, ids)
  local past = retired[1] and {} or load_fields(ctx.past, ids)
  local other = retired[2] and {} or load_fields(ctx.past_other, ids)
  for i = 1, #ids do
    local record = held[i] or past[i] or other[i]
    if record then known[ids[i]] = record end
  end
  for g = 1, #groups do
    local group = groups[g]
    if TOUCHES_RECORDS[group.kind] then
      for i = 1, #group.ids do
        local record = known[group.ids[i]]
        if record and (is_pending(record) or group.kind == 'L' and byte(record, 1) ~= MEMO) then
          want_lines_of(record)
        end
      end
      local record = group.target and known[group.target]
      if record and is_pending(record) then want_lines_of(record) end
    end
  end
  ctx.record_count = call('HLEN', HOLDS) + (retired[1] and 0 or call('HLEN', ctx.past))
    + (retired[2] and 0 or call('HLEN', ctx.past_other))
end

local function load_stock()
  if #wanted == 0 then return end
  local values = load_fields(STOCK, wanted)
  for i = 1, #wanted do
    stocks[wanted[i]] = values[i] and stock_from(values[i]) or false
  end
  for _, lines in pairs(shapes) do
    for i = 1, lines.n do
      local stock = stocks[lines.skus[i]]
      lines.stocks[i] = stock
      if stock and stock.rules and stock.rules[BUYER_LIMIT] > 0 then
        lines.limited, ctx.any_limited = true, true
      end
    end
  end
end

local function count_field(sku, buyer)
  return sku .. '\0' .. sub(buyer, 2)
end

batch = {
  groups = groups, known = known, shapes = shapes, counts = counts, load_fields = load_fields,
  count_field = count_field, stocks = stocks, lines_of = lines_of, want_lines_of = want_lines_of,
  parse_groups = parse_groups, load_records = load_records, load_stock = load_stock,
}
