-- Loads the counters that the batch and due holds can move, where they are not loaded yet: the
-- stock, and the buyers' counts where a SKU has a limit per buyer. Reads STOCK, and through
-- load/buyer_limits.lua BUYERS; writes nothing.

local skus, n = {}, 0
for sku, stock in pairs(stocks) do
  if not stock then
    n = n + 1
    skus[n] = sku
  end
end
if n > 0 then
  local values = load_fields(STOCK, skus)
  for i = 1, n do
    local bytes = values[i]
    if bytes then
      if #bytes < 31 then fail(CORRUPT, 'stock record') end
      -- The usual record of a SKU with holds has the bound right behind the counters.
      local stock = { unpack_bytes(#bytes == 37 and '>I6I6I6I6I6BI6' or '>I6I6I6I6I6B', bytes) }
      local flags, length, has_since = stock[FLAGS], 31, false
      if flags > NEWEST_FLAGS then fail(NEWER, 'stock record') end
      if #bytes == 37 and (flags == HAS_EARLIEST or flags == HAS_EARLIEST + PROTECTED) then
        stock[FLAGS], length = flags - HAS_EARLIEST, 37
      elseif flags < RULED then
        stock[EARLIEST] = 0 -- replaces the position that unpack returns
      else
        stock[EARLIEST] = 0
        has_since = flags >= HAS_LIMIT_SINCE
        if has_since then
          flags = flags - HAS_LIMIT_SINCE
          stock[FLAGS] = flags
        end
        if flags >= PAUSED then
          flags = flags - PAUSED
          stock.paused, stock[FLAGS] = true, flags
        end
        if flags % 4 >= RULED and #bytes >= 63 then
          stock.rules = { unpack_bytes('>I6I4I6I4I6I6', bytes, 32) }
          if stock.rules[BUYER_LIMIT] > 0 then ctx.any_limited = true end
          length = 63
        end
        if has_since and #bytes >= length + 6 then
          stock.limit_since = unpack_bytes('>I6', bytes, length + 1)
          length = length + 6
        end
        if flags % HAS_EARLIEST >= HAS_WITHDRAWN and #bytes >= length + 6 then
          stock.withdrawn = unpack_bytes('>I6', bytes, length + 1)
          length = length + 6
        end
        if flags >= HAS_EARLIEST and #bytes >= length + 6 then
          stock[EARLIEST], stock[FLAGS] = unpack_bytes('>I6', bytes, length + 1), flags - HAS_EARLIEST
          length = length + 6
        end
      end
      if #bytes ~= length or (flags % 4 >= RULED) ~= (stock.rules ~= nil)
        or has_since and not stock.limit_since then
        fail(CORRUPT, 'stock record')
      end
      stocks[skus[i]] = stock
    end
  end
end
-- A limit that the batch sets counts from then on.
local limits
for g = 1, kinds.configure_sku and #groups or 0 do
  local group = groups[g]
  if group.kind == 'configure_sku' and #group.payload > 34
    and bit.band(byte(group.payload), SETS_BUYER_LIMIT) > 0
    and unpack_bytes('>I4', group.payload, 13) > 0 then
    limits, ctx.any_limited = limits or {}, true
    limits[sub(group.payload, 35)] = true
  end
end
for _, lines in pairs(line_sets) do
  for i = 1, lines.n do
    if limits and limits[lines.skus[i]] then lines.limited = true end
    local stock = stocks[lines.skus[i]]
    lines.stocks[i] = stock
    if stock and stock.rules and stock.rules[BUYER_LIMIT] > 0 then lines.limited = true end
  end
end
