-- Decides which of the counts that load/ended_counts.lua has read are dropped by write/batch.lua:
-- those of a SKU that does not exist or has no limit now, and those of an earlier limit. Runs
-- behind both, with the stock loaded. No redis.call.

if page then
  purged = {}
  for i = 1, #page, 2 do
    local field, value = page[i], page[i + 1]
    local at = find(field, '\0', 1, true)
    local stock = at and stocks[sub(field, 1, at - 1)]
    local rules = stock and stock.rules
    local since = #value == COUNT_LENGTH and unpack_bytes(COUNT_FORMAT, value) or 0
    if at and not (rules and rules[BUYER_LIMIT] > 0 and since == (stock.limit_since or 0)) then
      purged[#purged + 1] = field
    end
  end
end
