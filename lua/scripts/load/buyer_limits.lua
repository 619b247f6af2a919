-- Limits per buyer: how many units of a SKU each buyer holds and has bought, counted only for SKUs
-- with a limit, and given back with the units. Runs where the batch touches such a SKU or a record
-- that may have been counted. Reads BUYERS; write/batch.lua writes the changes.
--
-- In format 5 a limit has the instant since which it counts. Earlier holds and sales do not count
-- for it, and a count of another instant is void. So a limit that is lifted and set again starts
-- from nothing, whatever is still stored (load/ended_counts.lua drops that). In an older format
-- everything that was ever counted counts.

counts, changed_counts = {}, {}

local function count_field(sku, buyer)
  return sku .. '\0' .. sub(buyer, 2)
end

-- Which lines of a new hold count for its buyer, a bit each.
function limited_lines(lines)
  local mask = 0
  if lines.limited then
    for i = 1, lines.n do
      local rules = lines.stocks[i] and lines.stocks[i].rules
      if rules and rules[BUYER_LIMIT] > 0 then mask = bit.bor(mask, bit.lshift(1, i - 1)) end
    end
  end
  return mask % 4294967296 -- bit's results are signed
end

function counts_line(mask, i)
  return mask ~= 0 and bit.band(mask, bit.lshift(1, i - 1)) ~= 0
end

-- Which lines in the mask still count, for a reservation that was made at this instant.
function still_counted(lines, mask, created)
  if mask == 0 then return 0 end
  for i = 1, lines.n do
    if counts_line(mask, i) then
      local stock = lines.stocks[i]
      local has_ended = not stock or ctx.format >= FIRST_WITH_LIMIT_SINCE
        and (not stock.rules or stock.rules[BUYER_LIMIT] == 0 or created < (stock.limit_since or 0))
      if has_ended then mask = mask - 2 ^ (i - 1) end
    end
  end
  return mask
end

-- Adds the units of the lines in the mask to a buyer's counts, or subtracts them.
function count(lines, mask, buyer, amounts, sign)
  if mask == 0 then return end
  for i = 1, lines.n do
    if amounts[i] > 0 and counts_line(mask, i) then
      local field = count_field(lines.skus[i], buyer)
      local before = counts[field] or 0
      local after = max(0, before + sign * amounts[i])
      if (before > 0) ~= (after > 0) then stored_counts = stored_counts + sign end
      counts[field] = after
      changed_counts[#changed_counts + 1] = field
    end
  end
end

-- The first line whose limit these units would break, less those that the same buyer gives back.
function over_limit(lines, buyer, given_back)
  if not lines.limited then return nil end
  for i = 1, lines.n do
    local rules = lines.stocks[i] and lines.stocks[i].rules
    local limit = rules and rules[BUYER_LIMIT] or 0
    if limit > 0 then
      local sku = lines.skus[i]
      if buyer == NO_BUYER then return BUYER_MISSING, char(#sku) .. sku end
      local has = (counts[count_field(sku, buyer)] or 0) - (given_back and given_back[sku] or 0)
      if has + lines.quantities[i] > limit then
        return OVER_BUYER_LIMIT, char(#sku) .. sku .. pack('>I6I6', max(0, has), limit)
      end
    end
  end
end

-- The instant since which the limit of a field's SKU counts.
function since_of(field)
  local stock = stocks[sub(field, 1, find(field, '\0', 1, true) - 1)]
  return stock and stock.limit_since or 0
end

-- Loads every count that the batch can touch: of the buyers of new holds, and of loaded records.
local fields = {}
local function need_counts(lines, buyer)
  for i = 1, lines.n do
    local field = count_field(lines.skus[i], buyer)
    if counts[field] == nil then
      counts[field] = 0
      fields[#fields + 1] = field
    end
  end
end
for g = 1, #groups do
  local group = groups[g]
  if (group.kind == 'reserve' or group.kind == 'reserve_replacing') and group.lines.limited then
    local buyers = buyers_of(group)
    for i = 1, buyers and #buyers or 0 do need_counts(group.lines, buyers[i]) end
  end
end
for _, record in pairs(records_by_id) do
  local letter = byte(record, 1)
  if letter >= FIRST_EXTENDED or ctx.any_limited and letter ~= MEMO then
    local buyer, line_set = buyer_and_line_set(record)
    if line_sets[line_set] then need_counts(line_sets[line_set], buyer) end
  end
end
if #fields > 0 then
  local values = load_fields(BUYERS, fields)
  for i = 1, #fields do
    local value = values[i]
    if value then
      local since, units = 0, nil
      if #value == COUNT_LENGTH then
        since, units = unpack_bytes(COUNT_FORMAT, value)
      else
        units = tonumber(value) or fail(CORRUPT, 'the count of a buyer')
      end
      if since == since_of(fields[i]) then counts[fields[i]] = units end
    end
  end
  if ctx.format >= FIRST_WITH_LIMIT_SINCE and (kinds.reserve or kinds.reserve_replacing) then
    stored_counts = call('HLEN', BUYERS)
  end
end
