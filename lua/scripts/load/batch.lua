-- The batch: parses ARGV into groups, and defines the functions that load and parse later. Loads
-- and writes nothing.

-- HMGET, in as many calls as the limit on arguments requires.
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

-- The lines of a line set; their stock is loaded later.
function lines_of(line_set)
  local lines = line_sets[line_set]
  if not lines then
    lines = lines_from(line_set)
    line_sets[line_set] = lines
    for i = 1, lines.n do
      if stocks[lines.skus[i]] == nil then stocks[lines.skus[i]] = false end
    end
  end
  return lines
end

-- The buyer fields of a group of Reserves, one for each operation; nil: none has a buyer.
function buyers_of(group)
  local extra, at = group.extra, 7
  local last = group.kind == 'reserve_replacing' and #extra - 16 or #extra
  if last < 6 then fail(MALFORMED, 'extra') end
  if last == 6 then return nil end
  if group.buyers then return group.buyers end
  local buyers = {}
  for i = 1, #group.ids do
    local length = byte(extra, at)
    if not length or at + length > last then fail(MALFORMED, 'buyer') end
    buyers[i] = sub(extra, at, at + length)
    at = at + length + 1
  end
  if at ~= last + 1 then fail(MALFORMED, 'buyer') end
  group.buyers = buyers
  return buyers
end

local operations = 0
for at = 3, #ARGV, 4 do
  local kind, payload, packed, extra = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if not extra then fail(MALFORMED, 'group') end
  local n, lines, target = #packed / 16, nil, nil
  if kind == 'reserve' or kind == 'reserve_first' or kind == 'commit' or kind == 'rollback'
    or kind == 'get_reservation' or kind == 'commit_late' then
    if n < 1 or n % 1 ~= 0 then fail(MALFORMED, 'ids') end
    if kind == 'reserve' or kind == 'reserve_first' then lines = lines_of(payload) end
  elseif kind == 'get_stock' or kind == 'is_protected' then
    if n ~= 0 then fail(MALFORMED, 'ids') end
  else
    if n ~= 1 then fail(MALFORMED, 'ids') end
    if kind == 'reserve_replacing' then
      lines, target = lines_of(payload), sub(extra, -16)
    elseif kind == 'commit_lines' or kind == 'rollback_lines' or kind == 'extend' then
      if #payload < 16 then fail(MALFORMED, 'target') end
      target = sub(payload, 1, 16)
      if kind ~= 'extend' then lines = lines_of(sub(payload, kind == 'commit_lines' and 18 or 17)) end
    elseif kind ~= 'set_stock' and kind ~= 'adjust_stock' and kind ~= 'configure_sku'
      and kind ~= 'delete_sku' and kind ~= 'settle_sku' and kind ~= 'begin_settlement'
      and kind ~= 'end_settlement' and kind ~= 'close_partition' then
      fail(MALFORMED, 'group')
    end
  end
  local sku_at = kind == 'set_stock' and 14 or kind == 'adjust_stock' and 9
    or kind == 'configure_sku' and 35 or kind == 'settle_sku' and 8
    or (kind == 'get_stock' or kind == 'delete_sku' or kind == 'is_protected') and 1
  if sku_at then
    local sku = sub(payload, sku_at)
    if sku == '' then fail(MALFORMED, 'sku') end
    stocks[sku] = false
  end
  operations = operations + n
  groups[#groups + 1] = { kind = kind, payload = payload, packed = packed, n = n, ids = false,
    extra = extra, lines = lines, target = target }
  kinds[kind == 'reserve_first' and 'reserve' or kind] = true
  if kind ~= 'reserve' and kind ~= 'reserve_first' and kind ~= 'get_reservation' then
    ctx.moves_records = true
  end
end
if operations > MAX_OPERATIONS or #groups > MAX_OPERATIONS then fail(MALFORMED, 'batch') end
ctx.only_reserves = kinds.reserve ~= nil and next(kinds, next(kinds)) == nil
