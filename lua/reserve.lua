-- Reserve: units of all lines, or none. Works on loaded tables through the ledger; no redis.call. Runs
-- for a late commit too, which says in the same words what there is.

-- What refuses the whole group, and what it shares; nil if nothing does.
local function refusal_of(lines, asked_ttl)
  for i = 1, lines.n do
    local stock = lines.stocks[i]
    if not stock then return 'N', char(i) end
    if stock[FLAGS] % 2 == 0 then return 'U', char(i) end
    local rules = stock.rules
    if rules then
      if ctx.now < rules[OPENS] or rules[CLOSES] > 0 and ctx.now >= rules[CLOSES] then
        return 'W', char(i) .. pack('>I6I6', rules[OPENS], rules[CLOSES])
      end
      if rules[MOST_UNITS] > 0 and lines.quantities[i] > rules[MOST_UNITS] then
        return 'M', char(i) .. pack('>I6', rules[MOST_UNITS])
      end
      if rules[LONGEST_TTL] > 0 and asked_ttl > rules[LONGEST_TTL] then
        return 'T', char(i) .. pack('>I6', rules[LONGEST_TTL])
      end
    end
  end
end

-- The ttl in force: a SKU's own limit shortens one that was not asked for.
local function ttl_of(lines, ttl)
  for i = 1, lines.n do
    local rules = lines.stocks[i] and lines.stocks[i].rules
    if rules and rules[LONGEST_TTL] > 0 then ttl = min(ttl, rules[LONGEST_TTL]) end
  end
  if ttl < 1 or ttl > MAX_TTL then malformed('ttl') end
  return ttl
end

-- Whether the stock covers the lines, with what is given back in the same step.
local function fits(lines, given_back)
  for i = 1, lines.n do
    local available = lines.stocks[i][AVAILABLE]
    if given_back then available = available + (given_back[lines.skus[i]] or 0) end
    if available < lines.quantities[i] then return false end
  end
  return true
end

-- What there is of each line, with what is given back in the same step.
function availability(lines, given_back)
  local numbers = {}
  for i = 1, lines.n do
    local available = lines.stocks[i] and lines.stocks[i][AVAILABLE] or 0
    numbers[i] = pack('>I6', available + (given_back and given_back[lines.skus[i]] or 0))
  end
  return concat(numbers)
end

-- Whether this record is what the same request made.
local function is_same(record, buyer, shape, origin)
  local letter = byte(record, 1)
  if letter == MEMO then return false end
  if letter < FIRST_EXTENDED then
    return origin == NO_ORIGIN and sub(record, letter == PENDING and 14 or 20) == buyer .. shape
  end
  local its_buyer, its_shape = buyer_and_shape(record)
  return its_buyer == buyer and its_shape == shape and extension_of(record, lines_of(shape)).origin == origin
end

-- What the hold that is to be replaced gives back: units by SKU, those that count for this buyer,
-- or why it can't be replaced. Nothing if it holds nothing any more.
local function replaced_units(id, buyer)
  local record = known[id]
  if not record or byte(record, 1) == MEMO then return nil, nil, 'X' end
  local state = state_of(record)
  if state == 'C' then return nil, nil, 'C' end
  if state ~= 'P' then return nil, nil end
  local its_buyer, shape = buyer_and_shape(record)
  local lines = lines_of(shape)
  local extension = extension_of(record, lines)
  local amounts = held_amounts(lines, extension)
  local units, counted = {}, {}
  for i = 1, lines.n do
    units[lines.skus[i]] = amounts[i]
    if its_buyer == buyer and extension.counted ~= 0 and counts_line(extension.counted, i) then
      counted[lines.skus[i]] = amounts[i]
    end
  end
  return units, counted
end

-- One after the other, so that the last unit goes to exactly one of the group. Within a group stock
-- only falls: once it is short, all that follow are, with the same numbers.
local function reserve_group(group)
  local shape, ids, lines, target = group.args, group.ids, group.lines, group.target
  local buyers = buyers_of(group)
  local ttl = ttl_of(lines, (unpack_bytes('>I6', group.extra)))
  local deadline = ctx.now + ttl
  local head = pack('>I6I6', deadline, ctx.now)
  local origin = target or NO_ORIGIN
  local is_plain = not target and not lines.limited
  local run

  local refusal, shared = refusal_of(lines, (unpack_bytes('>I6', shape)))
  local codes, reply, taken, n_taken = {}, { '', '' }, {}, 0
  for i = 1, #ids do
    local id, buyer = ids[i], buyers and buyers[i] or NO_BUYER
    local record = known[id]
    local code, detail
    if record then
      if is_same(record, buyer, shape, origin) then code, detail = 'Y', record else code = 'D' end
    elseif refusal then
      code = refusal
    else
      local units, counted, unfit
      if target then units, counted, unfit = replaced_units(target, buyer) end
      if unfit then
        code = unfit
      elseif not fits(lines, units) then
        refusal = ctx.backlog and 'A' or 'S'
        if not ctx.backlog then shared = availability(lines, units) end
        code = refusal
      elseif ctx.record_count >= ctx.quota_records then
        code = 'Q'
      else
        if lines.limited then code, detail = over_limit(lines, buyer, counted) end
        if not code then
          if units then settle(target, 'R', nil, ctx.now) end
          if is_plain then
            run = run or run_of('H', 'P', sub(head, 1, 6), shape, '')
            hold(id, 'P' .. head .. buyer .. shape, lines, run, buyer)
          else
            hold_extended(id, head, buyer, shape, origin)
          end
          ctx.record_count = ctx.record_count + 1
          n_taken = n_taken + 1
          taken[n_taken] = id
          code = units and '+' or 'K'
        elseif ctx.backlog and code == 'I' then
          code, detail = 'A', nil
        end
      end
    end
    codes[i] = code
    if detail then reply[#reply + 1] = detail end
  end
  if n_taken > 0 then watch_deadline(deadline, concat(taken)) end
  reply[1], reply[2] = concat(codes), pack('>I6', ttl) .. (shared or '')
  return reply
end

apply.R, apply.r = reserve_group, reserve_group
