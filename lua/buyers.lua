-- Limits per buyer: how many units of a SKU each buyer holds and has bought, counted only for SKUs
-- that have a limit, and given back with the units. Reads BUYERS; write.lua writes what changed.

local BUYERS = KEYS[8]
local pack, sub, byte, char, max = struct.pack, string.sub, string.byte, string.char, math.max
local MEMO, BUYER_LIMIT, malformed, buyer_and_shape =
  records.MEMO, records.BUYER_LIMIT, records.malformed, records.buyer_and_shape
local groups, known, shapes, counts, load_fields, count_field =
  batch.groups, batch.known, batch.shapes, batch.counts, batch.load_fields, batch.count_field

local changed_counts = {} -- fields of BUYERS, in order, possibly twice

-- Which lines of a new hold count for its buyer, a bit each.
local function limited_lines(lines)
  local mask = 0
  if lines.limited then
    for i = 1, lines.n do
      local rules = lines.stocks[i] and lines.stocks[i].rules
      if rules and rules[BUYER_LIMIT] > 0 then mask = bit.bor(mask, bit.lshift(1, i - 1)) end
    end
  end
  return mask % 4294967296 -- bit's results are signed
end

local function counts_line(mask, i)
  return mask ~= 0 and bit.band(mask, bit.lshift(1, i - 1)) ~= 0
end

-- The buyer fields of a group of Reserves: one for each operation, or one for all.
local function buyers_of(group)
  local extra, buyers, at = group.extra, {}, 7
  local last = group.kind == 'r' and #extra - 16 or #extra
  if last < 6 then malformed('extra') end
  if last == 6 then return nil end
  for i = 1, #group.ids do
    local length = byte(extra, at)
    if not length or at + length > last then malformed('buyer') end
    buyers[i] = sub(extra, at, at + length)
    at = at + length + 1
  end
  if at ~= last + 1 then malformed('buyer') end
  return buyers
end

-- Loads the counts of every buyer whose limit or whose counted units the batch can touch.
local function load_counts()
  local fields = {}
  local function want_count(sku, buyer)
    local field = count_field(sku, buyer)
    if counts[field] == nil then
      counts[field] = 0
      fields[#fields + 1] = field
    end
  end
  for g = 1, #groups do
    local group = groups[g]
    if (group.kind == 'R' or group.kind == 'r') and group.lines.limited then
      local buyers = buyers_of(group) or {}
      for i = 1, #buyers do
        for line = 1, group.lines.n do want_count(group.lines.skus[line], buyers[i]) end
      end
    end
  end
  for _, record in pairs(known) do
    local letter = byte(record, 1)
    if letter >= 97 or ctx.any_limited and letter ~= MEMO then
      local buyer, shape = buyer_and_shape(record)
      local lines = shapes[shape]
      if lines then
        for line = 1, lines.n do want_count(lines.skus[line], buyer) end
      end
    end
  end
  if #fields == 0 then return end
  local values = load_fields(BUYERS, fields)
  for i = 1, #fields do counts[fields[i]] = tonumber(values[i] or 0) end
end

-- Adds units of the lines in the mask to a buyer's counts, or takes them off.
local function count(lines, mask, buyer, amounts, sign)
  if mask == 0 then return end
  for i = 1, lines.n do
    if amounts[i] > 0 and counts_line(mask, i) then
      local field = count_field(lines.skus[i], buyer)
      counts[field] = max(0, (counts[field] or 0) + sign * amounts[i])
      changed_counts[#changed_counts + 1] = field
    end
  end
end

-- The first line whose limit these units would break, less those that the same buyer gives back.
local function over_limit(lines, buyer, given_back)
  if not lines.limited then return nil end
  for i = 1, lines.n do
    local rules = lines.stocks[i] and lines.stocks[i].rules
    local limit = rules and rules[BUYER_LIMIT] or 0
    if limit > 0 then
      local sku = lines.skus[i]
      if #buyer == 1 then return 'P', char(#sku) .. sku end
      local has = (counts[count_field(sku, buyer)] or 0) - (given_back and given_back[sku] or 0)
      if has + lines.quantities[i] > limit then
        return 'I', char(#sku) .. sku .. pack('>I6I6', max(0, has), limit)
      end
    end
  end
end

buyers = {
  limited_lines = limited_lines, count = count, counts_line = counts_line, buyers_of = buyers_of,
  over_limit = over_limit, changed_counts = changed_counts, load_counts = load_counts,
}
