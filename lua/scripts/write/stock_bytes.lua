-- Encodes a stock record (formats.lua). A pure function; runs where stock may be written or
-- answered.

function stock_bytes(stock)
  local rules, earliest = stock.rules, stock[EARLIEST]
  local has_earliest = earliest > 0 and stock[HELD] > 0 and ctx.format >= FIRST_WITH_EARLIEST
  if has_earliest and not rules and not stock.withdrawn then
    return pack('>I6I6I6I6I6BI6', stock[1], stock[2], stock[3], stock[4], stock[5],
      stock[6] + HAS_EARLIEST, earliest)
  end
  local flags = stock[6] + (has_earliest and HAS_EARLIEST or 0) + (stock.paused and PAUSED or 0)
    + (stock.limit_since and HAS_LIMIT_SINCE or 0)
  local bytes = pack('>I6I6I6I6I6B', stock[1], stock[2], stock[3], stock[4], stock[5], flags)
  if rules then
    bytes = bytes .. pack('>I6I4I6I4I6I6', rules[1], rules[2], rules[3], rules[4], rules[5], rules[6])
  end
  if stock.limit_since then bytes = bytes .. pack('>I6', stock.limit_since) end
  if stock.withdrawn then bytes = bytes .. pack('>I6', stock.withdrawn) end
  if has_earliest then bytes = bytes .. pack('>I6', earliest) end
  return bytes
end
