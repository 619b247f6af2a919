-- Whether units that an operation lacks may still return from due holds. Runs only in a call that
-- leaves due holds for later, or while the clock is in doubt. Works on loaded tables; no redis.call.

-- A SKU without held units has no due hold, and neither has one whose earliest deadline is in the
-- future. While a doubt of the clock decides whether holds are due, every SKU waits.
function ctx.may_return_to(stock)
  return ctx.is_doubtful or stock and stock[HELD] > 0 and stock[EARLIEST] <= ctx.now
end

-- The same for any of these lines: a refusal names the units of all.
function ctx.may_return(lines)
  for i = 1, lines.n do
    if ctx.may_return_to(lines.stocks[i]) then return true end
  end
  return false
end
