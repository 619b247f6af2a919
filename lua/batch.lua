-- The batch: parses ARGV into groups, and loads the records that they name. Reads both generations; writes
-- nothing.

-- Kinds by what they are given.
local ONE_OR_MORE_IDS, ONE_ID, NO_ID = 'RCLBG', 'rcbESA', 'FDT'
local NAMES_A_RESERVATION = 'cbE' -- in its first 16 bytes of args
local NAMES_NO_OTHER = 'RCBG' -- than their ids
local NAMES_A_SKU = 'TDSAF' -- at the end of args
-- Kinds that may move units of a reservation that exists already.
local TOUCHES_RECORDS = 'CLBcbr'

-- HMGET in as many calls as the limit on arguments asks for.
function load_fields(key, fields)
  if #fields <= MAX_ARGUMENTS then return call('HMGET', key, unpack(fields)) end
  local values = {}
  for first = 1, #fields, MAX_ARGUMENTS do
    local last = min(first + MAX_ARGUMENTS - 1, #fields)
    local part = call('HMGET', key, unpack(fields, first, last))
    for i = 1, last - first + 1 do values[first + i - 1] = part[i] end
  end
  return values
end

-- The lines of a shape, whose stock is then loaded.
function lines_of(shape)
  local lines = shapes[shape]
  if not lines then
    lines = lines_from(shape)
    shapes[shape] = lines
    for i = 1, lines.n do
      if stocks[lines.skus[i]] == nil then stocks[lines.skus[i]] = false end
    end
  end
  return lines
end

-- The buyer fields of a group of Reserves: one for each operation; nil: all are without a buyer.
function buyers_of(group)
  local extra, at = group.extra, 7
  local last = group.kind == 'r' and #extra - 16 or #extra
  if last < 6 then malformed('extra') end
  if last == 6 then return nil end
  if group.buyers then return group.buyers end
  local buyers = {}
  for i = 1, #group.ids do
    local length = byte(extra, at)
    if not length or at + length > last then malformed('buyer') end
    buyers[i] = sub(extra, at, at + length)
    at = at + length + 1
  end
  if at ~= last + 1 then malformed('buyer') end
  group.buyers = buyers
  return buyers
end

-- Notes what a record is whose units may move; its stock is then loaded.
function touch(record)
  if alike[record] ~= nil then return end
  local buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  alike[record] = byte(record, 1) == PENDING
    and { lines = lines, shape = shape, buyer = buyer, is_named = buyer ~= NO_BUYER }
end

-- Notes the records that this generation has under these ids; returns the ids under which it has none.
local function look_into(generation, ids)
  local records, n, found, before = load_fields(generation, ids), #ids, 0, nil
  for i = 1, n do
    local record = records[i]
    if record then
      found = found + 1
      known[ids[i]] = record
      -- What was reserved together has the same record.
      if record ~= before and byte(record, 1) >= FIRST_EXTENDED then ctx.any_extended = true end
      before = record
    end
  end
  if found == 0 then return ids end
  local missing = {}
  if found < n then
    for i = 1, n do
      if not records[i] then missing[#missing + 1] = ids[i] end
    end
  end
  return missing
end

function look_up(ids)
  local missing = look_into(ctx.current, ids)
  if ctx.older_count > 0 and missing[1] then
    look_into(ctx.older, missing)
    for i = 1, #missing do
      in_older[missing[i]] = known[missing[i]]
    end
  end
end

-- Every id that the batch names; for 'L' also those of the purchases.
local named, total = {}, 0
local operations = 0
for at = 2, #ARGV, 4 do
  local kind, args, packed, extra = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if not extra or #kind ~= 1 then malformed('group') end
  local n = #packed / 16
  if find(ONE_OR_MORE_IDS, kind, 1, true) then
    if n < 1 or n % 1 ~= 0 then malformed('ids') end
  elseif find(ONE_ID, kind, 1, true) then
    if n ~= 1 then malformed('ids') end
  elseif not find(NO_ID, kind, 1, true) or n ~= 0 then
    malformed('group')
  end
  local ids
  if n == 1 then
    ids = { packed }
  else
    ids = { unpack_bytes(rep('c16', n), packed) }
    ids[n + 1] = nil -- where it has stopped
  end
  if #ARGV == 5 and find(NAMES_NO_OTHER, kind, 1, true) then
    named = ids
  else
    for i = 1, n do named[total + i] = ids[i] end
  end
  total = total + n
  local group = { kind = kind, args = args, ids = ids, extra = extra }
  if kind == 'R' or kind == 'r' then
    group.lines = lines_of(args)
  elseif kind == 'c' or kind == 'b' then
    group.lines = lines_of(sub(args, kind == 'c' and 18 or 17))
  elseif find(NAMES_A_SKU, kind, 1, true) then
    local sku = sub(args, kind == 'S' and 14 or kind == 'A' and 9 or kind == 'F' and 35 or 1)
    if sku == '' then malformed('sku') end
    stocks[sku] = false
  end
  if kind == 'r' then
    group.target = sub(extra, -16)
  elseif find(NAMES_A_RESERVATION, kind, 1, true) then
    if #args < 16 then malformed('target') end
    group.target = sub(args, 1, 16)
  elseif kind == 'L' then
    for i = 1, #extra, 16 do
      total = total + 1
      named[total] = sub(extra, i, i + 15)
    end
  end
  if group.target then
    total = total + 1
    named[total] = group.target
  end
  operations = operations + n
  groups[#groups + 1] = group
  kinds[kind] = true
end
if operations > MAX_OPERATIONS or #groups > MAX_OPERATIONS then malformed('batch') end

if total > 0 then
  look_up(named)
  for g = 1, #groups do
    local group = groups[g]
    if find(TOUCHES_RECORDS, group.kind, 1, true) then
      local ids, is_late = group.ids, group.kind == 'L'
      for i = 1, #ids do
        local record = known[ids[i]]
        if record and alike[record] == nil and (is_pending(record) or is_late and byte(record, 1) ~= MEMO) then
          touch(record)
        end
      end
      local record = group.target and known[group.target]
      if record and is_pending(record) then touch(record) end
    end
  end
end
