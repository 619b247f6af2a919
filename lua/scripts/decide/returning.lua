-- Whether units of a SKU may return that an operation misses: where more holds are due than this call gives back, or the clock is in
-- doubt. Runs in such a call only. Works on loaded tables; no redis.call.

-- A SKU of which no unit is held, or whose earliest deadline is ahead, has no due hold. While a doubt of the clock decides whether
-- holds are due, every SKU waits.
function ctx.may_return_to(stock)
  return ctx.is_doubtful or stock and stock[HELD] > 0 and stock[EARLIEST] <= ctx.now
end

-- The same of any of these lines: a refusal names the units of all.
function ctx.may_return(lines)
  for i = 1, lines.n do
    if ctx.may_return_to(lines.stocks[i]) then return true end
  end
  return false
end
