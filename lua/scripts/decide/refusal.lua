-- What refuses Reserves; and the fast no: a batch of Reserves that are all refused is answered here, and nothing of
-- what follows is even made. To almost everyone at a sale, that is the answer. Runs for a late commit too, which
-- says in the same words what there is. Works on loaded tables; where it does not answer, it has the records looked
-- up that were not yet.

-- What there is of each line, with what is given back in the same step.
function availability(lines, given_back)
  local numbers = {}
  for i = 1, lines.n do
    local available = lines.stocks[i] and lines.stocks[i][AVAILABLE] or 0
    numbers[i] = pack('>I6', available + (given_back and given_back[lines.skus[i]] or 0))
  end
  return concat(numbers)
end

-- What refuses the whole group, and what it shares; nil if nothing does. And the ttl in force: a SKU's own
-- limit shortens one that was not asked for.
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
          code, shared = AGAIN, '' -- the clock is in doubt, and the sale is open at one of the two instants only
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

-- Not where an identity was heard of before, where something is to be given back first, or where another
-- operation may change what there is.
if ctx.only_reserves and next(records_by_id) == nil and not due[1] and not consumed_entries[1] and not clock_changed and not ctx.is_doubtful and not purged and not (history and history.changed) then
  reply, reply_sequence = { '' }, ctx.sequence
  for g = 1, #groups do
    local group = groups[g]
    local lines = group.lines
    local refusal, shared, ttl = refusal_of(lines, group)
    if not refusal then
      for i = 1, lines.n do
        if lines.stocks[i][AVAILABLE] < lines.quantities[i] then refusal, shared = SHORT, availability(lines) end
      end
    end
    if not refusal then
      reply = nil
      break
    end
    reply[1 + g] = { rep(refusal, group.n), pack('>I6', ttl) .. shared, '' }
  end
end

-- There is something to give: to nobody twice, whatever the caller says of his identities.
if not reply then load_named_records() end
