-- The batch: parses ARGV into groups, and loads the records and the stock that they touch.
-- Reads HOLDS, both generations and STOCK; writes nothing.

local groups = {}   -- { kind, args, ids = {..}, extra }
local known = {}    -- id -> record as it is now: from the store, or as this call has changed it
local stocks = {}   -- SKU -> stock table; absent: no such SKU
local shapes = {}   -- shape -> its lines
local wanted = {}   -- SKUs to load
local records = 0   -- records of the partition, counted against its quota

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

-- Where the SKU begins in the args of the kinds that name one.
local SKU_AT = { S = 7, A = 9, F = 3, T = 1 }
local HAS_IDS = { R = true, C = true, B = true, G = true, S = true, A = true }

local function parse_groups()
  local operations = 0
  for at = 2, #ARGV, 4 do
    local kind, args, packed, extra = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    if not extra or #packed % 16 ~= 0 or (#packed == 0) == (HAS_IDS[kind] or false) then
      malformed('group')
    end
    local ids = {}
    for i = 1, #packed, 16 do ids[#ids + 1] = sub(packed, i, i + 15) end
    if kind == 'R' then
      lines_of(args)
    elseif SKU_AT[kind] then
      if #args < SKU_AT[kind] or #ids > 1 then malformed('group') end
      want(sub(args, SKU_AT[kind]))
    elseif not HAS_IDS[kind] then
      malformed('kind')
    end
    operations = operations + #ids
    groups[#groups + 1] = { kind = kind, args = args, ids = ids, extra = extra }
  end
  if operations > MAX_OPERATIONS or #groups > MAX_OPERATIONS then malformed('batch') end
end

-- Loads every record that the batch names; all three hashes, so that a wrong type is found here.
local function load_records()
  local ids = {}
  for g = 1, #groups do
    local group = groups[g].ids
    for i = 1, #group do ids[#ids + 1] = group[i] end
  end
  if #ids == 0 then return end
  local held = call('HMGET', HOLDS, unpack(ids))
  local past = retired[1] and {} or call('HMGET', PAST, unpack(ids))
  local other = retired[2] and {} or call('HMGET', PAST_OTHER, unpack(ids))
  for i = 1, #ids do
    local record = held[i] or past[i] or other[i]
    if record then known[ids[i]] = record end
  end
  for g = 1, #groups do
    local kind = groups[g].kind
    if kind == 'C' or kind == 'B' then
      local group = groups[g].ids
      for i = 1, #group do
        local record = known[group[i]]
        if record and byte(record, 1) == PENDING then want_lines_of(record) end
      end
    end
  end
  records = call('HLEN', HOLDS) + (retired[1] and 0 or call('HLEN', PAST))
    + (retired[2] and 0 or call('HLEN', PAST_OTHER))
end

local function load_stock()
  if #wanted == 0 then return end
  local values = load_fields(STOCK, wanted)
  for i = 1, #wanted do
    stocks[wanted[i]] = values[i] and stock_from(values[i]) or false
  end
  for _, lines in pairs(shapes) do
    for i = 1, lines.n do lines.stocks[i] = stocks[lines.skus[i]] end
  end
end
