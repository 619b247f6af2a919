-- The batch: parses ARGV into groups, and loads the records that they name, but for those that refusal.lua
-- may answer without. Reads both generations; writes nothing.

local moves_records = false -- whether the batch may move units of reservations that exist already

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
  if last < 6 then fail('SENTINELMALFORMED extra') end
  if last == 6 then return nil end
  if group.buyers then return group.buyers end
  local buyers = {}
  for i = 1, #group.ids do
    local length = byte(extra, at)
    if not length or at + length > last then fail('SENTINELMALFORMED buyer') end
    buyers[i] = sub(extra, at, at + length)
    at = at + length + 1
  end
  if at ~= last + 1 then fail('SENTINELMALFORMED buyer') end
  group.buyers = buyers
  return buyers
end

-- Notes what a record is whose units may move; its stock is then loaded.
function touch(record)
  if alike[record] ~= nil then return end
  local buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  alike[record] = byte(record, 1) == PENDING
    and { lines = lines, shape = shape, buyer = buyer, is_named = buyer ~= NO_BUYER,
      is_old = ctx.settled_at and is_old(record) }
end

-- Notes the records that this generation has under these ids, and the lines of those whose units may move;
-- returns the ids under which it has none.
local function look_into(generation, ids)
  local records, n, found, before = load_fields(generation, ids), #ids, 0, nil
  for i = 1, n do
    local record = records[i]
    if record then
      found = found + 1
      known[ids[i]] = record
      -- What was reserved together has the same record.
      if record ~= before then
        local letter = byte(record, 1) or 0
        if letter ~= PENDING and not find('pMCcRrEe\240\227\242\229\208\195\210\197', sub(record, 1, 1), 1, true) or letter == 0 then fail('SENTINELNEWER record') end
        if letter >= FIRST_EXTENDED then ctx.any_extended = true end
        if letter == PENDING or letter == EXTENDED_PENDING or letter == DIGESTED_PENDING or letter == CHANGED_PENDING then
          if moves_records then touch(record) end
        elseif kinds.L and letter ~= MEMO then
          touch(record)
        end
        before = record
      end
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
  if older_count > 0 and missing[1] then
    look_into(ctx.older, missing)
    for i = 1, #missing do
      in_older[missing[i]] = known[missing[i]]
    end
  end
end

-- Looks up every id that the batch names and that is not looked up yet: of the operations, of their targets, and
-- of the purchases of 'L'. First attempts ('N') wait where they are told to; looked up, they are like any others ('R').
function look_up_named(first_attempts_wait)
  local named, total = {}, 0
  for g = 1, #groups do
    local group = groups[g]
    if group.kind == 'N' and not first_attempts_wait then group.kind = 'R' end
    if group.kind ~= 'N' and not group.ids then
      local n, ids = group.n, nil
      if n == 1 then
        ids = { group.packed }
      else
        ids = { unpack_bytes(rep('c16', n), group.packed) }
        ids[n + 1] = nil -- where it has stopped
      end
      group.ids = ids
      if #groups == 1 and not group.target and group.kind ~= 'L' then
        named, total = ids, n
      else
        for i = 1, n do named[total + i] = ids[i] end
        total = total + n
      end
      if group.target then
        total = total + 1
        named[total] = group.target
      end
      if group.kind == 'L' then
        for i = 1, #group.extra, 16 do
          total = total + 1
          named[total] = sub(group.extra, i, i + 15)
        end
      end
    end
  end
  if total > 0 then look_up(named) end
end

local operations = 0
for at = 3, #ARGV, 4 do
  local kind, args, packed, extra = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if not extra then fail('SENTINELMALFORMED group') end
  local n, lines, target = #packed / 16, nil, nil
  if kind == 'R' or kind == 'N' or kind == 'C' or kind == 'B' or kind == 'G' or kind == 'L' then
    if n < 1 or n % 1 ~= 0 then fail('SENTINELMALFORMED ids') end
    if kind == 'R' or kind == 'N' then lines = lines_of(args) end
  elseif kind == 'T' or kind == 'H' then
    if n ~= 0 then fail('SENTINELMALFORMED ids') end
  else
    if n ~= 1 then fail('SENTINELMALFORMED ids') end
    if kind == 'r' then
      lines, target = lines_of(args), sub(extra, -16)
    elseif kind == 'c' or kind == 'b' or kind == 'E' then
      if #args < 16 then fail('SENTINELMALFORMED target') end
      target = sub(args, 1, 16)
      if kind ~= 'E' then lines = lines_of(sub(args, kind == 'c' and 18 or 17)) end
    elseif kind ~= 'S' and kind ~= 'A' and kind ~= 'F' and kind ~= 'D' and kind ~= 'U' and kind ~= 'I' and kind ~= 'O'
      and kind ~= 'X' then
      fail('SENTINELMALFORMED group')
    end
  end
  local sku_at = kind == 'S' and 14 or kind == 'A' and 9 or kind == 'F' and 35 or kind == 'U' and 8
    or (kind == 'T' or kind == 'D' or kind == 'H') and 1
  if sku_at then
    local sku = sub(args, sku_at)
    if sku == '' then fail('SENTINELMALFORMED sku') end
    stocks[sku] = false
  end
  operations = operations + n
  groups[#groups + 1] =
    { kind = kind, args = args, packed = packed, n = n, ids = false, extra = extra, lines = lines, target = target }
  kinds[kind == 'N' and 'R' or kind] = true
  if kind ~= 'R' and kind ~= 'N' and kind ~= 'G' then moves_records = true end
end
if operations > MAX_OPERATIONS or #groups > MAX_OPERATIONS then fail('SENTINELMALFORMED batch') end
-- First attempts wait for the fast no (refusal.lua), but not where it is impossible: beside other operations, and
-- while something is due, which is given back first.
ctx.only_reserves = kinds.R ~= nil and next(kinds, next(kinds)) == nil
look_up_named(ctx.only_reserves and (ctx.next_due == 0 or ctx.next_due > ctx.now))
