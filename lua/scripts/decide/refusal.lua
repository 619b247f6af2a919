-- The checks that refuse Reserves, and fast rejection: if every Reserve of the batch is refused,
-- this file sets the reply, and the rest of the script is skipped. During a sale this is the most
-- frequent answer. Late commits use `availability` too. Works on loaded tables. Without a fast
-- rejection it loads the records of first attempts.

-- The available units of each line, including those that the same step gives back.
function availability(lines, given_back)
  local numbers = {}
  for i = 1, lines.n do
    local available = lines.stocks[i] and lines.stocks[i][AVAILABLE] or 0
    numbers[i] = pack('>I6', available + (given_back and given_back[lines.skus[i]] or 0))
  end
  return concat(numbers)
end

-- Returns the code that refuses the whole group, or nil; the bytes that the group shares; and the
-- ttl in force. A SKU's own limit shortens a ttl that was not requested.
function refusal_of(lines, group)
  if #group.extra < 6 then fail(MALFORMED, 'extra') end
  local requested_ttl, ttl = unpack_bytes('>I6', group.extra), unpack_bytes('>I6', group.payload)
  local code, shared
  if ctx.gated then return FENCED, '', ttl end
  if ctx.paused then return SALE_PAUSED, '\0', ttl end
  for i = 1, lines.n do
    local stock = lines.stocks[i]
    local rules = stock and stock.rules
    if not stock then
      code, shared = NO_SUCH_SKU, char(i)
      if ctx.emptied then code, shared = FENCED, '' end
    elseif stock[FLAGS] % 2 == 0 then
      code, shared = NOT_PROTECTED, char(i)
    elseif stock.paused then
      code, shared = SALE_PAUSED, char(i)
    elseif rules then
      local day = ctx.now + day_correction
      if day < rules[OPENS] or rules[CLOSES] > 0 and day + doubt >= rules[CLOSES] then
        if day + doubt < rules[OPENS] or rules[CLOSES] > 0 and day >= rules[CLOSES] then
          code, shared = OUTSIDE_WINDOW, char(i) .. pack('>I6I6', rules[OPENS], rules[CLOSES])
        else
          -- The clock is in doubt, and the sale is open at only one of the two instants.
          code, shared = AGAIN, ''
        end
      elseif rules[MOST_UNITS] > 0 and lines.quantities[i] > rules[MOST_UNITS] then
        code, shared = TOO_MANY_UNITS, char(i) .. pack('>I6', rules[MOST_UNITS])
      elseif rules[LONGEST_TTL] > 0 then
        if requested_ttl > rules[LONGEST_TTL] then
          code, shared = TTL_TOO_LONG, char(i) .. pack('>I6', rules[LONGEST_TTL])
        end
        ttl = min(ttl, rules[LONGEST_TTL])
      end
    end
    if code then break end
  end
  if ttl < 1 or ttl > TTL_BOUND then fail(MALFORMED, 'ttl') end
  return code, shared, ttl
end

-- Fast rejection is impossible if a record of an identity is loaded, if due holds are given back
-- first, or if another operation may change the available units.
if ctx.only_reserves and next(records_by_id) == nil and not due[1] and not consumed_entries[1]
  and not clock_changed and not ctx.is_doubtful and not purged and not (history and history.changed) then
  reply, reply_sequence = { '' }, ctx.sequence
  for g = 1, #groups do
    local group = groups[g]
    local lines = group.lines
    local refusal, shared, ttl = refusal_of(lines, group)
    if not refusal then
      for i = 1, lines.n do
        if lines.stocks[i][AVAILABLE] < lines.quantities[i] then
          refusal, shared = SHORT, availability(lines)
        end
      end
    end
    if not refusal then
      reply = nil
      break
    end
    reply[1 + g] = { rep(refusal, group.n), pack('>I6', ttl) .. shared, '' }
  end
end

-- Units may be taken, so the records of first attempts must be loaded too.
if not reply then load_named_records() end
